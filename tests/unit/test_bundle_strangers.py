"""Model folders of strangers: nothing hostile, foreign or incomplete passes for a model, and none of it is run."""

from __future__ import annotations

import json
import os
import pickle
import sys
import zipfile

import pytest
import torch
import toys
from folders import GPT2, LLAMA, SHARD, change, fed, in_time, problems, same, unsigned, write
from safetensors.torch import load_file, save_file

from hanlin import bundle
from hanlin.bundle import INDEX, SINGLE
from hanlin.errors import BundleError, ConfigError
from hanlin.text.tokenizer import byte_level


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Do not wait for the disk: no test here pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture(autouse=True)
def never_waits():
    with in_time(20):
        yield


@pytest.fixture
def single(tmp_path):
    """A folder without hashes, in one file."""
    write(tmp_path / "m")
    return unsigned(tmp_path / "m")


@pytest.fixture
def sharded(tmp_path):
    """A folder without hashes, in shards."""
    write(tmp_path / "m", shard_bytes=SHARD)
    return unsigned(tmp_path / "m")


class TestTensors:
    """Whole files with the wrong tensors in them."""

    @pytest.mark.parametrize(
        ("make", "said"),
        [
            (lambda w: w.update({"model.layers.7.mlp.up_proj.weight": torch.ones(2)}), "unknown tensor"),
            (
                lambda w: w.update({"lm_head.weight": torch.ones(301, 16)}),
                "shape [301, 16]; this config needs [300, 16]",
            ),
            (lambda w: w.update({"lm_head.weight": torch.ones(300 * 16)}), "shape [4800]"),
            (lambda w: w.update({"lm_head.weight": torch.ones(())}), "shape []"),
            (lambda w: w.update({"lm_head.weight": torch.ones(300, 16, dtype=torch.int32)}), "torch.int32; expected"),
            (lambda w: w.update({"lm_head.weight": torch.ones(300, 16, dtype=torch.bool)}), "torch.bool; expected"),
            (lambda w: w.update({"lm_head.weight": torch.ones(300, 16).to(torch.float8_e4m3fn)}), "float8_e4m3fn;"),
            (lambda w: w.update({"lm_head.weight": torch.full((300, 16), float("nan"))}), "holds NaN or infinity"),
            (lambda w: w["model.norm.weight"].fill_(float("inf")), "model.norm.weight: holds NaN or infinity"),
            (lambda w: w.pop("model.norm.weight"), "model.norm.weight: missing tensor"),
            (lambda w: w.update({"norm.weight": torch.ones(16)}), "norm.weight: stands there twice"),
        ],
    )
    def test_is_named(self, single, make, said):
        """A tensor broadcast, cast, skipped, or taken from one of two at will."""
        weights = load_file(single / SINGLE)
        make(weights)
        save_file(weights, single / SINGLE)
        lines = problems(single)
        assert len(lines) == 1
        assert said in lines[0]

    def test_all_problems_come_at_once(self, single):
        """One line mended only to meet the next."""
        weights = load_file(single / SINGLE)
        weights["lm_head.weight"] = torch.ones(3)
        weights["more"] = weights.pop("model.norm.weight")
        save_file(weights, single / SINGLE)
        assert len(problems(single)) == 3

    def test_a_repeated_tied_matrix_is_no_problem(self, tmp_path):
        """A tied model refused because its file holds the matrix twice, as many do."""
        model = write(tmp_path / "m", config=GPT2)
        weights = load_file(unsigned(tmp_path / "m") / SINGLE)
        weights["lm_head.weight"] = weights["transformer.wte.weight"].clone()
        save_file(weights, tmp_path / "m" / SINGLE)
        assert same(bundle.read(tmp_path / "m").model, model)

    def test_sizes_the_weights_cannot_have(self, single):
        """Memory taken on the word of config.json, before the weights are looked at."""
        config = json.loads((single / "config.json").read_text())
        for keys in (
            {"vocab_size": 10**12},
            {"vocab_size": 10**400},
            {"hidden_size": 2**40, "head_dim": 6},
            {"hidden_size": 2**62, "head_dim": 6},
            {"intermediate_size": 10**15},
            {"num_hidden_layers": 10**9},
            {"num_attention_heads": 10**12, "head_dim": 4},
        ):
            change(single / "config.json", **{**config, **keys})
            assert "config.json" in problems(single)[0], keys


