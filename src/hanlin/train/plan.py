"""How long and in what portions a run learns: the `plan` section of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hanlin.config import Config
from hanlin.train.grow import Grow

LENGTHS = ("steps", "epochs", "minutes")  # exactly one says how long
PORTIONS = ("rows", "tokens")  # at most one says how much a step takes


class Plan(Config):
    """Exactly one of steps, epochs and minutes says how long; rows (or tokens) and context, how much a step."""

    steps: int | None = Field(None, gt=0)
    epochs: float | None = Field(None, gt=0)  # passes over the training text
    minutes: float | None = Field(None, gt=0)  # turned into steps by a short measurement before step 0
    rows: int | None = Field(None, gt=0)
    tokens: int | None = Field(None, gt=0)  # in place of rows: tokens a step, whole rows of `context`
    context: int = Field(256, gt=0)  # tokens a row
    accumulate: int = Field(1, gt=0)  # portions that a step's rows are computed in; changes memory, not results
    portion: int | None = Field(None, gt=0)  # in place of accumulate: the most tokens that are computed at once
    grow: Grow | None = None  # begin with shorter rows, or fewer
    shortest_first: bool = False  # the first pass of a task takes rows in rising length
    clip: float | None = Field(1.0, gt=0)  # largest norm of the gradient
    ema: float | None = Field(None, gt=0, lt=1)  # average the weights, such as 0.999; the average is what is kept
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # of forward and backward: what is faster; state is fp32
    seed: int = Field(0, ge=0)
    evaluate_every: int | None = Field(None, gt=0)  # steps; a tenth of the run when left out
    save_every: int | None = Field(None, gt=0)  # steps; as evaluate_every when left out
    save_minutes: float | None = Field(15.0, gt=0)  # and at least this often, whatever a step takes
    keep: int = Field(2, gt=0)  # newest checkpoints kept, besides the best
    patience: int | None = Field(None, gt=0)  # stop after so many evaluations without a better one
    device: str = "auto"
    threads: int = Field(0, ge=0)  # 0: one a core
    compile: bool = False  # torch.compile: minutes at first, then faster steps; for long runs (docs/train.md)
    profile: bool = False  # look at three steps: trace.json for a browser, and in words where the time went
    watts: float | None = Field(None, gt=0)  # what the machine draws at work, for the estimate of energy

    def problems(self) -> list[str]:
        """Return contradictions."""
        found = []
        lengths = [name for name in LENGTHS if getattr(self, name) is not None]
        if len(lengths) != 1:
            found.append(
                f"{' and '.join(lengths) or 'no length'} given; exactly one of steps, epochs, minutes is needed"
            )
        if self.rows is not None and self.tokens is not None:
            found.append("rows and tokens given; one of them says how much a step takes")
        if self.tokens is not None and self.tokens < self.context:
            found.append(f"tokens {self.tokens} is less than one row of context {self.context}")
        if self.accumulate > self.rows_a_step:
            found.append(f"accumulate {self.accumulate} is more portions than a step has rows, {self.rows_a_step}")
        if self.portion is not None and self.accumulate > 1:
            found.append("portion and accumulate given; one of them says how a step is cut")
        if self.grow is not None:
            found += self.grow.against(self.rows_a_step, self.context)
        return found

    @property
    def rows_a_step(self) -> int:
        """Return the rows that one step takes."""
        return self.tokens // self.context if self.tokens is not None else self.rows or 16
