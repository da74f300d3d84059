"""A classifier of Chinese reviews: a table, one command, answers with probabilities: python examples/08_reviews.py."""

import csv
import random
from pathlib import Path

import hanlin
from hanlin import cli

GOOD = ("干净", "热情", "好吃", "舒服", "漂亮", "方便", "安静", "值得")
BAD = ("脏", "冷淡", "难吃", "难受", "破旧", "麻烦", "吵", "失望")
THINGS = ("房间", "服务", "早餐", "床", "大堂", "位置", "前台", "味道")
RECIPE = """
model: {family: bert, dim: 48, layers: 2, heads: 4, hidden: 96, context: 48, dropout: 0.0}
tokenizer: {kind: characters}
task: {name: classify}
data: {train: FOLDER/reviews.csv, valid_fraction: 0.2}
optimizer: {name: adamw, rate: 2e-3}
schedule: {name: cosine, warmup: 0.1}
plan: {steps: STEPS, rows: 16, context: 48, precision: fp32, threads: 1}
"""


def review(dice):
    """Return a review and its label; half of the bad ones are good ones denied."""
    good = dice.random() < 0.5
    parts = []
    for thing in dice.sample(THINGS, 2):
        if good:
            parts.append(f"{thing}很{dice.choice(GOOD)}")
        else:
            parts.append(f"{thing}不{dice.choice(GOOD)}" if dice.random() < 0.5 else f"{thing}太{dice.choice(BAD)}")
    return "，".join(parts) + "。", "好评" if good else "差评"


def main(steps=60, folder="runs/reviews"):
    """Write the table and the recipe, train as from the command line, ask."""
    dice, place = random.Random(0), Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "reviews.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *(review(dice) for _ in range(800))])
    (place / "recipe.yaml").write_text(RECIPE.replace("FOLDER", str(place)).replace("STEPS", str(steps)))
    assert cli.run(["train", str(place / "recipe.yaml"), "--output", str(place / "run"), "--fresh"]) == 0
    model = hanlin.load(str(place / "run"))
    asked = [
        "房间很干净，服务很热情。",
        "早餐不好吃，前台太冷淡。",
        "床很舒服，大堂很漂亮。",
        "位置不方便，味道太失望。",
    ]
    answers = model.predict(asked)
    for text, answer in zip(asked, answers):
        print(text, answer.label, " ".join(f"{name} {chance:.0%}" for name, chance in answer.probabilities.items()))
    return [each.label for each in answers]


if __name__ == "__main__":
    main()
