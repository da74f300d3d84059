"""What plain text teaches: the recipe's objective makes questions and answers of shards."""

from __future__ import annotations

from typing import Any

from hanlin import registry
from hanlin.data.batches import BatchSource
from hanlin.data.shards import Shards
from hanlin.errors import ConfigError, problem
from hanlin.models.contract import Model
from hanlin.objectives.contract import Pretrains, Reading
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.job import Lesson
from hanlin.train.recipe import Recipe


def lesson(recipe: Recipe, tokenizer: Tokenizer, shards: Shards) -> Lesson:
    """Return the lesson of plain text: the recipe's objective makes questions and answers of it."""
    plan, objective, split = recipe.plan, recipe.objective, shards.manifest.splits["train"]
    if not isinstance(objective, Pretrains):
        do = "choose one that learns from text, or give a task"
        raise ConfigError(
            problem("objective", registry.name_of("objectives", type(objective)), "needs labelled rows", do=do)
        )

    def batches(made: Model[Any]) -> BatchSource:
        cut = Reading(
            tokenizer=tokenizer, rows=plan.rows_a_step, context=plan.context, seed=plan.seed, packs=made.packs
        )
        return objective.source(shards, cut)

    return Lesson(
        objective=objective,
        heads=objective.heads(tokenizer.vocab),
        batches=batches,
        hash=shards.manifest.hash,
        size=f"{split.documents:,} documents, {split.tokens:,} tokens",
    )
