"""A few neurons learn a ring, and the terminal shows what they think at every step: python examples/01_neuron.py."""

import torch

from hanlin.nn.mlp import MLP
from hanlin.objectives import regression
from hanlin.optim import adam

SHADES = " .:-=+*#%@"  # from no to yes


def picture(net):
    """Return the network's answer over the plane, one character a place."""
    rows = []
    for y in torch.linspace(1.5, -1.5, 17):
        points = torch.stack((torch.linspace(-1.5, 1.5, 40), y.repeat(40)), 1)
        rows.append("".join(SHADES[int(each)] for each in (net(points)[:, 0].clamp(0, 0.999) * 10).tolist()))
    return "\n".join(rows)


def main(steps=400):
    """Learn which points lie in the ring between radius 0.6 and 1.2."""
    torch.manual_seed(0)
    points = torch.rand(800, 2) * 3 - 1.5
    radius = points.norm(dim=1)
    wanted = ((radius > 0.6) & (radius < 1.2)).float()
    net = MLP(2, 24, activation="tanh", bias=True)
    optimizer = adam.Config(rate=0.03).build(net)
    for step in range(steps + 1):
        loss = regression.Config().total(net(points)[:, :1], wanted) / len(points)
        if step in (0, steps // 8, steps):
            print(f"step {step}: mean squared error {loss.item():.3f}\n{picture(net)}\n")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = float(((net(points)[:, 0] > 0.5) == (wanted > 0.5)).float().mean())
    print(f"right on {right:.0%} of the points, with {sum(each.numel() for each in net.parameters())} numbers")
    return right


if __name__ == "__main__":
    main()
