"""What a folder of shards says of how it was made: report.json, and the page that shows it to people.

    the tally, with examples   languages and lengths   the mixture   personal data   contamination   files, with hashes

Nothing in it depends on when, where or by how many processes the work was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from hanlin.config import Config
from hanlin.data.manifest import Split
from hanlin.data.pipeline import remote, stage, tokenizing
from hanlin.data.pipeline.mixing import Mixture
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import Work
from hanlin.data.tally import EXAMPLES, Tally

SCHEMA = 1
NAMED = 1000  # files that are listed one by one
LEAKS = "contaminated.jsonl"  # in the folder of the shards: every document that holds a row of an evaluation file

Json = dict[str, Any]


class Account(Config):
    """What report.json holds."""

    schema_: int = SCHEMA
    hanlin: str
    asked: Mapping[str, Any]
    counts: Mapping[str, Any]  # Tally.report
    excerpts: Mapping[str, tuple[str, ...]]  # reason -> how the first texts that were dropped for it begin
    splits: Mapping[str, Mapping[str, int]]
    languages: Mapping[str, Mapping[str, Any]]  # of what was kept: documents, bytes, lengths: documents of 2^k bytes
    extra: Mapping[str, Any]  # as in the manifest: clean, personal, against, mixture
    files: tuple[Mapping[str, Any], ...]  # the first NAMED that were read
    more_files: int
    all_files: str  # one hash of the names and hashes of all
    hub: Mapping[str, str]  # data set -> commit
    tokenizer: str  # its hash
    shards: Mapping[str, str]  # file -> SHA-256
    data: str  # the hash under which a bundle's lineage names these shards


def account(
    work: Work,
    parts: Sequence[Part],
    tally: Tally,
    extra: Mapping[str, Any],
    asked: Mapping[str, Any],
    made: tuple[Mapping[str, Split], str, str],  # splits, hash of the tokenizer, hash of the data
) -> Account:
    """Return the account of a folder whose shards are written."""
    splits, tokenizer, data = made
    files = list(_files(work, parts))
    joined = json.dumps(files, ensure_ascii=False, sort_keys=True)
    return Account(
        hanlin=version("hanlin"),
        asked=asked,
        counts=tally.report(),
        excerpts={reason: tuple(texts) for reason, texts in sorted(tally.excerpts.items()) if reason in tally.dropped},
        splits={
            name: {"documents": split.documents, "tokens": split.tokens, "bytes": split.bytes}
            for name, split in splits.items()
        },
        languages=_languages(work, parts),
        extra=extra,
        files=tuple(files[:NAMED]),
        more_files=max(0, len(files) - NAMED),
        all_files=hashlib.sha256(joined.encode(errors="backslashreplace")).hexdigest(),
        hub=remote.commits(piece for part in parts for piece in part.pieces),
        tokenizer=tokenizer,
        shards={shard.file: shard.sha256 for split in splits.values() for shard in split.shards},
        data=data,
    )


def extra(work: Work, parts: Sequence[Part], known: Mapping[str, str], mixture: Mixture | None) -> Json:
    """Return what the manifest says beside the tally, where it was asked for."""
    found: Json = {}
    if work.clean:
        found["clean"] = [dict(step) for step in work.clean]
    if work.anonymize:
        found["personal"] = {"how": work.anonymize, **_personal(work, parts)}
    if work.against:
        found["against"] = {"files": {path: known[path] for path in work.against}, **_leaks(work, parts)}
    if mixture:
        found["mixture"] = {
            name: {key: round(value, 6) for key, value in group._asdict().items()}
            for name, group in mixture.groups.items()
        }
    return found


def leaks(work: Work, parts: Sequence[Part]) -> Iterator[str]:
    """Yield a line of JSON for each document that holds a row of an evaluation file."""
    for part in parts:
        yield from stage.path(work.folder, "leaks", part.number).read_text(encoding="utf-8").splitlines(keepends=True)


def _personal(work: Work, parts: Sequence[Part]) -> Json:
    """Return how much personal data was found."""
    total = {"documents": 0, "touched": 0}
    kinds: dict[str, int] = {}
    for part in parts:
        found = stage.told(work.folder, "read", part.number)["personal"]
        for key in total:
            total[key] += found[key]
        for kind, count in found["found"].items():
            kinds[kind] = kinds.get(kind, 0) + count
    return {**total, "found": dict(sorted(kinds.items()))}


def _leaks(work: Work, parts: Sequence[Part]) -> Json:
    """Return how many documents hold rows of evaluation files, how many rows, and the first few."""
    documents, characters, rows, examples = 0, 0, set[str](), list[str]()
    for line in leaks(work, parts):
        each = json.loads(line)
        documents += 1
        characters += each["characters"]
        rows.update(source for source, _ in each["rows"])
        if len(examples) < EXAMPLES:
            examples.append(f"{each['document']} holds {each['rows'][0][0]}")
    counts = {"documents": documents, "rows": len(rows), "characters": characters}
    return {**counts, "removed": work.against_remove, "examples": examples}


def _languages(work: Work, parts: Sequence[Part]) -> dict[str, Json]:
    """Return documents, bytes and lengths of what is kept, each document once, by language; the largest first."""
    found: dict[str, Json] = {}
    for part in parts:
        outline = tokenizing.outline(work.folder, part.number)
        powers = np.log2(np.maximum(outline.sizes, 1)).astype(int).tolist()
        for language, size, power in zip(outline.languages, outline.sizes.tolist(), powers, strict=True):
            each = found.setdefault(language, {"documents": 0, "bytes": 0, "lengths": {}})
            each["documents"] += 1
            each["bytes"] += size
            each["lengths"][power] = each["lengths"].get(power, 0) + 1
    for each in found.values():
        each["lengths"] = {str(power): each["lengths"][power] for power in sorted(each["lengths"])}
    return dict(sorted(found.items(), key=lambda item: (-item[1]["bytes"], item[0])))


def _files(work: Work, parts: Sequence[Part]) -> Iterator[Json]:
    """Yield the files that were read, in order, each with its hash; None for what could not be read."""
    for part in parts:
        for name, digest in stage.told(work.folder, "read", part.number)["files"].items():
            yield {"role": part.role, "name": name, "sha256": digest}
