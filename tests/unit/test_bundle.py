"""Model folders: what comes back is what went in, damage is noticed, and a writing cut off is never a mixture."""

from __future__ import annotations

import errno
import json
import os
import struct
from itertools import count

import pytest
import torch
from folders import GPT2, LLAMA, SHARD, UNTIED, build, change, in_time, problems, same, unsigned, write
from safetensors.torch import load_file, save_file

from hanlin import bundle
from hanlin.bundle import INDEX, SINGLE
from hanlin.errors import BundleError, RunError
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


class TestRoundTrip:
    """Written and read."""

    @pytest.mark.parametrize("shard_bytes", [SHARD, bundle.SHARD_BYTES])
    @pytest.mark.parametrize("config", [LLAMA, GPT2, UNTIED], ids=["llama", "gpt2", "gpt2-untied"])
    def test_bitwise(self, tmp_path, config, shard_bytes):
        """A weight, a choice or a token lost or rounded between writing and reading."""
        model = write(tmp_path / "m", config=config, shard_bytes=shard_bytes, task="generate", scores={"loss": 1.5})
        opened = bundle.read(tmp_path / "m")
        assert same(opened.model, model)
        assert opened.model.config.model_copy(update={"extra": {}}) == config
        assert not opened.model.training
        assert opened.tokenizer.hash == byte_level().hash
        assert (opened.card["schema"], opened.card["scores"]) == (1, {"loss": 1.5})
        bundle.write(tmp_path / "again", opened.model, opened.tokenizer, shard_bytes=shard_bytes, scores={"loss": 1.5})
        for path in (tmp_path / "m").iterdir():
            if path.suffix == ".safetensors":
                assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()

    def test_every_file_is_in_the_card(self, tmp_path):
        """A file that no hash protects."""
        write(tmp_path / "m", shard_bytes=SHARD)
        card = json.loads((tmp_path / "m" / "hanlin.json").read_text())
        assert {"hanlin.json", *card["files"]} == {path.name for path in (tmp_path / "m").iterdir()}

    def test_shards_keep_their_size(self, tmp_path):
        """Shards of any size, or empty ones where a tensor is larger than a shard."""
        write(tmp_path / "m", shard_bytes=SHARD)
        shards = [load_file(path) for path in sorted((tmp_path / "m").glob("model-*.safetensors"))]
        assert len(shards) >= 3
        assert all(len(each) == 1 or sum(tensor.nbytes for tensor in each.values()) <= SHARD for each in shards)
        index = json.loads((tmp_path / "m" / INDEX).read_text())
        assert index["metadata"]["total_size"] == sum(tensor.nbytes for each in shards for tensor in each.values())

    @pytest.mark.parametrize(("first", "second"), [(SHARD, bundle.SHARD_BYTES), (bundle.SHARD_BYTES, SHARD)])
    def test_the_last_writing_counts(self, tmp_path, first, second):
        """Weights of the model before, found in the other of the two layouts."""
        write(tmp_path / "m", seed=0, shard_bytes=first)
        (tmp_path / "m" / "metrics.jsonl").write_text("{}")
        model = write(tmp_path / "m", seed=1, shard_bytes=second)
        assert same(bundle.read(tmp_path / "m").model, model)
        assert (tmp_path / "m" / "metrics.jsonl").exists()
        assert (tmp_path / "m" / SINGLE).exists() != (tmp_path / "m" / INDEX).exists()

    def test_half_precision(self, tmp_path):
        """Weights widened or a type promised that they do not have."""
        model = build().to(torch.bfloat16)
        bundle.write(tmp_path / "m", model, byte_level())
        assert same(bundle.read_model(tmp_path / "m", dtype=torch.bfloat16), model)
        assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == "bfloat16"

    def test_special_ids_and_length_reach_other_tools(self, tmp_path):
        """A model that never stops elsewhere, because its end token is not in the files others read."""
        write(tmp_path / "m")
        for name in ("config.json", "generation_config.json"):
            said = json.loads((tmp_path / "m" / name).read_text())
            assert (said["bos_token_id"], said["eos_token_id"], said["pad_token_id"]) == (0, 1, 2)

    def test_others_keys_come_back(self, single):
        """Keys that we do not model dropped, or a class and type that no longer fit kept."""
        change(single / "config.json", pretraining_tp=1, kept=[1, {"a": None}], torch_dtype="float16", dtype="float16")
        change(single / "config.json", architectures=["LlamaForSequenceClassification"])
        opened = bundle.read(single)
        bundle.write(single, opened.model, opened.tokenizer)
        written = json.loads((single / "config.json").read_text())
        assert (written["pretraining_tp"], written["kept"]) == (1, [1, {"a": None}])
        assert (written["dtype"], written["torch_dtype"]) == ("float32", "float32")
        assert written["architectures"] == ["LlamaForCausalLM"]


