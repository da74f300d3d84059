"""BERT, RoBERTa, XLM-R and DistilBERT are transformers': logits, gradients and folders of each head, both ways.

    theirs, every parameter random ── save_pretrained ──> folder ── bundle.read_model ──> ours     (TestTheirsInOurs)
    ours, every parameter random ───── bundle.write ────> folder ── from_pretrained ────> theirs   (TestOursInTheirs)

Sizes are tiny and uneven, norm eps is large where a file can say it, so that no term can go missing unnoticed.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from hanlin import bundle
from hanlin.batch import Layout
from hanlin.errors import BundleError, ConfigError
from hanlin.models import bert
from hanlin.models.weights import entries
from hanlin.text.tokenizer import byte_level

pytestmark = pytest.mark.parity

CLOSE = {"atol": 2e-5, "rtol": 2e-5}  # the issue asks for 1e-4
VOCAB, PAD = 300, 1
BERT = {
    "vocab_size": VOCAB,
    "hidden_size": 20,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
    "layer_norm_eps": 0.02,
}
DISTIL = {"vocab_size": VOCAB, "dim": 20, "hidden_dim": 36, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 40}
NAMES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert"}
CONFIGS = {
    "bert": {**BERT, "type_vocab_size": 3, "hidden_act": "gelu_new"},
    "roberta": {**BERT, "type_vocab_size": 1, "pad_token_id": PAD},
    "xlm-roberta": {**BERT, "type_vocab_size": 1, "pad_token_id": PAD, "hidden_act": "relu"},
    "distilbert": DISTIL,
}
CLASSES = {
    (): "Model",
    ("sequence",): "ForSequenceClassification",
    ("token",): "ForTokenClassification",
    ("span",): "ForQuestionAnswering",
    ("masked",): "ForMaskedLM",
    ("next_sentence",): "ForNextSentencePrediction",
    ("masked", "next_sentence"): "ForPreTraining",
}
CASES = [
    (variant, heads) for variant in NAMES for heads in CLASSES if variant == "bert" or "next_sentence" not in heads
]
OUTPUTS = {"sequence": 3, "token": 5, "span": 2, "masked": VOCAB, "next_sentence": 2}
IDS = [f"{variant}-{'-'.join(heads) or 'bare'}" for variant, heads in CASES]


def random_weights(model, seed=0):
    """Fill every parameter, norms and biases too, so that one forgotten or swapped shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in model.named_parameters():
            wide = 0.5 if each.ndim == 1 else 0.25
            each.copy_(torch.randn(each.shape, generator=generator) * wide + ("norm" in name.lower()))
    return model.eval()


def theirs(variant, heads, **more):
    """Return transformers' model of the case."""
    config = getattr(transformers, f"{NAMES[variant]}Config")(**CONFIGS[variant], **more)
    labels = max((OUTPUTS[name] for name in heads if name in ("sequence", "token")), default=2)
    config.num_labels = labels
    return random_weights(getattr(transformers, f"{NAMES[variant]}{CLASSES[heads]}")(config))


