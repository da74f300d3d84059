"""A question into what a machine carries out: SQL over a SQLite database, or a frame in any notation.

    question ─ slots ─> what is the biggest city in value0 ( state_name ) ─ encoder ─> memory ─ beam search ─┐
               value0 = ohio                                              grammar of the database ───────────┤
    SQL <─ SELECT before FROM <─ value0 filled <─ from city select … where state_name = value0 <─────────────┘

The grammar (sql/grammar.py) knows tables, columns and what stands in them, so SQLite can plan every complete query. It
is made from the database and the training rows and kept in the bundle; the database itself is asked only for scores. An
answer that was cut, or names a text that the question has not, counts as wrong: no other query is put in its place.
Training rows whose query the form cannot say (`foreign`) are counted, and nothing is learned from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np

from hanlin.batch import Batch, Tokens
from hanlin.errors import DataError, problem
from hanlin.metrics.contract import FRACTION, Estimate, Numbers, Rows, Sums, mean
from hanlin.metrics.texts import exact, execution
from hanlin.models.contract import Model
from hanlin.tasks import contract, rows
from hanlin.tasks.contract import Raw, Row, Task
from hanlin.tasks.sql import knowledge
from hanlin.tasks.sql.knowledge import Database, Result, Slots, Table
from hanlin.tasks.writing.sentences import text_of
from hanlin.tasks.writing.seq2seq import Nats, Writer, Written, picked
from hanlin.text.tokenizer import Tokenizer


class Example(contract.Example):
    """A question, and its query or frame where that is known."""

    question: str
    query: str | None = None


class Prediction(contract.Prediction):
    """The query or frame; "" where none was completed."""

    query: str
    complete: bool


class Config(Task[Example, Prediction], Writer):
    """Semantic parsing by a model that reads a source."""

    kind: Literal["sql", "frame"] = "sql"
    database: str | None = None  # of SQL: a SQLite file
    limit_s: float = 2.0  # of a query
    constrained: bool = True  # answers of SQL keep to the grammar
    lark: str | None = None  # of frames: a grammar of one's own
    tables: tuple[Table, ...] = ()  # of the database; learned
    lists: tuple[str, ...] = ()  # of tables that training queries read together; learned
    named: tuple[str, ...] = ()  # columns that training queries compare with texts; learned
    foreign: int = 0  # training rows whose query the form cannot say

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "question": ("text", "utterance", "sentence", "source"),
        "query": ("sql", "frame", "logical_form", "program", "target"),
    }
    needed: ClassVar = ("question",)
    answers: ClassVar = ("query",)

    @property
    def main(self) -> str:  # type: ignore[override]  # it follows from the kind
        """Return the score that decides."""
        return "exec_accuracy" if self.kind == "sql" else "exact_match"

    def problems(self) -> list[str]:
        """Return what is impossible together."""
        if self.kind == "sql" and self.database is None:
            return [problem("database", "missing", do="task.database=FILE.sqlite, or task.kind=frame")]
        return [problem("lark", "given", do="task.kind=frame")] if self.kind == "sql" and self.lark else []

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a table."""
        return rows.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; neither side is empty."""
        return Example(
            **{field: text_of(field, values[field]) for field in self.columns if values.get(field) is not None}
        )

    def texts(self, example: Example) -> list[str]:
        """Return the question as it is read, and what is to be written."""
        source, said, _ = self._taken(example)
        return [source, *([said] if said else [])]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the database's tables and what the training queries read and compare."""
        if self.kind == "frame":
            return self
        tables = self.tables or self._database.tables()
        lists, named, foreign = knowledge.learned([each.query or "" for each in examples], tables)
        if foreign == len(examples):
            raise DataError(problem("data.train", "no query that the database's grammar can say", "SELECT … FROM …"))
        learned = {"tables": tables, "lists": lists, "named": named, "foreign": foreign}
        return type(self)(**{**dict(self), **learned})  # anew: nothing that was made from the old fields stays

    def heads(self) -> Mapping[str, int]:
        """Return no head: the model writes."""
        return {}

    def objective(self) -> Nats:
        """Return the nats of the query."""
        return self.loss()

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return one row an example; of a query that the form cannot say nothing is learned."""
        taken = [self._taken(each) for each in examples]
        asked = [(source, said) for source, said, _ in taken]
        return self.written_rows(asked, tokenizer, context, [texts for _, _, texts in taken])

    def _taken(self, example: Example) -> tuple[str, str | None, tuple[str, ...]]:
        """Return what is read, what is to be written ("" where it cannot be said), and the texts of the slots."""
        if self.kind == "frame":
            return example.question, example.query, ()
        source, texts = self._slots.taken(example.question)
        if example.query is None:
            return source, None, texts
        return source, knowledge.said(example.query, self._columns, texts), texts

    def labels_of(self, rows: Sequence[Row]) -> None:
        """Return nothing: the targets say it all."""
        return

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[Written]:
        """Return what is written for each row; a query names only those slots that its question has."""
        if self.kind == "frame" or not self.constrained:
            return self.write(model, batch, tokenizer, knowledge.own(self.lark))
        assert isinstance(batch.source, Tokens), "questions are text"
        slots = knowledge.slots_of(tokenizer.decode(ids) for ids in batch.source.ids.tolist())
        found: dict[int, Written] = {}
        for each in sorted({*slots}):
            places = [place for place, number in enumerate(slots) if number == each]
            keeps = knowledge.keeps(self.tables, self.lists, each)
            found |= dict(zip(places, self.write(model, picked(batch, places), tokenizer, keeps)))
        return [found[place] for place in range(len(slots))]

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[Written], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the query, or nothing where it was cut or a slot is left."""
        (written,) = outputs
        if not written.complete:
            return Prediction(query="", complete=False)
        if self.kind == "frame":
            return Prediction(query=written.text, complete=True)
        query = knowledge.answer(written.text, rows[0].note)
        return Prediction(query=query or "", complete=query is not None)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return `exec_accuracy`, `complete` and `explained`, the share of complete queries that SQLite can plan.

        Rows whose own query finds nothing are left out of the first: `n` says how many stay. Of frames `exact_match`.
        """
        whole = np.array([[each.complete, 1.0] for each in predictions])
        found = self.statistics(examples, predictions).score()
        found["complete"] = Rows(numbers=whole, measures={"complete": Sums(mean, FRACTION)}).score()["complete"]
        if self.kind == "sql" and whole[:, 0].any():
            planned = [[self._database.explains(each.query), 1.0] for each in predictions if each.complete]
            measures = {"explained": Sums(mean, FRACTION)}
            found |= Rows(numbers=np.array(planned, dtype=np.float64), measures=measures).score()
        return found

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return 1 for each right answer, else 0; 1 where the wanted query finds nothing, which tells nothing."""
        if self.kind == "frame":
            return self.statistics(examples, predictions).alone("exact_match")
        given, wanted, ordered = self._results(examples, predictions)
        marks = np.ones(len(examples))
        for place in np.flatnonzero(execution.told(wanted)):
            single = slice(int(place), int(place) + 1)
            marks[place] = execution.rows(given[single], wanted[single], ordered=ordered[single]).numbers[0, 0]
        return marks

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's part in the share of right answers."""
        if self.kind == "frame":
            return exact.rows([each.query for each in predictions], [each.query or "" for each in examples])
        given, wanted, ordered = self._results(examples, predictions)
        return execution.rows(given, wanted, ordered=ordered)

    def _results(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> tuple[list[Result | None], list[Result], list[bool]]:
        """Return what the queries find, what the wanted ones find, and whether their order counts."""
        given = [self._database.run(each.query if each.complete else None) for each in predictions]
        wanted = [self._database.run(each.query) or [] for each in examples]
        return given, wanted, [execution.order_counts(each.query or "") for each in examples]

    @cached_property
    def _database(self) -> Database:
        assert self.database is not None, "checked"
        return Database(self.database, limit_s=self.limit_s)

    @cached_property
    def _slots(self) -> Slots:
        return Slots(self.tables, self.named)

    @cached_property
    def _columns(self) -> dict[str, tuple[str, ...]]:
        return {each.name: each.columns for each in self.tables}
