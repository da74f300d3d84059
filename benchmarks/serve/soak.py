"""A server left on: the real process under mixed load, and whether anything in it grows.

python -m benchmarks.serve.soak [--seconds 600] [--clients 8]

    warm-up ─ tenth 1 │ tenth 2 │ … │ tenth 10        resident memory, open files, threads: a sample a second
                        └ median ─── compared ─┘ median

The clients ask for completions, streams and chats, leave in the middle, send nonsense, and come with wrong keys. It
ends with status 1 where something grew, or an answer was a 5xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx

from benchmarks.table import heading, rows
from hanlin import bundle
from hanlin.models import llama
from hanlin.text.tokenizer import Special, Tokenizer, byte_level

KEY = "sk-of-the-soak-0123456789"
SIZES = llama.Config(vocab=261, dim=64, layers=2, heads=4, hidden=128, context=256)
TEMPLATE = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
_DRAW = random.Random(0)
# Ever the same: `tokenizers` keeps the pieces of 10,000 words, some 4 KB each, and new ones would look like a leak.
TEXTS = ["".join(_DRAW.choices("abcdefgh 床前明月光", k=_DRAW.randrange(1, 80))) for _ in range(200)]
SHARE = 0.02  # of resident memory that may be gained
SOME_BYTES = 5 * 2**20  # or this much, where it is more


class Sample(NamedTuple):
    """What the process holds at one moment."""

    seconds: float
    resident: int  # bytes
    files: int
    threads: int


def main() -> None:
    """Load the server, and print what it held at the beginning and at the end."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=float(os.environ.get("HANLIN_SOAK_S", "600")))
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder) / "soak")
        with _server(Path(folder) / "soak") as (process, url):
            samples, statuses = asyncio.run(soak(process.pid, url, options.seconds, options.clients, options.seed))
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    print(heading("A server left on", f"python -m benchmarks.serve.soak --seconds {options.seconds:g}"))
    print(report(samples, statuses))
    found = problems(samples, statuses) + ([] if code == 0 else [f"the server ended with status {code}"])
    print("\n".join(f"- {each}" for each in found or ["nothing grew"]))
    sys.exit(bool(found))


async def soak(pid: int, url: str, seconds: float, clients: int, seed: int) -> tuple[list[Sample], Counter[str]]:
    """Keep clients busy for so many seconds; return what the process held every second, and the statuses that came."""
    began = time.monotonic()
    statuses: Counter[str] = Counter()
    samples: list[Sample] = []

    async def client(number: int) -> None:
        draw = random.Random(f"{seed} {number}")
        while time.monotonic() - began < seconds:
            async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
                for _ in range(draw.randrange(1, 30)):  # then a new connection
                    statuses[await _act(http, draw)] += 1

    async def watch() -> None:
        while time.monotonic() - began < seconds:
            samples.append(sample(pid, time.monotonic() - began))
            await asyncio.sleep(min(1.0, seconds / 100))

    await asyncio.gather(watch(), *(client(number) for number in range(clients)))
    return samples, statuses


async def _act(http: httpx.AsyncClient, draw: random.Random) -> str:
    """Do one thing that clients do, and say what came of it."""
    path, body = _request(draw)
    key = KEY if draw.random() < 0.97 else "sk-somebody-else"
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    data = json.dumps(body).encode()
    if draw.random() < 0.1:
        data = data[: draw.randrange(len(data))]
    leaves = draw.random() < 0.15
    try:
        if leaves and not body.get("stream"):
            async with asyncio.timeout(draw.random() * 0.05):
                await http.post(path, content=data, headers=headers)
        async with http.stream("POST", path, content=data, headers=headers) as reply:
            async for _ in reply.aiter_bytes():
                if leaves and draw.random() < 0.3:
                    return "left"
        return str(reply.status_code)
    except TimeoutError:
        return "left"


