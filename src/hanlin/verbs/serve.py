"""Serve models over HTTP, as OpenAI's clients speak it, until Ctrl-C."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside run, so that its --help is quick
    from hanlin.serve.api import Api
    from hanlin.serve.search.routes import Finder

POSITIONAL = ("models",)
KEY = "HANLIN_API_KEY"  # of the environment


class Config(Frozen):
    """What `hanlin serve` is told."""

    models: str = Field(description="A model folder, a folder of model folders, or a hub name.")
    index: str | None = Field(None, description="An index made by `hanlin search index`: /v1/search and /v1/ask.")
    reader: str | None = Field(None, description="A bundle trained to answer, or a language model, for /v1/ask.")
    host: str = Field("127.0.0.1", description="The address to listen at; others can reach any but this machine's own.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 finds a free one.")
    key_file: str | None = Field(None, description=f"A file of keys, `name: key` a line; {KEY} is read without it.")
    origin: tuple[str, ...] = Field((), description="A web page's origin that may call; may be given several times.")
    slots: int = Field(32, ge=1, le=1024, description="Answers written at the same time.")
    context: int | None = Field(None, gt=1, description="Tokens of a prompt and its answer; the model's, up to 4096.")
    chunk: int = Field(256, ge=1, description="Prompt tokens read in one step.")
    queue: int = Field(64, ge=1, description="Requests of one client that may wait.")
    request_s: float = Field(600.0, gt=0, description="Seconds that an answer may take.")
    drain_s: float = Field(30.0, ge=0, description="Seconds that running answers have when the server stops.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")
    device: str = Field("auto", description="auto, cpu, cuda or mps.")
    threads: int = Field(0, ge=0, description="Processor threads; 0 is one a core.")

    def problems(self) -> list[str]:
        """Return a reader without anything to read."""
        return ["reader: needs --index"] if self.reader is not None and self.index is None else []


def run(config: Config) -> None:
    """Open the models, listen, and return when told to stop."""
    import logging

    import click

    from hanlin.serve import listen

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    known = keys(config)
    # Before the models are read: a port that is taken is an answer at once.
    with closing(listen.bind(config.host, config.port)) as address:
        app = application(config, known)

        def listening(url: str) -> None:
            for line in _welcome(config, app, url, known):
                click.echo(line)

        listen.Server(app, address, drain_s=config.drain_s, listening=listening).run()
    click.echo("stopped")


def application(config: Config, known: Mapping[str, str]) -> Api:
    """Return the application with its models opened."""
    from hanlin import runtime
    from hanlin.serve import api, folder
    from hanlin.serve.guard import LOOPBACK
    from hanlin.serve.limits import Limits
    from hanlin.serve.worker import Worker

    place = runtime.start(device=config.device, precision=config.precision, threads=config.threads)
    sizes = folder.Sizes(slots=config.slots, chunk=config.chunk, queue=config.queue, context=config.context)
    lines = folder.lines(config.models, sizes, place)
    finder = None if config.index is None else _finder(config)
    if finder is not None:
        lines[0] = finder.beside(lines[0], config.queue)
    worker = Worker(lines)
    hosts = LOOPBACK if _private(config) else None
    limits = Limits(
        request_s=config.request_s, prompts=min(32, config.queue)
    )  # all of a request's prompts queue at once
    return api.app(worker, keys=known, limits=limits, hosts=hosts, origins=config.origin, finder=finder)


def _finder(config: Config) -> Finder:
    """Return the index that is named, opened in a thread of its own, which ends (serve/folder.py:lines says why)."""
    from concurrent.futures import ThreadPoolExecutor

    from hanlin.serve.search.ask import Asker
    from hanlin.serve.search.routes import Finder
    from hanlin.verbs import search

    assert config.index is not None
    path = Path(config.index)
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(lambda: Finder(Asker(search.opened(path, None, config.precision), config.reader))).result()


def keys(config: Config) -> dict[str, str]:
    """Return name -> key: the file's, else the environment's, else a new one; ConfigError for a file without any."""
    from hanlin.errors import ConfigError, problem

    if config.key_file is None:
        return {"default": os.environ.get(KEY) or f"sk-{secrets.token_urlsafe(24)}"}
    try:
        lines = Path(config.key_file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ConfigError(problem(config.key_file, f"cannot be read: {reason}")) from None
    found: dict[str, str] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        name, colon, key = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        if not colon or name.strip() in found:
            given = f"the name '{name.strip()}' again" if colon else "no colon"
            problems.append(problem(f"{config.key_file}:{number}", given, "expected `name: key`"))
        found[name.strip()] = key.strip()
    if not found:
        problems.append(problem(config.key_file, "no keys", "expected `name: key` a line"))
    if problems:
        raise ConfigError(*problems)
    return found


def _private(config: Config) -> bool:
    """Return whether only this machine reaches the address."""
    from hanlin.serve.guard import LOOPBACK

    return config.host in {*LOOPBACK, "::1"}


def _welcome(config: Config, app: Api, url: str, known: Mapping[str, str]) -> list[str]:
    """Return what a person needs to use the server."""
    lines = [f"serving {', '.join(app.worker.models)} at {url}/v1"]
    if config.key_file is None and not os.environ.get(KEY):
        lines.append(f"key: {known['default']}   (made for this start; {KEY} or --key-file sets one)")
    if not _private(config):
        lines.append("others can reach this address, and HTTP hides nothing on the way: put TLS in front of it")
    name = next(iter(app.worker.models))
    body = f'{{"model": "{name}", "prompt": "The"}}'
    lines.append(
        f"try: curl {url}/v1/completions -H 'Authorization: Bearer KEY' -H 'Content-Type: application/json' -d '{body}'"
    )
    lines.append("Ctrl-C stops it")
    return lines
