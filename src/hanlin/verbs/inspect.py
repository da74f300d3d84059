"""Look inside: a model's sizes, memory and FLOPs; a recipe resolved; the tokens and targets a step would see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.models.contract import ModelConfig

POSITIONAL = ("thing",)
REST = "overrides"
SHOWN = 24  # tokens of a row that are printed


class Config(Frozen):
    """What `hanlin inspect` is told."""

    thing: str = Field("", description="A model folder, a recipe, or a folder of shards.")
    overrides: tuple[str, ...] = Field((), description="For a recipe: key=value.")
    schema_: bool = Field(False, alias="schema", description="Print the JSON schema of recipes.")
    step: int = Field(0, ge=0, description="For shards: which step to show.")
    rows: int = Field(2, gt=0, description="For shards: rows a step.")
    context: int = Field(64, gt=0, description="For shards: tokens a row.")


def run(config: Config) -> None:
    """Print what is there."""
    import click

    for line in _lines(config):
        click.echo(line)


def _lines(config: Config) -> list[str]:
    """Return what to print, by what kind of thing it is."""
    from hanlin import bundle
    from hanlin.config import write_yaml
    from hanlin.data import manifest
    from hanlin.errors import ConfigError, problem
    from hanlin.train import recipe as recipes
    from hanlin.train.model import foreseen

    if config.schema_:
        return [json.dumps(recipes.Recipe.model_json_schema(), indent=2, ensure_ascii=False)]
    if not config.thing:
        raise ConfigError(problem("inspect", "nothing named", "a model folder, a recipe, shards, or --schema"))
    path = Path(config.thing)
    if manifest.exists(path):
        return _data(config, path)
    if path.is_dir():
        return _model(bundle.read_config(path))
    recipe = recipes.load(config.thing, config.overrides)
    planned = foreseen(recipe)
    sizes = f"with a vocab of {planned.vocab:,} and a context of {planned.context:,}:"
    return [*write_yaml(recipes.plain(recipe)).splitlines(), "", sizes, *_model(planned)]


def _model(config: ModelConfig) -> list[str]:
    """Return sizes read from the model built without memory."""
    sketch = config.sketch()
    total = sum(each.numel() for each in sketch.parameters())
    lookups = sum(
        each.numel() for name, each in sketch.named_parameters() if name in ("embed.weight", "positions.weight")
    )
    tied = bool(getattr(config, "tied", False))
    # Forward 2, backward 4 FLOPs a weight that is multiplied (arXiv 2001.08361, section 2.1); attention comes on top.
    multiplied = total - lookups + (config.vocab * config.dim if tied else 0)
    millions = 6 * multiplied / 1e6
    return [
        f"parameters          {total:>15,}   of them only looked up: {total - multiplied:,}",
        f"memory, bf16        {total * 2 / 1e6:>15,.1f} MB to use",
        f"memory, training    {total * 18 / 1e6:>15,.1f} MB of state: bf16 twin, fp32 weights, gradients, two moments",
        f"FLOPs a token       {millions:>15,.1f} million to train, {millions / 3:,.1f} million to read",
        *(f"  {name:42} {'x'.join(map(str, each.shape)):>14}" for name, each in sketch.named_parameters()),
    ]


def _data(config: Config, folder: Path) -> list[str]:
    """Return the report of a folder of shards, and the tokens and targets that a step would see."""
    from hanlin.batch import IGNORE
    from hanlin.data import manifest, shards
    from hanlin.data.batches import Packed
    from hanlin.text.tokenizer import Tokenizer
    from hanlin.verbs import prepare

    tokenizer = Tokenizer.load(folder)
    data = shards.open(folder, "train", vocab=tokenizer.vocab)
    batch = Packed(data, rows=config.rows, context=config.context, seed=0).batch(config.step)
    assert batch.targets is not None
    lines = [*prepare.summary(manifest.read(folder)), f"step {config.step}, {config.rows} x {config.context}:"]
    for row, (ids, targets) in enumerate(zip(batch.tokens.tolist(), batch.targets.tolist())):
        segments = [1] * len(ids) if batch.layout is None else batch.layout.segments[row].tolist()
        lines.append(f"row {row}: {max(segments)} segment(s): {tokenizer.decode(ids)[:100]!r}")
        for column in range(min(SHOWN, len(ids))):
            target = "no loss" if targets[column] == IGNORE else repr(tokenizer.token(targets[column]))
            lines.append(f"  {column:4} segment {segments[column]:3} {tokenizer.token(ids[column])!r:>20} -> {target}")
    return lines
