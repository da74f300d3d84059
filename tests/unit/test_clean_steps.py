"""Cleaning: one table of steps and one set of promises for each, then what is special to one step."""

import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanlin import registry
from hanlin.data import documents
from hanlin.data.clean import characters, contract, language
from hanlin.data.clean.contract import Dropped
from hanlin.data.tally import Document, Tally
from hanlin.errors import ConfigError, MissingExtra

PROSE = """The jury said on Friday that an investigation of the recent election had produced no evidence.
It went on to say that the committee, which had been in charge, deserved the praise and thanks of the city.
Nobody in the room was much surprised; most had read as much in the morning's papers, and some had written it."""
CHINESE = """却说那院中几个铁匠因连日辛苦，夜间俱自睡了。及天明起来打造，篷下不见了三般兵器，一个个呆挣神惊，四下寻找。
只见那三个王子出宫来看，那铁匠一齐磕头道：“小主啊，神师的三般兵器都不知那里去了！”小王子听言，心惊胆战。"""
VERSE = "床前明月光，疑是地上霜。\n举头望明月，低头思故乡。"
DIALOGUE = "“你来了？”\n“来了……”\n“吃过了么？”\n“吃过了。”\n“那就坐罢，外面的雨怕是一时停不了的了。”"
ORDINARY = {"prose": PROSE, "Chinese": CHINESE, "verse": VERSE, "dialogue": DIALOGUE}


def step(name: str, **options) -> contract.Step:
    [ready] = contract.steps([{name: options}])
    return ready.step


STEPS = {each.name: each.step for each in contract.steps(registry.names(contract.KIND))}


def made(name: str, text: str, **options) -> str:
    """The text after one step, or why it is dropped in brackets."""
    result = step(name, **options)(Document(text=text, source="a"))
    return f"[{result.reason}]" if isinstance(result, Dropped) else result.text


@pytest.mark.parametrize("name", registry.names(contract.KIND))
@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY.keys())
def test_ordinary_text_survives(name: str, text: str) -> None:
    """Guards against thresholds that fit one language, or prose alone; and a step that is in no other test."""
    document = Document(text=text, source="a", meta={"group": "g"})
    result = step(name)(document)
    assert isinstance(result, Document)
    assert result.text == (text.rstrip() if name == "whitespace" else text)
    assert result is document or result.meta == document.meta


@settings(max_examples=60, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t…#。四a\u200d"), min_size=1, max_size=80)
)
def test_any_text(text: str) -> None:
    """Guards against a crash on a strange text, an impure step, and one whose own result it would change again."""
    for name, step in STEPS.items():
        document = Document(text=text, source="a")
        once = step(document)
        assert step(document) == once, name
        if isinstance(once, Document) and once.text:
            assert step(once) is once or name == "simplified", name


