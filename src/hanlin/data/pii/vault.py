"""What stands for what: the one file that can undo pseudonyms, kept apart from the text.

    original ──HMAC(salt, kind, value)──> number ──fake──> pseudonym      the same value, the same pseudonym
             <────────────── vault ──────────────────────                taken already: the next number

Numbers come from the salt and the value alone, so that workers with one salt agree but where fakes ran out.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hanlin import files
from hanlin.data.pii.contract import Span, kinds, same_value
from hanlin.errors import DataError, problem

START = 3  # characters by which a pseudonym is recognised; none is shorter
TURNS = 64  # fakes tried before a numbered mark is taken
SCHEMA = 1


class Vault:
    """Originals and their pseudonyms; hold it back from whoever gets the text."""

    def __init__(self, salt: bytes | None = None, pairs: Iterable[tuple[str, str, str]] = ()) -> None:
        """Begin with `salt` (random: pseudonyms nobody can repeat) and (kind, original, pseudonym) triples."""
        self.salt = secrets.token_bytes(32) if salt is None else salt
        self._fakes: dict[tuple[str, str], str] = {}
        self._originals: dict[str, str] = {}
        self._lengths: dict[str, list[int]] = {}  # first characters -> lengths of pseudonyms, longest first
        for kind, original, pseudonym in pairs:
            self._keep(kind, original, pseudonym)

    def __len__(self) -> int:
        """Return the number of originals."""
        return len(self._originals)

    @classmethod
    def read(cls, path: Path) -> Vault:
        """Return the vault of a file; DataError when it is none."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            pairs = [(str(kind), str(old), str(new)) for kind, old, new in data["pairs"]]
            if data["schema"] != SCHEMA or any(len(new) < START for _, _, new in pairs):
                raise ValueError
            return cls(bytes.fromhex(data["salt"]), pairs)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            do = "give the file that anonymizing wrote"
            raise DataError(
                problem(str(path), "not a vault", "expected JSON with schema 1, salt, pairs", do=do)
            ) from None

    def save(self, path: Path) -> None:
        """Write the vault, atomically, readable by its owner alone."""
        with _private():
            files.write_json(path, {"schema": SCHEMA, "salt": self.salt.hex(), "pairs": self.pairs()})

    def pairs(self) -> list[tuple[str, str, str]]:
        """Return (kind, original, pseudonym) of all, as the constructor takes them."""
        pairs = [(kind, old, new) for (kind, old), new in self._fakes.items()]
        known = {new for _, _, new in pairs}
        return pairs + [("", old, new) for new, old in self._originals.items() if new not in known]

    def add(self, kind: str, original: str, pseudonym: str) -> None:
        """Take in a pair that another vault of the same salt has found; DataError when it stands for something else."""
        if self._originals.get(pseudonym, original) != original:
            raise DataError(problem("vault", f"'{pseudonym}' stands for two values", do="use another salt"))
        self._keep(kind, original, pseudonym)

    def pseudonym(self, kind: str, original: str, text: str = "") -> str:
        """Return what stands for `original`: always the same, no other's, and nothing that occurs in `text`."""
        known = self._fakes.get((kind, original))
        return known or self._keep(kind, original, self._new(kind, original, text))

    def replacements(self, text: str, spans: Sequence[Span]) -> list[tuple[Span, str]]:
        """Return what to put in the place of each span, and of what only looks like a pseudonym of this vault.

        `restore` is certain to undo them: where neighbours would blur a pseudonym, numbered marks are used.
        """
        every = sorted((*spans, *self._lookalikes(text, spans)))
        chosen = [(span, self.pseudonym(span.kind, span.text, text)) for span in every]
        for turn in range(TURNS):
            if self.restore(written(text, chosen)) == text:
                return chosen
            chosen = [(span, self._keep("", span.text, self._mark(span, text, turn))) for span in every]
        raise AssertionError("marks of 64 random bits met again and again")

    def restore(self, text: str) -> str:
        """Return the text with every pseudonym taken back."""
        parts, done = [], 0
        for start, end in self._occurrences(text):
            parts += [text[done:start], self._originals[text[start:end]]]
            done = end
        return "".join([*parts, text[done:]])

    def _new(self, kind: str, original: str, text: str) -> str:
        """Return a fake that is free; a numbered mark where the kind has none left, or no fakes at all."""
        maker = kinds().get(kind)
        same = same_value(original)
        for turn in range(TURNS if maker else 0):
            assert maker is not None
            fake = maker.fake(original, self._number(kind, same, turn), turn)
            if len(fake) >= START and fake not in self._originals and fake != original and fake not in text:
                return fake
        return self._mark(Span(0, 0, kind, original), text, 0)

    def _mark(self, span: Span, text: str, turn: int) -> str:
        """Return a numbered mark that no text holds by chance."""
        while True:
            mark = f"[{span.kind.upper()}:{self._number(f'mark {span.kind}', span.text, turn):016x}]"
            if mark not in text and self._originals.get(mark, span.text) == span.text:
                return mark
            turn += TURNS

    def _number(self, kind: str, value: str, turn: int) -> int:
        """Return 64 bits that only the salt's owner can tell from the value."""
        said = "\0".join((kind, value, str(turn))).encode("utf-8", "surrogatepass")
        return int.from_bytes(hmac.digest(self.salt, said, "sha256")[:8], "big")

    def _keep(self, kind: str, original: str, pseudonym: str) -> str:
        """Remember a pair and return the pseudonym; kind "" is kept for the way back only."""
        if kind:
            self._fakes[kind, original] = pseudonym
        self._originals[pseudonym] = original
        lengths = self._lengths.setdefault(pseudonym[:START], [])
        if len(pseudonym) not in lengths:
            lengths.append(len(pseudonym))
            lengths.sort(reverse=True)
        return pseudonym

    def _occurrences(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield where pseudonyms stand, leftmost and longest first."""
        lengths, done = self._lengths, 0
        for start in range(len(text) if lengths else 0):
            if start < done or text[start : start + START] not in lengths:
                continue
            for length in lengths[text[start : start + START]]:
                if text[start : start + length] in self._originals:
                    done = start + length
                    yield start, done
                    break

    def _lookalikes(self, text: str, spans: Sequence[Span]) -> Iterator[Span]:
        """Yield pseudonyms of this vault that stood in the text before, outside `spans`."""
        taken = iter(sorted(spans))
        next_ = next(taken, None)
        for start, end in self._occurrences(text):
            while next_ and next_.end <= start:
                next_ = next(taken, None)
            if not next_ or end <= next_.start:
                yield Span(start, end, "lookalike", text[start:end])


def written(text: str, chosen: Iterable[tuple[Span, str]]) -> str:
    """Return the text with each span replaced by its string; spans in order, none overlapping."""
    parts, done = [], 0
    for span, new in chosen:
        parts += [text[done : span.start], new]
        done = span.end
    return "".join([*parts, text[done:]])


@contextmanager
def _private() -> Iterator[None]:
    """Let files made in here be readable by their owner alone, from their first instant."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)
