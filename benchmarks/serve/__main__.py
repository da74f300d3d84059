"""Our server beside llama-server and transformers serve: the same weights, the same prompts, the same clients.

python -m benchmarks.serve [--model 134m|demo|FOLDER] [--peers llama,transformers] [--clients 1,8,32]

    pass 1   hanlin:  1 client: warm-up, round   8 clients: the same   32 clients: the same
             llama-server: the same              transformers: the same
    pass 2   all of it again, so that a drift of the machine meets all of them alike; ...

Each client asks `--requests` times, one after the other: 128 tokens in, 64 out, greedy, streamed. No prompt comes twice
to a server. The model's folder names no token that ends an answer, so that all answers have their 64 tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import os
import random
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice, product
from pathlib import Path

import torch

from benchmarks.serve import peers
from benchmarks.serve.load import Load, Round, Summary, connect, play, summary
from benchmarks.table import heading, rows
from hanlin import bundle
from hanlin.models import llama
from hanlin.text.tokenizer import SMALLEST, Special, Tokenizer, train_bpe

KINDS: dict[str, Callable[[peers.Setting], peers.Server]] = {
    "hanlin": peers.hanlin,
    "llama": partial(peers.llama_server, kind="bf16"),
    "llama-f16": partial(peers.llama_server, kind="f16"),
    "llama-q8": partial(peers.llama_server, kind="q8_0"),
    "transformers": partial(peers.transformers, batching=True),
    "transformers-plain": partial(peers.transformers, batching=False),
}
SIZES = llama.Config(vocab=32_000, dim=768, layers=12, heads=12, hidden=2048, context=1024)  # 134 M parameters
OURS = "hanlin serve"
DEFAULT = ["llama", "llama-q8", "transformers", "transformers-plain"]
HEADINGS = (
    *("clients", "server", "tokens/s", "against 1 client", "hanlin against it"),
    *("first token, p50", "p95", "each further token", "slowest client", "failed"),
)
FEWEST = 8  # answers in a round: a lone client asks more often than one of many
Found = dict[tuple[str, int], list[Round]]


def main() -> None:
    """Print the table; what was found before Ctrl-C too."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an exit that stops the servers
    options.cache.mkdir(parents=True, exist_ok=True)
    load = Load(prompt=options.prompt, answer=options.answer, timeout_s=options.timeout)
    folder = model_folder(options.model, options.cache, load)
    sizes = {"threads": options.threads, "slots": max(options.clients), "context": load.prompt + load.answer}
    setting = peers.Setting(folder=folder, cache=options.cache, **sizes)
    found: Found = defaultdict(list)
    notes: list[str] = []
    try:
        for number in range(options.passes):
            for name in ["hanlin", *options.peers]:
                try:
                    _turn(KINDS[name](setting), setting, load, options, number, found)
                except (peers.Dead, ImportError) as error:
                    notes.append(f"{name}, pass {number + 1}: {error}")
                    print(notes[-1], file=sys.stderr)
    except KeyboardInterrupt:
        notes.append("stopped by hand")
    command = f"python -m benchmarks.serve {' '.join(sys.argv[1:])}".strip()
    print(heading(f"Serving {folder.name}: {load.prompt} tokens in, {load.answer} out, greedy, streamed", command))
    print(f"{_versions()}; {options.threads} threads a server, the clients on the same cores\n")
    print(report({key: summary(each) for key, each in found.items()}))
    print("\n".join(["", *(f"```\n{note}\n```" for note in notes)]))


