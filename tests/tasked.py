"""Model folders made for tasks, tiny and random, with the rows to ask them."""

from __future__ import annotations

import io

import numpy as np
from folders import GPT2, build, write

from hanlin import bundle
from hanlin.models import bert, whisper
from hanlin.models.sentences import Pooling
from hanlin.tasks import answer, classify, contract, similar, tag, transcribe
from hanlin.text.tokenizer import byte_level

CONTEXT = 48
BERT = bert.Config(vocab=300, dim=16, layers=2, heads=2, context=CONTEXT)
WHISPER = whisper.Config(vocab=300, dim=16, layers=1, heads=2, context=16, source_context=220, any_length=True)
TEXTS = ["good", "bad", "so good 好", "坏", "a longer good text, and longer than all others", "不好 bad", "🌍" * 20]
LABELLED = [{"text": text, "label": "down" if "bad" in text else "up"} for text in TEXTS]
PAIRED = [{"text": text, "pair": text[::-1], "label": str(len(text) % 2)} for text in TEXTS]
TAGGED = [{"text": "Ada met 李白 in Rome", "tags": [[0, 3, "PER"], [8, 10, "PER"]]}, {"text": "nobody", "tags": []}]
LIKE = [{"text": text, "pair": text[::-1], "score": float(at)} for at, text in enumerate(TEXTS)]
ASKED = [
    {"question": "Who?", "context": "Ada Lovelace wrote. " * 5, "answers": [{"text": "Ada", "answer_start": 0}]},
    {"question": "谁？", "context": "李白作诗。", "answers": [{"text": "李白", "answer_start": 0}]},
]
ROWS = {  # name of a folder -> the task before it has seen rows, labelled rows
    "classify": (classify.Config(), LABELLED),
    "pairs": (classify.Config(), PAIRED),
    "rating": (classify.Config(kind="rating"), [{**row, "label": float(at)} for at, row in enumerate(LABELLED)]),
    "tag": (tag.Config(), TAGGED),
    "similar": (similar.Config(), LIKE),
    "answer": (answer.Config(), ASKED),
}


def models(root, *names):
    """Fill a folder with what is named: of ROWS, `speech`, `lm`, `sentences`."""
    for name in names:
        if name == "speech":
            save(root / name, transcribe.Config(window_s=4.0, limit=8), WHISPER, build(WHISPER, 3))
        elif name == "lm":
            write(root / name, config=GPT2.model_copy(update={"context": CONTEXT}))
        elif name == "sentences":
            bundle.write(root / name, build(BERT, 5), byte_level(), pooling=Pooling(context=32, lowercase=True))
        else:
            task, rows = ROWS[name]
            save(root / name, task.fitted([task.example(row) for row in rows]), BERT)
    return root


def save(path, task, config, model=None):
    """Write a random model with the heads of a task, or one that is given, as training leaves it."""
    model = model or config.build(seed=1, heads=task.heads()).eval()
    kept = contract.saved(task)
    bundle.write(path, model, byte_level(), task=kept.pop("name"), settings=kept)


def asked(name):
    """Return the rows of a folder without their answers."""
    task, rows = ROWS[name]
    answers = set(task.answers) | {"tags", "label", "score", "answers"}
    return [{key: value for key, value in row.items() if key not in answers} for row in rows]


def wav(samples, rate=16_000, **options):
    """Return samples as the bytes of a wav file."""
    import soundfile

    held = io.BytesIO()
    soundfile.write(held, np.asarray(samples), rate, format="WAV", **options)
    return held.getvalue()


def voice(seconds, pitch=120.0, rate=16_000):
    """Return what sounds like somebody: a gliding pitch, two resonances that move like vowels."""
    t = np.arange(int(seconds * rate)) / rate
    turns = np.cumsum(pitch * (1 + 0.1 * np.sin(9.4 * t))) / rate
    found = np.zeros(len(t))
    for tone in range(1, 30):
        loud = sum(
            np.exp(-(((tone * pitch - hertz) / 150) ** 2))
            for hertz in (500 + 250 * np.sin(19 * t), 1500 + 600 * np.cos(12.6 * t))
        )
        found += loud * np.cos(2 * np.pi * tone * turns)
    return 0.3 * found / np.abs(found).max()
