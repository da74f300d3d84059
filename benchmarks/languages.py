"""One model of two languages: bits a byte of `zh-en-mini` by language and by kind of text, beside xz, and samples.

python -m benchmarks.languages [--run runs/languages]      HANLIN_DATA names the folder that holds data/

xz has a window of 64 MB; primed, it has read all training text of that language first.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin import api
from hanlin.data import documents
from hanlin.data.tally import Tally
from hanlin.train import recipe
from hanlin.verbs import evaluate, train

RECIPE, FIELD = "zh-en-mini", "text,paragraphs"
TEXTS = {
    "Chinese": ("zh_classics", "zh_poetry", "zh_wiki"),
    "English": ("tinystories", "wiki_en", "brown"),
}
PROMPTS = ("话说", "宝玉道：", "明月", "北京市", "Once upon a time", "The city of", "He said")


def texts(patterns: list[str]) -> bytes:
    """Return the text of all documents that patterns match."""
    found = [each.text for pattern in patterns for each in documents.read(pattern, Tally(), field=FIELD)]
    return "\n".join(found).encode()


def packed(content: bytes) -> int:
    """Return how many bytes xz makes of some."""
    return len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))


def line(run: Path, name: str, held: list[str], learned: list[str]) -> list[str]:
    """Return a row: what the model needs for a byte of the held-out texts, and what xz needs."""
    bits, total, intervals = 0.0, 0, []
    for each in held:
        scores = evaluate.evaluate(evaluate.Config(model=str(run), data=each, field=FIELD))
        bounds = scores.bits_per_byte
        bits, total = bits + scores.bits_per_byte.value * scores.bytes, total + scores.bytes
        intervals.append(f" ({bounds.low:.3f} to {bounds.high:.3f})" if bounds.n > 1 else "")  # of documents
    plain, known = texts(held), texts(learned)
    primed = packed(known + plain) - packed(known)
    interval = intervals[0] if len(intervals) == 1 else ""
    return [
        name, f"{total:,}", f"{bits / total:.3f}{interval}", f"{8 * packed(plain) / len(plain):.3f}",
        f"{8 * primed / len(plain):.3f}",
    ]  # fmt: skip


def main() -> None:
    """Train where that was not done; print the table and the samples."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/languages"))
    given = parser.parse_args()
    folder = Path(os.environ.setdefault("HANLIN_DATA", "../shared")) / "data" / "lm"
    if not (given.run / "hanlin.json").exists():
        train.learn(recipe.load(RECIPE), given.run)
    lines = []
    for language, names in TEXTS.items():
        held = {name: str(folder / name / "*valid*") for name in names}
        learned = {name: str(folder / name / "*train*") for name in names}
        lines.append(line(given.run, f"**{language}**", [*held.values()], [*learned.values()]))
        lines += [line(given.run, name, [held[name]], [learned[name]]) for name in names]
    print(heading("Bits a byte by language", "python -m benchmarks.languages"))
    print(rows(["held-out text", "bytes", "zh-en-mini", "xz", "xz, primed"], lines))
    model = api.load(str(given.run))
    said = model.generate(list(PROMPTS), limit=50, temperature=0.8, top_p=0.9, seed=1)
    print("\nSamples\n")
    print("\n".join(f"- {json.dumps(prompt + text, ensure_ascii=False)}" for prompt, text in zip(PROMPTS, said)))


if __name__ == "__main__":
    main()
