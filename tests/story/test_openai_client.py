"""The real `openai` client against the real server: every answer is the one that the weights give without a server."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import openai
import pytest
import serving
import torch
from serving import CONTEXT, KEY

from hanlin.generate import decode
from hanlin.generate.sampling import Sampling

NAMES = {
    "max_tokens": "limit",
    "repetition_penalty": "repetition",
    "presence_penalty": "presence",
    "frequency_penalty": "frequency",
}
OURS_ALONE = ("top_k", "min_p", "repetition_penalty")  # the client passes them on in its extra_body

COMPLETIONS = {
    "greedy": {"prompt": "The quick", "temperature": 0},
    "drawn": {"prompt": "The quick", "seed": 7},
    "another seed": {"prompt": "The quick", "seed": -8},
    "largest seed": {"prompt": "The quick", "seed": 2**63 - 1},
    "cold": {"prompt": "霜", "seed": 1, "temperature": 0.3},
    "hot": {"prompt": "霜", "seed": 1, "temperature": 2},
    "three answers": {"prompt": "a", "seed": 3, "n": 3},
    "sixteen answers in eight places": {"prompt": "abc", "seed": 3, "n": 8, "max_tokens": 5},
    "one token": {"prompt": "a", "seed": 3, "max_tokens": 1},
    "nothing": {"prompt": "a", "max_tokens": 0},
    "to the end of the context": {"prompt": "a", "seed": 5, "max_tokens": CONTEXT - 2},
    "no prompt": {"prompt": "", "seed": 5},
    "token ids": {"prompt": [0, 100, 101, 102], "seed": 5},
    "several prompts": {"prompt": ["one", "two", "three", ""], "seed": 5},
    "several prompts, two answers": {"prompt": ["one", "霜"], "seed": 5, "n": 2},
    "several prompts of ids": {"prompt": [[5, 6, 7], [9]], "temperature": 0},
    "a stop string": {"prompt": "The", "seed": 2, "stop": ["e", "s"], "max_tokens": 60},
    "a lone stop string": {"prompt": "The", "seed": 2, "stop": "i", "max_tokens": 60},
    "a stop string that never comes": {"prompt": "The", "seed": 2, "stop": ["never to be said"]},
    "nucleus": {"prompt": "The", "seed": 2, "top_p": 0.5},
    "an empty nucleus": {"prompt": "The", "seed": 2, "top_p": 0},
    "the likeliest five": {"prompt": "The", "seed": 2, "top_k": 5},
    "not too unlikely": {"prompt": "The", "seed": 2, "min_p": 0.1},
    "presence": {"prompt": "The", "seed": 2, "presence_penalty": 2, "max_tokens": 30},
    "frequency": {"prompt": "The", "seed": 2, "frequency_penalty": -1.5, "max_tokens": 30},
    "repetition": {"prompt": "The The The", "temperature": 0, "repetition_penalty": 1.5, "max_tokens": 30},
    "a bias": {"prompt": "The", "seed": 2, "logit_bias": {"70": 100}},
    "a ban": {"prompt": "The", "temperature": 0, "logit_bias": {"5": -100, "6": -100}},
    "log-probabilities": {"prompt": "The", "seed": 2, "logprobs": 4},
    "log-probabilities of the tokens alone": {"prompt": "The", "seed": 2, "logprobs": 0},
    "log-probabilities of several": {"prompt": ["The", "霜"], "seed": 2, "logprobs": 2, "n": 2},
    "log-probabilities and a stop": {"prompt": "The", "seed": 2, "logprobs": 2, "stop": ["e"], "max_tokens": 60},
    "echo": {"prompt": ["The quick", "霜"], "seed": 2, "echo": True, "n": 2},
    "echo of ids": {"prompt": [0, 100, 101], "seed": 2, "echo": True},
    "what is neutral": {"prompt": "The", "temperature": 0, "user": "somebody", "best_of": 1},
    "everything": {
        "prompt": ["The", "霜"], "seed": 9, "n": 2, "temperature": 0.9, "top_p": 0.9, "top_k": 50, "min_p": 0.001,
        "presence_penalty": 0.5, "frequency_penalty": 0.5, "repetition_penalty": 1.1, "logit_bias": {"80": 2},
        "stop": ["zz"], "logprobs": 1, "max_tokens": 20,
    },
}  # fmt: skip
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "床前?"},
    {"role": "assistant", "content": "明月"},
    {"role": "user", "content": "Go on"},
]
HELLO = [{"role": "user", "content": "Hello"}]
CHATS = {
    "greedy": {"messages": HELLO, "temperature": 0},
    "to the end of the context": {"messages": HELLO, "seed": 4},
    "a conversation": {"messages": TALK, "seed": 4, "max_tokens": 12},
    "the newer name of the limit": {"messages": HELLO, "seed": 4, "max_completion_tokens": 3},
    "parts of text": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]}],
        "seed": 4,
    },
    "a developer and a name": {
        "messages": [{"role": "developer", "content": "Say"}, {"role": "user", "name": "an", "content": "?"}],
        "seed": 5,
    },
    "answers": {"messages": HELLO, "seed": 4, "n": 4, "max_tokens": 9},
    "a stop string": {"messages": HELLO, "seed": 4, "stop": ["s", "I"]},
    "log-probabilities": {"messages": HELLO, "seed": 4, "logprobs": True, "top_logprobs": 3, "max_tokens": 9},
    "log-probabilities alone": {"messages": HELLO, "seed": 4, "logprobs": True, "max_tokens": 9},
    "penalties": {"messages": HELLO, "seed": 4, "presence_penalty": 1, "frequency_penalty": 1, "max_tokens": 30},
    "a bias": {"messages": HELLO, "seed": 4, "logit_bias": {"70": 100}, "max_tokens": 9},
    "the end of a turn": {"messages": HELLO, "temperature": 0, "logit_bias": {"260": 100}},
    "plain text, no tools": {
        "messages": HELLO, "seed": 6, "response_format": {"type": "text"}, "tool_choice": "none", "max_tokens": 5,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = serving.models(tmp_path_factory.mktemp("root"), "bytes", "bpe", "chat", "say-zh")
    with serving.serving(root) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0, timeout=30) as made:
        yield made


@dataclass
class Choice:
    """One answer, put together from whatever came."""

    text: str = ""
    finish: str | None = None
    logprobs: list[float] = field(default_factory=list)
    spelled: list[object] = field(default_factory=list)
    tops: list[object] = field(default_factory=list)


def theirs(given):
    """Return the client's arguments: what OpenAI does not know goes through extra_body."""
    extra = {key: value for key, value in given.items() if key in OURS_ALONE}
    return {**{key: value for key, value in given.items() if key not in OURS_ALONE}, "extra_body": extra or None}


