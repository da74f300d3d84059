"""Shards: what is written is read, what is damaged is refused, and a failure leaves nothing behind."""

import hashlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from hanlin import files
from hanlin.data import shards
from hanlin.data.shards import Entry, Manifest
from hanlin.errors import DataError, RunError

TEXTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [], [10, 11], [12]]


def entries() -> Iterator[Entry]:
    """Yield two splits, mixed."""
    for number, ids in enumerate(TEXTS):
        yield Entry("train", ids, 100 + number, f"源/{number}.txt")
        if number < 2:
            yield Entry("valid", ids[::-1], 200 + number, f"v{number}")


def write(folder: Path, vocab: int = 300, **options) -> Manifest:
    return shards.write(folder, entries(), vocab=vocab, tokenizer_hash="t", **({"shard_tokens": 4} | options))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write(tmp_path / "data")
    return tmp_path / "data"


def refused(*words: str, folder: Path, split: str = "train", problems: int = 1, **options) -> None:
    with pytest.raises(DataError) as caught:
        shards.open(folder, split, **options)
    assert len(caught.value.problems) == problems, caught.value
    for each in words:
        assert each in str(caught.value)


def change(folder: Path, edit: Callable[[dict], object]) -> None:
    """Edit the manifest."""
    path = folder / "manifest.json"
    plain = json.loads(path.read_text())
    edit(plain)
    path.write_text(json.dumps(plain))


def forge(folder: Path, data: bytes) -> None:
    """Replace the first shard, and its hash with it."""
    (folder / "train-00000.safetensors").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    change(folder, lambda plain: plain["splits"]["train"]["shards"][0].update(sha256=sha256))


@pytest.mark.parametrize(("vocab", "dtype"), [(65_536, np.uint16), (65_537, np.uint32)])
@pytest.mark.parametrize("shard_tokens", [1, 4, 5, 1000])
def test_what_is_written_is_read(tmp_path: Path, vocab: int, dtype: type, shard_tokens: int) -> None:
    """Guards against ids of the wrong width, documents cut at a file's end, and lost, swapped or foreign rows."""
    write(tmp_path / "data", vocab=vocab, shard_tokens=shard_tokens)
    read = shards.open(tmp_path / "data", "train", vocab=vocab)
    assert [read.document(index).tolist() for index in range(read.documents)] == TEXTS
    assert {part.dtype for part in read.tokens} == {np.dtype(dtype)}
    assert read.lengths.tolist() == [len(ids) for ids in TEXTS]
    assert read.sizes.tolist() == [100 + number for number in range(6)]
    assert read.starts.tolist() == [0, 3, 4, 9, 9, 11, 12]
    assert (read.total, read.documents) == (12, 6)
    assert read.sources() == [f"源/{number}.txt" for number in range(6)]
    assert np.array_equal(read.take(np.arange(12).reshape(3, 4)), np.arange(1, 13).reshape(3, 4))
    assert shards.open(tmp_path / "data", "valid").document(1).tolist() == [4]
    with pytest.raises(IndexError):
        read.document(6)


def test_ids_stay_on_disk(data: Path) -> None:
    """Guards against reading a corpus into memory: each array is a view of a map of its file."""
    part = shards.open(data, "train").tokens[0]
    assert isinstance(part.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        part[0] = 1


def test_others_can_read_it(data: Path) -> None:
    """Guards against a file that only we can read."""
    loaded = load_file(data / "train-00000.safetensors")
    assert loaded["tokens"].tolist() == [1, 2, 3, 4]
    assert loaded["lengths"].tolist() == [3, 1]


def test_manifest(tmp_path: Path) -> None:
    """Guards against counts that are not true, and a report that is asked before the documents have passed."""
    passed = []

    def counted() -> Iterator[Entry]:
        for entry in entries():
            passed.append(entry)
            yield entry

    def also(folder: Path, _: object) -> None:
        (folder / "tokenizer.json").write_text("{}")

    manifest = shards.write(
        tmp_path / "data",
        counted(),
        vocab=300,
        tokenizer_hash="t",
        report=lambda: {"read": len(passed), "例": "\udcff"},
        also=also,
    )
    plain = json.loads((tmp_path / "data" / "manifest.json").read_text(encoding="utf-8"))
    assert plain["schema"] == 1
    assert plain["report"] == {"read": 8, "例": "\udcff"}
    assert plain["splits"]["train"]["bytes"] == sum(range(100, 106))
    assert plain["splits"]["train"]["shards"][0]["sha256"] in {
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "data").iterdir()
    }
    assert set(plain["files"]) == {"sources-train.jsonl.zst", "sources-valid.jsonl.zst", "tokenizer.json"}
    assert manifest.names == {path.name for path in (tmp_path / "data").iterdir()}
    assert shards.open(tmp_path / "data", "train").manifest == manifest


