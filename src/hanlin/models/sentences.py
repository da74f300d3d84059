"""How a model folder turns states into one vector a text, read and written as sentence-transformers does.

modules.json                  Transformer, Pooling and, where vectors have length 1, Normalize
1_Pooling/config.json         which pooling
sentence_bert_config.json     max_seq_length, do_lower_case
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hanlin import files
from hanlin.config import read_json
from hanlin.errors import BundleError, problem
from hanlin.models.contract import Json
from hanlin.nn.heads import HOW, How

MODULES, SETTINGS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"
LIMIT = 1_000_000  # bytes of modules.json
FLAGS = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens", "max": "pooling_mode_max_tokens"}


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """From a text's states to its vector; the defaults serve a model whose folder does not say."""

    how: How = "mean"
    normalize: bool = True  # to length 1
    context: int | None = None  # tokens read of each text; the model's own context where None
    lowercase: bool = False  # before tokenizing


def read(folder: Path) -> Pooling | None:
    """Return the folder's pooling, None where it is no sentence model; BundleError names what is not implemented."""
    if not (folder / MODULES).is_file():
        return None
    kinds = [(_kind(module), str(module.get("path", ""))) for module in _modules(folder)]
    names = [kind for kind, _ in kinds]
    if names not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]) or kinds[0][1]:
        given, allowed = ", ".join(names) or "nothing", "Transformer in the folder itself, Pooling, perhaps Normalize"
        raise BundleError(problem(f"{folder}/{MODULES}", given, allowed))
    settings, prompts, tokenizer = (_json(folder, name) for name in (SETTINGS, PROMPTS, "tokenizer_config.json"))
    if prompts.get("default_prompt_name"):
        given = f"default_prompt_name '{prompts['default_prompt_name']}'"
        raise BundleError(problem(f"{folder}/{PROMPTS}", given, "prompts before texts are not implemented"))
    place = kinds[1][1]
    lengths = (settings.get("max_seq_length"), tokenizer.get("model_max_length"))
    return Pooling(
        how=_how(_json(folder, f"{place}/config.json"), f"{folder}/{place}/config.json"),
        normalize=names[-1] == "Normalize",
        context=min((each for each in lengths if isinstance(each, int) and each > 0), default=None),
        lowercase=bool(settings.get("do_lower_case")),
    )


def write(folder: Path, pooling: Pooling, dim: int) -> None:
    """Write the files that make a model folder a sentence model, for vectors of `dim`."""
    names = ["Transformer", "Pooling", *(["Normalize"] if pooling.normalize else [])]
    paths = ["", "1_Pooling", "2_Normalize"]
    rows = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{name}"}
        for at, (name, path) in enumerate(zip(names, paths))
    ]
    files.write_json(folder / MODULES, rows)
    said = {flag: how == pooling.how for how, flag in FLAGS.items()}
    files.write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": dim, **said})
    length = {"max_seq_length": pooling.context} if pooling.context else {}
    files.write_json(folder / SETTINGS, {**length, "do_lower_case": pooling.lowercase})


def _json(folder: Path, name: str) -> Json:
    """Return one of the folder's files, {} where it is not there; BundleError for a path that leads out."""
    if not (folder / name).exists():
        return {}
    path = files.inside(folder, name)
    if path is None:
        raise BundleError(problem(f"{folder}/{name}", "not a file inside the folder"))
    return read_json(path)


def _modules(folder: Path) -> list[Json]:
    """Return the rows of modules.json."""
    path, rows = files.inside(folder, MODULES), None
    if path is not None and path.stat().st_size <= LIMIT:
        with suppress(ValueError, RecursionError):
            rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list) or not all(isinstance(each, dict) for each in rows):
        raise BundleError(problem(f"{folder}/{MODULES}", "not a JSON list of modules"))
    return rows


def _kind(module: Json) -> str:
    """Return a module's class without its package, which has moved between versions."""
    return str(module.get("type", "")).rpartition(".")[2]


def _how(said: Json, where: str) -> How:
    """Return the pooling of a config, in the older spelling (a flag a mode) or the newer (`pooling_mode`)."""
    on = [key for key, value in said.items() if key.startswith("pooling_mode_") and value is True]
    mode = said.get("pooling_mode", on)
    listed = mode if isinstance(mode, list) else [mode]
    for how in HOW:
        if listed in ([how], [FLAGS[how]]):
            return how
    raise BundleError(problem(where, f"pooling {', '.join(map(str, listed)) or 'none'}", f"one of {', '.join(HOW)}"))
