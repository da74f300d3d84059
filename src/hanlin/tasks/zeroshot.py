"""Labels that no training has seen: does a sentence about the label follow from the text, or how likely is the label.

    text, labels ─┬─ entailment   [text | "This text is about sport."]   p(follows), by a model trained on such pairs
                  └─ score        "Text: …  Topic: sport"                log-probability of the label, by any decoder

    one example ─ a row for each label ─ outputs ─ softmax over the labels

Entailment: Yin et al., arXiv 1909.00161. Likelihood, `shots` examples before it: Brown et al., arXiv 2005.14165. A
label of many tokens is less likely than a short one, so its log-probability is divided by its length. The sentences
are Chinese where the text is. Letters: B rows, T tokens, L labels, N tokens of a label.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field

from hanlin.batch import IGNORE, Batch
from hanlin.errors import AbilityError, ConfigError, DataError, problem
from hanlin.metrics.contract import Estimate, Numbers, Rows
from hanlin.models.contract import Decodes, Model
from hanlin.objectives import classification, next_token
from hanlin.objectives.cross_entropy import CHUNK_BYTES
from hanlin.tasks import rows
from hanlin.tasks.classify import Config as Classify
from hanlin.tasks.classify import Example, Prediction
from hanlin.tasks.contract import Raw, Row, Task
from hanlin.tasks.lesson import labels as scores
from hanlin.text.tokenizer import Tokenizer

FOLLOWS = ("entailment", "entails", "entail", "蕴含")  # what the label "it follows" goes by
HAN = re.compile("[\u3400-\u9fff]")
HYPOTHESES = {"en": "This text is about {label}.", "zh": "这段文字说的是{label}。"}
FORMS = {"en": "Text: {text}\nTopic:{gap}{label}", "zh": "文本：{text}\n类别：{label}"}


class Config(Task[Example, Prediction]):
    """Classification by labels that are only named."""

    by: Literal["entailment", "score"] = "entailment"
    labels: tuple[str, ...] = ()  # those to choose from; of the rows where left out
    template: str = ""  # with {label}, and for `score` also {text}; by the text's language where left out
    words: dict[str, str] = {}  # label -> what is written for it, such as {"1": "good"}; itself where left out
    classes: tuple[str, ...] = ("entailment", "neutral", "contradiction")  # of the model's head, in its order
    shots: int = Field(0, ge=0)  # examples that stand before the text; taken from labelled rows
    shown: tuple[tuple[str, str], ...] = ()  # these examples, (text, label)
    per: Literal["token", "text"] = "token"  # a label's log-probability is divided by its tokens, or is not

    example_type: ClassVar = Example
    prediction_type: ClassVar = Prediction
    columns: ClassVar = {"text": Classify.columns["text"], "label": Classify.columns["label"]}
    needed: ClassVar = ("text",)
    answers: ClassVar = ("label",)
    main: ClassVar = "accuracy"

    def problems(self) -> list[str]:
        """Return contradictions."""
        found = []
        needed = ("{label}",) if self.by == "entailment" else ("{label}", "{text}")
        found += [f"template lacks {each}" for each in needed if self.template and each not in self.template]
        if self.by == "score" and self.template and not self.template.endswith("{label}"):
            found.append("template does not end with {label}, which is what is scored")
        if self.by == "entailment" and self.follows is None:
            found.append(f"classes {', '.join(self.classes)}: none is called {' or '.join(FOLLOWS)}")
        if self.by == "entailment" and self.shots:
            found.append("shots are for by: score; a pair shows nothing")
        return found

    @property
    def follows(self) -> int | None:
        """Return the place of "it follows" among the classes."""
        return next((at for at, name in enumerate(self.classes) if name.lower() in FOLLOWS), None)

    def read(self, path: Path) -> Iterator[Raw]:
        """Yield the rows of a table."""
        return rows.read(path)

    def example(self, values: Mapping[str, Any]) -> Example:
        """Return an example, as of `classify`."""
        return Classify().example(values)

    def texts(self, example: Example) -> list[str]:
        """Return the text."""
        return [example.text]

    def fitted(self, examples: Sequence[Example]) -> Self:
        """Return the task with the rows' labels, where none are named, and its shots: the labels in turn."""
        named = sorted({str(each.label) for each in examples if each.label is not None}, key=scores.order)
        known = self.labels or tuple(named)
        if len(known) < 2:
            raise DataError(problem("task.labels", f"{', '.join(known) or 'none'}", "at least two to choose from"))
        shown = self.shown or tuple(_in_turn([(each.text, str(each.label)) for each in examples], known, self.shots))
        return self.model_copy(update={"labels": known, "shown": shown})

    def heads(self) -> Mapping[str, int]:
        """Return the head that says what follows, or none: the decoder itself answers."""
        return {"sequence": len(self.classes)} if self.by == "entailment" else {}

    def objective(self) -> classification.Config | next_token.Config:
        """Return what training would minimise: whether the right label follows, or its likelihood."""
        return classification.Config() if self.by == "entailment" else next_token.Config()

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer, context: int) -> list[Row]:
        """Return a row for each example and label; for `score` trained, only the right one is learned from."""
        if len(self.labels) < 2:
            raise DataError(problem("task.labels", f"{len(self.labels)}", "at least two to choose from"))
        make = self._pair if self.by == "entailment" else self._line
        return [
            make(number, each, label, tokenizer, context)
            for number, each in enumerate(examples)
            for label in self.labels
        ]

    def _pair(self, number: int, example: Example, label: str, tokenizer: Tokenizer, context: int) -> Row:
        """Return a text with the sentence that says a label."""
        template = self.template or HYPOTHESES[_language(example.text)]
        said = template.replace("{label}", self.words.get(label, label))
        read = tokenizer.encode(example.text, said, context=context)
        other = next(at for at in range(len(self.classes)) if at != self.follows)
        answer = None if example.label is None else self.follows if example.label == label else other
        return Row(example=number, ids=read.ids, kinds=read.kinds, answer=answer, truncated=read.truncated)

    def _line(self, number: int, example: Example, label: str, tokenizer: Tokenizer, context: int) -> Row:
        """Return a text and a label as one line after the shots; what does not fit is cut from the front."""
        before = "".join(f"{''.join(self._said(text, name))}\n\n" for text, name in self.shown)
        start, end = self._said(example.text, label)
        head, tail = tokenizer.prompt(before + start), list(tokenizer.encode(end, added=False).ids)
        if len(tail) > context:
            raise DataError(problem(f"label '{label}'", f"{len(tail)} tokens", f"at most the context, {context}"))
        cut = max(0, len(head) + len(tail) - 1 - context)
        ids = [*head[cut:], *tail]
        targets = [*[IGNORE] * (len(ids) - len(tail) - 1), *tail]
        return Row(example=number, ids=ids[:-1], targets=targets[-len(ids) + 1 :], truncated=cut)

    def _said(self, text: str, label: str) -> tuple[str, str]:
        """Return what stands before a label, and the label as it is written."""
        form = self.template or FORMS[_language(text)]
        start, _, _ = form.rpartition("{label}")
        gap = " " if start.endswith(" ") or "{gap}" in start else ""  # a space begins the label's first token
        return start.replace("{gap}", "").rstrip(" ").replace("{text}", text), gap + self.words.get(label, label)

    def labels_of(self, rows: Sequence[Row]) -> classification.Answers | None:
        """Return which pairs follow."""
        if any(row.answer is None for row in rows):
            return None
        return classification.Answers(values=torch.tensor([row.answer for row in rows]))

    def run(self, model: Model[Any], batch: Batch[Any], tokenizer: Tokenizer) -> list[float]:
        """Return each row's log-probability: that it follows, or of the label."""
        if self.by == "entailment":
            logits = classification.scored(model, batch).float()
            return [float(each) for each in logits.log_softmax(-1)[:, self.follows].cpu()]
        assert batch.targets is not None
        hidden = model(batch.tokens, layout=batch.layout)
        wanted = batch.targets != IGNORE
        size, parts = max(1, CHUNK_BYTES // (4 * model.config.vocab)), []
        for states, ids in zip(hidden[wanted].split(size), batch.targets[wanted].split(size)):
            logits = model.logits(states).float()
            parts.append(logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(1))
        flat, counts = torch.cat(parts).double().cpu(), wanted.sum(1).tolist()
        sums = [float(each.sum()) for each in flat.split(counts)]
        return [total / count for total, count in zip(sums, counts)] if self.per == "token" else sums

    def decode(
        self, example: Example, rows: Sequence[Row], outputs: Sequence[float], tokenizer: Tokenizer
    ) -> Prediction:
        """Return the likeliest label; probabilities are shares among the labels."""
        found = np.array(outputs)
        likely = np.exp(found - found.max())
        likely /= likely.sum()
        return Prediction(
            label=self.labels[int(found.argmax())],
            probabilities={name: float(each) for name, each in zip(self.labels, likely)},
        )

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Estimate]:
        """Return accuracy and macro F1."""
        return scores.score("single", *self._sides(examples, predictions))

    def statistics(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Rows:
        """Return each row's part in accuracy."""
        return scores.rows("single", *self._sides(examples, predictions))

    def marks(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Numbers:
        """Return the probability given to the right label, 0 for one that was not to choose from."""
        return np.array([a.probabilities.get(str(b.label), 0.0) for a, b in zip(predictions, examples)])

    def _sides(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[list[Any], list[Any]]:
        return [each.label for each in predictions], [each.label for each in examples]


def suited(task: Config, model: Model[Any], classes: Sequence[str]) -> Config:
    """Return the task as a model can do it: by entailment where its `classes` say so, else by score.

    AbilityError for a model that can do neither.
    """
    if "sequence" in model.heads and any(name.lower() in FOLLOWS for name in classes):
        return task.model_copy(update={"by": "entailment", "classes": tuple(classes)})
    if isinstance(model, Decodes):
        return task.model_copy(update={"by": "score"})
    do = "train it on pairs first: hanlin train nli"
    raise AbilityError(problem(type(model).__name__, "says neither what follows nor how likely text is", do=do))


def _in_turn(examples: Sequence[tuple[str, str]], labels: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Return `count` examples, the first of every label before the second of any; ConfigError when there are fewer."""
    if not count:
        return []
    by_label = {name: [each for each in examples if each[1] == name] for name in labels}
    rounds = range(max((len(each) for each in by_label.values()), default=0))
    found = [each[at] for at in rounds for each in by_label.values() if at < len(each)][:count]
    if len(found) < count:
        raise ConfigError(problem("task.shots", f"{count}", f"at most the labelled rows, {len(found)}"))
    return found


def _language(text: str) -> str:
    """Return zh for a text with Chinese characters, else en."""
    return "zh" if HAN.search(text) else "en"
