"""How the next token is chosen: pure functions of the logits, the settings and the step.

    logits ─┬─ adjust ────────────> scores ─ narrow ─────────> some -inf ─ + noise, argmax ─> ids
            │  repetition                    temperature                   (greedy: argmax
            │  presence, frequency           top-k, top-p, min-p            of the scores)
            │  logit_bias, grammar
            └─ log-softmax ───────> the log-probabilities reported: the model's own, before all of this

Noise is Gumbel's, so the argmax is a draw from the softmax (arXiv 1411.0030, section 2). It is a function of (seed,
copy, step, token) alone: nothing is carried from step to step, and no neighbour or batch size changes a draw.
A rounding error of 1e-6 in the logits then changes a token as rarely as it changes a greedy one.

Letters: B rows, V vocab, C candidates left, K alternatives reported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from hanlin.config import Config
from hanlin.generate.constrain import Grammar

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # SplitMix64's three constants, as signed numbers
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_COLDEST = 1e-20  # below, logits over the temperature leave float32


class Sampling(Config):
    """How one prompt is continued; the defaults draw from the model's own distribution."""

    temperature: float = Field(1.0, ge=0)  # 0 is greedy, exactly
    top_k: int = Field(0, ge=0)  # 0 is off
    top_p: float = Field(1.0, gt=0, le=1)
    min_p: float = Field(0.0, ge=0, le=1)  # arXiv 2407.01082
    repetition: float = Field(
        1.0, gt=0
    )  # divides positive, multiplies negative logits of what stands in prompt or output
    presence: float = Field(0.0, ge=-2, le=2)  # taken once from every token of the output
    frequency: float = Field(0.0, ge=-2, le=2)  # taken once for each time the token stands in the output
    logit_bias: Mapping[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100)]] = {}
    limit: int = Field(100, ge=0)  # new tokens
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = Field((), max_length=16)
    n: int = Field(1, ge=1, le=128)  # answers
    logprobs: int | None = Field(None, ge=0, le=20)  # alternatives reported beside each token; 0: the token alone
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)  # None is 0
    grammar: Grammar | None = None  # what the answer has to look like; see generate/constrain.py

    @property
    def penalizes(self) -> bool:
        """Return whether the choice depends on what was written before."""
        return self.repetition != 1 or self.presence != 0 or self.frequency != 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of B rows as columns (B, 1); None where no row uses one."""

    greedy: Tensor | None  # (B,) booleans; None: all rows
    streams: Tensor  # (B,) where each row's noise begins
    temperature: Tensor | None
    top_k: Tensor | None
    rest: Tensor | None  # 1 - top_p; -1 where off
    min_p: Tensor | None  # its logarithm
    repetition: Tensor | None
    presence: Tensor | None
    frequency: Tensor | None
    bias: tuple[Tensor, Tensor, Tensor] | None  # rows, ids, values
    logprobs: int | None  # K, the most that a row asks for

    @classmethod
    def of(cls, each: Sequence[Sampling], copies: Sequence[int], device: torch.device | None = None) -> Settings:
        """Gather one Sampling a row; `copies[b]` tells which of a prompt's n answers row b is."""

        def column(values: list[float], off: float) -> Tensor | None:
            used = any(value != off for value in values)
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None] if used else None

        top_k = column([row.top_k for row in each], 0)
        asked = [row.logprobs for row in each if row.logprobs is not None]
        greedy = torch.tensor([row.temperature == 0 for row in each], device=device)
        seeds = torch.tensor([row.seed or 0 for row in each], device=device)
        return cls(
            greedy=None if all(row.temperature == 0 for row in each) else greedy,
            streams=_split(seeds, torch.tensor(list(copies), device=device)),
            temperature=column([max(row.temperature or 1.0, _COLDEST) for row in each], 1),
            top_k=None if top_k is None else top_k.long(),
            rest=column([1 - row.top_p if row.top_p < 1 else -1 for row in each], -1),
            min_p=column([math.log(row.min_p) if row.min_p else -math.inf for row in each], -math.inf),
            repetition=column([row.repetition for row in each], 1),
            presence=column([row.presence for row in each], 0),
            frequency=column([row.frequency for row in each], 0),
            bias=_bias(each, device),
            logprobs=max(asked) if asked else None,
        )


