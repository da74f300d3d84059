"""The speech set of local text: nothing that is held out, sentence or voice, is there to learn from."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("soxr")
from benchmarks import espeak

ENGLISH = [
    f"The {word} of number {way} is read." for word in ("value", "name", "path") for way in "abcdefghijklmnopqrst"
]
CHINESE = [f"{first}里的第{second}座桥很长" for first in "江河湖海山" for second in "一二三四五六七八九十"]


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return the rows of a set whose recordings are silence, by part."""
    monkeypatch.setattr(espeak, "spoken", lambda text, voice, speed, pitch: np.zeros(800, np.float32))
    for language, sentences in (("en", ENGLISH), ("zh", CHINESE)):
        espeak.make(tmp_path, language, sentences, 25, seed=0)
    lines = {part: (tmp_path / f"{part}.jsonl").read_text(encoding="utf-8").splitlines() for part in espeak.PARTS}
    return {part: [json.loads(each) for each in found] for part, found in lines.items()}


def test_sentences_are_apart(made):
    """Guards against phrases of held-out sentences, and sentences of two parts."""
    whole = {each.rstrip(".") for each in (*ENGLISH, *CHINESE)}
    texts = {part: {row["text"] for row in rows} for part, rows in made.items()}
    assert whole <= texts["train"] | texts["dev"] | texts["voices"]
    assert all(texts.values())
    assert not texts["train"] & (texts["dev"] | texts["voices"])
    assert not texts["dev"] & texts["voices"]
    learned = [each for each in (*ENGLISH, *CHINESE) if espeak.side(each) == "train"]
    short = texts["train"] - whole
    assert short
    assert all(any(piece in each for each in learned) for piece in short)
    assert all(len(piece.split()) <= 3 and len(piece) <= (5 if piece[0] >= "\u4e00" else 99) for piece in short)


def test_voices_are_apart(made):
    """Guards against held-out voices in training, of either language."""
    heard = {part: {row["speaker"] for row in rows} for part, rows in made.items()}
    assert heard["dev"] <= heard["train"]
    assert not heard["voices"] & heard["train"]
    assert {name[:2] for name in heard["voices"]} == {"en", "cm"}


def test_phrases_come_of_sentences_to_learn_from_alone():
    """Guards against a word that stands in held-out sentences alone."""
    sentences = [f"{word} {word} {word} {word}." for word in "abcdefghijklmnopqrstuvwxyz"]
    held = {each[0] for each in sentences if espeak.side(each) != "train"}
    found = espeak.phrases(sentences, 100, np.random.default_rng(0))
    assert held
    assert not held & {each[0] for each in found}
    assert {len(each.split()) for each in found} == {1, 2, 3}
