"""A labelled speech set from local text, read aloud by Debian's espeak-ng: `apt-get install espeak-ng`.

python -m benchmarks.espeak FOLDER [--sentences 5000] [--phrases 2500] [--seed 0]      HANLIN_DATA for the Chinese text

    docstrings of this machine (en)   ─┬─ sentences ─┬─ train   voices × speed × pitch × noise ─> train.jsonl  *.flac
    data/lm/zh_wiki (zh)              ─┘             ├─ dev     the same voices, other sentences ─> dev.jsonl
                                                     └─ voices  other voices, other sentences ─> voices.jsonl

Held-out sentences are chosen by a hash of the sentence, so no seed moves one into training. Prints the sizes, and how
many of the first thousand recordings of each language pass the gate.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import numpy as np
import soundfile

from benchmarks.table import heading, rows
from hanlin.data import localdocs
from hanlin.data.audio import augment, gate
from hanlin.data.audio.read import RATE, read
from hanlin.data.tally import Tally
from hanlin.models.contract import Json

VOICES = {  # espeak-ng's, with a variant after the plus
    "en": ["en-us", "en-us+f3", "en-gb", "en-gb+f2", "en-us+m3", "en-gb-scotland+m5", "en-us+f5", "en-gb+m7"],
    "zh": ["cmn", "cmn+f2", "cmn+m3", "cmn+f4", "cmn+m5", "cmn+m7", "cmn+f5", "cmn+m1"],
}
PARTS = ("train", "dev", "voices")
HELD = 2  # voices of each language, the last ones, that no training hears
SPEEDS = {"en": (150, 220), "zh": (220, 320)}  # espeak-ng's words a minute: about as people talk
NOISE_DB = (15.0, 25.0, 40.0, 80.0)  # below the voice
ENGLISH = re.compile(r"[A-Z][a-z']+(?: [a-z']+){3,11}[.]")
CHINESE = re.compile(r"[\u4e00-\u9fff]{6,12}(?=[，。])")


def english() -> Iterator[str]:
    """Yield plain sentences of the documentation on this machine."""
    for document in localdocs.corpus(localdocs.NAME, Tally(), limit_bytes=30_000_000):
        yield from ENGLISH.findall(document.text)


def chinese(data: Path) -> Iterator[str]:
    """Yield clauses of Chinese Wikipedia that hold nothing but characters."""
    import gzip

    with gzip.open(data / "lm/zh_wiki/train.txt.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield from CHINESE.findall(line)


def side(sentence: str) -> str:
    """Return which part a sentence belongs to: one of ten is held out, half of these for other voices."""
    place = blake2b(sentence.encode(), digest_size=4).digest()[0] % 20
    return {0: "dev", 1: "voices"}.get(place, "train")


def spoken(sentence: str, voice: str, speed: int, pitch: int) -> np.ndarray:
    """Return the samples of a sentence read aloud."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdin", "--stdout"]
    done = subprocess.run(command, input=sentence.encode(), capture_output=True, check=True)
    content = io.BytesIO(done.stdout)  # its header promises 2 GB: it is written before the length is known
    samples, rate = soundfile.read(content, dtype="float32")
    held = io.BytesIO()
    soundfile.write(held, samples, rate, format="WAV", subtype="PCM_16")
    return read(held.getvalue(), where=sentence)


def phrases(sentences: list[str], most: int, draws: np.random.Generator) -> list[str]:
    """Return short pieces of sentences to learn from, one of each: one to three words, two to five characters."""
    found = []
    for sentence in [each for each in sentences if side(each) == "train"][:most]:
        whole = sentence.rstrip(".").split()
        pieces, length = (whole, draws.integers(1, 4)) if len(whole) > 1 else (list(sentence), draws.integers(2, 6))
        start = int(draws.integers(0, max(1, len(pieces) - length)))
        found.append((" " if len(whole) > 1 else "").join(pieces[start : start + int(length)]))
    return found


def record(path: Path, text: str, language: str, part: str, draws: np.random.Generator) -> tuple[Json, float]:
    """Write a recording of a text; return its row and its seconds."""
    voices = VOICES[language][-HELD:] if part == "voices" else VOICES[language][:-HELD]
    voice, speed, pitch = str(draws.choice(voices)), int(draws.integers(*SPEEDS[language])), int(draws.integers(30, 70))
    noise = float(draws.choice(NOISE_DB))
    samples = augment.noisy(spoken(text, voice, speed, pitch), noise, draws)
    soundfile.write(path, np.clip(samples, -1, 1), RATE, subtype="PCM_16")
    row = {"audio": f"{language}/{path.name}", "text": text.rstrip("."), "speaker": voice, "language": language}
    return {**row, "speed": speed, "noise_db": noise, "split": part}, len(samples) / RATE


def make(folder: Path, language: str, sentences: list[str], short: int, seed: int) -> dict[str, list[float]]:
    """Write one language's recordings and lists; return the seconds of each recording by part."""
    (folder / language).mkdir()
    of = (seed, ord(language[0]))
    asked = [(each, side(each)) for each in sentences]
    asked += [(each, "train") for each in phrases(sentences, short, np.random.default_rng(of))]

    def one(number: int) -> tuple[Json, float]:
        path = folder / language / f"{number:05d}.flac"
        return record(path, asked[number][0], language, asked[number][1], np.random.default_rng((*of, number)))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = list(pool.map(one, range(len(asked))))
    lengths: dict[str, list[float]] = {part: [] for part in PARTS}
    for part in PARTS:
        with (folder / f"{part}.jsonl").open("a", encoding="utf-8") as file:
            for row, seconds in made:
                if row["split"] == part:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    lengths[part].append(seconds)
    return lengths


def chosen(found: Iterator[str], most: int) -> list[str]:
    """Return the first distinct sentences in an order that has nothing to do with where they stood."""
    distinct = sorted({*found}, key=lambda each: blake2b(each.encode(), digest_size=8).digest()[::-1])
    return distinct[:most]


def main() -> None:
    """Write the set and print what it holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sentences", type=int, default=5000, help="of each language")
    parser.add_argument("--phrases", type=int, default=2500, help="of each language, cut from sentences to learn from")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        sys.exit("espeak-ng: not installed; run: apt-get install espeak-ng")
    if given.folder.exists():
        sys.exit(f"{given.folder}: stands there already; name another folder")
    given.folder.mkdir(parents=True)
    data = Path(os.environ.get("HANLIN_DATA", "../shared")) / "data"
    lines = []
    for language, found in (("en", english()), ("zh", chinese(data))):
        lengths = make(given.folder, language, chosen(found, given.sentences), given.phrases, given.seed)
        files = sorted((given.folder / language).glob("*.flac"))[:1000]
        passed = np.mean([gate.speaks(read(each)) for each in files])
        for part, seconds in lengths.items():
            lines.append([language, part, len(seconds), f"{sum(seconds) / 60:.1f}", f"{passed:.1%}"])
    print(
        heading(
            "Speech read aloud by espeak-ng",
            f"python -m benchmarks.espeak FOLDER --sentences {given.sentences} --phrases {given.phrases}",
        )
    )
    print(rows(["language", "part", "recordings", "minutes", "pass the gate (language)"], lines))


if __name__ == "__main__":
    main()
