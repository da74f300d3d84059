"""How well personal data is found, by kind and language, and how fast: on a labelled set, and on any text of yours.

python -m benchmarks.corpus.privacy [FILE …]
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin.data.anonymize import find
from hanlin.data.documents import Tally, read

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
PROSE = {
    "en": "The committee met on Tuesday, 14 May 2019, and agreed (by 12 votes to 3) that the report “Water” was due. ",
    "zh": "委员会于2019年5月14日开会，以12票对3票同意：关于水资源的报告（共三章）应当按时完成，并向公众说明理由。",
}


def accuracy(half: str) -> list[list[object]]:
    """Return recall and precision of each kind and language, a finding being right when kind and both ends are."""
    import pii

    lines: list[list[object]] = []
    for language in pii.LANGUAGES:
        gold, found, right = Counter(), Counter(), Counter()
        for case in pii.cases(half, language):
            spans = {(span.start, span.end, span.kind) for span in find(case.text)}
            gold.update(kind for *_, kind in case.spans)
            found.update(kind for *_, kind in spans)
            right.update(kind for *_, kind in spans & set(case.spans))
        for kind in pii.KINDS:
            recall, precision = right[kind] / gold[kind], right[kind] / max(found[kind], 1)
            lines.append([language, kind, gold[kind], found[kind], right[kind], f"{recall:.3f}", f"{precision:.3f}"])
    return lines


def speed(name: str, texts: list[str]) -> list[object]:
    """Return the rate on one core over texts, and what was found in them per megabyte."""
    find(texts[0])
    size = sum(len(text.encode()) for text in texts) / 1e6
    began = time.process_time()
    found = Counter(span.kind for text in texts for span in find(text))
    rate = size / (time.process_time() - began)
    said = ", ".join(f"{kind} {count / size:.2f}" for kind, count in sorted(found.items()))
    return [name, f"{size:.1f}", f"{rate:.1f}", said or "nothing"]


def main() -> None:
    """Print the tables."""
    print(heading("Personal data: found and missed", "python -m benchmarks.corpus.privacy"))
    for half in ("tune", "score"):
        print(f"\nSentences and formats of `{half}`\n")
        print(rows(["language", "kind", "there", "found", "right", "recall", "precision"], accuracy(half)))
    lines = [speed(f"prose, {language}", [text * 40] * 250) for language, text in PROSE.items()]
    for path in sys.argv[1:]:
        lines.append(speed(Path(path).name, [document.text for document in read(path, Tally())]))
    print("\nRate on one core, and findings\n")
    print(rows(["text", "MB", "MB/s", "found per MB"], lines))


if __name__ == "__main__":
    main()
