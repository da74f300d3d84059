"""Answers keep to their grammar, whatever the model would rather say; hostile grammars are refused in one line."""

import json
import random
import re
import string
import time

import jsonschema
import pytest
import toys

from hanlin.errors import ConfigError
from hanlin.generate import constrain, decode
from hanlin.generate.constrain import Vocabulary, json_schema, lark, regex
from hanlin.generate.sampling import Sampling
from hanlin.models import llama
from hanlin.text import tokenizer as text

STOP = frozenset({1})
ENGLISH = "the cat sat on the mat, and 12 dogs ran to name true false null 2026 [a] {b} : , \" ' - +"
LIMIT = 1000


@pytest.fixture(scope="module")
def tokenizers():
    texts = [ENGLISH, "猫坐在垫子上，狗跑了。名字是翰林。"] * 20
    return {
        "bytes": text.byte_level(),
        "bpe": text.train_bpe(texts, 320),
        "unigram": text.train_unigram(texts, 300),
        "characters": text.characters(texts),
    }


def toy(tokenizer, seed=0):
    """Return a model of random weights: it says anything."""
    config = llama.Config(vocab=tokenizer.vocab + 5, dim=8, layers=1, heads=2, context=LIMIT + 8, spread=0.4)
    return config.build(seed=seed).eval()


def written(model, tokenizer, grammars, limit=LIMIT, **choices):
    """Return an answer for each grammar, all of them in one batch."""
    each = [Sampling(grammar=grammar, limit=limit, seed=at, **choices) for at, grammar in enumerate(grammars)]
    prompts = [[3 + at % 7] * (1 + at % 3) for at in range(len(grammars))]
    return decode.answers(model, prompts, each, stop_ids=STOP, tokenizer=tokenizer)


def some_schema(rng, depth=0):
    """Return a random JSON schema whose answers are not long."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const", "pattern", "anyOf"]
    kind = rng.choice(kinds + ["object", "array", "object", "array", "ref"] * (depth < 2))
    if kind == "string":
        return {"type": "string", "minLength": rng.randint(0, 2), "maxLength": rng.randint(2, 8)}
    if kind == "integer":
        low = rng.randint(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 1000)}
    if kind == "number":
        return {"type": "number", "minimum": rng.randint(-9, 0), "exclusiveMaximum": rng.randint(1, 30)}
    if kind == "enum":
        return {"enum": [rng.choice(["a", "名字", 'q"uo\\te', 1, 2.5, None, True, "\n", ""]), "b", rng.randint(0, 99)]}
    if kind == "const":
        return {"const": rng.choice([{"x": [1, "二"]}, "c", 0, []])}
    if kind == "pattern":
        return {"type": "string", "pattern": f"^{some_regex(rng, 1)}$"}
    if kind == "anyOf":
        return {"anyOf": [some_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    if kind == "array":
        return {"type": "array", "items": some_schema(rng, depth + 1), "minItems": rng.randint(0, 2), "maxItems": 3}
    if kind == "ref":
        tree = {
            "type": "object",
            "properties": {"v": {"type": "boolean"}, "next": {"$ref": "#/$defs/t"}},
            "required": ["v"],
            "additionalProperties": False,
        }
        return {"$defs": {"t": tree}, "$ref": "#/$defs/t"} if depth == 0 else {"type": "boolean"}
    names = rng.sample(["name", "名字", "a b", "x", "longer_name", 'q"'], rng.randint(1, 3))
    properties = {name: some_schema(rng, depth + 1) for name in names}
    required = [name for name in names if rng.random() < 0.6]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def some_regex(rng, depth=0):
    """Return a random regular expression, read alike by Python and Rust, whose matches are not long."""
    parts = []
    for _ in range(rng.randint(1, 4)):
        kind = rng.choice(["literal", "class", "digits", "choice", "chinese", "not"] if depth < 3 else ["literal"])
        if kind == "literal":
            part = re.escape("".join(rng.choices(string.ascii_letters + "_:", k=rng.randint(1, 4))))
        elif kind == "class":
            part = rng.choice(["[a-f]", "[A-Z0-9_]", "[xyz]", "[+]"])
        elif kind == "digits":
            part = "[0-9]"
        elif kind == "chinese":
            part = rng.choice(["[一-九]", "翰林", "[天地]"])
        elif kind == "not":
            part = "[^a-zA-Z\\n\\r]"
        else:
            part = f"({some_regex(rng, depth + 1)}|{some_regex(rng, depth + 1)})"
        parts.append(part + rng.choice(["", "", "?", "{1,3}", "{2}"] if len(part) > 1 and part[0] in "[(" else [""]))
    return "".join(parts)


def valid(grammar, answer):
    """Return whether an answer is what its grammar says, by the word of Python's own libraries."""
    if grammar.kind == "regex":
        return re.fullmatch(grammar.text, answer) is not None
    jsonschema.validate(json.loads(answer), json.loads(grammar.text))
    return True


