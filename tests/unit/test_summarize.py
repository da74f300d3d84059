"""Summaries: sentences of Chinese and English, what makes one central, and weights that beat the first sentence."""

import numpy as np
import pytest
import toys

from hanlin.errors import DataError
from hanlin.tasks import summarize
from hanlin.tasks.predict import Predictor
from hanlin.tasks.writing import sentences
from hanlin.text.tokenizer import byte_level

TASK = summarize.Config(kind="extractive")


class TestSentences:
    """Where one ends, and what is measured on it."""

    @pytest.mark.parametrize(
        ("text", "parts"),
        [
            ("One. Two? Three!", ["One.", "Two?", "Three!"]),
            ("它跑了。你呢？好！", ["它跑了。", "你呢？", "好！"]),
            ("他说：“走。”然后走了。", ["他说：“走。”", "然后走了。"]),
            ('He said "Go." Then left.', ['He said "Go."', "Then left."]),
            ("方法如下.结果很好.", ["方法如下.", "结果很好."]),
            ("It costs 3.5 euro", ["It costs 3.5 euro"]),
            ("a\nb\n\n", ["a", "b"]),
            ("...", ["..."]),
        ],
    )
    def test_split(self, text, parts):
        """Guards against a decimal point that ends a sentence, signs that are lost, and Chinese in one piece."""
        assert sentences.split(text) == parts

    def test_joined(self):
        """Guards against spaces between Chinese sentences, and none between English ones."""
        assert sentences.joined(["甲。", "乙。", "Yes."]) == "甲。乙。 Yes."

    def test_the_central_one_is_most_like_the_others(self):
        """Guards against a sentence that is central because it is like itself."""
        text = ["cats and dogs eat fish", "dogs eat", "cats eat fish", "the moon shines brightly tonight"]
        found = sentences.measures(text)
        assert found.shape == (4, sentences.MEASURES)
        assert found[:, 6].argmax() == 0
        assert found[:, 7].argmin() == 3
        assert found[3, 6] == pytest.approx(0)
        assert np.isfinite(sentences.measures(["。"])).all()
        assert np.isfinite(sentences.measures(["。", "!"])).all()


def corpus(count):
    """Return texts whose second sentence is the summary, the others about nothing in common."""
    rows = []
    for number in range(count):
        words = [f"w{number}x{place}" for place in range(6)]
        said = " ".join(words)
        rows.append({"source": ["We begin.", f"{said} all.", f"{words[0]} {words[1]} other things."], "target": said})
    return [TASK.example(each) for each in rows]


def test_weights_learn_where_the_summary_is():
    """Guards against a summariser that loses to the first sentence; the head of an untrained model adds little."""
    examples = corpus(12)
    task = TASK.fitted(examples)
    model = toys.EncoderConfig(vocab=259, context=128).build(seed=0, heads=task.heads())
    for parameter in model.heads.parameters():
        parameter.data.zero_()
    predictions = Predictor(task, model, byte_level())(examples)
    assert all(each.sentences == (1,) for each in predictions)
    scores = task.score(examples, predictions)
    assert scores["rouge_l"].value > 90 > scores["rouge_l_lead"].value


def test_the_head_learns_what_the_weights_leave():
    """Guards against a head that learns the whole gain, which would then count twice."""
    examples = corpus(4)
    task = TASK.fitted(examples)
    rows = task.encode(examples, byte_level(), 64)
    wanted = summarize._gains(list(examples[0].source), [str(examples[0].target)])
    assert [row.answer + row.note for row in rows[:3]] == pytest.approx(wanted.tolist())
    assert [row.example for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]


def test_the_chosen_stand_in_the_order_of_the_text():
    """Guards against sentences in the order of their scores."""
    task = summarize.Config(kind="extractive", sentences=2)
    example = task.example({"source": "甲一。乙二。丙三。"})
    rows = task.encode([example], byte_level(), 64)
    found = task.decode(example, rows, [0.1, 0.0, 0.5], byte_level())
    assert (found.text, found.sentences) == ("甲一。丙三。", (0, 2))


def test_several_summaries_count_by_the_best():
    """Guards against a reference that is ignored."""
    example = TASK.example({"source": ["a b c d."], "target": ["x y z", "a b c d"]})
    assert TASK.score([example], [summarize.Prediction(text="a b c d")])["rouge_1"].value == pytest.approx(100)


@pytest.mark.parametrize("source", ["", " \n", [], [""], [1.5, None], {"a": 1}, True])
def test_what_is_no_text(source):
    """Guards against a summary of the empty text, or of a Python object."""
    with pytest.raises(DataError):
        TASK.example({"source": source})
