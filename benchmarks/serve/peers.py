"""Servers to put under load: ours, llama.cpp's and transformers', each with its best settings for this work.

    model folder ─┬──────────────────────> hanlin serve
                  ├──────────────────────> transformers serve
                  └─ gguf(folder, kind) ─> llama-server <─ build_llama(cache) <─ the sources in llama-cpp-python

A server runs in a process group of its own: what it started ends with it, and Ctrl-C reaches it only through us.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from torch import Tensor

from benchmarks.serve.load import Target
from hanlin import bundle
from hanlin.models import llama
from hanlin.models.weights import to_theirs
from hanlin.text.tokenizer import Tokenizer

SOURCES = "llama-cpp-python==0.3.36"  # its sdist holds all of llama.cpp
SWITCHES = (  # nothing but the server, for this very processor
    *("CMAKE_BUILD_TYPE=Release", "GGML_NATIVE=ON", "BUILD_SHARED_LIBS=OFF"),
    *("LLAMA_BUILD_TESTS=OFF", "LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF", "LLAMA_BUILD_UI=OFF"),
    *("LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF"),
)
BLOCK = 256  # tokens of a block of transformers' cache
START_S, STOP_S = 180.0, 15.0
TAIL = 1000  # characters of a dead server's log that are shown


class Dead(Exception):
    """A server that could not be built, did not come up, or went away; the message says which, with its last words."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """How to start a server: its command, where it says that it is ready, and how it is asked."""

    name: str
    command: Sequence[str]
    ready: str
    target: Target
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all servers share: the model's folder, where files may be kept, threads, places and their context."""

    folder: Path
    cache: Path
    threads: int
    slots: int
    context: int  # tokens of one prompt and its answer


def hanlin(setting: Setting) -> Server:
    """Return our own server."""
    port, key = free_port(), secrets.token_hex(16)
    key_file = setting.cache / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(f"load: {key}\n")
    root = f"http://127.0.0.1:{port}"
    places = ["--slots", str(setting.slots), "--context", str(setting.context)]
    options = ["--port", str(port), "--key-file", str(key_file), "--precision", "bf16", "--device", "cpu", *places]
    return Server(
        name="hanlin serve",
        command=[sys.executable, "-m", "hanlin", "serve", str(setting.folder), *options],
        ready=f"{root}/ready",
        target=Target(url=f"{root}/v1/", model=setting.folder.name, key=key),
        env=_threads(setting),
    )


def llama_server(setting: Setting, kind: str) -> Server:
    """Return llama.cpp's server on weights of `kind`: bf16, f16 or q8_0; it is built first where it is missing."""
    port, threads = free_port(), str(setting.threads)
    model = setting.cache / f"{setting.folder.name}-{kind}.gguf"
    if not model.exists() or model.stat().st_mtime < (setting.folder / "hanlin.json").stat().st_mtime:
        gguf(setting.folder, model, kind)
    places = ["-np", str(setting.slots), "-c", str(setting.slots * setting.context), "--cont-batching"]
    effort = ["-t", threads, "-tb", threads, "--cache-ram", "0"]  # no prompt comes twice: none is kept
    where = ["--host", "127.0.0.1", "--port", str(port)]
    root = f"http://127.0.0.1:{port}"
    return Server(
        name=f"llama-server {kind}",
        command=[str(build_llama(setting.cache)), "-m", str(model), *where, *places, *effort],
        ready=f"{root}/health",
        target=Target(url=f"{root}/v1/", model=model.stem, extra={"ignore_eos": True, "cache_prompt": False}),
    )


