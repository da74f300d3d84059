"""Sets of recordings as rows: a folder or archive with labels.jsonl, or a table whose files lie beside it or below."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hanlin.data.audio import labelled
from hanlin.tasks import rows
from hanlin.tasks.contract import Raw

AUDIO, TEXT = labelled.AUDIO, labelled.TEXT  # names that columns go by


def read(path: Path) -> Iterator[Raw]:
    """Yield the rows of a set; a recording of an archive comes as its bytes."""
    if path.is_dir() or path.name.lower().endswith(labelled.PACKED):
        for number, (row, sound) in enumerate(labelled.listed(path), 1):
            error = "" if sound is not None else "no such file in the set"
            name = next((key for key in AUDIO if key in row), "audio")
            text = {key: str(row[key]) for key in TEXT if key in row}
            held = sound if isinstance(sound, bytes) else str(sound)
            yield Raw(number=number, values={**row, **text, name: held}, error=error)
        return
    for raw in rows.read(path):
        beside = {key: labelled.beside(path.parent, raw.values[key]) for key in AUDIO if key in raw.values}
        yield Raw(number=raw.number, values={**raw.values, **beside}, error=raw.error)
