"""What the tokenizers that Hanlin makes promise: every text, special tokens, offsets, lengths, streams, files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest
import tokenizers
from tokenizers import pre_tokenizers

from hanlin.config import parse
from hanlin.errors import ConfigError, HanlinError, TokenizerError
from hanlin.text.stream import alphabet
from hanlin.text.tokenizer import (
    PATTERN,
    Config,
    Special,
    Tokenizer,
    build,
    byte_level,
    characters,
    train_bpe,
)

TEXTS = [
    "The quick brown fox jumps over the lazy dog. The dog doesn't mind; it sleeps in the sun, 365 days a year.",
    "翰林院是中国古代的官署。翰林学士教书、考试、起草诏书。The Hanlin Academy taught scholars.",
    "    def encode(self, text):\n        return self.ids\n\n    def decode(self, ids):\n        return self.text\n",
] * 4
WEIRD = (
    "a\x00b\x7f\u0085 e\u0301 \u0301\u0301 👩\u200d👩\u200d👧❤\ufe0f 한국어 مرحبا ▁x<0x41> "
    "\u200d\ufeff\ufffd\uffff\U0010ffff 𝄞龘 \r\n\t İß"
)
MAKERS = {
    "bpe": lambda: train_bpe(TEXTS, 400),
    "characters": lambda: characters(TEXTS),
    "bytes": byte_level,
}
_made: dict[str, Tokenizer] = {}


@pytest.fixture(params=MAKERS)
def ours(request) -> Tokenizer:
    """One of the three tokenizers that Hanlin makes, made once."""
    return _made.setdefault(request.param, MAKERS[request.param]())


def test_special_tokens_come_first(ours):
    """Guards against a model whose BOS, EOS and padding move with the vocabulary."""
    assert ours.special == Special(bos=0, eos=1, pad=2)
    assert [ours.token(id) for id in range(3)] == ["<|bos|>", "<|eos|>", "<|pad|>"]
    assert ours.encode("x").ids[0] == 0


def test_every_unicode_text_comes_back(ours):
    """Guards against characters lost between text and ids, seen in training or not."""
    for text in (*TEXTS, WEIRD, "", " ", "\n"):
        ids = ours.encode(text).ids
        assert ours.decode(ids) == text
        assert ours.raw.decode(ids) == text


def test_documents_begin_and_end_once(ours):
    """Guards against doubled or missing BOS and EOS, the commonest silent error in training."""
    for text in ("", "hello", "<|eos|>"):
        ids = ours.document(text)
        assert (ids[0], ids[-1]) == (0, 1)
        assert {0, 1, 2}.isdisjoint(ids[1:-1])
        assert tuple(ids[:-1]) == ours.encode(text).ids
    assert ours.documents(["", "hello"]) == [ours.document(""), ours.document("hello")]
    assert ours.documents([]) == []


def test_text_that_spells_a_special_token_is_text(ours):
    """Guards against user text that becomes control ids."""
    text = "say <|eos|> and <|pad|>"
    ids = ours.encode(text).ids
    assert {1, 2}.isdisjoint(ids)
    assert ours.decode(ids) == text


def test_special_tokens_are_shown_only_on_request(ours):
    """Guards against <|bos|> in what a user reads."""
    ids = ours.document("hi")
    assert ours.decode(ids) == "hi"
    assert ours.decode(ids, special=True) == "<|bos|>hi<|eos|>"
    assert "".join(map(ours.stream(special=True).push, ids)) == "<|bos|>hi<|eos|>"


def test_offsets_are_characters_and_tile_the_text(ours):
    """Guards against offsets in bytes: every character lies in a token, and no token lies outside the text."""
    encoding = ours.encode(WEIRD)
    assert encoding.offsets[0] == (0, 0)
    covered = {place for start, end in encoding.offsets for place in range(start, end)}
    assert covered == set(range(len(WEIRD)))
    for id, (start, end) in list(zip(encoding.ids, encoding.offsets))[1:]:
        whole = ours.decode([id])
        assert "\N{REPLACEMENT CHARACTER}" in whole or whole == WEIRD[start:end]


def test_encoding_names_words_and_kinds(ours):
    """Guards against fields of different length, and the second text counted with the first."""
    encoding = ours.encode("ab", "cd")
    assert len({len(encoding.ids), len(encoding.offsets), len(encoding.words), len(encoding.kinds)}) == 1
    assert encoding.words[0] is None
    assert set(encoding.kinds) == {0, 1}
    assert encoding.truncated == 0


def test_batch_equals_single(ours):
    """Guards against a batch neighbour that changes a row."""
    texts = ["a", "", WEIRD, "hello world"]
    assert ours.encode_batch(texts) == [ours.encode(text) for text in texts]
    assert ours.encode_batch(texts, context=4) == [ours.encode(text, context=4) for text in texts]


def test_context_cuts_the_end_and_counts(ours):
    """Guards against silent truncation, and against BOS cut away."""
    full = ours.encode("hello world", context=None)
    for context in range(len(full.ids) + 2):
        cut = ours.encode("hello world", context=context)
        assert cut.ids == full.ids[:context]
        assert cut.truncated == max(0, len(full.ids) - context)
        assert len(cut.offsets) == len(cut.ids)
    with pytest.raises(TokenizerError, match="context: -1; at least 0"):
        ours.encode("hello", context=-1)


def test_stream_holds_a_character_until_it_is_whole(ours):
    """Guards against broken characters on the screen, at any token edge."""
    ids = ours.document(WEIRD.replace("\ufffd", ""))
    stream = ours.stream()
    pieces = [stream.push(id) for id in ids]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert "".join(pieces) + stream.finish() == ours.decode(ids)


def test_stream_shows_at_the_end_what_stayed_broken(ours):
    """Guards against bytes that vanish when a text ends inside a character."""
    ids = byte_level().encode("好").ids[:-1]
    stream = byte_level().stream()
    assert "".join(stream.push(id) for id in ids) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"


def test_ids_without_token_stand_for_nothing(ours):
    """Guards against a crash in the middle of an answer when a model's embeddings are padded past the vocabulary."""
    assert ours.decode([-1, ours.vocab, 2**70, *ours.encode("hi").ids]) == "hi"
    assert ours.stream().push(ours.vocab) == ""


