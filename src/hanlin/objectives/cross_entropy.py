"""Cross-entropy over a vocabulary in bounded memory: logits are made a chunk at a time and never kept.

    hidden (N, D) ─ chunks of rows ─ logits (n, V) ─ loss, and at once the gradients of hidden and of the output matrix

Kept whole, the logits of 8,192 tokens over a vocabulary of 32,000 take 1 GB in fp32, twice that with their gradient.

Letters: N tokens with a target, D dim, V vocab.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from hanlin.batch import IGNORE
from hanlin.models.contract import Model

CHUNK_BYTES = 8_000_000  # logits of one chunk in fp32; four times this takes 1.7 times as long (docs/numbers.md)
FEWEST = 256  # tokens a chunk: with fewer, adding up the gradient of a large output matrix costs more than it saves


def total_nats(
    model: Model[Any], hidden: Tensor, targets: Tensor, *, chunk: int | None = None, smoothing: float = 0.0
) -> Tensor:
    """Return the summed cross-entropy in nats, fp32 scalar, of hidden (..., D) against targets (...) but IGNORE.

    `chunk` is the number of tokens whose logits exist at one time; the default bounds them by CHUNK_BYTES. With
    `smoothing` s each target counts 1 - s, and the mean over the vocab of -log p counts s (arXiv 1512.00567).
    """
    flat, wanted = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
    keep = wanted != IGNORE
    if not bool(keep.all()):
        flat, wanted = flat[keep], wanted[keep]
    size = chunk or max(FEWEST, CHUNK_BYTES // (4 * model.config.vocab))
    if not torch.is_grad_enabled():
        parts = [_nats(model, rows, answers, smoothing) for rows, answers in zip(flat.split(size), wanted.split(size))]
        return torch.stack(parts).sum() if parts else flat.new_zeros((), dtype=torch.float32)
    parameters = [each for each in model.parameters() if each.requires_grad]
    total: Tensor = _Chunked.apply(model, flat, wanted, (size, smoothing), *parameters)
    return total


def _nats(model: Model[Any], hidden: Tensor, targets: Tensor, smoothing: float) -> Tensor:
    """Return the summed cross-entropy of one chunk; the softmax is taken in fp32."""
    return F.cross_entropy(model.logits(hidden).float(), targets, reduction="sum", label_smoothing=smoothing)


class _Chunked(torch.autograd.Function):
    """Loss and gradients chunk by chunk in the forward; the backward only scales what is there."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        model: Model[Any],
        hidden: Tensor,
        targets: Tensor,
        how: tuple[int, float],
        *parameters: Tensor,
    ) -> Tensor:
        """Return the total; `parameters` stand here so that autograd takes their gradients from backward."""
        size, smoothing = how
        total = hidden.new_zeros((), dtype=torch.float32)
        sums: list[Tensor | None] = [None] * len(parameters)
        pieces = []
        for rows, answers in zip(hidden.split(size), targets.split(size)):
            with torch.enable_grad():
                leaf = rows.detach().requires_grad_()
                loss = _nats(model, leaf, answers, smoothing)
            first, *rest = torch.autograd.grad(loss, (leaf, *parameters), allow_unused=True)
            total += loss.detach()
            pieces.append(first)
            for index, grad in enumerate(rest):
                if grad is not None:
                    known = sums[index]
                    sums[index] = grad.float() if known is None else known.add_(grad)
        ctx.grads = [torch.cat(pieces) if pieces else torch.zeros_like(hidden), *sums]
        ctx.types = [hidden.dtype, *(each.dtype for each in parameters)]
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Return the kept gradients times the incoming one."""
        scaled = [None if grad is None else (grad * outer[0]).to(dtype) for grad, dtype in zip(ctx.grads, ctx.types)]
        return (None, scaled[0], None, None, *scaled[1:])
