"""OpenAI's JSON, read strictly, as what our own code is asked.

    bytes ─ strict ─> plain data ─ request ─> Completion | Chat | Tokenize | Detokenize ─ sampling ─> Sampling
            no duplicate keys,       exact types, null is absent,                    temperature 0 is greedy,
            NaN, NUL, half pairs     an unknown field names its neighbour            no seed draws one

What is neutral (user, metadata, …) is taken and has no effect; what would change the answer and is not implemented is
refused by name.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, FailFast, Field, PlainValidator

from hanlin.config import Config, parse
from hanlin.errors import ConfigError, problem
from hanlin.generate.constrain import Grammar, json_schema
from hanlin.generate.sampling import Sampling
from hanlin.serve.limits import Limits
from hanlin.serve.refusal import Refused, field
from hanlin.serve.strict import read_json

if TYPE_CHECKING:
    from hanlin.serve.worker import Served

FEW = 16  # stop strings
LONGEST_LINE = 1_200  # characters that a problem may have; what a client sent stands in it
DEFAULT = 16  # tokens of a completion where max_tokens is left out
COLDEST = 1e-9  # top_p 0 is the likeliest token alone


def _prompts(value: object) -> tuple[str | tuple[int, ...], ...]:
    """Return one prompt or several, each text or ids, as several."""
    if isinstance(value, str) or _is_ids(value):
        return (value,)  # type: ignore[return-value]
    if (
        isinstance(value, tuple)
        and value
        and (all(isinstance(each, str) for each in value) or all(map(_is_ids, value)))
    ):
        return value
    raise ValueError("a string, token ids, a list of strings, or a list of lists of token ids; none of them empty")


def _is_ids(value: object) -> bool:
    """Return whether a value is a prompt in token ids."""
    return isinstance(value, tuple) and bool(value) and all(type(each) is int and 0 <= each < 2**31 for each in value)


def _content(value: object) -> object:
    """Return a message's content as one string; text parts are joined by line ends, as vLLM and llama.cpp do."""
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, tuple) else ()
    if parts and all(isinstance(part, Mapping) and _is_text(part) for part in parts):
        return "\n".join(part["text"] for part in parts)
    raise ValueError('a string, or a list of {"type": "text", "text": …}; other kinds of parts are not supported')


def _is_text(part: Mapping[str, Any]) -> bool:
    return part.get("type") == "text" and isinstance(part.get("text"), str) and part.keys() == {"type", "text"}


def _few(value: object) -> object:
    """Refuse a long list before its items are looked at: each wrong one has a line."""
    if isinstance(value, tuple) and len(value) > FEW:
        raise ValueError(f"{len(value)} items; at most {FEW}")
    return value


def _biases(value: object) -> object:
    """Return a logit_bias with its keys as token ids."""
    if not isinstance(value, Mapping):
        return value
    wrong = next((key for key in value if not re.fullmatch("0|[1-9][0-9]{0,8}", str(key))), None)
    if wrong is not None:
        raise ValueError(f"the key {str(wrong)[:40]!r} is no token id")
    return {int(key): bias for key, bias in value.items()}


def _unsupported(value: object) -> None:
    """Take what says nothing, and refuse what would change the answer."""
    if value not in (None, "", (), {}):
        raise ValueError("not supported; leave it out")


class Part(Config):
    """A piece of a message, for the schema's sake: other kinds are refused."""

    type: Literal["text"]
    text: str


