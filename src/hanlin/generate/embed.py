"""One vector a text: sequences of like length go through the model together, and none notices its company.

Letters: n texts, B rows, T tokens, D dim.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from hanlin.batch import Layout, move
from hanlin.generate.decode import evaluating
from hanlin.models.contract import Model
from hanlin.models.sentences import Pooling
from hanlin.nn.heads import pool
from hanlin.text.tokenizer import Tokenizer

WASTE = 0.1  # of a batch's tokens may be padding


@dataclass(frozen=True, kw_only=True, eq=False)
class Embedded:
    """Texts as vectors."""

    vectors: NDArray[np.float32]  # (n, dim)
    truncated: NDArray[np.int64]  # (n,) tokens beyond the context, left out


def embed(model: Model[Any], tokenizer: Tokenizer, texts: Sequence[str], pooling: Pooling | None = None) -> Embedded:
    """Return one vector a text; without a pooling, the mean of its last states, of length 1.

    A text is cut to the pooling's context, or the model's, and what was cut is counted.
    """
    pooling = pooling or Pooling()
    context = min(pooling.context or model.config.context, model.config.context)
    read = [text.lower() for text in texts] if pooling.lowercase else texts
    found = tokenizer.encode_batch(read, context=context)
    return Embedded(
        vectors=vectors(model, [each.ids for each in found], pooling),
        truncated=np.array([each.truncated for each in found], dtype=np.int64),
    )


@torch.inference_mode()
def vectors(
    model: Model[Any], sequences: Sequence[Sequence[int]], pooling: Pooling, *, tokens_per_batch: int = 8192
) -> NDArray[np.float32]:
    """Return (n, D), the pooled states of each sequence; zeros for an empty one.

    Order and company change nothing (fp32: 1e-5). No sequence may be longer than the model's context.
    """
    found = np.zeros((len(sequences), model.config.dim), dtype=np.float32)
    with evaluating(model):
        for members in _batches([len(each) for each in sequences], tokens_per_batch):
            width = len(sequences[members[0]])
            tokens = torch.zeros(len(members), width, dtype=torch.long)
            for row, index in enumerate(members):
                tokens[row, : len(sequences[index])] = torch.tensor(sequences[index])
            lengths = torch.tensor([len(sequences[index]) for index in members])
            real = torch.arange(width) < lengths[:, None]
            layout = None if bool(real.all()) else move(Layout.of(real.long()), model.device)
            pooled = pool(model(tokens.to(model.device), layout=layout), layout, pooling.how)
            found[members] = (F.normalize(pooled, dim=-1) if pooling.normalize else pooled).cpu().numpy()
    return found


def _batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Yield the numbers of sequences, longest first, batches within the budget and of nearly one length."""
    batch: list[int] = []
    held = 0
    for index in sorted((each for each in range(len(lengths)) if lengths[each]), key=lambda each: -lengths[each]):
        area = (len(batch) + 1) * lengths[batch[0]] if batch else 0
        if batch and (area > budget or area - held - lengths[index] > WASTE * area):
            yield batch
            batch, held = [], 0
        batch.append(index)
        held += lengths[index]
    if batch:
        yield batch
