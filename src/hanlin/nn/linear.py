"""Linear layers: y = x W' + b, which inference on a CPU hands to oneDNN in the form that suits it.

fp32: torch hands matrices to MKL, which on processors that are not Intel's reads a large one for a few rows with one
core only. oneDNN, which torch takes for bf16 anyway, shares the work, and decoding a token is little else than reading
matrices. It adds in another order: results differ from those of training by rounding.

bf16: oneDNN multiplies numbers in pairs and lays the matrix out for that at every call. A second copy that lies so
already (`prepack`) saves it from the second row on; one row is read as it is, see `runtime.thin`.

On Intel's own processors MKL is the faster one in fp32 for fewer than eight rows; a second copy is there for fp32 too,
which is the faster one from the fourth row on, and for a single row of bf16.
"""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hanlin.machine import free_bytes, intel

M = TypeVar("M", bound=nn.Module)
LEAST = 1 << 18  # numbers in a matrix; with fewer, the call costs more than it saves
FEW, FEW_LAID = 8, 4  # rows of fp32 from which oneDNN beats MKL on Intel's processors: as they lie, with a second copy
PACKED = "packed"  # of a weight: its version, which counts changes in place, when it was packed, and the copy


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return (..., N) for x (..., D), a weight (N, D) and a bias (N,)."""
    matrix = _for_onednn(x, weight)
    if matrix is None:
        return F.linear(x, weight, bias)
    y: Tensor = torch.ops.mkldnn._linear_pointwise(x, matrix, bias, "none", [], "")
    return y


def _for_onednn(x: Tensor, weight: Tensor) -> Tensor | None:
    """Return the matrix that oneDNN is to multiply, None where torch's own way is the better one."""
    if torch.is_grad_enabled() or weight.numel() < LEAST or x.dtype != weight.dtype or torch.compiler.is_compiling():
        return None
    rows = x.numel() // x.shape[-1]
    version, laid = getattr(weight, PACKED, (None, None))
    laid = laid if laid is not None and version == weight._version else None  # an inference tensor counts no versions
    if x.dtype == torch.bfloat16:
        return laid if rows > 1 or _at_home() else None
    if x.dtype != torch.float32 or not _here(weight) or x.device != weight.device:
        return None
    if not _at_home():
        return weight
    return laid if laid is not None and rows >= FEW_LAID else weight if rows >= FEW else None


def _here(weight: Tensor) -> bool:
    """Whether oneDNN is there for a matrix."""
    return weight.device.type == "cpu" and _products() and not torch.is_autocast_enabled("cpu")


@cache
def _at_home() -> bool:
    """Whether MKL runs on a processor of those who made it."""
    return torch.backends.mkl.is_available() and intel()


@cache
def _products() -> bool:
    """Whether this torch has the products by the names that it uses itself, and promises to nobody."""
    names = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def prepack(model: M, *, most: int | None = None) -> M:
    """Return the model, its large matrices laid out for oneDNN in a second copy of at most `most` bytes.

    Those of bf16, on Intel's processors those of fp32 as well.

    `most` is a quarter of the free memory when left out. A matrix that is changed afterwards, or moved to another type,
    is multiplied as it lies, without its copy.
    """
    if not _products():
        return model
    told = {torch.float32: _at_home(), torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported()}
    kinds = [kind for kind, pays in told.items() if pays]
    weights = [each.weight for each in model.modules() if isinstance(each, Linear)]
    if getattr(getattr(model, "config", None), "tied", False):
        weights.append(model.get_parameter("embed.weight"))  # it is the output matrix too
    large = [each for each in weights if each.dtype in kinds and each.numel() >= LEAST and _here(each)]
    if sum(each.nbytes for each in large) > ((free_bytes() or 0) // 4 if most is None else most):
        return model
    for weight in large:
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        setattr(weight, PACKED, (weight._version, laid))
    return model


class Linear(nn.Linear):
    """A linear layer of `linear`, and torch's in all else."""

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., N) for x (..., D)."""
        return linear(x, self.weight, self.bias)
