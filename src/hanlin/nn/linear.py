"""Linear layers: y = x W' + b, which inference in fp32 on a CPU hands to oneDNN.

torch hands fp32 matrices to another library, which reads a large matrix for a few rows with one core only. oneDNN,
which torch takes for bf16 anyway, shares the work, and decoding a token is little else than reading matrices. It adds
in another order: results differ from those of training by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LEAST = 1 << 18  # numbers in a matrix; with fewer, the call costs more than it saves


def _onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether a product is one that oneDNN makes sooner."""
    return (
        not torch.is_grad_enabled()
        and weight.numel() >= LEAST
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return (..., N) for x (..., D), a weight (N, D) and a bias (N,)."""
    if _onednn(x, weight):
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")  # its only name
        return y
    return F.linear(x, weight, bias)


class Linear(nn.Linear):
    """A linear layer of `linear`, and torch's in all else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., N) for x (..., D)."""
        return linear(x, self.weight, self.bias)
