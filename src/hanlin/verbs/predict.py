"""Answer the rows of a file with a model that was trained for a task; a bad row gets its reason, the others go on.

rows.jsonl ─> out.jsonl        a line a row, in order; the same command goes on where it was cut
.out.jsonl.run   whose answers these are: hashes of model and rows
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hanlin.config import Config as Frozen

if TYPE_CHECKING:  # a verb imports what it wires inside its functions, so that its --help is quick
    from hanlin.tasks.contract import Raw
    from hanlin.tasks.predict import Predictor

POSITIONAL = ("model",)
CHUNK = 512  # rows answered and written together


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
    from hanlin.report import Report
    from hanlin.tasks.predict import opened

    place = runtime.start(precision=config.precision)
    folder = hub.fetch(config.model).folder
    predictor = opened(bundle.read(folder, dtype=place.dtype, device=str(place.device)))
    if config.output is None:
        for line in _answers(predictor, config):
            click.echo(_json(line))
        return
    output = Path(config.output)
    done = _kept(output, folder, config)
    with Report(folder) as report:
        report.start(None, done, unit="row", title="predict")
        if done:
            report.say(f"{config.output}: {done:,} rows are answered already; going on")
        made, bad = _write(_answers(predictor, config, done), output, report)
        report.stop()
    cut = f"; {predictor.truncated:,} tokens did not fit and were cut" if predictor.truncated else ""
    click.echo(f"made {config.output}: {done + made:,} rows, {bad:,} of the {made:,} new ones with an error{cut}")
    click.echo(f"next: hanlin evaluate {config.model} --data LABELLED_ROWS")


def _kept(output: Path, folder: Path, config: Config) -> int:
    """Return how many rows an earlier start answered, its last half line cut off; RunError when they are not ours."""
    from hanlin import files
    from hanlin.config import read_json
    from hanlin.errors import RunError, problem

    card = folder / "hanlin.json"
    ours = {
        "model": files.sha256(card),
        "rows": files.sha256(Path(config.input)) if Path(config.input).is_file() else "",
        "columns": sorted(config.columns),
        "precision": config.precision,
    }
    mark = output.with_name(f".{output.name}.run")
    if config.fresh or not output.exists() or output.stat().st_size == 0:
        with files.explained(output):
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_bytes(b"")
        files.write_json(mark, ours)
        return 0
    theirs = read_json(mark) if mark.is_file() else {}
    if theirs != ours:
        what = " and ".join(key for key in ours if theirs.get(key) != ours[key]) if theirs else "nothing known of them"
        given = f"holds answers already, made otherwise ({what})"
        raise RunError(problem(str(output), given, do="choose another --output, or --fresh to start over"))
    return _whole_lines(output)


def _whole_lines(path: Path) -> int:
    """Return how many lines of a file end, having cut off what stands after the last of them."""
    from hanlin import files

    count = end = 0
    with files.explained(path), path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            count, end = count + 1, end + len(line)
        file.truncate(end)
    return count


def _answers(predictor: Predictor[Any, Any], config: Config, skip: int = 0) -> Iterator[dict[str, Any]]:
    """Yield a line for every row but the first `skip`."""
    from itertools import islice

    from hanlin.tasks import rows

    chosen = rows.columns(config.columns)
    path, task = Path(config.input), predictor.task
    taken: dict[str, str] = {}
    raws = iter(task.read(path))
    while chunk := list(islice(raws, CHUNK)):
        sound = next((raw for raw in chunk if not raw.error), None)
        if not taken and sound is not None:
            taken = rows.guess(task, list(sound.values), chosen, str(path), labelled=False)
        if skip < len(chunk):  # a chunk that was begun is answered whole: other company would change the last digits
            yield from islice(_lines(predictor, chunk, taken, str(path)), skip, None)
        skip = max(0, skip - len(chunk))


def _lines(
    predictor: Predictor[Any, Any], chunk: list[Raw], taken: dict[str, str], path: str
) -> Iterator[dict[str, Any]]:
    """Yield the lines of a few rows, answered together."""
    from hanlin.config import dump
    from hanlin.errors import HanlinError
    from hanlin.tasks import rows

    lines: list[dict[str, Any]] = []
    asked = []
    for raw in chunk:
        line: dict[str, Any] = {"row": raw.number}
        if "id" in raw.values:
            line["id"] = raw.values["id"]
        lines.append(line)
        try:
            asked.append((line, rows.example(predictor.task, raw, taken, f"{path}:{raw.number}", labelled=False)))
        except HanlinError as error:
            line["error"] = " ".join(error.problems)
    for (line, _), prediction in zip(asked, predictor([each for _, each in asked]), strict=True):
        line |= dump(prediction)
    yield from lines


def _write(lines: Iterator[dict[str, Any]], path: Path, report: Any) -> tuple[int, int]:  # noqa: ANN401  # a Report
    """Add the lines to the file; return how many there are, and how many hold an error."""
    from hanlin import files

    done = bad = 0
    with files.explained(path, do="the same command goes on"), path.open("a", encoding="utf-8") as file:
        for line in lines:
            file.write(_json(line) + "\n")
            done, bad = done + 1, bad + ("error" in line)
            if done % CHUNK == 0:
                file.flush()
            report.advance(1)
    return done, bad


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, default=str)
