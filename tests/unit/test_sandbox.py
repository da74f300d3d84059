"""Templates that want out, to run on, or to fill the memory; and the honest ones beside them."""

from __future__ import annotations

import threading
import time
import tracemalloc
from datetime import datetime
from types import SimpleNamespace

import pytest

from hanlin.text import allowance
from hanlin.text.sandbox import BEGIN, END, LONGEST, ChatError, Template

NOW = datetime(2026, 1, 2, 3, 4)
GIVEN = {"messages": [{"role": "user", "content": "hello"}], "bos_token": "<s>", "add_generation_prompt": True}


def render(source, brackets=False, **more):
    return Template(source).render({**GIVEN, **more}, NOW, brackets=brackets)


def loops(depth, body, size=1000):
    """Return loops in loops."""
    return f"{{% for i in range({size}) %}}" * depth + body + "{% endfor %}" * depth


def grown(start, step, times=200, show="ns.a|length"):
    """Return a template that changes ns.a again and again."""
    head = f"{{% set ns = namespace(a={start}) %}}"
    return head + f"{{% for i in range({times}) %}}{{% set ns.a = {step} %}}{{% endfor %}}{{{{ {show} }}}}"


ESCAPES = {
    "class": "{{ ''.__class__ }}",
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "item": "{{ ''['__class__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map attribute": "{{ ['']|map(attribute='__class__')|list }}",
    "map attr": "{{ ['']|map('attr', '__class__')|list }}",
    "sort attribute": "{{ ['', 'a']|sort(attribute='__class__') }}",
    "selectattr": "{{ ['']|selectattr('__class__')|list }}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of ours": "{{ range.call.__globals__ }}",
    "init": "{{ namespace.__init__.__globals__ }}",
    "owner of a method": "{{ 'a'.upper.owner }}",
    "macro": "{% macro m() %}{% endmacro %}{{ m._func.__globals__ }}",
    "macro environment": "{% macro m() %}{% endmacro %}{{ m._environment }}",
    "caller": "{% macro m() %}{{ caller._func }}{% endmacro %}{% call m() %}{% endcall %}",
    "loop": "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
    "loop class": "{% for i in [1] %}{{ loop.__class__ }}{% endfor %}",
    "self": "{{ self._TemplateReference__context }}",
    "self init": "{{ self.__init__.__globals__ }}",
    "undefined": "{{ missing.__class__ }}",
    "namespace underscore": "{% set ns = namespace() %}{{ ns.__class__ }}",
    "format": "{{ '{0.__class__}'.format('') }}",
    "format map": "{{ '{a.__class__}'.format_map({'a': 1}) }}",
    "format in map": "{{ ['{0.__class__}']|map('format', 1)|map('length').gi_frame }}",
    "lipsum": "{{ lipsum(100000) }}",
    "lipsum globals": "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "joiner": "{{ joiner.__init__.__globals__.os }}",
    "dict": "{{ dict.mro() }}",
    "list append": "{{ [].append(1) }}",
    "dict update": "{{ {}.update(a=1) }}",
    "mutate messages": "{{ messages.clear() }}",
    "call a text": "{{ 'a'() }}",
    "include": "{% include '/etc/passwd' %}",
    "include variable": "{% include messages[0].content %}",
    "import": "{% import 'os' as os %}",
    "from import": "{% from 'os' import path %}",
    "extends": "{% extends 'base' %}",
    "block": "{% block a %}{% endblock %}{{ self.a() }}",
    "autoescape": "{% autoescape true %}{{ 'a' }}{% endautoescape %}",
}

