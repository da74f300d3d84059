"""A language model is a compressor: half a minute of Python's manual against xz: python examples/09_compression.py."""

import lzma
import math
from pydoc_data.topics import topics

import torch

from hanlin.batch import Batch
from hanlin.generate.score import score
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import muon

HELD = "if"  # the page on the if statement and its neighbours is never learned


def main(steps=150):
    """Learn all pages but some; print bits a byte on these."""
    names = sorted(topics)
    at = names.index(HELD)
    held = {*names[at - 1 : at + 3]}
    text = "".join(topics[each] for each in names if each not in held)
    secret = "".join(topics[each] for each in sorted(held))[:6000]
    ids = torch.tensor(list(text.encode()))
    model = llama.Config(vocab=256, dim=96, layers=3, heads=4, hidden=256, context=128, tied=True).build()
    optimizer = muon.Config(rate=0.02, adam_rate=5e-3).build(model)
    for step in range(steps + 1):
        draw = torch.Generator().manual_seed(step)
        rows = torch.stack([ids[at : at + 129] for at in torch.randint(0, len(ids) - 129, (16,), generator=draw)])
        (part,) = next_token.Config()(model, Batch(tokens=rows[:, :-1], targets=rows[:, 1:]))
        loss = part.total / part.count
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * (1 - 0.95 * step / (steps + 1))
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3}: {loss.item() / math.log(2):.2f} bits a byte learned")
    data = secret.encode()
    pieces = [list(data[at : at + 128]) for at in range(0, len(data), 128)]
    nats = -sum(each.sum() for each in score(model.eval(), pieces, prefix=[1] * len(pieces)))
    ours = (nats / math.log(2) + 8 * len(pieces)) / len(data)  # the first byte of a piece is written out
    alone = 8 * len(lzma.compress(data, preset=9)) / len(data)
    whole = len(lzma.compress(text.encode(), preset=9))
    primed = 8 * (len(lzma.compress(text.encode() + data, preset=9)) - whole) / len(data)
    for name, bits in (("xz, this text alone", alone), ("the model", ours), ("xz, after the manual", primed)):
        print(f"{name:22} {bits:.2f} bits a byte  {'█' * round(8 * bits)}")
    return ours


if __name__ == "__main__":
    main()
