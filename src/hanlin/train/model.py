"""The model that a recipe starts from: fresh, or opened from a folder."""

from __future__ import annotations

from typing import Any

from hanlin import bundle, hub
from hanlin.errors import ConfigError, problem
from hanlin.models.contract import Model
from hanlin.text.tokenizer import Tokenizer
from hanlin.train.recipe import Recipe


def model(recipe: Recipe, tokenizer: Tokenizer) -> Model[Any]:
    """Return the model to train, fresh or opened from where it starts; ConfigError when it does not fit."""
    if recipe.start is not None:
        made = bundle.read_model(hub.fetch(recipe.start).folder)
    else:
        config: Any = recipe.model
        chosen = {"vocab": tokenizer.vocab, "context": recipe.plan.context}
        config = config.model_copy(update={k: v for k, v in chosen.items() if k not in config.model_fields_set})
        made = config.build(seed=recipe.plan.seed)
    problems = []
    if made.config.vocab < tokenizer.vocab:
        given = f"{made.config.vocab:,} is less than the {tokenizer.vocab:,} of the data's tokenizer"
        do = "leave it out, or prepare the data with the model's tokenizer"
        problems.append(problem("model.vocab", given, do=do))
    if made.config.context < recipe.plan.context:
        problems.append(problem("plan.context", f"{recipe.plan.context} exceeds the model's {made.config.context}"))
    if problems:
        raise ConfigError(*problems)
    return made