Ids = Annotated[tuple[int, ...], Field(min_length=1)]
Several = Annotated[tuple[str, ...] | tuple[Ids, ...], Field(min_length=1)]
Prompts = Annotated[
    tuple[str | tuple[int, ...], ...], PlainValidator(_prompts, json_schema_input_type=str | Ids | Several)
]
Stop = Annotated[str, Field(min_length=1)]
Stops = Annotated[
    tuple[Stop, ...],
    BeforeValidator(
        lambda value: _few((value,) if isinstance(value, str) else value),
        json_schema_input_type=Stop | Annotated[tuple[Stop, ...], Field(max_length=FEW)],
    ),
]
Modalities = Annotated[tuple[Literal["text"], ...], BeforeValidator(_few)]
Bias = Annotated[float, Field(ge=-100, le=100)]
Biases = Annotated[Mapping[int, Bias], BeforeValidator(_biases, json_schema_input_type=Mapping[str, Bias])]
Parts = Annotated[tuple[Part, ...], Field(min_length=1)]
Content = Annotated[str, BeforeValidator(_content, json_schema_input_type=str | Parts)]
Unsupported = Annotated[None, BeforeValidator(_unsupported, json_schema_input_type=None)]
Name = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(Config):
    """How a stream ends."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # neutral


class Schema(Config):
    """What `json_schema` holds; kept to the letter, `strict` or not."""

    name: str = Field(pattern="^[a-zA-Z0-9_-]{1,64}$")
    description: str | None = None
    body: Mapping[str, Any] = Field(alias="schema")
    strict: bool | None = None


class Format(Config):
    """What an answer looks like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Schema | None = None

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        if (self.type == "json_schema") == (self.json_schema is not None):
            return []
        given = "missing" if self.json_schema is None else "given"
        return [problem("json_schema", given, 'it belongs to {"type": "json_schema"}, and to that alone')]


class Request(Config):
    """What the bodies of all routes have in common."""

    model: Name


class Generation(Request):
    """What completions and chats have in common; None is OpenAI's default."""

    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=-1, lt=2**31)  # -1 and 0 are off
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    logit_bias: Biases | None = None
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: Format | None = None
    # neutral: they change nothing here
    user: str | None = None
    metadata: Mapping[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None

    @property
    def answers(self) -> int:
        """Return how many answers each prompt gets."""
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        """Return whether a stream ends with its usage."""
        return self.stream_options is not None and self.stream_options.include_usage is True

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        given = self.stream_options is not None and not self.stream
        return [problem("stream_options", "given", "only where stream is true")] if given else []


class Completion(Generation):
    """The body of /v1/completions."""

    prompt: Prompts
    max_tokens: int | None = Field(None, ge=0, lt=2**31)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=128)
    suffix: Unsupported = None

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        found = super().problems()
        if self.best_of not in (None, self.answers):
            found.append(problem("best_of", f"{self.best_of}", f"n ({self.answers}): every answer is returned"))
        if self.echo and self.logprobs is not None:
            found.append(problem("echo", "with logprobs", "one of them: the prompt is not scored"))
        return found


class Turn(Config):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content
    name: str | None = None
    tool_call_id: str | None = None
    refusal: Unsupported = None
    annotations: Unsupported = None
    audio: Unsupported = None
    tool_calls: Unsupported = None
    function_call: Unsupported = None


class Chat(Generation):
    """The body of /v1/chat/completions."""

    messages: Annotated[tuple[Turn, ...], FailFast(), Field(json_schema_extra={"minItems": 1})]
    max_tokens: int | None = Field(None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, lt=2**31)  # its newer name
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    modalities: Modalities | None = None
    parallel_tool_calls: bool | None = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    tools: Unsupported = None
    functions: Unsupported = None
    audio: Unsupported = None
    prediction: Unsupported = None
    reasoning_effort: Unsupported = None
    verbosity: Unsupported = None
    web_search_options: Unsupported = None

    @property
    def limit(self) -> int | None:
        """Return how many tokens to write, under either name."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        found = super().problems()
        if not self.messages:
            found.append(problem("messages", "none", "at least one"))
        if self.top_logprobs is not None and not self.logprobs:
            found.append(problem("top_logprobs", f"{self.top_logprobs}", "only where logprobs is true"))
        if self.max_tokens is not None and self.limit != self.max_tokens:
            found.append(problem("max_tokens", f"{self.max_tokens}", f"max_completion_tokens ({self.limit}), or alone"))
        return found


class Tokenize(Request):
    """The body of /v1/tokenize."""

    prompt: str
    add_special_tokens: bool | None = None  # True


class Detokenize(Request):
    """The body of /v1/detokenize."""

    tokens: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], FailFast()]


R = TypeVar("R", bound=Config)


def request(kind: type[R], data: bytes) -> R:
    """Return a body as a request of one kind; Refused (400) with every problem, the first one's field as `param`."""
    return checked(kind, read_json(data))


