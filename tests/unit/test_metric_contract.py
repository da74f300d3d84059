"""One table of all metrics and what each must keep: a new file is tested by one entry in TABLE."""

import math
import time
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import hanlin.metrics
from hanlin.errors import DataError
from hanlin.metrics import cer, correlation, mean_squared, ndcg, wer
from hanlin.metrics.contract import Draws, Rows, Sums, bootstrap, grouping, mean
from hanlin.metrics.labels import accuracy, calibration, entity_f1, f1, matthews, multilabel, slot_f1
from hanlin.metrics.paired import paired
from hanlin.metrics.texts import bleu, chrf, cmrc, exact, execution, rouge, squad


@dataclass(frozen=True)
class Case:
    """A metric with rows that are partly wrong, the predictions that would be perfect, and their scores."""

    metric: ModuleType
    predictions: list
    references: list
    perfect: list
    best: dict[str, float]
    options: dict = field(default_factory=dict)
    by_row: tuple[str, ...] = ()  # options that are one a row


LABELS = ["好", "bad", "好", "中", "bad", "好", "中", "bad"]
GUESSES = ["好", "好", "好", "bad", "bad", "好", "中", "中"]
TAGS = [["B-人名", "I-人名", "O"], ["O", "B-LOC"], ["O"], ["B-PER", "O", "B-LOC"]]
FOUND = [["B-人名", "O", "O"], ["O", "B-LOC"], ["O"], ["B-PER", "O", "O"]]
TEXTS = [
    "the cat sat on the mat today",
    "翰林院在北京城里的东边。",
    "a small house by the river",
    "我们今天去学校学习中文。",
]
DRAFTS = ["the cat sat on a mat", "翰林院在北京的西边。", "a small house by the river", "他们明天去学校。"]
ANSWERS = [["the Seine", "Seine"], ["北京大学"], ["42"], ["在1998年", "1998年"]]
SETS = [{"sport", "体育"}, {"world"}, set(), {"sport"}]
CHANCES = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6]])
TRUTH = [0, 1, 0, 2]
RESULTS = [[(1, "一"), (2, "two")], [(3.5,)], [("北京",)], [(1,), (2,)]]
NUMBERS = [1.0, 4.0, 2.0, 2.0, 5.0]
ONE, HUNDRED = dict.fromkeys(("f1", "precision", "recall"), 1.0), dict.fromkeys(("exact_match", "f1"), 100.0)

