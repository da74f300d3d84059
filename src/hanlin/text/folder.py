"""A tokenizer's folder, read with suspicion.

    tokenizer.json            the vocabulary and the rules; stored padding, truncation and dropout are cleared
    tokenizer_config.json     names of the special tokens, settings that other tools read; optional
    special_tokens_map.json   names of the special tokens, in the older place; optional

The library's Rust code panics on some malformed files, and one kind ends the process: what can be told to be wrong is
told here, before it sees the file.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from hanlin.config import read_json
from hanlin.errors import ConfigError, HanlinError, TokenizerError, problem
from hanlin.text.literal import protect

Json = dict[str, Any]

ROLES = ("bos", "eos", "pad", "unk", "mask", "sep", "cls")
WELL_KNOWN = {  # tried in order where neither companion names a special token, as with GPT-2's and BERT's
    "bos": ("<|bos|>", "<s>", "<bos>", "[BOS]", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<|endoftext|>"),
    "eos": ("<|eos|>", "</s>", "<eos>", "[EOS]", "<|end_of_text|>", "<｜end▁of▁sentence｜>", "<|endoftext|>"),
    "pad": ("<|pad|>", "<pad>", "[PAD]", "<|padding|>", "<｜▁pad▁｜>"),
    "unk": ("<|unk|>", "<unk>", "[UNK]"),
    "mask": ("<mask>", "[MASK]"),
    "sep": ("[SEP]",),
    "cls": ("[CLS]",),
}
KEPT = (  # keys of tokenizer_config.json that we do not use ourselves and write back
    "model_max_length",
    "padding_side",
    "truncation_side",
    "additional_special_tokens",
    "extra_special_tokens",
    "chat_template",
)
KINDS = (
    "a SentencePiece *.model, source.spm and vocab.json, vocab.json and merges.txt, encoder.json and vocab.bpe, "
    "or vocab.txt"
)
TEMPLATE = "chat_template.jinja"  # newer than the key of tokenizer_config.json, and before it
LARGEST = 50_000_000  # bytes; Gemma 3's file, with 262,144 tokens, has 33 million
MOST = 4_000_000  # ids; the library counts through all of them, holes included

_stderr = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a tokenizer folder holds."""

    raw: tokenizers.Tokenizer
    names: Mapping[str, str]  # role -> special token
    settings: Json  # of the KEPT keys


def read(folder: Path) -> Found:
    """Read a folder with a tokenizer.json; TokenizerError with one line for every problem found."""
    if not (folder / "tokenizer.json").is_file():
        raise TokenizerError(missing(folder))
    return opened(load(folder / "tokenizer.json"), folder, "tokenizer.json", {})


def opened(data: Json, folder: Path, file: str, usual: Mapping[str, str]) -> Found:
    """Return the tokenizer that `data` describes, read from `file` of the folder, checked.

    `usual` names special tokens (role -> token) where the companions are silent.
    """
    config, older = companion(folder, "tokenizer_config.json"), companion(folder, "special_tokens_map.json")
    names, problems = _names(config, older)
    problems = _check_model(data.get("model"), file) + check_added(data.get("added_tokens"), file) + problems
    if problems:
        raise TokenizerError(*(f"{folder}: {each}" for each in problems))
    raw = _build(data, f"{folder}: {file}")
    special = {token.content for token in raw.get_added_tokens_decoder().values() if token.special}
    names = {**usual, **names} or _well_known(special)
    raw.add_special_tokens(
        [name for name in names.values() if name not in special and raw.token_to_id(name) is not None]
    )
    with _quiet(), guarded(f"{folder}: {file}"):
        protect(raw)
    settings = {key: config[key] for key in KEPT if config.get(key) is not None}
    if (folder / TEMPLATE).is_file():
        settings["chat_template"] = content(folder / TEMPLATE).decode(errors="replace")
    return Found(raw=raw, names=names, settings=settings)


def companion(folder: Path, name: str) -> Json:
    """Return what a file beside the tokenizer says; nothing, when it is not there."""
    return load(folder / name) if (folder / name).is_file() else {}


@contextmanager
def guarded(where: str) -> Iterator[None]:
    """Turn what the library raises, panics of its Rust code included, into a TokenizerError of one line."""
    try:
        yield
    except HanlinError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":  # Ctrl-C and the like
            raise
        raise TokenizerError(problem(where, f"the tokenizer gives up: {error}"[:300])) from None


def missing(folder: Path) -> str:
    """Return the line for a folder without a tokenizer."""
    if not folder.is_dir():
        return problem(str(folder), "no such folder", "a folder with a tokenizer.json")
    return problem(str(folder), "holds no tokenizer", f"tokenizer.json, or {KINDS}")


def load(path: Path) -> Json:
    """Return the object in a JSON file of the folder."""
    try:
        return read_json(path, LARGEST)
    except ConfigError as error:
        raise TokenizerError(*error.problems) from None


