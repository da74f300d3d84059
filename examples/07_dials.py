"""A model learns the Zen of Python and speaks at five temperatures: python examples/07_dials.py."""

import codecs
import contextlib
import io
from pathlib import Path

import torch

import hanlin
from hanlin import bundle
from hanlin.batch import Batch
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import adamw
from hanlin.text.tokenizer import byte_level


def zen():
    """Return the nineteen sayings."""
    with contextlib.redirect_stdout(io.StringIO()):
        import this
    return codecs.decode(this.s, "rot13")


def main(steps=400, folder="runs/zen"):
    """Learn sayings and what follows them; write at several temperatures."""
    text, tokenizer = zen(), byte_level()
    ids = torch.tensor(tokenizer.document(text * 2))
    lines = [at + 1 for at in range(1, len(text)) if text[at - 1] == "\n" and text[at] != "\n"]  # every saying
    model = llama.Config(vocab=tokenizer.vocab, dim=80, layers=2, heads=4, hidden=160, context=128, tied=True).build()
    optimizer = adamw.Config(rate=4e-3, weight_decay=0.0).build(model)
    for step in range(steps + 1):
        draw = torch.Generator().manual_seed(step)
        starts = torch.tensor(lines)[torch.randint(0, len(lines), (16,), generator=draw)]
        rows = torch.stack([torch.cat((ids[:1], ids[at : at + 80])) for at in starts])
        (part,) = next_token.Config()(model, Batch(tokens=rows[:, :-1], targets=rows[:, 1:]))
        loss = part.total / part.count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:3}: {loss.item():.2f} nats a byte")
    bundle.write(Path(folder), model.eval(), tokenizer)
    opened = hanlin.load(folder)
    for temperature in (0, 0.5, 1.0, 1.5, 2.5):
        said = opened.generate("Beautiful is better", temperature=temperature, seed=3, limit=60)
        print(f"{temperature:3}: Beautiful is better{said!r}")
    return opened.generate("Beautiful is better", temperature=0, limit=30)


if __name__ == "__main__":
    main()