TABLE = {
    "wer": Case(wer, DRAFTS, TEXTS, TEXTS, {"wer": 0.0, "exact": 1.0}),
    "cer": Case(cer, DRAFTS, TEXTS, TEXTS, {"cer": 0.0}),
    "accuracy": Case(accuracy, GUESSES, LABELS, LABELS, {"accuracy": 1.0}),
    "f1": Case(f1, GUESSES, LABELS, LABELS, ONE),
    "f1 micro": Case(f1, GUESSES, LABELS, LABELS, ONE, {"average": "micro", "labels": ["好", "中"]}),
    "f1 binary": Case(f1, GUESSES, LABELS, LABELS, ONE, {"average": "binary", "positive": "bad"}),
    "multilabel": Case(multilabel, [{"sport"}, {"world", "体育"}, set(), set()], SETS, SETS, {**ONE, "accuracy": 1.0}),
    "multilabel macro": Case(
        multilabel, [{"sport"}, {"体育"}, set(), set()], SETS, SETS, {**ONE, "accuracy": 1.0}, {"average": "macro"}
    ),
    "matthews": Case(matthews, GUESSES, LABELS, LABELS, {"matthews": 1.0, "kappa": 1.0}),
    "calibration": Case(calibration, list(CHANCES), TRUTH, list(np.eye(3)[TRUTH]), {"ece": 0, "brier": 0, "nll": 0}),
    "entity_f1": Case(entity_f1, FOUND, TAGS, TAGS, ONE),
    "entity_f1 strict": Case(entity_f1, FOUND, TAGS, TAGS, ONE, {"strict": True}),
    "slot_f1": Case(
        slot_f1,
        list(zip(["播放", "play", "ask", "ask"], FOUND)),
        list(zip(["播放", "play", "play", "ask"], TAGS)),
        list(zip(["播放", "play", "play", "ask"], TAGS)),
        {"slot_f1": 1.0, "intent_accuracy": 1.0, "frame_accuracy": 1.0},
    ),
    "mean_squared": Case(mean_squared, [1.0, 3.0, 2.5, 2.0, 9.0], NUMBERS, NUMBERS, {"mse": 0, "rmse": 0, "mae": 0}),
    "correlation": Case(correlation, [1.0, 3.0, 2.5, 2.0, 1.0], NUMBERS, NUMBERS, {"spearman": 1.0, "pearson": 1.0}),
    "ndcg": Case(
        ndcg,
        [["乙", "甲"], ["c", "b"], ["x"]],
        [{"甲": 2, "乙": 1}, {"b": 1, "c": 0}, {"y": 1}],
        [["甲", "乙"], ["b"], ["y"]],
        dict.fromkeys(("ndcg@10", "recall@100", "mrr@10", "map"), 1.0),
    ),
    "exact": Case(exact, ["Seine", "北京", "42", "1998"], ANSWERS, [each[0] for each in ANSWERS], {"exact_match": 1.0}),
    "squad": Case(squad, ["Seine river", "北京", "42", "1998"], ANSWERS, [each[0] for each in ANSWERS], HUNDRED),
    "cmrc": Case(cmrc, ["Seine river", "北京", "42", "1998"], ANSWERS, [each[0] for each in ANSWERS], HUNDRED),
    "bleu": Case(bleu, DRAFTS, TEXTS, TEXTS, {"bleu": 100.0}, {"tokenize": "zh"}),
    "chrf": Case(chrf, DRAFTS, TEXTS, TEXTS, {"chrf": 100.0}),
    "rouge": Case(rouge, DRAFTS, TEXTS, TEXTS, dict.fromkeys(("rouge_1", "rouge_2", "rouge_l"), 100.0)),
    "execution": Case(
        execution,
        [[(2, "two"), (1, "一")], None, [("上海",)], [(2,), (1,)]],
        RESULTS,
        RESULTS,
        {"exec_accuracy": 1.0},
        {"ordered": [False, False, False, True]},
        ("ordered",),
    ),
}
ALL = pytest.mark.parametrize("case", TABLE.values(), ids=TABLE)


def told(case, predictions, references, order=None, **more):
    """Return the scores of a case for other rows, with one-a-row options put in the same order."""
    options = dict(case.options)
    for name in case.by_row:
        options[name] = [options[name][place] for place in (order if order is not None else range(len(references)))]
    return case.metric.score(predictions, references, **options, **more)


def values(scores):
    return {key: each.value for key, each in scores.items()}


def test_every_file_is_in_the_table():
    """Guards against a metric that nothing checks."""
    root = Path(hanlin.metrics.__file__).parent
    names = [".".join(file.relative_to(root).with_suffix("").parts) for file in root.rglob("*.py")]
    modules = [import_module(f"hanlin.metrics.{name}") for name in names if not name.endswith("__init__")]
    scoring = {module.__name__ for module in modules if hasattr(module, "score") and hasattr(module, "rows")}
    assert scoring == {case.metric.__name__ for case in TABLE.values()}


@ALL
def test_perfect_is_best(case):
    """Guards against a score that a perfect model cannot reach, and against other keys than promised."""
    found = told(case, case.perfect, case.references)
    assert values(found) == pytest.approx(case.best, abs=1e-9)
    for each in found.values():
        assert (each.low, each.high) == pytest.approx((each.value, each.value), abs=1e-9)
        assert each.n == len(case.references)


