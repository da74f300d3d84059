"""Bytes per token by file: tokenizers trained here on the training parts, beside GPT-2's and Llama-2's vocabularies.

python -m benchmarks.corpus.compression [--vocab 16384] [--megabytes 2]

HANLIN_DATA names the folder of data/ and models/.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import heading, rows
from hanlin.text.tokenizer import Tokenizer, train_bpe, train_unigram, train_wordpiece

LEARN = (  # training parts: half English, half Chinese
    ("lm/wiki_en/train.txt", "lm/brown/train.jsonl.gz", "lm/tinystories/train_v1.txt"),
    ("lm/zh_wiki/train.txt.gz", "lm/zh_poetry/train.jsonl.gz", "lm/zh_classics/*.train.txt.gz"),
)
SCORE = {  # file -> language; none of them was learnt from
    "lm/wiki_en/valid.txt": "English",
    "lm/wikitext2/valid.txt.gz": "English",
    "lm/tinystories/valid.jsonl": "English",
    "lm/zh_wiki/valid.txt": "Chinese",
    "lm/zh_poetry/valid.jsonl": "Chinese",
    "lm/zh_classics/hongloumeng.valid.txt": "Chinese",
}


def lines(path: Path) -> Iterator[str]:
    """Yield the texts of a file: its lines, or those inside its records."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    for line in data.decode().splitlines():
        record = json.loads(line) if ".jsonl" in path.name else {"text": line}
        yield record.get("text") or "\n".join(record.get("paragraphs", ()))


def corpus(data: Path, size_bytes: int) -> list[str]:
    """Return texts to learn from, an equal share of the bytes from every file."""
    found = []
    for patterns in LEARN:
        paths = [path for pattern in patterns for path in sorted(data.glob(pattern))]
        for path in paths:
            left = size_bytes / len(LEARN) / len(paths)
            for line in lines(path):
                if left > 0:
                    left -= len(line.encode())
                    found.append(line)
    return found


def rate(tokenizer: Tokenizer, texts: list[str]) -> str:
    """Return the bytes of texts a token, none added around them, and the share of unknown tokens if there are any."""
    encoded = [each.ids for each in tokenizer.raw.encode_batch_fast(texts, add_special_tokens=False)]
    tokens = sum(map(len, encoded))
    unknown = sum(ids.count(tokenizer.special.unk) for ids in encoded) if tokenizer.special.unk is not None else 0
    share = f" ({unknown / tokens:.2%} unknown)" if unknown else ""
    return f"{sum(len(text.encode()) for text in texts) / tokens:.2f}{share}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocab", type=int, default=16384)
    parser.add_argument("--megabytes", type=float, default=2.0)
    given = parser.parse_args()
    root = Path(os.environ.get("HANLIN_DATA", "../shared"))
    texts = corpus(root / "data", int(given.megabytes * 1e6))
    tokenizers = {
        "bpe": train_bpe(texts, given.vocab),
        "unigram": train_unigram(texts, given.vocab),
        "wordpiece": train_wordpiece(texts, given.vocab),
        "GPT-2": Tokenizer.load(root / "models/gpt2"),
        "Llama-2": Tokenizer.load(root / "models/llama2"),
    }
    made = f"--vocab {given.vocab} --megabytes {given.megabytes:g}"
    print(heading("Bytes a token", f"python -m benchmarks.corpus.compression {made}"))
    names = [f"{name}, {tokenizer.vocab:,}" for name, tokenizer in tokenizers.items()]
    found = []
    for file, language in SCORE.items():
        held = list(lines(root / "data" / file))
        found.append([file, language, *(rate(tokenizer, held) for tokenizer in tokenizers.values())])
    print(rows(["file", "language", *names], found))


if __name__ == "__main__":
    main()
