"""Continue a prompt, streamed as it is written; an encoder–decoder answers it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from pydantic import Field

from hanlin.config import Config as Frozen

POSITIONAL = ("model", "prompt")


class Config(Frozen):
    """What `hanlin generate` is told; the bounds of the choices are those of generate/sampling.py:Sampling."""

    model: str = Field(description="A model folder, or a hub name.")
    prompt: str = Field("", description="What to continue; - reads standard input.")
    limit: int | None = Field(None, description="New tokens at most; 100 or what the context leaves when left out.")
    temperature: float = Field(0.8, description="0 takes the likeliest token, 1 draws as the model says.")
    top_k: int = Field(0, description="Draw from the k likeliest tokens; 0 from all.")
    top_p: float = Field(0.95, description="Draw from the likeliest tokens that hold this share.")
    min_p: float = Field(0.0, description="Leave out tokens below this share of the likeliest one's probability.")
    repetition: float = Field(1.0, description="Penalty above 1 on what stands in prompt or answer.")
    presence: float = Field(0.0, description="Penalty on tokens already in the answer.")
    frequency: float = Field(0.0, description="Penalty for each time a token stands in the answer.")
    stop: tuple[str, ...] = Field((), description="Text that ends the answer; may be given several times.")
    n: int = Field(1, description="Answers.")
    logprobs: int | None = Field(None, description="With --json: alternatives reported beside each token.")
    seed: int = Field(0, description="Same seed, same answer.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")
    json_: bool = Field(False, alias="json", description="Print the whole answers as JSON alone.")


def run(config: Config) -> None:
    """Print the prompt and its continuation, or JSON."""
    import click

    from hanlin import api
    from hanlin.config import parse
    from hanlin.generate.sampling import Sampling
    from hanlin.generate.sources import reads

    own = {"model", "prompt", "precision", "json_"}
    given = {name: getattr(config, name) for name in type(config).model_fields if name not in own}
    chosen = {name: value for name, value in given.items() if value is not None}
    parse(Sampling, chosen, "generate")  # before the model is opened: a bad option is an answer at once
    prompt = _standard_input() if config.prompt == "-" else config.prompt
    model = api.load(config.model, precision=config.precision)
    sampling = model.sampling([prompt], chosen)
    if config.json_ or config.n > 1:
        answers = model.answers([prompt], sampling)
        if config.json_:
            whole = {"prompt": prompt, "answers": [asdict(each) for each in answers]}
            click.echo(json.dumps(whole, ensure_ascii=False))
            return
        for each in answers:
            click.echo(f"--- {each.n + 1} ({each.finish})\n{'' if reads(model.module) else prompt}{each.text}")
        return
    if not reads(model.module):
        click.echo(prompt, nl=False)
    for piece in model.generate(prompt, stream=True, **chosen):
        click.echo(piece, nl=False)
    click.echo()


def _standard_input() -> str:
    """Return what is piped in; DataError unless it is UTF-8."""
    from hanlin.errors import DataError, problem

    try:
        return sys.stdin.read().removesuffix("\n")  # the line end that echo adds is no part of the prompt
    except UnicodeDecodeError as error:
        raise DataError(problem("standard input", f"not UTF-8 at byte {error.start}", "text in UTF-8")) from None
