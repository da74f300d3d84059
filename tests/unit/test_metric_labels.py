"""Scores of labels, spans and numbers, against hand-worked values and the libraries the field trusts."""

import math
import random
import warnings

import numpy as np
import pytest
from scipy import stats
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities
from sklearn import metrics as reference

from hanlin.errors import DataError
from hanlin.metrics import correlation, mean_squared
from hanlin.metrics.labels import accuracy, calibration, entity_f1, f1, matthews, multilabel, slot_f1
from hanlin.metrics.labels.confusion import confusion
from hanlin.metrics.labels.entity_f1 import spans


def drawn(seed, size=300, labels="甲乙丙d"):
    """Return guesses and truths that agree about half of the time; the last label is rare."""
    draws = np.random.default_rng(seed)
    truth = draws.choice(list(labels), size, p=[0.5, 0.3, 0.18, 0.02])
    return [str(each) for each in np.where(draws.random(size) < 0.5, truth, draws.permutation(truth))], truth.tolist()


@pytest.mark.parametrize("seed", range(5))
class TestAgainstScikitLearn:
    def test_f1(self, seed):
        """Guards against swapped precision and recall, and a mean over other labels."""
        guess, truth = drawn(seed)
        for options in ({"average": "macro"}, {"average": "micro", "labels": ["甲", "丙"]}):
            found = f1.score(guess, truth, **options)
            wanted = reference.precision_recall_fscore_support(truth, guess, **options, zero_division=0)
            assert [found[key].value for key in ("precision", "recall", "f1")] == pytest.approx(wanted[:3])
        binary = f1.score(guess, truth, average="binary", positive="乙")["f1"].value
        assert binary == pytest.approx(reference.f1_score(truth, guess, average=None, labels=["乙"])[0])

    def test_redraws_too(self, seed):
        """Guards against a redraw scored by another rule than the whole: labels that it does not hold count as 0."""
        guess, truth = drawn(seed, 12)
        rows = f1.rows(guess, truth)
        counts = np.random.default_rng(seed).multinomial(12, np.ones(12) / 12, size=20)
        found = rows.measures["f1"](counts.astype(float), rows.numbers)
        for line, value in zip(counts, found):
            again = [[side[row] for row in range(12) for _ in range(line[row])] for side in (truth, guess)]
            assert value == pytest.approx(reference.f1_score(*again, average="macro", zero_division=0))

    def test_by_label_and_table(self, seed):
        """Guards against one label's score under another's name."""
        guess, truth = drawn(seed)
        table = confusion(guess, truth)
        assert (table.counts == reference.confusion_matrix(truth, guess, labels=table.labels)).all()
        wanted = reference.f1_score(truth, guess, average=None, labels=table.labels)
        assert [each["f1"].value for each in f1.by_label(guess, truth).values()] == pytest.approx(list(wanted))

    def test_correlations_of_labels(self, seed):
        """Guards against a chance level that forgets how often each label is given."""
        guess, truth = drawn(seed)
        found = matthews.score(guess, truth)
        assert found["matthews"].value == pytest.approx(reference.matthews_corrcoef(truth, guess))
        assert found["kappa"].value == pytest.approx(reference.cohen_kappa_score(truth, guess))

    def test_sets_of_labels(self, seed):
        """Guards against rows averaged instead of labels pooled."""
        hot = np.random.default_rng(seed).random((2, 50, 4)) < 0.4
        guess, truth = ([{"甲乙丙d"[place] for place in np.flatnonzero(row)} for row in side] for side in hot)
        for average in ("micro", "macro"):
            found = multilabel.score(guess, truth, average=average)
            wanted = reference.f1_score(hot[1], hot[0], average=average)
            assert found["f1"].value == pytest.approx(wanted)
            assert found["accuracy"].value == pytest.approx(reference.accuracy_score(hot[1], hot[0]))

    def test_ranks(self, seed):
        """Guards against ties that are ranked by their place, in the whole and in redraws."""
        draws = np.random.default_rng(seed)
        x, y = draws.integers(5, size=(2, 40)) + draws.integers(3, size=40)
        rows = correlation.rows(x.astype(float), y.astype(float))
        counts = draws.multinomial(40, np.ones(40) / 40, size=20)
        for key, wanted in (("spearman", stats.spearmanr), ("pearson", stats.pearsonr)):
            assert rows.value(key) == pytest.approx(wanted(x, y).statistic)
            for line, value in zip(counts, rows.measures[key](counts.astype(float), rows.numbers)):
                assert value == pytest.approx(wanted(np.repeat(x, line), np.repeat(y, line)).statistic)


