"""A model is a folder in Hugging Face layout plus `hanlin.json`; other tools open ours, we open theirs.

    config.json  generation_config.json  model.safetensors | model.safetensors.index.json + shards
    tokenizer.json  tokenizer_config.json  special_tokens_map.json
    hanlin.json     schema, task, heads, lineage, scores, and the SHA-256 of every file above

Writing replaces file by file, `hanlin.json` first: a folder whose hashes do not fit was cut off, and reading says so.
Nothing is ever unpickled, and no code that comes with weights is run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hanlin import files, registry
from hanlin.config import read_json
from hanlin.data.audio import mel
from hanlin.errors import BundleError, ConfigError, nearest, problem
from hanlin.models import begins, purpose, sentences
from hanlin.models.contract import Json, Model, ModelConfig
from hanlin.models.weights import from_theirs, of_heads, require_outputs, to_theirs
from hanlin.nn.linear import prepack
from hanlin.text.tokenizer import Tokenizer

SCHEMA = 1
SHARD_BYTES = 5_000_000_000  # Hugging Face's usual shard
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model folder, opened."""

    folder: Path
    model: Model[Any]
    tokenizer: Tokenizer
    card: Json  # hanlin.json, {} where there is none
    stop_ids: frozenset[int]  # tokens that end an answer
    labels: tuple[str, ...] = ()  # of the sequence or token head, in the order of its outputs
    task: str = ""  # what the model is for; "" where its folder does not say
    pooling: sentences.Pooling | None = None  # how states become one vector a text, where the folder says