@pytest.mark.parametrize("name", STEPS)
def test_one_long_line(name: str) -> None:
    """Guards against a pattern whose time grows with the square: a tenth of a megabyte of one thing takes no second."""
    pieces = [
        " ",
        "\n",
        "\u200d",
        "a",
        "。",
        "点击",
        "未经授权",
        "…",
        "© 2",
        "javascript ",
        "\u3000\n",
        "的 ",
        "🏴\U000e0041",
    ]
    for piece in pieces:
        document = Document(text=piece * (100_000 // len(piece)) + "x", source="a")
        start = time.process_time()
        STEPS[name](document)
        assert time.process_time() - start < 1, piece


def test_steps_of_a_recipe() -> None:
    """Guards against an order that is not the recipe's, and options that do not survive a manifest."""
    given = ["whitespace", {"length": {"fewest": 3}}, {"unicode": None}]
    ready = contract.steps(given)
    assert [each.name for each in ready] == ["whitespace", "length", "unicode"]
    recorded = contract.record(ready)
    assert recorded[1]["length"]["fewest"] == 3
    assert contract.record(contract.steps(recorded)) == recorded
    everything = contract.record(contract.steps(registry.names(contract.KIND)))
    assert contract.record(contract.steps(everything)) == everything


def test_every_problem_of_a_recipe() -> None:
    """Guards against one error at a time, and against an option that is passed over."""
    with pytest.raises(ConfigError) as caught:
        contract.steps(["lenght", {"length": {"fewst": 3}}, 7, {"a": 1, "b": 2}, {"length": {"fewest": -1}}])
    said = caught.value.problems
    assert len(said) == 5
    assert said[0].startswith("clean.0: unknown 'lenght'; known: ")
    assert said[0].endswith("did you mean 'length'?")
    assert said[1].startswith("clean.1.length.fewst: unknown key")
    assert said[2].startswith("clean.2: 7; expected a step's name")


def test_account(tmp_path: Path) -> None:
    """Guards against a change or a drop that is not counted, and bytes of text that is no longer there."""
    texts = ["kept as it is", "  two \nlines\t", "short", "© 2020 Somebody", "café"]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": {text!r}}}\n'.replace("'", '"') for text in texts))
    tally = Tally()
    ready = contract.steps(["unicode", "whitespace", "boilerplate", {"length": {"fewest": 1, "min_characters": 6}}])
    found = list(contract.clean(documents.read(tmp_path, tally), ready, tally))
    assert [each.text for each in found] == ["kept as it is", "  two\nlines"]
    assert tally.kept == 2
    assert tally.bytes == sum(len(each.text.encode()) for each in found)
    report = tally.report()
    assert report["read"] == 5 == report["kept"] + sum(each["count"] for each in report["dropped"].values())
    assert report["dropped"] == {
        "boilerplate: nothing left": {"count": 1, "examples": ["a.jsonl:4"]},
        "length: fewer than 6 characters": {"count": 2, "examples": ["a.jsonl:3", "a.jsonl:5"]},
    }
    assert report["changed"]["whitespace"] == {"documents": 1, "lines": 0, "characters": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cafe\u0301", "café"),
        ("２ ﬁ ² 　Ⅳ", "２ ﬁ ² 　Ⅳ"),  # NFKC would change each
        ("각", "각"),
        ("\u2126", "Ω"),
    ],
)
def test_unicode(text: str, expected: str) -> None:
    """Guards against two spellings of one character, and against NFKC."""
    assert made("unicode", text) == expected


@pytest.mark.parametrize(
    "kept",
    [
        "👨‍👩‍👧 👩🏽‍🚀 ❤️‍🔥 🏳️‍🌈",
        "🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
        "می‌خواهم",
        "क्‍ष න්‍ද",
        "שלום\u200f, abc",
        "a\tb\nc",
    ],
)
def test_what_controls_keep(kept: str) -> None:
    """Guards against families, flags and Persian words that fall apart."""
    assert made("controls", kept) == kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\u200bb\ufeffc\u00add\u2060e\x07f\x9fg\u202eh\u200ei", "abcdefghi"),
        ("中\u200d文\u200c字", "中文字"),
        ("a\r\nb\rc\u2028d\x85e\ff", "a\nb\nc\nd\ne\nf"),
        ("a\U000e0041\U000e0042b", "ab"),
        ("👩\u200d!", "👩!"),
    ],
)
def test_controls(text: str, expected: str) -> None:
    """Guards against characters that split words unseen, hide instructions or turn text around."""
    assert made("controls", text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a \t\nb　\nc", "a\nb\nc"),
        ("a\n\n\n\n\nb\n\n\nc", "a\n\n\nb\n\n\nc"),
        ("a\n \n\t\n　\n \nb", "a\n\n\nb"),
        ("a\xa0b\u2009c\u202fd　e", "a b c d　e"),
        ("\n \n    indented\n  less\n\n", "    indented\n  less"),
        ("　　学而时习之", "　　学而时习之"),
    ],
)
def test_whitespace(text: str, expected: str) -> None:
    """Guards against lost indentation, and blank lines that are not blank."""
    assert made("whitespace", text) == expected