def checked(kind: type[R], found: Mapping[str, Any]) -> R:
    """Return plain data as a request of one kind; Refused (400) as in `request`."""
    try:
        return parse(kind, found, "body")
    except ConfigError as error:
        lines = [_short(re.sub(r"^body(: |\.)", "", line)) for line in error.problems]
        raise Refused(400, *lines, param=field(lines[0])) from None


def _short(line: str) -> str:
    """Return a problem with its middle left out where it is long: the end says what to do."""
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def within(asked: Completion | Chat, limits: Limits) -> None:
    """Raise ConfigError with every bound of this server that a request is past."""
    counts = {"n": (asked.answers, limits.n)}
    if isinstance(asked, Completion):
        counts["prompt"] = (len(asked.prompt), limits.prompts)
    else:
        counts["messages"] = (len(asked.messages), limits.messages)
    counts["stop"] = (max(map(len, asked.stop or ("",))), limits.stop_characters)
    units = {"n": "answers", "prompt": "prompts", "messages": "messages", "stop": "characters"}
    found = [
        problem(key, f"{is_} {units[key]}", f"at most {most}") for key, (is_, most) in counts.items() if is_ > most
    ]
    if found:
        raise ConfigError(*found)


def sampling(asked: Completion | Chat, limit: int, never: Sequence[int] = ()) -> Sampling:
    """Return the settings a request asks for, with `limit` new tokens; without a seed no two calls are alike.

    Tokens in `never` are not written unless the request has a bias for them.
    """
    if isinstance(asked, Chat):
        logprobs = (asked.top_logprobs or 0) if asked.logprobs else None
    else:
        logprobs = asked.logprobs
    return Sampling(
        temperature=_or(asked.temperature, 1.0),
        top_k=max(asked.top_k or 0, 0),
        top_p=max(_or(asked.top_p, 1.0), COLDEST),
        min_p=asked.min_p or 0.0,
        repetition=_or(asked.repetition_penalty, 1.0),
        presence=asked.presence_penalty or 0.0,
        frequency=asked.frequency_penalty or 0.0,
        logit_bias={**dict.fromkeys(never, -100.0), **(asked.logit_bias or {})},
        limit=limit,
        stop=asked.stop or (),
        n=asked.answers,
        logprobs=logprobs,
        seed=secrets.randbits(63) if asked.seed is None else asked.seed,
    )


def grammar(asked: Completion | Chat) -> Grammar | None:
    """Return what the answers have to look like, None where anything goes."""
    wanted = asked.response_format
    if wanted is None or wanted.type == "text":
        return None
    return json_schema({"type": "object"} if wanted.json_schema is None else wanted.json_schema.body)


def _or(value: float | None, default: float) -> float:
    """Return a value, 0 included, or what stands for null."""
    return default if value is None else float(value)


def needed(asked: Completion | Chat, prompts: Sequence[Sequence[int]], served: Served) -> int:
    """Return how many tokens to write; Refused where the context has no room for them."""
    longest = max(map(len, prompts))
    given = asked.limit if isinstance(asked, Chat) else asked.max_tokens
    room = min(map(served.room, prompts))
    usual = room if isinstance(asked, Chat) else min(DEFAULT, room)
    if room < (1 if given is None else given):
        wanted = "" if given is None else f" + {given} to write"
        param = "messages" if isinstance(asked, Chat) else "prompt"
        line = problem(param, f"{longest} tokens{wanted}", f"this model's context is {served.context} tokens")
        raise Refused(400, line, param=param, code="context_length_exceeded")
    return usual if given is None else given
