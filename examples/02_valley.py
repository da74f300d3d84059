"""All optimizers race down a narrow valley: python examples/02_valley.py."""

import torch
from torch import nn

from hanlin.optim import adafactor, adam, adamw, lion, sgd

RACERS = {
    "sgd": sgd.Config(rate=0.05, momentum=0.0),
    "sgd + momentum": sgd.Config(rate=0.02, momentum=0.8),
    "sgd + nesterov": sgd.Config(rate=0.02, momentum=0.8, nesterov=True),
    "adam": adam.Config(rate=0.3),
    "adamw": adamw.Config(rate=0.3, weight_decay=0.0),
    "lion": lion.Config(rate=0.1, weight_decay=0.0),
    "adafactor": adafactor.Config(rate=0.3, weight_decay=0.0),
}


class Place(nn.Module):
    """Where a racer stands."""

    def __init__(self):
        """Start high up."""
        super().__init__()
        self.w = nn.Parameter(torch.tensor([-4.0, 1.2]))


def height(w):
    """Return a valley 30 times as steep across as along."""
    return 0.5 * (w[0] ** 2 + 30 * w[1] ** 2)


def main(steps=60):
    """Print how low each gets."""
    lows = {}
    for name, config in RACERS.items():
        place, heights = Place(), []
        optimizer = config.build(place)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = height(place.w)
            loss.backward()
            optimizer.step()
            heights.append(loss.item())
        lows[name] = min(heights)
        marks = "".join("▁▂▃▄▅▆▇█"[max(0, min(7, int(2 + 1.5 * torch.tensor(each).log().item())))] for each in heights)
        print(f"{name:15} {marks}  lowest {lows[name]:.4f}")
    return lows


if __name__ == "__main__":
    main()
