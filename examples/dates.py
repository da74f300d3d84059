"""Dates and numbers from words to figures, English and Chinese, learned from generated pairs: a minute on a laptop.

python examples/dates.py [FOLDER]
"""

import calendar
import random
import sys
from pathlib import Path

import hanlin
from hanlin.train import recipe as recipes
from hanlin.verbs.train import learn

NAMES = "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen"
ONES = [*NAMES.split("|"), "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
MONTHS = list(calendar.month_name)
DIGITS = "零一二三四五六七八九"


def words(number: int) -> str:
    """Return a number below a hundred in English."""
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + (f" {ONES[number % 10]}" if number % 10 else "")


def signs(number: int) -> str:
    """Return a number below a hundred in Chinese."""
    tens, ones = divmod(number, 10)
    return (DIGITS[tens] if tens > 1 else "") + ("十" if tens else "") + (DIGITS[ones] if ones or not tens else "")


def pair(draws: random.Random) -> tuple[str, str]:
    """Return something in words, and in figures."""
    kind, day, month, number = draws.randrange(4), draws.randint(1, 28), draws.randint(1, 12), draws.randrange(100)
    dated = f"{month:02}-{day:02}"
    return [
        (words(number), str(number)),
        (signs(number), str(number)),
        (f"{MONTHS[month]} {words(day)}", dated),
        (f"{signs(month)}月{signs(day)}日", dated),
    ][kind]


folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/dates")
folder.mkdir(parents=True, exist_ok=True)
draws = random.Random(0)
pairs = [pair(draws) for _ in range(4000)]
for side, language in enumerate(("words", "figures")):
    (folder / f"train.{language}").write_text("".join(f"{each[side]}\n" for each in pairs), encoding="utf-8")
network = "{family: rnn, kind: gru, encoder: bidirectional, attention: luong, dim: 32, hidden: 96, layers: 1}"
(folder / "recipe.yaml").write_text(
    f"model: {network}\ntokenizer: {{kind: characters}}\ntask: {{name: translate, limit: 8, beams: 1}}\n"
    f"data: {{train: {folder}/train.words}}\noptimizer: {{name: adamw, rate: 5e-3}}\n"
    "plan: {steps: 400, rows: 32, context: 32, precision: fp32, evaluate_every: 400}\n"
)
learn(recipes.load(f"{folder}/recipe.yaml"), folder / "run")
asked = ["forty two", "九十七", "March twenty one", "十二月二十五日"]
for question, answer in zip(asked, hanlin.load(str(folder / "run")).predict(asked)):
    print(f"{question} -> {answer.text}")
