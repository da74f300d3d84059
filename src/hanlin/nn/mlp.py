"""Position-wise networks: `up`, an activation, `down`; with a `gate` beside `up` in the gated kinds.

Letters: D dim, M hidden.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from hanlin.nn.dropout import Dropout
from hanlin.nn.linear import Linear

Activation = Callable[[Tensor], Tensor]


def gelu_tanh(x: Tensor) -> Tensor:
    """Return GELU by its tanh approximation (Hendrycks and Gimpel, arXiv 1606.08415), as GPT-2 was trained."""
    return F.gelu(x, approximate="tanh")


# Hugging Face's names; 'gelu_new' and 'gelu_pytorch_tanh' are the same function.
ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu,
    "gelu_new": gelu_tanh,
    "gelu_pytorch_tanh": gelu_tanh,
    "relu": F.relu,
    "silu": F.silu,
    "swish": F.silu,
    "tanh": F.tanh,
}


class MLP(nn.Module):
    """down(act(up(x))) for x (..., D)."""

    def __init__(self, dim: int, hidden: int, *, activation: str, bias: bool, dropout: float = 0.0) -> None:
        """Allocate up (M, D) and down (D, M)."""
        super().__init__()
        self.up = Linear(dim, hidden, bias=bias)
        self.down = Linear(hidden, dim, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., D)."""
        return self.down(self.dropout(self.activation(self.up(x))))


class GatedMLP(nn.Module):
    """down(act(gate(x)) * up(x)) for x (..., D) (Shazeer, arXiv 2002.05202)."""

    def __init__(self, dim: int, hidden: int, *, activation: str, bias: bool, dropout: float = 0.0) -> None:
        """Allocate gate and up (M, D) and down (D, M)."""
        super().__init__()
        self.gate = Linear(dim, hidden, bias=bias)
        self.up = Linear(dim, hidden, bias=bias)
        self.down = Linear(hidden, dim, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., D)."""
        return self.down(self.dropout(self.activation(self.gate(x)) * self.up(x)))
