"""Model folders for tests: made, damaged, and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest
import torch

from hanlin import bundle
from hanlin.errors import HanlinError, RunError
from hanlin.models import bart, gpt2, llama, rnn, t5
from hanlin.text.tokenizer import byte_level

LLAMA = llama.Config(vocab=300, dim=16, layers=2, heads=4, kv_heads=2, head_dim=6, hidden=24, context=32)
GPT2 = gpt2.Config(vocab=300, dim=16, layers=2, heads=4, context=32)
RNN = rnn.Config(vocab=300, dim=16, hidden=20, layers=2, kind="lstm", context=32)
T5 = t5.Config(vocab=300, dim=16, layers=2, encoder_layers=2, heads=2, head_dim=8, hidden=24, context=32, start=0)
BART = bart.Config(vocab=300, dim=16, layers=2, encoder_layers=2, heads=2, hidden=24, context=32, start=2, first=0)
PAIR = RNN.model_copy(update={"encoder": "bidirectional", "attention": "luong", "layers": 1, "start": 0})
UNTIED = GPT2.model_copy(update={"tied": False})
SHARD = 6_000  # bytes; gives some five shards


def build(config=LLAMA, seed=0):
    """Return a model with every parameter random."""
    model = config.build(seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=generator))
    return model


def write(folder, seed=0, config=LLAMA, **options):
    """Write a model folder and return its model."""
    model = build(config, seed)
    bundle.write(folder, model, byte_level(), **options)
    return model


def unsigned(folder):
    """Make the folder anyone's: without hanlin.json and its hashes."""
    (folder / "hanlin.json").unlink()
    return folder


def same(one, two):
    """Return whether two models have the same weights, bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def change(path, **keys):
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def problems(folder):
    """Return the lines with which a folder is refused."""
    with pytest.raises(HanlinError) as caught:
        bundle.read(folder)
    assert not isinstance(caught.value, RunError)
    return caught.value.problems


FEED = "import os, sys, time; time.sleep(2); os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)"


@contextmanager
def fed(pipe):
    """Fail where the pipe is opened inside; another process ends that wait, which may stop every thread of this one."""
    feeder = subprocess.Popen([sys.executable, "-c", FEED, str(pipe)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        feeder.kill()  # too late where it has fed someone
        waited = feeder.wait() == 0
    assert not waited, "waits for ever"


@contextmanager
def in_time(seconds):
    """Fail, instead of waiting for ever, where a pipe is opened or a hostile file is chewed on."""

    def ring(*_):
        raise AssertionError("waits for ever")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
