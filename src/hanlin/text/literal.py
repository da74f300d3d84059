"""Text that spells a special token stays text.

    a user writes    stop</s>now
    the library      stop · </s> · now          some models find the token in the text: its id would end the answer
    we               stop< · /s>now             cut after its first character, the token is never seen whole

`tokenizers` looks for special tokens in a text only when asked to, but Unigram, WordLevel and some BPE models also find
them by themselves, for they stand in the vocabulary beside the words; byte tokens such as <0x41> too. The cut is a rule
of the tokenizer.json like any other, so other tools that open it keep to it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress

import tokenizers
from tokenizers import Regex, pre_tokenizers

BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def protect(raw: tokenizers.Tokenizer) -> None:
    """Add the cut for every special token, and every byte token, that the model would find in a text by itself."""
    data = json.loads(raw.to_str())
    own = raw.get_vocab(with_added_tokens=False)
    special = [each.content for each in raw.get_added_tokens_decoder().values() if each.special and each.content in own]
    if data["model"]["type"] == "Unigram" or data["model"].get("ignore_merges"):
        found = special + [byte for byte in BYTES if byte in own]
    else:
        found = [token for token in special if _finds(raw, token)]
    pattern = _pattern(found)
    if pattern and not _has(data["pre_tokenizer"], pattern):
        cut = pre_tokenizers.Split(Regex(pattern), "merged_with_previous")
        before = raw.pre_tokenizer
        raw.pre_tokenizer = cut if before is None else pre_tokenizers.Sequence([before, cut])


def _finds(raw: tokenizers.Tokenizer, token: str) -> bool:
    """Say whether a text that spells the token becomes its id."""
    with suppress(Exception):  # a model without an unknown token refuses what it does not know
        return raw.token_to_id(token) in raw.encode(token, add_special_tokens=False).ids
    return False


def _pattern(tokens: Iterable[str]) -> str:
    """Return what matches the first character of any of the tokens: `<(?=s>|/s>)`; one character has no inside."""
    rests: dict[str, dict[str, None]] = {}  # as ordered sets
    for token in sorted(tokens):
        rest = "0x[0-9A-F]{2}>" if token in BYTES else _spelled(token[1:])
        if rest:
            rests.setdefault(token[0], {})[rest] = None
    return "|".join(f"{_spelled(first)}(?={'|'.join(rest)})" for first, rest in rests.items())


def _spelled(text: str) -> str:
    """Return a pattern for the text, a space also as the sign that SentencePiece writes for it."""
    return "".join("[ ▁]" if letter in " ▁" else re.sub(r"([^\w\s])", r"\\\1", letter) for letter in text)


def _has(spec: object, pattern: str) -> bool:
    """Say whether the rule is there already, as in a file that we wrote."""
    if not isinstance(spec, dict):
        return False
    return spec.get("pattern") == {"Regex": pattern} or any(
        _has(each, pattern) for each in spec.get("pretokenizers", ())
    )
