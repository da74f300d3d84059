"""Questions out of plain text: what is hidden, how much of it, and that it is the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from hanlin.data.corrupt import IGNORE, Pieces, grouped, hide, split, uniform
from hanlin.data.masked import fit, pieces
from hanlin.text.tokenizer import train_bpe, train_wordpiece

MASK = 4
TEXTS = ["The players sang; the singer played.", "翰林院的学者唱歌，学者写诗。", "playing singing players singers"] * 3


def bits(seed=0):
    return np.random.PCG64(np.random.SeedSequence([seed]))


def many(rows=64, length=100, seed=0):
    """Return ids from 10 on, in words of one to three tokens."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(10, 200, (rows, length))
    units = np.cumsum(rng.random((rows, length)) < 0.6).reshape(rows, length)
    units[:, 0] = units[:, -1] = -1
    return ids, units


class TestHide:
    """80 % mask, 10 % another token, 10 % itself, of the share asked for."""

    def test_shares(self):
        """Rates that are swapped, or a rate of the row in place of the tokens that may be hidden."""
        ids, units = many()
        corrupt, targets = hide(ids, units, bits(), rate=0.15, mask=MASK, others=np.arange(10, 200))
        asked = targets != IGNORE
        assert abs(asked.sum() / (units >= 0).sum() - 0.15) < 0.001
        masked = (corrupt == MASK)[asked].mean()
        kept = (corrupt == ids)[asked].mean()
        assert abs(masked - 0.8) < 0.04
        assert abs(kept - 0.1) < 0.03
        assert abs(1 - masked - kept - 0.1) < 0.03

    def test_what_is_not_asked_stays_and_targets_are_the_originals(self):
        """Targets taken after the corruption; special tokens hidden."""
        ids, units = many()
        before = ids.copy()
        corrupt, targets = hide(ids, units, bits(), rate=0.3, mask=MASK, others=np.arange(10, 200))
        asked = targets != IGNORE
        assert np.array_equal(ids, before)
        assert np.array_equal(targets[asked], ids[asked])
        assert np.array_equal(corrupt[~asked], ids[~asked])
        assert not asked[units < 0].any()

    def test_words_are_hidden_whole(self):
        """Half a word left standing beside its mask."""
        ids, units = many()
        _, targets = hide(ids, units, bits(3), rate=0.15, mask=MASK, others=np.arange(10, 200))
        asked = targets != IGNORE
        for unit in np.unique(units[units >= 0]):
            inside = asked[units == unit]
            assert inside.all() or not inside.any()

    def test_bits_decide(self):
        """The same questions every epoch, or other ones after a restart."""
        ids, units = many()
        one, two, other = (
            hide(ids, units, bits(seed), rate=0.15, mask=MASK, others=np.arange(10, 200)) for seed in (1, 1, 2)
        )
        assert np.array_equal(one[0], two[0])
        assert not np.array_equal(one[1], other[1])

    def test_little_text_still_has_a_question(self):
        """A share that rounds to nothing; a row of nothing but special tokens."""
        _, targets = hide(np.array([[7, 8]]), np.array([[0, 0]]), bits(), rate=0.01, mask=MASK, others=np.array([9]))
        assert (targets != IGNORE).all()
        _, none = hide(np.array([[7, 8]]), np.array([[-1, -1]]), bits(), rate=0.5, mask=MASK, others=np.array([9]))
        assert (none == IGNORE).all()


class TestUnits:
    """Which tokens make a word."""

    @pytest.mark.parametrize("make", [lambda: train_wordpiece(TEXTS, 90), lambda: train_bpe(TEXTS, 300)])
    def test_words_as_the_text_has_them(self, make):
        """Markers read the wrong way round, punctuation glued to words, Chinese characters glued to each other."""
        tokenizer = make()
        known = pieces(tokenizer)
        text = "the players sang; playing"
        found = tokenizer.encode(text, added=False)
        units = known.units(np.array([found.ids]))[0]
        words: dict[int, set[int]] = {}
        for unit, (start, stop) in zip(units.tolist(), found.offsets):
            words.setdefault(unit, set()).update(range(start, stop))
        spelled = ["".join(text[place] for place in sorted(each)).strip() for each in words.values()]
        assert spelled == ["the", "players", "sang", ";", "playing"]

    def test_chinese_characters_stand_alone_and_special_tokens_nowhere(self):
        """A character that is hidden because its neighbour is."""
        tokenizer = train_wordpiece(TEXTS, 90)
        found = np.array([tokenizer.encode("学者唱歌").ids])
        known = pieces(tokenizer)
        units = known.units(found)[0].tolist()
        assert units[0] == units[-1] == -1
        assert len(set(units[1:-1])) == 4
        assert known.han[found[0, 1:-1]].all()

    def test_a_word_ends_with_its_row(self):
        """A word that goes on in another row's first token."""
        no = np.zeros(4, dtype=np.bool_)
        known = Pieces(joins=np.array([False, False, True, True]), opens=~no, special=no, han=no)
        assert known.units(np.array([[1, 2], [3, 1]])).tolist() == [[0, 0], [1, 2]]


class TestGrouped:
    """Chinese characters one to four together."""

    def test_sizes(self):
        """Runs that are all alike, too long, or cross what is not Chinese."""
        units = np.arange(8000).reshape(4, 2000)
        han = np.ones_like(units, dtype=np.bool_)
        _, sizes = np.unique(grouped(units, han, bits()), return_counts=True)
        shares = np.bincount(sizes, minlength=5)[1:] / len(sizes)
        assert sizes.max() == 4
        assert np.abs(shares - [0.4, 0.3, 0.2, 0.1]).max() < 0.03

    def test_borders(self):
        """A run over a Latin word, a special token or the end of a row."""
        units = np.array([[0, 1, 2, -1, 3], [4, 5, 6, 7, 8]])
        han = np.array([[True, False, True, False, True], [True, True, False, True, True]])
        for seed in range(20):
            found = grouped(units, han, bits(seed))
            assert found[0, 3] == -1
            row = found[found >= 0].tolist()
            assert len(set(row)) >= 7  # 0 | 1 | 2 | 3 | 4 5 | 6 | 7 8
            assert found[0, 4] != found[1, 0]
            assert found[1, 1] != found[1, 3]


class TestSplit:
    """Where a piece becomes a pair."""

    def test_at_words_and_inside(self):
        """An empty half, a word cut in two."""
        starts = np.array([True, False, True, False, False, True, False, False])
        for draw in (0.0, 0.3, 0.7, 0.999):
            assert split(starts, draw) in (2, 5)
        assert split(np.array([True, False]), 0.9) == 1


def test_fit_packs_everything_once():
    """A piece lost or doubled, a row too full."""
    sizes = np.random.default_rng(0).integers(1, 33, 500)
    rows = fit(sizes, 32, bits())
    assert sorted(each for row in rows for each in row) == list(range(500))
    assert max(int(sizes[row].sum()) for row in rows) <= 32
    assert sizes.sum() / (32 * len(rows)) > 0.85


def test_uniform_is_what_it_was():
    """Other numbers on another version of NumPy."""
    assert uniform(bits(5), 2).tolist() == uniform(bits(5), 2).tolist()
    assert 0.45 < uniform(bits(5), 4000).mean() < 0.55
