"""What every way of writing begins with: prompts of any length read once, and a memory that all copies share.

    prompts   a b c            rows      0 0 0 1 1 1      three copies of each prompt
              d e _            memory    0     1          one copy of what was read: row r looks at r // 3

Letters: B prompts, T tokens, R rows, V vocab.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from hanlin.batch import Layout, move
from hanlin.errors import problem
from hanlin.models.contract import Decodes, Encodes, Memory, Model
from hanlin.nn.cache import Cache


def prefill(
    model: Model[Any], prompts: Sequence[Sequence[int]], length: int, memory: Memory | None
) -> tuple[Cache, Tensor]:
    """Read each prompt once; return a cache of `length` tokens a row and the logits (B, V) that follow."""
    assert isinstance(model, Decodes), "checked at the call"
    cache = model.new_cache(len(prompts), length)
    tokens, layout = right_padded(prompts, model.device)
    hidden = model(tokens, layout=layout, memory=memory, cache=cache)
    last = torch.tensor([len(prompt) - 1 for prompt in prompts], device=model.device)
    return cache, model.logits(hidden[torch.arange(len(prompts), device=model.device), last])


def right_padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Layout | None]:
    """Return tokens (B, T) and their layout, None where all are equally long."""
    longest = max(map(len, prompts))
    tokens = torch.tensor([[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts], device=device)
    if all(len(prompt) == longest for prompt in prompts):
        return tokens, None
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    layout = Layout.of((torch.arange(longest) < lengths[:, None]).long())
    return tokens, move(layout, device)


def shared(memory: Memory, source: Tensor, rows: int) -> Memory:
    """Return the memory of R new rows, row i of them being row `source[i]` of the `rows` that share it now.

    As long as every memory row has equally many followers, in order, each stays a single one; the very same memory,
    with what was made from its states, where none has left.
    """
    owners = source // (rows // len(memory.states))
    groups, sizes = owners.unique_consecutive(return_counts=True)
    if len(sizes) and bool((sizes == sizes[0]).all()):
        same = len(groups) == len(memory.states) and bool((groups == torch.arange(len(groups)).to(groups)).all())
        return memory if same else pick(memory, groups)
    return pick(memory, owners)


def pick(memory: Memory, rows: Tensor) -> Memory:
    """Return the memory of some rows; what was made from its states is made again when asked for."""
    layout = memory.layout
    if layout is not None:
        layout = replace(layout, segments=layout.segments[rows], starts=layout.starts[rows])
    carry = None if memory.carry is None else memory.carry[rows]
    ids = None if memory.ids is None else memory.ids[rows]
    return Memory(states=memory.states[rows], layout=layout, carry=carry, ids=ids)


def joined(memories: Sequence[Memory]) -> Memory:
    """Return the memory of R sources that were read one by one, side by side, the shorter ones padded.

    What layers made of the states goes along where it has a place for every source token before its last axis, as keys
    and values have; the rest is made anew when asked for.
    """
    if len(memories) == 1:
        return memories[0]
    widths = [each.states.shape[1] for each in memories]
    longest, first = max(widths), memories[0]
    layout = None
    if min(widths) < longest:
        real = torch.arange(longest) < torch.tensor(widths)[:, None]
        layout = move(Layout.of(real.long()), first.states.device)

    def side_by_side(parts: Sequence[Tensor], axis: int) -> Tensor:
        padding = [(0, 0) * (-axis - 1) + (0, longest - width) for width in widths]
        return torch.cat([pad(each, more) for each, more in zip(parts, padding)])

    kept = {}
    for name, made in first.kept.items():
        if isinstance(made, tuple) and all(each.ndim > 1 and each.shape[-2] == widths[0] for each in made):
            kept[name] = tuple(side_by_side(parts, -2) for parts in zip(*(each.kept[name] for each in memories)))
    carries = [each.carry for each in memories if each.carry is not None]
    ids = [each.ids for each in memories if each.ids is not None]
    return Memory(
        states=side_by_side([each.states for each in memories], -2),
        layout=layout,
        carry=torch.cat(carries) if carries else None,
        ids=side_by_side(ids, -1) if ids else None,
        kept=kept,
    )


@contextmanager
def evaluating(model: Model[Any]) -> Iterator[None]:
    """Switch dropout off inside, and back on afterwards if it was on."""
    was = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was)


def unreadable(
    model: Model[Any], prompts: Sequence[Sequence[int]], limits: Sequence[int], memory: Memory | None
) -> list[str]:
    """Return every reason why these prompts cannot be continued by so many tokens after this memory."""
    vocab, context = model.config.vocab, model.config.context
    problems = []
    if memory is None and isinstance(model, Encodes):
        do = "pass memory=model.encode(source)"
        problems.append(problem("memory", f"none, and {type(model).__name__} reads a source first", do=do))
    if memory is not None and len(memory.states) != len(prompts):
        problems.append(problem("memory", f"{len(memory.states)} sources for {len(prompts)} prompts", "one a prompt"))
    for index, (prompt, limit) in enumerate(zip(prompts, limits)):
        where = f"prompt {index}"
        if not len(prompt):
            problems.append(problem(where, "no tokens", "at least one, and this tokenizer adds no BOS", do="give text"))
        elif not 0 <= min(prompt) <= max(prompt) < vocab:
            given = f"token {max(prompt) if min(prompt) >= 0 else min(prompt)}"
            problems.append(problem(where, given, f"the model's vocab is {vocab}", do="use the model's own tokenizer"))
        if len(prompt) + limit > context:
            given = f"prompt {len(prompt)} tokens + limit {limit} > context {context}"
            problems.append(problem(where, given, do="shorten the prompt or lower the limit"))
    return problems