def ours(given, limit):
    """Return what a request means, read apart from the server."""
    known = {NAMES.get(key, key): value for key, value in given.items()}
    known["stop"] = (known["stop"],) if isinstance(known.get("stop"), str) else tuple(known.get("stop", ()))
    known["logit_bias"] = {int(key): value for key, value in given.get("logit_bias", {}).items()}
    known["limit"] = given.get("max_tokens", given.get("max_completion_tokens", limit))
    if known.get("top_p") == 0:
        known |= {"temperature": 0, "top_p": 1.0}
    logprobs = known.pop("logprobs", None)
    known["logprobs"] = known.pop("top_logprobs", 0) if logprobs is True else logprobs
    return Sampling(**{key: value for key, value in known.items() if key in Sampling.model_fields})


def alone(model, prompts, sampling):
    """Return the answers without a server."""
    return decode.answers(
        model.module, prompts, [sampling] * len(prompts), stop_ids=model.stop_ids, tokenizer=model.tokenizer
    )


def spelled(model, id):
    """Return how OpenAI writes a token: text, or its bytes."""
    name = model.tokenizer.raw.id_to_token(id)
    if name is None:
        return ""
    if id <= 2 or (id > 258 and name.startswith("<|")):
        return name
    data = bytes(alphabet()[character] for character in name)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def alphabet():
    """Return the byte that each character of a byte-level vocabulary stands for, as GPT-2 laid them out."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def agree(model, found, answers, echoes=None):
    """Check choices against answers: text, why they ended, tokens and their log-probabilities."""
    assert len(found) == len(answers)
    for index, (choice, answer) in enumerate(zip(found, answers)):
        assert choice.text == (echoes[index] if echoes else "") + answer.text
        assert choice.finish == answer.finish
        if answer.logprobs is not None:
            assert choice.spelled == [spelled(model, id) for id in answer.ids]
            assert choice.logprobs == pytest.approx(answer.logprobs, abs=1e-4)
            for given, top in zip(choice.tops, answer.tops):
                assert {name: given[name] for name, _ in top} == {
                    name: pytest.approx(value, abs=1e-4) for name, value in top
                }
        else:
            assert not choice.logprobs


def named(model, answers):
    """Return the answers with their alternatives under the names that OpenAI gives tokens."""
    return [
        decode.Answer(
            **{
                **vars(each),
                "tops": each.tops
                and tuple(
                    tuple({spelled(model, id): value for id, value in reversed(top)}.items()) for top in each.tops
                ),
            }
        )
        for each in answers
    ]


def completion(client, **given):
    """Return the choices and the usage of a completion that is not streamed."""
    whole = client.completions.create(**given)
    assert [each.index for each in whole.choices] == list(range(len(whole.choices)))
    found = [Choice(each.text, each.finish_reason) for each in whole.choices]
    for choice, each in zip(found, whole.choices):
        _scored(choice, each.logprobs)
    return found, whole.usage


def streamed(client, **given):
    """Return the same from a stream."""
    found, usage = {}, None
    for chunk in client.completions.create(**given, stream=True, stream_options={"include_usage": True}):
        assert usage is None, "something follows the usage"
        usage = chunk.usage
        for each in chunk.choices:
            choice = found.setdefault(each.index, Choice())
            assert choice.finish is None, "something follows the end"
            choice.text += each.text
            choice.finish = each.finish_reason
            _scored(choice, each.logprobs)
    return [found[index] for index in sorted(found)], usage


def _scored(choice, logprobs):
    if logprobs is not None:
        choice.spelled += logprobs.tokens
        choice.logprobs += logprobs.token_logprobs
        choice.tops += logprobs.top_logprobs


def talked(client, **given):
    """Return the choices and the usage of a chat that is not streamed."""
    whole = client.chat.completions.create(**given)
    found = [Choice(each.message.content, each.finish_reason) for each in whole.choices]
    for choice, each in zip(found, whole.choices):
        assert each.message.role == "assistant"
        _weighed(choice, each.logprobs)
    return found, whole.usage


def talking(client, **given):
    """Return the same from a stream."""
    found, usage, roles = {}, None, []
    for chunk in client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True}):
        assert usage is None
        usage = chunk.usage
        for each in chunk.choices:
            if each.delta.role:
                roles.append((each.index, each.delta.role))
            choice = found.setdefault(each.index, Choice())
            assert choice.finish is None
            choice.text += each.delta.content or ""
            choice.finish = each.finish_reason
            _weighed(choice, each.logprobs)
    assert roles == [(index, "assistant") for index in sorted(found)]
    return [found[index] for index in sorted(found)], usage


def _weighed(choice, logprobs):
    for each in (logprobs and logprobs.content) or ():
        choice.spelled.append(each.token)
        choice.logprobs.append(each.logprob)
        choice.tops.append({top.token: top.logprob for top in each.top_logprobs})
        assert each.bytes is None or each.token.startswith("bytes:") or bytes(each.bytes).decode() == each.token


@pytest.mark.parametrize("name", COMPLETIONS)
@pytest.mark.parametrize(("served", "ask"), [("bytes", completion), ("bpe", streamed)])
def test_completions_are_those_of_the_weights(server, client, served, name, ask):
    """Guards against a field that is read wrong, left out, or means something else over HTTP than in Python."""
    model, given = server.model(served), COMPLETIONS[name]
    asked = given["prompt"]
    prompts = [asked] if isinstance(asked, str) or isinstance(asked[0], int) else asked
    ids = [list(model.tokenizer.encode(each).ids) if isinstance(each, str) else each for each in prompts]
    answers = alone(model, ids, ours(given, 16))
    echoes = None
    if given.get("echo"):
        shown = [each if isinstance(each, str) else model.tokenizer.decode(each) for each in prompts]
        echoes = [each for each in shown for _ in range(given.get("n", 1))]
    found, usage = ask(client, model=served, **theirs(given))
    agree(model, found, named(model, answers), echoes)
    read, written = sum(map(len, ids)), sum(len(each.ids) for each in answers)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (read, written, read + written)


@pytest.mark.parametrize("ask", [talked, talking])
@pytest.mark.parametrize("name", CHATS)
def test_chats_are_those_of_the_weights(server, client, name, ask):
    """Guards against a template rendered wrong, control tokens as text, a limit under the wrong name."""
    model, given = server.model("chat"), CHATS[name]
    ids = []
    for each in given["messages"]:
        content = each["content"]
        content = content if isinstance(content, str) else "\n".join(part["text"] for part in content)
        ids += [259, *(3 + byte for byte in f"{each['role']}\n{content}".encode()), 260, 3 + ord("\n")]
    ids += [259, *(3 + byte for byte in b"assistant\n")]
    answers = alone(model, [ids], ours(given, CONTEXT - len(ids)))
    found, usage = ask(client, model="chat", **theirs(given))
    agree(model, found, named(model, answers))
    written = sum(len(each.ids) for each in answers)
    assert (usage.prompt_tokens, usage.completion_tokens) == (len(ids), written)


def test_text_is_what_the_python_door_gives(server, client):
    """Guards against a server and `hanlin.load(...).generate` that drift apart."""
    for name in ("bytes", "bpe", "say-zh"):
        text = client.completions.create(model=name, prompt="霜", temperature=0, max_tokens=30).choices[0].text
        assert text == server.model(name).generate("霜", temperature=0, limit=30)


def test_coldness_repeats_and_seeds_are_drawn(client):
    """Guards against a greedy answer that changes, and against everybody getting the same draw without a seed."""

    def say(**given):
        return client.completions.create(model="bytes", prompt="The", max_tokens=40, **given).choices[0].text

    assert say(temperature=0) == say(temperature=0) == say(temperature=0, seed=5)
    assert say(seed=5) == say(seed=5) != say(seed=6)
    assert say() != say()


def test_models_are_listed_and_described(server, client):
    """Guards against a list that the client cannot read, and a name in it that cannot be asked for."""
    listed = client.models.list().data
    assert {each.id for each in listed} == set(server.worker.models)
    for each in listed:
        assert client.models.retrieve(each.id) == each


def test_logprobs_can_be_added_up(server, client):
    """Guards against log-probabilities after temperature, penalties or bias, where the model's own are promised."""
    hot = {"temperature": 1.7, "presence_penalty": 1, "logit_bias": {"70": 5}, "seed": 3, "max_tokens": 12}
    found, _ = completion(client, model="bytes", prompt="The", logprobs=0, **hot)
    model = server.model("bytes")
    prompt = list(model.tokenizer.encode("The").ids)
    answer = alone(model, [prompt], ours({**hot, "logprobs": 0}, 12))[0]
    with torch.inference_mode():
        sure = model.module.logits(model.module(torch.tensor([[*prompt, *answer.ids]])))[0].log_softmax(-1)
    expected = [float(sure[len(prompt) - 1 + place, id]) for place, id in enumerate(answer.ids)]
    assert found[0].logprobs == pytest.approx(expected, abs=1e-4)
    assert all(math.isfinite(each) for each in expected)


