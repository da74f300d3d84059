"""The model that a recipe starts from: fresh, or opened from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hanlin import bundle, hub
from hanlin.data import manifest
from hanlin.errors import ConfigError, problem
from hanlin.models.contract import Model, ModelConfig
from hanlin.text.tokenizer import SMALLEST, Tokenizer
from hanlin.train.recipe import Recipe


def model(recipe: Recipe, tokenizer: Tokenizer, heads: Mapping[str, int]) -> Model[Any]:
    """Return the model to train, fresh or opened from where it starts; ConfigError when it does not fit."""
    if recipe.start is not None:
        folder = hub.fetch(recipe.start).folder
        if Tokenizer.load(folder).hash != tokenizer.hash:
            given, do = "tokenized by another tokenizer than the model's", f"prepare it with --tokenizer {folder}"
            raise ConfigError(problem(recipe.data.train, given, do=do))
        made = bundle.read_model(folder, heads=heads, fresh=recipe.plan.seed)
    else:
        made = sized(recipe, tokenizer.vocab).build(seed=recipe.plan.seed, heads=heads)
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


def foreseen(recipe: Recipe) -> ModelConfig:
    """Return the config of the model a recipe would train; a tokenizer yet to be trained is taken at its wish.

    How many characters a text has is not known before it is read: `kind: characters` counts as bytes.
    """
    if recipe.start is not None:
        return bundle.read_config(hub.fetch(recipe.start).folder)
    wanted, shards = recipe.tokenizer, Path(recipe.data.train)
    if manifest.exists(shards):
        return sized(recipe, manifest.read(shards).vocab)
    if wanted.folder is not None:
        return sized(recipe, Tokenizer.load(wanted.folder).vocab)
    return sized(recipe, wanted.vocab if wanted.kind == "bpe" else SMALLEST)


def sized(recipe: Recipe, vocab: int) -> ModelConfig:
    """Return the recipe's fresh model; sizes left out follow the tokenizer's `vocab` and the plan's context."""
    config: Any = recipe.model
    chosen = {"vocab": vocab, "context": recipe.plan.context}
    left_out = {key: size for key, size in chosen.items() if key not in config.model_fields_set}
    made: ModelConfig = config.model_copy(update=left_out)
    return made
