"""A label for every word: entities, slots (with what the whole text means) or parts of speech, by a `token` head.

    "Ada met 李白"  ─ words ─> Ada│met│李│白  ─ encode ─> windows ─ run ─> scores at each word's first token
                                             B-PER O B-PER I-PER ─> spans (0, 3, PER), (8, 10, PER) of the text

A word is what the rows say (a list of tokens), else what is found in a plain text: each character in Chinese, a word
or mark elsewhere, as the training rows were. The model reads words with a space between them, in training and ever
after. A text longer than the context is read in windows; each word is labelled where most is seen around it.

Joint intents and slots: Chen et al., arXiv 1902.10909. First-token labels: Devlin et al., arXiv 1810.04805, §5.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from hanlin.batch import IGNORE, Batch
from hanlin.errors import DataError, nearest, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.models.contract import Model
from hanlin.objectives import tagging
from hanlin.objectives.tagging import Intents
from hanlin.tasks import contract
from hanlin.tasks.contract import Raw, Row, Task
from hanlin.tasks.reading import columns as files
from hanlin.tasks.reading import judged, labelled, schemes, words
from hanlin.text.tokenizer import Tokenizer


class Example(contract.Example):
    """A text, the words that are given with it, and its labels where they are known."""

    text: str
    words: tuple[tuple[int, int], ...] | None = None  # characters; found in the text where none are given
    tags: tuple[str, ...] | None = None  # of given words
    spans: tuple[tuple[int, int, str], ...] | None = None  # characters, one past the last, type; of a plain text
    intent: str | None = None
    document: str | None = None  # sentences of one document move together in the intervals of scores


class Span(contract.Prediction):
    """Some characters of the text and what they are; `score` is how sure the least sure of its words is."""

    start: int
    end: int  # one past the last
    label: str
    text: str
    score: float


class Prediction(contract.Prediction):
    """The spans of a text, and every word's tag; of joint tasks also the intent and how likely it is."""

    spans: tuple[Span, ...] = ()
    tags: tuple[str, ...] = ()
    words: tuple[tuple[int, int], ...] = ()  # characters
    intent: str | None = None
    intent_score: float | None = None


