"""Count what a reader has to read, and fail where a piece is too big: `python tools/budget.py [ROOT]`.

    lines of code     lines that hold code tokens; comments, docstrings and blank lines are free
    own modules       different hanlin modules that a file imports, anywhere in it
    repeated lines    lines of src in a block of eight that stood before, in the same file or another
    circles           of imports that run with the module: not those in functions or under TYPE_CHECKING

One line a violation, `path:line: what; limit`, and exit 1; else one line of totals. A higher limit for one place is a
reviewed line in EXCEPTIONS; an exception that is no longer needed is a violation too.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

FILE, FAMILY, TEST_FILE = 300, 250, 400  # lines of code
FUNCTION = 60  # lines of code
IMPORTS = 12  # own modules a file
FOLDER = 14  # Python files a folder, __init__.py aside; test folders grow with the project
BLOCK, REPEATED = 8, 0.01  # lines; share of the lines of src
# "src/hanlin/x.py: lines of code in Class.name" -> its own limit, with the reason
EXCEPTIONS: dict[str, int] = {
    "src/hanlin/models/bert.py: lines of code": 260,  # four families of files in one
    "src/hanlin/nn: files": 15,  # the parts of models, one a file
}

PLACES = ("src/hanlin", "tools", "benchmarks", "examples", "tests")
FREE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}
TYPES_ONLY = {"TYPE_CHECKING", "typing.TYPE_CHECKING"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Source:
    """One Python file: its path from the root, its tree, and line number -> code without comments and docstrings."""

    path: str
    tree: ast.Module
    code: dict[int, str]

    @property
    def module(self) -> str:
        """Return the dotted name under which the file is imported."""
        return self.path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(frozen=True)
class Measure:
    """A number that has a limit, kept or not."""

    path: str
    line: int
    what: str
    found: int
    limit: int

    @property
    def place(self) -> str:
        """Return the key under which EXCEPTIONS may raise the limit."""
        return f"{self.path}: {self.what}"


def main() -> int:
    """Print the violations, or else the totals; return the exit status."""
    home = Path(__file__).parent.parent
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else home
    try:
        problems, totals = check(root, EXCEPTIONS if root.resolve() == home.resolve() else {})
    except SyntaxError as error:
        problems, totals = [f"{error.filename}:{error.lineno}: {error.msg}; a file that parses"], ""
    print("\n".join(problems) or totals)
    return 1 if problems else 0


def check(root: Path, exceptions: Mapping[str, int]) -> tuple[list[str], str]:
    """Return one line for each violation under `root`, and the line of totals."""
    sources = list(read(root))
    own = [source for source in sources if source.path.startswith("src/")]
    measures = list(measure(sources))
    problems, needed = [], set()
    for each in measures:
        limit = exceptions.get(each.place, each.limit)
        if each.found > each.limit:
            needed.add(each.place)
        if each.found > limit:
            problems.append(f"{each.path}:{each.line}: {each.found} {each.what}; at most {limit}")
    problems += [f"tools/budget.py:1: exception '{each}'; no longer needed" for each in sorted({*exceptions} - needed)]
    total = sum(len(source.code) for source in own)
    again, repeats = repeated(own)
    if again > REPEATED * total:
        problems += [f"{each}; at most {REPEATED:.0%} of lines, {again / total:.1%} are" for each in repeats]
    problems += circles(own)
    return problems, totals(sources, measures, again / total if total else 0.0)


def totals(sources: list[Source], measures: list[Measure], share: float) -> str:
    """Return the size of everything in one line."""
    src, tests = (sum(len(s.code) for s in sources if s.path.startswith(place)) for place in ("src/", "tests/"))
    files = [each for each in measures if each.what == "lines of code"]
    functions = [each for each in measures if each.what.startswith("lines of code in ")]
    largest = [max(some, key=lambda each: each.found, default=None) for some in (files, functions)]
    file, function = (f"{each.found} ({each.path}:{each.line})" if each else "none" for each in largest)
    sizes = f"{src:,} lines of code in src, {tests:,} in tests"
    return f"budget: {sizes}; largest file {file}; largest function {function}; {share:.1%} repeated"


def read(root: Path) -> Iterator[Source]:
    """Yield every Python file of the places that exist, sorted; SyntaxError names one that does not parse."""
    for place in PLACES:
        for file in sorted((root / place).rglob("*.py")):
            path, text = file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")
            tree = ast.parse(text, filename=path)
            yield Source(path, tree, code_lines(text, tree))


def code_lines(text: str, tree: ast.Module) -> dict[int, str]:
    """Return line number -> its code tokens, joined by single spaces; lines without any are left out."""
    free = {line for node in docstrings(tree) for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    code: dict[int, list[str]] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in FREE or (token.type == tokenize.STRING and token.start[0] in free):
            continue
        for number, line in enumerate(token.string.split("\n"), token.start[0]):
            code.setdefault(number, []).append(line.strip())
    return {number: " ".join(words) for number, words in sorted(code.items()) if any(words)}


def docstrings(tree: ast.Module) -> Iterator[ast.expr]:
    """Yield the docstrings of the module and of every class and function in it."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and node.body:
            match node.body[0]:
                case ast.Expr(value=ast.Constant(value=str()) as found):
                    yield found