def transformers(setting: Setting, batching: bool) -> Server:
    """Return transformers' server in bf16, with continuous batching or one request after the other."""
    port = free_port()
    options = ["--dtype", "bfloat16", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    if batching:
        # Left alone it takes half of the memory for its cache, and each step is slower: 8 clients, 12 tokens/s, not 77.
        blocks = str(2 * setting.slots * -(-setting.context // BLOCK))
        options += ["--continuous-batching", "--cb-num-blocks", blocks, "--cb-max-batch-tokens", "512"]
    program = str(Path(sys.executable).with_name("transformers"))
    return Server(
        name=f"transformers serve{', continuous batching' if batching else ''}",
        command=[program, "serve", str(setting.folder), *options],
        ready=f"http://127.0.0.1:{port}/health",
        target=Target(url=f"http://127.0.0.1:{port}/v1/", model=str(setting.folder)),
        env={**_threads(setting), "HF_HUB_OFFLINE": "1"},
    )


def _threads(setting: Setting) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(setting.threads)}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def running(server: Server, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server from the moment it is ready; it is stopped in any case. Dead, with the log's end, when it is not."""
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                server.command,
                env={**os.environ, **server.env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise Dead(f"{server.name}: {error}") from None
    try:
        _wait(server, process, log)
        yield process
    finally:
        _stop(process)


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return once the server says that it is ready."""
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if httpx.get(server.ready, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    ended = "is not ready" if process.poll() is None else f"ended with {process.returncode}"
    raise Dead(f"{server.name} {ended}\n{tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the process and all it started: asked first, killed where that does not help."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(STOP_S)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait(STOP_S)


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text(errors="replace")[-TAIL:].strip()


def build_llama(cache: Path) -> Path:
    """Return llama-server, built below `cache` unless it lies there already: some eleven minutes of one core."""
    home = cache / SOURCES.replace("==", "-")
    program = home / "build" / "bin" / "llama-server"
    if program.exists():
        return program
    home.mkdir(parents=True, exist_ok=True)
    log = home / "build.log"
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-python"]
    _do([*pip, "--dest", str(home), SOURCES], log)
    with tarfile.open(next(home.glob("*.tar.gz"))) as archive:
        archive.extractall(home, filter="data")
    source = next(home.glob("*/vendor/llama.cpp"))
    build = f"{home}/build"
    _do(["cmake", "-S", str(source), "-B", build, *(f"-D{each}" for each in SWITCHES)], log)
    _do(["cmake", "--build", build, "--target", "llama-server", "--parallel", str(os.cpu_count() or 1)], log)
    return program


def _do(command: Sequence[str], log: Path) -> None:
    """Run one command of a build; Dead with the log's end when it fails."""
    try:
        with log.open("ab") as out:
            subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Dead(f"{error}\n{tail(log)}") from None


def gguf(folder: Path, path: Path, kind: str) -> None:
    """Write a Llama's folder as a GGUF file: matrices as `kind`, vectors in fp32, the tokenizer as byte-level BPE."""
    from gguf import GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quantize
    from gguf.constants import MODEL_ARCH

    model = bundle.read_model(folder)
    config = model.config
    assert isinstance(config, llama.Config), "only a Llama is written here"
    assert config.rope.kind == "default", "only plain rotary positions are written here"
    partial = path.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    _sizes(writer, config)
    _words(writer, Tokenizer.load(folder), config.vocab)
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.layers)
    for name, tensor in to_theirs(model).items():
        values = _turned(name, tensor, config).float().numpy()
        stored = GGMLQuantizationType[kind.upper()] if values.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(str(names.get_name(name, (".weight",))), quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(path)


def _sizes(writer: Any, config: llama.Config) -> None:
    """Write what config.json says."""
    writer.add_vocab_size(config.vocab)
    writer.add_context_length(config.context)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.layers)
    writer.add_feed_forward_length(config.hidden)
    writer.add_head_count(config.heads)
    writer.add_head_count_kv(config.kv_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_layer_norm_rms_eps(config.eps)


def _words(writer: Any, tokenizer: Tokenizer, vocab: int) -> None:
    """Write the vocabulary, filled up to the model's, and the merges.

    GPT-2's way to cut text into words is not ours, but cuts words of ASCII letters between single spaces alike.
    """
    from gguf import TokenType

    special = tokenizer.raw.get_added_tokens_decoder()
    tokens = [tokenizer.token(id) for id in range(tokenizer.vocab)]
    kinds = [TokenType.CONTROL if id in special else TokenType.NORMAL for id in range(tokenizer.vocab)]
    spare = vocab - len(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([*tokens, *(f"<|spare {n}|>" for n in range(spare))])
    writer.add_token_types([*kinds, *[TokenType.UNUSED] * spare])
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.raw.to_str())["model"]["merges"]])
    writer.add_bos_token_id(tokenizer.special.bos)
    writer.add_eos_token_id(tokenizer.special.bos)  # one must be named; no answer of a server is to end by it
    writer.add_add_bos_token(True)


def _turned(name: str, tensor: Tensor, config: llama.Config) -> Tensor:
    """Return a weight as llama.cpp wants it: it turns neighbours (0, 1) of a head where others turn halves (0, h/2)."""
    for part, heads in ((".q_proj.", config.heads), (".k_proj.", config.kv_heads)):
        if part in name:
            return tensor.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2).contiguous()
    return tensor.contiguous()
