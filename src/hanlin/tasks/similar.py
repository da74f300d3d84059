"""How alike two texts are: the cosine of their vectors, learned from pairs, triplets or scored pairs.

    text     ─┐                     ┌─> vector ─┐
    pair      ├─ encode ─> a row ───┼─> vector ─┴─ cosine ─> similarity
    negative ─┘  each, one group    └─> vector     (of a triplet, also the cosine with its negative)

    learn        training rows have        decided by
    cosent       text, pair, score         spearman         the order of the scores
    cosine       text, pair, score         spearman         the scores themselves
    contrastive  text, pair [, negative]   spearman of held-out rows with scores: name them in data.valid
    triplet      text, pair, negative      accuracy: the pair is nearer than the negative

The bundle says how vectors are made (modules.json), so `embed`, `hanlin search` and sentence-transformers make the
same. Letters: B rows, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch.nn import functional as F

from hanlin.batch import Batch
from hanlin.errors import DataError, problem
from hanlin.metrics import correlation
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.metrics.labels import accuracy
from hanlin.models.contract import Model
from hanlin.models.sentences import Pooling
from hanlin.nn.heads import How, pool
from hanlin.objectives import contrastive
from hanlin.objectives.contrastive import NEGATIVE, PAIR, TEXT, Kind, Sides
from hanlin.tasks import contract, rows
from hanlin.tasks.contract import Pools, Raw, Row, Task
from hanlin.text.tokenizer import Tokenizer


class Example(contract.Example):
    """Two texts and how alike they are, or a text, one like it and one unlike it."""

    text: str
    pair: str
    negative: str | None = None
    score: float | None = None  # on any scale: the more alike, the higher


class Prediction(contract.Prediction):
    """How alike text and pair are, and text and negative where there is one."""

    similarity: float
    other: float | None = None


class Config(Task[Example, Prediction], Pools):
    """Similarity of pooled vectors."""

    learn: Kind = "cosent"
    how: How = "mean"  # a text's vector comes from its states
    temperature: float = Field(0.05, gt=0)  # of contrastive and cosent
    margin: float = Field(0.2, gt=0)  # of triplet
    scaled: bool = False  # give similarity on the scale of the training scores, not as a cosine
    low: float | None = None  # the scale of the scores; learned from the training rows where left out
    high: float | None = None

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "text": ("sentence", "sentence1", "text_a", "anchor", "premise", "query", "question", "s1", "text1"),
        "pair": ("sentence2", "text_b", "positive", "hypothesis", "title", "passage", "answer", "s2", "text2"),
        "negative": ("contradiction", "hard_negative", "neg"),
        "score": ("similarity", "label", "rating", "gold"),
    }
    needed: ClassVar = ("text", "pair")

    @property
    def answers(self) -> tuple[str, ...]:  # type: ignore[override]  # what labelled rows hold follows from `learn`
        """Return the fields of labelled rows alone."""
        return () if self.learn in ("triplet", "contrastive") else ("score",)

    @property
    def main(self) -> str:  # type: ignore[override]  # likewise
        """Return the score that decides."""
        return "accuracy" if self.learn == "triplet" else "spearman"

    def problems(self) -> list[str]:
        """Return a scale that is none."""
        known = self.low is not None and self.high is not None
        return [f"low {self.low} is not below high {self.high}"] if known and self._range()[1] <= 0 else []

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a table."""
        return rows.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; a score is a number."""
        for field in ("text", "pair", "negative"):
            if not isinstance(values.get(field, ""), str):
                raise DataError(problem(field, f"{values[field]!r}"[:60], "text"))
            if not values.get(field, "-").strip():
                raise DataError(problem(field, "empty"))
        score = values.get("score")
        try:
            number = None if score is None else float(score)
        except (TypeError, ValueError):
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise DataError(problem("score", f"{score!r}"[:60], "a number"))
        return Example(text=values["text"], pair=values["pair"], negative=values.get("negative"), score=number)

    def texts(self, example: Example) -> list[str]:
        """Return the two or three texts."""
        return [each for each in (example.text, example.pair, example.negative) if each is not None]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the scale of the rows' scores; DataError for what `learn` cannot learn from."""
        bare = [number for number, each in enumerate(examples, 1) if each.negative is None]
        if self.learn == "triplet" and bare:
            raise DataError(problem("data.train", f"row {bare[0]:,} of {len(examples):,} has no negative"))
        scores = [each.score for each in examples if each.score is not None]
        if self.learn in ("cosine", "cosent") and len({*scores}) < 2:
            raise DataError(problem("data.train", "all scores are the same", "at least two different scores"))
        low, high = (min(scores), max(scores)) if len({*scores}) > 1 else (0.0, 1.0)
        found = {"low": low if self.low is None else self.low, "high": high if self.high is None else self.high}
        return self.model_copy(update=found)

    def heads(self) -> Mapping[str, int]:
        """Return none: the states themselves are pooled."""
        return {}

    def objective(self) -> contrastive.Config:
        """Return the loss that `learn` names."""
        return contrastive.Config(kind=self.learn, how=self.how, temperature=self.temperature, margin=self.margin)

    def pooling(self, context: int) -> Pooling:
        """Return the pooling of the bundle."""
        return Pooling(how=self.how, normalize=True, context=context)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return two rows an example, three where it has a negative, each cut to the context, as one group."""
        asked = [
            (number, role, text)
            for number, each in enumerate(examples)
            for role, text in ((TEXT, each.text), (PAIR, each.pair), (NEGATIVE, each.negative))
            if text is not None
        ]
        read = tokenizer.encode_batch([text for _, _, text in asked], context=context)
        return [
            Row(
                example=number,
                ids=found.ids,
                answer=(role, self._level(examples[number].score), _key(text)),
                note=role,
                group=number,
                truncated=found.truncated,
            )
            for (number, role, text), found in zip(asked, read)
        ]

    def _range(self) -> tuple[float, float]:
        """Return where the scores begin, and how far they reach."""
        low, high = (0.0 if self.low is None else self.low), (1.0 if self.high is None else self.high)
        return low, high - low

    def _level(self, score: float | None) -> float:
        """Return a score from 0 to 1 on its scale, NaN for none."""
        low, reach = self._range()
        return math.nan if score is None else (score - low) / reach

    def labels_of(self, rows: Sequence[Row]) -> Sides:
        """Return what each row is."""
        roles, scores, keys = zip(*(row.answer for row in rows))
        return Sides(roles=torch.tensor(roles), scores=torch.tensor(scores), keys=torch.tensor(keys))

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[NDArray[np.float64]]:
        """Return the vector (D,) of each row, of length 1."""
        pooled = pool(model(batch.tokens, layout=batch.layout), batch.layout, self.how)
        return list(F.normalize(pooled.double(), dim=-1).cpu().numpy())

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[NDArray[np.float64]], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the cosines, on the scale of the scores where that is wanted."""
        by = {row.note: output for row, output in zip(rows, outputs)}
        found = {role: float(np.clip(by[TEXT] @ by[role], -1, 1)) for role in (PAIR, NEGATIVE) if role in by}
        if self.scaled:
            low, reach = self._range()
            found = {role: low + reach * max(0.0, cosine) for role, cosine in found.items()}
        return Prediction(similarity=found[PAIR], other=found.get(NEGATIVE))

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return the correlations with the scores, or the share of triplets whose pair is nearer."""
        return self.statistics(examples, predictions).score()

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's part in them; DataError where rows have nothing to be judged by."""
        if self.main == "accuracy":
            bare = [number for number, each in enumerate(predictions, 1) if each.other is None]
            if bare:
                raise DataError(problem("held-out rows", f"row {bare[0]:,} of {len(examples):,} has no negative"))
            nearer = [str(each.other is not None and each.similarity > each.other) for each in predictions]
            return accuracy.rows(nearer, ["True"] * len(nearer))
        bare = [number for number, each in enumerate(examples, 1) if each.score is None]
        if bare:
            do = "name scored rows in data.valid, or data.valid_fraction=0"
            raise DataError(problem("held-out rows", f"row {bare[0]:,} of {len(examples):,} has no score", do=do))
        scores = [float(each.score) for each in examples if each.score is not None]
        return correlation.rows([each.similarity for each in predictions], scores)

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return how much nearer the pair is than the negative; minus the squared distance from the score."""
        low, reach = self._range()
        found = []
        for example, each in zip(examples, predictions):
            level = (each.similarity - low) / reach if self.scaled else each.similarity
            if example.score is None:
                found.append(each.similarity - (each.other or 0.0))
            else:
                found.append(-((level - self._level(example.score)) ** 2))
        return np.array(found)


def _key(text: str) -> int:
    """Return a number that the same text always has, and hardly another."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") >> 1
