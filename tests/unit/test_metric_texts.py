"""Scores of texts, rankings and query results, against hand-worked values and the libraries that define them."""

import gzip
import json
import re

import numpy as np
import pytest
import pytrec_eval
import sacrebleu

from hanlin.errors import DataError
from hanlin.metrics import ndcg
from hanlin.metrics.texts import bleu, chrf, cmrc, exact, execution, rouge, squad


def value(scores, key):
    return scores[key].value


def texts(
    seed,
    rows=40,
    words=("the", "cat", "sat", "on", "mat", "a", "翰林", "院", "in", "北京", "U.S.", "don't", "3.5%", "für"),
):
    """Return sentences of a few words, so that n-grams are shared."""
    draws = np.random.default_rng(seed)
    return [" ".join(draws.choice(words, draws.integers(1, 14))) for _ in range(rows)]


@pytest.mark.parametrize("tokenize", ["13a", "zh", "char", "intl", "none"])
@pytest.mark.parametrize("lowercase", [False, True])
def test_bleu_is_sacrebleu_s(tokenize, lowercase):
    """Guards against a mean of sentences, a lost reference, another tokenizer than the signature says."""
    given, first, second = texts(0), texts(1), texts(2)
    options = {"tokenize": tokenize, "lowercase": lowercase}
    theirs = sacrebleu.BLEU(**options, force=True)
    assert value(bleu.score(given, first, **options), "bleu") == pytest.approx(
        theirs.corpus_score(given, [first]).score
    )
    assert bleu.signature(tokenize, lowercase=lowercase) == str(theirs.get_signature())
    both = theirs.corpus_score(given, [first, second]).score
    assert value(bleu.score(given, list(zip(first, second)), **options), "bleu") == pytest.approx(both)


def test_bleu_s_interval_is_sacrebleu_s_redraws():
    """Guards against an interval of sentence scores: the value of a redraw is that of its summed counts."""
    given, wanted = texts(0), texts(1)
    rows = bleu.rows(given, wanted)
    counts = np.random.default_rng(0).multinomial(40, np.ones(40) / 40, size=5)
    for line, found in zip(counts, rows.measures["bleu"](counts.astype(float), rows.numbers)):
        again = [[side[row] for row in range(40) for _ in range(line[row])] for side in (given, wanted)]
        assert found == pytest.approx(sacrebleu.corpus_bleu(again[0], [again[1]], force=True).score)


def test_chrf_is_sacrebleu_s():
    """Guards against a mean of sentences, and rows of several references mixed up."""
    given, first, second = texts(0), texts(1), texts(2)
    assert value(chrf.score(given, first), "chrf") == pytest.approx(sacrebleu.corpus_chrf(given, [first]).score)
    some = [[a, b] if row % 2 else [a] for row, (a, b) in enumerate(zip(first, second))]
    theirs = sacrebleu.corpus_chrf(given, [first, [b if row % 2 else None for row, b in enumerate(second)]])
    assert value(chrf.score(given, some), "chrf") == pytest.approx(theirs.score)
    assert chrf.signature().startswith("nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:")


def test_references_and_tokenizers_that_are_not_there():
    """Guards against a row without reference that counts as wrong, and a stack trace of a library."""
    for metric in (bleu, chrf, rouge, cmrc):
        with pytest.raises(DataError, match="row 1: no reference"):
            metric.score(["a", "b"], ["a", []])
    with pytest.raises(DataError, match="did you mean '13a'"):
        bleu.score(["a"], ["a"], tokenize="13b")
    with pytest.raises(DataError, match="row 0: NoneType None; text"):
        exact.score([None], ["a"])


class TestRouge:
    @pytest.mark.filterwarnings("ignore")
    def test_english_is_rouge_score_s(self):
        """Guards against a substring for a subsequence, and tokens that differ from the field's."""
        from rouge_score.rouge_scorer import RougeScorer

        names = {"rouge1": "rouge_1", "rouge2": "rouge_2", "rougeL": "rouge_l"}
        english = ("the", "Cat", "sat", "on", "U.S.", "don't", "3.5%", "snake_case", "well-known", "a")
        given, wanted = texts(3, 150, english), texts(4, 150, english)
        scorer, found = RougeScorer(list(names)), rouge.rows(given, wanted)
        for row, (a, b) in enumerate(zip(given, wanted)):
            theirs = scorer.score(b, a)
            for name, key in names.items():
                assert found.alone(key)[row] == pytest.approx(100 * theirs[name].fmeasure), (a, b)

    def test_chinese_by_the_character(self):
        """Guards against Chinese that is one word, or none."""
        assert rouge.tokens("用BERT做NER，2个 für_x") == ["用", "bert", "做", "ner", "2", "个", "für", "x"]
        assert value(rouge.score(["北京大学"], ["北京的大学"]), "rouge_1") == pytest.approx(100 * 8 / 9)
        assert value(rouge.score(["北京大学"], ["北京的大学"]), "rouge_2") == pytest.approx(100 * 4 / 7)

    def test_the_best_reference(self):
        """Guards against the mean over references."""
        assert value(rouge.score(["a b c"], [["x y z", "a b c"]]), "rouge_l") == 100.0

    @pytest.mark.parametrize("seed", range(30))
    def test_bits_are_the_plain_table(self, seed):
        """Guards against a carry that runs past the last word."""
        draws = np.random.default_rng(seed)
        a, b = (draws.choice(list("abc"), draws.integers(0, 90)).tolist() for _ in "ab")
        table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1, j + 1] = table[i, j] + 1 if x == y else max(table[i, j + 1], table[i + 1, j])
        assert rouge.common(a, b) == table[-1, -1]


