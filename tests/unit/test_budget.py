"""tools/budget.py on planted violations: each limit, what is free, and what may be raised."""

import subprocess
import sys

import pytest

from tools import budget


@pytest.fixture
def plant(tmp_path):
    """Write files given by path, check them, and return (violations, totals)."""

    def check(files, exceptions=None):
        for path, text in files.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return budget.check(tmp_path, exceptions or {})

    return check


def lines(count, start=0):
    """Return `count` lines of code, all different."""
    return "".join(f"x{number} = {number}\n" for number in range(start, start + count))


def body(count):
    """Return a function with `count` lines of code."""
    return "def f():\n" + "".join(f"    x{number} = {number}\n" for number in range(1, count))


def counted(text):
    """Return the numbers of the lines of code in a text."""
    return list(budget.code_lines(text, budget.ast.parse(text)))


def test_what_counts():
    """Guards against counting comments, docstrings and blank lines, and against forgetting strings that are code."""
    text = '''"""Doc
of the module."""  # free

# free

class A:
    """Doc."""

    x = """code

    code"""  # the blank line holds nothing

    def f(self):  # code
        r"""Doc \\d
        of f."""
        "a second string is code"
        return (
            1,  # code
            # free
        )


async def g(): "doc"; return "code"
'''
    assert counted(text) == [6, 9, 11, 13, 16, 17, 18, 20, 23]
    assert counted("") == []


def test_file_limits(plant):
    """Guards against a wall at the wrong line, and against one wall for all places."""
    right = {
        "src/hanlin/ok.py": lines(300),
        "src/hanlin/models/contract.py": lines(300, 1000),
        "src/hanlin/models/ok.py": lines(250, 2000),
        "tests/unit/test_ok.py": lines(400),
    }
    assert plant(right)[0] == []
    wrong = {
        "src/hanlin/big.py": lines(301, 3000),
        "src/hanlin/models/big.py": lines(251, 4000),
        "tests/unit/test_big.py": lines(401),
        "tools/big.py": lines(301),
        "benchmarks/big.py": lines(301),
        "examples/big.py": lines(301),
    }
    assert plant(wrong)[0] == [
        "src/hanlin/big.py:1: 301 lines of code; at most 300",
        "src/hanlin/models/big.py:1: 251 lines of code; at most 250",
        "tools/big.py:1: 301 lines of code; at most 300",
        "benchmarks/big.py:1: 301 lines of code; at most 300",
        "examples/big.py:1: 301 lines of code; at most 300",
        "tests/unit/test_big.py:1: 401 lines of code; at most 400",
    ]


def test_function_limit(plant):
    """Guards against long functions that hide in classes, in others, behind decorators or in tests."""
    assert plant({"src/hanlin/ok.py": body(60)})[0] == []
    inner = "".join(f"    {line}\n" for line in body(61).splitlines())
    decorated = "@cache\n" + body(60)
    found, _ = plant(
        {
            "src/hanlin/ok.py": "",
            "src/hanlin/a.py": "class A:\n" + inner,
            "src/hanlin/b.py": decorated.replace("x", "y"),
            "tests/test_c.py": body(61),
        }
    )
    assert found == [
        "src/hanlin/a.py:2: 61 lines of code in A.f; at most 60",
        "src/hanlin/b.py:2: 61 lines of code in f; at most 60",
        "tests/test_c.py:1: 61 lines of code in f; at most 60",
    ]


def test_imports_limit(plant):
    """Guards against modules counted by line: one `from` may bring many, and one module many names."""
    modules = {f"src/hanlin/m{number}.py": "" for number in range(6)}
    modules |= {f"src/hanlin/nn/n{number}.py": "" for number in range(7)}
    names = "from hanlin import m0, m1, m2, m3, m4, m5\nfrom hanlin.nn.n0 import a, b, c\nimport os, json\n"
    inside = "def f():\n    from hanlin.nn import n1, n2, n3\n    import hanlin.nn.n4, hanlin.nn.n5\n"
    assert plant({**modules, "src/hanlin/x.py": names + inside})[0] == []
    more = "from .nn import n6\nfrom . import m0\n"
    assert plant({"src/hanlin/x.py": names + more + inside})[0] == [
        "src/hanlin/x.py:1: 13 own modules imported; at most 12"
    ]
    assert plant({"src/hanlin/x.py": "", "tests/test_x.py": names + more.replace(".", "hanlin.", 1) + inside})[0] == []


