"""A trained Llama of 260,000 parameters, read from llama2.c's own format, tells the story that it is known to tell.

    int32: dim hidden layers heads kv_heads vocab context       then float32, layer after layer within each kind:
    embedding · attention norms · wq · wk · wv · wo · MLP norms · w1 (gate) · w2 (down) · w3 (up) · norm · cos · sin

Its rows of q and k come in pairs that turn together, (x0, y0, x1, y1, …); ours in halves, (x0, x1, …, y0, y1, …).
"""

from __future__ import annotations

import re
import struct

import numpy as np
import pytest
import torch

from hanlin.models import llama
from hanlin.models.contract import Decodes, require

# From the description of the file in shared/data/README.md, made by a forward pass of another's making.
IDS = [403, 407, 261, 378, 432, 383, 286, 261, 376, 298, 315, 421, 395, 317, 426, 338, 401, 396, 267, 337]
TEXT = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. "
    "One day, she saw a big, red ball. She wanted to play with it, but it was too high."
)
BOS = 1


def halves(rows: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Return rows (heads * head_dim, dim) with each head's pairs put into two halves."""
    pairs = rows.unflatten(0, (-1, head_dim // 2, 2))
    return pairs.transpose(1, 2).flatten(0, 2)


@pytest.fixture(scope="module")
def model(real_data):
    """The model, converted."""
    raw = (real_data / "models" / "stories260K" / "stories260K.bin").read_bytes()
    dim, hidden, layers, heads, kv_heads, vocab, context = struct.unpack_from("<7i", raw)
    assert vocab > 0  # negative where the output matrix stands apart; here it is the embedding
    config = llama.Config(
        vocab=vocab, dim=dim, layers=layers, heads=heads, kv_heads=kv_heads, hidden=hidden, context=context, tied=True
    )
    numbers = torch.from_numpy(np.frombuffer(raw, "<f4", offset=28).copy())
    wide, narrow, head_dim = dim, kv_heads * dim // heads, dim // heads
    shapes = {
        "embed": (vocab, dim),
        "attn_norm": (layers, dim),
        "attn.q": (layers, wide, dim),
        "attn.k": (layers, narrow, dim),
        "attn.v": (layers, narrow, dim),
        "attn.o": (layers, dim, wide),
        "mlp_norm": (layers, dim),
        "mlp.gate": (layers, hidden, dim),
        "mlp.down": (layers, dim, hidden),
        "mlp.up": (layers, hidden, dim),
        "norm": (dim,),
    }
    weights, at = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        part, at = numbers[at : at + size].view(shape), at + size
        if name in ("embed", "norm"):
            weights[f"{name}.weight"] = part
            continue
        for layer, each in enumerate(part):
            turned = halves(each, head_dim) if name in ("attn.q", "attn.k") else each
            weights[f"blocks.{layer}.{name}.weight"] = turned
    assert at + context * head_dim == len(numbers)  # cosines and sines are what is left
    built = config.build()
    built.load_state_dict(weights)
    return built.eval()


@pytest.fixture(scope="module")
def pieces(real_data):
    """The bytes of every token: int32 longest; then float32 score, int32 length, bytes for each."""
    raw = (real_data / "models" / "stories260K" / "tok512.bin").read_bytes()
    at, found = 4, []
    while at < len(raw):
        _, length = struct.unpack_from("<fi", raw, at)
        piece = raw[at + 8 : at + 8 + length]
        byte = re.fullmatch(rb"<0x([0-9A-F]{2})>", piece)
        found.append(bytes([int(byte[1], 16)]) if byte else piece)
        at += 8 + length
    return found


@pytest.fixture(scope="module")
def told(model):
    """Greedy ids after BOS, token by token through the cache, until the model begins another story."""
    cache = require(model, Decodes).new_cache(1, model.config.context)
    ids, token = [], BOS
    with torch.no_grad():
        while cache.lengths.item() < 100:
            token = int(model.logits(model(torch.tensor([[token]]), cache=cache))[0, -1].argmax())
            if token == BOS:
                break
            ids.append(token)
    return ids


def test_greedy_ids(told):
    """Anything wrong in the forward of a trained Llama: rotation, grouping, norms, the gate, the tie."""
    assert told[: len(IDS)] == IDS


def test_text(told, pieces):
    """A slip later in the story, where the cache is long."""
    text = b"".join(pieces[token] for token in told).decode().removeprefix(" ")
    assert text.startswith(TEXT)


def test_without_a_cache(model, told):
    """A cache that agrees with itself alone."""
    with torch.no_grad():
        best = model.logits(model(torch.tensor([[BOS, *told[:-1]]])))[0].argmax(-1)
    assert best.tolist() == told
