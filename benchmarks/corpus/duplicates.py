"""How many planted near duplicates are found, by kind of edit and language, how many others are, and how fast.

HANLIN_DATA=../shared python -m benchmarks.corpus.duplicates

Peers are timed where they are installed: rensa, datasketch.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.table import heading, rows
from hanlin.data import decontaminate
from hanlin.data.duplicates import lines, minhash
from hanlin.data.duplicates.examined import Row
from hanlin.data.tally import Document

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))
import planted  # noqa: E402

PASSAGES = 800
BANDS = [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.01]
Lines = list[list[object]]


def recall(folder: Path) -> tuple[Lines, Lines]:
    """Return lines of recall by kind of edit, and by the share of shingles that original and copy truly have."""
    kinds: Lines = []
    shares, hits = [], []
    for language in planted.SOURCES:
        originals = list(planted.passages(folder, language, PASSAGES))
        by_kind: dict[str, list[str]] = {}
        for number, text in enumerate(originals):
            for kind, copy in planted.copies(text, language, number):
                by_kind.setdefault(kind, []).append(copy)
        for kind, copies in by_kind.items():
            kept = minhash.clusters(minhash.signatures([*originals, *copies]))
            found = kept[len(originals) :] == np.arange(len(originals))
            true = [_share(some, other) for some, other in zip(originals, copies)]
            shares += true
            hits += found.tolist()
            least, middle = min(true), statistics.median(true)
            kinds.append([language, kind, len(copies), f"{least:.2f}", f"{middle:.2f}", f"{found.mean():.4f}"])
    bands: Lines = []
    for low, high in pairwise(BANDS):
        within = [hit for share, hit in zip(shares, hits) if low <= share < high]
        if within:
            bands.append([f"{low:.2f} to {min(high, 1):.2f}", len(within), f"{statistics.mean(within):.4f}"])
    return kinds, bands


def strangers(folder: Path) -> Lines:
    """Return lines of how many texts that are no near duplicates were taken for some."""
    found: Lines = []
    for language in planted.SOURCES:
        for kind, texts in planted.strangers(list(planted.passages(folder, language, PASSAGES))):
            kept = minhash.clusters(minhash.signatures(texts))
            most = max(_share(some, other) for some, other in zip(texts[::2], texts[1::2]))
            wrong = int((kept != np.arange(len(texts))).sum())
            found.append([language, kind, len(texts), f"{most:.2f}", wrong, f"{wrong / len(texts):.4f}"])
    return found


def speed(folder: Path) -> Lines:
    """Return megabytes of text a second, one core: ours at several lengths, then the peers."""
    found: Lines = []
    for language in planted.SOURCES:
        text = "".join(planted.passages(folder, language))
        asked = range(len(text) - 300_000, len(text), 300)  # the last of the text; what is timed is the first
        index = decontaminate.Index(Row(source=f"{at}", texts=(text[at : at + 300],)) for at in asked)
        works: dict[str, Callable[[str], object]] = {
            "minhash.signature": minhash.signature,
            "lines.hashes": lines.hashes,
            "decontaminate.Index.found": lambda each, index=index: index.found(Document(text=each, source="a")),
            **dict(_peers()),
        }
        for name, work in works.items():
            found.append([language, name, *(_rate(work, text, size) for size in (500, 3000, 100_000))])
    return found


def scale() -> Lines:
    """Return seconds and bytes of clustering signatures of which one in four is near another."""
    found: Lines = []
    draw = np.random.Generator(np.random.PCG64(0))
    for count in (10_000, 100_000, 400_000):
        signatures = draw.integers(0, 1 << 16, (count, minhash.SIZE), np.uint16)
        copies = draw.permutation(count)[: count // 4]
        signatures[copies] = signatures[draw.integers(0, count, len(copies))]
        signatures[copies, :: draw.integers(8, 16)] += 1
        began = time.perf_counter()
        kept = minhash.clusters(signatures)
        took = time.perf_counter() - began
        found.append(
            [
                f"{count:,}",
                f"{signatures.nbytes / 1e6:.0f} MB",
                f"{(kept != np.arange(count)).sum():,}",
                f"{took:.2f} s",
            ]
        )
    return found


def _share(some: str, other: str) -> float:
    """Return the share of shingles (Jaccard index) of two texts, exactly."""
    first, second = (np.unique(np.concatenate(list(minhash.shingles(text)))) for text in (some, other))
    both = len(np.intersect1d(first, second, assume_unique=True))
    return both / (len(first) + len(second) - both)


def _rate(work: Callable[[str], object], text: str, size: int) -> str:
    """Return the rate at which texts of a size go through, as a table shows it."""
    pieces = [text[at : at + size] for at in range(0, min(len(text), 2_000_000), size)]
    work(pieces[0])
    done, began = 0, time.process_time()
    for piece in pieces:
        work(piece)
        done += len(piece.encode())
        if time.process_time() - began > 3:
            break
    return f"{done / 1e6 / (time.process_time() - began):.1f}"


def _peers() -> Iterator[tuple[str, Callable[[str], object]]]:
    """Yield the peers that are installed, each with what it does to a text; their shingles are built as they advise."""
    try:
        from rensa import RMinHash

        def rensa(text: str) -> object:
            made = RMinHash(num_perm=minhash.SIZE, seed=0)
            made.update([text[at : at + minhash.LETTERS] for at in range(len(text))])
            return made.digest()

        yield "rensa, 256 permutations", rensa
    except ImportError:
        pass
    try:
        from datasketch import MinHash

        def datasketch(text: str) -> object:
            made = MinHash(num_perm=minhash.SIZE)
            made.update_batch([text[at : at + minhash.LETTERS].encode() for at in range(len(text))])
            return made

        yield "datasketch, 256 permutations", datasketch
    except ImportError:
        pass


def main() -> None:
    """Print the tables."""
    folder = Path(os.environ.get("HANLIN_DATA", ROOT.parent / "shared"))
    print(heading("Near duplicates", "python -m benchmarks.corpus.duplicates"))
    kinds, bands = recall(folder)
    print("Planted copies found, threshold 0.8; least and median share of shingles that copy and original have\n")
    print(rows(["language", "edit", "copies", "least", "median", "found"], kinds))
    print("\nThe same by that share\n")
    print(rows(["share", "copies", "found"], bands))
    print("\nTexts that are no near duplicates, taken for some\n")
    print(rows(["language", "kind", "texts", "largest share", "wrong", "rate"], strangers(folder)))
    print("\nMB/s of text, one core, by characters of a text\n")
    print(rows(["language", "work", "500", "3,000", "100,000"], speed(folder)))
    print("\nClusters of signatures, one in four a copy\n")
    print(rows(["texts", "signatures", "dropped", "time"], scale()))


if __name__ == "__main__":
    main()
