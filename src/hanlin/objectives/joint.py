"""A loss in which every row meets every other: the whole step is embedded first, then learned from in portions.

    portions ─ embed, nothing kept ─> vectors (B, D) ─ joint ─> loss ─ backward ─> ∂loss/∂vectors (B, D)
       └──── embed again, one by one ─> vectors (b, D) · their rows of ∂loss/∂vectors ─ backward ─> ∂loss/∂weights

By the chain rule that is the gradient of the whole step at once, in the memory of one portion (GradCache, Gao et al.,
arXiv 2101.06983). What a portion draws at random (dropout) it draws again: both passes begin with the portion's seed.

Letters: B rows of a step, b of a portion, D dim.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from hanlin.batch import Batch
from hanlin.models.contract import Model
from hanlin.objectives.contract import Loss, Objective, Part


class Joint(Objective):
    """An objective of one part, of the vectors of all rows of a step together."""

    @abstractmethod
    def embed(self, model: Model[Any], batch: Batch[Any]) -> Tensor:
        """Return a vector for each row, (B, D) fp32; a row's does not depend on its company."""

    @abstractmethod
    def joint(self, vectors: Tensor, batch: Batch[Any]) -> Part:
        """Return the loss of the vectors (B, D) of a batch's rows; nothing in it is random."""

    @final
    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return the loss of a whole step's batch."""
        return (self.joint(self.embed(model, batch), batch),)

    @final
    def linked(
        self, model: Model[Any], whole: Batch[Any], portions: Sequence[Batch[Any]], seed: Callable[[int], object]
    ) -> Linked:
        """Return what gives each portion its share of the whole step's gradient; `seed(n)` starts portion n's draws."""
        found = []
        with torch.no_grad():
            for index, portion in enumerate(portions):
                seed(index)
                found.append(self.embed(model, portion))
        vectors = torch.cat(found).requires_grad_()
        part = self.joint(vectors, whole)
        (slopes,) = torch.autograd.grad(part.total, vectors)
        return Linked(self, part, slopes)


class Linked:
    """Asked for the portions in order, returns losses whose values and gradients sum to the whole step's."""

    def __init__(self, objective: Joint, part: Part, slopes: Tensor) -> None:
        """Keep the loss of the whole step and its slope at every vector."""
        self.objective, self.part, self.slopes = objective, part, slopes
        self.row = 0  # of the step, that the next portion begins with

    def __call__(self, model: Model[Any], batch: Batch[Any]) -> Loss:
        """Return the next portion's loss; the first one carries the whole value."""
        rows = slice(self.row, self.row + batch.rows)
        self.row = rows.stop
        pulled = (self.objective.embed(model, batch) * self.slopes[rows]).sum()
        value = self.part.total.detach() if rows.start == 0 else torch.zeros_like(self.part.total)
        (count,) = self.objective.counts(batch)
        return (Part(name=self.part.name, total=pulled + (value - pulled).detach(), count=count),)
