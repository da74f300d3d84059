"""Unigram and WordPiece tokenizers trained here: every text, special tokens, size, and the same file every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from hanlin.config import parse
from hanlin.errors import ConfigError, TokenizerError
from hanlin.text.tokenizer import Config, Special, Tokenizer, build, train_unigram, train_wordpiece

TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog doesn't mind; it sleeps in the sun, 365 days a year.",
    "翰林院是中国古代的官署。翰林学士教书、考试、起草诏书。The Hanlin Academy taught scholars.",
    "    def encode(self, text):\n        return self.ids\n\n    def decode(self, ids):\n        return self.text\n",
] * 4
WEIRD = "a\x00b\x7f e\u0301 👩\u200d👧❤\ufe0f 한국어 ▁x<0x41><0xE9> \ufeff\ufffd\U0010ffff 龘 \r\n\t <|eos|><|unk|>İß"


@pytest.fixture(scope="module")
def unigram() -> Tokenizer:
    """Return a Unigram tokenizer of our texts."""
    return train_unigram(TEXTS, 360)


@pytest.fixture(scope="module")
def wordpiece() -> Tokenizer:
    """Return a WordPiece tokenizer of our texts."""
    return train_wordpiece(TEXTS, 300)


def test_unigram_loses_nothing(unigram):
    """Guards against a ▁, a byte token's name or an unseen character that does not come back."""
    assert unigram.special == Special(bos=0, eos=1, pad=2, unk=3)
    for text in (*TEXTS[:3], WEIRD, "", " ", "\n", "  x  "):
        ids = unigram.document(text)
        assert (ids[0], ids[-1]) == (0, 1)
        assert {0, 1, 2, 3}.isdisjoint(ids[1:-1])
        assert unigram.decode(ids) == unigram.raw.decode(ids) == text


def test_unigram_learns_pieces(unigram):
    """Guards against a vocabulary of characters only, and pieces that cross words."""
    learnt = [unigram.token(id) for id in range(260, unigram.vocab)]
    assert any(len(piece) > 2 for piece in learnt)
    assert not any(" " in piece.strip() for piece in learnt)
    assert len(unigram.encode(TEXTS[0]).ids) < len(TEXTS[0])


def test_sizes_are_kept(unigram, wordpiece):
    """Guards against a model sized for another vocabulary; a trainer keeps every character by itself."""
    assert unigram.vocab <= 360
    assert wordpiece.vocab <= 300
    many = ["".join(map(chr, range(0x4E00, 0x5E00)))] * 2
    assert train_unigram(many, 300).vocab == 300
    assert train_wordpiece(many, 300).vocab <= 300
    assert train_unigram([], 300).vocab == 260
    assert train_wordpiece(["", " "], 300).vocab == 5
    with pytest.raises(TokenizerError, match="vocab: 260; at least 261"):
        train_unigram(TEXTS, 260)


def test_wordpiece_has_berts_tokens(wordpiece):
    """Guards against BERT's special tokens under other ids, or missing around a text."""
    assert wordpiece.special == Special(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert [wordpiece.token(id) for id in range(5)] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert wordpiece.document("the dog") == list(wordpiece.encode("the dog").ids)
    assert wordpiece.encode("the", "dog").kinds[-1] == 1
    assert {0, 2, 3, 4}.isdisjoint(wordpiece.encode("[CLS] a [SEP] [MASK]").ids[1:-1])


def test_wordpiece_keeps_words_and_not_their_spaces(wordpiece):
    """Pins what is lost: how many spaces there were, and characters never seen."""
    assert wordpiece.decode(wordpiece.encode("the   dog\n翰林").ids) == "the dog 翰 林"
    assert wordpiece.encode("龘").ids == (2, 1, 3)
    low = train_wordpiece(TEXTS, 300, lowercase=True)
    assert low.decode(low.encode("The DOG").ids) == "the dog"


def test_wordpiece_gives_no_token_to_what_cannot_occur(wordpiece):
    """Guards against half the vocabulary spent on ##翰: a Chinese character is always a word."""
    tokens = [wordpiece.token(id) for id in range(wordpiece.vocab)]
    assert "翰" in tokens
    assert "##翰" not in tokens


def test_same_texts_give_the_same_file(unigram, wordpiece):
    """Guards against the trainers' hash tables: they move scores, and the ids of characters, from run to run."""
    code = (
        "import sys, json; from hanlin.text.tokenizer import train_unigram, train_wordpiece;"
        "texts = json.loads(sys.argv[1]); print(train_unigram(texts, 360).hash, train_wordpiece(texts, 300).hash)"
    )
    for seed in ("7", "8"):
        said = subprocess.run(
            [sys.executable, "-c", code, json.dumps(TEXTS)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.split() == [unigram.hash, wordpiece.hash]


def test_the_same_on_real_text(real_data):
    """Guards against ties among thousands of rare characters, which small texts do not have."""
    text = (real_data / "data/lm/zh_wiki/valid.txt").read_text(encoding="utf-8").splitlines()
    assert len({train_unigram(text, 1500).hash for _ in range(2)}) == 1
    assert len({train_wordpiece(text, 3000).hash for _ in range(3)}) == 1


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_build_and_save(tmp_path, kind):
    """Guards against a kind that the config knows and build does not, and a file that changes on the disk."""
    made = build(parse(Config, {"kind": kind, "vocab": 300}), TEXTS)
    made.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.hash, loaded.special, loaded.vocab) == (made.hash, made.special, made.vocab)
    assert loaded.encode(WEIRD) == made.encode(WEIRD)


def test_characters_fall_back_as_the_config_says():
    """Guards against an option that is read and not obeyed."""
    assert build(parse(Config, {"kind": "characters", "fallback": False}), ["ab"]).vocab == 6
    assert build(parse(Config, {"kind": "characters"}), ["ab"]).vocab == 3 + 256 + 2
    with pytest.raises(ConfigError, match="did you mean 'unigram'"):
        parse(Config, {"kind": "unigrams"})


def test_half_a_surrogate_pair_is_refused():
    """Guards against a corpus that crashes the trainer."""
    for train in (train_unigram, train_wordpiece):
        with pytest.raises(TokenizerError, match="half a surrogate pair"):
            train(["a\ud800"], 300)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_transformers_reads_what_we_save(tmp_path, kind):
    """Guards against ids that are right in the trainer and wrong everywhere else."""
    from transformers import AutoTokenizer

    ours = build(parse(Config, {"kind": kind, "vocab": 300}), TEXTS)
    ours.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS[:3], WEIRD.partition("<|")[0], ""):
        assert theirs(text)["input_ids"] == list(ours.encode(text).ids)
