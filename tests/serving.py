"""Servers for tests: real ones, over sockets, on models made on the spot.

    root/bytes    a llama, one token a byte            root/bpe       a GPT-2, tokens learned from four scripts
    root/chat     a llama with a chat template         root/say-zh …  models that say one text each, and no other:
                                                       root/spell-zh … the same, one token a byte

In a thread of this process (`serving`), where a test can look at the worker, or as the real command (`command`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property

import httpx
import torch
from folders import GPT2, LLAMA, build, write

from hanlin import bundle, runtime
from hanlin.api import LanguageModel
from hanlin.models import gpt2
from hanlin.serve import api, folder, listen
from hanlin.serve.limits import Limits
from hanlin.serve.worker import Worker
from hanlin.text.tokenizer import Special, Tokenizer, byte_level, train_bpe

KEY = "sk-of-the-tests-0123456789"
CONTEXT = 96
PLACE = runtime.Runtime(device=torch.device("cpu"), dtype=torch.float32, threads=1)
SIZES = folder.Sizes(slots=8, chunk=16, queue=64)
SAID = {
    "zh": "床前明月光，疑是地上霜。𠮷野家",
    "ko": "안녕하세요 세계 각",
    "ar": "السَّلامُ عليكم",
    "emoji": "a👨‍👩‍👧‍👦b🏳️‍🌈👍🏽é",
}
START, END = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@cache
def scripts():
    """Return BPE tokens learned from the four scripts: some are words, some parts of characters."""
    return train_bpe([text for text in SAID.values() for _ in range(3)] + ["The quick brown fox. " * 3], 300)


@cache
def chatty():
    """Return one token a byte, and the two control tokens of `TEMPLATE`; the second ends an answer."""
    raw = byte_level().raw
    raw.add_special_tokens([START, END])
    raw.encode_special_tokens = True
    return Tokenizer(raw, Special(bos=0, eos=raw.token_to_id(END), pad=2), {})


def speaking(path, tokenizer, ids):
    """Write a model that says `ids` whatever the prompt: after k tokens comes ids[k - 1], and after the last EOS.

    Every position is a direction of its own, the blocks add nothing, and the head reads the position.
    """
    config = gpt2.Config(vocab=tokenizer.vocab, dim=CONTEXT, layers=1, heads=1, context=CONTEXT, tied=False)
    model = config.build(seed=0).eval()
    spoken = [*ids, *[tokenizer.special.eos] * (CONTEXT - len(ids))]
    with torch.no_grad():
        for name, each in model.named_parameters():
            each.fill_(float(each.ndim == 1 and "norm" in name and name.endswith("weight")))
        places = next(each for each in model.parameters() if each.shape == (CONTEXT, CONTEXT))
        places.copy_(torch.eye(CONTEXT))
        model.head.weight[torch.tensor(spoken), torch.arange(CONTEXT)] = 1.0
    bundle.write(path, model, tokenizer)


def models(root, *names):
    """Fill a folder with the models above that are named."""
    for name in names:
        how, _, which = name.partition("-")
        if how == "bytes":
            write(root / name, config=LLAMA.model_copy(update={"context": CONTEXT, "vocab": 259}))
        elif how == "bpe":
            config = GPT2.model_copy(update={"context": CONTEXT, "vocab": scripts().vocab})
            bundle.write(root / name, build(config, seed=3), scripts())
        elif how == "chat":
            chat(root / name)
        else:
            tokenizer = scripts() if how == "say" else byte_level()
            speaking(root / name, tokenizer, tokenizer.encode(SAID[which]).ids[1:])
    return root


def chat(path, template=TEMPLATE):
    """Write a model with a chat template."""
    bundle.write(path, build(LLAMA.model_copy(update={"context": CONTEXT, "vocab": 261})), chatty())
    (path / "chat_template.jinja").write_text(template)
    return path


@dataclass(frozen=True)
class Running:
    """A server in a thread, and its insides."""

    root: object
    url: str
    worker: Worker
    app: api.Api
    server: listen.Server

    @property
    def address(self):
        return self.server.address.getsockname()[:2]

    @cached_property
    def lines(self):
        return self.worker._lines

    def engine(self, model):
        return self.lines[model].engine

    @cache  # noqa: B019  # a server lives as long as its tests
    def model(self, name):
        """Return the served model, opened once more, for answers without a server."""
        return LanguageModel(bundle.read(self.root / name))

    def client(self, key=KEY, **options):
        """Return an HTTP client with the key."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30, **options)

    def idle(self):
        """Return whether nobody waits, nothing runs, and every engine has let go of every row."""
        engines = [line.engine for line in self.lines.values() if line.engine is not None]
        return self.worker.load() == (0, 0) and not any(engine._rows for engine in engines)