class TestShards:
    """The index and the files it names."""

    def test_a_missing_shard(self, sharded):
        first = sorted(sharded.glob("model-*.safetensors"))[0]
        first.unlink()
        (line,) = problems(sharded)
        assert f"{first.name}: missing" in line

    @pytest.mark.parametrize("kind", ["../", "absolute", "link", "link to a folder", "pipe", "folder", "long", "half"])
    def test_ways_out_of_the_folder(self, sharded, tmp_path, kind):
        """Weights read from anywhere on the machine, or for ever from a pipe."""
        name = sorted(sharded.glob("model-*.safetensors"))[0].name
        (sharded / name).rename(tmp_path / "outside.safetensors")
        target = {"../": "../outside.safetensors", "absolute": str(tmp_path / "outside.safetensors")}.get(kind, name)
        target = {"long": "a" * 5000, "half": "\ud800", "link to a folder": f"up/{'outside.safetensors'}"}.get(
            kind, target
        )
        if kind == "link":
            (sharded / name).symlink_to(tmp_path / "outside.safetensors")
        elif kind == "link to a folder":
            (sharded / "up").symlink_to(tmp_path)
        elif kind == "pipe":
            os.mkfifo(sharded / name)
        elif kind == "folder":
            (sharded / name).mkdir()
        table = json.loads((sharded / INDEX).read_text())["weight_map"]
        change(sharded / INDEX, weight_map={key: target if value == name else value for key, value in table.items()})
        with fed(sharded / name):
            (line,) = problems(sharded)
        assert "missing, or not a file inside the folder" in line

    def test_pipes_in_place_of_the_other_files(self, sharded):
        """Waiting for ever at config.json, the index or the card."""
        for name in ("config.json", INDEX, "tokenizer.json", "hanlin.json", SINGLE):
            there = sharded / name
            whole = there.read_bytes() if there.exists() else None
            there.unlink(missing_ok=True)
            os.mkfifo(there)
            with fed(there):
                assert any(name in line for line in problems(sharded)), name
            there.unlink()
            if whole is not None:
                there.write_bytes(whole)
        bundle.read(sharded)

    def test_a_tensor_in_two_shards(self, sharded):
        """One of two tensors of the same name taken at will."""
        first, second, *_ = sorted(sharded.glob("model-*.safetensors"))
        weights = load_file(second)
        name, tensor = next(iter(load_file(first).items()))
        save_file({**weights, name: tensor}, second)
        lines = problems(sharded)
        assert any("stands in two files" in line for line in lines)
        assert any("not named by the index" in line for line in lines)

    def test_a_tensor_that_the_index_only_claims(self, sharded):
        """A tensor looked for where it is not."""
        table = json.loads((sharded / INDEX).read_text())["weight_map"]
        change(sharded / INDEX, weight_map={**table, "more": next(iter(table.values()))})
        assert any("more: named by the index, missing here" in line for line in problems(sharded))

    @pytest.mark.parametrize("table", [None, [], "x", {"a": 3}, {"a": None}, {}])
    def test_an_index_that_is_none(self, sharded, table):
        """A traceback from an index of another make."""
        change(sharded / INDEX, weight_map=table)
        assert problems(sharded)


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