@pytest.mark.parametrize(
    "line",
    [
        "Please enable JavaScript to view this page.",
        "This site uses cookies to improve your experience.",
        "Privacy Policy | Terms of Use",
        "© 2021 Example Inc. All rights reserved.",
        "Sign up for our newsletter",
        "Share on Facebook",
        "Read more »",
        "版权所有 © 某某公司",
        "京ICP备12345678号-1",
        "点击查看更多",
        "扫描二维码关注我们",
        "未经授权不得转载",
        "责任编辑：王某",
        "上一篇：无题",
    ],
)
def test_boilerplate(line: str) -> None:
    """Guards against notices that a model learns by heart."""
    assert made("boilerplate", f"{PROSE}\n{line}\n{CHINESE}") == f"{PROSE}\n{CHINESE}"


@pytest.mark.parametrize(
    "line",
    [
        "JavaScript was written in ten days.",
        "She baked cookies for all of us.",
        "He read more than anyone I knew.",
        "他点了点头，说来源不明的东西不要吃。",
        "作者是一位老人，编辑也是。",
        "They registered the car and went home.",
        "微信是一种通讯工具，也可以分享照片。",
        "{braces} and so on",
    ],
)
def test_what_boilerplate_keeps(line: str) -> None:
    """Guards against words that are taken for notices."""
    assert made("boilerplate", line) == line


def test_rules_of_c4() -> None:
    """Guards against options that do nothing."""
    assert made("boilerplate", "Lorem ipsum dolor") == "[filler text]"
    assert made("boilerplate", "a {b}", curly_brackets=True) == "[curly bracket]"
    assert made("boilerplate", "I like JavaScript.\nyes", any_javascript=True) == "yes"
    assert made("boilerplate", "A menu\nA sentence.\n一句话。", sentences_only=True) == "A sentence.\n一句话。"
    assert made("boilerplate", "one\nTwo ACME three", phrases=["acme"]) == "one"


def test_length() -> None:
    """Guards against Chinese counted by spaces, and a bound that is off by one."""
    assert made("length", "word " * 19) == "[fewer than 20 words]"
    assert made("length", "word " * 20) == "word " * 20
    assert made("length", "字" * 19) == "[fewer than 20 words]"
    assert made("length", "字" * 20) == "字" * 20
    assert made("length", "word " * 21, most=20) == "[more than 20 words]"
    assert made("length", "word " * 5000, fewest=5000) == "word " * 5000
    assert made("length", ("." * 99 + "a") * 400) == ("." * 99 + "a") * 400
    assert made("length", "-" * 10_000) == "[fewer than 20 words]"
    assert made("length", PROSE, max_characters=10) == "[more than 10 characters]"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Buy cheap pills online today.\n" * 12, "lines"),
        (f"{PROSE}\n\n" * 3, "lines"),
        ("\n\n".join([PROSE.replace("\n", f"\n{n} ") for n in "ab"] + ["Same words\nhere again"] * 9), "lines"),
        ("best price " * 40, "one phrase"),
        (PROSE.replace("\n", " ") + " " + PROSE.replace("\n", " ") + " and so on", "phrases"),
        ("买手机就上某某网，" * 20, "one phrase"),
        ("".join(f"{n}、优惠大促销，全场包邮到家，先到先得，数量有限；" for n in "甲乙丙丁戊己庚辛"), "one phrase"),
        (CHINESE.replace("\n", "") + CHINESE.replace("\n", "") + "云云", "phrases"),
    ],
)
def test_repetition(text: str, reason: str) -> None:
    """Guards against spam in either language."""
    assert made("repetition", text) == f"[{reason}]"


def slow_again(words: list[str], n: int) -> int:
    """Characters in word n-grams that stood before, by the definition."""
    seen, covered = set(), set()
    for at in range(len(words) - n + 1):
        gram = tuple(words[at : at + n])
        if gram in seen:
            covered.update(range(at, at + n))
        seen.add(gram)
    return sum(len(words[at]) for at in covered)


