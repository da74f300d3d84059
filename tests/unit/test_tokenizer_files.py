"""Other people's tokenizer files: what is taken from them, what is cleared, and what is refused in one line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from hanlin.errors import TokenizerError
from hanlin.text.encoding import _fit
from hanlin.text.tokenizer import Special, Tokenizer

TEXTS = (
    "The dog doesn't mind; 365 days.",
    "翰林学士教书、考试。The Hanlin",
    "    def f(x):\n\n        return x\n",
    "a\x00e\u0301 👩\u200d👧 龘",
)


def bert() -> tokenizers.Tokenizer:
    """A WordPiece tokenizer like BERT's, which adds [CLS] and [SEP] and pads to 8."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "dog", "##s", "sleep", "in", "sun", ".", "hot"]
    raw = tokenizers.Tokenizer(models.WordPiece(vocab={word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer()
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.add_special_tokens([*words[:4], AddedToken("[MASK]", lstrip=True, special=True)])
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    raw.enable_padding(length=8, pad_id=0, pad_token="[PAD]")
    raw.enable_truncation(5)
    return raw


def folder_of(raw: tokenizers.Tokenizer | dict, folder: Path, **companions: dict) -> Path:
    """Write a tokenizer folder: tokenizer.json and, by name, its companions."""
    text = json.dumps(raw) if isinstance(raw, dict) else raw.to_str()
    (folder / "tokenizer.json").write_text(text)
    for name, data in companions.items():
        (folder / f"{name}.json").write_text(json.dumps(data))
    return folder


def plain(vocab: object, **model: object) -> dict:
    """Return the smallest tokenizer.json with the given vocabulary."""
    return {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": vocab, "merges": [], **model}}


def added(content: str, id: int, **flags: bool) -> dict:
    """Return one entry of added_tokens."""
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": content, **usual, **flags}


def test_stored_padding_truncation_and_dropout_are_cleared(tmp_path):
    """Guards against MiniLM's file, which pads every text to 128, and against encodings drawn by lot."""
    data = json.loads(bert().to_str())
    loaded = Tokenizer.load(folder_of(data, tmp_path))
    assert loaded.encode("the dog").ids == (2, 5, 6, 3)
    assert len(loaded.encode("the dog in the sun in the sun").ids) == 10
    assert json.loads(loaded.raw.to_str())["padding"] is json.loads(loaded.raw.to_str())["truncation"] is None
    spelled = plain({"a": 0, "b": 1, "ab": 2}, merges=[["a", "b"]], dropout=1.0)
    assert Tokenizer.load(folder_of(spelled, tmp_path)).encode("ab").ids == (2,)


@pytest.mark.parametrize("context", range(14))
def test_cutting_equals_the_library(tmp_path, context):
    """Guards against a pair cut otherwise than other tools cut it, or a separator lost."""
    raw = bert()
    raw.no_padding()
    loaded = Tokenizer.load(folder_of(raw, tmp_path))
    for text, pair in (("the dogs sleep", None), ("the dogs", "in the hot sun ."), ("the hot sun .", "dogs sleep")):
        full = loaded.encode(text, pair)
        cut = loaded.encode(text, pair, context=context)
        assert len(cut.ids) == min(context, len(full.ids))
        assert cut.truncated == len(full.ids) - len(cut.ids)
        if context > 3:
            raw.enable_truncation(context)
            expected = raw.encode(text, pair)
            assert cut.ids == tuple(expected.ids)
            assert cut.kinds == tuple(expected.type_ids)
            assert cut.offsets == tuple(expected.offsets)


def test_longer_text_gives_way_first():
    """Guards against a short question cut to save a long passage."""
    assert _fit([None, 0, 0, None, 1, 1, 1, 1, None], 7) == [0, 1, 2, 3, 4, 5, 8]
    assert _fit([None, 0, 0, None], 1) == [0]


def test_special_tokens_are_those_the_companions_name(tmp_path):
    """Guards against the two ways of writing them, and against a name that the vocabulary lacks."""
    config = {"bos_token": {"content": "[CLS]"}, "eos_token": "[SEP]", "pad_token": None, "unk_token": "<nowhere>"}
    older = {"mask_token": {"content": "hot", "lstrip": True}, "eos_token": "[PAD]"}
    found = Tokenizer.load(folder_of(bert(), tmp_path, tokenizer_config=config, special_tokens_map=older))
    assert found.special == Special(bos=2, eos=3, mask=12)
    assert found.decode([5, 12, 6]) == "the dog"


def test_special_tokens_are_found_by_their_usual_names(tmp_path):
    """Guards against GPT-2's and BERT's folders, whose companions name none."""
    found = Tokenizer.load(folder_of(bert(), tmp_path, tokenizer_config={"model_max_length": 512}))
    assert found.special == Special(pad=0, unk=1, mask=4, sep=3, cls=2)
    ordinary = Tokenizer.load(folder_of(plain({"<s>": 0, "x": 1}), tmp_path, tokenizer_config={}))
    assert ordinary.special == Special()


def test_flags_of_special_tokens_survive(tmp_path):
    """Guards against [MASK] losing `lstrip`, by which it takes the space before it."""
    Tokenizer.load(folder_of(bert(), tmp_path)).save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.raw.get_added_tokens_decoder()[4].lstrip


@pytest.mark.parametrize(
    ("names", "single", "expected"),
    [
        ({"cls": "[CLS]", "sep": "[SEP]"}, "[CLS] $A [SEP]", [2, 5, 3]),
        ({"bos": "[CLS]", "eos": "[SEP]"}, "[CLS] $A", [2, 5, 3]),
        ({"eos": "[SEP]"}, "$A [SEP]", [5, 3]),
        ({"bos": "[CLS]", "eos": "[CLS]"}, "$A", [2, 5, 2]),
        ({"bos": "[CLS]", "eos": "[CLS]"}, "[CLS] $A", [2, 5, 2]),
        ({}, "$A", [5]),
        ({"bos": "[CLS]", "eos": "[SEP]"}, "[CLS] [MASK] $A [SEP] [PAD]", [2, 4, 5, 3, 0]),
    ],
)
def test_documents_complete_what_the_file_adds(tmp_path, names, single, expected):
    """Guards against BOS added twice, or EOS never, whatever the file's post-processor does."""
    raw = bert()
    ids = {"[PAD]": 0, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    raw.post_processor = processors.TemplateProcessing(
        single=single, pair=f"{single} $B", special_tokens=list(ids.items())
    )
    config = {f"{role}_token": name for role, name in names.items()} or {"unk_token": "[UNK]"}
    loaded = Tokenizer.load(folder_of(raw, tmp_path, tokenizer_config=config))
    assert loaded.document("the") == expected
    assert loaded.document("") == [id for id in expected if id != 5]


def test_vocab_counts_holes(tmp_path):
    """Guards against an embedding table one row short of the highest id."""
    assert Tokenizer.load(folder_of(plain({"a": 0, "b": 9}), tmp_path)).vocab == 10


def test_settings_of_other_tools_are_kept(tmp_path):
    """Guards against a chat template lost when a tokenizer is copied, and against code that comes with one."""
    config = {"chat_template": "{{ x }}", "padding_side": "left", "auto_map": {"AutoTokenizer": "evil.py"}}
    Tokenizer.load(folder_of(bert(), tmp_path, tokenizer_config=config)).save(tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert written["padding_side"] == "left"
    assert "auto_map" not in written
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ x }}"
    assert Tokenizer.load(tmp_path).settings["chat_template"] == "{{ x }}"


BAD = {
    "not JSON": "{",
    "empty": "",
    "a list": "[]",
    "deep": '{"model":' * 100_000,
    "bad UTF-8": b'{"model": "\xff"}',
    "half a surrogate pair": '{"model": {"type": "BPE", "vocab": {"\\ud800": 0}, "merges": []}}',
    "a huge number": plain({"a": 10**400}),
    "an absurd id": plain({"a": 2**31}),
    "a negative id": plain({"a": -1}),
    "no ids": plain({"a": "b"}),
    "one id twice": plain({"a": 0, "b": 0}),
    "no vocabulary": plain({}),
    "no model": {"version": "1.0"},
    "an unknown model": plain({"a": 0}, type="Magic"),
    "cyclic merges": plain({"a": 0, "b": 1, "ab": 2, "aba": 3}, merges=[["a", "b"], ["ab", "a"], ["aba", "b"]]),
    "a merge of nothing": plain({"a": 0, "b": 1}, merges=[["a", ""]]),
    "merges that are numbers": plain({"a": 0}, merges=[1]),
    "merges that are none": plain({"a": 0}, merges={"a": "b"}),
    "a prefix that cuts a character": plain(
        {"a": 0, "é": 1, "aé": 2}, merges=[["a", "é"]], continuing_subword_prefix="#"
    ),
    "a prefix of many bytes": plain({"a": 0, "é": 1, "aé": 2}, merges=[["a", "é"]], continuing_subword_prefix="é"),
    "an added token that is empty": {**plain({"a": 0}), "added_tokens": [added("", 1)]},
    "an added token with another id": {**plain({"a": 0}), "added_tokens": [added("x", 77)]},
    "an added token with an absurd id": {**plain({"a": 0}), "added_tokens": [added("x", 2**31)]},
    "a broken character map": {
        **plain({"a": 0}),
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    },
    "a broken pattern": {
        **plain({"a": 0}),
        "normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""},
    },
    "chunks of no length": {**plain({"a": 0}), "pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "a template without its token": {
        **plain({"a": 0}),
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {},
        },
    },
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(tmp_path, capfd, name):
    """Guards against a crash, a panic of the library's Rust code, or an abort on a hostile file."""
    bad = BAD[name]
    data = bad if isinstance(bad, bytes) else (bad if isinstance(bad, str) else json.dumps(bad)).encode()
    (tmp_path / "tokenizer.json").write_bytes(data)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(tmp_path)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert "tokenizer.json" in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_file_too_large_is_not_read(tmp_path):
    """Guards against a vocabulary of ten million entries."""
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(TokenizerError, match="200,000,000 bytes; at most 50,000,000"):
        Tokenizer.load(tmp_path)


def test_all_problems_are_told_at_once(tmp_path):
    """Guards against mending a folder one error a run."""
    config = {"bos_token": 5, "eos_token": {"text": "x"}}
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(folder_of(plain({"a": -1}), tmp_path, tokenizer_config=config))
    assert [line.split(": ")[1:3] for line in caught.value.problems] == [
        ["tokenizer.json", "model.vocab"],
        ["tokenizer_config.json", "bos_token"],
        ["tokenizer_config.json", "eos_token"],
    ]


def test_missing_files_say_what_to_do(tmp_path):
    """Guards against 'file not found' for a folder whose files are of another kind."""
    with pytest.raises(TokenizerError, match="no such folder"):
        Tokenizer.load(tmp_path / "nowhere")
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"holds no tokenizer; tokenizer.json, or .*vocab.json and merges.txt"):
        Tokenizer.load(tmp_path)
    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match=r"holds no tokenizer;"):
        Tokenizer.load(tmp_path)


def test_text_a_tokenizer_cannot_take_is_one_line(tmp_path):
    """Guards against the library's own exceptions, and its panics, reaching a user."""
    raw = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="[UNK]"))
    with pytest.raises(TokenizerError, match=r"text: the tokenizer gives up: .*\[UNK\]"):
        Tokenizer.load(folder_of(raw, tmp_path)).encode("b")
    slow = {"type": "Replace", "pattern": {"Regex": "(x+x+)+y"}, "content": ""}
    loaded = Tokenizer.load(folder_of({**plain({"x": 0}), "normalizer": slow}, tmp_path))
    with pytest.raises(TokenizerError, match="text: the tokenizer gives up"):
        loaded.encode("x" * 40)


