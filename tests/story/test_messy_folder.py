"""A folder as people have them: every format, archives, loops, pipes, junk; read, cleaned and accounted for."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard

from hanlin.data import documents
from hanlin.data.clean import contract
from hanlin.data.documents import Tally
from hanlin.errors import DataError

ENGLISH = "The old bridge was closed in the spring, and the people of the town crossed the river by boat until {}."
CHINESE = "旧桥在春天封了，镇上的人坐船过河，一直到{}；船夫说，他从来没有这样忙过，也没有这样高兴过。"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Good text in ten places, and everything that goes wrong beside it."""
    root = tmp_path / "corpus"
    (root / "sub").mkdir(parents=True)
    good = {
        "01.txt": ENGLISH.format("autumn").encode(),
        "02.md": f"# Notes\n\n{CHINESE.format('秋天')}".encode(),
        "03.csv": f'id,text\n1,"{ENGLISH.format("May")}"\n2\n'.encode(),
        "04.tsv": f"id\ttext\n1\t{CHINESE.format('五月')}\n".encode(),
        "05.json": json.dumps([{"text": ENGLISH.format("June")}]).encode(),
        "06.jsonl.zst": zstandard.compress(json.dumps({"text": CHINESE.format("六月")}).encode()),
        "07.html.gz": gzip.compress(f"<article><p>{ENGLISH.format('July')}</p></article>".encode()),
        "sub/08.txt": f"{CHINESE.format('七月')}\r\n\r\n版权所有，未经许可不得转载\r\n".encode(),
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", ENGLISH.format("August"))
        archive.writestr("../../evil.txt", "bad")
    good["09.zip"] = packed.getvalue()
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive:
        info = tarfile.TarInfo("b.txt")
        info.size = len(CHINESE.format("八月").encode())
        archive.addfile(info, io.BytesIO(CHINESE.format("八月").encode()))
    good["10.tar.gz"] = tar.getvalue()
    bad = {
        "bad/binary.txt": bytes(range(256)),
        "bad/empty.txt": b"",
        "bad/empty.csv": b"",
        "bad/mixed.txt": CHINESE.encode() + CHINESE.encode("gb18030"),
        "bad/utf16.csv": "text\nabc\n".encode("utf-16"),
        "bad/deep.json": b"[" * 100_000,
        "bad/digits.jsonl": b'{"text": 1' + b"0" * 9999 + b"}",
        "bad/cut.gz.txt.gz": gzip.compress(b"text" * 999)[:-9],
        "bad/cut.zip": packed.getvalue()[:50],
        "bad/junk.parquet": os.urandom(999),
        "bad/junk.pdf": b"%PDF-1.4" + os.urandom(999),
        "bad/program.exe": b"MZ",
        "bad/short.txt": b"ok",
        "bad/spam.txt": b"Buy now and save money today!\n" * 30,
    }
    for name, data in {**good, **bad}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    os.mkfifo(root / "bad" / "pipe.txt")
    (root / "bad" / "loop.txt").symlink_to("loop.txt")
    (root / "bad" / "round").symlink_to(root)
    (root / "bad" / "out.txt").symlink_to("/etc/hostname")
    return root


def test_messy_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against anything that is lost, read twice, or dropped without a word."""
    monkeypatch.setattr("hanlin.data.tally.EXAMPLES", 99)
    before = sorted(folder.rglob("*"))
    tally = Tally()
    found = list(contract.clean(documents.read(folder, tally), contract.steps(), tally))
    assert [each.source.split("/")[-1][:2] for each in found if "bad" not in each.source] == [
        *("01", "02", "03", "04", "05", "06", "07", "a.", "b.", "08")
    ]
    assert not [each.source for each in found if each.source.startswith("bad/")]
    report = tally.report()
    assert report["read"] == report["kept"] + sum(each["count"] for each in report["dropped"].values())
    assert report["kept"] == 10
    assert report["bytes"] == sum(len(each.text.encode()) for each in found)
    assert report["changed"]["boilerplate"]["lines"] == 1
    named = {name for each in report["dropped"].values() for name in each["examples"]}
    expected = {str(path.relative_to(folder)) for path in before if path.parent.name == "bad" and path.name[0] != "."}
    assert {name.split(":")[0] for name in named} == expected | {"03.csv", "09.zip/../../evil.txt"}
    assert sorted(folder.rglob("*")) == before


def test_each_bad_file_alone_is_one_line(folder: Path) -> None:
    """Guards against a traceback or a silence for the file that was asked for."""
    for path in sorted((folder / "bad").iterdir()):
        if path.name not in {"short.txt", "spam.txt", "round", "out.txt"}:
            with pytest.raises(DataError) as caught:
                list(documents.read(path, Tally()))
            assert all(line.startswith(str(path)) and "\n" not in line for line in caught.value.problems)


def test_the_same_twice(folder: Path) -> None:
    """Guards against an order or a result that depends on the process."""
    code = (
        "import sys; from hanlin.data import documents; from hanlin.data.clean import contract; t = documents.Tally();"
        "d = contract.clean(documents.read(sys.argv[1], t), contract.steps(), t);"
        "print([(x.source, x.text) for x in d], t.report())"
    )
    said = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        assert (done.returncode, done.stderr) == (0, "")
        said.add(done.stdout)
    assert len(said) == 1


def write(path: Path, rows: int) -> None:
    """Write rows of a kilobyte in the format that the name says."""
    import pyarrow as pa
    from pyarrow import parquet

    text = ENGLISH * 10
    line = json.dumps({"text": text})
    if path.suffix == ".parquet":
        table = pa.table({"text": [f"{text} {n}" for n in range(rows)]})
        parquet.write_table(table, path, row_group_size=2000, use_dictionary=False, compression="none")
    else:
        row = {".csv": f'"{text}"\n', ".jsonl": f"{line}\n", ".json": f"{line},\n"}[path.suffix]
        with path.open("w") as file:
            file.write({".csv": "text\n", ".json": "["}.get(path.suffix, ""))
            file.writelines([row] * (rows - 1))
            file.write(row.rstrip(",\n") + ("]" if path.suffix == ".json" else "\n"))


def peak(path: Path, rows: int) -> int:
    """Return the most memory that reading a file of rows takes a process of its own, in KiB."""
    write(path, rows)
    code = (
        "import resource, sys; from hanlin.data import documents; t = documents.Tally();"
        "n = sum(1 for _ in documents.read(sys.argv[1], t));"
        "print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, memory = done.stdout.split()
    assert int(count) == rows
    return int(memory)


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "parquet"])
def test_memory_is_flat(tmp_path: Path, ending: str) -> None:
    """Guards against a format that is read whole: 30 MB of rows take little more memory than 3 MB."""
    assert peak(tmp_path / f"a.{ending}", 30_000) < 1.15 * peak(tmp_path / f"b.{ending}", 3_000)
