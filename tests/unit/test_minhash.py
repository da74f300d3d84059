"""MinHash signatures and clusters: near duplicates are found, others are not, and nothing depends on the way there."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanlin.data.duplicates import minhash, stored
from hanlin.errors import ConfigError

GOLDEN = [19036, 29049, 57753, 30710, 57891, 30991]
SHORT = st.text(st.characters(codec="utf-8"), max_size=7)


def _text(seed: int, words: int = 120) -> str:
    """Return a text of made-up words."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(2, 9))) for _ in range(words))


def _signs(seed: int, size: int = 300) -> str:
    """Return a text of Chinese characters."""
    draw = random.Random(seed)
    return "".join(chr(draw.randint(0x4E00, 0x5E00)) for _ in range(size))


def _exact(some: str, other: str) -> float:
    """Return the share of shingles two texts have in common, by sets."""
    first, second = ({int(each) for part in minhash.shingles(text) for each in part} for text in (some, other))
    return len(first & second) / len(first | second)


def test_a_signature_is_what_it_was() -> None:
    """Guards against a change of hashes unnoticed: signatures of another version would silently match nothing."""
    assert minhash.signature("The quick brown fox, 狐狸跳过了懒狗。")[:6].tolist() == GOLDEN


def test_shingles_are_those_of_a_plain_loop() -> None:
    """Guards against shingles lost or doubled at the ends of pieces, and where scripts meet."""
    text = (_text(0, 40) + _signs(0, 40) + " ab ") * 30 + "末尾四字"
    plain = [each for each in text if each.isalnum()]
    wanted = set()
    for at, letter in enumerate(plain):
        size = minhash.SIGNS if ord(letter) > 0x3000 else minhash.LETTERS
        if at + size <= len(plain):
            wanted.add("".join(plain[at : at + size]))
    for piece in (1 << 15, 1000, 37, 3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(minhash, "PIECE", piece)
            assert len({int(each) for part in minhash.shingles(text) for each in part}) == len(wanted)
            assert (minhash.signature(text) == minhash.signature(text.upper())).all()


@pytest.mark.parametrize("piece", [5, 64, 1001])
def test_pieces_make_no_difference(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a signature that depends on how a long text is cut for the cache."""
    texts = [_text(1), _signs(1), _text(2, 9) + _signs(2, 9) + "é́ﬁ½", "", "短", _signs(3, 4), "abcdefgh"]
    whole = minhash.signatures(texts)
    monkeypatch.setattr(minhash, "PIECE", piece)
    assert (minhash.signatures(texts) == whole).all()


def test_spelling_makes_no_difference() -> None:
    """Guards against case, width, accents, punctuation, white space or composition hiding a copy."""
    text = "Café society – the CITY’s “finest”; 他说：「你好，世界」。Hangul 한국어 too."
    other = "cafe\u0301   SOCIETY: the city's\n'finest' 他说，“你好\n世界” ｈａｎｇｕｌ 한국어 (too)"
    assert (minhash.signature(text) == minhash.signature(other)).all()


@settings(max_examples=100, deadline=None)
@given(SHORT, SHORT)
def test_short_texts_are_like_their_equals_alone(some: str, other: str) -> None:
    """Guards against all empty or tiny texts becoming one cluster."""
    kept = minhash.clusters(minhash.signatures([some, other]))
    long = any(sum(map(str.isalnum, text)) >= minhash.SIGNS for text in (some, other))
    if some.strip() == other.strip():
        assert kept.tolist() == [0, 0]
    elif not long:
        assert kept.tolist() == [0, 1]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=20), st.data())
def test_equal_texts_are_always_found(texts: list[str], data: st.DataObject) -> None:
    """Guards against a copy that no band or no round of comparing reaches."""
    copies = data.draw(st.lists(st.sampled_from(texts), max_size=10))
    kept = minhash.clusters(minhash.signatures(texts + copies), threshold=1.0)
    for at, text in enumerate(copies, len(texts)):
        assert kept[at] <= texts.index(text)


def test_equal_texts_are_found_in_a_crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a limit on the rounds of comparing that hides an exact copy behind pages of one mould."""
    monkeypatch.setattr(minhash, "ROUNDS", 2)
    mould = _text(5, 300)
    pages = [mould + _text(seed, 110) for seed in range(10, 40)]
    kept = minhash.clusters(minhash.signatures(pages + pages[::-1]))
    assert kept.tolist() == [*range(30), *reversed(range(30))]


@pytest.mark.parametrize("block", [1, 3 * 2 * minhash.SIZE, 1 << 24])
def test_in_a_file_as_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Guards against rows read from the wrong place, and blocks whose ends lose or repeat a row."""
    monkeypatch.setattr(stored, "BLOCK", block)
    texts = [_text(seed) for seed in range(30)] + [_text(seed) + " end" for seed in range(0, 30, 3)]
    rows = minhash.signatures(texts)
    with (tmp_path / "rows").open("w+b") as file:
        kept = stored.Stored(file, minhash.SIZE, [rows[:7], rows[7:7], rows[7:]])
        assert len(kept) == len(rows)
        assert (np.concatenate(list(kept.blocks())) == rows).all()
        asked = np.array([39, 0, 7, 7])
        assert (kept[asked] == rows[asked]).all()
        assert (minhash.clusters(kept) == minhash.clusters(rows)).all()
        assert (minhash.clusters(kept) != np.arange(len(rows))).sum() == 10
    with (tmp_path / "none").open("w+b") as file:
        assert len(minhash.clusters(stored.Stored(file, minhash.SIZE))) == 0


def test_the_estimate_is_unbiased() -> None:
    """Guards against bins, borrowing or cut bits that make texts look more or less alike than they are."""
    for size in (12, 40, 150, 600):
        errors = []
        for seed in range(60):
            words = _text(seed, size).split()
            part = size * (seed % 10) // 10
            some, other = " ".join(words), " ".join(words[part:] + _text(1000 + seed, part).split())
            signatures = minhash.signatures([some, other])
            errors.append(float(minhash.likeness(signatures[0], signatures[1])) - _exact(some, other))
        assert abs(np.mean(errors)) < 0.015, size
        assert np.std(errors) < 0.06, size


def test_order_of_strangers_makes_no_difference() -> None:
    """Guards against clusters that depend on what lies between their members."""
    texts = [_text(seed) for seed in range(20)]
    copies = [text.replace("a", "e", 1) for text in texts[:10]]
    for seed in range(5):
        order = texts + copies
        random.Random(seed).shuffle(order)
        kept = minhash.clusters(minhash.signatures(order))
        found = {frozenset((order[at], order[row])) for at, row in enumerate(kept.tolist()) if at != row}
        assert found == {frozenset(pair) for pair in zip(texts, copies)}
        assert all(row <= at and kept[row] == row for at, row in enumerate(kept.tolist()))


def test_chains_become_one_cluster_named_after_its_first() -> None:
    """Guards against two clusters that share a member, and against a cluster whose first is dropped."""
    words = _text(3, 400).split()
    steps = [" ".join(words[: 400 - shift] + _text(77, 400).split()[:shift]) for shift in (0, 25, 50, 75, 100)]
    kept = minhash.clusters(minhash.signatures([steps[0], steps[4], steps[2], steps[1], steps[3]]))
    assert kept.tolist() == [0] * 5


def test_chunks_make_no_difference() -> None:
    """Guards against a signature with a memory of texts before it."""
    texts = [_text(seed) for seed in range(9)]
    parts = [minhash.signatures(texts[at : at + 4]) for at in range(0, 9, 4)]
    assert (np.concatenate(parts) == minhash.signatures(texts)).all()
    assert minhash.signatures([]).shape == (0, minhash.SIZE)
    assert minhash.clusters(minhash.signatures([])).tolist() == []


def test_a_threshold_that_bands_cannot_serve_is_refused() -> None:
    """Guards against a threshold at which most pairs would silently be missed."""
    with pytest.raises(ConfigError, match=r"threshold: 0\.3; from 0\.7 to 1"):
        minhash.clusters(minhash.signatures(["a"]), 0.3)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_planted_copies_of_real_text_are_found(language: str, real_data) -> None:
    """Guards against a recall below 0.95 for any kind of edit, and against false alarms above 0.01."""
    originals = list(planted.passages(real_data, language, 120))
    kinds: dict[str, list[str]] = {}
    for number, text in enumerate(originals):
        for kind, copy in planted.copies(text, language, number):
            kinds.setdefault(kind, []).append(copy)
    base = minhash.signatures(originals)
    for kind, copies in kinds.items():
        kept = minhash.clusters(np.concatenate([base, minhash.signatures(copies)]))
        assert (kept[len(base) :] == np.arange(len(base))).mean() >= 0.95, kind
    for kind, texts in planted.strangers(originals):
        kept = minhash.clusters(minhash.signatures(texts))
        assert (kept != np.arange(len(texts))).mean() <= 0.01, kind