FLOODS = {
    "loops": loops(3, "x"),
    "empty loops": loops(4, ""),
    "loops of ifs": loops(2, "{% if i %}{% endif %}" * 1800, 10_000),
    "loops of constants": loops(3, "{{ '' }}"),
    "filtered loop": "{% for i in range(99999) if i < 0 %}{% endfor %}" * 800,
    "loop length": loops(2, "{{ loop.length }}", 100_000),
    "recursive loop": "{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}",
    "macro of itself": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macros of two": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(40) }}",
    "call of itself": "{% macro m() %}{% call m() %}{% endcall %}{% endmacro %}{{ m() }}",
    "range": "{{ range(10**9)|list }}",
    "range in a loop": "{% for i in range(10**15) %}{% endfor %}",
    "range by two": "{% for i in range(0, 10**9, 2) %}{% endfor %}",
    "range past C": "{{ range(2**63 - 1) }}",
    "ranges": loops(1, "{{ range(99999)|list|length }}", 10_000),
    "doubling": grown("'a'", "ns.a + ns.a"),
    "doubling by ~": grown("'a'", "ns.a ~ ns.a"),
    "doubling by join": grown("'a'", "[ns.a, ns.a]|join"),
    "doubling by method": grown("'a'", "ns.a.join(['', '', ns.a])"),
    "doubling by %": grown("'a'", "'%s%s' % (ns.a, ns.a)"),
    "doubling by format": grown("'a'", "'%s%s'|format(ns.a, ns.a)"),
    "doubling by replace": grown("'a'", "ns.a.replace('a', 'aa')"),
    "doubling a list": grown("[1]", "ns.a + ns.a"),
    "a list twice": grown("[1]", "[ns.a, ns.a]"),
    "a tuple twice": grown("(1,)", "(ns.a, ns.a)"),
    "a dictionary twice": grown("{}", "{'a': ns.a, 'b': ns.a}"),
    "dict() twice": grown("{}", "dict(a=ns.a, b=ns.a)"),
    "a list twice, shown": grown("[1]", "[ns.a, ns.a]", 22, "ns.a"),
    "a list twice, compared": "{% set a = namespace(a=[1], b=[1]) %}{% for i in range(40) %}{% set a.a = [a.a, a.a] %}"
    "{% set a.b = [a.b, a.b] %}{% endfor %}{{ a.a == a.b }}",
    "set block": "{% set a %}" + "x" * 1000 + "{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 40,
    "set block with a filter": "{% set a = 'x' %}" + "{% set a | replace('x', 'xx') %}{{ a }}{% endset %}" * 60,
    "filter block": "{% filter replace('x', 'xx') %}" * 15 + "x" * 1000 + "{% endfilter %}" * 15,
    "set blocks of emoji": "{% set a %}"
    + "🌙" * 1000
    + "{% endset %}"
    + "".join(f"{{% set a{i} %}}{'{{ a }}' * 990}{{% endset %}}" for i in range(3))
    + "".join(f"{{% set a{i} %}}{{{{ a1 }}}}{{{{ a2 }}}}🌙{{% endset %}}" for i in range(3, 400)),
    "format of brackets": "{{ ('%(' * 1900000) % {} }}",
    "a long path": "{{ [1]|map(attribute='a.' * 1900000)|list }}",
    "a long path to sort by": "{{ [1]|sort(false, false, 'a.' * 1900000) }}",
    "power": "{{ 10**10**10 }}",
    "power once": "{{ 9**999999999 }}",
    "power of a float": "{{ 2.0**999999999 }}",
    "shifted": grown("2", "ns.a * ns.a", show="ns.a"),
    "large literal": "{{ " + "9" * 4000 + " * " + "9" * 4000 + " }}",
    "hex": "{{ ('f' * 400000)|int(0, 16) }}",
    "text times": "{{ 'a' * 10**9 }}",
    "times text": "{{ 10**9 * 'a' }}",
    "list times": "{{ [0] * 10**9 }}",
    "tuple times": "{{ (0,) * 10**9 }}",
    "wide number": "{{ '%1000000000d' % 1 }}",
    "wide number, named": "{{ '%(a)1000000000d' % {'a': 1} }}",
    "wide number, starred": "{{ '%*d' % (10**9, 1) }}",
    "wide number, filter": "{{ '%1000000000d'|format(1) }}",
    "precise number": "{{ '%.1000000000f' % 1 }}",
    "many of one": "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "center": "{{ 'a'|center(10**9) }}",
    "center method": "{{ 'a'.center(10**9) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "replace": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replace nothing": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "join": "{{ range(99999)|join('a' * 99999) }}",
    "join method": "{{ ('a' * 99999).join('b' * 99999) }}",
    "indent": "{{ ('\n' * 100000)|indent(10**6) }}",
    "indent by text": "{{ ('a\n' * 100000)|indent('x' * 100000) }}",
    "indented JSON": "{{ [[[1]]]|tojson(indent=10**9) }}",
    "separated JSON": "{{ range(999)|list|tojson(separators=('x' * 100000, ':')) }}",
    "round": "{{ 1.5|round(10**9, 'ceil') }}",
    "batch": "{{ [1]|batch(10**9, 0)|list }}",
    "sum of lists": "{{ ([[1]] * 50000)|sum(start=[]) }}",
    "wordwrap": "{{ ('a' * 1000000)|wordwrap(1) }}",
    "urlize": "{{ ('http://a ' * 100000)|urlize }}",
    "pprint": "{{ ([1] * 100000)|pprint }}",
    "map": "{{ range(99999)|map('replace', '', 'a' * 99999)|list }}",
    "maps": "{{ range(99999)|map('string')|map('list')|map('string')|join('x' * 100) }}",
    "map of map": "{{ [range(9999)|list] * 9999 }}",
    "select": loops(2, "{{ range(9999)|select('gt', 5)|list }}"),
    "html": "{{ ('<' * 3000000)|e }}",
    "large output": loops(1, "x" * 1000, 90_000),
    "large output of one": "{% set a = 'x' * 3000000 %}" + "{{ a }}" * 1000,
    "large output of a macro": "{% macro m() %}" + "x" * 30000 + "{% endmacro %}" + loops(2, "{{ m() }}"),
    "compare": "{% set a = 'x' * 1900000 + 'y' %}{% set b = 'x' * 1900000 + 'y' %}"
    + loops(2, "{{ '' if a == b }}{{ '' if a in b }}" * 50),
    "compare by test": "{% set a = 'x' * 1900000 + 'y' %}{% set b = 'x' * 1900000 + 'y' %}"
    + loops(2, "{{ '' if a is eq b }}" * 50),
    "strip": "{{ ('a' * 2000000).strip('b' * 1900000 + 'a') }}",
    "rfind": "{{ ('a' * 3000000).rfind('b' + 'a' * 1500000) }}",
    "split": "{{ ('ab ' * 1000000).split() }}",
    "split by": "{{ ('ab,' * 1000000).split(',') }}",
    "splitlines": "{{ ('ab\n' * 1000000).splitlines() }}",
    "a list of characters": "{{ ('翰' * 1000000)|list }}",
    "a loop of characters": "{% for c in '翰' * 1000000 %}{{ loop.length }}{% endfor %}",
    "title": "{{ ('a ' * 1000000)|title }}",
    "wide date": "{{ strftime_now('%1000000000d') }}",
    "dates": loops(3, "{{ strftime_now('%A') }}"),
    "deep brackets": "{{ " + "(" * 15000 + "1" + ")" * 15000 + " }}",
    "deep lists": "{{ " + "[" * 19000 + "]" * 19000 + " }}",
    "deep nots": "{{ " + "not " * 9000 + "1 }}",
    "long sum": "{{ " + "1+" * 18000 + "1 }}",
    "long path": "{{ a" + ".a" * 18000 + " }}",
    "many filters": "{{ ''" + "|e" * 18000 + " }}",
    "deep ifs": "{% if 1 %}" * 1800 + "{% endif %}" * 1800,
    "long elif": "{% if 0 %}" + "{% elif 0 %}" * 3000 + "{% endif %}",
    "too long": "a" * (LONGEST + 1),
    "spaces": "{{" + " " * 39000 + "%}",
    "open": "{%" * 19000,
    "comments": "{#" * 19000,
    "namespaces": grown("namespace()", "namespace(a=ns.a, b=ns.a)", 100, "[ns.a] * 10**9"),
}