def _turn(
    server: peers.Server,
    setting: peers.Setting,
    load: Load,
    options: argparse.Namespace,
    number: int,
    found: Found,
) -> None:
    """Put one server under every load once; Dead when it does not come up, or gives no whole answer in a round."""
    log = setting.cache / f"{server.name.replace(' ', '-')}.log"
    texts = prompts(Tokenizer.load(setting.folder), load.prompt, seed=number)

    async def turn() -> None:
        async with connect(server.target, load) as http:
            for clients, warm in product(options.clients, (False, True)):
                requests = max(options.requests, FEWEST // clients) if warm else 1
                done = await play(http, server.target, load, [list(islice(texts, requests)) for _ in range(clients)])
                what = f"{server.name}, {clients} clients, {'round' if warm else 'warm-up'} {number + 1}"
                print(f"{what}: {done.rate:.1f} tokens/s, {len(done.problems)} failed", file=sys.stderr)
                if not done.good:
                    raise peers.Dead(f"{what}: no whole answer: {done.problems[0]}\n{peers.tail(log)}")
                if warm:
                    found[server.name, clients].append(done)

    with peers.running(server, log):
        asyncio.run(turn())


def model_folder(model: str, cache: Path, load: Load) -> Path:
    """Return a folder for all servers: the 134 M shape, or a trained model, without a token that ends answers."""
    folder = cache / ("llama-134m" if model == "134m" else f"{Path(model).name}-endless")
    if model != "134m":
        _write_endless(Path("runs/demo" if model == "demo" else model), folder)
    elif not (folder / "hanlin.json").exists():
        _write_134m(folder)
    context = bundle.read_config(folder).context
    if load.prompt + load.answer > context:
        raise SystemExit(
            f"{folder}: a context of {context} has no room for {load.prompt} tokens and {load.answer} more"
        )
    return folder


def _write_134m(folder: Path) -> None:
    """Write random weights in bf16 and a tokenizer of made-up words.

    Bytes and special tokens never win: each token of an answer is whole text, and can be streamed at once.
    """
    words = random.Random(0)
    syllables = [f"{a}{b}" for a in "bcdfghjklmnpqrstvwxz" for b in "aeiou"]
    text = ("".join(words.choices(syllables, k=3)) for _ in range(400_000))
    learned = train_bpe([" ".join(islice(text, 1000)) for _ in range(400)], SIZES.vocab)
    model = SIZES.build(seed=0)
    assert model.head is not None
    with torch.no_grad():
        model.head.weight[:SMALLEST] = 0
    bundle.write(folder, model.to(torch.bfloat16), Tokenizer(learned.raw, Special(bos=learned.special.bos), {}))


def _write_endless(source: Path, folder: Path) -> None:
    """Write a model again with a tokenizer that names nothing but BOS."""
    opened = bundle.read(source, dtype=torch.bfloat16)
    tokenizer = opened.tokenizer
    bundle.write(folder, opened.model, Tokenizer(tokenizer.raw, Special(bos=tokenizer.special.bos), {}))


def prompts(tokenizer: Tokenizer, tokens: int, seed: int) -> Iterator[str]:
    """Yield texts of exactly so many tokens, ever different: words of ASCII letters, which every server cuts alike."""
    draw = random.Random(seed)
    spelled = (tokenizer.token(id) for id in range(tokenizer.vocab))
    words = [token[1:] for token in spelled if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha()]
    while True:
        chosen = draw.choices(words, k=tokens)
        while len(tokenizer.encode(" ".join(chosen)).ids) > tokens:
            chosen.pop()
        if len(tokenizer.encode(" ".join(chosen)).ids) == tokens:
            yield " ".join(chosen)


def report(found: Mapping[tuple[str, int], Summary]) -> str:
    """Return the table, and under it what failed and what the clients themselves needed."""
    in_order = sorted(found.items(), key=lambda item: item[0][1])  # by clients
    lines = [_line(name, clients, each, found) for (name, clients), each in in_order]
    told = [
        f"{name}, {clients} clients: {count} of {each.asked} failed: {problem}"
        for (name, clients), each in found.items()
        for problem, count in each.problems.items()
    ]
    most = max((each.cpu for each in found.values()), default=0.0)
    told.append(f"the clients themselves took at most {most:.0%} of one core")
    return "\n".join([rows(HEADINGS, lines), "", *(f"- {each}" for each in told)])


def _line(name: str, clients: int, each: Summary, found: Mapping[tuple[str, int], Summary]) -> list[object]:
    """Return one row of the table."""
    alone, ours = found.get((name, 1)), found.get((OURS, clients))
    return [
        clients,
        name,
        f"{each.rate:.0f} ({each.rates[0]:.0f} to {each.rates[1]:.0f})",
        f"{each.rate / alone.rate:.2f} x" if alone else "",
        f"{ours.rate / each.rate:.2f} x" if ours else "",
        f"{each.wait50 * 1e3:.0f} ms",
        f"{each.wait95 * 1e3:.0f} ms",
        f"{each.pace * 1e3:.1f} ms",
        f"{each.slowest:.2f} x",
        f"{each.problems.total()} of {each.asked}",
    ]


def _versions() -> str:
    """Return which peers these are."""
    return f"llama.cpp of {peers.SOURCES}, transformers {importlib.metadata.version('transformers')}"


def _options() -> argparse.Namespace:
    """Return what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.split("\n")[0])

    def counts(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser.add_argument("--model", default="134m", help="134m, demo (the folder runs/demo), or a Llama's folder")
    parser.add_argument("--peers", type=names, default=DEFAULT, help=f"of {', '.join(list(KINDS)[1:])}")
    parser.add_argument("--clients", type=counts, default=[1, 8, 32], help="how many ask at the same time: 1,8,32")
    parser.add_argument("--requests", type=int, default=2, help="how often each of many clients asks in a round")
    parser.add_argument("--passes", type=int, default=3, help="how often all servers take their turn")
    parser.add_argument("--prompt", type=int, default=128, help="tokens in")
    parser.add_argument("--answer", type=int, default=64, help="tokens out")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of each server")
    parser.add_argument("--timeout", type=float, default=300, help="seconds of silence that make a failure")
    parser.add_argument("--cache", type=Path, default=Path("build/serve"), help="where models and peers are kept")
    options = parser.parse_args()
    unknown = sorted(set(options.peers) - set(KINDS))
    if unknown:
        parser.error(f"no peer '{unknown[0]}'; there are {', '.join(list(KINDS)[1:])}")
    return options


if __name__ == "__main__":
    main()
