"""SentencePiece models: the wire format read with suspicion, what becomes of each kind of piece, the families' ids."""

from __future__ import annotations

import io
import json
import struct
from contextlib import suppress
from pathlib import Path

import pytest

from hanlin.errors import TokenizerError
from hanlin.text import sentencepiece
from hanlin.text.literal import BYTES
from hanlin.text.protobuf import fields
from hanlin.text.sentencepiece import Algorithm, Kind, Piece
from hanlin.text.tokenizer import Special, Tokenizer

TEXTS = ["The dog doesn't mind the sun.", "a dog, 翰林学士 in the  sun ", "the dogs; the sun's", "翰林院 and 学士"] * 20
HOME = [Piece("<unk>", 0.0, Kind.UNKNOWN), Piece("<s>", 0.0, Kind.CONTROL), Piece("</s>", 0.0, Kind.CONTROL)]
PIECES = [*HOME, *(Piece(text, -float(place)) for place, text in enumerate(["▁", "a", "b", "ab", "▁a", "c"], 1))]


def varint(value: int) -> bytes:
    """Return a number as the wire writes it."""
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])


def sized(number: int, data: bytes) -> bytes:
    """Return a field of bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def flag(number: int, value: int) -> bytes:
    """Return a field with a number."""
    return varint(number << 3) + varint(value & (1 << 64) - 1)


def single(number: int, value: float) -> bytes:
    """Return a field with a float."""
    return varint(number << 3 | 5) + struct.pack("<f", value)


def piece(text: str, score: float = 0.0, kind: int = 1) -> bytes:
    """Return one piece of a model file."""
    return sized(1, sized(1, text.encode()) + single(2, score) + flag(3, kind))


def model(pieces: list[Piece], trainer: bytes = b"", normalizer: bytes = b"") -> bytes:
    """Return a model file."""
    return b"".join(piece(*each) for each in pieces) + sized(2, trainer) + sized(3, normalizer)


def folder_of(data: bytes, folder: Path, name: str = "tokenizer.model", **config: object) -> Path:
    """Write a folder with a model file and a tokenizer_config.json."""
    (folder / name).write_bytes(data)
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def trained(**options: object) -> bytes:
    """Return a small model that the sentencepiece library trained."""
    library = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=made, minloglevel=2, num_threads=1, **options
    )
    return made.getvalue()


KINDS = {
    "unigram": {"vocab_size": 60, "hard_vocab_limit": False},
    "unigram, bytes": {"vocab_size": 330, "byte_fallback": True, "hard_vocab_limit": False},
    "unigram, spaces kept": {"vocab_size": 60, "hard_vocab_limit": False, "remove_extra_whitespaces": False},
    "unigram, no space before": {"vocab_size": 60, "hard_vocab_limit": False, "add_dummy_prefix": False},
    "unigram, user": {"vocab_size": 70, "hard_vocab_limit": False, "user_defined_symbols": "dog,the s,#"},
    "unigram, identity": {"vocab_size": 60, "hard_vocab_limit": False, "normalization_rule_name": "identity"},
    "unigram, folded": {"vocab_size": 60, "hard_vocab_limit": False, "normalization_rule_name": "nmt_nfkc_cf"},
    "bpe": {"vocab_size": 60, "model_type": "bpe"},
    "bpe, bytes": {"vocab_size": 330, "model_type": "bpe", "byte_fallback": True},
    "bpe, user": {"vocab_size": 70, "model_type": "bpe", "user_defined_symbols": "dog,the s,##,#"},
    "bpe, spaces kept": {
        "vocab_size": 60,
        "model_type": "bpe",
        "remove_extra_whitespaces": False,
        "add_dummy_prefix": False,
    },
    "characters": {"vocab_size": 40, "model_type": "char", "hard_vocab_limit": False},
}
STRANGE = [
    "",
    " ",
    "  ",
    "\t\n",
    "▁",
    " ▁ ",
    "▁▁dog",
    "dog ▁",
    "a  b",
    " dog ",
    "\u3000翰 ",
    "ﬁ ①Ａ",
    "龘龘 é é",
    "\x00 \u200b",
]
STRANGE += ["dogdog the sunthe s##", "###", "the  s", "THE Dog", "<0x41>"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_the_librarys(tmp_path, kind):
    """Guards against spaces, user-defined pieces, bytes or unknowns handled otherwise than in training."""
    data = trained(**KINDS[kind])
    theirs = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=data)
    ours = Tokenizer.load(folder_of(data, tmp_path))
    assert ours.vocab == theirs.vocab_size()
    for text in (*TEXTS[:4], *STRANGE):
        ids = ours.raw.encode(text, add_special_tokens=False).ids
        cut = [ours.token(id) for id in ids]
        assert cut == [theirs.id_to_piece(id) for id in theirs.encode(text)], text
        if theirs.unk_id() not in ids and "▁" not in text:
            assert ours.decode(ids) == theirs.decode(ids)


def test_no_control_or_byte_piece_comes_from_text(tmp_path):
    """Guards against user text that becomes control ids: Unigram looks every piece up in the text."""
    data = trained(vocab_size=330, byte_fallback=True, hard_vocab_limit=False, control_symbols="<end>,<end>x")
    ours = Tokenizer.load(folder_of(data, tmp_path))
    for text in ("</s>", "a</s></s>b<unk><s>", "<end>x <<end>>", "▁<s>▁"):
        ids = ours.encode(text).ids[1:]
        assert set(ours.raw.get_added_tokens_decoder()).isdisjoint(ids)
        assert ours.decode(ids) == text.replace("▁", " ").strip()
    assert ours.decode(ours.encode("<0x41> <0xE9>").ids) == "<0x41> <0xE9>"
    ours.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.hash == ours.hash
    assert again.encode("a</s>b") == ours.encode("a</s>b")


def test_llama_frames_as_its_companion_says(tmp_path):
    """Guards against BOS missing before a prompt, or EOS after it, which ends the answer before it begins."""
    data = model(PIECES, flag(3, Algorithm.BPE))
    assert Tokenizer.load(folder_of(data, tmp_path)).encode("ab", "c").ids == (1, 3, 6, 1, 3, 8)
    assert Tokenizer.load(tmp_path).special == Special(bos=1, eos=2, unk=0)
    folder_of(data, tmp_path, tokenizer_class="LlamaTokenizer", add_bos_token=False, add_eos_token=True)
    assert Tokenizer.load(tmp_path).encode("ab").ids == (3, 6, 2)
    assert Tokenizer.load(tmp_path).document("ab") == [1, 3, 6, 2]


def test_added_tokens_of_the_companions_are_added(tmp_path):
    """Guards against a chat model whose <|end|> has no id, and against text that ends a turn."""
    user = [*PIECES, Piece("<turn>", 0.0, Kind.USER)]
    told = {"1": {"content": "<s>", "special": True}, "9": {"content": "<turn>", "special": True}}
    told["10"] = {"content": "<|end|>", "special": True, "lstrip": False}
    folder_of(model(user, flag(3, Algorithm.BPE)), tmp_path, added_tokens_decoder=told)
    ours = Tokenizer.load(tmp_path)
    assert (ours.vocab, ours.id("<|end|>")) == (11, 10)
    assert {9, 10}.isdisjoint(ours.encode("a<turn>b<|end|>").ids)
    (tmp_path / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"x": 5}}')
    with pytest.raises(TokenizerError, match=r"or added_tokens\.json: added_tokens: .*an id below"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "added_tokens.json").write_text('{"<|im_start|>": 10}')
    assert Tokenizer.load(tmp_path).id("<|im_start|>") == 10


def test_merges_go_by_score(tmp_path):
    """Guards against merges in the order of ids: here 'bc' was added last and scores best."""
    pieces = [*PIECES, Piece("bc", -0.5)]
    ours = Tokenizer.load(folder_of(model(pieces, flag(3, Algorithm.BPE)), tmp_path))
    assert [ours.token(id) for id in ours.encode("abc").ids[1:]] == ["▁a", "bc"]


def test_t5(tmp_path):
    """Guards against T5's extra ids missing, backwards, or found in a user's text, and </s> forgotten."""
    pieces = [Piece("<pad>", 0.0, Kind.CONTROL), HOME[2], HOME[0], *PIECES[3:]]
    ours = Tokenizer.load(folder_of(model(pieces), tmp_path, "spiece.model", tokenizer_class="T5TokenizerFast"))
    assert ours.vocab == len(pieces) + 100
    assert ours.id("<extra_id_0>") == ours.vocab - 1
    assert ours.special == Special(eos=1, pad=0, unk=2)
    assert ours.encode("ab").ids == (3, 6, 1)
    assert ours.id("<extra_id_0>") not in ours.encode("a<extra_id_0>").ids
    (tmp_path / "tokenizer_config.json").unlink()
    unnamed = Tokenizer.load(tmp_path)
    assert (unnamed.vocab, unnamed.encode("ab").ids) == (len(pieces), (3, 6, 1))


@pytest.mark.parity
def test_xlm_roberta(tmp_path):
    """Guards against the ids that XLM-R shifts by one: <s> <pad> </s> <unk>, the pieces, <mask>."""
    from transformers import AutoTokenizer

    data = trained(**KINDS["unigram"])
    ours = Tokenizer.load(folder_of(data, tmp_path, "sentencepiece.bpe.model"))
    assert ours.special == Special(bos=0, eos=2, pad=1, unk=3, mask=ours.vocab - 1, sep=2, cls=0)
    theirs = pytest.importorskip("sentencepiece").SentencePieceProcessor(model_proto=data)
    for text in (*TEXTS[:4], "龘 dog"):
        assert ours.encode(text).ids == (0, *((id + 1 if id else 3) for id in theirs.encode(text)), 2)
    ours.save(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in (*TEXTS[:4], "龘 dog"):
        assert saved(text)["input_ids"] == list(ours.encode(text).ids)
    assert saved("a", "b")["input_ids"] == list(ours.encode("a", "b").ids)


@pytest.mark.parity
@pytest.mark.parametrize("kind", ["bpe, bytes", "unigram, user"])
def test_transformers_reads_what_we_save(tmp_path, kind):
    """Guards against a converted folder whose ids are others elsewhere."""
    from transformers import AutoTokenizer

    ours = Tokenizer.load(folder_of(trained(**KINDS[kind]), tmp_path))
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in (*TEXTS[:4], *STRANGE):
        assert theirs(text)["input_ids"] == list(ours.encode(text).ids)


def test_xlnet_and_albert_are_told_by_their_pieces(tmp_path):
    """Guards against XLNet's tokens put before the text: they stand behind it."""
    xlnet = [*HOME, Piece("<cls>", 0.0, Kind.CONTROL), Piece("<sep>", 0.0, Kind.CONTROL), *PIECES[3:]]
    ours = Tokenizer.load(folder_of(model(xlnet), tmp_path, "spiece.model"))
    assert (ours.encode("ab").ids, ours.encode("ab").kinds) == ((5, 8, 4, 3), (0, 0, 0, 2))
    assert (ours.special.cls, ours.special.sep) == (3, 4)
    albert = [*HOME, Piece("[CLS]", 0.0, Kind.CONTROL), Piece("[SEP]", 0.0, Kind.CONTROL), *PIECES[3:]]
    assert Tokenizer.load(folder_of(model(albert), tmp_path, "spiece.model")).encode("ab").ids == (3, 5, 8, 4)


