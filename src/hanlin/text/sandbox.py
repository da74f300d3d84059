"""Chat templates as strangers write them, rendered so that none can reach out, run on, or fill the memory.

    source ──jinja2──> tree ──Guard──> guarded tree ──jinja2──> code        once
    code, variables, allowance ──> text                                     many times, from any thread

    what the guard adds to the tree            what it stops
    ────────────────────────────────────────   ──────────────────────────────────────────────────────
    a count at every turn of a loop            loops in loops in loops
    a count at every macro                     macros that call themselves
    a weighing of every list, slice, `~`       lists of lists of lists, texts that double
    nothing for include, import, blocks        other files: refused

Attributes are never Python's: a template sees the keys of dictionaries and the methods listed in METHODS. It is given
plain data only, so there is nothing to reach. What may be called, and how much it may make: allowance.py.
`{% generation %}`, `raise_exception`, `strftime_now` and `tojson` do what they do in transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cache
from types import TracebackType
from typing import NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing, pass_context
from jinja2.visitor import NodeTransformer

from hanlin.errors import ChatError, problem
from hanlin.text.allowance import (
    CURRENT,
    TESTS,
    Allowance,
    Function,
    Names,
    Refused,
    Value,
    check_operator,
    filters,
    functions,
    turns,
    weight,
)

LONGEST = 40_000  # characters of a template, read in half a second at worst; the longest in use have some 20,000
DEEPEST = 50  # macros that call macros
BEGIN, END = "\ufdd0", "\ufdd1"  # around what the assistant says; no text holds these (control.py)

METHODS: Mapping[type, Sequence[str]] = {
    str: (
        *("capitalize", "casefold", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii"),
        *("isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join", "lower"),
        *("lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind", "rpartition", "rsplit"),
        *("rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper"),
    ),
    dict: ("get", "items", "keys", "values"),
    list: ("count", "index"),
    tuple: ("count", "index"),
    LoopContext: (
        *("changed", "cycle", "depth", "depth0", "first", "index", "index0", "last"),
        *("length", "nextitem", "previtem", "revindex", "revindex0"),
    ),
}
CALLED = ("changed", "cycle")  # what is a method of a loop
FORBIDDEN = {
    nodes.Include: "include",
    nodes.Import: "import",
    nodes.FromImport: "import",
    nodes.Extends: "extends",
    nodes.Block: "block",
    nodes.EvalContextModifier: "autoescape",
}


class Template:
    """A chat template, compiled; it does not change, and may be shared by threads."""

    def __init__(self, source: str, rewrite: Callable[[str], str] = str) -> None:
        """Compile; ChatError says in which line that fails. `rewrite` is applied to every text the template holds."""
        if len(source) > LONGEST:
            raise ChatError(problem("chat template", f"{len(source):,} characters", f"at most {LONGEST:,}"))
        sandbox = _sandbox()
        try:
            tree = sandbox.parse(source)
            self.generation = tree.find(nodes.Scope) is not None
            code = sandbox.compile(Guard(rewrite).visit(tree))
            self._code = jinja2.Template.from_code(sandbox, code, sandbox.make_globals(None))
        except (Exception, RecursionError) as error:
            _fail(error, getattr(error, "lineno", None))

    def render(self, variables: Mapping[str, Value], now: datetime, *, brackets: bool = False) -> str:
        """Return the text; with `brackets`, what stands in generation blocks stands between BEGIN and END.

        ChatError when the template refuses, fails, or uses more than its allowance.
        """
        left = Allowance(weight(list(variables.values())), now, brackets=brackets)
        token = CURRENT.set(left)
        try:
            context = self._code.new_context(dict(variables))
            return left.joined(self._code.root_render_func(context))
        except (Exception, RecursionError) as error:
            _fail(error, self._line(error.__traceback__))
        finally:
            CURRENT.reset(token)

    def _line(self, trace: TracebackType | None) -> int | None:
        """Return the line of the template where an error rose."""
        line = None
        while trace is not None:
            if trace.tb_frame.f_globals.get("__jinja_template__") is self._code:
                line = self._code.get_corresponding_lineno(trace.tb_lineno)
            trace = trace.tb_next
        return line


def _fail(error: BaseException, line: int | None) -> NoReturn:
    """Raise what went wrong in a template as one line."""
    where = f"chat template, line {line}" if line else "chat template"
    said = str(error)[:300].encode(errors="replace").decode()
    if isinstance(error, RecursionError | MemoryError):
        said = "it is nested too deeply"
    elif not isinstance(error, Refused | jinja2.TemplateError):
        said = f"{type(error).__name__}: {said}"
    raise ChatError(problem(where, said)) from None


class Generation(Extension):
    """`{% generation %} … {% endgeneration %}`: what the assistant says."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        """Return the body between two brackets; names set in it stay in it."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (nodes.Output([_filter(nodes.Const(each), ".bracket")]) for each in (BEGIN, END))
        return nodes.Scope([begin, *body, end], lineno=line)


