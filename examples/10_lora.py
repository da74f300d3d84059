"""LoRA by hand: a model learns English numbers, a thin difference teaches it French: python examples/10_lora.py."""

import torch
from torch import nn

from hanlin.batch import Batch
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.text.tokenizer import byte_level

ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
FRENCH = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix"]


class Thin(nn.Module):
    """A frozen layer plus a difference of rank r, which starts at nothing."""

    def __init__(self, base, rank=4):
        """Keep the layer, add A (r, in) and B (out, r)."""
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x):
        """Return the layer's answer and the difference."""
        return self.base(x) + 2 * (x @ self.A.T) @ self.B.T


def learn(model, words, rate, steps):
    """Return the loss at the beginning and the end."""
    ids = torch.tensor([byte_level().document(" ".join(words))])
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer, losses = torch.optim.AdamW(trained, lr=rate), []
    for _ in range(steps):
        (part,) = next_token.Config()(model, Batch(tokens=ids[:, :-1], targets=ids[:, 1:]))
        losses.append((part.total / part.count).item())
        optimizer.zero_grad()
        (part.total / part.count).backward()
        optimizer.step()
    return f"loss {losses[0]:.2f} -> {losses[-1]:.2f}, {sum(each.numel() for each in trained):,} numbers learned"


def main(steps=120):
    """Learn English in full, then French through thin differences."""
    torch.manual_seed(0)
    model = llama.Config(vocab=259, dim=96, layers=2, heads=4, hidden=256, context=64, tied=True).build()
    print("English:", learn(model, ENGLISH, adamw.Config().rate * 3, steps))
    model.requires_grad_(False)
    for block in model.blocks:
        for part, name in [(block.attn, each) for each in "qkvo"] + [
            (block.mlp, each) for each in ("gate", "up", "down")
        ]:
            setattr(part, name, Thin(getattr(part, name)))
    print("French: ", learn(model, FRENCH, 1e-2, steps))
    for each in model.modules():
        if isinstance(each, Thin):
            each.B.data.zero_()  # take the difference off: the English model is still there
    print("English again:", learn(model, ENGLISH, 1e-9, 1))


if __name__ == "__main__":
    main()
