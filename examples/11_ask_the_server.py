"""Serve a model in another process and let three people ask at once: python examples/11_ask_the_server.py."""

import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hanlin import bundle
from hanlin.models import llama
from hanlin.text.tokenizer import byte_level

KEY = "a-key-that-only-you-know"


def ask(address, route, **body):
    """Return what the server answers."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body else None
    with urllib.request.urlopen(urllib.request.Request(f"{address}/{route}", data, headers)) as answer:
        return json.load(answer)


def started(folder):
    """Return the server and its address."""
    command = [sys.executable, "-m", "hanlin", "serve", str(folder), "--port", "0"]
    environment = {**os.environ, "HANLIN_API_KEY": KEY}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    address = ""
    for line in server.stdout:
        address = next((word for word in line.split() if word.startswith("http://") and not address), address)
        if "Ctrl-C" in line:
            return server, address
    raise SystemExit("the server did not start")


def main(tokens=24, folder="runs/served"):
    """Write a fresh model (it knows nothing), serve it, ask for the same three times and for three others."""
    config = llama.Config(vocab=259, dim=64, layers=2, heads=4, hidden=128, context=256, tied=True)
    bundle.write(Path(folder), config.build(seed=0), byte_level())
    server, address = started(folder)
    try:
        name = ask(address, "models")["data"][0]["id"]
        print(f"{name} answers at {address}")
        prompts = ["To be", "or not", "翰林"]
        with ThreadPoolExecutor(3) as people:
            choice = {"model": name, "max_tokens": tokens, "seed": 1}
            together = list(people.map(lambda prompt: ask(address, "completions", prompt=prompt, **choice), prompts))
        alone = [ask(address, "completions", prompt=prompt, **choice) for prompt in prompts]
        for prompt, one, other in zip(prompts, together, alone):
            same = one["choices"][0]["text"] == other["choices"][0]["text"]
            print(f"{prompt!r}: {one['usage']['completion_tokens']} tokens; the same alone and in company: {same}")
    finally:
        server.terminate()
        server.communicate(timeout=60)


if __name__ == "__main__":
    main()
