"""OpenAI's JSON in: what is read, what is refused, and how that is said."""

import json
import time

import pytest

from hanlin.errors import ConfigError
from hanlin.serve.limits import Limits
from hanlin.serve.protocol import Chat, Completion, Detokenize, request, sampling, within
from hanlin.serve.refusal import Refused, field
from hanlin.serve.strict import read_json

SCHEMA = {"name": "city", "schema": {"type": "object"}}
NAMED = "response_format.json_schema.name"


def completion(**keys):
    """Read a completion request."""
    return request(Completion, json.dumps({"model": "m", "prompt": "a", **keys}).encode())


def chat(*messages, **keys):
    """Read a chat request."""
    messages = messages or ({"role": "user", "content": "hi"},)
    return request(Chat, json.dumps({"model": "m", "messages": messages, **keys}).encode())


def refused(read, *args, **keys):
    """Return the refusal of a request."""
    with pytest.raises(Refused) as caught:
        read(*args, **keys)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 1}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": "\\u0000"}',
        b'{"a": "\x00"}',
        b'{"a": "\\ud800"}',
        b'{"a": ["\\uDFFF"]}',
        b'{"\\udc00": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"",
        b"[]",
        b'"text"',
        b"null",
        b"{",
        b"{} {}",
    ],
)
def test_body_that_readers_may_differ_on_is_refused(data):
    """A duplicate key or a lone surrogate passes one check and is read otherwise, or breaks the tokenizer, later."""
    refused(read_json, data)


def test_pairs_of_surrogates_and_control_characters_are_text():
    """The check for halves of pairs refuses emoji that a client wrote as escapes."""
    assert read_json(b'{"a": "\\ud83d\\ude00\\u0001"}') == {"a": "😀\x01"}


def test_hostile_size_is_refused_before_it_costs():
    """Each unknown key is compared with every known one, and each item has a line: one body takes minutes."""
    began = time.process_time()
    refused(read_json, json.dumps({f"temprature{k}": 1 for k in range(50_000)}).encode())
    refused(chat, {f"contint{k}": 1 for k in range(50_000)})
    refused(completion, logit_bias={str(k): "x" for k in range(50_000)})
    assert len(str(refused(completion, prompt=[[True] * 200_000]))) < 500
    refused(completion, stop=[1] * 200_000)
    refused(chat, modalities=[1] * 200_000)
    refused(chat, *[{"role": 1}] * 50_000)
    assert time.process_time() - began < 10


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("a", ("a",)),
        ("", ("",)),
        (["a", "b"], ("a", "b")),
        ([1, 2], ((1, 2),)),
        ([[1], [2, 3]], ((1,), (2, 3))),
    ],
)
def test_prompts_of_all_four_kinds(prompt, read):
    """A list of ids is read as several prompts."""
    assert completion(prompt=prompt).prompt == read


@pytest.mark.parametrize("prompt", [None, 1, True, {}, [], [[]], [1, "a"], [[1], "a"], [True], [-1], [1.0], [[2**31]]])
def test_prompt_of_no_kind_is_refused_in_one_line(prompt):
    """A union of types answers with one line a member, none of which helps."""
    found = refused(completion, prompt=prompt)
    assert found.param == "prompt"
    assert len(found.problems) == 1


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"n": True}, "n"),
        ({"n": "1"}, "n"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"n": 10**20}, "n"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": True}, "logprobs"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"stop": 1}, "stop"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"01": 1}}, "logit_bias"),
        ({"logit_bias": {"-1": 1}}, "logit_bias"),
        ({"logit_bias": {"٣": 1}}, "logit_bias"),
        ({"logit_bias": {"1": 101}}, "logit_bias[1]"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"best_of": 2}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"echo": True, "logprobs": 0}, "echo"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"usage": True}}, "stream_options.usage"),
        ({"store": True}, "store"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
    ],
)
def test_impossible_values_are_refused_by_name(keys, param):
    """A value of the wrong type is made to fit, or fails deep inside with a 500."""
    assert refused(completion, **keys).param == param