def test_tokens_and_ids_are_inverse(ours):
    """Guards against a name that does not lead back to its id."""
    assert [ours.id(ours.token(id)) for id in range(ours.vocab)] == list(range(ours.vocab))
    assert ours.id("no such token") is None
    for id in (-1, ours.vocab, 2**70):
        with pytest.raises(TokenizerError, match=f"id {id}: no such token; ids go from 0 to"):
            ours.token(id)


def test_half_a_surrogate_pair_is_named(ours):
    """Guards against 'TextInputSequence must be str' for text that JSON's escapes can bring in."""
    calls = (ours.encode, ours.document, lambda text: ours.encode("", text), lambda text: ours.encode_batch(["", text]))
    for call in calls:
        with pytest.raises(TokenizerError, match=r"half a surrogate pair, U\+D800, at character 1") as caught:
            call("a\ud800b")
        assert len(caught.value.problems) == 1
    with pytest.raises(TokenizerError, match="text: a bytes; a str"):
        ours.encode(b"bytes")


def test_training_refuses_half_a_surrogate_pair():
    """Guards against the same in a corpus."""
    for make in (lambda texts: train_bpe(texts, 300), characters):
        with pytest.raises(TokenizerError, match="half a surrogate pair"):
            make(["fine", "\udfff"])


def test_long_text_without_line_ends_is_fast(ours):
    """Guards against a tokenizer that takes quadratic time: 160,000 characters would take minutes."""
    text = "翰林a é1。" * 20_000
    start = time.perf_counter()
    ids = ours.document(text)
    assert ours.decode(ids) == text
    assert time.perf_counter() - start < 10


def test_pattern_cuts_chinese_and_english():
    """Guards against words glued to Chinese, to punctuation or to numbers, and against a space left behind."""
    raw = pre_tokenizers.Split(tokenizers.Regex(PATTERN), "isolated")
    text = "Hello world, don't use Python3中文 你好，世界！in 2024 カー e\u0301t\u0301 안녕 x\n\n    if  y:\r\n\tz ❤️?"
    pieces = [piece for piece, _ in raw.pre_tokenize_str(text)]
    words = ["Hello", " world", ",", " don't", " use", " Python", "3", "中文", " ", "你好", "，", "世界", "！", "in"]
    numbers = [" ", "2", "0", "2", "4", " ", "カー", " e\u0301t\u0301", " 안녕", " x"]
    assert pieces == [*words, *numbers, "\n\n   ", " if", " ", " y", ":\r\n", "\t", "z", " ❤️?"]


