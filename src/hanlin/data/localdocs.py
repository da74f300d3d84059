"""The documentation of the Python on this machine: a corpus that is always there, offline.

    standard library ─┐                      ┌─ # json.decoder                   one document a module,
                      ├─ *.py ─ ast ─ texts ─┤  JSONDecoder.decode(self, s)      its dotted name as `group`
    installed packages┘   nothing is run     └─ Return the Python …
    pydoc_data.topics ────── one document a topic, one group for all

Left out, and counted: tests, vendored copies, modules that say little, files that are too large or do not parse.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

from hanlin.data import documents
from hanlin.data.documents import Document, Tally, flaw
from hanlin.errors import DataError, problem

NAME = "localdocs"
BEYOND = "beyond limit_bytes"
TOPICS = "pydoc_data.topics"
LARGEST = 2_000_000  # bytes of one source file; larger ones are tables
LITTLE = 200  # characters of documentation below which a module is left out
LONGEST_LINE = 300  # characters of one function's arguments
TESTS = re.compile(r"tests?|idle_test|test_\w+|\w+_test")
VENDORED = re.compile(r"_?vendor(ed)?(_packages)?")

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def corpus(
    name: str | Path, tally: Tally, *, field: str = "text", limit_bytes: int | None = None
) -> Iterator[Document]:
    """Yield the documents a recipe names, "localdocs" or the path of a file or folder, up to `limit_bytes` of text.

    What follows the first document beyond the limit is not read, and so not counted. DataError when the limit admits
    no document.
    """
    if str(name) == NAME:
        yield from read(tally, limit_bytes=limit_bytes)
        return
    left = float("inf") if limit_bytes is None else limit_bytes
    empty = True
    for document in documents.read(name, tally, field=field):
        left -= len(document.text.encode())
        if left < 0:
            tally.remove(BEYOND, document)
            break
        empty = False
        yield document
    if empty:
        raise DataError(problem("limit_bytes", f"{limit_bytes}", "the first document is longer", do="raise it"))


def read(tally: Tally, *, limit_bytes: int | None = None, roots: Sequence[Path] | None = None) -> Iterator[Document]:
    """Yield one document a module, in the order of the modules' names.

    With `limit_bytes`, in the order of a hash of the names and no further than that many bytes of text: a sample of
    everything rather than what comes first in the alphabet. `roots` are the folders to search, by default the
    standard library and the packages of this interpreter. DataError when nothing was kept.
    """
    modules = dict(_modules(roots or _roots()))
    ordered = iter(sorted(modules, key=None if limit_bytes is None else _scattered))
    left = float("inf") if limit_bytes is None else limit_bytes
    empty = True
    for module in ordered:
        for document in _module(module, modules[module], tally):
            left -= len(document.text.encode())
            if left < 0:
                tally.drop(BEYOND, document.source)
            else:
                empty = False
                yield tally.keep(document)
        if left < 0:
            break
    for module in ordered:  # what the limit left unread
        tally.drop(BEYOND, module)
    if empty:
        where = ", ".join(map(str, roots or _roots()))
        raise DataError(problem(NAME, f"nothing kept of {len(modules):,} modules under {where}"))


def _roots() -> list[Path]:
    """Return the folders of this interpreter's standard library and packages, each once."""
    paths = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return list(dict.fromkeys(paths))


def _modules(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield (dotted name, file) of every module below the roots, the first root's last; linked folders are not entered.

    Folders whose names no module can have are passed over: `site-packages` inside the standard library,
    `numpy-2.0.dist-info`.
    """
    for root in reversed(roots):
        for folder, below, files in os.walk(root):
            below[:] = [name for name in below if name.isidentifier()]
            parts = Path(folder).relative_to(root).parts
            for name in files:
                stem, ending = os.path.splitext(name)
                if ending == ".py" and stem.isidentifier():
                    own = () if stem == "__init__" else (stem,)
                    yield ".".join((*parts, *own)), Path(folder, name)


def _scattered(module: str) -> bytes:
    """Return a key that orders modules the same way everywhere, unrelated to the alphabet."""
    return blake2b(module.encode(), digest_size=16).digest()


def _module(module: str, path: Path, tally: Tally) -> Iterator[Document]:
    """Yield the documents of one module, or count why there are none."""
    try:
        texts = _texts(module, path)
    except _LeftOut as why:
        tally.drop(str(why), module)
        return
    for source, documentation, text in texts or [(module, 0, "")]:
        reason = "says little" if documentation < LITTLE else flaw(text)
        if reason:
            tally.drop(reason, source)
        else:
            yield Document(text=text, source=source, meta={"group": module})


class _LeftOut(Exception):
    """A module is not read; the message is what the tally counts."""


def _texts(module: str, path: Path) -> list[tuple[str, int, str]]:
    """Return (source, characters of documentation, text) of each document in a module."""
    parts = module.split(".")
    if any(TESTS.fullmatch(part) for part in parts):
        raise _LeftOut("test")
    if any(VENDORED.fullmatch(part) for part in parts):
        raise _LeftOut("vendored copy")
    try:
        if not path.is_file():
            raise _LeftOut("not readable")
        if path.stat().st_size > LARGEST:
            raise _LeftOut("too large")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in other people's strings
            tree = ast.parse(path.read_bytes())
        return _topics(tree) if module == TOPICS else [(module, *_documentation(module, tree))]
    except OSError:
        raise _LeftOut("not readable") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError: nested too deep for the parser
        raise _LeftOut("does not parse") from None


def _documentation(module: str, tree: ast.Module) -> tuple[int, str]:
    """Return how many characters of docstrings a module has, and its text; a docstring said twice is kept once."""
    parts, seen = [f"# {module}"], set[str]()
    for name, node in [("", tree), *_definitions(tree, "")]:
        said = ast.get_docstring(node)
        if said and said not in seen:
            seen.add(said)
            parts += [said] if isinstance(node, ast.Module) else [_heading(name, node), said]
    return sum(map(len, seen)), "\n\n".join(parts)


def _definitions(tree: ast.AST, within: str) -> Iterator[tuple[str, Definition]]:
    """Yield (qualified name, node) of every class, method and function, also below `if` and `try`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield within + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield within + node.name, node
            yield from _definitions(node, f"{within}{node.name}.")
        elif isinstance(node, ast.stmt | ast.excepthandler):
            yield from _definitions(node, within)


def _heading(name: str, node: Definition) -> str:
    """Return `Class.method(self, x=1)` or `class Class(Parent)`, what stands in the brackets cut when it is long."""
    inside = ", ".join(map(ast.unparse, node.bases)) if isinstance(node, ast.ClassDef) else ast.unparse(node.args)
    if len(inside) > LONGEST_LINE:
        inside = inside[:LONGEST_LINE] + "…"
    return f"class {name}({inside})" if isinstance(node, ast.ClassDef) else f"{name}({inside})"


def _topics(tree: ast.Module) -> list[tuple[str, int, str]]:
    """Return (source, characters, text) of each topic in the dictionary that `pydoc_data/topics.py` assigns."""
    texts = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, value in zip(node.value.keys, node.value.values):
                name, text = (each.value if isinstance(each, ast.Constant) else None for each in (key, value))
                if isinstance(name, str) and isinstance(text, str):
                    texts.append((f"{TOPICS}:{name}", len(text), f"# {name}\n\n{text.strip()}"))
    return texts