def test_families_that_shift_ids_are_refused(tmp_path):
    """Guards against mBART's or Pegasus's ids, shifted in ways of their own, read as if they were not."""
    folder_of(model(PIECES), tmp_path, tokenizer_class="PegasusTokenizer")
    with pytest.raises(TokenizerError, match=r"tokenizer_class: 'PegasusTokenizer'; known with these files: albert"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "xlm-robertas"}')
    with pytest.raises(TokenizerError, match="did you mean 'xlmroberta'"):
        Tokenizer.load(tmp_path)


GOOD = model(PIECES)
BAD = {
    "empty": b"",
    "text": b"This is no model file at all.",
    "cut": GOOD[:-9],
    "cut in a number": GOOD + b"\xff",
    "a number without end": GOOD + b"\x08" + b"\xff" * 20,
    "an absurd length": GOOD + b"\x0a" + varint(2**62) + b"x",
    "a group": GOOD + b"\x0b\x0c",
    "field 0": GOOD + b"\x00\x00",
    "a piece that is a number": GOOD + flag(1, 7),
    "a text that is a number": GOOD + sized(1, flag(1, 5)),
    "a score that is a number": GOOD + sized(1, sized(1, b"x") + flag(2, 5)),
    "a type that is a text": GOOD + sized(1, sized(1, b"x") + sized(3, b"x")),
    "a flag that is a text": GOOD + sized(3, sized(4, b"yes")),
    "bad UTF-8": GOOD + sized(1, sized(1, b"\xff\xfe")),
    "a score that is no number": GOOD + piece("x", float("nan")),
    "an endless score": GOOD + piece("x", float("inf")),
    "an unknown type": GOOD + piece("x", 0.0, 9),
    "an empty piece": GOOD + piece(""),
    "a piece twice": GOOD + piece("ab"),
    "two unknown pieces": GOOD + piece("<u>", 0.0, 2),
    "an unused piece": GOOD + piece("x", 0.0, 5),
    "bytes without pieces": model(PIECES, flag(35, 1)),
    "whole words": model(PIECES, flag(3, 3)),
    "a negative algorithm": model(PIECES, flag(3, -1)),
    "spaces behind words": model(PIECES, flag(24, 1)),
    "a broken character map": model(PIECES, b"", sized(2, b"\x00\x01\x02")),
    "a character map that lies": model(PIECES, b"", sized(2, b"\xff\xff\xff\x7f" + b"\x00" * 64)),
}