def check_many(model, tokenizer, count, seed):
    rng = random.Random(seed)
    grammars = [json_schema(some_schema(rng)) if at % 2 else regex(some_regex(rng)) for at in range(count)]
    found = written(model, tokenizer, grammars)
    assert len(found) == count
    for grammar, answer in zip(grammars, found):
        assert answer.finish == "stop", (grammar, answer.text)
        assert valid(grammar, answer.text), (grammar, answer.text)


@pytest.mark.parametrize("name", ["bytes", "bpe", "unigram", "characters"])
def test_random_grammars_are_kept(tokenizers, name):
    """A mask shifted by a row or a token, an answer cut before its end, bytes that are not the text's."""
    check_many(toy(tokenizers[name]), tokenizers[name], 50, seed=len(name))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_more_random_grammars_are_kept(tokenizers, seed):
    """The same, eight hundred times more."""
    for number, tokenizer in enumerate(tokenizers.values()):
        check_many(toy(tokenizer, seed), tokenizer, 20, seed=100 + 4 * seed + number)


BOMB: dict = {}
for _ in range(18):
    BOMB = {"anyOf": [BOMB, BOMB]}
SELF = {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
CHAIN = {"type": "object", "properties": {"v": {"type": "string"}, "a": {"$ref": "#"}}, "required": ["v", "a"]}
BRANCHES = [
    {"type": "object", "properties": {f"k{i}": {"type": "string"}}, "required": [f"k{i}"]} for i in range(10_000)
]
DEEP = '{"type":"array","items":' * 5000 + "{}" + "}" * 5000
PAIRS = [
    {
        "anyOf": [
            {"type": "object", "properties": {f"{c}{i}": {"type": "string"}}, "required": [f"{c}{i}"]} for c in "ab"
        ]
    }
    for i in range(14)
]
HOSTILE = {
    "it needs itself": json_schema(SELF),
    "beside what is free": json_schema(CHAIN),
    "ten thousand small branches": json_schema({"anyOf": [{"const": number} for number in range(10_000)]}),
    "a reference to itself": json_schema({"$ref": "#"}),
    "two to each other": json_schema(
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}
    ),
    "ten thousand branches": json_schema({"anyOf": BRANCHES}),
    "2 ** 18 branches": json_schema(BOMB),
    "2 ** 14 pairs": json_schema({"allOf": PAIRS}),
    "5,000 deep": constrain.Grammar(kind="json_schema", text=DEEP),
    "never true": json_schema(False),
    "no regular language": regex(r"(a+)+\1$"),
    "looking behind": regex("(?<=(a+)+)b"),
    "an automaton of 2 ** 50 states": lark("start: A\nA: /.*a.{15}/ & /.*b.{16}/ & /.*c.{17}/ & ~/.*d.{18}.*/"),
    "a megabyte": regex("a" * 1_000_000),
    "nothing ever ends": lark("start: a\na: b\nb: a"),
    "left, right and nothing": lark('start: "a" start'),
    "no rules": lark("what is this"),
    "an open bracket": regex("("),
    "no JSON": constrain.Grammar(kind="json_schema", text="{"),
    "no schema": constrain.Grammar(kind="json_schema", text="[1]"),
    "an unknown type": json_schema({"type": "strng"}),
    "what cannot be kept": json_schema({"type": "string", "format": "no-such-format"}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_grammars_are_refused_in_time(tokenizers, name):
    """A grammar that hangs or kills the process, or compiles into an answer without end."""
    words = Vocabulary(tokenizers["bytes"], STOP)
    words.guide(regex("a"), [5])
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"^grammar: ") as refused:
        words.guide(HOSTILE[name], [5])
    assert time.monotonic() - began < 5
    assert len(refused.value.problems) == 1
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|aa)+b", "(x+x+)+y", "(.*)*b"])
def test_catastrophic_expressions_cost_nothing_here(tokenizers, pattern):
    """An engine that backtracks: hours for a mask."""
    guide = Vocabulary(tokenizers["bytes"], STOP).guide(regex(pattern), [5])
    began = time.monotonic()
    for _ in range(60):
        guide.take(3 + ord("x" if "x" in pattern else "a"))
    assert not guide.broken
    guide.take(3 + ord("y" if "y" in pattern else "b"))
    assert time.monotonic() - began < 2


