"""Labels that no training has seen: the rows that are asked, the shots before them, and the likeliest label."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hanlin.errors import AbilityError, ConfigError, DataError
from hanlin.generate.score import score
from hanlin.models import bert, llama
from hanlin.tasks import zeroshot
from hanlin.tasks.classify import Example
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import byte_level

LABELS = ("sport", "politics", "体育")
TEXTS = ["They won the match", "A vote was held", "球队赢了比赛"]
READER = byte_level()


def decoder(context=256):
    return llama.Config(vocab=259, dim=16, layers=1, heads=2, hidden=32, context=context).build(seed=0).eval()


def judge():
    model = bert.Config(vocab=259, dim=16, layers=1, heads=2, hidden=32, context=256).build(
        seed=0, heads={"sequence": 3}
    )
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=torch.Generator().manual_seed(1)) * 0.3)
    return model.eval()


@pytest.mark.parametrize("per", ["token", "text"])
def test_a_label_is_as_likely_as_score_says(per):
    """A target one place off, the text counted with the label, a sum where a mean is meant."""
    task, model = zeroshot.Config(by="score", labels=LABELS, per=per), decoder()
    (found,) = Predictor(task, model, READER)([Example(text=TEXTS[0])])
    head = READER.prompt(f"Text: {TEXTS[0]}\nTopic:")
    tails = [list(READER.encode(f" {label}", added=False).ids) for label in LABELS]
    totals = score(model, [[*head, *tail] for tail in tails], prefix=[len(head)] * 3)
    values = np.array([each.mean() if per == "token" else each.sum() for each in totals])
    wanted = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
    assert [found.probabilities[label] for label in LABELS] == pytest.approx(wanted.tolist(), abs=1e-5)
    assert found.label == LABELS[int(values.argmax())]


def test_company_changes_nothing():
    by_score = zeroshot.Config(by="score", labels=LABELS)
    for task, model in ((by_score, decoder()), (zeroshot.Config(labels=LABELS), judge())):
        predictor = Predictor(task, model, READER)
        examples = [Example(text=text) for text in TEXTS]
        for one, other in zip(predictor(examples), [predictor([each])[0] for each in examples]):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_entailment_asks_in_the_language_of_the_text():
    rows = zeroshot.Config(labels=("a", "b")).encode([Example(text=TEXTS[0]), Example(text=TEXTS[2])], READER, 256)
    said = [READER.decode(row.ids) for row in rows]
    assert "This text is about a." in said[0]
    assert "这段文字说的是b。" in said[3]
    assert [row.example for row in rows] == [0, 0, 1, 1]


def test_entailment_is_the_head_s_own_class():
    """The probability of another class, where the head has them in another order."""
    classes = ("contradiction", "neutral", "entailment")
    task, model = zeroshot.Config(labels=LABELS, classes=classes), judge()
    rows = task.encode([Example(text=TEXTS[0])], READER, 256)
    with torch.inference_mode():
        given = task.run(model, task.collate(rows[:1], 0), READER)[0]
        hidden = model(torch.tensor([list(rows[0].ids)]), kinds=torch.tensor([list(rows[0].kinds)]))
        wanted = model.heads["sequence"](hidden, None).log_softmax(-1)[0, 2]
    assert given == pytest.approx(float(wanted), abs=1e-5)


def test_shots_take_the_labels_in_turn():
    labelled = [Example(text=f"t{at}", label="ab"[at > 3]) for at in range(6)]
    task = zeroshot.Config(by="score", shots=3).fitted(labelled)
    assert task.shown == (("t0", "a"), ("t4", "b"), ("t1", "a"))
    (row, _) = task.encode([Example(text="new")], READER, 256)
    said = READER.decode(row.ids)
    assert said.startswith("Text: t0\nTopic: a\n\nText: t4\nTopic: b\n\n")
    assert said.endswith("Text: new\nTopic:" + " ")  # the last token is only foreseen
    with pytest.raises(ConfigError, match="at most the labelled rows, 6"):
        zeroshot.Config(by="score", shots=9).fitted(labelled)


def test_what_does_not_fit_is_cut_from_the_front_and_counted():
    task = zeroshot.Config(by="score", labels=("aa", "b"))
    rows = task.encode([Example(text="x" * 100)], READER, 32)
    assert [len(row.ids) for row in rows] == [32, 32]
    assert all(row.truncated for row in rows)
    assert READER.decode(rows[0].ids).endswith("Topic: a")


def test_a_model_is_asked_as_it_can_be():
    task = zeroshot.Config(labels=LABELS)
    assert zeroshot.suited(task, decoder(), ()).by == "score"
    found = zeroshot.suited(task, judge(), ("neutral", "entailment", "contradiction"))
    assert (found.by, found.follows) == ("entailment", 1)
    with pytest.raises(AbilityError, match="hanlin train nli"):
        zeroshot.suited(task, judge(), ("down", "up", "none"))


def test_contradictions():
    with pytest.raises(ValueError, match=r"lacks \{label\}"):
        zeroshot.Config(template="about nothing")
    with pytest.raises(ValueError, match="none is called"):
        zeroshot.Config(classes=("a", "b"))
    with pytest.raises(DataError, match="at least two"):
        zeroshot.Config().encode([Example(text="a")], READER, 32)