class TestStrangers:
    """Folders of others."""

    @pytest.mark.parametrize(
        "name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt", "weights.pkl", SINGLE]
    )
    @pytest.mark.parametrize("make", ["pickle", "torch", "legacy", "zip"])
    def test_pickles_are_never_opened(self, single, tmp_path, name, make):
        """Code run by loading weights."""
        mark = tmp_path / "mark"
        (single / SINGLE).unlink()
        if make == "pickle":
            (single / name).write_bytes(pickle.dumps(Trap(mark)))
        elif make == "zip":
            with zipfile.ZipFile(single / name, "w") as archive:
                archive.writestr("archive/data.pkl", pickle.dumps(Trap(mark)))
        else:
            torch.save({"a": Trap(mark)}, single / name, _use_new_zipfile_serialization=make == "torch")
        (line,) = problems(single)
        assert name in line
        assert "never opened" in line or "not a safetensors file" in line
        assert not mark.exists()

    def test_pickles_named_by_the_index(self, sharded, tmp_path):
        """A pickle that comes in through the index."""
        name = sorted(sharded.glob("model-*.safetensors"))[0].name
        (sharded / name).write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
        assert "not a safetensors file" in problems(sharded)[0]
        assert not (tmp_path / "mark").exists()

    def test_auto_map_is_never_imported(self, single, monkeypatch):
        """Code run because it came with weights."""
        (single / "modeling_evil.py").write_text("raise SystemExit('ran')")
        change(single / "config.json", auto_map={"AutoModelForCausalLM": "modeling_evil.Evil"})
        monkeypatch.syspath_prepend(single)
        (line,) = problems(single)
        assert "config.json: auto_map" in line
        assert "modeling_evil" not in sys.modules

    def test_an_unknown_family_is_told_its_nearest(self, single):
        change(single / "config.json", model_type="lama")
        assert "did you mean 'llama'?" in problems(single)[0]
        for given in (None, 3, [], {"a": 1}, "bert\n\n", "../llama", "contract"):
            change(single / "config.json", model_type=given)
            assert "config.json: model_type" in problems(single)[0]

    def test_a_config_that_is_none(self, single):
        """A traceback from JSON that is deep, huge, or something else."""
        others = ["", "[]", "3", "null", "{", "\ufeff{}", '{"model_type": "\\ud800"}']
        deep = ["[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000]
        family = '{"model_type": "llama", "hidden_size": '
        huge = [f"{family}1e400}}", f"{family}NaN}}", f"{family}1{'0' * 400}}}", f"{family}1{'0' * 5000}}}"]
        for text in [*others, *deep, *huge]:
            (single / "config.json").write_text(text, encoding="utf-8")
            assert "config.json" in problems(single)[0], text[:60]

    def test_no_folder_at_all(self, tmp_path, single):
        write(tmp_path / "story-model")
        assert "story-model'?" in problems(tmp_path / "stroy-model")[0]
        assert "no such model folder" in problems(tmp_path / "far" / "away")[0]
        (tmp_path / "empty").mkdir()
        assert "no config.json" in problems(tmp_path / "empty")[0]
        (single / SINGLE).unlink()
        assert "no weights" in problems(single)[0]
        assert "no such model folder" in problems(single / "config.json")[0]

    def test_a_vocabulary_the_model_has_not(self, tmp_path):
        """Ids that fall off the end of the embedding."""
        small = LLAMA.model_copy(update={"vocab": 100})
        write(tmp_path / "m", config=small)
        assert "259 tokens, the model has 100" in problems(tmp_path / "m")[0]

    def test_no_tokenizer(self, single):
        (single / "tokenizer.json").unlink()
        assert "tokenizer.json" in problems(single)[0]
        assert bundle.read_model(single).config.vocab == 300

    def test_heads(self, tmp_path, monkeypatch):
        """A head lost, or read as one with other outputs."""
        monkeypatch.setattr(bundle, "family", lambda _: toys.EncoderConfig)
        model = toys.EncoderConfig(vocab=300).build(seed=3, heads={"sequence": 3})
        bundle.write(tmp_path / "m", model, byte_level(), task="classify")
        opened = bundle.read(tmp_path / "m")
        assert same(opened.model, model)
        assert json.loads((tmp_path / "m" / "config.json").read_text())["architectures"] == ["ToyForSequence"]
        weights = load_file(tmp_path / "m" / SINGLE)
        save_file({name: each for name, each in weights.items() if "classifier" not in name}, tmp_path / "m" / SINGLE)
        card = json.loads((tmp_path / "m" / "hanlin.json").read_text())
        (tmp_path / "m" / "hanlin.json").write_text(json.dumps({**card, "files": {}}))
        assert "no weights for the head 'sequence'" in problems(tmp_path / "m")[0]


def test_a_problem_of_reading_is_a_bundle_or_config_error(single):
    """Errors that callers cannot tell apart from a failing run."""
    change(single / "config.json", model_type="nothing")
    with pytest.raises((BundleError, ConfigError)):
        bundle.read(single)
