"""Fine-tuned folders from elsewhere answer here as transformers' pipelines do, with nothing said but the folder."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import pytest
import torch

import hanlin
from hanlin.errors import BundleError
from hanlin.text.tokenizer import train_wordpiece

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
transformers = pytest.importorskip("transformers")

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