BAD = {
    "a prompt that is too long": ({"prompt": "x" * CONTEXT}, "prompt", "context_length_exceeded"),
    "a prompt and a limit that are": ({"prompt": "x", "max_tokens": CONTEXT}, "prompt", "context_length_exceeded"),
    "an unknown field": ({"extra_body": {"temprature": 1}}, "temprature", None),
    "heat": ({"temperature": 3}, "temperature", None),
    "cold": ({"temperature": -1}, "temperature", None),
    "answers": ({"n": 17}, "n", None),
    "a wrong type": ({"prompt": {"a": 1}}, "prompt", None),
    "a token": ({"prompt": [300]}, "prompt", None),
    "a bias": ({"logit_bias": {"300": 1}}, "logit_bias", None),
    "logprobs": ({"logprobs": 21}, "logprobs", None),
    "best_of": ({"best_of": 5}, "best_of", None),
    "suffix": ({"suffix": "end"}, "suffix", None),
    "stops": ({"stop": ["a"] * 17}, "stop", None),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_names_its_field(client, name):
    """Guards against errors the client cannot sort: wrong class, no param, no code, no message."""
    given, param, code = BAD[name]
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**{"model": "bytes", "prompt": "a", **given})
    assert (caught.value.param, caught.value.code, caught.value.type) == (param, code, "invalid_request_error")
    assert caught.value.body["message"]


