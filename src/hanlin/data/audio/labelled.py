"""Labelled speech: sound with what is said in it, from a folder, an archive, or a list of files.

    folder/  labels.jsonl  a.wav  b.flac                  {"file": "a.wav", "text": "one two", "speaker": "ann"}
    set.tar, set.tar.gz, set.tgz   the same, packed       read in place, nothing of it is ever written to the disk
    clips.jsonl, clips.csv, clips.tsv                     audio,text — files lie beside the list or below it

The sound is named by `audio`, `file` or `path`, the words by `text`, `sentence`, `transcript` or `label`, where no
other names are given. A row that cannot be used is counted in the tally and passed over; a set without any is an error.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hanlin import files
from hanlin.data.audio.read import Limits, Samples, read
from hanlin.data.tally import Tally
from hanlin.errors import DataError, problem

LABELS = "labels.jsonl"
AUDIO, TEXT = ("audio", "file", "path"), ("text", "sentence", "transcript", "label")
LARGEST = 1 << 28  # bytes of one sound in an archive, or of a list
PACKED = (".tar", ".tgz", ".tar.gz")

Row = Mapping[str, Any]
Fetch = Callable[[str], bytes | Path | None]  # a name in a list -> the sound, None where there is no such file


@dataclass(frozen=True, kw_only=True)
class Spoken:
    """One utterance: samples (n,) at 16 kHz, mono, and what is said in them."""

    samples: Samples
    text: str
    source: str  # `set.tar.gz/a.wav`
    speaker: str = ""
    split: str = ""  # "train", "dev", … where the list says so
    meta: Row = field(default_factory=dict)  # the whole row


def rows(
    path: str | Path,
    *,
    audio: str | None = None,
    text: str | None = None,
    split: str | None = None,
    limits: Limits | None = None,
    tally: Tally | None = None,
) -> Iterator[Spoken]:
    """Yield the utterances of a labelled set in the order of its list; DataError when there is none.

    `audio` and `text` name the columns, `split` keeps the rows of one split. A label that is a number is its digits.
    """
    path, tally = Path(path), tally if tally is not None else Tally()
    kept = 0
    with _opened(path) as (listed, fetch):
        for number, row in enumerate(listed, 1):
            if split is not None and row.get("split") != split:
                continue
            source = f"{path.name}:{number}"
            try:
                found = _spoken(row, fetch, (audio,) if audio else AUDIO, (text,) if text else TEXT, limits, path.name)
            except DataError as error:
                tally.drop(error.problems[0].partition(": ")[2], source)
                continue
            kept += 1
            tally.read += 1
            tally.kept += 1
            yield found
    if not kept:
        reasons = [f"{count:,} x {reason}" for reason, count in sorted(tally.dropped.items())][:5]
        raise DataError(problem(str(path), "no utterance to read", *reasons))


def listed(path: str | Path) -> Iterator[tuple[Row, bytes | Path | None]]:
    """Yield the rows of a labelled set as they stand in its list, each with its sound, None where that is missing."""
    with _opened(Path(path)) as (found, fetch):
        for row in found:
            name = next((row[key] for key in AUDIO if isinstance(row.get(key), str) and row[key]), None)
            yield row, None if name is None else fetch(name)


def _spoken(
    row: Row, fetch: Fetch, audio: tuple[str, ...], text: tuple[str, ...], limits: Limits | None, where: str
) -> Spoken:
    """Return the utterance that a row names; DataError saying why there is none."""
    name = next((row[key] for key in audio if isinstance(row.get(key), str) and row[key]), None)
    said = next((row[key] for key in text if isinstance(row.get(key), str | int)), None)
    if name is None or said is None:
        given = f"no column {' or '.join(audio if name is None else text)}"
        raise DataError(problem(where, f"{given}, but: {', '.join(map(str, row))}"[:300]))
    sound = fetch(name)
    if sound is None:
        raise DataError(problem(name, "no such file in the set"))
    samples = read(sound, limits=limits, where=name)
    meta = {key: str(row.get(key) or "") for key in ("speaker", "split")}
    return Spoken(samples=samples, text=str(said), source=f"{where}/{name}", meta=dict(row), **meta)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Iterator[Row], Fetch]]:
    """Yield the rows of a set's list, and what finds the sound that a row names."""
    if path.is_dir():
        yield _listed(path / LABELS), partial(_beside, path)
    elif path.name.lower().endswith(PACKED):
        try:
            with tarfile.open(path) as archive:
                members = {each.name.removeprefix("./"): each for each in archive if each.isreg()}
                fetch = partial(_member, archive, members)
                yield _parsed(fetch(_list_name(members, path)), f"{path}/{LABELS}"), fetch
        except (tarfile.TarError, OSError, EOFError) as error:
            raise DataError(problem(str(path), f"not a readable archive: {error}")) from None
    else:
        yield _listed(path), partial(_beside, path.parent)


def _list_name(members: Mapping[str, tarfile.TarInfo], path: Path) -> str:
    """Return the name of an archive's list; DataError when it has none."""
    if LABELS not in members:
        raise DataError(problem(str(path), f"no {LABELS} in it", f"{len(members):,} other files"))
    return LABELS


def _member(archive: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str) -> bytes | None:
    """Return a member's bytes; DataError when it is larger than any sound should be."""
    info = members.get(name)
    stream = archive.extractfile(info) if info is not None else None
    if info is None or stream is None:
        return None
    if info.size > LARGEST:
        raise DataError(problem(name, f"{info.size:,} bytes", f"at most {LARGEST:,}"))
    return stream.read(LARGEST)


def _beside(folder: Path, name: str) -> Path | None:
    return files.inside(folder, name)


def _listed(path: Path) -> Iterator[Row]:
    """Return the rows of a list on the disk."""
    if not path.is_file():  # a pipe would block for ever
        allowed = f"a folder or archive with {LABELS}, or a list .jsonl, .csv, .tsv"
        raise DataError(problem(str(path), "no such file", allowed))
    if path.stat().st_size > LARGEST:
        raise DataError(problem(str(path), f"{path.stat().st_size:,} bytes", f"at most {LARGEST:,}"))
    return _parsed(path.read_bytes(), str(path))


def _parsed(content: bytes | Path | None, where: str) -> Iterator[Row]:
    """Yield the rows of a list; DataError at the first line that is none."""
    assert isinstance(content, bytes), "a list is read whole"
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(problem(where, f"not UTF-8 at byte {error.start}")) from None
    if where.lower().endswith((".csv", ".tsv")):
        yield from csv.DictReader(io.StringIO(text), delimiter="\t" if where.lower().endswith(".tsv") else ",")
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                raise DataError(problem(f"{where}:{number}", "not a JSON object", do="write one object a line"))
            yield row


def beside(folder: Path, name: object) -> object:
    """Return the path of a file that a table names, where it lies beside the table or below it; else the name."""
    found = _beside(folder, name) if isinstance(name, str) else None
    return name if found is None else str(found)