class Guard(NodeTransformer):
    """Puts the counts into a tree, and refuses what reaches for other files."""

    def __init__(self, rewrite: Callable[[str], str]) -> None:
        """Keep what is to become of texts."""
        self.rewrite = rewrite

    def generic_visit(self, node: nodes.Node, *args: Value, **kwargs: Value) -> nodes.Node:
        """Visit the children; ChatError at what is forbidden."""
        name = next((name for kind, name in FORBIDDEN.items() if isinstance(node, kind)), None)
        if name:
            raise ChatError(problem(f"chat template, line {node.lineno}", f"'{name}' is not for chat templates"))
        return super().generic_visit(node, *args, **kwargs)

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:
        """Rewrite text that stands in the template."""
        node.data = self.rewrite(node.data)
        return node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:
        """Rewrite a text in quotes."""
        node.value = self.rewrite(node.value) if isinstance(node.value, str) else node.value
        return node

    def visit_For(self, node: nodes.For) -> nodes.Node:
        """Count the nodes of the body at every turn."""
        if node.recursive:
            raise ChatError(problem(f"chat template, line {node.lineno}", "'recursive' is not for chat templates"))
        cost = _size(node)
        self.generic_visit(node)
        assert isinstance(node.iter, nodes.Expr)
        node.iter = _filter(node.iter, ".turns", nodes.Const(cost))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        """Count the nodes of the body at every call."""
        cost = _size(node)
        self.generic_visit(node)
        count = _filter(nodes.Const(cost), ".charge")
        node.body.insert(0, nodes.ExprStmt(count, lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        """Weigh before joining."""
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), ".concat")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        """Weigh a slice, which passes by the environment."""
        self.generic_visit(node)
        return _filter(node, ".same") if isinstance(node.arg, nodes.Slice) else node

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        """Weigh a tuple, unless it is names to be set."""
        self.generic_visit(node)
        return _filter(node, ".same") if node.ctx == "load" else node

    def kept(self, node: nodes.Expr) -> nodes.Node:
        """Weigh what an expression makes, or look at the clock after it."""
        self.generic_visit(node)
        return _filter(node, ".same")

    visit_List = visit_Dict = visit_Compare = visit_Test = kept
    visit_CallBlock = visit_Macro


def _filter(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _size(node: nodes.Node) -> int:
    return sum(1 for _ in node.find_all(nodes.Node))


class Sandbox(ImmutableSandboxedEnvironment):
    """An environment in which all a template does is counted, and all it sees is plain data."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def getattr(self, obj: Value, attribute: str) -> Value:
        """Return the method, or the key, of a name after a dot."""
        if attribute in METHODS.get(type(obj), ()):
            value = getattr(obj, attribute)
            return Function(value, attribute, obj) if type(obj) is not LoopContext or attribute in CALLED else value
        if type(obj) is dict and attribute in obj:
            return obj[attribute]
        if type(obj) is Names and not attribute.startswith("_"):
            value = getattr(obj, attribute, missing)
            return self.undefined(obj=obj, name=attribute) if value is missing else value
        if isinstance(obj, Undefined):
            return obj[attribute]
        if attribute.startswith("_") or hasattr(type(obj), attribute):
            raise Refused(f"'{attribute}' of a {type(obj).__name__} is not for chat templates")
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Value, argument: Value) -> Value:
        """Return what stands at a key or a place, or else the method of that name."""
        if isinstance(obj, dict | list | tuple | str | range):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        if isinstance(obj, Undefined):
            return obj[argument]
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return self.undefined(obj=obj, name=argument)

    def call(__self, __context: Context, __obj: Value, *args: Value, **kwargs: Value) -> Value:
        """Call a macro or one of our functions; jinja2 passes names of its own, hence the underscores."""
        left = CURRENT.get()
        if not isinstance(__obj, Function | Macro | Undefined):
            raise Refused(f"a {type(__obj).__name__} cannot be called")
        left.depth += 1
        if left.depth > DEEPEST:
            raise Refused(f"it nests more than {DEEPEST} calls")
        made = super().call(__context, __obj, *args, **kwargs)
        left.depth -= 1
        return left.keep(made)

    def call_binop(self, context: Context, operator: str, left: Value, right: Value) -> Value:
        """Check, compute, weigh."""
        check_operator(CURRENT.get(), operator, left, right)
        return CURRENT.get().keep(super().call_binop(context, operator, left, right))

    def concat(self, pieces: Iterator[str]) -> str:  # type: ignore[override]
        """Return the text of a macro or a block."""
        return CURRENT.get().joined(pieces)


@pass_context
def _shown(context: Context, value: Value) -> str:
    return CURRENT.get().text(value)


@cache
def _sandbox() -> Sandbox:
    """Return the environment that all templates share."""
    made = Sandbox(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,  # nothing is computed before there is an allowance
        finalize=_shown,
        extensions=[Generation, "jinja2.ext.loopcontrols"],
    )
    made.filters = filters() | {".turns": turns}
    made.tests = {name: made.tests[name] for name in TESTS}
    made.globals = functions()
    return made