def test_repeated_blocks(plant):
    """Guards against copies that comments, spaces or another file hide, and against alarms over a few lines."""
    block = lines(8)
    dressed = "".join(f"# why\n\n{line.replace(' = ', '  =  ')}  # so\n" for line in block.splitlines())
    assert plant({"src/hanlin/a.py": block, "src/hanlin/b.py": lines(7) + "y = 1\n"})[0] == []
    found, totals = plant({"src/hanlin/b.py": "y = 1\n" + dressed})
    assert found == ["src/hanlin/b.py:4: repeats src/hanlin/a.py:1; at most 1% of lines, 47.1% are"]
    assert totals.endswith("47.1% repeated")
    found, _ = plant({"src/hanlin/b.py": "", "src/hanlin/a.py": block + "y = 1\n" + block})
    assert found == ["src/hanlin/a.py:10: repeats src/hanlin/a.py:1; at most 1% of lines, 47.1% are"]
    found, _ = plant({"src/hanlin/a.py": lines(12) + "y = 1\n" + lines(12)})
    assert found == ["src/hanlin/a.py:14: repeats src/hanlin/a.py:1; at most 1% of lines, 48.0% are"]
    big = {f"src/hanlin/c{number}.py": lines(270, 1000 * number) for number in range(1, 4)}
    found, totals = plant({"src/hanlin/a.py": block + "y = 1\n" + block} | big)
    assert (found, totals[-13:]) == ([], "1.0% repeated")


def test_copies_in_tests_are_free(plant):
    """Guards against a wall for tests, which repeat themselves to be read alone."""
    assert plant({"tests/test_a.py": lines(50), "tests/test_b.py": lines(50), "tools/a.py": lines(50)})[0] == []


def test_folder_limit(plant):
    """Guards against crowded folders; test folders and __init__.py are not counted."""
    files = {f"src/hanlin/nn/n{number}.py": "" for number in range(14)} | {"src/hanlin/nn/__init__.py": ""}
    files |= {f"tests/unit/test_{number}.py": "" for number in range(30)}
    assert plant(files)[0] == []
    assert plant({"src/hanlin/nn/n14.py": ""})[0] == ["src/hanlin/nn:1: 15 files; at most 14"]


def test_circles(plant):
    """Guards against modules that can be imported in one order only; imports that run later close no circle."""
    late = "import typing\ndef f():\n    from hanlin import a\nif typing.TYPE_CHECKING:\n    from hanlin.a import A\n"
    assert plant({"src/hanlin/a.py": "from hanlin import b", "src/hanlin/b.py": late})[0] == []
    found, _ = plant({"src/hanlin/b.py": "class B:\n    import hanlin.nn.c", "src/hanlin/nn/c.py": "from ..a import A"})
    assert found == [
        "src/hanlin/a.py:1: imports in a circle, hanlin.a -> hanlin.b -> hanlin.nn.c -> hanlin.a; at most 0"
    ]
    package = {"src/hanlin/nn/__init__.py": "from .c import A", "src/hanlin/nn/c.py": "from . import B"}
    assert plant({**package, "src/hanlin/b.py": ""})[0] == [
        "src/hanlin/nn/__init__.py:1: imports in a circle, hanlin.nn -> hanlin.nn.c -> hanlin.nn; at most 0"
    ]
    typed = "if TYPE_CHECKING:\n    import json\nelse:\n    import hanlin.e\n"
    found, _ = plant({"src/hanlin/d.py": "import hanlin.d", "src/hanlin/e.py": typed, "src/hanlin/nn/c.py": ""})
    assert found == [
        "src/hanlin/d.py:1: imports in a circle, hanlin.d -> hanlin.d; at most 0",
        "src/hanlin/e.py:4: imports in a circle, hanlin.e -> hanlin.e; at most 0",
    ]


def test_exceptions(plant):
    """Guards against a raised limit that raises others too, or outlives its reason."""
    place = "src/hanlin/a.py: lines of code"
    files = {"src/hanlin/a.py": lines(310), "src/hanlin/b.py": lines(310, 1000)}
    assert plant(files, {place: 310})[0] == ["src/hanlin/b.py:1: 310 lines of code; at most 300"]
    assert plant({"src/hanlin/b.py": ""}, {place: 305})[0] == ["src/hanlin/a.py:1: 310 lines of code; at most 305"]
    unused = plant({"src/hanlin/a.py": lines(300)}, {place: 310, "src/gone.py: lines of code": 400})[0]
    assert unused == [
        "tools/budget.py:1: exception 'src/gone.py: lines of code'; no longer needed",
        "tools/budget.py:1: exception 'src/hanlin/a.py: lines of code'; no longer needed",
    ]


def run(root):
    """Return (exit status, standard output) of the tool."""
    done = subprocess.run([sys.executable, budget.__file__, root], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_command(plant, tmp_path):
    """Guards against an exit status that CI cannot use, and a traceback over a file that does not parse."""
    plant({"src/hanlin/a.py": body(20), "tests/test_a.py": lines(5)})
    assert run(tmp_path) == (
        0,
        "budget: 20 lines of code in src, 5 in tests; largest file 20 (src/hanlin/a.py:1); "
        "largest function 20 (src/hanlin/a.py:1); 0.0% repeated\n",
    )
    plant({"src/hanlin/a.py": body(61)})
    assert run(tmp_path) == (1, "src/hanlin/a.py:1: 61 lines of code in f; at most 60\n")
    (tmp_path / "src/hanlin/a.py").write_text("def f(:\n")
    assert run(tmp_path) == (1, "src/hanlin/a.py:1: invalid syntax; a file that parses\n")
    assert run(tmp_path / "nothing")[0] == 0
