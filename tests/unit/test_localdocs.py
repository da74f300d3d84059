"""The documentation on this machine: what is taken, what is left out, and that nothing is ever run."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from hanlin.data import localdocs
from hanlin.data.documents import Document, Tally
from hanlin.errors import DataError

SAID = "This sentence is long enough to count as documentation of something. " * 4 + "End."


def plant(root: Path, modules: dict[str, str]) -> None:
    """Write modules, given by path without the ending."""
    for name, code in modules.items():
        path = root / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")


def read(*roots: Path, **options: int) -> tuple[list[Document], Tally]:
    tally = Tally()
    found = list(localdocs.read(tally, roots=roots, **options))
    assert tally.read == tally.kept + sum(tally.dropped.values())
    return found, tally


def test_text(tmp_path: Path) -> None:
    """Guards against a lost docstring, a lost qualified name, and bodies that are taken for documentation."""
    code = f'''
        """Module. {SAID}"""
        import os
        def one(a, /, b: int = 1, *rest, c=None, **more) -> str:
            """Do one.

                Indented.
            Not.
            """
            def inner(): "not documentation"
            return "code"
        class Two(os.PathLike, metaclass=type):
            """Be two."""
            async def three(self): """Do three."""
            def bare(self): pass
            class Four:
                def five(self): """Do five."""
        try:
            import numpy
        except ImportError:
            def six(): """Do six."""
        if os.name == "posix":
            def seven(): """Do six."""
    '''
    plant(tmp_path, {"pack/mod": dedent(code)})
    (document,), _ = read(tmp_path)
    assert document.source == document.meta["group"] == "pack.mod"
    assert document.text == "\n\n".join(
        [
            "# pack.mod",
            f"Module. {SAID}",
            "one(a, /, b: int=1, *rest, c=None, **more)\n\nDo one.\n\n    Indented.\nNot.",
            "class Two(os.PathLike)\n\nBe two.",
            "Two.three(self)\n\nDo three.",
            "Two.Four.five(self)\n\nDo five.",
            "six()\n\nDo six.",  # seven says the same
        ]
    )


def test_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against importing what is read, which would run it."""
    canary = tmp_path / "canary"
    effect = f'open({str(canary)!r}, "w").close()'
    code = f'"""{SAID}"""\n{effect}\ndef f(x: {effect} = {effect}): """Do f."""'
    names = ["evil/__init__", "evil/__main__", "evil/part", "pydoc_data/topics", "sitecustomize"]
    plant(tmp_path / "site", dict.fromkeys(names, code))
    monkeypatch.syspath_prepend(tmp_path / "site")
    before = set(sys.modules)
    found, tally = read(tmp_path / "site")
    assert [document.source for document in found] == ["evil", "evil.__main__", "evil.part", "sitecustomize"]
    assert tally.examples == {"says little": ["pydoc_data.topics"]}
    assert set(sys.modules) == before
    assert not canary.exists()


def test_left_out(tmp_path: Path) -> None:
    """Guards against tests, copies, tables and broken files in the corpus, and against leaving them out in silence."""
    good = f'"""{SAID}"""'
    names = ["a", "test/b", "p/tests/c", "p/d_test", "p/idle_test/e", "p/_vendor/f", "p/vendored/g"]
    odd = {"h": "'short'", "i": "def broken(:", "j": "(" * 5000, "k": good.replace("This", "\\0")}
    odd |= {"l": good.replace("This", "\\ud800"), "n": good + "\nx = 1" * 400_000}
    plant(tmp_path, dict.fromkeys(names, good) | odd)
    (tmp_path / "m.py").write_bytes(b'"""\xff' + good.encode())
    (tmp_path / "o.py").symlink_to("nowhere.py")
    found, tally = read(tmp_path)
    assert [document.source for document in found] == ["a"]
    assert tally.dropped == {
        "test": 4,
        "vendored copy": 2,
        "says little": 1,
        "does not parse": 3,
        "binary": 1,
        "half a character": 1,
        "too large": 1,
        "not readable": 1,
    }


def test_folders_that_are_no_packages(tmp_path: Path) -> None:
    """Guards against taking another interpreter's packages for the standard library's, and links that loop."""
    plant(tmp_path, dict.fromkeys(["site-packages/a", "b", "c-d"], f'"""{SAID}"""'))
    (tmp_path / "loop").symlink_to(tmp_path)
    assert [document.source for document in read(tmp_path)[0]] == ["b"]