class TestDamage:
    """Files that are not as they were written."""

    @pytest.mark.parametrize("shard_bytes", [SHARD, bundle.SHARD_BYTES])
    def test_one_flipped_bit_in_each_file(self, tmp_path, shard_bytes):
        """A file without a hash, or a hash that nobody compares."""
        write(tmp_path / "m", shard_bytes=shard_bytes)
        bundle.read(tmp_path / "m")
        for path in sorted((tmp_path / "m").iterdir()):
            whole = path.read_bytes()
            place = len(whole) // 2 if path.name != "hanlin.json" else whole.index(b"config.json") + 25
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            named = path.name if path.name != "hanlin.json" else "config.json"
            assert any(named in line for line in problems(tmp_path / "m")), path.name
            path.write_bytes(whole)
        bundle.read(tmp_path / "m")

    def test_a_missing_file_is_named(self, tmp_path):
        """A folder copied in part."""
        write(tmp_path / "m", shard_bytes=SHARD)
        for path in sorted((tmp_path / "m").iterdir()):
            if path.name == "hanlin.json":
                continue
            path.rename(tmp_path / "elsewhere")
            assert any(path.name in line for line in problems(tmp_path / "m")), path.name
            (tmp_path / "elsewhere").rename(path)

    @pytest.mark.parametrize("keep", [0, 1, 7, 8, 50, -1])
    def test_truncated_weights(self, single, keep):
        """Reading past the end of a file, or a traceback from the reader."""
        whole = (single / SINGLE).read_bytes()
        (single / SINGLE).write_bytes(whole[:keep])
        (line,) = problems(single)
        assert SINGLE in line
        assert "not a safetensors file" in line

    @pytest.mark.parametrize("length", [0, 2, 10**6, 2**31, 2**63, 2**64 - 1])
    def test_header_length(self, single, length):
        """Memory taken, or a crash, on the word of eight bytes."""
        whole = (single / SINGLE).read_bytes()
        (single / SINGLE).write_bytes(struct.pack("<Q", length) + whole[8:])
        assert "not a safetensors file" in problems(single)[0]

    @pytest.mark.parametrize(
        "header",
        [
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
            '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}',
            '{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,12]}}',
            '{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,12]}}',
            '{"a":{"dtype":"F99","shape":[3],"data_offsets":[0,12]}}',
            '{"a":{"dtype":"F32","shape":[3],"data_offsets":[12,0]}}',
            "[" * 5000,
            "\x00\x00",
        ],
        ids=["twice", "overlap", "hole", "overflow", "negative", "type", "backwards", "deep", "zeros"],
    )
    def test_headers_that_lie(self, single, header):
        """A header trusted: tensors on top of each other, sizes that overflow."""
        data = header.encode()
        (single / SINGLE).write_bytes(struct.pack("<Q", len(data)) + data + b"\0" * 12)
        assert problems(single)

    def test_many_entries_take_bounded_work(self, single):
        """Every missing name compared with a hundred thousand others."""
        save_file({f"t{number:06d}": torch.zeros(1) for number in range(20_000)}, single / SINGLE)
        change(single / "config.json", num_hidden_layers=20)
        lines = problems(single)
        assert len(lines) < 100
        assert any("model.embed_tokens.weight: missing tensor" in line for line in lines)
        assert any("19,9" in line for line in lines)  # the rest is counted

    def test_the_card(self, tmp_path):
        """A traceback from a hanlin.json that is JSON but not ours."""
        write(tmp_path / "m")
        whole = json.loads((tmp_path / "m" / "hanlin.json").read_text())
        for keys in ({"schema": 2}, {"schema": None}, {"files": []}, {"files": {"config.json": 3}}, {"heads": [1]}):
            (tmp_path / "m" / "hanlin.json").write_text(json.dumps({**whole, **keys}))
            assert "hanlin.json" in problems(tmp_path / "m")[0], keys
        for heads in ({"sequence": "many"}, {"sequence": -1}, {"sequence": 10**30}, {"unknown": 3}):
            (tmp_path / "m" / "hanlin.json").write_text(json.dumps({**whole, "heads": heads}))
            assert problems(tmp_path / "m"), heads
        for name in ("../secret", "/etc/passwd", "nothing"):
            (tmp_path / "m" / "hanlin.json").write_text(json.dumps({**whole, "files": {name: "00"}}))
            assert "not a file inside" in problems(tmp_path / "m")[0]


