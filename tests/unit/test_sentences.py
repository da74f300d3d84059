"""Pooling, its folder layout, and labels: what a model folder says of vectors and heads."""

from __future__ import annotations

import json

import pytest
import torch

from hanlin import bundle
from hanlin.batch import Layout
from hanlin.errors import AbilityError, BundleError
from hanlin.generate.embed import embed, vectors
from hanlin.models import bert, sentences
from hanlin.models.sentences import Pooling
from hanlin.nn.heads import first, pool
from hanlin.text.tokenizer import byte_level

CONFIG = bert.Config(vocab=259, dim=8, layers=1, heads=2, hidden=12, context=24)


def write(path, data):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(data), encoding="utf-8")


class TestPool:
    """From states to a vector."""

    @pytest.mark.parametrize("how", ["cls", "mean", "max"])
    def test_padding_and_side_change_nothing(self, how):
        """Padding in the mean, a maximum over zeros, the first column for the first token."""
        states = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)) - 2
        alone = pool(states, None, how)
        for segments in ([0, 0, 1, 1, 1], [1, 1, 1, 0, 0]):
            wide = torch.full((2, 5, 4), 7.0)
            real = torch.tensor([segments] * 2)
            wide[real.bool()] = states.flatten(0, 1)
            torch.testing.assert_close(pool(wide, Layout.of(real), how), alone)

    def test_values(self):
        """One way taken for another; an empty row that is no number."""
        states = torch.tensor([[[1.0, -4.0], [3.0, -2.0]]])
        assert pool(states, None, "cls").tolist() == first(states, None).tolist() == [[1.0, -4.0]]
        assert pool(states, None, "mean").tolist() == [[2.0, -3.0]]
        assert pool(states, None, "max").tolist() == [[3.0, -2.0]]
        empty = Layout.of(torch.zeros(1, 2, dtype=torch.long))
        assert all(pool(states, empty, how).tolist() == [[0.0, 0.0]] for how in ("cls", "mean", "max"))


class TestLayout:
    """sentence-transformers' files."""

    @pytest.mark.parametrize(
        "pooling",
        [Pooling(), Pooling(how="cls", normalize=False), Pooling(how="max", context=16, lowercase=True)],
        ids=["mean", "cls", "max"],
    )
    def test_both_ways(self, pooling, tmp_path):
        """A key that is written and not read."""
        bundle.write(tmp_path, CONFIG.build(), byte_level(), pooling=pooling)
        opened = bundle.read(tmp_path)
        assert opened.pooling == pooling
        assert opened.task == "similar"
        assert "1_Pooling/config.json" in opened.card["files"]

    def test_what_is_not_implemented_is_named(self, tmp_path):
        """A dense layer or a prompt that is left out silently, and every vector with it."""
        sentences.write(tmp_path, Pooling(), 8)
        pooling = tmp_path / "1_Pooling" / "config.json"
        write(pooling, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True})
        with pytest.raises(BundleError, match="pooling pooling_mode_cls_token, pooling_mode_mean_tokens"):
            sentences.read(tmp_path)
        write(pooling, {"pooling_mode": "lasttoken"})
        with pytest.raises(BundleError, match="pooling lasttoken; one of cls, mean, max"):
            sentences.read(tmp_path)
        write(pooling, {"pooling_mode": "cls"})
        assert sentences.read(tmp_path).how == "cls"
        write(tmp_path / sentences.PROMPTS, {"default_prompt_name": "query"})
        with pytest.raises(BundleError, match="default_prompt_name 'query'"):
            sentences.read(tmp_path)
        modules = json.loads((tmp_path / "modules.json").read_text())
        modules[2]["type"] = "sentence_transformers.models.Dense"
        write(tmp_path / "modules.json", modules)
        with pytest.raises(BundleError, match="Transformer, Pooling, Dense"):
            sentences.read(tmp_path)
        modules[1]["path"] = "../elsewhere"
        write(tmp_path / "modules.json", {"a": modules})
        with pytest.raises(BundleError, match="not a JSON list of modules"):
            sentences.read(tmp_path)

    def test_a_path_that_leads_out_is_refused(self, tmp_path):
        """A file of the machine read as a config."""
        sentences.write(tmp_path / "model", Pooling(normalize=False), 8)
        write(tmp_path / "config.json", {"pooling_mode": "cls"})
        modules = json.loads((tmp_path / "model" / "modules.json").read_text())
        modules[1]["path"] = ".."
        write(tmp_path / "model" / "modules.json", modules)
        with pytest.raises(BundleError, match="not a file inside the folder"):
            sentences.read(tmp_path / "model")


