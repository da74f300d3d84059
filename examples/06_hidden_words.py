"""A BERT learns a small world and fills the gaps, in English and Chinese: python examples/06_hidden_words.py."""

import random

import torch

from hanlin.batch import IGNORE, Batch
from hanlin.models import bert
from hanlin.objectives import masked
from hanlin.optim import adamw

LIKES = {"cat": "fish", "dog": "bones", "panda": "bamboo", "rabbit": "carrots"}
爱吃 = {"猫": "鱼", "狗": "骨头", "熊猫": "竹子", "兔子": "胡萝卜"}


def sentence(dice):
    """Return a true sentence of six words."""
    if dice.random() < 0.5:
        who = dice.choice([*LIKES])
        return ["the", dice.choice(("old", "young")), who, dice.choice(("eats", "wants")), "some", LIKES[who]]
    谁 = dice.choice([*爱吃])
    return ["这", "只", 谁, dice.choice(("喜欢", "想要")), "吃", 爱吃[谁]]


def main(steps=300):
    """Learn from sentences with a word hidden; fill four gaps."""
    dice = random.Random(0)
    corpus = [sentence(dice) for _ in range(2000)]
    words = ["[MASK]", *sorted({word for each in corpus for word in each})]
    ids = torch.tensor([[words.index(word) for word in each] for each in corpus])
    model = bert.Config(vocab=len(words), dim=48, layers=2, heads=4, hidden=96, context=8, dropout=0.0)
    model = model.build(seed=0, heads={"masked": len(words)})
    optimizer = adamw.Config(rate=2e-3).build(model)
    for step in range(steps + 1):
        draw = torch.Generator().manual_seed(step)
        chosen = ids[torch.randint(0, len(ids), (64,), generator=draw)]
        hide = torch.zeros_like(chosen, dtype=torch.bool)
        hide.scatter_(1, torch.randint(0, 6, (64, 1), generator=draw), True)
        batch = Batch(tokens=chosen.masked_fill(hide, 0), targets=chosen.masked_fill(~hide, IGNORE))
        (part,) = masked.Config()(model, batch)
        loss = part.total / part.count
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step:3}: {loss.item():.2f} nats a hidden word")
    model.eval()
    for text in (
        "the old [MASK] eats some bamboo",
        "the young cat wants some [MASK]",
        "这 只 [MASK] 喜欢 吃 骨头",
        "这 只 兔子 想要 吃 [MASK]",
    ):
        asked = torch.tensor([[words.index(each) for each in text.split()]])
        chances = model.logits(model(asked))[0, text.split().index("[MASK]")].softmax(0)
        best = chances.topk(3)
        print(text, "->", ", ".join(f"{words[i]} {p:.0%}" for p, i in zip(best.values.tolist(), best.indices.tolist())))


if __name__ == "__main__":
    main()