def test_same_texts_give_the_same_file():
    """Guards against ties broken by hash order: another process, other hash seed, same bytes."""
    code = (
        "import sys, json; from hanlin.text.tokenizer import train_bpe, characters;"
        "texts = json.loads(sys.argv[1]); print(train_bpe(texts, 400).hash, characters(texts).hash)"
    )
    command = [sys.executable, "-c", code, json.dumps(TEXTS)]
    said = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == [train_bpe(TEXTS, 400).hash, characters(TEXTS).hash]
    assert train_bpe(iter(TEXTS), 400).raw.to_str() == train_bpe(TEXTS, 400).raw.to_str()


def test_bpe_keeps_to_its_vocab():
    """Guards against a model sized for another vocabulary, and against a vocabulary that cannot hold the bytes."""
    assert train_bpe(TEXTS, 300).vocab == 300
    assert train_bpe([], 300).vocab == 259
    with pytest.raises(TokenizerError, match="vocab: 258; at least 259"):
        train_bpe(TEXTS, 258)


def test_characters_are_tokens():
    """Guards against characters that are merged, or ids that depend on the order of the texts."""
    tokenizer = characters(["ba", "c"])
    assert tokenizer.vocab == 3 + 256 + 3
    assert tokenizer.encode("abc").ids == (0, 259, 260, 261)
    assert tokenizer.hash == characters(["c", "ab"]).hash
    assert len(tokenizer.encode("好").ids) == 1 + 3


def test_characters_without_fallback_say_unknown():
    """Guards against characters dropped without a trace."""
    tokenizer = characters(["ab"], fallback=False)
    assert tokenizer.special == Special(bos=0, eos=1, pad=2, unk=3)
    ids = tokenizer.encode("a好好b").ids
    assert ids == (0, 4, 3, 3, 5)
    assert tokenizer.decode(ids, special=True) == "<|bos|>a<|unk|><|unk|>b"


def test_alphabet_is_the_one_everybody_uses():
    """Guards against a byte spelled by another character than in GPT-2's vocabulary."""
    assert set(alphabet()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(alphabet().values()) == list(range(256))
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    spelled = level.pre_tokenize_str("翰 \x00é\xad")[0][0]
    assert bytes(alphabet()[letter] for letter in spelled).decode() == "翰 \x00é\xad"


def test_build_makes_what_the_config_says(tmp_path):
    """Guards against a recipe whose tokenizer section is read and not obeyed."""
    assert build(parse(Config, {"vocab": 300}), TEXTS).vocab == 300
    assert build(parse(Config, {"kind": "characters"}), ["ab"]).vocab == 3 + 256 + 2
    made = build(parse(Config, {"kind": "bytes"}), [])
    assert made.vocab == 259
    made.save(tmp_path)
    assert build(parse(Config, {"from": str(tmp_path)}), []).hash == made.hash
    with pytest.raises(ConfigError) as caught:
        parse(Config, {"kind": "word", "vocab": 12, "form": "x"})
    assert len(caught.value.problems) == 3


def test_saved_and_loaded_is_the_same(ours, tmp_path):
    """Guards against a tokenizer that changes on its way to the disk and back."""
    ours.save(tmp_path / "new" / "folder", context=77)
    loaded = Tokenizer.load(tmp_path / "new" / "folder")
    assert (loaded.hash, loaded.special, loaded.vocab) == (ours.hash, ours.special, ours.vocab)
    assert loaded.encode(WEIRD) == ours.encode(WEIRD)
    assert loaded.document("<|eos|>") == ours.document("<|eos|>")
    assert loaded.settings == {"model_max_length": 77}
    names = sorted(path.name for path in (tmp_path / "new" / "folder").iterdir())
    assert names == ["special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]


def test_saving_is_whole_or_not_at_all(ours, tmp_path, monkeypatch):
    """Guards against half a tokenizer.json over a good one."""
    byte_level().save(tmp_path)
    before = (tmp_path / "tokenizer.json").read_bytes()

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(HanlinError, match="no space left"):
        ours.save(tmp_path)
    assert (tmp_path / "tokenizer.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parity
def test_transformers_reads_what_we_save(ours, tmp_path):
    """Guards against ids that are right in the trainer and wrong everywhere else."""
    from transformers import AutoTokenizer

    ours.save(tmp_path, context=128)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in (*TEXTS[:3], WEIRD, "", "a . b , n't"):
        ids = ours.encode(text).ids
        assert theirs(text)["input_ids"] == list(ids)
        assert theirs.decode(ids, skip_special_tokens=True) == ours.decode(ids) == text
        assert theirs.decode(ids) == ours.decode(ids, special=True)
    found = (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, theirs.model_max_length, len(theirs))
    assert found == (0, 1, 2, 128, ours.vocab)
