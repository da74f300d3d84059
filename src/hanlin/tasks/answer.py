"""Answers that stand in a passage: where they begin and end, or that there is none, by a `span` head.

    question, context ─ encode ─> windows of the context, the question before each ─ run ─> (start, end) scores
                    gain of a span = its start and end scores, less those of the window's first token (no answer)
                    the spans of highest gain in any window ─ threshold ─> answer, start, end, or ""

Rows are SQuAD's or CMRC's JSON, or a table with question, context and answers. Windows: Devlin et al., 1810.04805;
no answer: Rajpurkar et al., 1806.03822. `elsewhere` asks a share of the training file's questions a second time of
a passage of another article, so that not answering can be learned and its threshold settled on held-out rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from hanlin.batch import Batch
from hanlin.errors import DataError, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.metrics.texts import cmrc, squad
from hanlin.models.contract import Model
from hanlin.objectives import span
from hanlin.objectives.span import Ends
from hanlin.tasks import contract
from hanlin.tasks.contract import Raw, Row, Settles, Task
from hanlin.tasks.reading import articles
from hanlin.tasks.reading.asked import Read, answers_of, read
from hanlin.tasks.reading.windows import windows
from hanlin.text.tokenizer import Tokenizer

LEAST = 1e9  # stands for an infinite threshold, which JSON cannot say


class Example(contract.Example):
    """A question, the passage to look in, and the answers where they are known; none of them: () ."""

    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None = None  # text, and the character at which it begins
    article: str | None = None  # questions about one article move together in the intervals of scores


class Candidate(contract.Prediction):
    """A stretch of the context that may be the answer; `score` is how much likelier, in nats, than no answer."""

    text: str
    start: int
    end: int
    score: float
    probability: float  # among the candidates and no answer


class Prediction(contract.Prediction):
    """The answer and where it stands, "" for none; `best` holds what else might be, the likeliest first."""

    answer: str
    start: int | None = None
    end: int | None = None
    score: float = -LEAST
    best: tuple[Candidate, ...] = ()


class Config(Task[Example, Prediction], Settles):
    """Extractive question answering by a `span` head."""

    rule: Literal["squad", "cmrc"] = "squad"  # how answers are compared
    longest: int = Field(30, gt=0)  # tokens of an answer
    best: int = Field(5, gt=0)  # candidates that are told
    overlap: float = Field(0.33, ge=0, le=0.5)  # of a window with the next
    elsewhere: float = Field(0.0, ge=0, le=1)  # share of questions learned from a second time without answer
    threshold: float | None = None  # an answer of lower score is none; learned where some rows have no answer

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "question": ("query",),
        "context": ("passage", "paragraph", "document", "text"),
        "answers": ("answer",),
        "article": ("title",),
    }
    needed: ClassVar = ("question", "context")
    answers: ClassVar = ("answers",)
    main: ClassVar = "f1"

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the questions of a file in SQuAD's layout, with those asked elsewhere, or the rows of a table."""
        return articles.read(path, self.elsewhere)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; DataError for an empty text, or an answer that does not stand where it should."""
        for field in ("question", "context"):
            if not isinstance(values[field], str):
                raise DataError(problem(field, f"{values[field]!r}"[:60], "text"))
            if not values[field].strip():
                raise DataError(problem(field, "empty"))
        given = values.get("answers")
        found = None if given is None else answers_of(values["context"], given)
        title = None if values.get("article") is None else str(values["article"])
        return Example(question=values["question"], context=values["context"], answers=found, article=title)

    def texts(self, example: Example) -> list[str]:
        """Return the question and the passage."""
        return [example.question, example.context]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task that reads files as they stand: what is asked elsewhere has been read."""
        if not any(example.answers for example in examples):
            raise DataError(problem("data.train", "no answers", "at least one"))
        return self.model_copy(update={"elsewhere": 0.0})

    def heads(self) -> Mapping[str, int]:
        """Return two outputs a token: begins here, ends here."""
        return {"span": 2}

    def objective(self) -> span.Config:
        """Return the loss of both ends."""
        return span.Config()

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return the windows of every example; one without the answer answers with its first token."""
        found: list[Row] = []
        for number, example in enumerate(examples):
            each = read(tokenizer, example.question, example.context, context)
            for start, end in windows(len(each.body), each.room, int(self.overlap * each.room)):
                found.append(self._row(number, example, each, start, end))
            found[-1] = replace(found[-1], truncated=each.truncated)
        return found

    def _row(self, number: int, example: Example, each: Read, start: int, end: int) -> Row:
        """Return one window; `note` is its first context token's place, and the characters of the context's tokens."""
        ids = (*each.head, *each.body[start:end], *each.tail)
        offsets, first = each.offsets[start:end], len(each.head)
        kinds = (*each.kinds[0], *each.kinds[1][start:end], *each.kinds[2])
        ends = None
        if example.answers is not None:
            ends = (0, 0)
            for text, begins in example.answers[:1]:
                inside = [at for at, (a, b) in enumerate(offsets) if a < begins + len(text) and b > begins]
                whole = inside and offsets[inside[0]][0] <= begins and offsets[inside[-1]][1] >= begins + len(text)
                ends = (first + inside[0], first + inside[-1]) if whole else (0, 0)
        return Row(example=number, ids=ids, kinds=kinds if any(kinds) else None, answer=ends, note=(first, offsets))

    def labels_of(self, rows: Sequence[Row]) -> Ends | None:
        """Return the ends as one tensor."""
        if any(row.answer is None for row in rows):
            return None
        return Ends(values=torch.tensor([row.answer for row in rows]))

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[Numbers]:
        """Return the scores (T, 2) of each row's tokens."""
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        return list(model.heads["span"](hidden, batch.layout).double().cpu().numpy())

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[Numbers], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the span of highest gain over all windows, or none where it is below the threshold."""
        gains: dict[tuple[int, int], float] = {}
        for row, scores in zip(rows, outputs):
            for place, gain in self._spans(row, scores):
                where = _trimmed(example.context, *place)
                if where[0] < where[1] and gain > gains.get(where, -np.inf):
                    gains[where] = gain
        ordered = sorted(gains.items(), key=lambda item: (-item[1], item[0]))[: self.best]
        nats = np.array([gain for _, gain in ordered] + [0.0])
        likely = np.exp(nats - nats.max())
        likely /= likely.sum()
        best = tuple(
            Candidate(text=example.context[a:b], start=a, end=b, score=gain, probability=float(each))
            for ((a, b), gain), each in zip(ordered, likely)
        )
        if not best:
            return Prediction(answer="")
        top = best[0]
        if self.threshold is not None and top.score < self.threshold:
            return Prediction(answer="", score=top.score, best=best)
        return Prediction(answer=top.text, start=top.start, end=top.end, score=top.score, best=best)

    def _spans(self, row: Row, scores: Numbers) -> Iterator[tuple[tuple[int, int], float]]:
        """Yield a window's spans of highest gain, as characters of the context."""
        first, offsets = row.note
        count = len(offsets)
        starts, ends = scores[first : first + count].T
        gains = starts[:, None] + ends[None, :] - scores[0].sum()
        length = np.arange(count)[None, :] - np.arange(count)[:, None]
        gains[(length < 0) | (length >= self.longest)] = -np.inf
        most = min(gains.size, 4 * self.best)  # spaces at the edges make equals of a few
        for flat in np.argsort(-gains, axis=None, kind="stable")[:most]:
            start, end = divmod(int(flat), count)
            if gains[start, end] > -np.inf:
                yield (offsets[start][0], offsets[end][1]), float(gains[start, end])

    def settled(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Self:
        """Return the task with the threshold of the highest F1, where some of the rows have no answer."""
        if all(each.answers for each in examples):
            return self
        curve = self.abstention(examples, predictions)
        return self.model_copy(update={"threshold": float(np.clip(-curve.thresholds[curve.best], -LEAST, LEAST))})

    def abstention(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> squad.Abstention:
        """Return the scores at every threshold, whatever the task's own one is."""
        given = [each.best[0].text if each.best else "" for each in predictions]
        doubts = [-each.score for each in predictions]
        judge = cmrc.judge if self.rule == "cmrc" else None
        return squad.abstention(given, _wanted(examples), doubts, judge=judge)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return exact match and F1, of 100; with unanswerable questions also those of either kind."""
        groups = [each.article for each in examples]
        return self.statistics(examples, predictions).score(None if None in groups else groups)

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return what each question adds to the scores."""
        given, wanted = [each.answer for each in predictions], _wanted(examples)
        if self.rule == "squad":
            return squad.rows(given, wanted)
        return squad.judged(given, wanted, cmrc.judge)

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return each question's F1, a fraction."""
        return self.statistics(examples, predictions).numbers[:, 1]


def _wanted(examples: Sequence[Example]) -> list[list[str]]:
    """Return the texts of the answers."""
    return [[text for text, _ in each.answers or ()] for each in examples]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a stretch without white space at its edges."""
    inside = text[start:end]
    return start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())