class TestSquad:
    @pytest.mark.parametrize(
        ("given", "answers", "exactly", "f1"),
        [
            ("The Cat.", ["cat"], 100, 100),
            ("a cat on the mat", ["cat mat mat"], 0, 200 * 2 / 6),
            ("cat cat", ["cat"], 0, 200 / 3),
            ("Denver Broncos", ["Broncos", "the Denver Broncos!"], 100, 100),
            ("", [""], 100, 100),
            ("the", [], 100, 100),
            ("Rome", [], 0, 0),
            ("", ["Rome"], 0, 0),
            ("the", ["Rome", "a"], 0, 0),
            ("北京。", ["北京"], 0, 0),
        ],
    )
    def test_by_hand(self, given, answers, exactly, f1):
        """Guards against another normalisation than the official one, whose marks are ASCII alone."""
        found = squad.score([given], [answers])
        assert value(found, "exact_match") == exactly
        assert value(found, "f1") == pytest.approx(f1)

    def test_questions_without_an_answer(self):
        """Guards against a mean that hides that a model never answers."""
        found = squad.score(["", "", "Rome", "x"], [["Paris"], [], ["Rome"], []])
        assert value(found, "f1") == 50
        assert value(found, "f1_answerable") == value(found, "exact_match_answerable") == 50
        assert value(found, "f1_unanswerable") == 50

    def test_abstention(self):
        """Guards against a curve that answers the doubtful and leaves the sure."""
        curve = squad.abstention(["Rome", "x", "y", "Oslo"], [["Rome"], [], [], ["Oslo"]], [0.1, 0.9, 0.8, 0.8])
        assert curve.thresholds.tolist() == [0.9, 0.8, 0.1, -np.inf]
        assert curve.answered.tolist() == [1.0, 0.75, 0.25, 0.0]
        assert curve.f1.tolist() == [50.0, 75.0, 75.0, 50.0]
        assert curve.best == 1
        for level, share in zip(curve.thresholds, curve.answered):
            assert np.mean(np.array([0.1, 0.9, 0.8, 0.8]) <= level) == share


class TestCmrc:
    @pytest.mark.parametrize(
        ("given", "answers", "exactly", "f1"),
        [
            ("《红楼梦》", ["红楼梦"], 100, 100),
            ("北京的大学", ["北京大学"], 0, 200 * 2 / 9),
            ("1998年", ["在1998年。"], 0, 80),
            ("", ["北京"], 0, 0),
            ("Python语言", ["python"], 0, 200 / 4),
        ],
    )
    def test_by_hand(self, given, answers, exactly, f1):
        """Guards against a subsequence (北京大学 has 4 of 5, but a stretch of 2), and SQuAD's bag of words."""
        found = cmrc.score([given], [answers])
        assert (value(found, "exact_match"), value(found, "f1")) == (exactly, pytest.approx(f1))

    @pytest.mark.slow
    @pytest.mark.filterwarnings("ignore")
    def test_segments_are_nltk_s(self, real_data):
        """Guards against words cut otherwise than the official evaluator does: compared on CMRC's own answers."""
        from nltk.tokenize import NLTKWordTokenizer

        with gzip.open(real_data / "data/qa/cmrc2018/train.json.gz", "rt", encoding="utf-8") as file:
            pages = json.load(file)["data"]
        answers = {a["text"] for page in pages for p in page["paragraphs"] for q in p["qas"] for a in q["answers"]}
        treebank, quotes = NLTKWordTokenizer(), str.maketrans("", "", "\"'`")
        differ = 0
        for text in answers:
            theirs = []
            for piece in re.split("([\u4e00-\u9fa5])", cmrc.plain(text)):
                theirs += [piece] if re.fullmatch("[\u4e00-\u9fa5]", piece) else treebank.tokenize(piece)
            marks = [[word.translate(quotes) for word in side] for side in (theirs, cmrc.segments(text))]
            differ += marks[0] != marks[1]
        assert len(answers) > 3000
        assert differ <= 2