def test_what_breaks_on_the_way_is_no_whole_answer(tokenizers):
    """An answer that a budget cut, called complete; or a step that fails and takes every request with it."""
    tokenizer = tokenizers["bytes"]
    grammar = regex("((a{1,100}){1,100}){1,100}b")
    each = Sampling(grammar=grammar, limit=300, logit_bias={3 + ord("b"): -100})
    found = decode.answers(toy(tokenizer), [[5]], each, stop_ids=STOP, tokenizer=tokenizer)
    assert found[0].finish == "length"
    assert set(found[0].text) == {"a"}


def test_what_the_limit_cuts_says_so(tokenizers):
    """Half an answer that looks like a whole one."""
    tokenizer = tokenizers["bytes"]
    model = toy(tokenizer)
    grammar = regex("[a-z]{20}")
    assert [each.finish for each in written(model, tokenizer, [grammar] * 2, limit=19)] == ["length"] * 2
    whole = written(model, tokenizer, [grammar] * 2, limit=20)
    assert [(each.finish, len(each.ids)) for each in whole] == [("stop", 20)] * 2


def test_free_rows_beside_guided_ones_say_what_they_said_alone(tokenizers):
    """A mask on the wrong row, or a draw that depends on the company."""
    tokenizer = tokenizers["bpe"]
    model = toy(tokenizer)
    grammars = [None, regex("[a-z]{5}[0-9]"), None, json_schema({"enum": ["x", "yy"]})]
    mixed = written(model, tokenizer, grammars, limit=30, temperature=0.7, top_k=9, top_p=0.8, min_p=0.01)
    for at in range(4):
        prompt, seeded = (
            [3 + at % 7] * (1 + at % 3),
            Sampling(grammar=grammars[at], limit=30, seed=at, temperature=0.7, top_k=9, top_p=0.8, min_p=0.01),
        )
        alone = decode.answers(model, [prompt], seeded, stop_ids=STOP, tokenizer=tokenizer)
        assert alone[0].ids == mixed[at].ids
    assert re.fullmatch("[a-z]{5}[0-9]", mixed[1].text)


@pytest.mark.parametrize("config", [toys.RecurrentConfig(), toys.PairConfig()])
def test_every_family_keeps_to_a_grammar(config, tokenizers):
    """A family whose steps leave the mask out."""
    tokenizer = tokenizers["bytes"]
    model = config.model_copy(update={"vocab": 259, "context": 64}).build().eval()
    given = None
    if isinstance(model, toys.Pair):
        given = model.encode(toys.Tokens(ids=decode.torch.tensor([[5, 6, 7]])))
    choices = Sampling(grammar=regex("(yes|no|是), [0-9]{3}"), limit=20, n=3)
    found = decode.answers(model, [[0]], choices, stop_ids=STOP, tokenizer=tokenizer, memory=given)
    assert all(re.fullmatch("(yes|no|是), [0-9]{3}", each.text) for each in found)
    steps = decode.generate(model, [[0]], choices, stop_ids=STOP, tokenizer=tokenizer, memory=given)
    assert "".join(step.text for step in steps if step.n == 1) == found[1].text