class TestEmbed:
    """Texts as vectors."""

    def test_company_and_order_change_nothing(self):
        """Rows mixed up by sorting, padding in the mean."""
        model = CONFIG.build(seed=1)
        generator = torch.Generator().manual_seed(0)
        rows = [torch.randint(0, 259, (length,), generator=generator).tolist() for length in (1, 24, 7, 0, 7, 3, 20)]
        together = vectors(model, rows, Pooling(), tokens_per_batch=64)
        for row, found in zip(rows, together):
            alone = vectors(model, [row], Pooling())[0]
            torch.testing.assert_close(torch.from_numpy(found), torch.from_numpy(alone), atol=1e-5, rtol=1e-5)
        assert not together[3].any()

    def test_what_is_cut_is_counted(self):
        """Text that is left out without a word."""
        found = embed(CONFIG.build(), byte_level(), ["short", "x" * 40], Pooling(context=16))
        assert found.truncated.tolist() == [0, len(byte_level().encode("x" * 40).ids) - 16]
        assert found.vectors.shape == (2, 8)


class TestLabels:
    """What the outputs of a head are called."""

    def test_both_ways(self, tmp_path):
        """Labels in the order of their names, or lost when a model is written again."""
        labels = ("中性", "bad", "good")
        bundle.write(
            tmp_path,
            CONFIG.build(heads={"sequence": 3}),
            byte_level(),
            labels=labels,
            problem_type="multi_label_classification",
        )
        opened = bundle.read(tmp_path)
        assert opened.labels == labels
        assert opened.task == "classify"
        (tmp_path / "hanlin.json").unlink()  # fine-tuned elsewhere
        opened = bundle.read(tmp_path)
        assert (opened.labels, opened.task, list(opened.model.heads)) == (labels, "classify", ["sequence"])
        bundle.write(tmp_path / "again", opened.model, opened.tokenizer)
        said = json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
        assert said["id2label"] == {"0": "中性", "1": "bad", "2": "good"}
        assert said["label2id"] == {"中性": 0, "bad": 1, "good": 2}
        assert said["problem_type"] == "multi_label_classification"

    def test_more_than_ten_labels_keep_their_order(self, tmp_path):
        """Numbers sorted as words: 0, 1, 10, 2."""
        labels = tuple(f"B-{number}" for number in range(12))
        bundle.write(tmp_path, CONFIG.build(heads={"token": 12}), byte_level(), labels=labels)
        opened = bundle.read(tmp_path)
        assert opened.labels == labels
        assert opened.task == "tag"

    def test_labels_that_do_not_fit(self, tmp_path):
        """A label too many, twice the same, a problem that is none, a head that has none."""
        model = CONFIG.build(heads={"sequence": 2})
        for labels in (("a",), ("a", "a"), ("a", "b", "c")):
            with pytest.raises(BundleError, match="head 'sequence' has 2"):
                bundle.write(tmp_path, model, byte_level(), labels=labels)
        with pytest.raises(BundleError, match="problem_type: 'guess'"):
            bundle.write(tmp_path, model, byte_level(), problem_type="guess")
        with pytest.raises(BundleError, match="no head that they belong to"):
            bundle.write(tmp_path, CONFIG.build(), byte_level(), labels=("a", "b"))

    def test_labels_with_gaps(self, tmp_path):
        """An output without a name."""
        bundle.write(tmp_path, CONFIG.build(heads={"sequence": 2}), byte_level(), labels=("a", "b"))
        (tmp_path / "hanlin.json").unlink()
        said = json.loads((tmp_path / "config.json").read_text())
        write(tmp_path / "config.json", {**said, "id2label": {"0": "a", "2": "b"}})
        with pytest.raises(BundleError, match="2 labels, none of them for 1"):
            bundle.read(tmp_path)

    def test_the_pad_of_roberta_is_not_the_tokenizers(self, tmp_path):
        """Positions that move because a tokenizer pads with another id."""
        model = CONFIG.model_copy(update={"variant": "roberta", "kinds": 1, "pad": 1}).build()
        bundle.write(tmp_path, model, byte_level())
        again = bundle.read_model(tmp_path)
        assert again.config.pad == 1
        assert again.positions.weight.shape == (26, 8)

    def test_what_the_family_cannot_do(self):
        """Kinds dropped silently, a cache for one that reads both ways."""
        x = torch.zeros(1, 3, dtype=torch.long)
        distil = CONFIG.model_copy(update={"variant": "distilbert", "kinds": 0}).build()
        with pytest.raises(AbilityError, match="Bert: takes no kinds"):
            distil(x, kinds=x)
        with pytest.raises(AbilityError, match="has no head 'next_sentence'"):
            CONFIG.model_copy(update={"variant": "distilbert", "kinds": 0}).build(heads={"next_sentence": 2})