def test_correlation_of_constants():
    """Guards against NaN for a model that says the same of every row, and a score of data that say nothing."""
    assert correlation.score([2.0, 2.0, 2.0], [1.0, 2.0, 3.0])["spearman"].value == 0.0
    with pytest.raises(DataError, match="all 3 references are 2"):
        correlation.score([1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    far = correlation.score([1e9 + 1, 1e9 + 2, 1e9 + 3], [1.0, 2.0, 3.0])
    assert far["pearson"].value == pytest.approx(1.0)


def test_errors_by_hand():
    """Guards against squared and absolute errors under each other's name."""
    found = mean_squared.score([1.0, 5.0], [2.0, 2.0])
    assert {key: each.value for key, each in found.items()} == {"mse": 5.0, "rmse": math.sqrt(5), "mae": 2.0}


def test_labels_of_two_kinds():
    """Guards against a score of 0 because 1 is not "1"."""
    for metric in (accuracy, f1, matthews):
        with pytest.raises(DataError, match="one kind"):
            metric.score([1, 0], ["1", "0"])
    with pytest.raises(DataError, match="for a set of labels"):
        multilabel.score(["sport"], [{"sport"}])
    assert confusion([10, 2], [2, 2]).labels == (2, 10)
    assert confusion(["b", "b", "a"], ["a", "a", "a"]).worst() == [("a", "b", 2)]


def tagged(seed, letters, kinds=("人名", "LOC"), size=9):
    """Return tags in any order, as a model without a grammar writes them."""
    draws = random.Random(seed)
    letter = [draws.choice([*letters, "O"]) for _ in range(size)]
    return [each if each == "O" else f"{each}-{draws.choice(kinds)}" for each in letter]


class TestSpans:
    def test_lenient_is_seqeval_s_default(self):
        """Guards against entities lost or cut where a model writes tags out of order."""
        for seed in range(1500):
            for letters, scheme in (("BI", "bio"), ("BIES", "bioes")):
                tags = tagged(seed, letters)
                wanted = {(first, last + 1, kind) for kind, first, last in get_entities(tags)}
                assert spans(tags, scheme) == wanted, tags

    def test_strict_is_seqeval_s_strict_mode(self):
        """Guards against an I that begins an entity, or a B I without its E that is one."""
        for seed in range(1500):
            for letters, scheme, theirs in (("BI", "bio", IOB2), ("BIES", "bioes", IOBES)):
                tags = tagged(seed, letters)
                found = Entities([tags], theirs).entities[0]
                assert spans(tags, scheme, strict=True) == {(each.start, each.end, each.tag) for each in found}, tags

    def test_f1_is_seqeval_s(self):
        """Guards against an average of sentences."""
        truth, guess = ([tagged(seed, "BI", size=1 + seed % 9) for seed in range(s, 200 + s)] for s in (0, 9))
        found = entity_f1.score(guess, truth)["f1"].value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert found == pytest.approx(seqeval_f1(truth, guess))
            wanted = seqeval_f1(truth, guess, mode="strict", scheme=IOB2)
        assert entity_f1.score(guess, truth, strict=True)["f1"].value == pytest.approx(wanted)

    def test_other_letters(self):
        """Guards against Chinese files in BMES read as something else."""
        wanted = {(0, 3, "ORG"), (3, 4, "LOC")}
        assert spans(["B-ORG", "M-ORG", "E-ORG", "S-LOC"], "bioes", strict=True) == wanted
        assert spans(["B-ORG", "I-ORG", "L-ORG", "U-LOC"], "bioes") == wanted

    def test_spans_as_they_are(self):
        """Guards against a span found twice that counts twice, and types that are not looked at."""
        found = entity_f1.score(
            [[(0, 2, "PER"), (0, 2, "PER"), (3, 4, "LOC")]], [[[0, 2, "PER"], [3, 4, "ORG"]]], scheme="spans"
        )
        assert [each.value for each in found.values()] == [0.5, 0.5, 0.5]
        kinds = entity_f1.by_type([["B-A", "B-B"]], [["B-A", "B-A"]])
        assert {kind: each["recall"].value for kind, each in kinds.items()} == {"A": 0.5, "B": 0.0}

    @pytest.mark.parametrize(
        ("guess", "truth", "options", "said"),
        [
            (["O"], ["O", "O"], {}, "row 0: 1 predicted tags for 2 tokens"),
            (["X-PER"], ["O"], {}, "tag 'X-PER'; O, or B, I with -TYPE"),
            (["E-PER"], ["O"], {}, "tag 'E-PER'"),
            (["PER"], ["O"], {}, "tag 'PER'"),
            ([(2, 2, "PER")], [], {"scheme": "spans"}, "span"),
            (["O"], ["O"], {"scheme": "bios"}, "did you mean 'bio"),
        ],
    )
    def test_what_is_no_tag_is_said(self, guess, truth, options, said):
        """Guards against tags of another scheme that count as O."""
        with pytest.raises(DataError, match=said):
            entity_f1.score([guess], [truth], **options)


def test_frames_by_hand():
    """Guards against a frame that is right although a slot is missing, or whose intent is not looked at."""
    truth = [("book", ["O", "B-city"]), ("play", ["B-song", "I-song"]), ("play", ["O", "O"])]
    guess = [("book", ["O", "B-city"]), ("play", ["B-song", "O"]), ("book", ["O", "O"])]
    found = {key: each.value for key, each in slot_f1.score(guess, truth).items()}
    assert found == pytest.approx({"slot_f1": 0.5, "intent_accuracy": 2 / 3, "frame_accuracy": 1 / 3})


class TestCalibration:
    def test_by_hand(self):
        """Guards against bins averaged alike, however few rows they hold."""
        chances = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
        found = calibration.score(chances, [0, 0, 1, 1])
        assert found["ece"].value == pytest.approx(3 / 4 * abs(2 / 3 - 0.9) + 1 / 4 * 0.3)
        assert found["brier"].value == pytest.approx((0.02 + 0.02 + 1.62 + 0.18) / 4)
        assert found["nll"].value == pytest.approx(-np.log([0.9, 0.9, 0.1, 0.7]).mean())

    @pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
    def test_the_temperature_is_found(self, true):
        """Guards against 1 / T, and a search that stops at its border."""
        draws = np.random.default_rng(0)
        logits = draws.normal(size=(4000, 3)) * 2
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels = (chances.cumsum(1) > draws.random((4000, 1))).argmax(1)
        assert calibration.temperature(logits * true, labels) == pytest.approx(true, rel=0.06)
        hot = (draws.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
        assert calibration.temperature(logits * true, hot) == pytest.approx(true, rel=0.06)

    def test_the_temperature_is_the_least(self):
        """Guards against a valley that is missed: no nearby temperature costs fewer nats."""
        draws = np.random.default_rng(1)
        logits, labels = draws.normal(size=(50, 4)), draws.integers(4, size=50)

        def nats(t):
            scaled = logits / t
            return (np.log(np.exp(scaled).sum(1)) - scaled[np.arange(50), labels]).sum()

        best = calibration.temperature(logits, labels)
        assert all(nats(best) <= nats(best * factor) + 1e-9 for factor in (0.5, 0.99, 1.01, 2.0) if best * factor < 100)
        assert calibration.temperature(np.eye(3) * 5, [0, 1, 2]) == pytest.approx(0.01, rel=1e-3)

    @pytest.mark.parametrize(
        ("chances", "labels", "said"),
        [([[0.5, 0.6]], [0], "sum to 1.1"), ([[0.5, 0.5]], [2], "from 2 to 2"), ([[0.5, 0.5]], [0.5], "float64")],
    )
    def test_what_is_no_probability_is_said(self, chances, labels, said):
        """Guards against logits taken for probabilities, and labels beyond the table."""
        with pytest.raises(DataError, match=said):
            calibration.score(np.array(chances), labels)
