"""Bits per byte on real text after a five-minute run each, beside xz.

python -m benchmarks.perplexity [--minutes 5] [--output FOLDER]      HANLIN_DATA names the folder that holds data/
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import os
import re
import tempfile
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin import api
from hanlin.train import recipe
from hanlin.verbs import evaluate, train


def english(data: Path, folder: Path) -> None:
    """Write Wikipedia articles and the Brown corpus to learn from; WikiText-2's validation articles to score."""
    articles = (data / "lm/wiki_en/train.txt").read_text(encoding="utf-8").splitlines()
    brown = [json.loads(line)["text"] for line in _unpacked(data / "lm/brown/train.jsonl.gz").splitlines()]
    held = _unpacked(data / "lm/wikitext2/valid.txt.gz")
    _write(folder / "train.jsonl", articles + brown)
    _write(folder / "valid.jsonl", [each for each in re.split(r"(?m)^(?= = [^=])", held) if each.strip()])


def chinese(data: Path, folder: Path) -> None:
    """Write four classic novels, their first nine tenths to learn from, the next twentieth to score."""
    train_, valid = [], []
    for path in sorted((data / "lm/zh_classics").glob("*.train.txt.gz")):
        train_.append(_unpacked(path))
        name = path.name.replace(".train.txt.gz", ".valid.txt")
        valid += re.findall(r"(?s).{1,2000}", path.with_name(name).read_text(encoding="utf-8"))
    _write(folder / "train.jsonl", train_)
    _write(folder / "valid.jsonl", valid)


def _unpacked(path: Path) -> str:
    return gzip.decompress(path.read_bytes()).decode()


def _write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": each}, ensure_ascii=False) + "\n" for each in texts), encoding="utf-8")


def _texts(path: Path) -> bytes:
    return "".join(json.loads(line)["text"] for line in path.open(encoding="utf-8")).encode()


def _xz(folder: Path) -> tuple[float, float]:
    """Return xz's bits a byte on the held-out text: alone, and after the training text."""

    def size(content: bytes) -> int:
        return len(lzma.compress(content, preset=9 | lzma.PRESET_EXTREME))

    held, known = _texts(folder / "valid.jsonl"), _texts(folder / "train.jsonl")
    return 8 * size(held) / len(held), 8 * (size(known + held) - size(known)) / len(held)


def score(name: str, folder: Path, minutes: float, prompts: list[str]) -> tuple[list[str], list[str]]:
    """Train, score and sample one corpus; return a row of the table and the samples."""
    run = folder / "run"
    chosen = [f"data.train={folder}/train.jsonl", f"data.valid={folder}/valid.jsonl", "data.limit_bytes=null"]
    train.learn(recipe.load("demo", [*chosen, f"plan.minutes={minutes}"]), run)
    scores = evaluate.evaluate(evaluate.Config(model=str(run)))
    bits = scores.bits_per_byte
    plain, primed = _xz(folder)
    model = api.load(str(run))
    texts = model.generate(prompts, limit=60, temperature=0.7, top_p=0.9, seed=1)
    samples = [f"- {name}: {json.dumps(a + b, ensure_ascii=False)}" for a, b in zip(prompts, texts)]
    interval = f"{bits.low:.3f} to {bits.high:.3f}, {bits.n} documents"
    return [name, f"{bits.value:.3f} ({interval})", f"{plain:.3f}", f"{primed:.3f}", f"{scores.bytes:,}"], samples


def main() -> None:
    """Print the table and the samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--output", type=Path, default=None, help="keep the runs here")
    given = parser.parse_args()
    data = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data"
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.output or Path(scratch)
        english(data, folder / "en")
        chinese(data, folder / "zh")
        found = [
            score("WikiText-2 valid", folder / "en", given.minutes, ["The ", "In 1990 , "]),
            score("zh_classics valid", folder / "zh", given.minutes, ["话说", "宝玉道："]),
        ]
    print(heading("Bits per byte on real text", f"python -m benchmarks.perplexity --minutes {given.minutes:g}"))
    print(rows(["text", "model", "xz", "xz, primed", "bytes"], [line for line, _ in found]))
    print("\nSamples\n")
    print("\n".join(line for _, lines in found for line in lines))


if __name__ == "__main__":
    main()
