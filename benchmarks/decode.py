"""How fast a model reads and writes, beside transformers and llama.cpp on the same weights.

python -m benchmarks.decode [--llama CACHE]

CACHE is the folder in which `python -m benchmarks.serve` built llama-server; without it llama.cpp stays out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import warnings
from pathlib import Path

import httpx
import torch

from benchmarks.table import heading, in_turn, ratio, rows
from hanlin import bundle
from hanlin.generate import decode
from hanlin.generate.sampling import Sampling
from hanlin.models import llama
from hanlin.models.weights import to_theirs
from hanlin.nn.linear import prepack
from hanlin.text.tokenizer import train_bpe

LARGE = llama.Config(vocab=32000, dim=768, layers=12, heads=12, hidden=2048, context=1024)  # 134 M parameters
SMALL = llama.Config(vocab=8192, dim=256, layers=8, heads=8, hidden=704, tied=True, context=256)
MERGES = "a few words make the merges that a vocabulary of llama.cpp must have"
CASES = (  # title, config, bf16, rows, tokens in, tokens out
    ("134 M, bf16, 1 row, 64 after 64", LARGE, True, 1, 64, 64),
    ("134 M, bf16, 16 rows, 32 after 64", LARGE, True, 16, 64, 32),
    ("134 M, bf16, reading 512", LARGE, True, 1, 512, 1),
    ("134 M, fp32, 1 row, 64 after 64", LARGE, False, 1, 64, 64),
    ("8 x 256, fp32, 1 row, 64 after 64", SMALL, False, 1, 64, 64),
    ("8 x 256, fp32, 16 rows, 64 after 64", SMALL, False, 16, 64, 64),
)


def cases(rounds: int) -> list[list[str]]:
    """Return a line a case: tokens a second of both, and the ratio of the times taken in turn."""
    from transformers import LlamaConfig, LlamaForCausalLM

    lines = []
    for title, config, short, count, read, write in CASES:
        ours = config.build().eval()
        theirs = LlamaForCausalLM(LlamaConfig(**config.to_hf(), bos_token_id=0, eos_token_id=None)).eval()
        theirs.load_state_dict(to_theirs(ours), strict=False)
        if short:
            ours, theirs = prepack(ours.to(torch.bfloat16)), theirs.to(torch.bfloat16)
        prompts = torch.randint(3, config.vocab, (count, read), generator=torch.Generator().manual_seed(0))
        sampling = Sampling(temperature=0, limit=write)

        def own(ours=ours, prompts=prompts, sampling=sampling) -> object:
            return decode.answers(ours, prompts.tolist(), sampling, stop_ids=frozenset(), tokenizer=None)

        def peer(theirs=theirs, prompts=prompts, write=write) -> object:
            mask = torch.ones_like(prompts)
            return theirs.generate(prompts, attention_mask=mask, max_new_tokens=write, do_sample=False, pad_token_id=0)

        mine, other = in_turn([own, peer], rounds=rounds)
        tokens = count * (read if write == 1 else write)
        lines.append([title, *(_speed(tokens, each) for each in (mine, other)), ratio(other, mine)])
    return lines


def _speed(tokens: int, times: list[float]) -> str:
    """Return tokens a second, the median with the slowest and the fastest."""
    return f"{tokens / statistics.median(times):,.0f} ({tokens / max(times):,.0f} to {tokens / min(times):,.0f})"


def llama_cpp(cache: Path, rounds: int) -> list[list[str]]:
    """Return what llama-server itself says of one row: tokens a second written after 64, and read of 512."""
    from benchmarks.serve import peers

    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "llama-134m"
        bundle.write(folder, LARGE.build().to(torch.bfloat16), train_bpe([MERGES] * 20, 300))
        for kind in ("bf16", "q8_0"):
            server = peers.llama_server(
                peers.Setting(folder=folder, cache=cache, threads=torch.get_num_threads(), slots=1, context=1024), kind
            )
            with peers.running(server, Path(scratch) / f"{kind}.log"):
                written, read = [], []
                for number in range(rounds):
                    for tokens, limit, found, key in ((64, 64, written, "predicted"), (512, 1, read, "prompt")):
                        ids = [3 + (number * 997 + place * 31) % 200 for place in range(tokens)]
                        body = {"prompt": ids, "n_predict": limit, "cache_prompt": False, "temperature": 0}
                        url = server.target.url.rsplit("/v1", 1)[0] + "/completion"
                        reply = httpx.post(url, json=body, timeout=120).json()
                        found.append(float(reply["timings"][f"{key}_per_second"]))
            lines.append([f"llama.cpp {kind}", f"{statistics.median(written):,.0f}", f"{statistics.median(read):,.0f}"])
    return lines


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decode", description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--llama", type=Path, help="folder in which benchmarks.serve built llama-server")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # transformers' advice on its own options
    print(heading("Reading and writing, tokens a second", "python -m benchmarks.decode"))
    print(rows(["case", "hanlin", "transformers", "ratio"], cases(options.rounds)), flush=True)
    if options.llama:
        print("\nThe 134 M shape in llama.cpp, one row\n")
        print(rows(["kind", "writing, 64 after 64", "reading 512"], llama_cpp(options.llama, options.rounds)))


if __name__ == "__main__":
    main()
