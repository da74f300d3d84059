"""Word and character error rates, against examples worked by hand."""

import numpy as np
import pytest

from hanlin.errors import DataError
from hanlin.metrics import cer, wer
from hanlin.metrics.wer import normalized

pytest.importorskip("jiwer")


def distance(a, b):
    """Count the fewest changes from list a to list b, in the plainest way."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left = [i]
        for j, y in enumerate(b, 1):
            left.append(min(row[j] + 1, left[-1] + 1, row[j - 1] + (x != y)))
        row = left
    return row[-1]


@pytest.mark.parametrize(
    ("said", "heard", "mistakes", "words"),
    [
        ("the cat sat", "the cat sat", 0, 3),
        ("the cat sat", "the bat sat", 1, 3),
        ("the cat sat", "the sat", 1, 3),
        ("the cat sat", "the big cat sat down", 2, 3),
        ("the cat sat", "", 3, 3),
        ("", "made up words", 3, 0),
        ("", "", 0, 0),
        ("Don't stop, please!", "don't stop please", 0, 3),
        ("广州市房地产", "广州是房产", 2, 6),
        ("打开 Wi-Fi", "打开 wi fi", 0, 4),
    ],
)
def test_by_hand(said, heard, mistakes, words):
    """Guards against a silent row left out, case or punctuation counted, Chinese taken for one word."""
    assert wer.rows([heard, "x"], [said, "x"]).numbers[0, :2].tolist() == [mistakes, words]


def test_sum_then_divide_once():
    """Guards against the mean of rates, in which one wrong word of one weighs as much as ten of ten."""
    found = wer.score(["z", "b c d e f g h i j"], ["a", "b c d e f g h i j"])["wer"]
    assert found.value == pytest.approx(0.1)
    assert found.n == 2
    assert found.low <= found.value <= found.high


def test_rates_above_one_and_silence():
    """Guards against a rate cut off at 1, which hides words made up out of nothing."""
    assert wer.score(["no no no", "thank you"], ["yes", ""])["wer"].value == pytest.approx(5.0)
    with pytest.raises(DataError, match="1 predictions, 2 references; one of each a row"):
        wer.score(["a"], ["a", "b"])


def test_characters():
    """Guards against spaces counted in Chinese, or not counted between words of English."""
    assert cer.score(["广州 是 房产"], ["广州市，房地产"])["cer"].value == pytest.approx(2 / 6)
    assert cer.rows(["abcd"], ["ab cd"]).numbers[0].tolist() == [1, 5]
    assert cer.rows(["用Python写"], ["用 Python 写"]).numbers[0].tolist() == [0, 8]


def test_against_the_plain_count():
    """Guards against an alignment that is not the shortest."""
    draws = np.random.default_rng(0)
    said, heard = (["".join(draws.choice(list("abc "), 14)).strip() + "a" for _ in range(60)] for _ in range(2))
    expected = [distance(list(" ".join(a.split())), list(" ".join(b.split()))) for a, b in zip(said, heard)]
    assert cer.rows(heard, said).numbers[:, 0].tolist() == expected
    words = [distance(a.split(), b.split()) for a, b in zip(said, heard)]
    assert wer.rows(heard, said).numbers[:, 0].tolist() == words


def test_exact_transcripts():
    """Guards against exactness by the letter, which no reader would ask for."""
    assert wer.score(["seven", "too", "三。", ""], ["Seven!", "two", "三", ""])["exact"].value == 0.75
    assert normalized("ＦＵＬＬ　width ½") == "full width 1 2"