@contextmanager
def serving(root, *, limits=None, sizes=SIZES, origins=(), keys=None, drain_s=5.0, app=None):
    """Serve every model below `root`, or an application that was made, from a thread until the block ends."""
    worker = Worker(folder.lines(str(root), sizes, PLACE)) if app is None else app.worker
    app = app or api.app(worker, keys=keys or {"tests": KEY}, limits=limits or Limits(), origins=origins)
    ready = threading.Event()
    server = listen.Server(app, listen.bind("127.0.0.1", 0), drain_s=drain_s, listening=lambda _: ready.set())
    thread = threading.Thread(target=server.run, name="server", daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield Running(root, server.url, worker, app, server)
    finally:
        server.stop()
        thread.join(20)
        server.address.close()
        assert not thread.is_alive(), "the server does not stop"


@contextmanager
def held(running, model, monkeypatch):
    """Let a model compute nothing inside the block, until the event that is yielded is set."""
    engine, gate = running.engine(model), threading.Event()
    step = engine.step
    with monkeypatch.context() as patched:
        patched.setattr(engine, "step", lambda plan: (gate.wait(20), step(plan))[1])
        try:
            yield gate
        finally:
            gate.set()
            until(running.idle)


def until(condition, seconds=30.0):
    """Return the seconds until a condition holds; fail when it does not."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "does not come about"
        time.sleep(0.002)
    return time.monotonic() - began


async def reached(condition, seconds=30.0):
    """Wait for a condition without holding the other clients up; fail when it does not come about."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "does not come about"
        await asyncio.sleep(0.001)


def events(text):
    """Return the events of a stream that ended well: exactly one [DONE], at its end."""
    lines = [line for line in text.split("\n") if line]
    assert all(line.startswith("data: ") for line in lines), lines
    assert text.endswith("data: [DONE]\n\n")
    assert lines.count("data: [DONE]") == 1
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def wire(address, data, *, seconds=5.0):
    """Send raw bytes and return all that comes back until the server closes or is silent."""
    with socket.create_connection(address, timeout=seconds) as plug:
        plug.sendall(data)
        found = bytearray()
        try:
            while chunk := plug.recv(65536):
                found += chunk
        except (TimeoutError, ConnectionResetError):
            pass
        return bytes(found)


def head(path="/v1/completions", *, method="POST", key=KEY, **headers):
    """Return the first lines of a raw request, the empty one included."""
    named = {"Host": "127.0.0.1", **({} if key is None else {"Authorization": f"Bearer {key}"}), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name.replace('_', '-')}: {value}" for name, value in named.items())]
    return "\r\n".join([*lines, "", ""]).encode()


def status(reply):
    """Return the status of a raw answer, None where there is none."""
    return int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else None


@contextmanager
def command(*words, env=None):
    """Run the real `hanlin serve` on a free port; yields (process, url), the log comes after the block."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HANLIN_API_KEY": KEY, "PYTHONUNBUFFERED": "1", **(env or {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "hanlin", "serve", *map(str, words), "--port", "0", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    started = Started(process)
    try:
        started.wait()
        yield started
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(20)
        started.reader.join(20)
        process.stdout.close()


class Started:
    """The real command at work, and what it prints."""

    def __init__(self, process):
        self.process = process
        self.said = []
        self.url = None
        self.listening = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(line)
            if " at http://" in line:
                self.url = line.rsplit(" at ", 1)[1].strip().removesuffix("/v1")
                self.listening.set()
        self.listening.set()

    def wait(self):
        assert self.listening.wait(60), "does not start"
        assert self.url, "".join(self.said)

    def client(self, key=KEY, **options):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=30, **options)