def measure(sources: list[Source]) -> Iterator[Measure]:
    """Yield every number that has a limit: of files, functions, imports and folders."""
    known = {source.module for source in sources}
    for source in sources:
        test = source.path.startswith("tests/")
        family = source.path.startswith("src/hanlin/models/") and not source.path.endswith("/contract.py")
        limit = TEST_FILE if test else FAMILY if family else FILE
        yield Measure(source.path, 1, "lines of code", len(source.code), limit)
        for name, line, lines in functions(source.tree, source.code):
            yield Measure(source.path, line, f"lines of code in {name}", lines, FUNCTION)
        if not test:
            own = {name for name, _ in imports(source, known)}
            yield Measure(source.path, 1, "own modules imported", len(own), IMPORTS)
    files = [Path(each.path) for each in sources if not each.path.startswith("tests/")]
    folders = Counter(file.parent.as_posix() for file in files if file.name != "__init__.py")
    for folder, found in folders.items():
        yield Measure(folder, 1, "files", found, FOLDER)


def functions(node: ast.AST, code: Mapping[int, str], outer: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield (dotted name, line, lines of code) of every function, with its decorators and inner functions."""
    for child in ast.iter_child_nodes(node):
        inner = outer
        if isinstance(child, (ast.ClassDef, *FUNCTIONS)):
            inner = f"{outer}.{child.name}" if outer else child.name
        if isinstance(child, FUNCTIONS):
            first = min([child.lineno, *(each.lineno for each in child.decorator_list)])
            yield inner, child.lineno, sum(first <= number <= (child.end_lineno or first) for number in code)
        yield from functions(child, code, inner)


def imports(source: Source, known: set[str], *, running: bool = False) -> Iterator[tuple[str, int]]:
    """Yield (hanlin module, line) of every import; with `running`, only of those that run with the module."""
    pending: list[ast.AST] = [source.tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((each.name, node.lineno) for each in node.names if each.name.split(".")[0] == "hanlin")
        elif isinstance(node, ast.ImportFrom):
            module = origin(source, node)
            names = [f"{module}.{each.name}" for each in node.names]
            if module.split(".")[0] == "hanlin":
                yield from ((name if name in known else module, node.lineno) for name in names)
        elif running and isinstance(node, ast.If) and ast.unparse(node.test) in TYPES_ONLY:
            pending += node.orelse
        elif not (running and isinstance(node, FUNCTIONS)):
            pending += ast.iter_child_nodes(node)


def origin(source: Source, node: ast.ImportFrom) -> str:
    """Return the full name of the module that `from … import` reads, dots before it resolved."""
    above = source.module.split(".")
    if node.level:
        keep = len(above) - node.level + source.path.endswith("/__init__.py")
        return ".".join([*above[:keep], *([node.module] if node.module else [])])
    return node.module or ""


def repeated(sources: list[Source]) -> tuple[int, list[str]]:
    """Return how many lines lie in a block that stood before, and `path:line: repeats path:line` of each stretch."""
    seen: dict[tuple[str, ...], tuple[str, int]] = {}
    count, stretches = 0, []
    for source in sources:
        numbers, code = list(source.code), list(source.code.values())
        again: set[int] = set()
        for start in range(len(code) - BLOCK + 1):
            here = (source.path, numbers[start])
            first = seen.setdefault(tuple(code[start : start + BLOCK]), here)
            if first != here:
                if start not in again:
                    stretches.append(f"{here[0]}:{here[1]}: repeats {first[0]}:{first[1]}")
                again.update(range(start, start + BLOCK))
        count += len(again)
    return count, stretches


def circles(sources: list[Source]) -> Iterator[str]:
    """Yield one line for each circle of imports; each is broken where it was reported, to find the next."""
    known = {source.module for source in sources}
    paths = {source.module: source.path for source in sources}
    graph = {source.module: dict(imports(source, known, running=True)) for source in sources}
    while True:
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            ring = error.args[1][::-1]  # each imports the next; the first stands again at the end
            line = graph[ring[0]].pop(ring[1])
            yield f"{paths[ring[0]]}:{line}: imports in a circle, {' -> '.join(ring)}; at most 0"
        else:
            return


if __name__ == "__main__":
    sys.exit(main())
