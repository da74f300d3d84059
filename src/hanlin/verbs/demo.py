"""Learn the documentation on this machine: prepare, train, examine, write, serve; offline, in minutes."""

from __future__ import annotations

import lzma
import time
from contextlib import closing
from pathlib import Path

from pydantic import Field

from hanlin.config import Config as Frozen

PROMPTS = ("Return the ", "class ", "Raised when ")
WINDOW = 64 * 2**20  # bytes xz looks back: all of the training text


class Config(Frozen):
    """What `hanlin demo` is told."""

    output: str = Field("runs/demo", description="The run's folder.")
    minutes: float | None = Field(None, gt=0, description="Minutes to train; the recipe's when left out.")
    fresh: bool = Field(False, description="Start over: empty the run's folder first.")
    serve: bool = Field(False, description="Keep serving the model at the end, until Ctrl-C.")


def run(config: Config) -> None:
    """Run every stage, each with its numbers; what is done already is not done again."""
    import click

    from hanlin.train import recipe as recipes
    from hanlin.verbs import evaluate, train

    began = time.perf_counter()
    folder = Path(config.output)
    minutes = [] if config.minutes is None else [f"plan.minutes={config.minutes}"]
    recipe = recipes.load("demo", minutes)
    click.echo("1. prepare and train: the docstrings of Python and its packages on this machine (recipe: demo)")
    click.echo(f"   {train.learn(recipe, folder, fresh=config.fresh)}")
    click.echo("2. examine: modules it has never seen, against xz on the same text")
    scores = evaluate.evaluate(evaluate.Config(model=str(folder)))
    bits = scores.bits_per_byte
    click.echo(f"   the model        {bits.value:.3f} bits a byte   ({bits.low:.3f} to {bits.high:.3f})")
    plain, primed = _xz(folder / "data")
    click.echo(f"   xz               {plain:.3f}")
    click.echo(f"   xz, primed       {primed:.3f}   having read the same training text first")
    click.echo("3. write:")
    for line in _samples(folder):
        click.echo(line)
    click.echo("4. serve: one request over HTTP, as any client of OpenAI's API sends it")
    _serve(folder, keep=config.serve)
    seconds = time.perf_counter() - began
    click.echo(f"done in {seconds / 60:.1f} minutes; everything is in {folder}. Go on:")
    click.echo(f'   hanlin generate {folder} "The module"')
    click.echo(f"   hanlin evaluate {folder} --data YOUR_TEXT.txt")
    click.echo(f"   hanlin serve {folder}")
    click.echo(f"   hanlin inspect {folder}")
    click.echo("   hanlin train demo data.train=YOUR_FOLDER --output runs/mine")


def _xz(folder: Path) -> tuple[float, float]:
    """Return the bits a byte that xz needs for the held-out text: alone, and after reading the training text."""
    from hanlin.data import shards
    from hanlin.text.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(folder)

    def text(split: str) -> bytes:
        data = shards.open(folder, split)
        return "".join(tokenizer.decode(data.document(index).tolist()) for index in range(data.documents)).encode()

    def size(content: bytes) -> int:
        return len(lzma.compress(content, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": WINDOW}]))

    held, known = text("valid"), text("train")
    return 8 * size(held) / len(held), 8 * (size(known + held) - size(known)) / len(held)


def _samples(folder: Path) -> list[str]:
    """Return what the model writes after a few beginnings, always the same."""
    from hanlin import api

    model = api.load(str(folder))
    texts = model.generate(list(PROMPTS), limit=48, temperature=0.7, top_p=0.9, seed=1)
    return [f"   {prompt}{text}".replace("\n", "\n   ") for prompt, text in zip(PROMPTS, texts)]


def _serve(folder: Path, *, keep: bool) -> None:
    """Serve the model on a free port, ask it once over HTTP, print what it says, and stop unless told to `keep` on."""
    import threading

    import click

    from hanlin.serve import listen
    from hanlin.verbs import serve

    config = serve.Config(models=str(folder), slots=4)
    known = serve.keys(config)
    app = serve.application(config, known)
    failed: list[Exception] = []

    def ask(url: str) -> None:
        try:
            click.echo(
                f"   POST {url}/v1/completions\n   {_asked(url, next(iter(known.values())), folder.resolve().name)}"
            )
            if keep:
                click.echo(f"   key: {next(iter(known.values()))}\n   Ctrl-C stops it")
        except Exception as error:  # a thread cannot raise for its starter
            failed.append(error)
        if failed or not keep:
            server.stop()

    with closing(listen.bind(config.host, 0)) as address:
        server = listen.Server(
            app,
            address,
            drain_s=5,
            listening=lambda url: threading.Thread(target=ask, args=(url,), daemon=True).start(),
        )
        server.run()
    if failed:
        raise failed[0]


def _asked(url: str, key: str, name: str) -> str:
    """Return what the served model writes after "The module "."""
    import json
    import urllib.request

    body = {"model": name, "prompt": "The module ", "max_tokens": 24, "temperature": 0}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no way to this machine
    with direct.open(request, timeout=60) as answer:
        found = json.load(answer)
    return f"{found['usage']['completion_tokens']} tokens: {found['choices'][0]['text']!r}"
