"""One language into another: a source text is read, its translation is written.

    A man sleeps. ─ [>>de<<] A man sleeps. ─ encoder ─> memory ─ beam search ─> Ein Mann schläft.
                    └ only where there are several languages to write: one model, many to many (arXiv 1611.04558)

Rows are parallel files (train.en beside train.de), or a table with `source` and `target` and, for several languages,
`target_language`. BLEU is sacrebleu's; of Chinese with its tokenizer zh, which the training rows settle.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from hanlin.batch import Batch
from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.metrics.texts import bleu, chrf
from hanlin.models.contract import Model
from hanlin.tasks import contract, rows
from hanlin.tasks.contract import Raw, Row, Signs, Task
from hanlin.tasks.reading import pairs
from hanlin.tasks.writing.sentences import scripted, text_of
from hanlin.tasks.writing.seq2seq import Nats, Writer, Written
from hanlin.text.tokenizer import Tokenizer


class Example(contract.Example):
    """A text, its languages where they are said, and its translation where it is known."""

    source: str
    target: str | None = None
    source_language: str | None = None
    target_language: str | None = None


class Prediction(contract.Prediction):
    """The translation."""

    text: str
    complete: bool  # false where it was cut at the limit
    score: float  # log-probability over length ** length_penalty


class Config(Task[Example, Prediction], Writer, Signs):
    """Translation by a model that reads a source."""

    directions: tuple[str, ...] = ()  # of parallel files: [en-de, de-en]; from the named file to the other if left out
    languages: tuple[str, ...] = ()  # to be written; learned from the training rows
    bleu: Literal["13a", "zh", "char", "intl", "none"] | None = None  # sacrebleu's tokenizer; learned likewise

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "source": ("text", "src", "en", "sentence", "from"),
        "target": ("translation", "tgt", "de", "zh", "to"),
        "source_language": ("source_lang", "src_lang"),
        "target_language": ("target_lang", "tgt_lang", "language", "lang"),
    }
    needed: ClassVar = ("source",)
    answers: ClassVar = ("target",)
    main: ClassVar = "bleu"

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of parallel files, or of a table."""
        return pairs.read(path, self.directions) if pairs.parallel(path) else rows.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; neither side is empty, and one of several languages is named."""
        found = {field: text_of(field, values[field]) for field in self.columns if values.get(field) is not None}
        language = found.get("target_language")
        if self.languages and language is None and len(self.languages) > 1:
            raise DataError(problem("target_language", "missing", f"one of {', '.join(self.languages)}"))
        if self.languages and language is not None and language not in self.languages:
            near = nearest(language, self.languages)
            raise DataError(problem("target_language", f"'{language}'", ", ".join(self.languages), near))
        return Example(**found)

    def texts(self, example: Example) -> list[str]:
        """Return both sides: one vocabulary serves them."""
        return [self._source(example), *([example.target] if example.target else [])]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the languages that are written, and how their words are told apart for BLEU."""
        named = {each.target_language for each in examples}
        if None in named and len(named) > 1:
            raise DataError(problem("data.train", "target_language in some rows only", "in all rows, or in none"))
        languages = self.languages or tuple(sorted(each for each in named if each is not None))
        chinese = sum(scripted(each.target or "") for each in examples) * 2 > len(examples)
        return self.model_copy(update={"languages": languages, "bleu": self.bleu or ("zh" if chinese else "13a")})

    def heads(self) -> Mapping[str, int]:
        """Return no head: the model writes."""
        return {}

    def objective(self) -> Nats:
        """Return the nats of the translation."""
        return self.loss()

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return one row an example."""
        return self.written_rows([(self._source(each), each.target) for each in examples], tokenizer, context)

    def _source(self, example: Example) -> str:
        """Return what is read: the text, after the language to write where there are several."""
        if len(self.languages) < 2:
            return example.source
        return f">>{example.target_language}<< {example.source}"

    def labels_of(self, rows: Sequence[Row]) -> None:
        """Return nothing: the targets say it all."""
        return

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[Written]:
        """Return the translation of each row."""
        return self.write(model, batch, tokenizer)

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[Written], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the translation."""
        (written,) = outputs
        return Prediction(text=written.text, complete=written.complete, score=written.score)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return `bleu`, cased; `bleu_lower`, the figure in lower case; and `chrf`."""
        given, wanted = _sides(examples, predictions)
        lower = bleu.score(given, wanted, tokenize=self.bleu or "13a", lowercase=True)
        cased = bleu.score(given, wanted, tokenize=self.bleu or "13a")
        return {**cased, "bleu_lower": lower["bleu"], **chrf.score(given, wanted)}

    def signature(self) -> str:
        """Return sacrebleu's account of how `bleu` is counted; it belongs beside every figure."""
        return bleu.signature(self.bleu or "13a")

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return the chrF of each row."""
        return chrf.rows(*_sides(examples, predictions)).alone("chrf")

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's part in BLEU."""
        return bleu.rows(*_sides(examples, predictions), tokenize=self.bleu or "13a")


def _sides(examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[list[str], list[str]]:
    return [each.text for each in predictions], [each.target or "" for each in examples]
