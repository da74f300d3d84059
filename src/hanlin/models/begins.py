"""What a folder says of how answers to a source begin, read and written as Hugging Face does.

generation_config.json    decoder_start_token_id, forced_bos_token_id, and what is never written: suppress_tokens,
                          begin_suppress_tokens, bad_words_ids            over config.json's, where it names them;
                          what is never written is config.json's only where there is no such file
of a Whisper, besides     forced_decoder_ids [[1, null], [2, 50359]], and lang_to_id, task_to_id,
                          no_timestamps_token_id, which fill its gaps
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from hanlin.config import read_json
from hanlin.models.contract import Json, ModelConfig

WITHHELD = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids")
KEYS = ("decoder_start_token_id", "forced_bos_token_id")
SPOKEN = ("forced_decoder_ids", "lang_to_id", "task_to_id", "no_timestamps_token_id")


def read(folder: Path) -> Json:
    """Return a folder's config.json with what its generation_config.json says of answers."""
    json, beside = read_json(folder / "config.json"), folder / "generation_config.json"
    if beside.is_file():
        said = read_json(beside)
        keys = (*KEYS, *(SPOKEN if json.get("model_type") == "whisper" else ()))
        json |= {key: said[key] for key in keys if said.get(key) is not None}
        json |= {key: said.get(key) for key in WITHHELD if key in json or key in said}
    return json


def written(config: ModelConfig) -> Json:
    """Return what generation_config.json says of answers."""
    said: Json = {key: value for key, value in zip(KEYS, (config.start, config.first)) if value is not None}
    return said | {key: [*value] for key, value in zip(WITHHELD, (config.never, config.never_first)) if value}


def withheld(json: Json, vocab: int) -> Json:
    """Return never and never_first; of bad_words_ids those that are one token."""
    always, first, words = (given if isinstance(given, list) else [] for given in map(json.get, WITHHELD))
    single = [word[0] for word in words if isinstance(word, list) and len(word) == 1]
    return {"never": _ids([*always, *single], vocab), "never_first": _ids(first, vocab)}


def _ids(given: Iterable[object], vocab: int) -> tuple[int, ...]:
    """Return the tokens among what a file lists: -1 means none, and what the model does not have it cannot write."""
    return tuple(dict.fromkeys(each for each in given if isinstance(each, int) and 0 <= each < vocab))


def spoken(json: Mapping[str, object]) -> Json:
    """Return start, first and then of a Whisper: after the start its language, its task, and that no times follow.

    A checkpoint that leaves the language open gets English; one of English alone names neither language nor task.
    """
    given, languages, tasks = (json.get(key) for key in SPOKEN[:3])
    forced = {place: token for place, token in given if token is not None} if isinstance(given, list | tuple) else {}
    many = isinstance(languages, Mapping)
    named = {
        1: languages.get("<|en|>") if isinstance(languages, Mapping) else json.get(SPOKEN[3]),
        2: tasks.get("transcribe") if isinstance(tasks, Mapping) and many else None,
        3: json.get(SPOKEN[3]) if many else None,
    }
    tokens = {**{place: token for place, token in named.items() if token is not None}, **forced}
    first, *then = [tokens[place] for place in sorted(tokens)] or [None]
    return {"start": json.get(KEYS[0]), "first": first, "then": tuple(then)}


def unspoken(config: ModelConfig) -> Json:
    """Return the keys of a Whisper's config.json that `spoken` reads back."""
    start = {} if config.start is None else {KEYS[0]: config.start}
    forced = [[place, token] for place, token in enumerate((config.first, *config.then), 1) if token is not None]
    return {**start, **({SPOKEN[0]: forced} if forced else {})}