@pytest.mark.parametrize("source", ESCAPES.values(), ids=ESCAPES)
def test_nothing_is_reached(source):
    """A template that finds a class finds the whole of Python."""
    with pytest.raises(ChatError) as caught:
        render(source)
    (line,) = caught.value.problems
    assert "\n" not in line
    assert line.startswith("chat template")


@pytest.mark.parametrize("source", FLOODS.values(), ids=FLOODS)
def test_nothing_runs_on(source, monkeypatch):
    """One template must not stop a server; the clock is set forward here, to save time."""
    monkeypatch.setattr(allowance, "SECONDS", 0.05)
    seconds = []
    while len(seconds) < 3 and min(seconds, default=2.0) >= 1.0:  # a machine that stalls makes one longer, not all
        begun = time.thread_time()
        with pytest.raises(ChatError) as caught:
            render(source)
        seconds.append(time.thread_time() - begun)
    assert min(seconds) < 1.0  # half a second is reading it
    (line,) = caught.value.problems
    assert len(line) < 500
    assert line.startswith("chat template")


def test_one_pause_is_forgiven(monkeypatch):
    """A rendering thread may have to collect the garbage of the whole process; what runs on is refused."""
    told = iter([0.0, 0.1, 5.0, 5.1, 5.2, *(9.0 for _ in range(99))])
    monkeypatch.setattr(allowance, "time", SimpleNamespace(thread_time=lambda: next(told)))
    left = allowance.Allowance(0, NOW, brackets=False)
    for _ in range(4):
        left.step()
    with pytest.raises(allowance.Refused, match="seconds"):
        left.step()


