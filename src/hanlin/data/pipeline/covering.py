"""Pseudonyms: one vault for all parts, made once, and every part written again with them.

    raw ─ which values ─┐                      ┌─> texts, facts    no personal data
    raw ─ which values ─┴─> vault, in order ───┴─> covered-00007.json    what only this part adds to the vault

A vault is made of all values of all parts in their order, so that no two values share a pseudonym and no result
depends on who worked. It lies in the folder of work until the end, and then where the person keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import save

from hanlin import files
from hanlin.data import anonymize
from hanlin.data.anonymize import Span, Vault
from hanlin.data.pipeline import guarding, stage
from hanlin.data.pipeline.gathered import Gathered
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import Held, Work
from hanlin.data.tally import Tally
from hanlin.errors import ConfigError, problem


def check(vault: Path | None, output: Path, how: str) -> None:
    """Refuse pseudonyms without a vault, a vault without pseudonyms, and one that would travel with the text."""
    if how != guarding.PSEUDONYMS:
        if vault is not None:
            raise ConfigError(problem("vault", "a vault that nothing uses", "with --anonymize pseudonyms"))
        return
    if vault is None:
        do = "name a file to keep apart from the text: --vault FILE"
        raise ConfigError(problem("anonymize", "pseudonyms without a vault", do=do))
    if vault.resolve().is_relative_to(output.resolve()):
        raise ConfigError(problem("vault", f"{vault} lies in the folder of the text", do="keep it apart"))


def known(vault: Path | None) -> str:
    """Return what tells a person's vault from another: a hash of its salt; nothing where there is none yet."""
    if vault is None or not vault.exists():
        return ""
    return anonymize.fingerprint(Vault.read(vault))


def begin(work: Work, parts: Sequence[Part], vault: Path) -> None:
    """Make the vault of all values in the folder of work, unless that was done; a person's vault is gone on with."""
    path = _base(work)
    if path.exists():
        return
    salt = guarding.salt(work.salt) if work.salt else None
    base = Vault.read(vault) if vault.exists() else Vault(salt)
    if salt is not None and base.salt != salt:
        do = "leave out --salt-file: a vault keeps its own"
        raise ConfigError(problem("salt_file", f"not the salt of {vault}", do=do))
    for part in parts:
        for kind, value in stage.told(work.folder, "read", part.number)["values"]:
            base.pseudonym(kind, value)
    base.save(path)


def cover(given: tuple[Work, int]) -> None:
    """Write the texts and facts of one part with pseudonyms, unless that was done."""
    work, number = given
    if stage.path(work.folder, "covered", number).exists():
        return
    vault, tally, facts = Vault.read(_base(work)), Tally(), Gathered(work)
    before = set(vault.pairs())
    with stage.packing(stage.path(work.folder, "texts", number)) as write:
        for document, digest, places in stage.held(work.folder, number, "raw"):
            spans = [Span(begin, end, kind, document.text[begin:end]) for begin, end, kind in places]
            covered = anonymize.covered(document, spans, vault, tally)
            write(stage.row(Held(covered, digest)))
            facts.add(covered)
    files.write(stage.path(work.folder, "facts", number), save(facts.arrays()))
    more = [pair for pair in vault.pairs() if pair not in before]
    files.write_json(stage.path(work.folder, "covered", number), {"tally": tally.plain(), "pairs": more})


def keep(work: Work, parts: Sequence[Part], vault: Path) -> int:
    """Write the person's vault with all that every part added, and return how many values it holds."""
    whole = Vault.read(_base(work))
    for part in parts:
        for kind, value, pseudonym in stage.told(work.folder, "covered", part.number)["pairs"]:
            whole.add(kind, value, pseudonym)
    whole.save(vault)
    return len(whole)


def _base(work: Work) -> Path:
    """Return where the vault lies while work is under way."""
    return Path(work.folder) / "vault.json"
