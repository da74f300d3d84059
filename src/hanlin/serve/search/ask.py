"""A question to an index: find passages, take the answer out of them or write it, say where it stands, or "not found".

    question ─ search ─> passages ─┬─ best sentence     by the index's own vectors, or by the question's words
                                   ├─ a reader          a bundle trained to `answer`: the likeliest stretch
                                   └─ a writer          a language model that is shown the passages
                                              │
                              surer than `least`?  no ─> not found

How sure: of a sentence the cosine with the question, or the share of the question's words, weighed by how rare they
are, that it holds; of a reader the probability of the stretch. A writer is asked only when a sentence is sure enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hanlin import api, bundle, hub
from hanlin.errors import BundleError, ConfigError, problem
from hanlin.serve.search.chunks import sentences
from hanlin.serve.search.index import Hit, Index, Read
from hanlin.serve.search.words import terms
from hanlin.tasks.predict import Predictor, opened

LEAST = {"vectors": 0.45, "words": 0.5, "reader": 0.3}  # how sure an answer is, at the least
PASSAGES = 5  # looked into
SHOWN = 3  # to a writer
LONGEST = 96  # tokens that a writer writes
PROMPT = "{passages}\n\nQuestion: {question}\nAnswer:"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer with the place that vouches for it: in `source`, the characters from `start` to `stop`."""

    text: str
    source: str
    start: int
    stop: int
    passage: str
    sure: float  # from 0 to 1


class Asker:
    """An index, and what makes answers of its passages: best sentences where no model is named."""

    def __init__(self, index: Index, model: str | None = None, *, least: float | None = None) -> None:
        """Open the model; ConfigError when it can neither read out an answer nor write one."""
        self.index = index
        self.reader: Predictor[Any, Any] | None = None
        self.writer: api.LanguageModel | None = None
        if model is not None:
            found = bundle.read(hub.fetch(model).folder)
            if found.task == "answer":
                self.reader = opened(found)
            elif found.task in ("", "generate"):
                self.writer = api.LanguageModel(found)
            else:
                given = f"made for '{found.task}'"
                raise ConfigError(problem(model, given, "a model trained to answer, or a language model"))
        way = "reader" if self.reader else "words" if index.encoder is None else "vectors"
        self.least = LEAST[way] if least is None else least

    def __call__(self, question: str, *, passages: int = PASSAGES) -> Answer | None:
        """Return the answer, None where nothing found is sure enough."""
        hits = self.index.search(question, limit=passages)
        if not hits:
            return None
        best = self._read(question, hits) if self.reader else self._sentence(question, hits)
        if best is None or best.sure < self.least:
            return None
        return self._written(question, hits, best) if self.writer else best

    def _sentence(self, question: str, hits: Sequence[Hit]) -> Answer | None:
        """Return the sentence of the passages that is nearest to the question."""
        spans = [(hit, start, stop) for hit in hits for start, stop in sentences(hit.text)]
        texts = [hit.text[start:stop] for hit, start, stop in spans]
        if self.index.encoder is not None:
            vectors = self.index.encoder.embed([question, *texts]).vectors
            sure = [float(each) for each in vectors[1:] @ vectors[0]]
        else:
            sure = [self._share(question, text) for text in texts]
        place = max(range(len(sure)), key=sure.__getitem__)
        return _answer(texts[place], spans[place][0], spans[place][1], spans[place][2], sure[place])

    def _share(self, question: str, text: str) -> float:
        """Return how much of what the question's words tell a text holds."""
        held = {*terms(text)}
        weights = {term: self.index.words.idf(term) for term in terms(question, asked=True)}
        return sum(weight for term, weight in weights.items() if term in held) / max(1e-9, sum(weights.values()))

    def _read(self, question: str, hits: Sequence[Hit]) -> Answer | None:
        """Return the likeliest answer that a reader sees in any of the passages."""
        assert self.reader is not None
        asked = [self.reader.task.asked({"question": question, "context": hit.text}) for hit in hits]
        found = [
            _answer(said.answer, hit, said.start, said.end, said.best[0].probability)
            for hit, said in zip(hits, self.reader(asked))
            if said.answer and said.best
        ]
        return max(found, key=lambda each: each.sure, default=None)

    def _written(self, question: str, hits: Sequence[Hit], best: Answer) -> Answer:
        """Return what a language model writes when it is shown the passages; the best sentence vouches for it."""
        assert self.writer is not None
        shown = list(dict.fromkeys([best.passage, *(hit.text for hit in hits)]))[:SHOWN]
        room = self.writer.config.context - LONGEST
        while len(shown) > 1 and len(self.writer.tokenizer.prompt(_prompt(question, shown))) > room:
            shown.pop()
        text = self.writer.generate(_prompt(question, shown), limit=LONGEST, temperature=0.0, stop=("\n",))
        return replace(best, text=text.strip())


def rater(name: str) -> Read:
    """Return what scores passages for a query, reading both together: a bundle trained to rate pairs."""
    found = opened(bundle.read(hub.fetch(name).folder))
    if getattr(found.task, "kind", None) != "rating":
        raise BundleError(problem(name, "does not rate pairs", do="train classify with task.kind=rating on pairs"))

    def read(query: str, passages: Sequence[str]) -> list[float]:
        rows = [found.task.asked({"text": query, "pair": passage}) for passage in passages]
        return [float(each.label) for each in found(rows)]

    return read


def _prompt(question: str, passages: Sequence[str]) -> str:
    return PROMPT.format(passages="\n\n".join(passages), question=question)


def _answer(text: str, hit: Hit, start: int, stop: int, sure: float) -> Answer:
    """Return an answer whose place is counted in the document."""
    return Answer(
        text=text, source=hit.source, start=hit.start + start, stop=hit.start + stop, passage=hit.text, sure=sure
    )