def test_hash(tmp_path: Path) -> None:
    """Guards against a hash that misses a changed token or tokenizer, or that changes with the report."""
    one = write(tmp_path / "a")
    assert one.hash == write(tmp_path / "b", report=lambda: {"seconds": 3}).hash
    assert one.hash == shards.open(tmp_path / "a", "train").manifest.hash
    changed = [Entry("train", [1, 2, 4], 100, "s")]
    assert one.hash != shards.write(tmp_path / "c", changed, vocab=300, tokenizer_hash="t").hash
    other = shards.write(tmp_path / "d", entries(), vocab=300, tokenizer_hash="u", shard_tokens=4)
    assert one.hash != other.hash


def test_same_documents_same_bytes(tmp_path: Path) -> None:
    """Guards against a clock or an address in the files."""
    write(tmp_path / "a")
    write(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize("ids", [[300], [1, -1], [2**40]])
def test_id_beyond_the_vocab(tmp_path: Path, ids: list[int]) -> None:
    """Guards against an id that wraps around and becomes another token."""
    with pytest.raises(DataError, match=r"a.txt: token ids from .* the vocab has 0 to 299"):
        shards.write(tmp_path / "data", [Entry("train", ids, 1, "a.txt")], vocab=300, tokenizer_hash="t")
    assert not list(tmp_path.iterdir())


def test_nothing_to_write(tmp_path: Path) -> None:
    """Guards against a folder of no documents."""
    with pytest.raises(DataError, match="no documents"):
        shards.write(tmp_path / "data", [], vocab=300, tokenizer_hash="t")
    assert not list(tmp_path.iterdir())


def test_failure_keeps_what_was_there(data: Path) -> None:
    """Guards against half a folder, and against losing the good one to an attempt that fails."""
    before = {path.name: path.read_bytes() for path in data.iterdir()}

    def broken() -> Iterator[Entry]:
        yield from entries()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shards.write(data, broken(), vocab=300, tokenizer_hash="t", shard_tokens=1)
    assert {path.name: path.read_bytes() for path in data.iterdir()} == before
    assert list(data.parent.iterdir()) == [data]


def test_full_disk(tmp_path: Path) -> None:
    """Guards against a traceback and leftovers when a write fails half-way: here a file may hold 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = [Entry("train", [1] * 10, 10, "small"), Entry("train", [1] * 9000, 10, "big")]
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(RunError, match="data: cannot be written: File too large"):
            shards.write(tmp_path / "data", big, vocab=300, tokenizer_hash="t", shard_tokens=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_killed(tmp_path: Path) -> None:
    """Guards against a killed run that leaves something under the target's name, and leftovers that stay for ever."""
    program = f"""
import os, pathlib, signal
from hanlin import files
from hanlin.data import shards
def entries():
    for number in range(5):
        yield shards.Entry("train", [number] * 9, 9, "s")
    os.kill(os.getpid(), signal.SIGKILL)
shards.write(pathlib.Path({str(tmp_path / "data")!r}), entries(), vocab=9, tokenizer_hash="t", shard_tokens=9)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    refused("no manifest.json", folder=tmp_path / "data")
    write(tmp_path / "data")
    assert left.exists(), "another run may be at work there"
    two_days_ago = time.time() - 2 * 86_400
    os.utime(left, (two_days_ago, two_days_ago))
    write(tmp_path / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_killed_between_two_renames(data: Path) -> None:
    """Guards against losing the earlier folder in the one instant in which nothing has its name."""
    data.rename(data.with_name(f"{files.OLD}data"))

    def broken() -> Iterator[Entry]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        shards.write(data, broken(), vocab=300, tokenizer_hash="t")
    assert shards.open(data, "train").total == 12


def test_replaced(data: Path) -> None:
    """Guards against files of an earlier run among those of a later one."""
    shards.write(data, [Entry("train", [7], 1, "s")], vocab=9, tokenizer_hash="t")
    assert sorted(path.name for path in data.iterdir()) == [
        "manifest.json",
        "sources-train.jsonl.zst",
        "train-00000.safetensors",
    ]
    assert list(data.parent.iterdir()) == [data]


def test_only_our_own_work_is_replaced(data: Path, tmp_path: Path) -> None:
    """Guards against deleting what a person put into the folder, or a folder that was never ours."""
    (data / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds notes\.txt, which Hanlin did not write"):
        write(data)
    other = tmp_path / "other"
    other.mkdir()
    write(other)  # empty: nothing to lose
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "manifest.json").write_text('{"name": "a browser extension"}')
    with pytest.raises(DataError, match="is not empty"):
        write(tmp_path / "third")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(DataError, match="is not a folder"):
        write(tmp_path / "file")
    assert (data / "notes.txt").read_text() == (tmp_path / "file").read_text() == "mine"


def test_missing(data: Path, tmp_path: Path) -> None:
    """Guards against a traceback where a file is not there, and against naming only the first."""
    refused("no manifest.json", "hanlin prepare", folder=tmp_path / "nowhere")
    (data / "train-00000.safetensors").unlink()
    (data / "train-00001.safetensors").unlink()
    os.mkfifo(data / "train-00001.safetensors")
    refused("file 'train-00000.safetensors'; missing", "train-00001", folder=data, problems=2)
    refused("no split 'vaild'; it has: train, valid; did you mean 'valid'?", folder=data, split="vaild")


def test_every_flipped_bit_is_seen(data: Path) -> None:
    """Guards against training on damaged bytes."""
    path = data / "train-00001.safetensors"
    good = path.read_bytes()
    for at in range(0, len(good), 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
        refused("train-00001.safetensors: damaged", folder=data)
    path.write_bytes(good[:-1])
    refused("damaged", folder=data)
    refused("its header says otherwise", folder=data, verify=False)


def test_model_too_small(data: Path) -> None:
    """Guards against ids that the model has no row for."""
    shards.open(data, "train", vocab=300)
    shards.open(data, "train", vocab=301)
    refused("a vocab of 300; the model's is 299; set model.vocab to 300", folder=data, vocab=299)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "link.safetensors"])
def test_paths_stay_inside(data: Path, name: str) -> None:
    """Guards against a manifest that points at other people's files."""
    (data.parent / "x.safetensors").write_bytes((data / "train-00000.safetensors").read_bytes())
    (data / "link.safetensors").symlink_to(data.parent / "x.safetensors")
    change(data, lambda plain: plain["splits"]["train"]["shards"][0].update(file=name))
    refused(f"file {name!r}; missing, or outside the folder", folder=data)


def test_link_loop(data: Path) -> None:
    """Guards against a traceback from a link to itself."""
    (data / "train-00000.safetensors").unlink()
    (data / "train-00000.safetensors").symlink_to("train-00000.safetensors")
    refused("missing", folder=data)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda plain: plain.update(schema=2), "schema 2; this Hanlin reads schema 1"),
        (lambda plain: plain.pop("schema"), "schema None"),
        (lambda plain: plain.update(vocab="many"), "vocab: 'many'"),
        (lambda plain: plain.update(vocab=0), "vocab: 0"),
        (lambda plain: plain.update(dtype="object"), "dtype: 'object'"),
        (lambda plain: plain.update(extra=1), "extra: unknown key"),
        (lambda plain: plain.update(dtype="uint32"), "tokens: dtype U16; expected U32"),
        (lambda plain: plain.update(vocab=3), "token id 4; the vocab has 0 to 2"),
        (lambda plain: plain["splits"]["train"].update(tokens=99), "sums of 'train' do not add up"),
        (lambda plain: plain["splits"]["train"]["shards"][0].update(sha256=""), "damaged"),
    ],
)
def test_manifest_that_does_not_fit(data: Path, edit: Callable[[dict], object], words: str) -> None:
    """Guards against believing a manifest that is of another version, forged, or not of these files."""
    (data / "train-00001.safetensors").unlink()
    change(data, lambda plain: (plain["splits"]["train"]["shards"].pop(), plain["splits"]["train"]["shards"].pop()))
    change(data, lambda plain: plain["splits"]["train"].update(tokens=4, documents=2))
    shards.open(data, "train")
    change(data, edit)
    refused(words, folder=data)


