"""Passages, words and fusion: by hand, in English, Chinese and emoji."""

from __future__ import annotations

import math
import random
import unicodedata

import numpy as np
import pytest

from hanlin.serve.search import words
from hanlin.serve.search.chunks import SIZE, chunks, sentences
from hanlin.serve.search.index import _best, fused
from hanlin.serve.search.words import Words, terms

FAMILY, FLAG = "👨‍👩‍👧‍👦", "🇨🇳"
PARTS = [
    "One short one.",
    "它很长，真的。",
    "Is it? ",
    f"{FAMILY}{FLAG}",
    "\n\n",
    " ",
    "word " * 40,
    "字" * 90,
    "e\u0301" * 30,
    "！",
]


class TestChunks:
    """From a text to places in it."""

    def test_sentences_end_where_readers_end_them(self):
        """Chinese without spaces read as one sentence; 3.14 taken apart; a quote left behind."""
        text = 'It is 3.14. "Stop!" she said. 你好。“走吧！”他说……\n\nA head\n\nNext line\ngoes on'
        found = [text[start:stop] for start, stop in sentences(text)]
        assert found == [
            *("It is 3.14.", '"Stop!"', "she said.", "你好。", "“走吧！”", "他说……"),
            *("A head", "Next line\ngoes on"),
        ]

    @pytest.mark.parametrize("seed", range(30))
    def test_nothing_is_lost_and_every_place_is_true(self, seed):
        """An offset counted in bytes, a tail cut off, a passage longer than the model reads."""
        draw = random.Random(seed)
        text = "".join(draw.choice(PARTS) for _ in range(draw.randrange(40)))
        size = draw.choice([8, 30, SIZE])
        found = chunks(text, size)
        held = {place for start, stop in found for place in range(start, stop)}
        assert all(place in held for place, each in enumerate(text) if not each.isspace())
        assert found == sorted(found)
        for start, stop in found:
            assert 0 <= start < stop <= len(text)
            assert text[start:stop] == text[start:stop].strip()
            wide = sum(each == "字" or "\u4e00" <= each <= "\u9fff" for each in text[start:stop])
            assert wide <= size + 1

    def test_no_character_is_cut_in_two(self):
        """A family of four that loses a child, an accent without its letter, half a flag."""
        text = (FAMILY + "e\u0301" + FLAG) * 60
        for start, stop in chunks(text, 10):
            assert not unicodedata.combining(text[start])
            assert text[start] != "\u200d"
            assert text[stop - 1] != "\u200d"
            flags = sum(0x1F1E6 <= ord(each) <= 0x1F1FF for each in text[start:stop])
            assert flags % 2 == 0

    def test_a_short_last_sentence_is_said_again(self):
        """What belongs together is found in neither passage."""
        text = "Long words here " * 10 + "end. " + "Short link. " + "Other words there " * 10 + "end."
        first, second = chunks(text, 50)
        assert text[slice(*first)].endswith("Short link.")
        assert text[slice(*second)].startswith("Short link.")

    def test_nothing_in_nothing(self):
        """White space that becomes a passage."""
        assert chunks("") == chunks(" \n ") == []


class TestWords:
    """BM25."""

    def test_by_hand(self):
        """Another k1, another b, idf of another form; a mean over words instead of passages."""
        made = Words.of(["red fish", "blue fish fish", "red red red bird sings", "nothing"])
        mean, k1, b = (2 + 3 + 5 + 1) / 4, 1.2, 0.75
        idf = math.log(1 + (4 - 2 + 0.5) / (2 + 0.5))
        wanted = [idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean)) for tf, length in ((1, 2), (2, 3))]
        assert made.scores("FISH") == pytest.approx([wanted[0], wanted[1], 0, 0])
        assert made.scores("fish unknown").tolist() == made.scores("fish").tolist()
        assert made.scores("fish fish") == pytest.approx(2 * made.scores("fish"))
        assert made.scores("red fish")[0] == pytest.approx(made.scores("red")[0] + made.scores("fish")[0])

    def test_chinese_by_pairs_and_by_one(self):
        """A query of one character that finds nothing; characters that need no neighbour."""
        made = Words.of(["大语言模型", "语文", "模特", "model of 语言"])
        assert (made.scores("语言") > 0).tolist() == [True, False, False, True]
        assert (made.scores("语") > 0).tolist() == [True, True, False, True]
        assert terms("ＡＢＣ模型2", asked=True) == ["abc", "模型", "2"]

    def test_plurals_are_one_word(self):
        """Glass that becomes glas, and theories that are not theory."""
        asked = "wings theories bodies glass gas bus has buses does this analysis"
        assert terms(asked) == [
            "wing",
            "theory",
            "body",
            "glass",
            "gas",
            "bus",
            "has",
            "buse",
            "doe",
            "this",
            "analysis",
        ]

    def test_they_are_kept_for_their_version_alone(self, tmp_path):
        """Words of another state of the table, which name other passages."""
        for texts in (["a b 好", "b"], [], ["!"]):
            made = Words.of(texts)
            made.save(tmp_path, 7)
            again = words.load(tmp_path, 7)
            assert again.vocab == made.vocab
            assert again.scores("b 好").tolist() == made.scores("b 好").tolist()
            assert words.load(tmp_path, 8) is None


class TestFusion:
    """Two rankings into one."""

    def test_by_hand(self):
        """Places counted from 0, a list that is read backwards."""
        found = fused([[5, 6, 7], [7, 5]], k=1)
        assert found == pytest.approx({5: 1 / 2 + 1 / 3, 7: 1 / 4 + 1 / 2, 6: 1 / 3})
        assert list(found) == [5, 7, 6]
        assert fused([]) == {}

    def test_the_best_come_in_order_and_ties_by_place(self):
        """The threshold's own rows lost; an order that depends on the machine."""
        scores = np.array([1.0, 3.0, 3.0, 2.0, 3.0])
        assert _best(scores, 2) == [(1, 3.0), (2, 3.0)]
        assert [row for row, _ in _best(scores, 9)] == [1, 2, 4, 3, 0]
