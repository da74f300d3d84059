"""Greedy decoding of T5 and BART shapes of 60 M random weights, ours against transformers' `generate`, same tokens.

python -m benchmarks.pairs [--rounds 7]
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import torch
from torch import Tensor
from transformers import AutoModelForSeq2SeqLM

from benchmarks.table import heading, in_turn, ratio, rows
from hanlin import bundle
from hanlin.batch import Layout, Tokens
from hanlin.generate.decode import answers
from hanlin.generate.sampling import Sampling
from hanlin.models import bart, t5
from hanlin.text.tokenizer import byte_level

NEW = 64  # tokens an answer
SOURCE = 48  # tokens of the longest source; the others of a batch are shorter
SHAPES = {
    "T5": t5.Config(),
    "BART": bart.Config(vocab=32128, dim=512, layers=6, heads=8, hidden=2048, context=512),
}


def wide(model: torch.nn.Module) -> None:
    """Draw the output matrix wide, so that the likeliest token is far ahead of the others, as in a trained model."""
    with torch.no_grad():
        embed = model.embed.weight  # type: ignore[union-attr]
        embed.normal_(0.0, 1.0, generator=torch.Generator().manual_seed(1))


def sources(count: int) -> tuple[Tensor, Tensor]:
    """Return sources (B, S) and their mask, of lengths from half to all of SOURCE."""
    ids = torch.randint(2, 32000, (count, SOURCE), generator=torch.Generator().manual_seed(2))
    lengths = torch.linspace(SOURCE, SOURCE // 2, count).long()
    return ids, (torch.arange(SOURCE) < lengths[:, None]).long()


def ours(model: t5.T5 | bart.Bart, ids: Tensor, mask: Tensor) -> Callable[[], list[list[int]]]:
    """Return our way to NEW tokens a source."""
    layout = None if bool(mask.all()) else Layout.of(mask)
    prompts = [model.config.opening] * len(ids)
    sampling = Sampling(temperature=0.0, limit=NEW)

    def work() -> list[list[int]]:
        with torch.inference_mode():
            memory = model.encode(Tokens(ids=ids, layout=layout))
        return [list(each.ids) for each in answers(model, prompts, sampling, stop_ids=frozenset(), memory=memory)]

    return work


def theirs(folder: Path, dtype: torch.dtype, ids: Tensor, mask: Tensor) -> Callable[[], list[list[int]]]:
    """Return transformers' way to NEW tokens a source."""
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=dtype).eval()
    settings = copy.deepcopy(model.generation_config)
    settings.eos_token_id = settings.forced_eos_token_id = None
    settings.max_new_tokens, settings.do_sample, settings.pad_token_id = NEW, False, 0

    def work() -> list[list[int]]:
        with torch.inference_mode():
            return model.generate(ids, attention_mask=mask, generation_config=settings)[:, 1:].tolist()

    return work


def lines(rounds: int) -> list[list[str]]:
    """Return a line for each shape, type and batch."""
    found = []
    for name, config in SHAPES.items():
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            model = config.build()
            wide(model)
            bundle.write(folder, model, byte_level())
            size = f"{sum(each.numel() for each in model.parameters()) / 1e6:.0f} M"
            for dtype in (torch.float32, torch.bfloat16):
                own = bundle.read(folder, dtype=dtype).model
                assert isinstance(own, t5.T5 | bart.Bart)
                for count in (1, 8):
                    ids, mask = sources(count)
                    works = [theirs(folder, dtype, ids, mask), ours(own, ids, mask)]
                    pairs = [a == b for one, two in zip(works[0](), works[1]()) for a, b in zip(one, two)]
                    slow, fast = in_turn(works, rounds)
                    speeds = [f"{count * NEW / statistics.median(each):,.0f}" for each in (slow, fast)]
                    same = f"{sum(pairs)} of {len(pairs)}"
                    kind = str(dtype).removeprefix("torch.")
                    found.append([f"{name}, {size}", kind, str(count), *speeds, ratio(slow, fast), same])
                    print(found[-1], flush=True)
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    table = lines(given.rounds)
    print(heading("Decoding of encoder–decoders", "python -m benchmarks.pairs"))
    print(f"Greedy, {NEW} tokens from sources of up to {SOURCE}; tokens a second over all rows, encoding included\n")
    print(rows(["shape", "type", "rows", "transformers", "hanlin", "ratio", "equal tokens"], table))


if __name__ == "__main__":
    main()
