"""How likely a model finds tokens that are already there: the loop's other direction, in one forward.

    sequences, longest first     a row is as wide as the longest; what is left of it takes the shortest
    a b c d e f                  a b c d e f
    g h i j                      g h i j n o      (families that pack; others, and rows of one, are padded on the
    k l m                        k l m _ _ _       right, which nothing before it can see)
    n o

Letters: R rows, T tokens, D dim, N scored tokens, V vocab.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hanlin.batch import Layout, move
from hanlin.errors import ConfigError, problem
from hanlin.generate.prefill import evaluating
from hanlin.models.contract import Decodes, Model, require
from hanlin.objectives.cross_entropy import CHUNK_BYTES

Ids = Sequence[int] | NDArray[np.integer[Any]]


@torch.inference_mode()
def score(
    model: Model[Any], sequences: Sequence[Ids], *, prefix: Sequence[int], tokens_per_batch: int = 8192
) -> list[NDArray[np.float64]]:
    """Return, for each sequence, the log-probability of every token after its first `prefix[i]`, one at least.

    A row's numbers do not depend on its company (fp32: 1e-5). A sequence may hold one token more than the model's
    context: the last is only predicted. ConfigError for what is longer or has nothing before the first scored token.
    """
    require(model, Decodes)  # type: ignore[type-abstract]
    _check(model, sequences, prefix)
    found = [np.zeros(0) for _ in sequences]
    # The last token predicts nothing and is not read.
    reads = {index: len(ids) - 1 for index, ids in enumerate(sequences) if len(ids) > prefix[index]}
    with evaluating(model):
        for batch in _batches(reads, tokens_per_batch, model.packs):
            members = [index for row in batch for index in row]
            scored = _logprobs(model, batch, sequences, prefix)
            ends = np.cumsum([len(sequences[index]) - prefix[index] for index in members])
            for index, part in zip(members, np.split(scored, ends[:-1])):
                found[index] = part
    return found


def _batches(reads: dict[int, int], budget: int, packs: bool) -> Iterator[list[list[int]]]:
    """Yield batches of rows of sequence numbers: a row's reads fit the batch's first row, all rows the budget."""
    left = deque(sorted(reads, key=lambda index: -reads[index]))
    while left:
        width = reads[left[0]]
        rows: list[list[int]] = []
        while left and (not rows or (len(rows) + 1) * width <= budget):
            rows.append([left.popleft()])
            free = width - reads[rows[-1][0]]
            while packs and left and reads[left[-1]] <= free:
                rows[-1].append(left.pop())
                free -= reads[rows[-1][-1]]
        yield rows


def _logprobs(
    model: Model[Any], batch: list[list[int]], sequences: Sequence[Ids], prefix: Sequence[int]
) -> NDArray[np.float64]:
    """Return the log-probabilities of one batch, its sequences one after another."""
    width = max(sum(len(sequences[index]) - 1 for index in row) for row in batch)
    tokens = np.zeros((len(batch), width), dtype=np.int64)
    segments = np.zeros((len(batch), width), dtype=np.int64)
    places, targets = [], []
    for at, row in enumerate(batch):
        column = 0
        for number, index in enumerate(row, start=1):
            ids, end = np.asarray(sequences[index], dtype=np.int64), column + len(sequences[index]) - 1
            tokens[at, column:end] = ids[:-1]
            segments[at, column:end] = number
            places.append(np.arange(at * width + column + prefix[index] - 1, at * width + end))
            targets.append(ids[prefix[index] :])
            column = end
    packed = any(len(row) > 1 for row in batch)
    layout = move(Layout.of(torch.from_numpy(segments)), model.device) if packed else None
    hidden = model(torch.from_numpy(tokens).to(model.device), layout=layout).flatten(0, 1)
    wanted = torch.from_numpy(np.concatenate(targets)).to(model.device)
    return _of_targets(model, hidden[torch.from_numpy(np.concatenate(places)).to(model.device)], wanted)


def _of_targets(model: Model[Any], hidden: Tensor, targets: Tensor) -> NDArray[np.float64]:
    """Return the log-probability of targets (N,) after hidden (N, D), logits made a chunk at a time."""
    size = max(1, CHUNK_BYTES // (4 * model.config.vocab))
    parts = []
    for states, wanted in zip(hidden.split(size), targets.split(size)):
        logits = model.logits(states).float()
        parts.append(logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(parts).double().cpu().numpy()


def _check(model: Model[Any], sequences: Sequence[Ids], prefix: Sequence[int]) -> None:
    """Raise ConfigError with every reason why these sequences cannot be scored."""
    context = model.config.context
    problems = []
    if len(prefix) != len(sequences):
        problems.append(problem("prefix", f"{len(prefix)} for {len(sequences)} sequences", "one each"))
    for index, (ids, first) in enumerate(zip(sequences, prefix)):
        where = f"sequence {index}"
        if first < 1:
            problems.append(problem(where, f"prefix {first}", "at least 1: the first token follows nothing"))
        if len(ids) > context + 1:
            given = f"{len(ids)} tokens > context {context} + 1"
            problems.append(problem(where, given, do="score it in windows (evaluation/harness.py:nats)"))
    if problems:
        raise ConfigError(*problems)
