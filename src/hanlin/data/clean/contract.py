"""What a cleaning step is, and the run of several of them over documents.

    documents ─> unicode ─> controls ─> whitespace ─> boilerplate ─> … ─> length ─> documents
                    │                        │                          └─ Dropped(reason)  counted, with examples
                    └────────────────────────┴─ a changed Document   counted: documents, lines, characters

A step is one file of this folder (or an entry point of the group `hanlin.clean`): a `Config` with its thresholds and
`build(config) -> Step`. Steps are pure: they see one document, and the same document always gives the same answer.
The thresholds are Gopher's (Rae et al. 2021, arXiv:2112.11446, table A1), C4's (Raffel et al. 2020, arXiv:1910.10683,
§2.2) and RefinedWeb's (Penedo et al. 2023, arXiv:2306.01116, appendix G), loosened where ordinary prose or verse in
English or Chinese would not pass; each such place says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from hanlin import config, registry
from hanlin.config import Config
from hanlin.data.tally import Document, Tally, flaw
from hanlin.errors import ConfigError, nearest, problem

KIND = "data.clean"
DEFAULT = ("unicode", "controls", "whitespace", "boilerplate", "length", "repetition", "symbols")


@dataclass(frozen=True)
class Dropped:
    """A document is not worth learning from, and why."""

    reason: str


class Step(Protocol):
    """A pure function of one document."""

    def __call__(self, document: Document) -> Document | Dropped:
        """Return the document itself where nothing changes, a changed one, or why it is dropped."""


@dataclass(frozen=True)
class Named:
    """A step that is ready, the name it is counted under, and what it was told."""

    name: str
    config: Config
    step: Step


def steps(given: Sequence[str | Mapping[str, Any]] = DEFAULT, where: str = "clean") -> tuple[Named, ...]:
    """Return the steps of a recipe, in its order; ConfigError with one line for every problem in it.

    Each is a name, or a name with options: `clean: [unicode, whitespace, {length: {fewest: 200}}]`.
    """
    ready, problems = list[Named](), list[str]()
    for number, each in enumerate(given):
        try:
            ready.append(_step(each, f"{where}.{number}"))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return tuple(ready)


def _step(given: str | Mapping[str, Any], where: str) -> Named:
    """Return one step, ready."""
    known = registry.names(KIND)
    [(name, options)] = given.items() if isinstance(given, Mapping) and len(given) == 1 else [(given, {})]
    if not isinstance(name, str):
        allowed = "expected a step's name, or {name: {option: value}}"
        raise ConfigError(problem(where, f"{given!r}"[:80], allowed))
    if name not in known:
        raise ConfigError(problem(where, f"unknown '{name}'", f"known: {', '.join(known)}", nearest(name, known)))
    module = registry.load(KIND, name)
    chosen = config.parse(module.Config, options or {}, f"{where}.{name}")
    return Named(name, chosen, module.build(chosen))


def record(ready: Sequence[Named]) -> list[dict[str, Any]]:
    """Return the steps with all their options as plain data, in order: what a manifest holds, and `steps` reads."""
    return [{each.name: config.dump(each.config)} for each in ready]


def clean(documents: Iterable[Document], ready: Sequence[Named], tally: Tally) -> Iterator[Document]:
    """Yield what the steps leave of documents that `tally` has counted as kept, and count what they do."""
    for document in documents:
        cleaned = _through(document, ready, tally)
        if cleaned is not None:
            yield cleaned


def _through(document: Document, ready: Sequence[Named], tally: Tally) -> Document | None:
    """Return what the steps leave of one document, or None."""
    for each in ready:
        made = each.step(document)
        if isinstance(made, Document) and made is not document:
            reason = flaw(made.text)
            made = Dropped("nothing left" if reason == "empty" else reason) if reason else made
        if isinstance(made, Dropped):
            tally.remove(f"{each.name}: {made.reason}", document)
            return None
        if made is not document:
            tally.change(each.name, document, made)
            document = made
    return document


def rewritten(document: Document, text: str) -> Document:
    """Return the document with another text, or itself when the text is the same."""
    return document if text == document.text else replace(document, text=text)