def tokens(rows, length, seed=0):
    """Return ids above those of padding, from which RoBERTa would count otherwise."""
    return torch.randint(2, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def scores(model, x, layout=None, kinds=None):
    """Return our scores by head; hidden states where there is none."""
    hidden = model(x, layout=layout, kinds=kinds)
    if not model.heads:
        return {"hidden": hidden}
    return {
        name: model.logits(hidden) if name == "masked" else head(hidden, layout) for name, head in model.heads.items()
    }


def their_scores(model, heads, x, **given):
    """Return the same of theirs."""
    out = model(x, **given)
    if not heads:
        return {"hidden": out.last_hidden_state}
    if heads == ("span",):
        return {"span": torch.stack((out.start_logits, out.end_logits), -1)}
    if len(heads) == 2:
        return {"masked": out.prediction_logits, "next_sentence": out.seq_relationship_logits}
    return {heads[0]: out.logits}


def two_kinds(variant, x):
    """Return kinds for those who know them."""
    return (torch.arange(x.shape[1]) >= 4).long().expand(x.shape) if variant == "bert" else None


def ragged(lengths, side):
    """Return padded tokens and the mask (1 = token) of rows of different length."""
    longest = max(lengths)
    x, mask = tokens(len(lengths), longest), torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, n in enumerate(lengths):
        mask[row, longest - n :] = 1 if side == "left" else 0
        if side == "right":
            mask[row, :n] = 1
    return torch.where(mask.bool(), x, PAD), mask


def same(found, expected, real=None):
    """Compare scores by head, those of tokens where there are any."""
    assert found.keys() == expected.keys()
    for name, each in expected.items():
        one, other = found[name], each
        if real is not None and other.ndim == 3:
            one, other = one[real], other[real]
        torch.testing.assert_close(one, other, **CLOSE)


@pytest.fixture(params=CASES, ids=IDS)
def case(request, tmp_path):
    """Return the variant, its heads, transformers' model and ours, opened from the folder that it saved."""
    variant, heads = request.param
    model = theirs(variant, heads)
    model.save_pretrained(tmp_path)
    return variant, heads, model, bundle.read_model(tmp_path)


class TestTheirsInOurs:
    """What transformers saved, computed by us."""

    def test_scores(self, case):
        """Norms swapped or moved, another activation, positions off by the pad, a pooler left out."""
        variant, heads, model, ours = case
        assert set(ours.heads) == set(heads)
        for length in (1, 7, 33):
            x = tokens(3, length)
            kinds = two_kinds(variant, x)
            given = {} if kinds is None else {"token_type_ids": kinds}
            with torch.no_grad():
                same(scores(ours, x, kinds=kinds), their_scores(model, heads, x, **given))

    def test_rows_of_different_length(self, case):
        """Padding that is attended to; the first column taken for the first token."""
        _, heads, model, ours = case
        x, mask = ragged((13, 5, 1), "right")
        with torch.no_grad():
            same(scores(ours, x, Layout.of(mask)), their_scores(model, heads, x, attention_mask=mask), mask.bool())
            moved, left = ragged((13, 5, 1), "left")
            moved[left.bool()] = x[mask.bool()]
            right, other = scores(ours, x, Layout.of(mask)), scores(ours, moved, Layout.of(left))
            for name, each in right.items():
                one, two = (each[mask.bool()], other[name][left.bool()]) if each.ndim == 3 else (each, other[name])
                torch.testing.assert_close(one, two, **CLOSE)

    def test_gradients_of_every_parameter(self, case):
        """A part detached or scaled, a tied matrix that learns from one side only."""
        _, heads, model, ours = case
        model.double()  # a key's bias has no gradient: in fp32 it is noise, and other noise on other processors
        ours.double()
        x = tokens(3, 11)
        for found in (scores(ours, x), their_scores(model, heads, x)):
            sum(
                (each * torch.linspace(-1, 1, each.numel()).reshape(each.shape)).sum() for each in found.values()
            ).backward()
        mine = dict(ours.named_parameters())
        expected = dict(model.named_parameters(remove_duplicate=False))
        prefix = ours.config.tables.prefix
        seen: set[int] = set()
        for entry in entries(ours):
            name = entry.theirs if entry.theirs in expected else entry.theirs.removeprefix(prefix)
            grad, wanted = mine[entry.ours[0]].grad, expected[name].grad
            seen.add(id(expected[name]))
            assert (grad is None) == (wanted is None)
            if wanted is not None:
                scale = max(1.0, float(wanted.abs().max()))
                torch.testing.assert_close(grad / scale, wanted / scale, **CLOSE, msg=lambda t, n=name: f"{n}: {t}")
        left_out = {name for name, each in expected.items() if id(each) not in seen}
        assert all("pooler" in name for name in left_out)  # a bare model's, which nothing here reads


def ours(variant, heads, **more):
    """Return our model of the case, every parameter random."""
    config = bert.Config.from_hf({**CONFIGS[variant], "model_type": variant, **more})
    return random_weights(config.build(heads={name: OUTPUTS[name] for name in heads}))


@pytest.mark.parametrize(("variant", "heads"), CASES, ids=IDS)
class TestOursInTheirs:
    """What we wrote, computed by transformers."""

    def test_scores_and_names(self, variant, heads, tmp_path):
        """Names or keys that only we understand, a head written under another class."""
        model = ours(variant, heads)
        names = [f"label {number}" for number in range(5)]
        labels = {"sequence": names[:3], "token": names}.get(heads[0]) if heads else None
        bundle.write(tmp_path, model, byte_level(), labels=labels)
        kind = getattr(transformers, f"{NAMES[variant]}{CLASSES[heads]}")
        other, info = kind.from_pretrained(tmp_path, output_loading_info=True)
        assert all("pooler" in name for name in info["missing_keys"])
        assert not info["unexpected_keys"]
        x = tokens(2, 9)
        with torch.no_grad():
            same(scores(model, x), their_scores(other.eval(), heads, x))
        assert other.config.architectures == [kind.__name__]
        if labels:
            assert [other.config.id2label[at] for at in range(len(labels))] == labels
            assert other.config.num_labels == len(labels)
        again = bundle.read(tmp_path)
        assert set(again.model.heads) == set(heads)
        assert again.labels == tuple(labels or ())
        for (name, one), (_, two) in zip(model.named_parameters(), again.model.named_parameters()):
            assert torch.equal(one, two), name


def test_an_untied_masked_head_is_refused(tmp_path):
    """A decoder of its own taken for the embedding."""
    theirs("bert", ("masked",), tie_word_embeddings=False).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="tie_word_embeddings: False is not implemented"):
        bundle.read_model(tmp_path)