@pytest.mark.parametrize("name", BAD)
def test_hostile_files_are_one_line(tmp_path, capfd, name):
    """Guards against crashes, panics and endless reading on a damaged or hostile file."""
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(folder_of(BAD[name], tmp_path))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert "tokenizer.model" in str(caught.value)
    assert capfd.readouterr().err == ""


def test_every_truncation_and_flipped_byte_is_survived():
    """Guards against anything but a TokenizerError from a damaged file."""
    for place in range(len(GOOD)):
        for data in (GOOD[:place], GOOD[:place] + bytes([GOOD[place] ^ 0xFF]) + GOOD[place + 1 :]):
            with suppress(TokenizerError):
                sentencepiece.rules(sentencepiece.read(data, "x"))


def test_the_wire_is_read_as_specified():
    """Guards against byte order, signs and fields never heard of; the first two are the specification's examples."""
    found = list(fields(bytes.fromhex("089601 12076b 657966 6f6f64 1d0000803f 21 0000000000000000 0801"), "x"))
    assert [(field.number, field.value) for field in found[:2]] == [(1, 150), (2, b"keyfood")]
    assert found[2].single() == 1.0
    assert [field.number for field in found] == [1, 2, 3, 4, 1]
    assert next(fields(flag(40, -1), "x")).integer() == -1
    with pytest.raises(TokenizerError, match="x: field 2: no float; four bytes"):
        found[1].single()


def test_unknown_fields_are_passed_over(tmp_path):
    """Guards against a newer file refused for what it adds."""
    assert Tokenizer.load(folder_of(GOOD + sized(200, b"new") + single(201, 1.0), tmp_path)).vocab == len(PIECES)


def test_byte_pieces_decode_as_bytes(tmp_path):
    """Guards against <0xE9> shown to a reader."""
    pieces = [*PIECES, *(Piece(byte, 0.0, Kind.BYTE) for byte in BYTES)]
    for algorithm in (Algorithm.BPE, Algorithm.UNIGRAM):
        ours = Tokenizer.load(folder_of(model(pieces, flag(3, algorithm) + flag(35, 1)), tmp_path))
        ids = ours.encode("a龘 b\n").ids
        assert ours.decode(ids) == ours.raw.decode(ids) == ("a龘 b\n")
