"""The Python door: `hanlin.load(...)` opens any model folder, ours or Hugging Face's, and does what it can.

model = hanlin.load("runs/demo")
model.generate("The module", limit=50)      one answer; stream=True yields its pieces; n=3 gives three
model.generate("The module", beams=4)       the likeliest answer found by beam search
model.score(["a sentence"], given="...")    log-probability of each text and of its tokens
model.predict(["a text"])                   answers of the task it was trained for
model.embed(["a", "b"])                     one vector a text
model.features("Hello")                     tokens, offsets, last hidden states
model.module · model.tokenizer · model.config
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hanlin import bundle, hub, runtime
from hanlin.config import parse
from hanlin.errors import HanlinError, problem
from hanlin.generate import decode
from hanlin.generate.beam import Beam, search
from hanlin.generate.embed import Embedded, embed
from hanlin.generate.sampling import Sampling
from hanlin.generate.score import score
from hanlin.generate.sources import before, begun, withheld
from hanlin.tasks import predict

LIMIT = 100  # new tokens, where nothing is said


@dataclass(frozen=True, kw_only=True)
class Scored:
    """How likely a text is."""

    total: float  # ln p(text), nats
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]  # nats, one a token; they sum to total


@dataclass(frozen=True, kw_only=True)
class Features:
    """What the last layer says about each token of a text."""

    tokens: tuple[str, ...]
    offsets: tuple[tuple[int, int], ...]  # characters of the text
    states: Tensor  # (T, D) fp32
    truncated: int  # tokens beyond the model's context, left out


def load(name: str, *, revision: str | None = None, device: str = "auto", precision: str = "fp32") -> LanguageModel:
    """Open a model folder, or a hub repository at a revision; HanlinError says why when it cannot be."""
    place = runtime.start(device=device, precision=precision)
    found = hub.fetch(name, revision=revision)
    return LanguageModel(bundle.read(found.folder, dtype=place.dtype, device=str(place.device)))


class LanguageModel:
    """A model with its tokenizer."""

    def __init__(self, opened: bundle.Bundle) -> None:
        """Keep an open bundle."""
        self.bundle = opened
        self._predictor: predict.Predictor[Any, Any] | None = None
        self.module = opened.model
        self.tokenizer = opened.tokenizer
        self.config = opened.model.config
        self.card = opened.card
        self.pooling = opened.pooling
        self.stop_ids = opened.stop_ids

    def generate(self, prompt: str | Sequence[str], *, stream: bool = False, **choices: Any) -> Any:  # noqa: ANN401
        """Continue a prompt, or a list of prompts; `choices` are the fields of generate/sampling.py:Sampling.

        With `beams`, they are those of generate/beam.py:Beam. An encoder–decoder reads the prompt and answers it.

        Returns the new text: one str, a list of n for n > 1, a list of these for a list of prompts. With
        `stream`, an iterator over the pieces of the one answer.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        sampling = self.sampling(prompts, choices)
        if stream:
            if len(prompts) != 1 or sampling.n != 1 or isinstance(sampling, Beam):
                raise HanlinError(problem("generate", "stream=True", "takes one prompt and n=1, without beams"))
            return self._stream(prompts[0], sampling)
        found = self.answers(prompts, sampling)
        grouped = [[each.text for each in found if each.prompt == index] for index in range(len(prompts))]
        texts = [group[0] if sampling.n == 1 else group for group in grouped]
        return texts[0] if isinstance(prompt, str) else texts

    def sampling(self, prompts: Sequence[str], choices: Mapping[str, Any]) -> Sampling | Beam:
        """Return checked choices; a limit left out is LIMIT, or what the context leaves after the longest prompt."""
        kind: type[Sampling | Beam] = Beam if "beams" in choices else Sampling
        room = self.config.context - before(self.module, self.tokenizer, prompts)
        asked = {"limit": max(0, min(LIMIT, room)), **choices}
        return parse(kind, withheld(self.module, asked, beams=kind is Beam), "generate")

    def answers(self, prompts: Sequence[str], sampling: Sampling | Beam) -> list[decode.Answer]:
        """Return whole answers with their ids, log-probabilities and why they ended; n for each prompt, in order."""
        ids, memory = begun(self.module, self.tokenizer, prompts)
        how: dict[str, Any] = {"stop_ids": self.stop_ids, "tokenizer": self.tokenizer, "memory": memory}
        if isinstance(sampling, Beam):
            return search(self.module, ids, sampling, **how)
        return decode.answers(self.module, ids, sampling, **how)

    def _stream(self, prompt: str, sampling: Sampling) -> Iterator[str]:
        """Return the pieces of one answer as they come; what cannot be done is said now, not at the first piece."""
        ids, memory = begun(self.module, self.tokenizer, [prompt])
        how: dict[str, Any] = {"stop_ids": self.stop_ids, "tokenizer": self.tokenizer, "memory": memory}
        steps = decode.generate(self.module, ids, sampling, **how)
        return (step.text for step in steps if step.text)

    def predict(self, inputs: Sequence[Any], *, task: Any = None) -> list[Any]:  # noqa: ANN401  # a task's predictions
        """Answer texts, or rows as mappings, by the task that the model was trained for, or by a `task` given.

        Returns the task's predictions (tasks/*.py:Prediction), one an input; HanlinError names an input that cannot be.
        """
        if isinstance(inputs, str):  # a sequence of its letters, which nobody means
            raise HanlinError(problem("predict", "one text", "a list of texts or rows", do="write [text]"))
        if task is None and self._predictor is None:
            self._predictor = predict.opened(self.bundle)
        asked = self._predictor if task is None else predict.Predictor(task, self.module, self.tokenizer)
        assert asked is not None
        return asked([asked.task.asked(each) for each in inputs])

    def score(self, texts: Sequence[str], *, given: str | None = None) -> list[Scored]:
        """Return the log-probability of each text, after `given` where there is one, else after BOS.

        Without BOS and without `given`, the first token has nothing before it and is left out.
        """
        if isinstance(texts, str):  # a sequence of its letters, which nobody means
            raise HanlinError(problem("score", "one text", "a list of texts", do="write [text]"))
        before = self.tokenizer.prompt(given) if given is not None else self.tokenizer.prompt("")
        tails = [
            [each for each in self.tokenizer.encode(text).ids if each != self.tokenizer.special.bos] for text in texts
        ]
        sequences = [[*before, *tail] for tail in tails]
        starts = [max(1, len(before))] * len(texts)
        found = score(self.module, sequences, prefix=starts)
        names = [tuple(map(self.tokenizer.token, ids[start:])) for ids, start in zip(sequences, starts)]
        return [
            Scored(total=float(sum(each)), tokens=tokens, logprobs=tuple(float(one) for one in each))
            for each, tokens in zip(found, names)
        ]

    def embed(self, texts: Sequence[str]) -> Embedded:
        """Return one vector a text, pooled as the folder says, else the mean of the last states, of length 1.

        Texts longer than the context are cut, and what was cut is counted. Order and company change nothing.
        """
        if isinstance(texts, str):  # a sequence of its letters, which nobody means
            raise HanlinError(problem("embed", "one text", "a list of texts", do="write [text]"))
        return embed(self.module, self.tokenizer, texts, self.pooling)

    @torch.inference_mode()
    def features(self, text: str) -> Features:
        """Return the last hidden states of one text, cut to the model's context."""
        encoding = self.tokenizer.encode(text, context=self.config.context)
        if encoding.ids:
            states = self.module(torch.tensor([encoding.ids], device=self.module.device))[0].float()
        else:  # nothing was said, and this tokenizer adds no BOS
            states = torch.zeros(0, self.config.dim)
        names = tuple(map(self.tokenizer.token, encoding.ids))
        return Features(tokens=names, offsets=encoding.offsets, states=states, truncated=encoding.truncated)
