"""Transcription, from bytes of sound to text: what is learned, what is not said, and long recordings."""

import io
import json

import numpy as np
import pytest
import torch
from test_gate import hum, noise, vowels

from hanlin.data.audio import hearing
from hanlin.data.audio.augment import Augment
from hanlin.data.audio.read import RATE
from hanlin.errors import AbilityError, DataError
from hanlin.models import gpt2, whisper
from hanlin.tasks import learn, transcribe
from hanlin.tasks.batches import Bucketed
from hanlin.tasks.predict import Predictor
from hanlin.text import tokenizer
from hanlin.train.recipe import build

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


SPREAD = {"speeds": (0.8, 1.25), "noise_db": (10.0,), "time_masks": 1, "feature_masks": 1, "feature_width": 10}


def sources(task, seed=0):
    """Return a function from a step to what its rows hear."""
    tokens = tokenizer.byte_level()
    examples = [task.example({"audio": wav(voice(pitch)), "text": text}) for pitch, text in SPOKEN]
    batches = Bucketed(task, task.encode(examples, tokens, 16), rows=3, tokens=None, seed=seed, pad=0)
    return lambda step: batches.batch(step).source.values


def test_training_hears_other_sound_at_every_step():
    """Guards against one change drawn for all steps, a change that a restart draws anew, and none at all."""
    task = TASK.model_copy(update={"augment": Augment(**SPREAD)})
    one, again = sources(task), sources(task)
    assert torch.equal(one(3), again(3))
    assert one(3).shape != one(4).shape or not torch.equal(one(3), one(4))
    other = sources(task, seed=1)
    assert one(3).shape != other(3).shape or not torch.equal(one(3), other(3))


def test_only_training_hears_other_sound(learned):
    """Guards against answers about masked or noisy sound, and against sound that no longer fits the window."""
    task = TASK.model_copy(update={"augment": Augment(**SPREAD), "window_s": 0.7})
    examples = [task.example({"audio": wav(voice(pitch)), "text": text}) for pitch, text in SPOKEN]
    encoded, plain = task.encode(examples, learned.tokenizer, 16), TASK.encode(examples, learned.tokenizer, 16)
    assert all(np.array_equal(a.source, b.source) for a, b in zip(encoded, plain))
    lengths = {len(row.source) for step in range(8) for row in task.augmented(encoded, seed=0, step=step)}
    assert lengths == {48, 60}  # 0.6 s as it is, or at 1.25 of its speed; at 0.8 it would be 0.75 s


def test_labelled_sound_without_a_voice_is_learned_from_and_says_nothing(learned):
    """Guards against rows that the gate takes out of training in silence, and answers that look at the label."""
    example = TASK.example({"audio": wav(noise(1.0, -30)), "text": "low"})
    assert len(TASK.encode([example], learned.tokenizer, 16)) == 1
    assert learned([example])[0].text == ""


def test_a_checkpoint_says_how_it_hears(learned):
    """Guards against 80 bands for a model of 128, short rows for one that knows 30 seconds, and no language token."""
    config = whisper.Config(features=128, start=7, first=8, then=(9, 10))
    task = TASK.opened(config)
    assert (task.features, task.filled, task.window_s, task.opening) == (128, True, 30.0, (7, 8, 9, 10))
    (row,) = task.encode([task.example({"audio": wav(voice(100.0)), "text": "ab"})], learned.tokenizer, 16)
    assert row.source.shape == (3000, 128)
    assert row.ids[:4] == (7, 8, 9, 10)
    assert row.targets[:3] == [8, 9, 10]
    assert len(row.targets) == len(row.ids)
    assert learned.task.filled is False
    assert learned.task.window_s == 4.0
    with pytest.raises(AbilityError, match=r"model gpt2: reads no sound; a model of the family whisper"):
        TASK.opened(gpt2.Config())


def test_threads_change_nothing(learned):
    """Guards against recordings in the order in which threads finish, and an error that names another file."""
    ear, sounds = TASK.ear, [wav(voice(pitch, seconds)) for pitch, seconds in ((100, 1.5), (180, 0.3), (290, 0.5))]
    one, four = (hearing.together(sounds, ear, "abc", [True] * 3, threads) for threads in (1, 4))
    for a, b in zip(one, four):
        assert np.array_equal(a[0].frames, b[0].frames)
    with pytest.raises(DataError, match=r"^b: not a sound file"):
        hearing.together([sounds[0], b"none", b"none"], ear, "abc", [True] * 3, 4)


def test_a_set_says_which_of_its_rows_are_held_out(tmp_path):
    """Guards against held-out recordings that are learned from, and rows of both sides in one."""
    for number, (pitch, text) in enumerate([*SPOKEN, (120.0, "low")]):
        (tmp_path / f"{number}.wav").write_bytes(wav(voice(pitch)))
        split = "dev" if number == 1 else "train"
        row = {"audio": f"{number}.wav", "text": text, "split": split}
        with (tmp_path / "labels.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    model = {"family": "whisper", "any_length": True, "dim": 16, "layers": 1, "heads": 2, "source_context": 150}
    task = {"name": "transcribe", "window_s": 3.0, "limit": 4}
    data = {"train": str(tmp_path), "held": {"split": "dev"}}
    recipe = build({"model": model, "task": task, "data": data, "plan": {"steps": 1, "rows": 2, "context": 16}})
    found = learn.material(recipe, tmp_path / "run", [].append)
    assert [each.text for each in found.train] == ["low", "高", "low"]
    assert [each.text for each in found.valid] == ["mid"]
