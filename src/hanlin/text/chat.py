"""Conversations as token ids, by the model's own chat template; training and serving render with the same code.

    messages ──mark──> template ──code──> text ──encode──> ids              prompt: up to where the assistant begins
                                                └────────> ids, mask        training: mask is True on what it says

What people write never becomes a control token, however it is spelled, split over messages, or trimmed: control.py.
To be sure, every text is rendered twice, the second time by a template that holds codes instead of control tokens.
Where the two differ (a template that builds control tokens out of pieces, or a person who completes one), it is
rendered with people's characters blurred: the control tokens must be the same, else the conversation is refused.

The mask follows `{% generation %}` to the letter where a template has it. Else it is found by rendering: the text with
an assistant's message begins with the text before it, and what is new is what the assistant says, up to its last
control token. A template for which that does not hold (one that drops earlier thoughts, say) is refused.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Literal, get_args

from hanlin.config import read_json
from hanlin.errors import ChatError as ChatError
from hanlin.errors import ConfigError, problem
from hanlin.text.allowance import BITS
from hanlin.text.control import CODE, Control
from hanlin.text.sandbox import BEGIN, END, LONGEST, Template
from hanlin.text.tokenizer import Tokenizer

Role = Literal["system", "developer", "user", "assistant", "tool"]

MESSAGES = 10_000
CHARACTERS = 4_000_000  # of all messages and options
DEPTH = 32  # of lists in lists
OWN = ("messages", "add_generation_prompt")  # what a template is always given
UNFIT = re.compile("[\0\ud800-\udfff\ufdd0-\ufdef]")  # NUL, halves of pairs, and the characters control.py keeps


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str
    name: str | None = None


@dataclass(frozen=True)
class Turns:
    """A conversation to learn from."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]  # True on what the assistant says
    stops: bool  # every stretch of it ends with a control token; else the model does not learn to stop


