"""A recurrent pair with attention learns to read 12345 as 一万二千三百四十五: python examples/04_numerals.py."""

import torch

from hanlin.batch import IGNORE, Tokens
from hanlin.models import rnn
from hanlin.objectives.cross_entropy import total_nats
from hanlin.optim import adamw

DIGITS, UNITS = "零一二三四五六七八九", ("", "十", "百", "千", "万")
LETTERS = "0123456789" + DIGITS + "十百千万"
START, END = len(LETTERS), len(LETTERS) + 1


def chinese(number):
    """Return a number of five digits in Chinese."""
    found = "".join(DIGITS[int(d)] + (UNITS[4 - at] if d != "0" else "") for at, d in enumerate(f"{number:05}"))
    while "零零" in found:
        found = found.replace("零零", "零")
    return found.rstrip("零")


def encode(text, length):
    """Return ids, filled up with END."""
    return [LETTERS.index(each) for each in text] + [END] * (length - len(text))


def read(model, number):
    """Write the answer one character at a time."""
    memory, written = model.encode(Tokens(ids=torch.tensor([encode(str(number), 5)]))), [START]
    while len(written) < 12 and written[-1] != END:
        written.append(int(model.logits(model(torch.tensor([written]), memory=memory))[0, -1].argmax()))
    return "".join(LETTERS[each] for each in written[1:] if each < START)


def main(steps=400):
    """Learn from random numbers; show numbers never seen."""
    sizes = dict(vocab=END + 1, dim=48, hidden=64, layers=1, encoder="bidirectional", attention="luong", start=START)
    model = rnn.Config(kind="gru", **sizes).build(seed=0)
    optimizer = adamw.Config(rate=8e-3).build(model)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps + 1):
        numbers = torch.randint(10000, 90000, (64,), generator=draw).tolist()
        source = torch.tensor([encode(str(each), 5) for each in numbers])
        target = torch.tensor([encode(chinese(each), 10) for each in numbers])
        given = torch.cat((torch.full((64, 1), START), target[:, :-1]), 1)
        target = torch.where(given == END, IGNORE, target)
        loss = total_nats(model, model(given, memory=model.encode(Tokens(ids=source))), target) / (target >= 0).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step:3}: {loss.item():.3f} nats   91234 -> {read(model, 91234)}")
    right = {each: read(model, each) for each in (91234, 95005, 90870, 99999, 93010)}  # never among the 1 to 8
    print("\n".join(f"{n} -> {got:<12} {'right' if got == chinese(n) else chinese(n)}" for n, got in right.items()))


if __name__ == "__main__":
    main()