class Breaks:
    """Lets the call numbered `at` of the given functions of `os` fail."""

    def __init__(self, monkeypatch, names, at, error):
        self.count = 0
        for name in names:
            monkeypatch.setattr(os, name, self._breaking(getattr(os, name), at, error))

    def _breaking(self, real, at, error):
        def call(*args, **kwargs):
            self.count += 1
            if self.count == at:
                raise error
            return real(*args, **kwargs)

        return call


class Killed(BaseException):
    """The process ends here."""


class TestInterrupted:
    """Replacing a bundle, cut off at every call."""

    @pytest.mark.parametrize("before", ["ours", "anyone's", "sharded"])
    def test_never_a_mixture(self, tmp_path, monkeypatch, before):
        """New settings over old weights, or old and new shards, that open as if they belonged together."""
        other = LLAMA.model_copy(update={"eps": 0.1})  # the same shapes: nothing but the hashes can tell
        for at in count(1):
            folder = tmp_path / str(at)
            old = write(folder, seed=0, shard_bytes=SHARD if before == "sharded" else bundle.SHARD_BYTES)
            if before == "anyone's":
                unsigned(folder)
            new = build(other, seed=1)
            with monkeypatch.context() as patch:
                breaks = Breaks(patch, ("replace", "unlink"), at, Killed())
                finished = True
                try:
                    bundle.write(folder, new, byte_level())
                except Killed:
                    finished = False
            try:
                found = bundle.read(folder).model
            except BundleError as error:
                assert not finished
                assert "hash" in str(error) or "missing" in str(error)  # noqa: PT017
            else:
                whole = (same(found, new) and found.config.eps == 0.1) or (
                    same(found, old) and found.config.eps == 1e-5
                )
                assert whole, at
            bundle.write(folder, new, byte_level())  # the next writing mends it, and leaves nothing behind
            assert same(bundle.read(folder).model, new)
            assert not list(folder.glob(".*"))
            if breaks.count < at:
                break
        assert at > 8

    def test_a_full_disk_is_one_line_and_changes_nothing(self, tmp_path, monkeypatch):
        """Half of a model, or a traceback, where the disk is full."""
        old = write(tmp_path / "m", seed=0)
        files = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
        for number in count(1):
            with monkeypatch.context() as patch:
                full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                breaks = Breaks(patch, ("open", "fsync"), number, full)
                try:
                    bundle.write(tmp_path / "m", build(seed=1), byte_level())
                except RunError as error:
                    assert len(error.problems) == 1  # noqa: PT017
                    assert "no space left on the disk" in str(error)  # noqa: PT017
            if breaks.count < number or same(bundle.read(tmp_path / "m").model, build(seed=1)):
                break
            assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == files
            assert same(bundle.read(tmp_path / "m").model, old)
        assert number > 5

    def test_a_file_too_large_for_the_disk(self, tmp_path):
        """The tensor writer's own errors: not of the system's kind, and so a traceback."""
        resource = pytest.importorskip("resource")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        write(tmp_path / "m", seed=0)
        model = build(seed=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        try:
            with pytest.raises(RunError, match="cannot be written") as caught:
                bundle.write(tmp_path / "m", model, byte_level())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert len(caught.value.problems) == 1
        assert same(bundle.read(tmp_path / "m").model, build(seed=0))
        assert not list((tmp_path / "m").glob(".*"))

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "m").write_text("here")
        for folder in (tmp_path / "m", tmp_path / "m" / "deeper"):
            with pytest.raises(RunError, match="a file stands where a folder is needed"):
                write(folder)
        assert (tmp_path / "m").read_text() == "here"