class Chat:
    """A chat template at work; it does not change, and may be shared by threads."""

    def __init__(self, template: str, tokenizer: Tokenizer, clock: Callable[[], datetime] = datetime.now) -> None:
        """Compile the template; `clock` is what templates that write the date ask."""
        problems = list(_check_text("chat template", template))
        if problems:
            raise ChatError(*problems)
        self.hash = hashlib.sha256(template.encode()).hexdigest()
        self._control = Control(tokenizer)
        self._template = Template(template)
        self._literal = Template(template, self._control.code)
        special = {role: id for role, id in asdict(tokenizer.special).items() if id is not None}
        self._names = {f"{role}_token": tokenizer.token(id) for role, id in special.items()}
        self._clock = clock

    @classmethod
    def of(cls, template: str, tokenizer: Tokenizer) -> Chat:
        """Return a template, given as text, at work; ChatError says in which line it cannot be used."""
        return cls(template, tokenizer)

    @classmethod
    def read(cls, folder: Path, tokenizer: Tokenizer) -> Chat | None:
        """Read chat_template.jinja, or else the template in tokenizer_config.json; None when there is neither."""
        found = _file(folder / "chat_template.jinja") or _setting(folder / "tokenizer_config.json")
        return None if found is None else cls(found, tokenizer)

    def prompt(self, messages: Sequence[Message], *, options: Mapping[str, object] = {}) -> list[int]:
        """Return the ids up to where the assistant begins; `options` are more variables for the template.

        ChatError when the messages are no conversation, when the template refuses them, or uses too much.
        """
        return list(self._control.encode(self._asked(messages, options).coded(begin=True)).ids)

    def training(self, messages: Sequence[Message], *, options: Mapping[str, object] = {}) -> Turns:
        """Return the ids of a whole conversation, and a mask that is True on what the assistant says.

        ChatError as in `prompt`, and when nothing can be learned: no assistant, or none that can be told apart.
        """
        asked = self._asked(messages, options)
        if self._template.generation:
            coded, spans = _unbracketed(asked.coded(brackets=True))
        else:
            coded = asked.coded()
            spans = list(asked.spans(coded))
        found = self._control.encode(coded)
        mask = tuple(any(start < end and begin < stop for begin, end in spans) for start, stop in found.offsets)
        if not any(mask) or all(mask):
            raise ChatError(problem("messages", "nothing that the assistant says can be told from the rest"))
        lasts = (id for id, here, after in zip(found.ids, mask, (*mask[1:], False), strict=True) if here and not after)
        return Turns(found.ids, mask, all(id in self._control.ids for id in lasts))

    def text(
        self,
        messages: Sequence[Message],
        *,
        options: Mapping[str, object] = {},
        begin: bool = False,
    ) -> str:
        """Return what a person would see; with `begin`, up to where the assistant begins."""
        return self._control.plain(self._asked(messages, options).text(begin=begin))

    def _asked(self, messages: Sequence[Message], options: Mapping[str, object]) -> Conversation:
        """Return what was asked, checked; the time is that of asking."""
        problems = [*_check_messages(messages), *_check_options(options, {*OWN, *self._names})]
        if problems:
            raise ChatError(*problems)
        return Conversation(
            template=self._template,
            literal=self._literal,
            control=self._control,
            names=self._names,
            messages=messages,
            options=options,
            now=self._clock(),
        )


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Messages that passed the checks, and the templates to render them with."""

    template: Template
    literal: Template  # the same, with codes for the control tokens that it spells
    control: Control
    names: Mapping[str, str]  # bos_token and the like
    messages: Sequence[Message]
    options: Mapping[str, object]
    now: datetime

    def text(self, *, upto: int | None = None, begin: bool = False) -> str:
        """Return the text of the first messages, people's control tokens marked."""
        return self._rendered(self.template, self.control.mark, upto=upto, begin=begin)

    def coded(self, *, upto: int | None = None, begin: bool = False, brackets: bool = False) -> str:
        """Return the text of the first messages, with codes for the control tokens that the template makes.

        ChatError when it cannot be told that the template makes them all.
        """
        rendered = partial(self._rendered, upto=upto, begin=begin, brackets=brackets)
        coded = self.control.code(rendered(self.template, self.control.mark))
        if coded == rendered(self.literal, self.control.mark, self.control.code):
            return coded
        blurred = self.control.code(rendered(self.template, self.control.blur))
        if self.control.codes(coded) != self.control.codes(blurred):
            raise ChatError(problem("messages", "a control token is made of what a person wrote"))
        return coded

    def spans(self, coded: str) -> Iterator[tuple[int, int]]:
        """Yield where the assistant's messages stand in the coded text of all."""
        for place, message in enumerate(self.messages):
            if message.role != "assistant":
                continue
            before = self.coded(upto=place, begin=True)
            after = self.coded(upto=place + 1)
            if not after.startswith(before) or not coded.startswith(after):
                given = "the template writes it differently where it stands and where it is asked for"
                do = "put {% generation %} around what the assistant says in the template"
                raise ChatError(problem(f"messages[{place}]", given, do=do))
            last = after.rfind(CODE, len(before)) + 2
            yield len(before), last if last > 1 and not after[last:].strip() else len(after)

    def _rendered(
        self,
        template: Template,
        person: Callable[[str], str],
        own: Callable[[str], str] = str,
        *,
        upto: int | None,
        begin: bool,
        brackets: bool = False,
    ) -> str:
        """Return a template's text, with `person` applied to what people write and `own` to the special tokens."""
        variables = {
            "tools": None,
            "documents": None,
            **{name: own(text) for name, text in self.names.items()},
            **{name: _mapped(value, person) for name, value in self.options.items()},
            "messages": [_shown(message, person) for message in self.messages[:upto]],
            "add_generation_prompt": begin,
        }
        try:
            return template.render(variables, self.now, brackets=brackets)
        except ChatError as error:  # may quote a person's words
            raise ChatError(*map(self.control.plain, error.problems)) from None