def slow_top(words: list[str], n: int) -> int:
    """Characters in the most frequent word n-gram, by the definition."""
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    times = max(map(grams.count, grams), default=0)
    return (
        max((times * len("".join(gram)) for gram in grams if grams.count(gram) == times), default=0) if times > 1 else 0
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["a", "to", "the", "四"]), max_size=60), st.integers(1, 6))
def test_shares_by_their_definition(words: list[str], n: int) -> None:
    """Guards against a vectorised count that is not Gopher's."""
    from hanlin.data.clean import repetition

    units = repetition._words(" ".join(words))
    assert repetition._again(units, n) == slow_again(words, n)
    times, size = repetition._top(units, n)
    assert size <= slow_top(words, n)
    assert (size > 0) == (slow_top(words, n) > 0) == (times > 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("#tag word " * 9, "symbols"),
        ("wait ... and see ... or go ... ", "symbols"),
        ("等等……再说……算了……走吧……", "symbols"),
        ("12 30 45 price 99 17 2 8 31 6", "few letters"),
        ("价格：￥12，￥30，￥45！！！@@@ 100% 合计 99.00", "few letters"),
        ("\n".join(f"• item number {n} of the list" for n in range(9)), "bullets"),
        (
            "\n".join(f"this is how the story of day {n} begins, as it did on all other days …" for n in range(9)),
            "ellipses",
        ),
    ],
)
def test_symbols(text: str, reason: str) -> None:
    """Guards against menus, price lists and teasers."""
    assert made("symbols", text) == f"[{reason}]"


def test_spaced_punctuation_is_no_word() -> None:
    """Guards against corpora with spaces around their commas (Brown, WikiText) failing Gopher's share of words."""
    text = "`` No , '' he said . `` It is not , '' and left ; nobody , I think , ( or so it seems ) minded . " * 2
    assert made("symbols", text) == text


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (PROSE, "en"),
        (CHINESE, "zh"),
        ("舉頭望明月，低頭思故鄉。", "zh"),
        ("吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。", "ja"),
        ("나는 고양이로소이다. 이름은 아직 없다. 어디서 났는지 전혀 모르겠다.", "ko"),
        ("Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.", "de"),
        ("Тихо в лесу, только не спят барсуки, уши на ветку повесили.", "ru"),
        ("好", None),
        ("ok", None),
        ("123 456", None),
        ("我们使用 Transformer 和 attention 来训练语言模型，效果很好。", "zh"),
    ],
)
def test_language(text: str, code: str | None) -> None:
    """Guards against verse, traditional characters and foreign words taken for another language."""
    assert language.language(text) == code
    assert made("language", text) == (text if code in {"zh", "en", None} else f"[in {code}]")


def test_simplified() -> None:
    """Guards against characters converted one by one: 乾 is 干 in one word and not in another."""
    assert made("simplified", "乾坤乾燥，皇后後來頭髮") == "乾坤干燥，皇后后来头发"
    assert made("simplified", "軟體與滑鼠", origin="tw2sp") == "软件与鼠标"


@pytest.mark.parametrize(("module", "name"), [("py3langid", "language"), ("opencc", "simplified")])
def test_missing_extra(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> None:
    """Guards against an ImportError in the middle of a corpus: the extra is named before anything is read."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=r"hanlin\[documents\]"):
        contract.steps([name])


def test_kinds_of_characters() -> None:
    """Guards against a table that forgets a plane or a script."""
    counts = characters.counts(characters.kinds("a1 ,+四カ한𠀀😀\n"))
    assert counts == (2, 2, 1, 2, 1, 1, 2)
    assert characters.counts(characters.kinds("")) == (0,) * 7
    assert characters.words(characters.kinds("two words, 四个汉字 and4")) == 7