@ALL
def test_worse_is_told_from_perfect_and_lies_in_its_interval(case):
    """Guards against a score that is best whatever was predicted, and intervals beside the value."""
    found = told(case, case.predictions, case.references)
    assert list(found) == list(case.best)
    for key, each in found.items():
        assert abs(each.value - case.best[key]) > 0.01
        assert each.low <= each.value <= each.high
        assert math.isfinite(each.low)
        assert math.isfinite(each.high)
        assert each.unit


@ALL
def test_order_of_rows_never_matters(case):
    """Guards against a state carried from row to row."""
    order = np.random.default_rng(3).permutation(len(case.references))
    shuffled = [[side[place] for place in order] for side in (case.predictions, case.references)]
    expected = values(told(case, case.predictions, case.references))
    assert values(told(case, *shuffled, order=order)) == pytest.approx(expected)


@ALL
def test_the_whole_set_twice_keeps_the_value(case):
    """Guards against sums that are not divided, and intervals that do not narrow with more rows."""
    once = told(case, case.predictions, case.references)
    order = [*range(len(case.references))] * 2
    twice = told(case, [*case.predictions] * 2, [*case.references] * 2, order=order)
    assert values(twice) == pytest.approx(values(once))
    assert {each.n for each in twice.values()} == {2 * len(case.references)}


@ALL
def test_groups_are_redrawn_together(case):
    """Guards against copies of rows that pass for independent ones: in groups with their copies they add nothing."""
    once = told(case, case.predictions, case.references)
    size = len(case.references)
    groups = [f"文{row}" for row in range(size)] * 2
    twice = told(case, [*case.predictions] * 2, [*case.references] * 2, order=[*range(size)] * 2, groups=groups)
    for key, each in twice.items():
        assert each.n == size
        assert (each.low, each.high) == (pytest.approx(once[key].low), pytest.approx(once[key].high))


@ALL
def test_a_row_alone_and_against_itself(case):
    """Guards against rows that cannot be looked at one by one, and a difference between a model and itself."""
    found = case.metric.rows(case.predictions, case.references, **case.options)
    assert len(found.numbers) == len(case.references)
    for key, measure in found.measures.items():
        assert paired(found, found, key).p == 1.0
        if isinstance(measure, Sums):
            assert found.alone(key).shape == (len(case.references),)


@ALL
def test_what_cannot_be_scored_is_said(case):
    """Guards against a score of nothing, and rows compared with their neighbours' answers."""
    with pytest.raises(DataError, match="no rows"):
        told(case, [], [])
    with pytest.raises(DataError, match="one of each a row"):
        told(case, case.predictions[:-1], case.references)
    with pytest.raises(DataError, match="groups"):
        told(case, case.predictions, case.references, groups=[1])


@pytest.mark.parametrize("metric", [mean_squared, correlation, accuracy, f1, matthews])
@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float32("nan")])
def test_no_number_is_not_a_score(metric, bad):
    """Guards against NaN that spreads into the mean, or a label NaN that equals nothing, itself included."""
    with pytest.raises(DataError, match="NaN or infinity"):
        metric.score([1.0, bad, 2.0], [1.0, 2.0, 3.0])
    with pytest.raises(DataError, match="NaN or infinity"):
        metric.score([1.0, 2.0, 2.0], [1.0, bad, 3.0])


def test_no_probability_and_no_gain_is_nan():
    """Guards against NaN in tables, where a list of floats would not show it."""
    with pytest.raises(DataError, match="NaN or infinity in 1 of 2"):
        calibration.score(np.array([[0.5, 0.5], [math.nan, 1.0]]), [0, 1])
    with pytest.raises(DataError, match="gain is NaN"):
        ndcg.score([["a"]], [{"a": math.nan}])


def test_both_kinds_of_measure_draw_the_same_rows():
    """Guards against a rank statistic whose interval rests on other redraws than a sum's."""
    numbers = np.stack([np.random.default_rng(0).random(40), np.ones(40)], 1)
    drawn = Draws(lambda counts, numbers: counts @ numbers[:, 0] / counts.sum(1), "")
    found = Rows(numbers=numbers, measures={"sums": Sums(mean, ""), "draws": drawn}).score(seed=4)
    assert found["sums"].low == pytest.approx(found["draws"].low)
    assert found["draws"].high == pytest.approx(bootstrap(numbers, mean, unit="", seed=4).high)