def content(path: Path) -> bytes:
    """Return the bytes of a file of the folder, at most LARGEST."""
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise TokenizerError(problem(str(path), f"{size:,} bytes", f"at most {LARGEST:,}"))
        return path.read_bytes()
    except OSError as error:
        raise TokenizerError(problem(str(path), f"cannot be read: {error.strerror}")) from None


def _check_model(model: object, file: str) -> list[str]:
    """Return what is wrong with the vocabulary and the merges, as far as the library must not find out itself."""
    where = f"{file}: model.vocab"
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(model, dict) or not isinstance(vocab, dict | list) or not vocab:
        return [problem(where, "no vocabulary", "a mapping of tokens to ids, or a list of tokens and scores")]
    if len(vocab) > MOST:
        return [problem(where, f"{len(vocab):,} tokens", f"at most {MOST:,}")]
    if isinstance(vocab, list):
        return []
    for token, id in vocab.items():
        if type(id) is not int or not 0 <= id < MOST:
            return [problem(where, f"{token!r} has the id {id!r}"[:120], f"ids are whole numbers below {MOST:,}")]
    if len(set(vocab.values())) < len(vocab):
        return [problem(where, "two tokens have one id", "an id for each")]
    prefix = model.get("continuing_subword_prefix") or ""
    return _check_merges(vocab, model.get("merges") or [], prefix, file)


def _check_merges(vocab: Json, merges: object, prefix: object, file: str) -> list[str]:
    """Return the first merge whose parts or result are not in the vocabulary: cyclic merges are of this kind."""
    where = f"{file}: model.merges"
    if not isinstance(merges, list):
        return [problem(where, f"a {type(merges).__name__}", "a list of pairs of tokens")]
    if not isinstance(prefix, str) or (merges and not prefix.isascii()):
        return [problem(f"{file}: model.continuing_subword_prefix", f"{prefix!r}"[:120], "ASCII text")]
    for number, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(part, str) for part in pair):
            return [problem(where, f"merge {number} is {merge!r}"[:120], "two tokens")]
        left, right = pair
        # Cutting a prefix that is not there from the middle of a character ends the whole process in tokenizers 0.23.
        if not right.startswith(prefix):
            return [problem(where, f"merge {number}: {right!r}"[:120], f"a later part begins with {prefix!r}")]
        for token in (left, right, left + right[len(prefix) :]):
            if token not in vocab:
                return [problem(where, f"merge {number} has or makes {token!r}"[:120], "a token of the vocabulary")]
    return []


def check_added(added: object, file: str) -> list[str]:
    """Return what is wrong with the added tokens."""
    where = f"{file}: added_tokens"
    for token in added if isinstance(added, list) else []:
        good = isinstance(token, dict) and type(token.get("id")) is int and isinstance(token.get("content"), str)
        if not good or not token["content"] or not 0 <= token["id"] < MOST:
            return [problem(where, f"{token!r}"[:120], f"a text that is not empty and an id below {MOST:,}")]
    return []


def _build(data: Json, where: str) -> tokenizers.Tokenizer:
    """Return the library's tokenizer, tried once, so that what makes it panic is found here and not in a server."""
    model = {key: value for key, value in data["model"].items() if key != "dropout"}
    text = json.dumps({**data, "model": model, "truncation": None, "padding": None})
    with _quiet(), guarded(where):
        raw = tokenizers.Tokenizer.from_str(text)
        raw.encode_special_tokens = True
        for token in data.get("added_tokens") or []:
            if raw.token_to_id(token["content"]) != token["id"]:
                given = f"{token['content']!r} has the id {token['id']}"
                raise TokenizerError(problem(where, given, f"it would get {raw.token_to_id(token['content'])}"))
        with suppress(Exception):  # a text it cannot take is no fault of the file
            raw.encode("a b", "a b")
            raw.decode([0, 1])
        return raw


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep from the terminal what Rust prints about a panic before Python hears of it."""
    with _stderr, ExitStack() as stack:
        with suppress(OSError):  # a process may have no standard error
            kept = os.dup(2)
            stack.callback(os.close, kept)
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            stack.callback(os.dup2, kept, 2)
        yield


def _names(config: Json, older: Json) -> tuple[dict[str, str], list[str]]:
    """Return role -> special token as the companions name them, and what is wrong with them."""
    names, problems = {}, []
    for role in ROLES:
        key = f"{role}_token"
        value = config.get(key) or older.get(key)
        name = value.get("content") if isinstance(value, dict) else value
        if isinstance(name, str) and name:
            names[role] = name
        elif value:
            allowed = "a text, or an object whose 'content' is one"
            problems.append(problem(f"tokenizer_config.json: {key}", f"{value!r}"[:120], allowed))
    return names, problems


def _well_known(special: Set[str]) -> dict[str, str]:
    """Return role -> special token by the names everybody uses."""
    found = {role: [name for name in names if name in special] for role, names in WELL_KNOWN.items()}
    return {role: names[0] for role, names in found.items() if names}