def _request(draw: random.Random) -> tuple[str, dict[str, object]]:
    """Return a path and a body, valid or not."""
    body: dict[str, object] = {
        "model": draw.choice(["soak"] * 20 + ["sock"]),
        "max_tokens": draw.choice([1, 8, 32, 100, 100_000]),
        "temperature": draw.choice([0, 0.8, 1, 7]),
        "n": draw.choice([1, 1, 2, 4]),
        "stream": draw.random() < 0.5,
        "stop": draw.choice([None, ["e", "zz"]]),
        "presence_penalty": draw.choice([0, 1]),
    }
    text = draw.choice(TEXTS)
    if draw.random() < 0.3:
        return "/v1/chat/completions", {**body, "messages": [{"role": "user", "content": text}]}
    return "/v1/completions", {**body, "prompt": text, "logprobs": draw.choice([None, None, 3])}


def sample(pid: int, seconds: float) -> Sample:
    """Return what a process holds now, as the kernel says."""
    status = Path(f"/proc/{pid}/status").read_text()
    said = {
        name: value.split()[0]
        for name, _, value in (line.partition(":") for line in status.splitlines())
        if value.strip()
    }
    files = len(os.listdir(f"/proc/{pid}/fd"))
    return Sample(seconds, int(said["VmRSS"]) * 1024, files, int(said["Threads"]))


def tenth(samples: Sequence[Sample], number: int) -> Sample:
    """Return the medians of one tenth of the samples, counted from 1."""
    size = max(1, len(samples) // 10)
    part = samples[(number - 1) * size : number * size] if number < 10 else samples[-size:]
    return Sample(*(statistics.median(values) for values in zip(*part)))  # type: ignore[arg-type]


def problems(samples: Sequence[Sample], statuses: Mapping[str, int]) -> list[str]:
    """Return what grew between the second tenth and the last, and what should not have come."""
    before, after = tenth(samples, 2), tenth(samples, 10)
    found = [f"{count} answers {status}" for status, count in statuses.items() if status.startswith("5")]
    if after.resident - before.resident > max(SHARE * before.resident, SOME_BYTES):
        found.append(f"resident memory grew from {before.resident / 2**20:.1f} to {after.resident / 2**20:.1f} MiB")
    if after.files > before.files + 4:  # connections that happen to be open
        found.append(f"open files grew from {before.files:.0f} to {after.files:.0f}")
    if after.threads > before.threads + 2:
        found.append(f"threads grew from {before.threads:.0f} to {after.threads:.0f}")
    return found


def report(samples: Sequence[Sample], statuses: Mapping[str, int]) -> str:
    """Return a table of the tenths, and under it how many answers of which status came."""
    lines = [
        (
            number,
            f"{each.seconds:.0f} s",
            f"{each.resident / 2**20:.1f} MiB",
            f"{each.files:.0f}",
            f"{each.threads:.0f}",
        )
        for number, each in ((number, tenth(samples, number)) for number in range(1, 11))
    ]
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    return rows(("tenth", "at", "resident", "files", "threads"), lines) + f"\n\nanswers: {counts}\n"


def _write(folder: Path) -> None:
    """Write a small model that can chat."""
    raw = byte_level().raw
    raw.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    bundle.write(folder, SIZES.build(seed=0), Tokenizer(raw, Special(bos=0, eos=raw.token_to_id("<|im_end|>")), {}))
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


@contextmanager
def _server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run the real command; its log goes to a file that nobody reads."""
    words = ["serve", str(folder), "--port", "0", "--slots", "8", "--queue", "4", "--threads", "1"]
    with open(folder / "log", "w+", encoding="utf-8") as log:
        environment = {**os.environ, "HANLIN_API_KEY": KEY, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", "hanlin", *words], stdout=log, stderr=log, env=environment, text=True
        )
        try:
            yield process, _url(process, folder / "log")
        finally:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[str], log: Path) -> str:
    """Return where the server says it listens."""
    for _ in range(600):
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("serving "):
                return line.rpartition(" at ")[2].removesuffix("/v1")
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the server does not start:\n{log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    main()
