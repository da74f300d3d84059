"""The first stage: the documents of one part, read, cleaned, without what must not be learned, and the facts of each.

files ─ read ─ clean ─ in an evaluation file? ─ personal data? ─> texts, facts
                        └─> leaks-00007.jsonl     └─ mask, hash: replaced here; pseudonyms: marked, for covering.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from safetensors.numpy import save

from hanlin import files
from hanlin.data import documents, localdocs
from hanlin.data.clean import contract as cleaning
from hanlin.data.duplicates import copies
from hanlin.data.pipeline import guarding, remote, stage
from hanlin.data.pipeline.gathered import Gathered
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import Held, Work
from hanlin.data.tally import Document, Tally


def read(given: tuple[Work, Part]) -> None:
    """Read and clean one part, unless that was done."""
    work, part = given
    if stage.path(work.folder, "read", part.number).exists():
        return
    tally, known, facts = Tally(), dict[str, str | None](), Gathered(work)
    leaks, personal = guarding.Leaks(work), guarding.Personal(work)
    steps = cleaning.steps(work.clean)
    waits = work.anonymize == guarding.PSEUDONYMS
    with stage.packing(stage.path(work.folder, "raw" if waits else "texts", part.number)) as write:
        for document in _documents(work, part, tally, known):
            digest = copies.digest(document.text).hex()
            for cleaned in cleaning.clean([document], steps, tally):
                clear = leaks.without(cleaned, tally)
                if clear is None:
                    continue
                covered, spans = personal.covered(clear, tally)
                write(stage.row(Held(covered, digest, spans)))
                if not waits:
                    facts.add(covered)
    if leaks:
        listed = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in leaks.found)
        files.write(stage.path(work.folder, "leaks", part.number), listed.encode(errors="backslashreplace"))
    if not waits:
        files.write(stage.path(work.folder, "facts", part.number), save(facts.arrays()))
    personal.hide(tally)
    account = {"tally": tally.plain(), "personal": personal.counts.report(), "files": known, "values": personal.values}
    files.write_json(stage.path(work.folder, "read", part.number), account)


def counted(work: Work, parts: Sequence[Part], kind: str, tally: Tally) -> None:
    """Add to `tally` what a stage has counted, in the order of the parts."""
    for part in parts:
        tally.merge(stage.account(work.folder, kind, part.number))


def _documents(work: Work, part: Part, tally: Tally, known: dict[str, str | None]) -> Iterator[Document]:
    """Yield the documents of a part as they stand in its files; `known` gets the hash of each file that begins here."""
    if part.corpus is not None:
        yield from localdocs.corpus(part.corpus, tally, field=work.field, limit_bytes=part.limit_bytes)
    for piece in part.pieces:
        with remote.here(piece, Path(work.folder)) as local:
            if not piece.start:
                known[piece.name] = documents.sha256(local)
            yield from documents.of(local, tally, field=work.field)
