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
from hanlin.data.audio import labelled
from hanlin.data.audio.hearing import Heard, heard
from hanlin.errors import DataError, problem
from hanlin.generate.beam import Beam, search
from hanlin.metrics import cer, wer
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.models.contract import Encodes, Model, require
from hanlin.objectives import seq2seq
from hanlin.tasks import contract, rows
from hanlin.tasks.contract import Raw, Row, Task
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


class Config(Task[Example, Prediction]):
    """Speech recognition by an encoder of frames and a decoder."""

    features: int = Field(80, gt=0)  # mel bands, those of the model
    window_s: float = Field(30.0, gt=0, le=60)  # of sound read at once; longer sound is cut in its pauses
    filled: bool = False  # with silence up to the window, as 30-second checkpoints want it
    gate: bool = True  # windows in which nobody speaks say nothing, and are not learned from
    longest_s: float = Field(43_200.0, gt=0)  # of one recording
    beams: int = Field(1, ge=1, le=16)
    limit: int = Field(224, gt=0)  # tokens of a window
    smoothing: float = Field(0.0, ge=0, lt=1)

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {"audio": labelled.AUDIO[1:], "text": labelled.TEXT[1:]}
    needed: ClassVar = ("audio",)
    answers: ClassVar = ("text",)
    files: ClassVar = ("audio",)
    main: ClassVar = "exact"

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a labelled set or of a table; a recording of an archive comes as its bytes."""
        if path.is_dir() or path.name.lower().endswith(labelled.PACKED):
            for number, (row, sound) in enumerate(labelled.listed(path), 1):
                error = "" if sound is not None else "no such file in the set"
                name = next((key for key in labelled.AUDIO if key in row), "audio")
                text = {key: str(row[key]) for key in labelled.TEXT if key in row}
                held = sound if isinstance(sound, bytes) else str(sound)
                yield Raw(number=number, values={**row, **text, name: held}, error=error)
            return
        for raw in rows.read(path):
            beside = {key: labelled.beside(path.parent, raw.values[key]) for key in labelled.AUDIO if key in raw.values}
            yield Raw(number=raw.number, values={**raw.values, **beside}, error=raw.error)

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

    def objective(self) -> seq2seq.Config:
        """Return the nats of the transcript."""
        return seq2seq.Config(smoothing=self.smoothing)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return a row for each window in which somebody speaks, with targets where the transcript is known.

        A recording with a transcript is one window, longer ones are refused: nobody knows which words are in which.
        """
        found = []
        for number, each in enumerate(examples):
            where = each.audio if isinstance(each.audio, str) else "sound"
            sizes = {"window_s": self.window_s, "longest_s": self.longest_s}
            for window in heard(each.audio, self.features, **sizes, filled=self.filled, gate=self.gate, where=where):
                if window.number and each.text is not None:
                    given = f"a transcript of more than {self.window_s:g} s of sound"
                    raise DataError(problem(where, given, do="cut it, or raise task.window_s"))
                found.append(_row(number, each, window, tokenizer, context))
        return found

    def labels_of(self, rows: Sequence[Row]) -> None:
        """Return nothing: the targets say it all."""
        return

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[str]:
        """Return the text of each window; what a row says of its transcript is not looked at."""
        assert batch.source is not None
        memory = require(model, Encodes).encode(batch.source)  # type: ignore[type-abstract]  # as in decode
        start, eos = _start(tokenizer), tokenizer.special.eos
        beam = Beam(beams=self.beams, limit=min(self.limit, model.config.context - 1))
        stops = frozenset([start if eos is None else eos])
        found = search(model, [[start]] * batch.rows, beam, stop_ids=stops, memory=memory)
        return [tokenizer.decode([each for each in answer.ids if each not in stops]).strip() for answer in found]

    def decode(self, example: Example, rows: Sequence[Row], outputs: Sequence[str], tokenizer: Tokenizer) -> Prediction:
        """Return the texts of the windows in order; "" where nobody spoke."""
        said = [Segment(start=row.note[0], end=row.note[1], text=text) for row, text in zip(rows, outputs) if text]
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


def _row(number: int, example: Example, window: Heard, tokenizer: Tokenizer, context: int) -> Row:
    """Return one window as frames and tokens."""
    start, eos = _start(tokenizer), tokenizer.special.eos
    ids, targets, cut = [start], None, 0
    if example.text is not None:
        said = list(tokenizer.encode(example.text, added=False).ids)
        cut = max(0, len(said) + 1 - context)
        said = said[: context - 1]
        ids, targets = [start, *said], [*said, start if eos is None else eos]
    note = (window.start, window.end)
    return Row(example=number, ids=ids, targets=targets, source=window.frames, note=note, truncated=cut)


def _start(tokenizer: Tokenizer) -> int:
    """Return the token that a transcript begins with."""
    special = tokenizer.special
    found = next((each for each in (special.bos, special.eos, special.pad) if each is not None), None)
    if found is None:
        raise DataError(problem("tokenizer", "no BOS, EOS or PAD token", do="train it with one"))
    return found
