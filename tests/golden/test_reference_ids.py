"""Ids equal the references: llama.cpp's expected ids for five vocabularies, the sentencepiece library line by line.

GGUF    magic · version · tensors · pairs · (key, type, value)...      only the pairs are read
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from pathlib import Path

import pytest

from hanlin.text import sentencepiece
from hanlin.text.sentencepiece import Algorithm, Kind, Model, Piece
from hanlin.text.stream import alphabet
from hanlin.text.tokenizer import Tokenizer

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
TOKENS = "tokenizer.ggml.tokens"
# DeepSeek-coder's pieces of text: line ends, words, punctuation, Chinese and Japanese, each with a space before it.
SIGNS = r"!-/:-~！-／：-～‘-‟　-。"
CODER = [r"[\r\n]", r"\s?\p{L}+", rf"\s?[{SIGNS}]+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}"]
MODELS = [
    "llama2/tokenizer.model",
    "chinese_llama/chinese_sp.model",
    "sentencepiece/test_model.model",
    "sentencepiece/librispeech_unigram5000.model",
    "sentencepiece/xlnet_zh_spiece.model",
]


def pairs(data: bytes) -> dict[str, object]:
    """Return the key-value pairs of a GGUF file."""
    place = 24
    assert data[:4] == b"GGUF"

    def take(kind: int) -> object:
        nonlocal place
        if kind == ARRAY:
            inner, count = struct.unpack_from("<IQ", data, place)
            assert count < len(data)
            place += 12
            return [take(inner) for _ in range(count)]
        if kind == STRING:
            (size,) = struct.unpack_from("<Q", data, place)
            place += 8 + size
            return data[place - size : place].decode()
        (value,) = struct.unpack_from(f"<{NUMBERS[kind]}", data, place)
        place += struct.calcsize(f"<{NUMBERS[kind]}")
        return value

    (count,) = struct.unpack_from("<Q", data, 16)
    found = {}
    for _ in range(count):
        key = take(STRING)
        (kind,) = struct.unpack_from("<I", data, place)
        place += 4
        found[key] = take(kind)
    return found


def reference(models: Path, name: str) -> tuple[dict[str, object], list[str], list[list[int]]]:
    """Return a vocabulary's pairs, the test strings, and the ids llama.cpp expects, which adds nothing around them."""
    file = models / "gguf_vocab" / f"ggml-vocab-{name}.gguf"
    if not file.is_file():
        pytest.skip(f"no {file}")
    texts = Path(f"{file}.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = Path(f"{file}.out").read_text(encoding="utf-8").split("\n")[: len(texts)]
    return pairs(file.read_bytes()), texts, [[int(id) for id in line.split()] for line in lines]


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Return the ids of texts, nothing added."""
    return [each.ids for each in tokenizer.raw.encode_batch_fast(texts, add_special_tokens=False)]


def spelled(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    """Return the ids of each text as `encode` gives them, less what it adds."""
    frame = {tokenizer.special.bos, tokenizer.special.cls, tokenizer.special.sep}
    return [[id for id in tokenizer.encode(text).ids if id not in frame] for text in texts]


@pytest.fixture
def models(real_data) -> Path:
    """Return the folder of models."""
    return real_data / "models"


def test_gpt2(models, tmp_path):
    """Guards against ids other than GPT-2's, from OpenAI's files and from the same under Hugging Face's names."""
    _, texts, expected = reference(models, "gpt-2")
    original = Tokenizer.load(models / "gpt2")
    (tmp_path / "vocab.json").write_bytes((models / "gpt2/encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((models / "gpt2/vocab.bpe").read_bytes())
    assert spelled(original, texts) == spelled(Tokenizer.load(tmp_path), texts) == expected


def test_bert(models, tmp_path):
    """Guards against BERT's accents, Chinese characters and unknown words; llama.cpp writes ▁word for word."""
    found, texts, expected = reference(models, "bert-bge")
    special = re.compile(r"\[(PAD|UNK|CLS|SEP|MASK|unused\d+)\]")
    words = [each[1:] if each[0] == "▁" else each if special.fullmatch(each) else f"##{each}" for each in found[TOKENS]]
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    assert spelled(Tokenizer.load(tmp_path), texts) == expected


@pytest.mark.parametrize("name", ["llama-spm", "phi-3"])
def test_llama(models, tmp_path, name):
    """Guards against merges in another order than SentencePiece's scores, and bytes for what has no piece."""
    found, texts, expected = reference(models, name)
    fields = zip(found[TOKENS], found["tokenizer.ggml.scores"], found["tokenizer.ggml.token_type"])
    pieces = tuple(Piece(text, score, Kind(kind)) for text, score, kind in fields)
    model = Model(pieces=pieces, algorithm=Algorithm.BPE, byte_fallback=True, collapse=False)
    (tmp_path / "tokenizer.json").write_text(json.dumps(sentencepiece.rules(model)))
    assert spelled(Tokenizer.load(tmp_path), texts) == expected


def test_deepseek_coder(models, tmp_path):
    """Guards against byte-level BPE whose words are not GPT-2's."""
    found, texts, expected = reference(models, "deepseek-coder")
    vocab = {token: id for id, token in enumerate(found[TOKENS])}
    own = [(token, id) for id, token in enumerate(found[TOKENS]) if found["tokenizer.ggml.token_type"][id] == 4]
    splits = [{"type": "Split", "pattern": {"Regex": each}, "behavior": "Isolated", "invert": False} for each in CODER]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    data = {
        "version": "1.0",
        "added_tokens": [{**sentencepiece.added(token, id), "special": False} for token, id in own],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, level]},
        "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": [m.split(" ") for m in found["tokenizer.ggml.merges"]]},
    }
    assert set(alphabet()) <= vocab.keys()
    (tmp_path / "tokenizer.json").write_text(json.dumps(data))
    assert ids(Tokenizer.load(tmp_path), texts) == expected