@pytest.mark.parametrize(
    ("keys", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"functions": [{}]}, "functions"),
        ({"response_format": {"type": "json"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": SCHEMA}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {**SCHEMA, "name": "a b"}}}, NAMED),
        ({"response_format": "text"}, "response_format"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x", "colour": 1}]}, "messages[0].colour"),
    ],
)
def test_what_a_chat_cannot_do_is_refused_by_name(keys, param):
    """Tools or a schema are dropped in silence, and the answer is not what the caller relies on."""
    found = refused(chat, **keys)
    assert found.param == param
    assert len(found.problems) == 1 or "robot" in str(found)


def test_unknown_field_names_its_neighbour():
    """A misspelled field has no effect, and nobody notices."""
    found = refused(completion, temprature=0, max_token=3)
    assert "did you mean 'temperature'?" in found.problems[0]
    assert "did you mean 'max_tokens'?" in found.problems[1]
    assert found.param == "temprature"


def test_long_unknown_field_still_says_what_to_do():
    """A field's name of a megabyte is sent back whole, or pushes the help out."""
    line = refused(completion, **{"x" * 100_000: 0, "temprature": 1})
    assert len(str(line)) < 4_000
    assert "temperature" in str(line)


def test_null_is_absent_and_neutral_fields_have_no_effect():
    """Clients send null for what they do not set, and fields that mean nothing here: refused, they cannot connect."""
    nothing = dict.fromkeys(set(Chat.model_fields) - {"model", "messages"})
    neutral = {
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "parallel_tool_calls": True,
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "tools": [],
        "tool_choice": "none",
        "modalities": ["text"],
        "response_format": {"type": "text"},
    }
    plain = sampling(chat(seed=1), 5)
    assert sampling(chat(**{**nothing, "seed": 1}), 5) == plain
    assert sampling(chat(**neutral, seed=1), 5) == plain


def test_message_that_a_client_got_back_can_be_sent_again():
    """An answer's own nulls (refusal, tool_calls, …) are unknown keys, and the second turn fails."""
    own = {"role": "assistant", "content": "hi", "refusal": None, "tool_calls": None, "audio": None}
    own |= {"annotations": [], "function_call": None, "name": None}
    assert chat(own).messages[0].content == "hi"


def test_text_parts_are_joined_by_line_ends():
    """Parts glued together make words that nobody wrote."""
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert chat({"role": "user", "content": parts}).messages[0].content == "a\nb"


def test_settings_reach_the_sampler_as_meant():
    """Temperature 0 is read as unset; one penalty is passed as another; top_p 0 or top_k -1 is refused."""
    found = sampling(
        completion(
            temperature=0,
            top_p=0,
            top_k=-1,
            min_p=0.1,
            presence_penalty=0.5,
            frequency_penalty=-0.5,
            repetition_penalty=1.5,
            logit_bias={"7": -100, "8": 1.5},
            stop="x",
            n=3,
            best_of=3,
            seed=-4,
            logprobs=0,
        ),
        9,
    )
    assert (found.temperature, found.top_k, found.min_p) == (0.0, 0, 0.1)
    assert 0 < found.top_p < 1e-6
    assert (found.presence, found.frequency, found.repetition) == (0.5, -0.5, 1.5)
    assert found.logit_bias == {7: -100, 8: 1.5}
    assert (found.stop, found.n, found.seed, found.logprobs, found.limit) == (("x",), 3, -4, 0, 9)


def test_defaults_are_openais_and_no_seed_is_a_new_one():
    """Without a seed every call gives the same answer, since the sampler takes none as 0."""
    one, two = sampling(completion(), 16), sampling(completion(), 16)
    assert (one.temperature, one.top_p, one.n, one.logprobs, one.stop) == (1.0, 1.0, 1, None, ())
    assert one.seed != two.seed


@pytest.mark.parametrize(("keys", "logprobs"), [({}, None), ({"logprobs": True}, 0), ({"logprobs": False}, None)])
def test_chat_logprobs_are_a_switch_and_a_count(keys, logprobs):
    """`logprobs: true` is taken for one alternative."""
    assert sampling(chat(**keys), 1).logprobs == logprobs
    if logprobs == 0:
        assert sampling(chat(**keys, top_logprobs=4), 1).logprobs == 4


def test_bounds_of_the_server_are_kept_all_at_once():
    """Only the first bound is reported, and the caller mends one field a request."""
    limits = Limits(n=2, prompts=2, stop_characters=3)
    with pytest.raises(ConfigError) as caught:
        within(completion(n=3, prompt=["a"] * 3, stop=["ok", "long"]), limits)
    assert [field(line) for line in caught.value.problems] == ["n", "prompt", "stop"]
    within(completion(n=2, prompt=["a"] * 2, stop="ok?"), limits)


def test_ids_to_decode_are_ids():
    """A negative id reaches the library, which panics."""
    assert request(Detokenize, b'{"model": "m", "tokens": [1, 2]}').tokens == (1, 2)
    for wrong in (b"[-1]", b"[true]", b'"a"', b"[1e3]", b"[4294967296]"):
        refused(request, Detokenize, b'{"model": "m", "tokens": ' + wrong + b"}")
