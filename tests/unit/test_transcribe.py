"""Transcription, from bytes of sound to text: what is learned, what is not said, and long recordings."""

import io

import numpy as np
import pytest
import torch
from test_gate import hum, noise, vowels

from hanlin.data.audio.read import RATE
from hanlin.errors import DataError
from hanlin.models import whisper
from hanlin.tasks import transcribe
from hanlin.tasks.batches import Bucketed
from hanlin.tasks.predict import Predictor
from hanlin.text import tokenizer

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")
TASK = transcribe.Config(window_s=4.0, limit=8)
MODEL = whisper.Config(vocab=300, dim=32, layers=1, heads=2, context=16, source_context=220, any_length=True)


def wav(samples, rate=RATE):
    held = io.BytesIO()
    soundfile.write(held, np.asarray(samples), rate, format="WAV")
    return held.getvalue()


def voice(pitch, seconds=0.6):
    return vowels(seconds, pitch=pitch)


SPOKEN = [(100.0, "low"), (180.0, "mid"), (290.0, "高")]


@pytest.fixture(scope="module")
def learned():
    """Return a predictor that has learned three words of a synthetic voice by heart."""
    tokens = tokenizer.byte_level()
    examples = [TASK.example({"audio": wav(voice(pitch)), "text": text}) for pitch, text in SPOKEN]
    model = MODEL.build(seed=0)
    encoded = TASK.encode(examples, tokens, 16)
    batches = Bucketed(TASK, encoded, rows=3, tokens=None, seed=0, pad=0)
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], 3e-3)
    for step in range(60):
        (part,) = TASK.objective()(model, batches.batch(step))
        optimizer.zero_grad()
        (part.total / part.count).backward()
        optimizer.step()
    return Predictor(TASK, model, tokens, context=16)


def said(predictor, samples, rate=RATE):
    return predictor([TASK.example({"audio": wav(samples, rate)})])[0]


def test_words_come_back(learned):
    """Guards against a start token missing in one of training and answering, and rows in another order."""
    examples = [TASK.example({"audio": wav(voice(pitch)), "text": text}) for pitch, text in SPOKEN]
    found = learned(examples)
    assert [each.text for each in found] == [text for _, text in SPOKEN]
    assert TASK.score(examples, found)["exact"].value == 1.0
    assert TASK.marks(examples, found).tolist() == [0, 0, 0]
    slower = TASK.model_copy(update={"beams": 3})
    assert [each.text for each in Predictor(slower, learned.model, learned.tokenizer)(examples)] == ["low", "mid", "高"]


@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "click", "short"])
def test_where_nobody_speaks_nothing_is_said(learned, kind):
    """Guards against text made up for silence, which is what such models are known for."""
    click = np.zeros(2 * RATE)
    click[RATE : RATE + 16] = 0.9
    sounds = {"silence": np.zeros(9 * RATE), "noise": noise(5, -40), "hum": hum(5, -20), "click": click}
    found = said(learned, sounds.get(kind, np.zeros(20)))
    assert (found.text, found.segments) == ("", ())


def test_long_sound_has_times(learned):
    """Guards against windows in another order, times counted from the window's own beginning."""
    pause = np.zeros(int(3.4 * RATE))
    parts = [voice(pitch) for pitch, _ in SPOKEN]
    found = said(learned, np.concatenate((parts[0], pause, parts[1], pause, parts[2], np.zeros(5 * RATE))))
    assert [round(each.start) for each in found.segments] == sorted({round(each.start) for each in found.segments})
    assert found.segments[0].start == 0.0
    assert len(found.segments) == 3
    assert all(each.end - each.start <= TASK.window_s for each in found.segments)
    assert found.text == " ".join(each.text for each in found.segments)


def test_bad_sound_is_one_line(learned, tmp_path):
    """Guards against a traceback for sound that cannot be used, and a transcript cut together with its sound."""
    with pytest.raises(DataError, match=r"none\.wav: not readable"):
        learned([TASK.example({"audio": str(tmp_path / "none.wav")})])
    with pytest.raises(DataError, match="a path, or the content of a sound file"):
        TASK.example({"audio": 7})
    with pytest.raises(DataError, match=r"a transcript of more than 4 s of sound; cut it, or raise task\.window_s"):
        learned([TASK.example({"audio": wav(vowels(9.0)), "text": "much"})])


def test_tables_and_archives(tmp_path, real_data):
    """Guards against names of a table that are looked for in another folder, and archives unpacked to the disk."""
    (tmp_path / "a.wav").write_bytes(wav(voice(100.0)))
    (tmp_path / "list.csv").write_text("file,sentence\na.wav,低\n", encoding="utf-8")
    (raw,) = TASK.read(tmp_path / "list.csv")
    assert raw.values == {"file": str(tmp_path / "a.wav"), "sentence": "低"}
    first = next(TASK.read(real_data / "data/speech/fsdd/fsdd.tar.gz"))
    assert isinstance(first.values["file"], bytes)
    assert first.values["label"] == "0"
