"""How few bits does a weight need? A model is rounded to 8, 6, 4, 3, 2 bits: python examples/12_fewer_bits.py."""

import copy

import torch

from hanlin.batch import Batch
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import adamw

TEXT = "床前明月光，疑是地上霜。举头望明月，低头思故乡。" * 2


def rounded(model, bits):
    """Return a copy whose matrices hold whole numbers of `bits` bits, times one step a matrix."""
    small = copy.deepcopy(model)
    most = 2 ** (bits - 1) - 1
    for each in small.parameters():
        if each.ndim == 2:
            step = each.abs().max() / most
            each.data = (each.data / step).round() * step
    return small


@torch.no_grad()
def written(model, ids, count):
    """Return what the model writes, always the likeliest."""
    ids = list(ids)
    for _ in range(count):
        ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1].argmax()))
    return ids


def main(steps=100):
    """Learn a poem by heart; recite it with fewer and fewer bits."""
    letters = sorted(set(TEXT))
    ids = torch.tensor([[letters.index(each) for each in TEXT]])
    model = llama.Config(vocab=len(letters), dim=64, layers=2, heads=4, hidden=128, context=64, tied=True).build()
    optimizer = adamw.Config(rate=3e-3, weight_decay=0.0).build(model)
    batch = Batch(tokens=ids[:, :-1], targets=ids[:, 1:])
    for _ in range(steps):
        (part,) = next_token.Config()(model, batch)
        optimizer.zero_grad()
        (part.total / part.count).backward()
        optimizer.step()
    weights = sum(each.numel() for each in model.parameters())
    rights = {}
    for bits in (32, 8, 6, 4, 3, 2):
        small = model if bits == 32 else rounded(model, bits)
        said = written(small, ids[0, :2].tolist(), 22)
        rights[bits] = sum(a == b for a, b in zip(said, ids[0].tolist())) - 2
        size = weights * bits / 8 / 1024
        print(f"{bits:2} bits {size:6.0f} KiB  {''.join(letters[each] for each in said)}  {rights[bits]} of 22 right")
    return rights


if __name__ == "__main__":
    main()
