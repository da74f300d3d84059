"""What is looked at while a model learns: its loss on a part of the held-out text, and a sample of what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hanlin.batch import move
from hanlin.data.shards import Shards
from hanlin.evaluation import harness
from hanlin.generate import decode
from hanlin.generate.sampling import Sampling
from hanlin.models.contract import Decodes, Model
from hanlin.objectives import next_token
from hanlin.objectives.contract import Objective, Pretrains, Reading
from hanlin.text.tokenizer import Tokenizer

ROWS = 16  # of a batch of questions
TOKENS = 32_768  # of the held-out text, scored each time; `hanlin evaluate` scores all of it
SAMPLE = 32  # tokens


def watch(
    held: harness.Documents, tokenizer: Tokenizer, context: int, say: Callable[[str], None]
) -> Callable[[Model[Any], int], dict[str, float]]:
    """Return a function of (model, step) that tells `say` a line and returns `valid_loss`, in nats a token."""
    documents = harness.portion(held, TOKENS)
    count = max(1, sum(len(each) - 1 for each in documents))

    def look(model: Model[Any], step: int) -> dict[str, float]:
        loss = float(harness.nats(model, documents, context=context).sum()) / count
        sample = _sample(model, int(documents[step % len(documents)][0]), tokenizer, context, step)
        say(f"step {step}: valid_loss {loss:.4f} nats/token{sample}")
        return {"valid_loss": loss}

    return look


def watching(
    objective: Objective, held: Shards, tokenizer: Tokenizer, context: int, say: Callable[[str], None]
) -> Callable[[Model[Any], int], dict[str, float]]:
    """Return `watch` for the next token, for other objectives a function that scores their own questions."""
    if isinstance(objective, next_token.Config) or not isinstance(objective, Pretrains):
        return watch(held, tokenizer, context, say)
    rows = max(1, min(ROWS, TOKENS // context))
    source = objective.source(held, Reading(tokenizer=tokenizer, rows=rows, context=context, seed=0, packs=True))
    batches = range(min(source.steps_per_epoch, max(1, TOKENS // source.tokens_per_step)))

    @torch.inference_mode()
    def look(model: Model[Any], step: int) -> dict[str, float]:
        totals: dict[str, float] = {}
        counts: dict[str, int] = {}
        weights: dict[str, float] = {}
        for number in batches:
            for part in objective(model, move(source.batch(number), model.device)):
                totals[part.name] = totals.get(part.name, 0.0) + float(part.total)
                counts[part.name] = counts.get(part.name, 0) + part.count
                weights[part.name] = part.weight
        means = {name: totals[name] / max(1, counts[name]) for name in totals}
        loss = sum(weights[name] * mean for name, mean in means.items())
        said = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        say(f"step {step}: valid_loss {loss:.4f} ({said} nats each)")
        return {"valid_loss": loss, **{f"valid_{name}": mean for name, mean in means.items() if len(means) > 1}}

    return look


def _sample(model: Model[Any], first: int, tokenizer: Tokenizer, context: int, step: int) -> str:
    """Return what the model writes after a document's first token, on one line; nothing where it cannot write."""
    if not isinstance(model, Decodes) or context < 2:
        return ""
    sampling = Sampling(temperature=0.8, limit=min(SAMPLE, context - 1), seed=step)
    answer = decode.answers(model, [[first]], sampling, stop_ids=frozenset(), tokenizer=tokenizer)[0]
    return f"; sample: {' '.join(answer.text.split())!r}"
