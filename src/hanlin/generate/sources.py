"""What answers to prompts begin with: decoders continue a prompt, encoder–decoders answer it.

    decoder            prompt ─ ids ───────────────────────────> continued
    encoder–decoder    prompt ─ ids ─ encode ─> memory ─┐
                       the model's opening, else BOS …  ┴──────> written

Letters: B prompts, S tokens of the longest source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch

from hanlin.batch import Tokens
from hanlin.errors import DataError, problem
from hanlin.generate.prefill import evaluating, right_padded
from hanlin.models.contract import Encodes, Memory, Model
from hanlin.text.tokenizer import Tokenizer


class Begun(NamedTuple):
    """What generation takes."""

    prompts: Sequence[Sequence[int]]
    memory: Memory | None


def reads(model: Model[Any]) -> bool:
    """Return whether a prompt is a source that the model answers, not a text that it continues."""
    return isinstance(model, Encodes)


def opening(model: Model[Any], tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the tokens that an answer to a source begins with: the model's own, else `first`."""
    return model.config.opening or (first(tokenizer),)


def first(tokenizer: Tokenizer) -> int:
    """Return BOS, CLS, EOS or PAD, the first that a tokenizer has; DataError where it has none."""
    special = tokenizer.special
    found = [each for each in (special.bos, special.cls, special.eos, special.pad) if each is not None]
    if not found:
        raise DataError(problem("tokenizer", "no BOS, CLS, EOS or PAD token", do="train it with one"))
    return found[0]


def withheld(model: Model[Any], choices: Mapping[str, Any], *, beams: bool) -> dict[str, Any]:
    """Return choices with the tokens that a model which answers a source was told never to write.

    What the caller says of a token holds; a draw does not know `never_first`.
    """
    if not reads(model):
        return dict(choices)
    never, never_first = model.config.never, model.config.never_first
    if beams:
        return {"suppress": never, "suppress_first": never_first, **choices}
    given = choices.get("logit_bias")
    if given is not None and not isinstance(given, Mapping):
        return dict(choices)  # refused by name, as everywhere
    return {**choices, "logit_bias": {**dict.fromkeys(never, -100.0), **(given or {})}}


def before(model: Model[Any], tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    """Return the most tokens that stand before an answer in the decoder."""
    if reads(model):
        return len(opening(model, tokenizer))
    return max((len(tokenizer.prompt(text)) for text in texts), default=0)


@torch.inference_mode()
def begun(model: Model[Any], tokenizer: Tokenizer, texts: Sequence[str]) -> Begun:
    """Return the ids of every prompt, or openings and what was read of the sources (B, S).

    DataError names a source that has more tokens than the model's context.
    """
    if not isinstance(model, Encodes) or not texts:
        return Begun([tokenizer.prompt(text) for text in texts], None)
    context = model.config.context
    sources = [each.ids for each in tokenizer.encode_batch(texts)]
    for number, source in enumerate(sources):
        if not 0 < len(source) <= context:
            raise DataError(problem(f"prompt {number}", f"{len(source):,} tokens", f"1 to {context:,}, the context"))
    ids, layout = right_padded(sources, model.device)
    with evaluating(model):
        memory = model.encode(Tokens(ids=ids, layout=layout))
    return Begun([opening(model, tokenizer)] * len(texts), memory)
