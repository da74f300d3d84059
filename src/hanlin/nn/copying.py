"""Copying from the source: the pointer-generator of See et al., arXiv 1704.04368.

    p(word) = g softmax(scores)[word] + (1 - g) (sum of the weights on that word in the source)

What the mixture needs of the source travels beside each hidden state, so that it can be cut into chunks and gathered
like any hidden state:

    hidden (D) | gate (1) | weights (S) | the source's ids (3 S)       an id is three digits to the base 256,
                                                                       for bf16 knows no whole numbers past that
Letters: D dim, R sources, S source positions, V vocab; leading axes are free.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

DIGITS, BASE = 3, 256
FAINT = 1e-30  # added to a probability before its logarithm: what neither writes nor copies a word stays finite


def pack(hidden: Tensor, gate: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
    """Return (B, T, D + 1 + 4 S) of hidden (B, T, D), gate (B, T, 1), weights (B, T, S) and source ids (R, S)."""
    digits = torch.stack([ids // BASE**power % BASE for power in range(DIGITS)], -1).flatten(1)
    shared = digits.repeat_interleave(len(hidden) // len(ids), 0)[:, None].expand(-1, hidden.shape[1], -1)
    return torch.cat((hidden, gate, weights, shared.to(hidden.dtype)), -1)


def unpack(packed: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return hidden (..., D), gate (..., 1), weights (..., S) and ids (..., S) as `pack` was given them."""
    size = (packed.shape[-1] - dim - 1) // (1 + DIGITS)
    hidden, gate, weights, digits = packed.split((dim, 1, size, DIGITS * size), -1)
    places = BASE ** torch.arange(DIGITS, device=packed.device)
    return hidden, gate, weights, (digits.long().unflatten(-1, (size, DIGITS)) * places).sum(-1)


def mixed(scores: Tensor, gate: Tensor, weights: Tensor, ids: Tensor) -> Tensor:
    """Return the logarithm (..., V) of the mixture, for scores (..., V) over the vocab; computed in fp32."""
    write = torch.sigmoid(gate.float())
    written = write * F.softmax(scores.float(), -1)
    both = written.scatter_add(-1, ids, (1 - write) * weights.float())
    return (both + FAINT).log().to(scores.dtype)
