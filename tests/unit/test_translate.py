"""Translation and the writing that all tasks share: openings, ends, what is cut, languages, BLEU's tokenizer."""

import pytest
import torch
import toys

from hanlin.batch import IGNORE
from hanlin.errors import DataError
from hanlin.models import bart, rnn, t5
from hanlin.tasks import translate
from hanlin.tasks.batches import Bucketed
from hanlin.tasks.predict import Predictor
from hanlin.text.tokenizer import byte_level

TOKENS = byte_level()
BOS, EOS = TOKENS.special.bos, TOKENS.special.eos
WORDS = ["abc", "好的", "b a"]
MODELS = {
    "t5": t5.Config(vocab=259, dim=32, layers=1, heads=4, hidden=64, context=32, dropout=0.0, start=2),
    "bart": bart.Config(vocab=259, dim=32, layers=1, heads=4, hidden=64, context=32, dropout=0.0, start=1, first=0),
    "rnn": rnn.Config(vocab=259, dim=32, layers=1, context=32, encoder="bidirectional", attention="luong", copies=True),
}


def examples(task, pairs, **more):
    return [task.example({"source": a, "target": b, **more}) for a, b in pairs]


def ids(text):
    return list(TOKENS.encode(text, added=False).ids)


class TestRows:
    """What one example becomes."""

    def test_targets_are_what_follows(self):
        """Guards against an answer that is shifted twice, or has no end."""
        (row,) = translate.Config().encode(examples(translate.Config(), [("ab", "好")]), TOKENS, 16)
        assert list(row.source) == list(TOKENS.encode("ab").ids)
        assert list(row.ids) == [BOS, *ids("好")]
        assert list(row.targets) == [*ids("好"), EOS]

    def test_an_opening_of_two_tokens(self):
        """Guards against a forced first token that training has in another place."""
        task = translate.Config().opened(MODELS["bart"])
        assert task.opening == (1, 0)
        (row,) = task.encode(examples(task, [("ab", "xy")]), TOKENS, 16)
        assert list(row.ids) == [1, 0, *ids("xy")]
        assert list(row.targets) == [0, *ids("xy"), EOS]

    def test_a_source_that_does_not_fit_is_refused_in_one_line(self):
        """Guards against text that is dropped in silence."""
        task = translate.Config()
        with pytest.raises(DataError, match=r"row 2 .*21 tokens \(1 of 2 rows.*at most 16.*task\.cut") as caught:
            task.encode(examples(task, [("a", "b"), ("a" * 20, "b")]), TOKENS, 16)
        assert len(caught.value.problems) == 1

    def test_or_cut_and_counted(self):
        """Guards against tokens that are lost uncounted on either side, and an end after words that were cut."""
        task = translate.Config(cut=True)
        (row,) = task.encode(examples(task, [("a" * 20, "b" * 30)]), TOKENS, 16)
        assert (len(row.source), len(row.ids), len(row.targets)) == (16, 16, 16)
        assert row.truncated == (21 - 16) + (31 - 16)
        assert EOS not in row.targets

    def test_without_answers_there_are_no_targets(self):
        """Guards against half a batch with targets."""
        task = translate.Config()
        mixed = [task.example({"source": "a", "target": "b"}), task.example({"source": "a"})]
        assert all(row.targets is None and list(row.ids) == [BOS] for row in task.encode(mixed, TOKENS, 16))

    def test_nothing_is_learned_from_an_empty_target(self):
        """Guards against rows that cannot be said and teach to end at once."""
        rows = translate.Config().written_rows([("a", ""), ("a", "b")], TOKENS, 16)
        assert set(rows[0].targets) == {IGNORE}
        assert len(rows[0].targets) == len(rows[0].ids)


class TestLanguages:
    """Many to many."""

    def test_the_language_comes_first_where_there_are_several(self):
        """Guards against one language for all, and a tag where nothing has to be told apart."""
        task = translate.Config()
        pairs = [
            *examples(task, [("a", "b")], target_language="de"),
            *examples(task, [("a", "丙")], target_language="zh"),
        ]
        fitted = task.fitted(pairs)
        assert fitted.languages == ("de", "zh")
        assert [fitted.texts(each)[0] for each in pairs] == [">>de<< a", ">>zh<< a"]
        assert task.fitted(pairs[:1]).texts(pairs[0])[0] == "a"
        with pytest.raises(DataError, match=r"target_language.*missing.*de, zh"):
            fitted.asked("a")
        with pytest.raises(DataError, match=r"'zhh'.*zh"):
            fitted.asked({"source": "a", "target_language": "zhh"})

    def test_some_rows_without_a_language(self):
        """Guards against rows whose language is guessed."""
        task = translate.Config()
        with pytest.raises(DataError, match="some rows only"):
            task.fitted([*examples(task, [("a", "b")], target_language="de"), *examples(task, [("a", "b")])])

    def test_chinese_is_counted_by_its_own_tokenizer(self):
        """Guards against 13a on Chinese, where a sentence is one word and BLEU nearly nothing."""
        task = translate.Config()
        zh = examples(task, [("I have a cat", "我有一只小猫咪。"), ("I have a dog", "我有一只狗。")])
        fitted = task.fitted(zh)
        assert (fitted.bleu, task.fitted(examples(task, [("猫", "a cat")])).bleu) == ("zh", "13a")
        assert "tok:zh" in fitted.signature()
        given = [
            translate.Prediction(text=text, complete=True, score=0.0) for text in ("我有一只小猫咪。", "我有一只猫。")
        ]
        assert 30 < fitted.score(zh, given)["bleu"].value < 100
        assert translate.Config(bleu="13a").fitted(zh).bleu == "13a"

    def test_case_counts_and_the_lower_case_figure_stands_beside_it(self):
        """Guards against a flattering BLEU."""
        task = translate.Config(bleu="13a")
        given = [translate.Prediction(text="the cat sat on the mat", complete=True, score=0.0)]
        scores = task.score(examples(task, [("x", "The Cat sat on the mat")]), given)
        assert scores["bleu"].value < scores["bleu_lower"].value == pytest.approx(100)


@pytest.mark.parametrize("name", [*(pytest.param(each, marks=pytest.mark.slow) for each in ("t5", "bart")), "rnn"])
def test_words_come_back(name):
    """Guards against openings and ends that differ between training and answering, and rows in another order."""
    torch.manual_seed(0)
    task = translate.Config(limit=12, beams=2).opened(MODELS[name])
    pairs = examples(task, [(word, word[::-1]) for word in WORDS])
    model = MODELS[name].build(seed=0)
    batches = Bucketed(task, task.encode(pairs, TOKENS, 32), rows=3, tokens=None, seed=0, pad=2)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(80):
        (part,) = task.objective()(model, batches.batch(step))
        optimizer.zero_grad()
        (part.total / part.count).backward()
        optimizer.step()
    found = Predictor(task, model, TOKENS)([task.asked(word) for word in WORDS])
    assert [each.text for each in found] == [word[::-1] for word in WORDS]
    assert all(each.complete for each in found)


def test_what_is_cut_at_the_limit_says_so():
    """Guards against half a translation that passes for a whole one."""
    model = toys.PairConfig(context=32).build(seed=0)
    (found,) = Predictor(translate.Config(limit=3), model, TOKENS)([translate.Config().asked("abc")])
    assert not found.complete


def test_neither_side_is_empty_or_something_else():
    """Guards against rows that are learned from as the text of their Python object."""
    for values in ({"source": " "}, {"source": "a", "target": ""}, {"source": ["a"]}, {"source": "a", "target": True}):
        with pytest.raises(DataError):
            translate.Config().example(values)
