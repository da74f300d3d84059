"""Marian's two SentencePiece models and one vocabulary: texts cut as the source's, ids of both languages."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from hanlin.errors import TokenizerError
from hanlin.text.tokenizer import Special, Tokenizer

EN = ["the dog sits in the sun.", "a dog and the cat", "the dogs run (fast) in the sun"] * 40
DE = ["der Hund sitzt in der Sonne.", "ein Hund und die Katze", "die Mädchen laufen über Brücken"] * 40


def trained(lines: list[str], path: Path, **options: object) -> list[str]:
    """Write a model of the sentencepiece library; return its pieces."""
    library = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=made,
        minloglevel=2,
        num_threads=1,
        vocab_size=90,
        hard_vocab_limit=False,
        **options,
    )
    path.write_bytes(made.getvalue())
    known = library.SentencePieceProcessor(model_proto=made.getvalue())
    return [known.IdToPiece(id) for id in range(known.GetPieceSize())]


@pytest.fixture
def folder(tmp_path):
    """Return a folder as transformers saves one: the vocabulary is in no model's order, <pad> is last."""
    pieces = {*trained(EN, tmp_path / "source.spm"), *trained(DE, tmp_path / "target.spm")} - {"<unk>", "<s>", "</s>"}
    ordered = ["</s>", "<unk>", *sorted(pieces), ">>deu<<", ">>fra<<", "<pad>"]
    (tmp_path / "vocab.json").write_text(json.dumps({piece: id for id, piece in enumerate(ordered)}), encoding="utf-8")
    told = {"tokenizer_class": "MarianTokenizer", "source_lang": "eng", "target_lang": "deu"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))
    return tmp_path


def test_ids_are_transformers(folder):
    """Guards against ids of the model in place of the vocabulary's, and a source cut into the target's pieces."""
    with pytest.warns(UserWarning, match="sacremoses"):  # it would change punctuation, and is not here
        theirs = pytest.importorskip("transformers").MarianTokenizer.from_pretrained(folder)
    ours = Tokenizer.load(folder)
    texts = [*EN[:3], *DE[:2], "", " two  dogs ", "a 翰 dog", ">>deu<< the dog", ">>fra<<the cat", "Der Hund"]
    for text in texts:
        assert list(ours.encode(text).ids) == theirs(text)["input_ids"], text
    for text in DE[:3]:
        ids = theirs(text_target=text)["input_ids"]
        assert ours.decode(ids[:-1]) == text == theirs.decode(ids, skip_special_tokens=True)
    assert ours.special == Special(eos=0, unk=1, pad=len(theirs.encoder) - 1)
    assert ours.vocab == len(theirs.encoder)


def test_what_the_target_alone_has_is_not_found_in_a_text(folder):
    """Guards against a word that means something else in the other language, and against its mark in answers."""
    ours = Tokenizer.load(folder)
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    words = [piece for piece in vocab if len(piece) > 3 and piece[0] == "▁"]
    english = next(word for word in words if ours.id(word) is not None)
    german = next(word for word in words if ours.id(word) is None)
    assert vocab[english] in ours.encode(english[1:]).ids
    for text in (german[1:], "\ue000" + german, f"a {german[1:]}"):
        assert vocab[german] not in ours.encode(text).ids
    assert ours.decode([vocab[german]]) == german[1:]
    assert ours.decode([vocab[english], vocab[german]]) == f"{english[1:]} {german[1:]}"


def test_it_is_the_same_when_saved(folder, tmp_path):
    ours = Tokenizer.load(folder)
    ours.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    for text in (*EN[:3], *DE[:3], ">>deu<< the dog"):
        assert again.encode(text) == ours.encode(text)
        assert again.decode(again.encode(text).ids) == ours.decode(ours.encode(text).ids)
    assert again.special == ours.special


def changed(folder: Path, **ids: object) -> None:
    """Change ids of the vocabulary; None takes one out."""
    path = folder / "vocab.json"
    vocab = {**json.loads(path.read_text(encoding="utf-8")), **ids}
    path.write_text(json.dumps({piece: id for piece, id in vocab.items() if id is not None}), encoding="utf-8")


HOSTILE = {
    "doubled": (lambda at: changed(at, **{"▁": 0}), "ids that are doubled or left out"),
    "a hole": (lambda at: changed(at, **{">>deu<<": None}), "ids that are doubled or left out"),
    "no number": (lambda at: changed(at, **{"▁": "3"}), "ids that are doubled or left out"),
    "no end": (lambda at: changed(at, **{"</s>": None, "x": 0}), "no </s>"),
    "empty": (lambda at: (at / "vocab.json").write_text("{}"), "no </s>"),
    "a list": (lambda at: (at / "vocab.json").write_text("[]"), "vocab.json"),
    "BPE": (lambda at: trained(EN, at / "source.spm", model_type="bpe"), "1 (unigram)"),
    "cut": (lambda at: (at / "source.spm").write_bytes((at / "source.spm").read_bytes()[:-7]), "source.spm"),
    "two vocabularies": (
        lambda at: (at / "tokenizer_config.json").write_text('{"separate_vocabs": true}'),
        "one vocabulary of both languages",
    ),
    "another family": (lambda at: (at / "tokenizer_config.json").write_text('{"tokenizer_class": "M2M100"}'), "marian"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_bad_files_are_lines(folder, name):
    spoil, expected = HOSTILE[name]
    spoil(folder)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.load(folder)
    assert any(expected in line for line in caught.value.problems), caught.value.problems
    assert all("\n" not in line and len(line) < 500 for line in caught.value.problems)