def _bias(each: Sequence[Sampling], device: torch.device | None) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return (row, id, value) of every biased token, or None when there is none."""
    found = [(b, token, value) for b, row in enumerate(each) for token, value in row.logit_bias.items()]
    if not found:
        return None
    rows, ids, values = zip(*found)
    return torch.tensor(rows, device=device), torch.tensor(ids, device=device), torch.tensor(values, device=device)


@dataclass(frozen=True, kw_only=True)
class History:
    """What the penalties look at: which tokens stand in each row, and how often each was written by the model."""

    seen: Tensor  # (B, V) booleans: prompt and output
    counts: Tensor  # (B, V): output alone

    @classmethod
    def of(cls, prompts: Sequence[Sequence[int]], vocab: int, device: torch.device | None = None) -> History:
        """Start from prompts, nothing written yet."""
        seen = torch.zeros(len(prompts), vocab, dtype=torch.bool, device=device)
        for row, prompt in enumerate(prompts):
            seen[row, torch.tensor(list(prompt), dtype=torch.long, device=device)] = True
        return cls(seen=seen, counts=torch.zeros(seen.shape, device=device))

    def add(self, ids: Tensor) -> None:
        """Count one written token (B,) a row, in place."""
        self.seen.scatter_(1, ids[:, None], True)
        self.counts.scatter_add_(1, ids[:, None], torch.ones_like(self.counts[:, :1]))

    def take(self, rows: Tensor) -> History:
        """Return the history whose row i is row `rows[i]` of this one."""
        return History(seen=self.seen[rows], counts=self.counts[rows])


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The tokens chosen and, where asked for, log-probabilities under the model's own distribution."""

    ids: Tensor  # (B,)
    logprobs: Tensor | None = None  # (B,) of the chosen
    top_ids: Tensor | None = None  # (B, K) the likeliest, best first
    top_logprobs: Tensor | None = None  # (B, K)


def adjust(logits: Tensor, settings: Settings, history: History | None = None) -> Tensor:
    """Return logits (B, V) with the penalties taken off and the biases added.

    Repetition divides what is positive and multiplies what is negative, once for any token of prompt or output
    (CTRL, arXiv 1909.05858); presence and frequency look at the output alone, as OpenAI defines them.
    """
    scores = logits
    if settings.repetition is not None and history is not None:
        tired = torch.where(scores < 0, scores * settings.repetition, scores / settings.repetition)
        scores = torch.where(history.seen, tired, scores)
    if settings.presence is not None and history is not None:
        scores = scores - settings.presence * (history.counts > 0)
    if settings.frequency is not None and history is not None:
        scores = scores - settings.frequency * history.counts
    if settings.bias is not None:
        rows, ids, values = settings.bias
        scores = scores.index_put((rows, ids), values, accumulate=True)
    return scores


def narrow(scores: Tensor, settings: Settings) -> Tensor:
    """Return scores (B, V) over temperature, -inf outside top-k, then top-p, then min-p; at least one token stays.

    Each filter sees what the one before it left, as in transformers. Ties: top-k and min-p keep all that equal the
    last one kept; top-p keeps as few as it may, lower ids first (transformers keeps any).
    """
    if settings.temperature is not None:
        scores = scores / settings.temperature
    if settings.top_k is not None:
        scores = scores.masked_fill(scores < _kth(scores, settings.top_k), -math.inf)
    if settings.rest is not None:
        scores = scores.masked_fill(_outside_nucleus(scores, settings.rest), -math.inf)
    if settings.min_p is not None:
        scores = scores.masked_fill(scores < scores.amax(1, keepdim=True) + settings.min_p, -math.inf)
    return scores