def test_first_root_wins(tmp_path: Path) -> None:
    """Guards against one module twice under one name."""
    plant(tmp_path / "one", {"mod": f'"""One. {SAID}"""'})
    plant(tmp_path / "two", {"mod": f'"""Two. {SAID}"""'})
    (document,), _ = read(tmp_path / "one", tmp_path / "two")
    assert "One." in document.text


def test_warnings_stay_inside(tmp_path: Path) -> None:
    """Guards against showing a person the warnings of other people's code: here they would be errors."""
    plant(tmp_path, {"a": f'"""{SAID}\\d"""\nx = 1 is 1\nassert (1, "x")'})
    assert len(read(tmp_path)[0]) == 1


def test_long_arguments_are_cut(tmp_path: Path) -> None:
    """Guards against a table of defaults in place of documentation."""
    plant(tmp_path, {"a": f'def f(x={list(range(1000))}): """{SAID}"""'})
    assert max(map(len, read(tmp_path)[0][0].text.splitlines())) < 310


def test_topics(tmp_path: Path) -> None:
    """Guards against losing the language reference, and against failing on what else may stand in its file."""
    topics = f'topics = {{"assert": """The assert statement. {SAID}""", "x": "short", "y": 1 + 1, **{{}}}}\nother = 3'
    plant(tmp_path, {"pydoc_data/topics": topics})
    (document,), tally = read(tmp_path)
    assert document.text == f"# assert\n\nThe assert statement. {SAID}"
    assert (document.source, document.meta["group"]) == ("pydoc_data.topics:assert", "pydoc_data.topics")
    assert tally.dropped == {"says little": 1}


def test_limit(tmp_path: Path) -> None:
    """Guards against a limit that is passed, that takes the first of the alphabet, or that hides what it left."""
    plant(tmp_path, {f"m{number:03d}": f'"""{number} {SAID}"""' for number in range(200)})
    full, _ = read(tmp_path)
    assert [document.source for document in full] == sorted(document.source for document in full)
    size = len(full[0].text) + 5
    some, tally = read(tmp_path, limit_bytes=20 * size)
    assert tally.bytes == sum(len(document.text.encode()) for document in some) <= 20 * size
    assert len(some) in {20, 21}
    assert tally.dropped == {"beyond limit_bytes": 200 - len(some)}
    numbers = [int(document.source[1:]) for document in some]
    assert min(numbers) < 50
    assert max(numbers) > 150
    more, _ = read(tmp_path, limit_bytes=40 * size)
    assert more[: len(some)] == some


def test_nothing_found(tmp_path: Path) -> None:
    """Guards against training on nothing."""
    with pytest.raises(DataError, match="localdocs: nothing kept of 0 modules under"):
        read(tmp_path)
    plant(tmp_path, {"a": f'"""{SAID}"""'})
    with pytest.raises(DataError, match="nothing kept of 1 modules"):
        read(tmp_path, limit_bytes=10)


def test_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guards against a name that is taken for a path, and a path or field that is not handed on."""
    (tmp_path / "a.jsonl").write_text('{"story": "once"}\n')
    (document,) = localdocs.corpus(tmp_path / "a.jsonl", Tally(), field="story")
    assert document.text == "once"
    plant(tmp_path, {"json": f'"""{SAID}"""'})
    monkeypatch.setattr(localdocs, "_roots", lambda: [tmp_path])
    assert [document.source for document in localdocs.corpus("localdocs", Tally())] == ["json"]


def test_corpus_limit(tmp_path: Path) -> None:
    """Guards against a limit on files that counts what other corpora gave, is passed, or admits nothing in silence."""
    (tmp_path / "a.jsonl").write_text('{"text": "四四"}\n' * 5)
    tally = Tally(bytes=1000)
    assert len(list(localdocs.corpus(tmp_path, tally, limit_bytes=18))) == 3
    assert tally.dropped == {"beyond limit_bytes": 1}
    assert tally.bytes == 1018
    with pytest.raises(DataError, match="limit_bytes: 5; the first document is longer"):
        list(localdocs.corpus(tmp_path, Tally(), limit_bytes=5))


def test_this_machine() -> None:
    """Guards against looking for the standard library where it is not."""
    first = next(each for each in localdocs.read(Tally(), roots=localdocs._roots()[:1]) if each.source == "argparse")
    assert "Command-line parsing library" in first.text