def test_a_wrong_key_is_an_authentication_error(server):
    """Guards against a door that is open to other keys."""
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="sk-of-somebody-else", max_retries=0) as other,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        other.models.list()
    assert caught.value.code == "invalid_api_key"


def test_an_unknown_model_is_not_found(client):
    """Guards against a typo answered by another model."""
    for ask in (
        lambda: client.completions.create(model="byts", prompt="a"),
        lambda: client.chat.completions.create(model="byts", messages=HELLO),
        lambda: client.models.retrieve("byts"),
        lambda: client.get("/nowhere", cast_to=object),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code in ("model_not_found", "unknown_url")


def test_another_host_is_denied(client):
    """Guards against a page that rebinds its own name to this machine."""
    with pytest.raises(openai.PermissionDeniedError):
        client.models.list(extra_headers={"Host": "evil.example"})


def test_a_model_without_a_template_cannot_chat(client):
    """Guards against a made-up template, which the model has never seen."""
    with pytest.raises(openai.BadRequestError, match="no chat template"):
        client.chat.completions.create(model="bytes", messages=HELLO)


def test_too_much_is_an_error_of_its_size(client):
    """Guards against a body that is read to its end whatever its size."""
    with pytest.raises(openai.APIStatusError) as caught:
        client.completions.create(model="bytes", prompt="x" * 2_100_000)
    assert caught.value.status_code == 413


def test_an_engine_that_breaks_is_a_server_error(server, client, monkeypatch, caplog):
    """Guards against a client that waits for ever, and one that learns about the insides."""

    def broken(plan):
        raise RuntimeError("secret insides")

    with monkeypatch.context() as patched:
        patched.setattr(server.engine("bytes"), "step", broken)
        with pytest.raises(openai.InternalServerError) as caught:
            client.completions.create(model="bytes", prompt="a")
        with pytest.raises(openai.APIError) as streaming:
            list(client.completions.create(model="bytes", prompt="a", stream=True))
    assert "secret insides" not in f"{caught.value} {streaming.value}"
    assert "secret insides" in caplog.text
    assert client.completions.create(model="bytes", prompt="a").choices[0].finish_reason == "length"


def test_an_impatient_client_gets_its_timeout(server, client, monkeypatch):
    """Guards against a place that stays taken by a client that has given up."""
    with serving.held(server, "bytes", monkeypatch):
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.2).completions.create(model="bytes", prompt="a")
        assert serving.until(lambda: server.worker.load() == (0, 0)) < 1


def test_a_full_queue_is_a_rate_limit(tmp_path, monkeypatch):
    """Guards against memory that grows with the requests that wait, and a refusal without a time to come back."""
    serving.write(tmp_path / "bytes")
    sizes = serving.folder.Sizes(slots=1, chunk=16, queue=1)
    with (
        serving.serving(tmp_path, sizes=sizes) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
        serving.held(server, "bytes", monkeypatch) as gate,
    ):
        first = client.completions.create(model="bytes", prompt="a", stream=True)
        serving.until(lambda: server.worker.load().running == 1)
        second = client.completions.create(model="bytes", prompt="b", stream=True)
        serving.until(lambda: server.worker.load().waiting == 1)
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model="bytes", prompt="c")
        assert 1 <= int(caught.value.response.headers["retry-after"]) <= 60
        assert caught.value.code == "rate_limit_exceeded"
        gate.set()
        assert [list(each)[-1].choices[0].finish_reason for each in (first, second)] == ["length", "length"]
