"""A small Transformer learns to put letters in order: python examples/05_sorter.py."""

import torch

from hanlin.batch import IGNORE, Batch
from hanlin.models import llama
from hanlin.objectives import next_token
from hanlin.optim import adamw

LETTERS = "abcdefghijklmnopqrstuvwxyz"
THEN = len(LETTERS)  # the sign between the letters and the answer
COUNT = 6


def problems(generator):
    """Return rows: letters, the sign, the letters in order."""
    mixed = torch.randint(0, 26, (64, COUNT), generator=generator)
    return torch.cat((mixed, torch.full((64, 1), THEN), mixed.sort(1).values), 1)


@torch.no_grad()
def sort(model, word):
    """Return the model's answer, one letter at a time."""
    ids = [LETTERS.index(each) for each in word] + [THEN]
    for _ in word:
        ids.append(int(model.logits(model(torch.tensor([ids])))[0, -1, :26].argmax()))
    return "".join(LETTERS[each] for each in ids[len(word) + 1 :])


def main(steps=500):
    """Learn from random letters; sort words."""
    model = llama.Config(vocab=27, dim=64, layers=2, heads=4, hidden=128, context=2 * COUNT + 1, tied=True).build()
    optimizer = adamw.Config(rate=3e-3).build(model)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps + 1):
        ids = problems(draw)
        targets = ids[:, 1:].clone()
        targets[:, :COUNT] = IGNORE  # the letters themselves are chance
        (part,) = next_token.Config()(model, Batch(tokens=ids[:, :-1], targets=targets))
        loss = part.total / part.count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:3}: {loss.item():.3f} nats a letter   hanlin -> {sort(model, 'hanlin')}")
    words = ["planet", "wisdom", "school", "teapot", "python", "zigzag"]
    for word in words:
        print(f"{word} -> {sort(model, word)}", "" if sort(model, word) == "".join(sorted(word)) else "(wrong)")
    return sum(sort(model, word) == "".join(sorted(word)) for word in words) / len(words)


if __name__ == "__main__":
    main()
