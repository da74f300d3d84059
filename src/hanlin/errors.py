"""Everything that can go wrong for a person, as one small tree.

    HanlinError                  one line a problem, exit 1, never a traceback
    ├── ConfigError              a recipe, an option, a config.json
    ├── DataError                a corpus, rows, shards
    ├── TokenizerError           a tokenizer file, or text it cannot take
    ├── ChatError                a chat template or a conversation
    ├── BundleError              a model folder: missing, unsafe, damaged, unknown
    ├── HubError                 a hub repository that is not there or not whole
    ├── CheckpointError          training state that cannot be used
    ├── RunError                 a run that cannot go on: NaN loss, locked or foreign output folder, full disk
    ├── AbilityError             asked of a model what its family cannot do
    └── MissingExtra             an optional dependency that is not installed
    Stopped                      Ctrl-C or SIGTERM, after the state was saved: exit 130 or 143

A problem reads `where: what was given; what is allowed; nearest match; what to do`.
User mistakes raise these; `assert` is for ours.
"""

from __future__ import annotations

from collections.abc import Iterable


class HanlinError(Exception):
    """One or more problems a person can act on; `problems` holds one line each."""

    def __init__(self, *problems: str) -> None:
        """Keep the problems in the order found."""
        super().__init__("\n".join(problems))
        self.problems = problems


class ConfigError(HanlinError):
    """A recipe, an option or a config.json asks for something that cannot be."""


class DataError(HanlinError):
    """A corpus, a row or a shard cannot be read or used."""


class TokenizerError(HanlinError):
    """A tokenizer file cannot be read, or text cannot be encoded by it."""


class ChatError(HanlinError):
    """A chat template, or messages for it, cannot be used."""


class BundleError(HanlinError):
    """A model folder is missing something, unsafe, damaged, or of an unknown kind."""


class HubError(HanlinError):
    """A hub repository or revision cannot be fetched."""


class CheckpointError(HanlinError):
    """Training state cannot be read, or does not belong to this run."""


class RunError(HanlinError):
    """A run cannot start or go on."""


class AbilityError(HanlinError):
    """The model's family cannot do what was asked."""


class MissingExtra(HanlinError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, module: str, extra: str) -> None:
        """Name the missing module and the extra that installs it."""
        super().__init__(f"{module}: not installed; run: pip install 'hanlin[{extra}]'")
        self._named = module, extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        """Return how another process makes it again."""
        return type(self), self._named


class Stopped(Exception):  # not an error: the person asked for it
    """The run was asked to stop and has saved its state; `code` is the exit status (130 Ctrl-C, 143 SIGTERM)."""

    def __init__(self, code: int, said: str) -> None:
        """Keep the exit status and the sentence to print."""
        super().__init__(said)
        self.code = code


def problem(where: str, given: str, allowed: str = "", near: str | None = None, do: str = "") -> str:
    """Return one line of the form `where: given; allowed; did you mean 'near'?; do`, leaving out what is empty.

    >>> problem("plan.steps", "unknown key 'stepz'", near="steps")
    "plan.steps: unknown key 'stepz'; did you mean 'steps'?"
    """
    parts = [given, allowed, f"did you mean '{near}'?" if near else "", do]
    line = f"{where}: " + "; ".join(part for part in parts if part)
    return " ".join(line.split())


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice most like `word`, or None when none is close."""
    import difflib

    found = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return found[0] if found else None
