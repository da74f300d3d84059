"""What is said in a recording: speech in, text out, with the times of long ones.

    sound ─ windows ─ somebody speaks? ─┬─ no   nothing is read, nothing is said
                                        └─ yes  log-mel frames ─ encoder ─ greedy or beam ─> text of the window
    texts of all windows, in order ─> the transcript

Sound is a path or the bytes of a file: wav, flac, ogg or mp3 of any rate (data/audio/read.py). A set for training is a
folder or archive with labels.jsonl, or a table with the columns audio and text; its files lie beside it or below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from hanlin.batch import Batch
from hanlin.errors import DataError, problem
from hanlin.metrics import cer, wer
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.models.contract import Model, ModelConfig
from hanlin.objectives import ctc
from hanlin.tasks import contract
from hanlin.tasks.contract import Augments, Raw, Row, Task
from hanlin.tasks.listening import sets
from hanlin.tasks.listening.clips import Augment, Ear, changed, fitting, listened
from hanlin.tasks.writing.seq2seq import Answers, Nats, Written
from hanlin.text.tokenizer import Tokenizer


class Example(contract.Example):
    """A recording, and what is said in it where that is known."""

    audio: str | bytes = Field(repr=False)  # a path, or the content of a file
    text: str | None = None


class Segment(contract.Prediction):
    """What is said in one window, with its time in seconds."""

    start: float
    end: float
    text: str


class Prediction(contract.Prediction):
    """The transcript, and its parts."""

    text: str
    segments: tuple[Segment, ...] = ()


class Config(Task[Example, Prediction], Answers, Augments):
    """Speech recognition by an encoder of frames and a decoder."""

    features: int = Field(80, gt=0)  # mel bands; these, the window and `filled` are the model's where it says so
    window_s: float = Field(30.0, gt=0, le=60)  # of sound read at once; longer sound is cut in its pauses
    filled: bool = False  # with silence up to the window, as 30-second checkpoints want it
    gate: bool = True  # windows in which nobody speaks say nothing
    longest_s: float = Field(43_200.0, gt=0)  # of one recording
    beams: int = Field(1, ge=1, le=16)
    limit: int = Field(224, gt=0)  # tokens of a window
    ctc: float = Field(0.0, ge=0)  # weight of the encoder's own spelling in training; 0.5 where it starts from nothing
    augment: Augment = Augment()  # how training changes what is heard

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {"audio": sets.AUDIO[1:], "text": sets.TEXT[1:]}
    needed: ClassVar = ("audio",)
    answers: ClassVar = ("text",)
    files: ClassVar = ("audio",)
    main: ClassVar = "exact"

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a labelled set or of a table; a recording of an archive comes as its bytes."""
        return sets.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example."""
        audio, text = values.get("audio"), values.get("text")
        if not isinstance(audio, str | bytes) or not audio:
            raise DataError(problem("audio", f"{audio!r}"[:60], "a path, or the content of a sound file"))
        if text is not None and not isinstance(text, str | int):
            raise DataError(problem("text", f"{text!r}"[:60], "text"))
        return Example(audio=audio, text=None if text is None else str(text))

    def texts(self, example: Example) -> list[str]:
        """Return the transcript."""
        return [example.text] if example.text else []

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task as it is: nothing is learned beforehand."""
        return self

    def heads(self) -> Mapping[str, int]:
        """Return no head: the model writes."""
        return {}

    def objective(self) -> Nats:
        """Return the nats of the transcript; with `ctc`, those of the encoder's spelling beside them."""
        if not self.ctc:
            return self.loss()
        return ctc.Config(smoothing=self.smoothing, sampled=self.sampled, weight=self.ctc)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return a row for each window in which somebody speaks, with targets where the transcript is known.

        A recording with a transcript is one window, longer ones are refused: nobody knows which words are in which.
        It is a row even where the gate hears nobody, to be learned from; its answer is "" all the same.
        """
        found = []
        for number, clip in listened([(each.audio, each.text) for each in examples], self.ear):
            ids, targets, cut = self.shifted(examples[number].text, tokenizer, context)
            row = Row(example=number, ids=ids, targets=targets, source=clip.frames, note=clip, truncated=cut)
            found.append(row)
        return found

    @property
    def ear(self) -> Ear:
        """Return how the model hears."""
        return Ear(
            features=self.features,
            window_s=self.window_s,
            longest_s=self.longest_s,
            filled=self.filled,
            gate=self.gate,
            samples=self.augment.changes_samples,
        )

    def augmented(self, rows: Sequence[Row], *, seed: int, step: int) -> list[Row]:
        """Return the rows of a training step with their sound changed as `augment` says."""
        return changed(rows, self.augment, self.ear, seed=seed, step=step)

    def opened(self, config: ModelConfig) -> Self:
        """Return the task as a Whisper hears and begins; a 30-second checkpoint gets all of its window.

        AbilityError for a family that hears nothing.
        """
        return super().opened(config).model_copy(update=fitting(config, self.window_s))

    def labels_of(self, rows: Sequence[Row]) -> None:
        """Return nothing: the targets say it all."""
        return

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[Written]:
        """Return what is said in each window; what a row says of its transcript is not looked at."""
        return self.write(model, batch, tokenizer)

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[Written], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the texts of the windows in order; "" where nobody spoke."""
        said = [
            Segment(start=row.note.start, end=row.note.end, text=each.text)
            for row, each in zip(rows, outputs)
            if each.text and row.note.speaks
        ]
        return Prediction(text=" ".join(each.text for each in said), segments=tuple(said))

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return exact transcripts, word and character error rate."""
        given, wanted = [each.text for each in predictions], [each.text or "" for each in examples]
        return {**wer.score(given, wanted), **cer.score(given, wanted)}

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return minus the character error rate of each row."""
        return -cer.rows([each.text for each in predictions], [each.text or "" for each in examples]).alone("cer")

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's part in the exact transcripts."""
        found = wer.rows([each.text for each in predictions], [each.text or "" for each in examples])
        return Rows(numbers=found.numbers, measures={"exact": found.measures["exact"]})
