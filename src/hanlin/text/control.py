r"""Control tokens come from the template, never from what people write.

    a person writes     Hi <|im_end|>
    mark                Hi □|im_end|>                              □ stands for the '<' of a spelled control token
    template            <|im_start|>user\nHi □|im_end|><|im_end|>\n
    code                (0)user\nHi □|im_end|>(1)\n                what is still spelled, the template has made
    encode              ids of  (0)user\nHi <|im_end|>(1)\n        where only (0) and (1) are control tokens

The twin is the tokenizer with (0), (1) … as the spellings of its control tokens: for it, `<|im_end|>` is text like any
other. The stand-ins, and one half of each (n), are noncharacters of Unicode, and text that holds one is refused. The
text is encoded as a whole, so that ids are those of the same text in transformers when nobody spells control tokens.

Added tokens that are not special (`<think>` in some files) are part of the text for everybody.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import tokenizers

from hanlin.errors import ChatError, problem
from hanlin.text.folder import guarded
from hanlin.text.tokenizer import Tokenizer

BLUR = "\ufdd2"
STANDINS = [chr(code) for code in range(0xFDD3, 0xFDEF)]
CODE = "\ufdef"  # the first half of (n); the other is a character of the last private plane
NUMBERS = 0x100000
MOST = 0xFFFE  # the last two characters of the plane are noncharacters
KEPT = re.compile("[\ufdd0-\ufdef]")  # noncharacters, which Unicode keeps for such use inside a program


class Coded(NamedTuple):
    """An encoded text, and where its tokens stand in it."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]  # characters


class Control:
    """The control tokens of a tokenizer, told apart by who wrote them; may be shared by threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Make the twin; ChatError when the control tokens cannot be told apart."""
        added = tokenizer.raw.get_added_tokens_decoder()
        names = sorted((each.content for each in added.values() if each.content), key=len, reverse=True)
        special = {each.content for each in added.values() if each.special}
        self._special = [name for name in names if name in special]
        firsts = sorted({name[0] for name in self._special})
        if len(firsts) > len(STANDINS) or len(special) > MOST or KEPT.search("".join(names)):
            allowed = f"at most {MOST:,}, of at most {len(STANDINS)} first characters, and none of U+FDD0 to U+FDEF"
            raise ChatError(problem("tokenizer", "control tokens of unusual spelling", allowed))
        self._codes = {name: CODE + chr(NUMBERS + place) for place, name in enumerate(self._special)}
        self._stand = dict(zip(firsts, STANDINS, strict=False))
        self._back = str.maketrans({stand: first for first, stand in self._stand.items()})
        self._blur = str.maketrans(dict.fromkeys((each for each in "".join(self._special) if not each.isspace()), BLUR))
        try:
            self._spelled = re.compile(_longest_of(names))
            self._begins = re.compile("|".join(self._openings(firsts)) or "(?!)")
        except RecursionError:
            raise ChatError(problem("tokenizer", "added tokens that begin each other a thousand times over")) from None
        self._prefixes = {name[:end] for name in self._special for end in range(1, len(name))}
        self._longest = max(map(len, self._special), default=0)
        self._twin, self._ids = _twin(tokenizer.raw, self._codes)
        # The token for the unknown controls nothing, and ordinary text may need it.
        self.ids = {id for id, each in added.items() if each.special and id != tokenizer.special.unk}

    def _openings(self, firsts: Iterable[str]) -> Iterator[str]:
        """Yield a pattern for each first character, before what makes it a control token."""
        for first in firsts:
            rests = [name[1:] for name in self._special if name[0] == first]
            yield f"{re.escape(first)}(?={_longest_of(rests)})"

    def mark(self, text: str) -> str:
        """Return a person's text with a stand-in where a control token begins, or could with what follows the text."""
        if not self._special:
            return text
        marked = self._begins.sub(lambda found: self._stand[found[0]], text)
        bare = text.rstrip()  # a template may strip what follows
        for place in range(max(0, len(bare) - self._longest), len(bare)):
            if bare[place:] in self._prefixes:
                marked = marked[:place] + self._stand[text[place]] + marked[place + 1 :]
        return marked

    def blur(self, text: str) -> str:
        """Return a person's text without any character that control tokens are made of; white space stays."""
        return text.translate(self._blur)

    def plain(self, text: str) -> str:
        """Return a text as a person sees it."""
        return text.translate(self._back)

    def code(self, text: str) -> str:
        """Return a text with every control token that it spells as its code."""
        return self._spelled.sub(lambda found: self._codes.get(found[0], found[0]), text) if self._special else text

    def codes(self, text: str) -> list[str]:
        """Return the codes in a coded text, in order."""
        return re.findall(f"{CODE}.", text)

    def encode(self, coded: str) -> Coded:
        """Return the ids of a coded text; ChatError when the tokenizer makes control tokens of ordinary text."""
        with guarded("messages"):
            found = self._twin.encode(self.plain(coded), add_special_tokens=False)
        ids = tuple(self._ids.get(id, id) for id in found.ids)
        if sum(id in self.ids for id in ids) != len(self.codes(coded)):
            raise ChatError(problem("messages", "the tokenizer makes control tokens of ordinary text in them"))
        return Coded(ids, tuple(found.offsets))


def _longest_of(names: Sequence[str]) -> str:
    """Return a pattern for the longest of some names, a tree by first characters: a list is slow for hundreds."""
    heads: dict[str, list[str]] = {}
    for name in filter(None, names):
        heads.setdefault(name[0], []).append(name)
    parts = []
    for alike in heads.values():
        common = os.path.commonprefix(alike)  # noqa: RUF071  # character by character is what is meant
        parts.append(re.escape(common) + _longest_of([name[len(common) :] for name in alike]))
    if not parts:
        return ""
    return f"(?:{'|'.join(parts)})" + ("?" if "" in names else "")


def _twin(raw: tokenizers.Tokenizer, codes: Mapping[str, str]) -> tuple[tokenizers.Tokenizer, dict[int, int]]:
    """Return the tokenizer with codes for control tokens, and its ids of added tokens -> the true ids."""
    bare = {**json.loads(raw.to_str()), "added_tokens": [], "truncation": None, "padding": None}
    twin = tokenizers.Tokenizer.from_str(json.dumps(bare))
    ids = {}
    for id, token in sorted(raw.get_added_tokens_decoder().items()):
        if not token.content:
            continue
        code = codes.get(token.content)
        same = {"lstrip": token.lstrip, "rstrip": token.rstrip}
        if code:
            twin.add_special_tokens([tokenizers.AddedToken(code, special=True, normalized=False, **same)])
        else:
            same |= {"normalized": token.normalized, "single_word": token.single_word}
            twin.add_tokens([tokenizers.AddedToken(token.content, special=False, **same)])
        place = twin.token_to_id(code or token.content)
        assert place is not None
        ids[place] = id
    return twin, ids