def test_redraws_without_a_value_stay_out_of_the_interval():
    """Guards against NaN for a bound, and against a 0 put in its place: two rows are drawn alike half of the time."""
    found = correlation.score([1.0, 2.0], [1.0, 2.0])["spearman"]
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_label_is_compared_whole():
    """Guards against a label that is right because the wanted one begins with it."""
    assert accuracy.score(["好", "pos"], ["好评", "positive"])["accuracy"].value == 0.0


def test_groups_need_not_be_of_one_size():
    """Guards against draws of groups that give a large one as many rows as a small one."""
    numbers = np.array([[1.0, 1], [1, 1], [1, 1], [0, 1]])
    found = Rows(numbers=numbers, measures={"x": Sums(mean, "")}).score(["a", "a", "a", "b"])["x"]
    assert (found.value, found.low, found.high, found.n) == (0.75, 0.0, 1.0, 2)
    assert grouping(["b", "a", "b"], 3).tolist() == [0, 1, 0]


def test_a_thousand_rankings_of_five_thousand_rows_take_no_two_seconds():
    """Guards against a sort for every redraw."""
    draws = np.random.default_rng(0)
    truth = draws.normal(size=5000)
    guess = truth + draws.normal(size=5000)
    start = time.process_time()
    found = correlation.score(guess, truth)["spearman"]
    assert time.process_time() - start < 4  # twice the promise: a busy machine is slower
    assert found.high - found.low < 0.05


class TestPaired:
    def test_the_difference_and_its_sign(self):
        """Guards against b − a, and a p that forgets that the rows are the same."""
        draws = np.random.default_rng(1)
        hard = draws.random(400)
        a, b = ([str(int(luck > level)) for luck in hard] for level in (0.40, 0.46))
        wanted = ["1"] * 400
        found = paired(accuracy.rows(a, wanted), accuracy.rows(b, wanted), "accuracy")
        assert found.difference.value == pytest.approx(found.a - found.b)
        assert found.difference.low > 0
        assert found.p < 0.01
        apart = [accuracy.score(each, wanted)["accuracy"] for each in (a, b)]
        assert apart[0].low < apart[1].high  # the intervals alone would not tell them apart
        back = paired(accuracy.rows(b, wanted), accuracy.rows(a, wanted), "accuracy")
        assert back.difference.value == -found.difference.value
        assert back.p < 0.01

    def test_chance_is_called_chance(self):
        """Guards against p below 0.05 more often than one time in twenty where nothing differs."""
        draws = np.random.default_rng(0)
        low = 0
        for trial in range(200):
            a, b = (Rows(numbers=draws.random((50, 2)), measures={"x": Sums(lambda s: s[..., 0], "")}) for _ in "ab")
            low += paired(a, b, "x", seed=trial, rounds=200).p < 0.05
        assert low <= 20

    def test_ranks_and_groups(self):
        """Guards against paired comparison of sums only, and of rows where documents were asked."""
        draws = np.random.default_rng(2)
        truth = draws.normal(size=60)
        good, poor = truth + 0.1 * draws.normal(size=60), draws.normal(size=60)
        rows = [correlation.rows(each, truth) for each in (good, poor)]
        found = paired(*rows, "spearman", groups=[row // 6 for row in range(60)])
        assert found.difference.n == 10
        assert found.p < 0.01
        assert paired(*rows, "spearman", groups=[0] * 60).p == 1.0

    def test_other_rows_do_not_compare(self):
        """Guards against two files of predictions for different data."""
        with pytest.raises(DataError, match="2 rows against 1"):
            paired(accuracy.rows(["a", "b"], ["a", "b"]), accuracy.rows(["a"], ["a"]), "accuracy")