def read(folder: Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Bundle:
    """Open a model folder, ours or anyone's; BundleError with one line for every reason that it cannot be used."""
    card = read_card(folder)
    model = prepack(read_model(folder, dtype=dtype, device=device, heads=card.get("heads")))
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab > model.config.vocab:
        given = f"{tokenizer.vocab:,} tokens, the model has {model.config.vocab:,}"
        raise BundleError(problem(str(folder), given, do="use the tokenizer that the model was trained with"))
    pooling = sentences.read(folder)
    return Bundle(
        folder=folder,
        model=model,
        tokenizer=tokenizer,
        card=card,
        stop_ids=_stop_ids(folder, tokenizer),
        labels=purpose.labels(model.config) if {*model.heads} & {*purpose.LABELLED} else (),
        task=str(card.get("task") or purpose.task(model, pooled=pooling is not None)),
        pooling=pooling,
    )


def _stop_ids(folder: Path, tokenizer: Tokenizer) -> frozenset[int]:
    """Return the tokens that end an answer: the tokenizer's EOS and those that generation_config.json names."""
    path = folder / "generation_config.json"
    given = read_json(path).get("eos_token_id") if path.is_file() else None
    listed = given if isinstance(given, list) else [given]
    return frozenset(each for each in [*listed, tokenizer.special.eos] if isinstance(each, int))


def read_card(folder: Path) -> Json:
    """Return hanlin.json after checking every hash in it, {} where there is none."""
    path = folder / "hanlin.json"
    if not path.exists():
        return {}
    card = read_json(path)
    if card.get("schema") != SCHEMA:
        raise BundleError(problem(str(path), f"schema {card.get('schema')!r}", f"this version reads {SCHEMA}"))
    hashes, heads = card.get("files", {}), card.get("heads", {})
    if not isinstance(hashes, dict) or not isinstance(heads, dict):
        raise BundleError(problem(str(path), "files and heads", "expected mappings"))
    problems = []
    for name, expected in hashes.items():
        file = files.inside(folder, name)
        if file is None:
            problems.append(problem(f"{folder}/{name}", "missing, or not a file inside the folder"))
        elif files.sha256(file) != expected:
            do = "copy the folder again, or train again to replace it"
            problems.append(problem(f"{folder}/{name}", "differs from its hash in hanlin.json", do=do))
    if problems:
        raise BundleError(*problems)
    return card


def read_config(folder: Path) -> ModelConfig:
    """Return the family's config for the folder's config.json."""
    if not folder.is_dir():
        siblings = [path.name for path in folder.parent.glob("*")] if folder.parent.is_dir() else []
        near = nearest(folder.name, siblings)
        raise BundleError(problem(str(folder), "no such model folder", near=near and str(folder.parent / near)))
    if not (folder / "config.json").is_file():
        raise BundleError(problem(str(folder), "no config.json", "a model folder in Hugging Face layout"))
    json = begins.read(folder)
    found = family(str(json.get("model_type")))
    if purpose.SOUND in found.beside and (folder / purpose.SOUND).is_file():
        mel.check(read_json(folder / purpose.SOUND), f"{folder}/{purpose.SOUND}")
    config = found.from_hf(json)
    return config.model_copy(update=begins.withheld(json, config.vocab))


def family(model_type: str) -> type[ModelConfig]:
    """Return the family that reads a Hugging Face `model_type`; ConfigError lists the types known."""
    known = registry.names("models")
    first = [name for name in known if name == model_type]
    types: list[str] = []
    for name in [*first, *known]:
        config: type[ModelConfig] = registry.load("models", name).Config
        if model_type in config.model_types:
            return config
        types += config.model_types
    near = nearest(model_type, types)
    raise ConfigError(
        problem("config.json: model_type", f"'{model_type}'", f"known: {', '.join(sorted(set(types)))}", near)
    )


def read_model(
    folder: Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    heads: Mapping[str, int] | None = None,
    fresh: int | None = None,
) -> Model[Any]:
    """Return the folder's model in evaluation mode, without looking at a tokenizer.

    `heads` left out are those that config.json names; the tensors of others it names are left alone. With a seed
    `fresh`, heads that the folder has no weights for are drawn anew; without, they are an error.
    """
    config = read_config(folder)
    carried = purpose.carried(config)
    heads = carried if heads is None else heads
    with opened(folder) as tensors:
        config = _as_filed(config, tensors)
        model = _allocate(config, tensors, heads, f"{folder}/config.json", fresh or 0)
        aside = of_heads(model, {*carried} - {*heads}, tensors.names)
        names = [name for name in tensors.names if name not in aside]
        require_outputs(model, {name: tensors.shape(name) for name in names}, str(folder))
        missing = from_theirs(model, names, tensors.get, str(folder))
    if missing and fresh is None:
        raise BundleError(*(problem(str(folder), f"no weights for the head '{name}'") for name in missing))
    model = model.to(dtype=dtype, device=device)
    model.eval()
    return model


def _as_filed(config: ModelConfig, tensors: Tensors) -> ModelConfig:
    """Return the config, untied where the family goes by the files and these hold a head of its own."""
    if not config.unties or not config.repeats:
        return config
    kept, head = config.repeats[0], config.repeats[-1]
    both = kept in tensors.names and head in tensors.names
    own = both and not torch.equal(tensors.get(kept), tensors.get(head))
    return config.model_copy(update={"tied": False}) if own else config


def _allocate(
    config: ModelConfig, tensors: Tensors, heads: Mapping[str, int] | None, where: str, seed: int
) -> Model[Any]:
    """Return the module to be filled; memory is taken only where the files hold enough to fill it."""
    if config.layers > len(tensors.names):
        raise BundleError(problem(where, f"{config.layers:,} layers", f"the files hold {len(tensors.names)} tensors"))
    try:
        sketch = config.sketch(heads)
    except (KeyError, TypeError, RuntimeError, OverflowError):
        raise BundleError(problem(where, "sizes or heads that no model can have")) from None
    needed = sum(each.numel() for each in sketch.parameters())
    if needed > tensors.size_bytes:  # each takes a byte at the least
        raise BundleError(problem(where, f"{needed:,} weights", f"the files hold {tensors.size_bytes:,} bytes"))
    return config.build(seed=seed, heads=heads) if heads else sketch.to_empty(device="cpu")


class Tensors:
    """The tensors of a folder by name, read one at a time."""

    def __init__(self, handles: Mapping[str, Any], size_bytes: int) -> None:
        """Keep which open file holds each name, and the size of all files."""
        self._handles = handles
        self.names = list(handles)
        self.size_bytes = size_bytes

    def get(self, name: str) -> Tensor:
        """Return one tensor."""
        tensor: Tensor = self._handles[name].get_tensor(name)
        return tensor

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, unread."""
        return tuple(self._handles[name].get_slice(name).get_shape())


@contextmanager
def opened(folder: Path) -> Iterator[Tensors]:
    """Yield the folder's safetensors, single or sharded; BundleError for pickles, unsafe names and damaged files."""
    shards = _shards(folder)
    handles: dict[str, Any] = {}
    problems: list[str] = []
    size = 0
    with ExitStack() as stack:
        for name, expected in shards.items():
            path = files.inside(folder, name)
            if path is None:
                problems.append(problem(f"{folder}/{name}", "missing, or not a file inside the folder"))
                continue
            try:
                handle = stack.enter_context(safe_open(path, framework="pt"))
            except (SafetensorError, OSError, ValueError) as error:
                problems.append(problem(str(path), f"not a safetensors file: {error}"))
                continue
            size += path.stat().st_size
            keys = list(handle.keys())
            problems += _disagreements(path, keys, expected, handles)
            handles.update(dict.fromkeys(keys, handle))
        if problems:
            raise BundleError(*problems)
        yield Tensors(handles, size)


def _shards(folder: Path) -> dict[str, set[str] | None]:
    """Return shard file -> the tensors that the index says it holds (None where there is no index)."""
    if (folder / SINGLE).exists():
        return {SINGLE: None}
    if (folder / INDEX).exists():
        table = read_json(folder / INDEX).get("weight_map")
        if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
            raise BundleError(problem(str(folder / INDEX), "no weight_map from tensor to file"))
        shards: dict[str, set[str] | None] = {}
        for tensor, name in table.items():
            found = shards.setdefault(name, set())
            assert found is not None
            found.add(tensor)
        return shards
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickles:
        do = "convert the weights to safetensors where you trust them"
        raise BundleError(problem(f"{folder}/{pickles[0]}", "a pickle can run code and is never opened", do=do))
    raise BundleError(problem(str(folder), "no weights", f"{SINGLE}, or {INDEX} and its shards"))


def _disagreements(path: Path, keys: list[str], expected: set[str] | None, taken: Mapping[str, Any]) -> list[str]:
    """Return how a shard differs from what the index says it holds."""
    found = [problem(f"{path}: {key}", "stands in two files") for key in keys if key in taken]
    if expected is not None:
        found += [problem(f"{path}: {key}", "named by the index, missing here") for key in sorted(expected - {*keys})]
        found += [problem(f"{path}: {key}", "not named by the index") for key in sorted({*keys} - expected)]
    return found


def write(
    folder: Path,
    model: Model[Any],
    tokenizer: Tokenizer,
    *,
    task: str | None = None,
    labels: Sequence[str] | None = None,
    problem_type: str | None = None,
    pooling: sentences.Pooling | None = None,
    settings: Json | None = None,
    lineage: Json | None = None,
    scores: Json | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model folder; what else lies in it is left alone. RunError when the disk refuses.

    `labels` name the outputs of the sequence or token head, those it was opened with when left out; `problem_type` is
    Hugging Face's word for their kind. `pooling` makes the folder a sentence-transformers model.
    """
    staging = folder / f"{files.PARTIAL}bundle"
    with files.explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files.sweep(folder)
    try:
        with files.filling(staging) as partial:
            _write_weights(partial, model, shard_bytes)
            tokenizer.save(partial)
            files.write_json(partial / "config.json", _config_json(model, tokenizer, labels, problem_type))
            files.write_json(partial / "generation_config.json", _generation(model.config, tokenizer))
            for name, make in model.config.beside.items():
                files.write_json(partial / name, make(model.config))
            if pooling is not None:
                sentences.write(partial, pooling, model.config.dim)
            names = sorted(path.relative_to(partial).as_posix() for path in partial.rglob("*") if path.is_file())
            card = {
                "schema": SCHEMA,
                "task": purpose.task(model, pooled=pooling is not None) if task is None else task,
                "settings": settings or {},  # of the task, what it learned from its rows included
                "heads": _heads(model),
                "encoding": {"bos": tokenizer.special.bos is not None, "context": model.config.context},
                "lineage": lineage or {},
                "scores": scores or {},
                "files": {name: files.sha256(partial / name) for name in names},
            }
            files.write_json(partial / "hanlin.json", card)
        with files.explained(folder, do="write it again, what lies there is cut off"):
            _install(staging, folder, names)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _install(staging: Path, folder: Path, names: list[str]) -> None:
    """Move a finished bundle's files to their place, the card first: only its hashes tell a mixture from a model."""
    os.replace(staging / "hanlin.json", folder / "hanlin.json")
    for old in {
        SINGLE,
        INDEX,
        sentences.MODULES,
        *(path.name for path in folder.glob("model-*-of-*.safetensors")),
    } - set(names):
        (folder / old).unlink(missing_ok=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(staging / name, folder / name)
    files.sync_folder(folder)


def _heads(model: Model[Any]) -> dict[str, int]:
    """Return a model's heads and how many outputs each has: the length of its last parameter."""
    return {name: list(head.parameters())[-1].shape[0] for name, head in model.heads.items()}


def _token_ids(tokenizer: Tokenizer) -> Json:
    """Return the special ids under Hugging Face's names."""
    special = tokenizer.special
    ids = {"bos_token_id": special.bos, "eos_token_id": special.eos, "pad_token_id": special.pad}
    return {key: value for key, value in ids.items() if value is not None}


def _generation(config: ModelConfig, tokenizer: Tokenizer) -> Json:
    """Return what Hugging Face needs to know to generate: the special ids, and what answers begin with."""
    return {**_token_ids(tokenizer), **begins.written(config)}


def _config_json(
    model: Model[Any], tokenizer: Tokenizer, named: Sequence[str] | None, problem_type: str | None
) -> Json:
    """Return the model's config.json with architecture, labels, dtype and special ids filled in."""
    config: ModelConfig = model.config
    dtype = str(model.dtype).removeprefix("torch.")
    ids = {"bos_token_id": None, "eos_token_id": None, **_token_ids(tokenizer)}
    # An id that the family models, as the pad that RoBERTa counts from, is the family's to say
    others = {key: ids[key] for key in {*ids} - {*config.tables.keys.values()}}
    heads = purpose.described(config, _heads(model), named, problem_type)
    return {**config.to_hf(), **heads, "torch_dtype": dtype, "dtype": dtype, **others}


def _write_weights(folder: Path, model: Model[Any], shard_bytes: int) -> None:
    """Write one safetensors file, or shards of at most `shard_bytes` with an index."""
    tensors = {name: tensor.cpu() for name, tensor in to_theirs(model).items()}
    shards: list[dict[str, Tensor]] = [{}]
    room = shard_bytes
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / SINGLE, metadata={"format": "pt"})
        return
    table = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        table.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    files.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": table})
