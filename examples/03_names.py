"""An LSTM reads the names of Python's modules letter by letter, and invents more: python examples/03_names.py."""

import sys
from pathlib import Path

import torch

import hanlin
from hanlin import bundle
from hanlin.batch import IGNORE, Batch
from hanlin.models import rnn
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.text.tokenizer import characters


def batch(tokenizer, names):
    """Return rows of letters, each the answer to those before it; short rows are filled up."""
    rows = [tokenizer.document(each) for each in names]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.special.pad] * (longest - len(row)) for row in rows])
    targets = ids[:, 1:].masked_fill(ids[:, 1:] == tokenizer.special.pad, IGNORE)
    return Batch(tokens=ids[:, :-1], targets=targets)


def main(steps=120, folder="runs/names"):
    """Learn, keep the model as a folder, open it and let it write."""
    names = sorted(each.strip("_") for each in sys.stdlib_module_names if each.isascii())
    tokenizer = characters(names, fallback=False)
    everything = batch(tokenizer, names)
    model = rnn.Config(kind="lstm", vocab=tokenizer.vocab, dim=32, hidden=128, layers=1, context=64).build(seed=0)
    optimizer = adamw.Config(rate=1e-2).build(model)
    for step in range(steps + 1):
        (part,) = next_token.Config()(model, everything)
        loss = part.total / part.count
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 40 == 0:
            print(f"step {step:3}: {loss.item():.2f} nats a letter")
    bundle.write(Path(folder), model.eval(), tokenizer)
    found = hanlin.load(folder).generate("", n=40, temperature=0.9, limit=20)
    fresh = sorted({each for each in found if each and each not in names})
    print(f"{len(fresh)} modules that Python does not have yet:\n  import " + ", ".join(fresh[:16]))
    return fresh


if __name__ == "__main__":
    main()