def test_manifest_that_is_no_manifest(data: Path) -> None:
    """Guards against tracebacks from files that are not JSON, not objects, or too deep."""
    for text in ("", "{", "[]", "[" * 100_000, "\ud800"):
        (data / "manifest.json").write_bytes(text.encode(errors="surrogatepass"))
        refused("manifest.json", folder=data)


def arrays(tokens=(1, 2, 3, 4), lengths=(3, 1), sizes=(9, 9), kind=np.uint16) -> bytes:
    return save({"tokens": np.array(tokens, kind), "lengths": np.array(lengths), "sizes": np.array(sizes)})


@pytest.mark.parametrize(
    ("data_of_shard", "words"),
    [
        (arrays(lengths=(3, 2)), "do not add up"),
        (arrays(lengths=(5, -1)), "do not add up"),
        (arrays(sizes=(9, -9)), "do not add up"),
        (arrays(sizes=(9,)), "do not add up"),
        (arrays(lengths=(2**62, 2**62)), "do not add up"),
        (arrays(tokens=(1, 2, 3)), "do not add up"),
        (arrays(kind=np.int16), "dtype I16; expected U16"),
        (arrays(kind=np.float32), "dtype F32; expected U16"),
        (save({"tokens": np.zeros(4, np.uint16)}), "expected ['lengths', 'sizes', 'tokens']"),
        (b"", "a header of 0 bytes"),
        (b"\0" * 8, "a header of 0 bytes"),
        (b"\xff" * 8, "a header of"),
        (b"\0\0\1\0\0\0\0\0" + b"[" * 65_536, "no JSON object"),
        (b"\1\0\1\0\0\0\0\0" + b"[" * 65_537, "a header of 65537 bytes"),
        (b"\2\0\0\0\0\0\0\0[]", "no JSON object"),
        (b"\2\0\0\0\0\0\0\0\xff\xff", "no JSON object"),
        (arrays().replace(b"[0,16]", b"[0,8] "), "impossible"),
        (arrays().replace(b"[16,32]", b"[0,16] "), "impossible"),
        (arrays().replace(b"[32,40]", b"[-8,0] "), "impossible"),
        (arrays().replace(b'"shape":[4]', b'"shape":[9]'), "impossible"),
        (arrays().replace(b'"shape":[4]', b'"shape":4  '), "shape"),
        (arrays() + b"\0", "its header says otherwise"),
        (arrays()[:-2], "its header says otherwise"),
    ],
)
def test_forged_shards(data: Path, data_of_shard: bytes, words: str) -> None:
    """Guards against maps beyond the file, arrays over each other, and sums that overflow; the hash is right here."""
    forge(data, arrays())
    shards.open(data, "train")
    forge(data, data_of_shard)
    with pytest.raises(DataError, match=re.escape(words)):
        shards.open(data, "train")
    with pytest.raises(DataError, match=re.escape(words)):
        shards.open(data, "train", verify=False)


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a folder named without a parent."""
    monkeypatch.chdir(tmp_path)
    write(Path("data"))
    write(Path("deep/er/data/"))
    assert shards.open("data", "train").total == shards.open("deep/er/data", "train").total == 12
