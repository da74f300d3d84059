"""Archives: read like folders, never unpacked to the disk, and stopped when they unfold without end."""

import gc
import gzip
import io
import os
import random
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
import zstandard

from hanlin.data import documents
from hanlin.data.documents import Document, Tally
from hanlin.data.readers import archive, contract
from hanlin.errors import DataError

MEMBERS = {
    "a.txt": b"one",
    "sub/b.jsonl": b'{"text": "two"}\n{\n',
    "c.csv.gz": gzip.compress(b"text\nthree\n"),
    "d.exe": b"x",
}


def read(path: Path) -> tuple[list[Document], Tally]:
    tally = Tally()
    found = list(documents.read(path, tally))
    assert tally.read == tally.kept + sum(tally.dropped.values()), "everything looked at is accounted for"
    return found, tally


def refused(path: Path, *expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read(path)
    for words in expected:
        assert words in str(caught.value)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for info in others:
            made.addfile(info)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def special(name: str, kind: bytes, to: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, to
    return info


PACK = {
    "a.zip": zipped,
    "a.tar": tarred,
    "a.tar.gz": lambda members: gzip.compress(tarred(members)),
    "a.tgz": lambda members: gzip.compress(tarred(members)),
    "a.tar.zst": lambda members: zstandard.compress(tarred(members)),
}


@pytest.mark.parametrize("name", PACK)
def test_members(tmp_path: Path, name: str) -> None:
    """Guards against a member that is lost, and against anything that is written while reading."""
    (tmp_path / name).write_bytes(PACK[name](MEMBERS))
    found, tally = read(tmp_path / name)
    assert [(each.source, each.text) for each in found] == [
        (f"{name}/a.txt", "one"),
        (f"{name}/sub/b.jsonl:1", "two"),
        (f"{name}/c.csv.gz:2", "three"),
    ]
    assert tally.dropped == {"not JSON": 1, "no reader for it": 1}
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize(
    "name", ["../a.txt", "a/../../b.txt", "/etc/a.txt", "C:\\a.txt", "..\\a.txt", "\\\\host\\a.txt"]
)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_unsafe_names(tmp_path: Path, kind: str, name: str) -> None:
    """Guards against a name that leads out of the archive."""
    members = {name: b"bad", "good.txt": b"good"}
    (tmp_path / f"a.{kind}").write_bytes(PACK[f"a.{kind}"](members))
    found, tally = read(tmp_path / f"a.{kind}")
    assert [each.text for each in found] == ["good"]
    assert tally.dropped == {"unsafe name": 1}


def test_links_and_devices(tmp_path: Path) -> None:
    """Guards against a member that stands for a file outside, or for a device."""
    link = zipfile.ZipInfo("l.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(link, "/etc/passwd")
        made.writestr("good.txt", "good")
    others = [
        special("l.txt", tarfile.SYMTYPE, "/etc/passwd"),
        special("h.txt", tarfile.LNKTYPE, "good.txt"),
        special("d.txt", tarfile.CHRTYPE),
        special("p.txt", tarfile.FIFOTYPE),
        special("folder.txt", tarfile.DIRTYPE),
    ]
    (tmp_path / "b.tar").write_bytes(tarred({"good.txt": b"good"}, *others))
    found, tally = read(tmp_path)
    assert [each.text for each in found] == ["good", "good"]
    assert tally.dropped == {"link in an archive": 3, "not a regular file": 2}


def test_encrypted(tmp_path: Path) -> None:
    """Guards against noise for text."""
    data = bytearray(zipped({"a.txt": b"text", "b.txt": b"good"}))
    data[6] |= 1  # the flags of the first member, here and in the list at the end
    data[data.index(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    found, tally = read(tmp_path / "a.zip")
    assert [each.text for each in found] == ["good"]
    assert tally.dropped == {"encrypted": 1}


def nested(depth: int) -> bytes:
    data = zipped({"a.txt": b"deep"})
    for number in range(depth - 1):
        data = (zipped if number % 2 else tarred)({f"n.{'tar' if number % 2 else 'zip'}": data})
    return data


def test_depth(tmp_path: Path) -> None:
    """Guards against archives in archives without end."""
    (tmp_path / "a.tar").write_bytes(nested(2))
    assert read(tmp_path / "a.tar")[0][0].source == "a.tar/n.zip/a.txt"
    (tmp_path / "b.zip").write_bytes(nested(3))
    refused(tmp_path / "b.zip", "1 x archives too deep, first b.zip/n.tar/n.zip")


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a small file that unfolds to a large one, also by members or levels that are each in order."""
    monkeypatch.setattr(contract, "FREE", 1 << 20)
    dense = b"a" * (1 << 20)
    (tmp_path / "many.zip").write_bytes(zipped({f"{number}.txt": dense for number in range(9)}))
    (tmp_path / "deep.zip").write_bytes(zipped({f"{number}.zip": zipped({"a.txt": dense}) for number in range(9)}))
    (tmp_path / "a.tgz").write_bytes(gzip.compress(tarred({f"{number}.txt": dense for number in range(9)})))
    for path in tmp_path.iterdir():
        tally = Tally()
        with pytest.raises(DataError, match="unpacks to too much"):
            list(documents.read(path, tally))
        assert tally.kept < 9
    assert read_after(tmp_path, "good.txt").dropped == {"unpacks to too much": 3}


def read_after(folder: Path, name: str) -> Tally:
    (folder / name).write_text("good")
    found, tally = read(folder)
    assert "good" in [each.text for each in found]
    return tally


def test_overlapping_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a zip whose members are all the same bytes (Fifield 2019): each is paid for.

    Some builds of Python find the overlap themselves, and let one of them be read.
    """
    monkeypatch.setattr(contract, "FREE", 1 << 16)
    one = zipped({"a.txt": b"a" * (1 << 16)})
    start = one.index(b"PK\1\2")
    entry = one[start : one.index(b"PK\5\6")]
    end = struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, 2000, 2000, len(entry) * 2000, start, 0)
    (tmp_path / "a.zip").write_bytes(one[:start] + entry * 2000 + end)
    try:
        tally = read(tmp_path / "a.zip")[1]
    except DataError as error:
        said, kept = str(error), 0
    else:
        said, kept = tally.details["damaged"], tally.kept
    assert "unpacks to too much" in said or "Overlapped" in said
    assert kept <= 1


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a list of members that fills the memory or the day."""
    monkeypatch.setattr(contract.Budget, "of", classmethod(lambda cls, size: cls(1 << 30, 2)))
    (tmp_path / "a.zip").write_bytes(zipped(MEMBERS))
    (tmp_path / "a.tar").write_bytes(tarred(MEMBERS))
    for path in tmp_path.iterdir():
        refused(path, "too many members; at most 1,000,000")
    monkeypatch.setattr(archive, "DIRECTORY", 100)
    refused(tmp_path / "a.zip", "a list of members of ", "at most 100")


def test_headers_that_lie(tmp_path: Path) -> None:
    """Guards against a tar that announces a name of 8 GB, or a member before the beginning."""
    for kind in (tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME):
        info = tarfile.TarInfo("a.txt")
        info.type, info.size = kind, 8 << 30
        (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 20_480)
        refused(tmp_path / "a.tar", "damaged: a header of 8,589,934,592 bytes")
    info.type, info.size = tarfile.REGTYPE, -512
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 20_480)
    refused(tmp_path / "a.tar", "damaged")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_damage(tmp_path: Path, kind: str) -> None:
    """Guards against an archive that ends early in silence, and against a traceback at any cut or flipped byte."""
    data = PACK[f"a.{kind}"](MEMBERS)
    path, chance = tmp_path / f"a.{kind}", random.Random(0)
    for _ in range(150):
        cut = chance.randrange(len(data.rstrip(b"\0")))  # a tar ends in zeros, more than it needs
        path.write_bytes(data[:cut])
        refused(path, str(path))
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        with suppress(DataError):  # and nothing else
            read(path)


def test_a_header_in_the_middle(tmp_path: Path) -> None:
    """Guards against the library's habit of taking an unreadable header for the end."""
    data = bytearray(tarred({"a.txt": b"one", "b.txt": b"two"}))
    data[1024:1536] = b"\xff" * 512
    (tmp_path / "a.tar").write_bytes(data)
    found, tally = [], Tally()
    with pytest.raises(DataError, match="damaged: it ends in the middle"):
        found.extend(documents.read(tmp_path / "a.tar", tally))
    assert tally.kept == 1


def test_memory_is_flat(tmp_path: Path) -> None:
    """Guards against members that stay in memory when they are through."""

    def peak(count: int) -> int:
        members: Iterable[str] = (f"{number}.txt" for number in range(count))
        (tmp_path / "a.tar").write_bytes(tarred({name: os.urandom(32).hex().encode() * 64 for name in members}))
        gc.collect()
        tracemalloc.start()
        assert sum(1 for _ in documents.read(tmp_path / "a.tar", Tally())) == count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)
    assert peak(2000) < peak(200) + 3_000_000  # of 7,000,000 that would stay