@pytest.mark.slow
@pytest.mark.parametrize("source", FLOODS.values(), ids=FLOODS)
def test_nothing_fills_the_memory(source):
    """A check that comes after the value was made is too late: refused in a second and a half, in 100 MB."""
    begun = time.thread_time()
    with pytest.raises(ChatError):
        render(source)
    assert time.thread_time() - begun < 1.5
    tracemalloc.start()
    try:
        with pytest.raises(ChatError):
            render(source)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


HONEST = {
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m['content'] | trim }}{% endfor %}": "<s>[user]hello",
    "a\n  {% if true %}\nb\n  {% endif %}\nc\n": "a\nb\nc",  # trim_blocks, lstrip_blocks
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i == 4 %}{% break %}{% endif %}{{ i }}"
    "{% endfor %}": "023",
    "{% for i in 'abc' %}{{ loop.index }}{{ loop.length }}{{ loop.last }}{{ loop.previtem }} {% endfor %}": ""
    "13False 23Falsea 33Trueb ",
    "{% for i in [3, 1] %}{{ loop.cycle('a', 'b') }}{% else %}none{% endfor %}": "ab",
    "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}": "a1",
    "{% for i in [] %}{% else %}none{% endfor %}": "none",
    "{% set ns = namespace(a=0) %}{% for i in range(4) %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}": "6",
    "{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}": "1",
    "{% set x %}a{{ 1 }}{% endset %}{{ x }}{{ x }}": "a1a1",
    "{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs|length }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}{{ m(1,2,3) }}": ""
    "120130121",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}x{% endcall %}": "<x>",
    "{% filter upper %}a{% endfilter %}{% with a = 1 %}{{ a }}{% endwith %}": "A1",
    "{{ {'a': 'é<', 'b': [1, none, true]}|tojson }}": '{"a": "é<", "b": [1, null, true]}',
    "{{ ['é\x7f😀']|tojson(ensure_ascii=true) }}": '["\\u00e9\\u007f\\ud83d\\ude00"]',
    "{{ {'b': 1, 'a': 2}|tojson(indent=1, sort_keys=true) }}": '{\n "a": 2,\n "b": 1\n}',
    "{{ strftime_now('%d %b %Y') }}": "02 Jan 2026",
    "{{ messages[1:]|length }}{{ messages[-1].role }}{{ 'hello'[::-1] }}": "0userolleh",
    "{{ 'a,b'.split(',')[-1] }}{{ ' x '.strip() }}{{ 'ab'.replace('a', 'c') }}{{ '-'.join(['a', 'b']) }}": "bxcba-b",
    "{{ 'x' in 'xy' }}{{ 1 if false }}{{ none is none }}{{ nothing is defined }}{{ nothing }}": "TrueTrueFalse",
    "{{ messages|selectattr('role', 'equalto', 'user')|map(attribute='content')|join('|') }}": "hello",
    "{{ 7 // 2 }}{{ 7 % 4 }}{{ 2 ** 5 }}{{ 'a' ~ 1 }}{{ '%s-%03d' % ('a', 5) }}{{ 'a' * 3 }}": "3332a1a-005aaa",
    "{{ 'a-b-c'.split('-', maxsplit=1)[1] }}{{ 'a-b-c'.rsplit(sep='-')[0] }}{{ 'a\nb'.splitlines()|length }}": "b-ca2",
    "{{ 'ab'|upper }}{{ ' a'|trim }}{{ [3, 1]|sort|first }}{{ nothing|default('d') }}{{ 'a\nb'|indent(2) }}": ""
    "ABa1da\n  b",
    "{{ messages[0].get('name', 'nobody') }}{{ messages[0]['content'].startswith('he') }}": "nobodyTrue",
    "{{ messages[0].name is defined }}{{ messages[0].content is string }}{{ messages is iterable }}": "FalseTrueTrue",
    "{% raw %}{{ 7*7 }}{% endraw %}{{ '{{ 7*7 }}' }}": "{{ 7*7 }}{{ 7*7 }}",
    "{{ dict(a=1)['a'] }}{{ [1, 2]|sum }}{{ '5'|int + 1 }}{{ 2.5|round|int }}{{ '<'|e }}{{ 'x'|safe }}": "1362&lt;x",
    "{{ [range] }}{{ namespace(a=1) }}": "[<range>]<namespace>",
}