SQL = """start: "SELECT " columns " FROM city" [where]
columns: COLUMN (", " COLUMN)*
where: " WHERE " COLUMN " = " VALUE
COLUMN: "name" | "area" | "人口"
VALUE: "'Beijing'" | "'O''Hare'" | /[0-9]{1,4}/
"""


def test_rules_in_larks_syntax(tokenizers):
    """A grammar made by a program from tables, columns and cell values."""
    for tokenizer in tokenizers.values():
        for each in written(toy(tokenizer), tokenizer, [lark(SQL)] * 8, limit=200):
            if each.finish == "stop":
                column = "(name|area|人口)"
                tail = f"( WHERE {column} = ('Beijing'|'O''Hare'|[0-9]{{1,4}}))?"
                assert re.fullmatch(f"SELECT {column}(, {column})* FROM city{tail}", each.text)


def test_the_space_that_is_not_shown(tokenizers):
    """SentencePiece's first token brings a space that the text does not have: the schema's first byte is lost."""
    tokenizer = metaspace()
    words = Vocabulary(tokenizer, STOP)
    assert words.guide(regex("cat"), [0]).mask(9)[3], "the token that a text begins with"
    assert not words.guide(regex("cat"), [3]).mask(9)[3], "here its space would be shown"
    model = toy(tokenizer)
    for grammar, pattern in (
        (regex("(cat|dog)[0-9]?"), "(cat|dog)[0-9]?"),
        (lark('start: "the" " cat"?'), "the( cat)?"),
    ):
        for prompt in ([tokenizer.special.pad], list(tokenizer.encode("cat").ids)):
            choices = Sampling(grammar=grammar, limit=40, n=12)
            for each in decode.answers(model, [prompt], choices, stop_ids=STOP, tokenizer=tokenizer):
                assert each.finish == "stop"
                assert re.fullmatch(pattern, each.text), (prompt, each.text)


def metaspace():
    """Return a tokenizer that only the library can decode, as T5's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = ["<pad>", "</s>", "<unk>", *(f"▁{each}" for each in ("cat", "dog", "the", "c", "")), *string.printable[:94]]
    raw = Tokenizer(models.Unigram([(word, -float(at)) for at, word in enumerate(words)], unk_id=2))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    raw.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return text.Tokenizer(raw, text.Special(pad=0, eos=1, unk=2), {})


def test_special_tokens_are_never_text(tokenizers):
    """`<|eos|>` written as the letters of an answer, and shown."""
    tokenizer = tokenizers["bytes"]
    mask = Vocabulary(tokenizer, STOP).guide(regex("(<|.)*"), [5]).mask(tokenizer.vocab + 5)
    assert not mask[[0, 2]].any()
    assert mask[1], "the empty text is complete"
    assert mask[3 + ord("<")]
    assert not mask[tokenizer.vocab :].any()


def test_without_a_stop_id_answers_end_where_they_must(tokenizers):
    """A model that has no way to say that it is done."""
    tokenizer = tokenizers["bytes"]
    choices = Sampling(grammar=json_schema({"type": "boolean"}), limit=9)
    found = decode.answers(toy(tokenizer), [[5]], choices, stop_ids=frozenset(), tokenizer=tokenizer)
    assert found[0].text in ("true", "false")


def test_a_grammar_needs_a_tokenizer(tokenizers):
    """Dropped in silence."""
    with pytest.raises(ConfigError, match="grammar without a tokenizer"):
        decode.answers(toy(tokenizers["bytes"]), [[5]], Sampling(grammar=regex("a")), stop_ids=STOP)