def test_gpt_neox(real_data, tmp_path):
    """Guards against a published file read otherwise than its authors' library reads it."""
    source = real_data / "models" / "gpt-neox" / "20B_tokenizer.json"
    if not source.is_file():
        pytest.skip(f"no {source}")
    (tmp_path / "tokenizer.json").write_bytes(source.read_bytes())
    neox = Tokenizer.load(tmp_path)
    assert neox.special == Special(bos=0, eos=0, pad=1)
    assert neox.vocab == 50277
    assert neox.encode("Hello world").ids == (12092, 1533)
    assert neox.document("Hello world") == [0, 12092, 1533, 0]
    for text in (*TEXTS[:3], "x   y" + " " * 30 + "z", "안녕 مرحبا 👩‍👩‍👧", "<|endoftext|>"):
        ids = neox.encode(text).ids
        stream = neox.stream()
        assert neox.decode(ids) == neox.raw.decode(ids) == text
        assert "".join(map(stream.push, ids)) + stream.finish() == text


def test_gpt2(real_data, tmp_path):
    """Guards against offsets, ids or text that differ from GPT-2's; 'Hello world' is 15496 995 there."""
    source = real_data / "models" / "gpt2"
    if not (source / "vocab.bpe").is_file():
        pytest.skip(f"no {source}/vocab.bpe")
    raw = tokenizers.Tokenizer(models.BPE.from_file(str(source / "encoder.json"), str(source / "vocab.bpe")))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens(["<|endoftext|>"])
    gpt2 = Tokenizer.load(folder_of(raw, tmp_path))
    assert gpt2.encode("Hello world").ids == (15496, 995)
    assert gpt2.document("Hello world") == [50256, 15496, 995, 50256]
    assert gpt2.document("") == [50256, 50256]
    for text in TEXTS:
        ids = gpt2.encode(text).ids
        assert gpt2.decode(ids) == gpt2.raw.decode(ids) == text
