"""Folders from before tokenizer.json: GPT-2's and RoBERTa's pairs of files, BERT's list of words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from hanlin.errors import TokenizerError
from hanlin.text.stream import alphabet
from hanlin.text.tokenizer import Special, Tokenizer

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cafe", "##s", "dog", "翰", "林", ".", "[", "]"]
LETTERS = sorted(alphabet())
MERGES = ["t h", "th e", "Ġ the", "d o", "do g"]


def bert(folder: Path, words: list[str] = WORDS, **config: object) -> Path:
    """Write BERT's folder."""
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def gpt2(
    folder: Path, first: tuple[str, ...] = ("<|endoftext|>",), merges: list[str] = MERGES, **config: object
) -> Path:
    """Write GPT-2's folder, or RoBERTa's by its first tokens."""
    tokens = [*first, *LETTERS, *(merge.replace(" ", "") for merge in MERGES)]
    (folder / "vocab.json").write_text(json.dumps({token: id for id, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def test_bert_reads_as_bert(tmp_path):
    """Guards against accents kept, Chinese characters glued together, and [CLS] and [SEP] forgotten."""
    ours = Tokenizer.load(bert(tmp_path))
    assert ours.special == Special(pad=0, unk=1, cls=2, sep=3, mask=4)
    assert ours.encode("The Cafés", "翰林").ids == (2, 5, 6, 7, 3, 9, 10, 3)
    assert ours.encode("the", "dog").kinds == (0, 0, 0, 1, 1)
    assert ours.document("dog") == [2, 8, 3]
    assert ours.encode("[SEP]").ids == (2, 12, 1, 13, 3)


def test_bert_is_cased_when_the_companion_or_the_words_say_so(tmp_path):
    """Guards against a cased model that reads everything in lower case, and loses every name."""
    assert Tokenizer.load(bert(tmp_path, do_lower_case=False)).encode("The").ids == (2, 1, 3)
    cased = [*WORDS, "The"]
    assert Tokenizer.load(bert(tmp_path, cased)).encode("The the").ids == (2, 14, 5, 3)
    assert Tokenizer.load(bert(tmp_path, cased, do_lower_case=True)).encode("The the").ids == (2, 5, 5, 3)
    assert Tokenizer.load(bert(tmp_path, cased, strip_accents=True)).encode("cafés").ids == (2, 6, 7, 3)
    assert Tokenizer.load(bert(tmp_path, tokenize_chinese_chars=False)).encode("翰林").ids == (2, 1, 3)


def test_line_ends_of_windows_are_no_part_of_words(tmp_path):
    """Guards against a vocabulary in which no word is found."""
    bert(tmp_path)
    (tmp_path / "vocab.txt").write_bytes("\r\n".join(WORDS).encode())
    assert Tokenizer.load(tmp_path).encode("the dog").ids == (2, 5, 8, 3)


def test_gpt2_reads_as_gpt2(tmp_path):
    """Guards against BOS before every prompt, where GPT-2 has none, and the other names of its files."""
    ours = Tokenizer.load(gpt2(tmp_path))
    assert [ours.token(id) for id in ours.encode("the the dog").ids] == ["the", "Ġthe", "Ġ", "dog"]
    assert ours.special == Special(bos=0, eos=0)
    assert ours.decode(ours.encode("翰林 \x00 <|endoftext|>").ids) == "翰林 \x00 <|endoftext|>"
    assert 0 not in ours.encode("<|endoftext|>").ids
    (tmp_path / "vocab.json").rename(tmp_path / "encoder.json")
    (tmp_path / "merges.txt").rename(tmp_path / "vocab.bpe")
    assert Tokenizer.load(tmp_path).hash == ours.hash
    spaced = Tokenizer.load(gpt2(tmp_path, add_prefix_space=True))
    assert [spaced.token(id) for id in spaced.encode("the").ids] == ["Ġthe"]


def test_a_merge_of_a_number_sign_is_no_comment(tmp_path):
    """Guards against the merge '# #' skipped as if it were the line that names the version."""
    (gpt2(tmp_path) / "merges.txt").write_text("# #\n")
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    (tmp_path / "vocab.json").write_text(json.dumps({**vocab, "##": len(vocab)}))
    assert Tokenizer.load(tmp_path).encode("##").ids == (len(vocab),)


def test_roberta_is_told_by_its_tokens(tmp_path):
    """Guards against RoBERTa read as GPT-2, without <s> and </s>."""
    ours = Tokenizer.load(gpt2(tmp_path, ("<s>", "<pad>", "</s>", "<unk>", "<mask>")))
    assert ours.special == Special(bos=0, eos=2, pad=1, unk=3, mask=4, sep=2, cls=0)
    the = ours.id("the")
    assert ours.encode("the").ids == (0, the, 2)
    assert ours.encode("the", "the").ids == (0, the, 2, 2, the, 2)


@pytest.mark.parity
@pytest.mark.parametrize("make", [bert, gpt2])
def test_transformers_reads_what_we_save(tmp_path, make):
    """Guards against a converted folder whose ids are others elsewhere."""
    from transformers import AutoTokenizer

    ours = Tokenizer.load(make(tmp_path))
    ours.save(tmp_path / "saved")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "saved")
    for text in ("The dog's Cafés 翰林.", "", "  the\n\nthe", "é"):
        assert theirs(text)["input_ids"] == list(ours.encode(text).ids)
        assert theirs(text, "the")["input_ids"] == list(ours.encode(text, "the").ids)


def test_a_tokenizer_json_goes_first(tmp_path):
    """Guards against an old file read where a newer one stands beside it."""
    raw = tokenizers.Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.save(str(bert(tmp_path) / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).vocab == 2


@pytest.mark.parametrize("kind", ["Unigram", "WordLevel", "WordPiece", "BPE"])
def test_a_tokenizer_json_finds_no_special_token_in_text(tmp_path, kind):
    """Guards against user text that becomes control ids, in models that look special tokens up like words."""
    tokens = ["<unk>", "<s>", "</s>", "[END]", "<", "s", ">", "/", "a", "[", "]", "E", "N", "D"]
    vocab = {token: id for id, token in enumerate(tokens)}
    model = {
        "Unigram": lambda: models.Unigram([(token, 0.0) for token in tokens], 0),
        "WordLevel": lambda: models.WordLevel(vocab, unk_token="<unk>"),
        "WordPiece": lambda: models.WordPiece(vocab, unk_token="<unk>"),
        "BPE": lambda: models.BPE(vocab, [], unk_token="<unk>", ignore_merges=True),
    }[kind]()
    raw = tokenizers.Tokenizer(model)
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.add_special_tokens(["<s>", "</s>", "[END]"])
    raw.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    for text in ("</s>", "a </s> a", "a</s></s>", "<s>[END]", "<<s>>", "[END] a"):
        assert {1, 2, 3}.isdisjoint(ours.encode(text).ids)
    assert ours.encode("a").ids == (8,)
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).hash == ours.hash


BAD = {
    "no [UNK]": (bert, "vocab.txt", b"the\ndog\n", r"vocab.txt: no \[UNK\]"),
    "an empty list": (bert, "vocab.txt", b"", r"vocab.txt: no \[UNK\]"),
    "binary junk": (bert, "vocab.txt", bytes(range(256)) * 9, r"vocab.txt: no \[UNK\]"),
    "no bytes": (gpt2, "vocab.json", b'{"a": 0}', "no token for 255 of the 256 bytes"),
    "no JSON": (gpt2, "vocab.json", b"{", "not readable JSON"),
    "an absurd id": (gpt2, "vocab.json", json.dumps(dict.fromkeys(LETTERS, 2**40)).encode(), "vocab.json: model.vocab"),
    "a merge of three": (gpt2, "merges.txt", b"a b c\n", "merge 0 is"),
    "a merge of strangers": (gpt2, "merges.txt", b"z z\n", "merge 0 has or makes 'zz'"),
    "bytes that are no text": (gpt2, "merges.txt", b"\xff\xfe \xff\n", "merge 0 has or makes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_line(tmp_path, capfd, name):
    """Guards against a traceback, or the library's own words, for a file that is damaged or hostile."""
    make, file, data, said = BAD[name]
    (make(tmp_path) / file).write_bytes(data)
    with pytest.raises(TokenizerError, match=said) as caught:
        Tokenizer.load(tmp_path)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_file_too_large_is_not_read(tmp_path):
    """Guards against a list of words that fills the memory."""
    with (bert(tmp_path) / "vocab.txt").open("wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(TokenizerError, match="200,000,000 bytes; at most 50,000,000"):
        Tokenizer.load(tmp_path)


def test_unknown_families_are_refused(tmp_path):
    """Guards against CLIP's or Qwen's words, cut otherwise than GPT-2's, read as if they were."""
    with pytest.raises(
        TokenizerError, match=r"'Qwen2Tokenizer'; known with these files: bart, gpt2, roberta;.*save_pre"
    ):
        Tokenizer.load(gpt2(tmp_path, tokenizer_class="Qwen2Tokenizer"))
    assert Tokenizer.load(gpt2(tmp_path, tokenizer_class="PreTrainedTokenizerFast")).vocab == 262