@pytest.mark.parametrize(("source", "text"), HONEST.items())
def test_honest_templates(source, text):
    """What templates in use do must go on working under the guard."""
    assert render(source) == text


def test_generation():
    """Brackets are for masks; in a prompt nothing of them is seen, and names set inside stay inside."""
    source = "{% set x = 1 %}a{% generation %}\nb{% set x = 2 %}{% endgeneration %}\nc{{ x }}"
    assert render(source) == "abc1"
    assert render(source, brackets=True) == f"a{BEGIN}b{END}c1"
    assert Template(source).generation
    assert not Template("{% with %}{% endwith %}").generation


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("\n\n{{ messages[9].content }}", 3, "no element 9"),
        ("\n{% for %}", 2, "Expected"),
        ("\n\n\n{{ raise_exception('Roles\n must alternate') }}", 4, "it refuses: Roles must alternate"),
        ("\n{% macro m() %}\n{{ 1 // 0 }}{% endmacro %}\n{{ m() }}", 3, "ZeroDivisionError"),
        ("{{ 'a'|nosuch }}", 1, "nosuch"),
        ("\n{{ 'a'.format() }}", 2, "'format' of a str is not for chat templates"),
        ("{{ 'a' + 1 }}", 1, "TypeError"),
    ],
)
def test_errors_say_where(source, line, said):
    """'TypeError' alone does not help who has forty lines of template."""
    with pytest.raises(ChatError) as caught:
        render(source)
    assert caught.value.problems[0].startswith(f"chat template, line {line}: ")
    assert said in caught.value.problems[0]


def test_a_template_after_a_refusal():
    """What one rendering used up, or left behind, is not the next one's."""
    template = Template("{% for i in range(n) %}{% for j in range(1000) %}{% endfor %}{% endfor %}{{ n }}")
    for _ in range(2):
        with pytest.raises(ChatError):
            template.render({"n": 100_000}, NOW)
        assert template.render({"n": 3}, NOW) == "3"


def test_threads_share_a_template():
    """Counters that live in the template would mix up two requests."""
    template = Template("{% for i in range(200) %}{{ name }}{% endfor %}")
    wrong = []

    def work(name):
        for _ in range(20):
            if template.render({"name": name}, NOW) != name * 200:
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(each,)) for each in "abcdef"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not wrong


def test_a_long_conversation_is_not_refused():
    """Limits that stop an attack must let a thousand messages through, and a book in one."""
    source = (
        "{% set ns = namespace(last='') %}{% for m in messages %}{% set content = m.content|trim %}"
        "{% if loop.first or m.role != messages[loop.index0 - 1].role %}{% set ns.last = m.role %}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}{% endfor %}"
    )
    many = [{"role": role, "content": "翰林 " * 100} for role in ("user", "assistant")] * 500
    assert render(source, messages=many).count("<|im_end|>") == 1000
    book = [{"role": "user", "content": "book " * 700_000}]
    assert len(render(source, messages=book)) > 3_400_000