def _shown(message: Message, person: Callable[[str], str]) -> dict[str, str]:
    """Return a message as templates know it."""
    name = {} if message.name is None else {"name": person(message.name)}
    return {"role": message.role, "content": person(message.content), **name}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401  # JSON
    """Return a copy of JSON data with every text in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _mapped(each, change) for key, each in value.items()}
    return [_mapped(each, change) for each in value] if isinstance(value, list | tuple) else value


def _unbracketed(coded: str) -> tuple[str, list[tuple[int, int]]]:
    """Return a coded text without its brackets, and where they stood."""
    pieces = re.split(f"([{BEGIN}{END}])", coded)
    signs = "".join(pieces[1::2])
    if signs != (BEGIN + END) * (len(signs) // 2):
        raise ChatError(problem("chat template", "its generation blocks are nested, or cut in two"))
    ends = list(accumulate(len(piece) for piece in pieces[::2]))
    return "".join(pieces[::2]), list(zip(ends[:-1:2], ends[1::2], strict=True))


# Checks -----------------------------------------------------------------------------------------------------------


def _check_messages(messages: Sequence[Message]) -> Iterator[str]:
    """Yield what is wrong with messages."""
    if not isinstance(messages, list | tuple) or not 0 < len(messages) <= MESSAGES:
        given = f"{len(messages):,} of them" if isinstance(messages, list | tuple) else f"a {type(messages).__name__}"
        yield problem("messages", given, f"a list of 1 to {MESSAGES:,}")
        return
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, Message):
            yield problem(where, f"a {type(message).__name__}", "a Message")
            continue
        if message.role not in get_args(Role):
            yield problem(f"{where}.role", f"{message.role!r}"[:60], "one of " + ", ".join(get_args(Role)))
        yield from _check_text(f"{where}.content", message.content)
        if message.name is not None:
            yield from _check_text(f"{where}.name", message.name)
    size = sum(len(each.content) for each in messages if isinstance(each, Message) and isinstance(each.content, str))
    if size > CHARACTERS:
        yield problem("messages", f"{size:,} characters", f"at most {CHARACTERS:,}")


def _check_options(options: Mapping[str, object], taken: Set[str]) -> Iterator[str]:
    """Yield what is wrong with a template's variables."""
    for name, value in options.items():
        if not isinstance(name, str) or not name.isidentifier() or name in taken:
            yield problem("options", f"{name!r}"[:60], "a name, and none of " + ", ".join(sorted(taken)))
        yield from islice(_check_plain(f"options.{name}"[:60], value), 1)


def _check_plain(where: str, value: object) -> Iterator[str]:
    """Yield what is wrong with a value that should be JSON."""
    size = 0
    for leaf in _leaves(value, DEPTH):
        if isinstance(leaf, str):
            size += len(leaf)
            yield from _check_text(where, leaf)
        elif not isinstance(leaf, bool | int | float | None):
            yield problem(where, f"holds a {type(leaf).__name__}", f"what JSON can say, at most {DEPTH} deep")
        elif isinstance(leaf, int) and leaf.bit_length() > BITS:
            yield problem(where, f"holds a whole number of {leaf.bit_length()} bits", f"at most {BITS}")
        if size > CHARACTERS:
            yield problem(where, f"more than {CHARACTERS:,} characters")


def _leaves(value: object, depth: int) -> Iterator[object]:
    """Yield keys and values that hold nothing, and what lies too deep."""
    if depth and isinstance(value, dict):
        yield from value
        value = list(value.values())
    if depth and isinstance(value, list | tuple):
        for each in value:
            yield from _leaves(each, depth - 1)
    else:
        yield value


def _check_text(where: str, text: object) -> Iterator[str]:
    """Yield what is wrong with a text."""
    if not isinstance(text, str):
        yield problem(where, f"a {type(text).__name__}", "a text")
        return
    found = UNFIT.search(text)
    if found:
        yield problem(where, f"U+{ord(found[0]):04X} at character {found.start()}", "characters of Unicode text")


# Files ------------------------------------------------------------------------------------------------------------


def _file(path: Path) -> str | None:
    """Return a template's file; None when there is none."""
    if not path.exists():
        return None
    try:
        if not path.is_file() or path.stat().st_size > 4 * LONGEST:
            raise ChatError(problem(str(path), "not a file, or too long", f"at most {LONGEST:,} characters"))
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ChatError(problem(str(path), f"cannot be read: {error}"[:200])) from None


def _setting(path: Path) -> str | None:
    """Return tokenizer_config.json's template, or the default one of several; None when there is none."""
    if not path.exists():
        return None
    try:
        found = read_json(path).get("chat_template")
    except ConfigError as error:
        raise ChatError(*error.problems) from None
    if isinstance(found, list):
        chats = (each.get("template") for each in found if isinstance(each, dict) and each.get("name") == "default")
        found = next(chats, None)
    if found is not None and not isinstance(found, str):
        raise ChatError(problem(f"{path}: chat_template", f"a {type(found).__name__}", "a text, or a list of them"))
    return found
