"""Talk with a chat model in the terminal; answers are streamed, Ctrl-C stops one, Ctrl-D ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside run, so that its --help is quick
    from hanlin.api import LanguageModel
    from hanlin.text.chat import Chat, Message

POSITIONAL = ("model",)
HELP = "/reset forgets the conversation, /system TEXT sets the instructions, /save FILE writes it down, /exit ends"


class Config(Frozen):
    """What `hanlin chat` is told; the bounds of the choices are those of generate/sampling.py:Sampling."""

    model: str = Field(description="A model folder with a chat template, or a hub name.")
    system: str = Field("", description="Instructions for the model.")
    template: str | None = Field(None, description="A file with a chat template to use in place of the model's.")
    limit: int | None = Field(
        None, gt=0, description="Tokens of an answer at most; what the context leaves if not set."
    )
    temperature: float = Field(0.7, ge=0, description="0 takes the likeliest token, 1 draws as the model says.")
    top_p: float = Field(0.95, gt=0, le=1, description="Draw from the likeliest tokens that hold this share.")
    seed: int = Field(0, description="Same seed, same answers.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")


def run(config: Config) -> None:
    """Read lines and answer them until there are no more."""
    import click

    from hanlin import api

    model = api.load(config.model, precision=config.precision)
    talk = Talk(config, model, _template(config, model))
    click.echo(f"{config.model}; {HELP}", err=True)
    while (line := _line()) is not None:
        word, _, rest = line.strip().partition(" ")
        if word == "/exit":
            return
        if word.startswith("/"):
            click.echo(talk.command(word, rest.strip()), err=True)
        elif line.strip():
            _say(talk, line)


def _line() -> str | None:
    """Return the next line that the person writes, None at the end."""
    import click

    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    except KeyboardInterrupt:
        click.echo("\n/exit or Ctrl-D ends", err=True)
        return ""


def _say(talk: Talk, line: str) -> None:
    """Print the answer to a line as it comes; Ctrl-C keeps what has come."""
    import click

    from hanlin.errors import HanlinError

    try:
        for piece in talk.answer(line):
            click.echo(piece, nl=False)
        click.echo()
    except KeyboardInterrupt:
        click.echo("\n(stopped)", err=True)
    except HanlinError as error:  # a conversation goes on after a line that cannot be answered
        for each in error.problems:
            click.echo(f"error: {each}", err=True)


def _template(config: Config, model: LanguageModel) -> Chat:
    """Return the model's chat template, or the one that the person names."""
    from hanlin import hub
    from hanlin.errors import BundleError, ConfigError, problem
    from hanlin.text.chat import Chat

    if config.template is not None:
        try:
            return Chat.of(Path(config.template).read_text(encoding="utf-8"), model.tokenizer)
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(problem(config.template, f"cannot be read: {error}")) from None
    found = Chat.read(hub.fetch(config.model).folder, model.tokenizer)
    if found is None:
        do = "give one with --template FILE, or let the model continue text: hanlin generate"
        raise BundleError(problem(config.model, "no chat template: this model was not made for chat", do=do))
    return found


class Talk:
    """One conversation: what was said, and how it goes on."""

    def __init__(self, config: Config, model: LanguageModel, chat: Chat) -> None:
        """Begin with nothing said."""
        self.config = config
        self.model = model
        self.chat = chat
        self.system = config.system
        self.said: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        """Return the conversation, instructions first."""
        from hanlin.text.chat import Message

        return [*([Message(role="system", content=self.system)] if self.system else []), *self.said]

    def command(self, word: str, rest: str) -> str:
        """Carry out a line that begins with / and return what to tell the person."""
        if word == "/reset":
            self.said.clear()
            return "forgotten"
        if word == "/system":
            self.system = rest
            return f"instructions: {rest or 'none'}"
        if word == "/save" and rest:
            return self._save(Path(rest))
        return HELP

    def answer(self, line: str) -> Iterator[str]:
        """Yield the answer to a line in pieces; what was said, cut off or not, joins the conversation."""
        from hanlin.generate import decode
        from hanlin.generate.sampling import Sampling
        from hanlin.text.chat import Message

        self.said.append(Message(role="user", content=line))
        pieces: list[str] = []
        try:
            prompt, room = self._fitting()
            config = self.config
            sampling = Sampling(
                limit=min(config.limit or room, room),
                temperature=config.temperature,
                top_p=config.top_p,
                seed=config.seed + len(self.said),
            )
            model = self.model
            for step in decode.generate(
                model.module, [prompt], sampling, stop_ids=model.stop_ids, tokenizer=model.tokenizer
            ):
                pieces.append(step.text)
                yield step.text
        finally:
            if any(pieces):
                self.said.append(Message(role="assistant", content="".join(pieces)))
            else:
                self.said.pop()

    def _fitting(self) -> tuple[list[int], int]:
        """Return the prompt's ids and the tokens left for an answer, leaving out the oldest exchanges if it must."""
        import click

        from hanlin.errors import DataError, problem

        context = self.model.config.context
        wanted = min(self.config.limit or 1, context - 1)
        while len(ids := self.chat.prompt(self.messages)) + wanted > context:
            if len(self.said) < 3:
                given = f"{len(ids)} tokens and {wanted} for the answer"
                raise DataError(problem("conversation", given, f"the model reads {context}", do="say less, or /reset"))
            del self.said[:2]
            click.echo("(the oldest exchange is left out: the context is full)", err=True)
        return ids, context - len(ids)

    def _save(self, path: Path) -> str:
        """Write the conversation as one row of jsonl, as training on chats reads it."""
        import json

        from hanlin import files
        from hanlin.errors import HanlinError

        rows = [{"role": each.role, "content": each.content} for each in self.messages]
        try:
            files.write(path, (json.dumps({"messages": rows}, ensure_ascii=False) + "\n").encode())
        except (OSError, HanlinError) as error:
            return f"error: {error}"
        return f"wrote {path}: {len(rows)} messages"
