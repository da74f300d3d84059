"""Answer the rows of a file with a model that was trained for a task; a bad row gets its reason, the others go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.tasks.predict import Predictor

POSITIONAL = ("model",)
CHUNK = 1024  # rows answered and written together


class Config(Frozen):
    """What `hanlin predict` is told."""

    model: str = Field(description="A model folder trained for a task, or a hub name.")
    input: str = Field(description="Rows: .jsonl .json .csv .tsv .parquet .txt, each also .gz or .zst.")
    output: str | None = Field(None, description="Where answers go as .jsonl; printed when left out.")
    columns: tuple[str, ...] = Field((), description="field=column, where the usual names do not say.")
    precision: str = Field("fp32", description="Number type to compute in: fp32 or bf16.")
    fresh: bool = Field(False, description="Start over where the output holds answers already.")


def run(config: Config) -> None:
    """Write one line of JSON a row, in order: its number, its id where it has one, and the answer or the error."""
    import click

    from hanlin import bundle, hub, runtime
    from hanlin.tasks.predict import opened

    place = runtime.start(precision=config.precision)
    folder = hub.fetch(config.model).folder
    predictor = opened(bundle.read(folder, dtype=place.dtype, device=str(place.device)))
    lines = _answers(predictor, config)
    if config.output is None:
        for line in lines:
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    done, bad = _write(lines, Path(config.output), config)
    cut = f"; {predictor.truncated:,} tokens did not fit and were cut" if predictor.truncated else ""
    click.echo(f"made {config.output}: {done:,} rows, {bad:,} of them with an error{cut}")
    click.echo(f"next: hanlin evaluate {config.model} --data LABELLED_ROWS")


def _answers(predictor: Predictor[Any, Any], config: Config, skip: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a line for every row from number `skip` on."""
    from itertools import islice

    from hanlin.config import dump
    from hanlin.errors import ConfigError, HanlinError, problem
    from hanlin.tasks import rows

    wrong = [each for each in config.columns if "=" not in each]
    if wrong:
        raise ConfigError(problem("--columns", wrong[0], "field=column"))
    chosen = dict(each.split("=", 1) for each in config.columns)
    path, task = Path(config.input), predictor.task
    taken: dict[str, str] = {}
    raws = islice(task.read(path), skip, None)
    while chunk := list(islice(raws, CHUNK)):
        lines: list[dict[str, Any]] = []
        asked = []
        for raw in chunk:
            line: dict[str, Any] = {"row": raw.number}
            if "id" in raw.values:
                line["id"] = raw.values["id"]
            lines.append(line)
            try:
                if not taken and not raw.error:
                    taken = rows.guess(task, list(raw.values), chosen, str(path), labelled=False)
                asked.append((line, rows.example(task, raw, taken, f"{path}:{raw.number}", labelled=False)))
            except HanlinError as error:
                if not taken and not raw.error:
                    raise
                line["error"] = " ".join(error.problems)
        for (line, _), prediction in zip(asked, predictor([each for _, each in asked]), strict=True):
            line |= dump(prediction)
        yield from lines


def _write(lines: Iterator[dict[str, Any]], path: Path, config: Config) -> tuple[int, int]:
    """Write the lines; return how many there are, and how many hold an error."""
    from hanlin import files

    done = bad = 0
    with files.explained(path), path.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            done, bad = done + 1, bad + ("error" in line)
    return done, bad
