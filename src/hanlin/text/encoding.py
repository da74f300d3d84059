"""What encoding a text gives, and how it is cut to a length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers

from hanlin.errors import TokenizerError, problem


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """One encoded text, or pair of texts."""

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]  # characters of the original text; (0, 0) for what was added
    words: tuple[int | None, ...]  # which word each token is part of; None for what was added
    kinds: tuple[int, ...]  # 0 for the first text, 1 for the second, or as the tokenizer says
    truncated: int  # tokens cut off


def encoding(raw: tokenizers.Encoding, context: int | None) -> Encoding:
    """Return the library's encoding as ours, cut to `context` tokens."""
    kept: Sequence[int] = range(len(raw.ids))
    if context is not None and len(kept) > context:
        kept = _fit(raw.sequence_ids, context)
    ids, offsets, words, kinds = raw.ids, raw.offsets, raw.word_ids, raw.type_ids
    return Encoding(
        ids=tuple(ids[place] for place in kept),
        offsets=tuple(offsets[place] for place in kept),
        words=tuple(words[place] for place in kept),
        kinds=tuple(kinds[place] for place in kept),
        truncated=len(ids) - len(kept),
    )


def _fit(texts: Sequence[int | None], context: int) -> list[int]:
    """Return the places that stay: what was added, and the beginning of each text, the longer giving way first.

    `texts` says of each place which text it is from, None for what was added.
    """
    if context < 0:
        raise TokenizerError(problem("context", f"{context}", "at least 0"))
    lengths = [texts.count(0), texts.count(1)]
    room = max(0, context - texts.count(None))
    short = lengths.index(min(lengths))
    left = [0, 0]
    left[short] = min(lengths[short], room // 2)
    left[1 - short] = room - left[short]
    kept = []
    for place, which in enumerate(texts):
        if which is None or left[which] > 0:
            kept.append(place)
        if which is not None:
            left[which] -= 1
    return kept[:context]


def require_unicode(*texts: str) -> None:
    """Raise a TokenizerError that names what is no Unicode text."""
    for text in texts:
        if not isinstance(text, str):
            raise TokenizerError(problem("text", f"a {type(text).__name__}", "a str"))
        try:
            text.encode()
        except UnicodeEncodeError as error:
            code = f"U+{ord(text[error.start]):04X}"
            given = f"half a surrogate pair, {code}, at character {error.start}"
            raise TokenizerError(problem("text", given, "Unicode text", do="read the file as UTF-8")) from None