class TestFoldersOfOthers:
    """What stands in real folders."""

    def test_names_of_the_first_files(self, tmp_path):
        """BERT's own files, which say gamma and beta, hold both pre-training heads and a position table of integers."""
        model = theirs("bert", ("masked", "next_sentence"))
        model.save_pretrained(tmp_path)
        tensors = load_file(tmp_path / "model.safetensors")
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {}
        for name, each in tensors.items():
            tail = ".".join(name.split(".")[-2:])
            renamed[name.replace(tail, old.get(tail, tail))] = each
        renamed["bert.embeddings.position_ids"] = torch.arange(40)[None]
        save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
        x = tokens(2, 5)
        with torch.no_grad():
            same(scores(bundle.read_model(tmp_path), x), their_scores(model, ("masked", "next_sentence"), x))
            bare = bundle.read_model(tmp_path, heads={})
        assert not bare.heads

    def test_a_pooler_serves_a_fresh_head_and_a_classifier_does_not(self, tmp_path):
        """A classifier of tokens that becomes one of rows because its name is the same."""
        theirs("bert", ("token",)).save_pretrained(tmp_path / "token")
        fresh = bundle.read_model(tmp_path / "token", heads={"sequence": 5}, fresh=3)
        assert fresh.heads["sequence"].out.bias.abs().sum() == 0
        model = theirs("bert", ("masked", "next_sentence"))
        model.save_pretrained(tmp_path / "both")
        taken = bundle.read_model(tmp_path / "both", heads={"sequence": 5}, fresh=3)
        assert torch.equal(taken.heads["sequence"].dense.weight, model.bert.pooler.dense.weight)

    def test_a_head_for_other_labels_is_one_line(self, tmp_path):
        """Shapes of matrices in place of what a person did."""
        theirs("roberta", ("sequence",)).save_pretrained(tmp_path)
        with pytest.raises(BundleError) as caught:
            bundle.read_model(tmp_path, heads={"sequence": 4}, fresh=0)
        assert len(caught.value.problems) == 1
        assert "the head 'sequence' has 3 outputs; 4 are needed" in str(caught.value)

    def test_unknown_tensors_are_named(self, tmp_path):
        """A head of a class that we do not know, dropped without a word."""
        config = transformers.BertConfig(**CONFIGS["bert"])
        transformers.BertForMultipleChoice(config).save_pretrained(tmp_path)
        with pytest.raises(BundleError, match=r"classifier\.weight: unknown tensor"):
            bundle.read_model(tmp_path)