def choose(
    logits: Tensor,
    settings: Settings,
    step: int | Tensor,
    history: History | None = None,
    allowed: Tensor | None = None,
) -> Choice:
    """Return one token a row for logits (B, V); `step`, one number or (B,), counts the tokens drawn before.

    Only tokens that are True in `allowed` (B, V) are chosen, at least one in each row.

    Log-probabilities are of the raw logits, before penalties, biases and temperature, as OpenAI and vLLM report them.
    """
    scores = adjust(logits.float(), settings, history)
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -math.inf)
    ids = scores.argmax(1)
    if settings.greedy is not None:
        drawn = _draw(narrow(scores, settings), settings.streams, step)
        ids = torch.where(settings.greedy, ids, drawn)
    if settings.logprobs is None:
        return Choice(ids=ids)
    sure = logits.float().log_softmax(1)
    top = sure.topk(min(settings.logprobs, sure.shape[1]), dim=1)
    return Choice(ids=ids, logprobs=sure.gather(1, ids[:, None])[:, 0], top_ids=top.indices, top_logprobs=top.values)


def _kth(scores: Tensor, k: Tensor) -> Tensor:
    """Return (B, 1) the k-th largest score of each row, -inf where k is 0."""
    vocab = scores.shape[1]
    best = scores.topk(min(int(k.max()), vocab), dim=1).values
    return best.gather(1, k.clamp(1, best.shape[1]) - 1).masked_fill(k == 0, -math.inf)


def _outside_nucleus(scores: Tensor, rest: Tensor) -> Tensor:
    """Return (B, V) booleans, True on the least likely tokens that together hold at most `rest` of the mass.

    V tokens of at most rest / V hold no more than rest, so only the others, a few hundred, are sorted.
    """
    chances = scores.softmax(1)
    outside = chances <= rest / scores.shape[1]
    left = int((~outside & (rest >= 0)).sum(1).max())
    ids = chances.topk(max(left, 1), dim=1).indices.sort(dim=1, descending=True).values
    ascending, order = chances.gather(1, ids).sort(dim=1, stable=True)
    below = chances.scatter(1, ids, 0.0).sum(1, keepdim=True)
    removed = below + ascending.cumsum(1) <= rest
    removed[:, -1] = False
    return outside.scatter(1, ids.gather(1, order), removed)


def _draw(scores: Tensor, streams: Tensor, step: int | Tensor) -> Tensor:
    """Return (B,) ids drawn from the softmax of scores (B, V); only tokens above -inf are given noise."""
    keys = _split(streams, torch.as_tensor(step, device=scores.device))[:, None]
    left = int((scores > -math.inf).sum(1).max())
    if left > scores.shape[1] // 8:
        return (scores + _gumbel(_split(keys, torch.arange(scores.shape[1], device=scores.device)))).argmax(1)
    best = scores.topk(left, dim=1)
    return best.indices.gather(1, (best.values + _gumbel(_split(keys, best.indices))).argmax(1, keepdim=True))[:, 0]


def _gumbel(bits: Tensor) -> Tensor:
    """Return standard Gumbel numbers, -ln(-ln u), for random int64; the exponential -ln(1 - u) keeps small u exact."""
    u = ((bits >> 1) & (2**63 - 1)).float().mul_(2.0**-63).clamp_(2.0**-63, 1 - 2.0**-24)
    return u.neg_().log1p_().neg_().log_().neg_()


def _split(state: Tensor, index: Tensor) -> Tensor:
    """Return number `index` of the SplitMix64 stream that starts at `state` (Steele, Lea and Flood, OOPSLA 2014)."""
    z = state + (index + 1) * _GOLDEN
    z = (z ^ _shift(z, 30)) * _FIRST
    z = (z ^ _shift(z, 27)) * _SECOND
    return z ^ _shift(z, 31)


def _shift(z: Tensor, by: int) -> Tensor:
    """Shift right as if unsigned: torch has no arithmetic on uint64, and int64 carries its sign down."""
    return (z >> by) & (2 ** (64 - by) - 1)
