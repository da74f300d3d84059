"""How fast a model writes, beside transformers on the same weights.

python -m benchmarks.writing
"""

from __future__ import annotations

import warnings

import torch

from benchmarks.table import heading, in_turn, ratio, rows, spread
from hanlin.generate import decode
from hanlin.generate.sampling import Sampling
from hanlin.models import llama
from hanlin.models.weights import to_theirs


def writing() -> list[list[str]]:
    """Return greedy decoding of 64 tokens after 64, fp32, beside transformers' generate on the same weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = llama.Config(vocab=8192, dim=256, layers=8, heads=8, hidden=704, tied=True, context=256)
    ours = config.build().eval()
    theirs = LlamaForCausalLM(LlamaConfig(**config.to_hf(), bos_token_id=0, eos_token_id=None)).eval()
    theirs.load_state_dict(to_theirs(ours), strict=False)
    lines = []
    for size in (1, 16):
        prompts = torch.randint(3, config.vocab, (size, 64))
        sampling = Sampling(temperature=0, limit=64)

        def own(prompts=prompts, sampling=sampling) -> object:
            return decode.answers(ours, prompts.tolist(), sampling, stop_ids=frozenset(), tokenizer=None)

        def peer(prompts=prompts) -> object:
            mask = torch.ones_like(prompts)
            return theirs.generate(prompts, attention_mask=mask, max_new_tokens=64, do_sample=False, pad_token_id=0)

        mine, other = in_turn([own, peer], rounds=5)
        lines.append([size, spread(mine), spread(other), ratio(other, mine)])
    return lines


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")  # transformers' advice on its own options
    print(heading("Greedy decoding, 64 tokens after 64, 8 layers of 256, fp32", "python -m benchmarks.writing"))
    print(rows(["rows", "hanlin", "transformers", "ratio"], writing()))


if __name__ == "__main__":
    main()
