"""Fine-tuned folders from elsewhere answer here as transformers' pipelines do, with nothing said but the folder."""

from __future__ import annotations

import io
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import numpy as np
import pytest
import soundfile
import torch

import hanlin
from hanlin import bundle
from hanlin.errors import BundleError
from hanlin.models import begins
from hanlin.tasks import transcribe
from hanlin.text.tokenizer import byte_level, train_wordpiece

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")
GenerationMixin = transformers.GenerationMixin

TEXTS = ["Ada met 李白 in London .", "the model learns", "翰林院在长安", "a", "one two three four five six seven"]
CLASSES = {
    "classify": "BertForSequenceClassification",
    "tag": "BertForTokenClassification",
    "answer": "BertForQuestionAnswering",
}


def folder(path, kind, **config):
    """Write a folder as transformers does, every parameter random."""
    torch.manual_seed(0)
    tokenizer = train_wordpiece(TEXTS * 3, 200)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    made = transformers.BertConfig(vocab_size=tokenizer.vocab, max_position_embeddings=64, **sizes, **config)
    model = getattr(transformers, CLASSES[kind])(made).eval()
    for each in model.parameters():
        torch.nn.init.normal_(each, std=0.3)
    model.save_pretrained(path)
    tokenizer.save(path)
    return str(path)


def pipeline(task, path, **more):
    return transformers.pipeline(task, model=path, tokenizer=path, device="cpu", **more)


@pytest.mark.parametrize("problem", [None, "single_label_classification", "multi_label_classification"])
def test_classes(tmp_path, problem):
    """Labels in another order, a softmax where each label stands for itself."""
    labels = {0: "joy", 1: "anger", 2: "悲"}
    path = folder(tmp_path, "classify", id2label=labels, problem_type=problem)
    found = hanlin.load(path, device="cpu").predict(TEXTS)
    for ours, wanted in zip(found, pipeline("text-classification", path, top_k=None)(TEXTS)):
        assert ours.probabilities == pytest.approx({each["label"]: each["score"] for each in wanted}, abs=1e-5)
        if problem == "multi_label_classification":
            assert ours.label == tuple(sorted(each["label"] for each in wanted if each["score"] > 0.5))
        else:
            assert ours.label == wanted[0]["label"]


def test_a_rating(tmp_path):
    """One score taken for one class, of which everything is certain."""
    path = folder(tmp_path, "classify", num_labels=1)
    found = hanlin.load(path, device="cpu").predict(TEXTS)
    wanted = pipeline("text-classification", path, function_to_apply="none")(TEXTS)
    assert [each.label for each in found] == pytest.approx([each["score"] for each in wanted], abs=1e-4)


def test_words(tmp_path):
    """Tags in another order; names that the labels do not have."""
    labels = {0: "B-PER", 1: "I-PER", 2: "O", 3: "B-LOC", 4: "I-LOC"}
    path = folder(tmp_path, "tag", id2label=labels)
    found = hanlin.load(path, device="cpu").predict(TEXTS)
    theirs = pipeline("token-classification", path, ignore_labels=[])
    for text, ours in zip(TEXTS, found):
        first = {each["start"]: each["entity"] for each in reversed(theirs(text))}  # of a word's pieces the first
        assert ours.tags == tuple(first[start] for start, _ in ours.words)


def test_answers(tmp_path):
    """Ends taken for beginnings."""
    path = folder(tmp_path, "answer")
    row = {"question": "the model ?", "context": "Ada met 李白 in London . the model learns one two three"}
    ours = hanlin.load(path, device="cpu").predict([row])[0]
    read = transformers.AutoTokenizer.from_pretrained(path)(
        row["question"], row["context"], return_tensors="pt", return_offsets_mapping=True
    )
    places = read.pop("offset_mapping")[0].tolist()
    kinds = [0, *(each or 0 for each in read.sequence_ids(0)[1:-1]), 1]  # its second [SEP] is the passage's
    read["token_type_ids"] = torch.tensor([kinds])
    with torch.inference_mode():
        scores = transformers.BertForQuestionAnswering.from_pretrained(path).eval()(**read)
    inside = [at for at, kind in enumerate(kinds[:-1]) if kind]
    start, end = max(
        ((first, last) for first in inside for last in inside if last >= first),
        key=lambda pair: float(scores.start_logits[0, pair[0]] + scores.end_logits[0, pair[1]]),
    )
    assert (ours.start, ours.end) == (places[start][0], places[end][1])
    assert ours.answer == row["context"][ours.start : ours.end]


def test_no_task(tmp_path):
    """A decoder asked for labels."""
    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    train_wordpiece(TEXTS, 60).save(tmp_path)
    with pytest.raises(BundleError, match="made for no task"):
        hanlin.load(str(tmp_path), device="cpu").predict(["a"])


def test_a_whisper_hears(tmp_path):
    """A checkpoint that nobody says the use of; tokens written that it was told never to write, or never first."""
    torch.manual_seed(0)
    tokenizer = byte_level()
    made = transformers.WhisperConfig(
        vocab_size=tokenizer.vocab, d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_source_positions=50, num_mel_bins=80,
        max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(made).eval()
    for each in model.parameters():
        torch.nn.init.normal_(each, std=0.3)
    sound = np.random.default_rng(0).normal(0, 0.1, 14_000).astype(np.float32)
    features = transformers.WhisperFeatureExtractor(chunk_length=1)
    read = features(sound, sampling_rate=16_000, return_tensors="pt").input_features
    say = {"decoder_input_ids": torch.tensor([[1]]), "do_sample": False, "max_new_tokens": 12, "eos_token_id": 2}
    model.generation_config = transformers.GenerationConfig(decoder_start_token_id=1, eos_token_id=2, pad_token_id=0)
    free = GenerationMixin.generate(model, input_features=read, **say)[0, 1:].tolist()
    never, first = sorted({*free[1:6]} - {free[0], 2}), [free[0], 2]
    kept = GenerationMixin.generate(
        model, input_features=read, suppress_tokens=never, begin_suppress_tokens=first, **say
    )[0, 1:].tolist()
    assert kept[0] != free[0]
    assert not {*kept} & {*never}
    model.generation_config.update(suppress_tokens=never, begin_suppress_tokens=first)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    opened = hanlin.load(str(tmp_path), device="cpu")
    assert opened.bundle.task == "transcribe"
    task = transcribe.Config(gate=False, limit=12)
    assert [each.text for each in opened.predict([{"audio": wav(sound)}], task=task)] == [said(tokenizer, kept)]
    odd = {"suppress_tokens": 5, "begin_suppress_tokens": [-1, 10**6, "a"], "bad_words_ids": [7, [8], [9, 9]]}
    assert begins.withheld(odd, made.vocab_size) == {"never": (8,), "never_first": ()}
    again = tmp_path / "again"
    bundle.write(again, opened.module, tokenizer)
    assert bundle.read_model(again).config.never == tuple(never)
    assert [each.text for each in hanlin.load(str(again)).predict([{"audio": wav(sound)}], task=task)] == [
        said(tokenizer, kept)
    ]


def said(tokenizer, ids):
    return tokenizer.decode([each for each in ids if each != 2]).strip()


def wav(samples):
    """Return a file of sound, in fp32."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    return file.getvalue()