def library(path: Path) -> object:
    """Return the sentencepiece library's reading of a model."""
    if not path.is_file():
        pytest.skip(f"no {path}")
    return pytest.importorskip("sentencepiece").SentencePieceProcessor(model_file=str(path))


def alone(model: Path, folder: Path) -> Tokenizer:
    """Return our reading of a model, alone in a folder."""
    (folder / model.name).write_bytes(model.read_bytes())
    return Tokenizer.load(folder)


def compare(theirs: object, ours: Tokenizer, texts: list[str]) -> int:
    """Return how many texts are cut otherwise than the library cuts them, into pieces that score just as high."""

    def score(cut: list[int]) -> float:
        return sum(theirs.get_score(id) for id in cut)

    differing = [pair for pair in zip(ids(ours, texts), theirs.encode(texts)) if pair[0] != pair[1]]
    for mine, other in differing:
        # sentencepiece adds the scores of a path in float32, tokenizers in float64: two ways that tie end differently
        assert score(mine) == pytest.approx(score(other), abs=0.01), [ours.token(id) for id in mine]
    return len(differing)


def corpora(folder: Path, names: str) -> list[str]:
    """Return the text of the Chinese files that a pattern names."""
    found = sorted((folder / "data/lm").glob(names))
    return [
        (gzip.decompress(each.read_bytes()) if each.suffix == ".gz" else each.read_bytes()).decode() for each in found
    ]


@pytest.mark.parametrize("name", MODELS)
def test_sentencepiece_line_by_line(real_data, models, tmp_path, name):
    """Guards against other ids than SentencePiece's, in English and Chinese, by line and in pieces of whole files."""
    theirs, ours = library(models / name), alone(models / name, tmp_path)
    botchan = (models / "sentencepiece/botchan.txt").read_text(encoding="utf-8")
    chinese = "\n".join(corpora(real_data, "zh_*/*valid*"))[:300_000]
    assert compare(theirs, ours, botchan.split("\n")) <= 2
    assert compare(theirs, ours, chinese.split("\n")) <= 1
    assert compare(theirs, ours, re.findall(r"(?s).{1,5000}", botchan)) <= 2
    assert compare(theirs, ours, re.findall(r"(?s).{1,5000}", chinese)) <= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_sentencepiece_on_every_chinese_file(real_data, models, tmp_path, name):
    """Guards against the same on 8 MB of Chinese; XLNet's 后 + 的 scores as 后的: 8 lines, 29 of 3,567 pieces."""
    theirs, ours = library(models / name), alone(models / name, tmp_path)
    texts = corpora(real_data, "zh_*/*")
    assert compare(theirs, ours, "\n".join(texts).split("\n")) <= 8
    assert sum(compare(theirs, ours, re.findall(r"(?s).{1,2000}", text)) for text in texts) <= 29


def test_known_differences(models, tmp_path):
    """Pins where the library cannot follow, so that nobody finds it out in a score: see sentencepiece.py."""
    name = "sentencepiece/xlnet_zh_spiece.model"
    theirs, ours = library(models / name), alone(models / name, tmp_path)

    def cut(text: str) -> tuple[str, str]:
        mine = ours.raw.encode(text, add_special_tokens=False).tokens
        return " ".join(mine), " ".join(theirs.encode(text, out_type=str))

    assert cut("</s> x") == ("▁< / s > ▁ x", "▁</ s > ▁ x")  # a control piece spelled in the text
    assert ours.raw.normalizer.normalize_str("ｶﾞ") == "▁カ\u3099"
    assert theirs.normalize("ｶﾞ") == "▁ガ"  # half-width kana
    assert ours.raw.normalizer.normalize_str("ｐ\u0303") == "▁p"
    assert theirs.normalize("ｐ\u0303") == "▁p\u0303"  # a full-width letter with a mark