class Config(Task[Example, Prediction]):
    """Labels of words by a `token` head; where rows have an intent, more outputs of it say that at the first token."""

    scheme: Literal["bio", "bioes", "plain"] | None = None  # of the tags; learned, and bio where the rows hold spans
    unit: Literal["word", "character"] | None = None  # what a word of a plain text is; learned
    joint: bool = True  # learn intents too, where the rows have them
    intent_weight: float = Field(1.0, gt=0)  # of the intents' part of the loss
    legal: bool = False  # choose the likeliest sequence of tags that the scheme allows; else repair, as conlleval reads
    unseen: Literal["refuse", "miss"] = "refuse"  # labels that no training row has: an error, or counted as not found
    overlap: float = Field(0.25, ge=0, le=0.5)  # of a window with the next
    labels: tuple[str, ...] = ()  # of the outputs: tags, then "intent:…"; learned where left out
    intents: tuple[str, ...] = ()  # learned where left out

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {
        "text": ("tokens", "words", "sentence", "characters", "query", "utterance"),
        "tags": ("ner_tags", "pos_tags", "labels", "label", "entities", "spans", "slots", "upos", "ner"),
        "intent": ("intents",),
        "document": ("doc", "doc_id", "article"),
    }
    needed: ClassVar = ("text",)
    answers: ClassVar = ("tags", "intent")

    @property
    def main(self) -> str:  # type: ignore[override]  # it follows from the labels
        """Return the score that decides."""
        return "slot_f1" if self.intents else "accuracy" if self.scheme == "plain" else "f1"

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a table, or the sentences of a file in columns."""
        return files.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example; DataError for a text that is empty, or labels that do not fit it."""
        text, cut, tags, spans = labelled.read(values["text"], values.get("tags"))
        intent, document = (None if values.get(key) is None else str(values[key]) for key in ("intent", "document"))
        return Example(text=text, words=cut, tags=tags, spans=spans, intent=intent, document=document)

    def texts(self, example: Example) -> list[str]:
        """Return the words with spaces between them, as the model reads them."""
        return [self._spaced(example.text, self._words(example))]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the labels of the rows, their scheme, what a word is, and the intents."""
        tags = {tag for each in examples for tag in each.tags or ()}
        kinds = {kind for each in examples for _, _, kind in each.spans or ()}
        scheme = self.scheme or (schemes.scheme_of(tags) if tags - {schemes.OUTSIDE} else "bio")
        named = {*tags, *(f"B-{kind}" for kind in kinds)}
        if not self.labels and not named - {schemes.OUTSIDE}:
            raise DataError(problem("data.train", "no labels but O" if tags else "no labels", "at least one"))
        if self.labels:
            scheme = self.scheme or schemes.scheme_of(self.labels)
        if kinds and scheme == "plain":
            raise DataError(problem("data.train", "spans", "a tag a word, as task.scheme=plain says"))
        intents = self.intents
        if self.joint and not intents:
            intents = tuple(sorted({each.intent for each in examples if each.intent is not None}))
        bare = next((place for place, each in enumerate(examples) if intents and each.intent is None), None)
        if bare is not None:
            where = f"row {bare + 1} ({examples[bare].text[:40]!r})"
            raise DataError(problem(where, "no intent, other rows have one", do="task.joint=false learns tags alone"))
        unit = self.unit or words.unit([(each.text, each.words) for each in examples])
        labels = (*(self.labels or schemes.complete(named, scheme)), *(f"intent:{each}" for each in intents))
        return self.model_copy(update={"labels": labels, "scheme": scheme, "intents": intents, "unit": unit})

    def heads(self) -> Mapping[str, int]:
        """Return one output a tag, and one an intent."""
        return {"token": len(self.labels)}

    @property
    def tags(self) -> tuple[str, ...]:
        """Return the labels of words."""
        return self.labels[: len(self.labels) - len(self.intents)]

    def objective(self) -> tagging.Config:
        """Return the loss of tags, and of intents where there are any."""
        return tagging.Config(tags=len(self.tags), intents=bool(self.intents), weight=self.intent_weight)

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return the windows of every example; a word's label stands at its first token, in one window alone."""
        cuts = [self._words(each) for each in examples]
        read = tokenizer.encode_batch([self._spaced(each.text, cut) for each, cut in zip(examples, cuts)])
        found: list[Row] = []
        for number, (example, cut, each) in enumerate(zip(examples, cuts, read)):
            wanted, meant = self._wanted(example, cut, number)
            for place, window in enumerate(words.worded(each, cut, context, self.overlap)):
                targets = [IGNORE] * len(window.ids)
                for word, at in window.told:
                    targets[at] = wanted[word]
                answer = (IGNORE if place else meant) if self.intents else None
                found.append(Row(example=number, ids=window.ids, targets=targets, answer=answer, note=window.told))
        return found

    def _wanted(self, example: Example, cut: Sequence[tuple[int, int]], number: int) -> tuple[list[int], int]:
        """Return each word's label and the intent, IGNORE where unknown; DataError for one that no training row has."""
        tags: Sequence[str] = [] if example.tags is None else example.tags
        if example.spans is not None:
            within = words.within(example.spans, cut)
            tags = schemes.written(within, len(cut), schemes.letters_of(self.tags, self.scheme or "bio"))
        where = f"row {number + 1} ({example.text[:40]!r})"
        wanted = [self._place(tag, self.tags, "label", where) for tag in tags] or [IGNORE] * len(cut)
        meant = IGNORE
        if self.intents and example.intent is not None:
            meant = self._place(example.intent, self.intents, "intent", where)
        return wanted, meant

    def _place(self, name: str, known: Sequence[str], what: str, where: str) -> int:
        """Return the number of a label or intent."""
        if name in known:
            return known.index(name)
        if self.unseen == "miss":
            return IGNORE
        allowed = f"those of the training rows: {', '.join(known[:20])}"
        do = "task.unseen=miss counts it as not found"
        raise DataError(problem(where, f"{what} '{name}'", allowed, nearest(name, known), do))

    def labels_of(self, rows: Sequence[Row]) -> Intents | None:
        """Return the intents as one tensor, where they are learned."""
        return Intents(values=torch.tensor([row.answer for row in rows])) if self.intents else None

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[tuple[Numbers, Numbers | None]]:
        """Return the scores (T, C) of each row's tokens, and (I,) of its intents."""
        hidden = model(batch.tokens, layout=batch.layout, kinds=batch.kinds)
        scores = model.heads["token"](hidden, batch.layout).double()
        count = len(self.tags)
        each = scores[..., :count].cpu().numpy()
        if not self.intents:
            return [(one, None) for one in each]
        return list(zip(each, tagging.first(scores, batch.layout)[:, count:].cpu().numpy()))

    def decode(
        self,
        example: Example,
        rows: Sequence[Row],
        outputs: Sequence[tuple[Numbers, Numbers | None]],
        tokenizer: Tokenizer,
    ) -> Prediction:
        """Return the spans, tags and intent that the scores say; a word that the tokenizer drops is the first label."""
        cut = self._words(example)
        scores = np.zeros((len(cut), len(self.tags)))
        for row, (each, _) in zip(rows, outputs):
            for word, place in row.note:
                scores[word] = each[place]
        scheme = self.scheme or "bio"
        if self.legal:
            chosen = schemes.likeliest(scores, schemes.follows(self.tags, scheme))
        else:
            chosen = [int(each) for each in scores.argmax(1)]
        tags = [self.tags[each] for each in chosen]
        spans: list[Span] = []
        if scheme != "plain":
            found = schemes.spans(tags, scheme)
            tags = schemes.written(found, len(cut), schemes.letters_of(self.tags, scheme))
            sure = _likely(scores)[np.arange(len(cut)), chosen]
            for first, past, kind in sorted(found):
                start, end = cut[first][0], cut[past - 1][1]
                score = float(sure[first:past].min())
                spans.append(Span(start=start, end=end, label=kind, text=example.text[start:end], score=score))
        intent: dict[str, Any] = {}
        meant = outputs[0][1]
        if meant is not None:
            likely = _likely(meant)
            intent = {"intent": self.intents[int(likely.argmax())], "intent_score": float(likely.max())}
        return Prediction(spans=tuple(spans), tags=tuple(tags), words=tuple(cut), **intent)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return entities' f1, precision and recall, accuracy of plain tags, or slots, intents and whole frames."""
        documents = [each.document for each in examples]
        return self.statistics(examples, predictions).score(None if None in documents else documents)

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return what each row adds to the scores."""
        if self.scheme == "plain":
            return judged.plain([each.tags for each in predictions], [each.tags or () for each in examples])
        given = [{(each.start, each.end, each.label) for each in one.spans} for one in predictions]
        wanted = [self._gold(each) for each in examples]
        if not self.intents:
            return judged.entities(given, wanted)
        return judged.frames(given, wanted, ([each.intent for each in predictions], [each.intent for each in examples]))

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return each row's own F1, halved by a wrong intent, or its accuracy; 1 where nothing is wanted."""
        found = self.statistics(examples, predictions)
        return found.alone("accuracy") if self.scheme == "plain" else judged.own(found.numbers)

    def _gold(self, example: Example) -> set[tuple[int, int, str]]:
        """Return the labelled spans of a text, in characters."""
        if example.tags is None or example.words is None:
            return set(example.spans or ())
        found = schemes.spans(example.tags, "bioes" if self.scheme == "bioes" else "bio", where=example.text[:40])
        return {(example.words[first][0], example.words[past - 1][1], kind) for first, past, kind in found}

    def _words(self, example: Example) -> tuple[tuple[int, int], ...]:
        """Return the words of an example, given or found."""
        return words.found(example.text, self.unit or "word") if example.words is None else example.words

    def _spaced(self, text: str, cut: Sequence[tuple[int, int]]) -> str:
        return " ".join(text[start:end] for start, end in cut)


def _likely(scores: Numbers) -> Numbers:
    """Return probabilities along the last axis."""
    shifted = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
