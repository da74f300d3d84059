"""From a model folder, or a root that holds several, to what is served under which name.

    serve runs/x     ->  "x"                                a folder with a config.json is one model
    serve runs/      ->  "x", "y", "team/z"                 else every folder below it that has one, two levels down

Names are fixed when the server starts: a request chooses among them and never spells a path. A link that leads out of
the root is not followed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hanlin import bundle, hub
from hanlin.config import Config as Frozen
from hanlin.errors import BundleError, ConfigError, problem
from hanlin.generate.constrain import Vocabulary
from hanlin.machine import free_bytes
from hanlin.runtime import Runtime
from hanlin.serve.engine import Engine
from hanlin.serve.scheduler import Scheduler
from hanlin.serve.tasks.made import abilities, bulks
from hanlin.serve.worker import Line, Served
from hanlin.text.chat import Chat

CONTEXT = 4096  # tokens a request may take, where nothing is said and the model allows more: memory is reserved for it
LEVELS = 2


class Sizes(Frozen):
    """What is reserved for each model, and how a step is cut."""

    slots: int = 32  # answers written at the same time
    chunk: int = 256  # prompt tokens read in one step
    queue: int = 64  # requests of one client that may wait
    context: int | None = None  # tokens of prompt and answer; None: the model's, up to CONTEXT


def lines(path: str, sizes: Sizes, place: Runtime) -> list[Line]:
    """Open everything that `path` names; HanlinError says why a folder cannot be served.

    This happens in a thread of its own, which ends: every thread that computes with torch keeps a team of OpenMP
    threads, and where there are more of them than cores, each step of the engine takes twice as long.
    """
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(
            lambda: [_line(name, folder, sizes, place) for name, folder in named(path).items()]
        ).result()


def named(path: str) -> dict[str, Path]:
    """Return name -> folder of the models at a path: a folder, a root of folders, or a hub name."""
    root = Path(path)
    if not root.is_dir() or (root / "config.json").is_file():
        folder = hub.fetch(path).folder
        return {(path if not root.is_dir() else root.resolve().name): folder}
    found = {folder.relative_to(root).as_posix(): folder for folder in _below(root, root.resolve(), LEVELS)}
    if not found:
        raise BundleError(problem(path, "no config.json, here or below", "a model folder, or a folder of them"))
    return found


def _below(folder: Path, inside: Path, levels: int) -> Iterator[Path]:
    """Yield the model folders under a folder, in order of names; nothing outside `inside`."""
    for each in sorted(folder.iterdir()):
        if each.name.startswith(".") or not each.is_dir() or not each.resolve().is_relative_to(inside):
            continue
        if (each / "config.json").is_file():
            yield each
        elif levels > 1:
            yield from _below(each, inside, levels - 1)


def _line(name: str, folder: Path, sizes: Sizes, place: Runtime) -> Line:
    """Open one model."""
    opened = bundle.read(folder, dtype=place.dtype, device=str(place.device))
    able = abilities(opened)
    most = opened.model.config.context
    context = (able.writes and sizes.context) or min(CONTEXT, most)
    if context > most:
        raise ConfigError(problem("context", f"{context}", f"{name} reads {most} tokens at most"))
    engine = None
    if able.writes or able.useless:  # the engine says why
        _forecast(name, opened, sizes.slots, context)
        engine = Engine(opened.model, opened.tokenizer, opened.stop_ids, slots=sizes.slots, length=context)
    opening = None if engine is None else engine.opening
    served = Served(
        name=name,
        created=int(time.time()),
        tokenizer=opened.tokenizer,
        chat=Chat.read(folder, opened.tokenizer),
        context=context,
        vocab=opened.model.config.vocab,
        words=Vocabulary(opened.tokenizer, opened.stop_ids),
        fingerprint=_fingerprint(opened),
        able=able,
        dim=opened.model.config.dim,
        opening=opening,
        never=() if opening is None else opened.model.config.never,
    )
    shares = engine is None or engine.shares
    return Line(
        served=served,
        engine=engine,
        scheduler=Scheduler(slots=sizes.slots, chunk=sizes.chunk, queue=sizes.queue, shares=shares),
        bulks=bulks(opened, able, sizes.queue),
    )


def _fingerprint(opened: bundle.Bundle) -> str | None:
    """Return what changes when the weights do: the beginning of their hash, where hanlin.json has it."""
    hashes = opened.card.get("files", {})
    weights = sorted(value for name, value in hashes.items() if name.endswith(".safetensors"))
    return f"fp_{weights[0][:12]}" if weights else None


def _forecast(name: str, opened: bundle.Bundle, slots: int, context: int) -> None:
    """Raise ConfigError where the cache would take more memory than there is."""
    free = free_bytes()
    needed = Engine.needs(opened.model, slots, context)
    if free is not None and opened.model.device.type == "cpu" and needed > free:
        given = f"{slots} slots of {context} tokens need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} are free"
        raise ConfigError(problem(name, given, do="lower --slots or --context"))