class TestRanking:
    def test_by_hand(self):
        """Guards against logarithms off by one place, and an ideal cut after all relevant documents."""
        found = ndcg.score([["x", "甲", "乙"]], [{"甲": 3, "乙": 1, "丙": 2, "x": 0}])
        ideal = 3 + 2 / np.log2(3) + 1 / 2
        assert value(found, "ndcg@10") == pytest.approx((3 / np.log2(3) + 1 / 2) / ideal)
        assert value(found, "recall@100") == pytest.approx(2 / 3)
        assert value(found, "mrr@10") == 0.5
        assert value(found, "map") == pytest.approx((1 / 2 + 2 / 3) / 3)

    @pytest.mark.parametrize("binary", [False, True])
    def test_as_trec_eval(self, binary):
        """Guards against another definition than the field's."""
        draws = np.random.default_rng(5)
        names = [f"d{place:03}" for place in range(300)]
        ranked = [draws.permutation(names)[: draws.integers(1, 300)].tolist() for _ in range(25)]
        gains = [{str(n): int(draws.integers(0, 4)) for n in draws.choice(names, 40)} for _ in range(25)]
        judged = {str(q): {n: int(g > 0) if binary else g for n, g in each.items()} for q, each in enumerate(gains)}
        run = {str(q): {name: -float(p) for p, name in enumerate(each)} for q, each in enumerate(ranked)}
        theirs = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10", "recall.100", "map"}).evaluate(run)
        found = ndcg.score(ranked, gains, binary=binary)
        for key, name in (("ndcg@10", "ndcg_cut_10"), ("recall@100", "recall_100"), ("map", "map")):
            assert value(found, key) == pytest.approx(np.mean([each[name] for each in theirs.values()]))

    def test_cuts_are_in_the_key(self):
        """Guards against figures of two cuts under one name, and a cut that is not made."""
        found = ndcg.score([["a", "b", "c"]], [{"c": 1}], at=2, recall_at=2)
        assert {key: each.value for key, each in found.items()} == {
            "ndcg@2": 0.0,
            "recall@2": 0.0,
            "mrr@2": 0.0,
            "map": pytest.approx(1 / 3),
        }

    @pytest.mark.parametrize(
        ("ranked", "gains", "said"), [(["a", "a"], {"a": 1}, "twice"), (["a"], {"a": 0}, "no relevant")]
    )
    def test_what_cannot_be_ranked_is_said(self, ranked, gains, said):
        """Guards against a document that is found twice, and queries nobody could answer."""
        with pytest.raises(DataError, match=f"query 0: .*{said}"):
            ndcg.score([ranked], [gains])


class TestExecution:
    @pytest.mark.parametrize(
        ("given", "wanted", "ordered", "right"),
        [
            ([(1,), (2,)], [(2,), (1,)], False, 1),
            ([(1,), (2,)], [(2,), (1,)], True, 0),
            ([(1,), (1,)], [(1,)], False, 0),
            ([(1, "a")], [("a", 1)], False, 0),
            ([(1,)], [(1.0,)], False, 1),
            ([("1",)], [(1,)], False, 0),
            ([(0.1 + 0.2,)], [(0.3,)], False, 1),
            ([(None,)], [(None,)], False, 1),
            ([], [(1,)], False, 0),
            (None, [(1,)], False, 0),
        ],
    )
    def test_by_hand(self, given, wanted, ordered, right):
        """Guards against sets for bags, an order nobody asked for, and failed queries that count as empty."""
        assert value(execution.score([given], [wanted], ordered=[ordered]), "exec_accuracy") == right

    def test_empty_gold_rows_are_left_out(self):
        """Guards against wrong queries that are right because they too find nothing."""
        found = execution.score([[], [(1,)]], [[], [(1,)]], ordered=[False] * 2, groups=["a", "b"])["exec_accuracy"]
        assert (found.value, found.n) == (1.0, 1)
        with pytest.raises(DataError, match="all 1 wanted results are empty"):
            execution.score([[]], [[]], ordered=[False])

    @pytest.mark.parametrize(
        ("sql", "counts"),
        [
            ("SELECT a FROM t order  by a LIMIT 1", True),
            ("SELECT a FROM t WHERE x IN (SELECT b FROM u ORDER BY b LIMIT 1)", False),
            ("SELECT 'ORDER BY' FROM t -- order by a", False),
            ("SELECT '(' FROM t ORDER BY a", True),
            ("SELECT border by_x FROM t", False),
        ],
    )
    def test_where_order_counts(self, sql, counts):
        """Guards against the ORDER BY of a subquery, a string or a comment."""
        assert execution.order_counts(sql) is counts
