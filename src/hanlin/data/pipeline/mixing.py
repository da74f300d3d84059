"""How often each document of the training split is shown, so that sources or languages have the shares asked for.

    weights   en 3, zh 1     or, where none are given, the tokens of each group
    shares    weight ^ temperature, over their sum           arXiv:1901.07291, section 3.1: 0.7 lifts small languages
    repeats   share / tokens, scaled so that nothing is left out, or so that the most is `most`

Four times the same text teach nearly as well as four times as much text, more do not (arXiv:2305.16264): so `most` is
4 where nobody says otherwise. A share of 2.3 repeats shows each document twice, and three in ten, chosen by a hash, a
third time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hanlin.config import Config
from hanlin.data.duplicates.shingles import mixed
from hanlin.data.pipeline import tokenizing
from hanlin.data.pipeline.parts import Part
from hanlin.data.pipeline.stage import TRAIN
from hanlin.data.tally import EXAMPLES, Tally
from hanlin.errors import ConfigError, nearest, problem

LEFT_OUT = "beyond its share of the mixture"


class Mix(Config):
    """What to mix, and how."""

    by: Literal["source", "language"] = "source"
    weights: Mapping[str, float] = {}
    temperature: float = 1.0
    most: float = 4.0


class Group(NamedTuple):
    """One source or language of the training split."""

    documents: int
    tokens: int
    share: float  # of the training tokens, asked for
    repeats: float  # how often a document is shown, on average
    shown: int  # documents in the shards
    shown_tokens: int


class Mixture(NamedTuple):
    """How often each document of each part is shown, by its number in the part, and the account of it."""

    times: tuple[NDArray[np.int64], ...]
    groups: Mapping[str, Group]


def name(source: str) -> str:
    """Return the group of a source: the folder directly below the corpus, or the file's name up to its first dot.

    >>> name("zh/wiki/a.jsonl:3"), name("tales.jsonl.gz:12")
    ('zh', 'tales')
    """
    first, slash, _ = source.partition("/")
    return first if slash else first.partition(".")[0]


def mixture(folder: str, parts: Sequence[Part], mix: Mix, seed: int, tally: Tally) -> Mixture:
    """Return how often to show each document; one that is not shown is counted in `tally`.

    ConfigError for weights that do not name exactly the groups that there are.
    """
    documents, tokens = dict[str, int](), dict[str, int]()
    for part in parts:
        for group, split, length, _ in _documents(folder, part, mix):
            if split == TRAIN:
                documents[group] = documents.get(group, 0) + 1
                tokens[group] = tokens.get(group, 0) + length
    shares, repeats = planned(tokens, mix)
    shown, shown_tokens = dict.fromkeys(tokens, 0), dict.fromkeys(tokens, 0)
    times = []
    for part in parts:
        counts, left, size = list[int](), list[str](), 0
        outline = tokenizing.outline(folder, part.number)
        for number, (group, split, length, draw) in enumerate(_documents(folder, part, mix, seed)):
            whole = int(repeats[group])
            count = whole + (draw < repeats[group] - whole) if split == TRAIN else 1
            counts.append(count)
            if split == TRAIN:
                shown[group] += count
                shown_tokens[group] += count * length
            if not count:
                left.append(outline.sources[number])
                size += int(outline.sizes[number])
        tally.take(LEFT_OUT, left[:EXAMPLES], len(left), size)
        times.append(np.array(counts, np.int64))
    groups = {
        each: Group(documents[each], tokens[each], shares[each], repeats[each], shown[each], shown_tokens[each])
        for each in sorted(tokens)
    }
    return Mixture(tuple(times), groups)


def planned(tokens: Mapping[str, int], mix: Mix) -> tuple[dict[str, float], dict[str, float]]:
    """Return the share of each group, and how often its documents are shown."""
    weights = _weights(tokens, mix)
    powers = {group: weight**mix.temperature if weight else 0.0 for group, weight in weights.items()}
    shares = {group: power / sum(powers.values()) for group, power in powers.items()}
    rates = {group: share / max(1, tokens[group]) for group, share in shares.items()}
    scale = min(1 / min(rate for rate in rates.values() if rate), mix.most / max(rates.values()))
    return shares, {group: round(rate * scale, 9) for group, rate in rates.items()}


def _weights(tokens: Mapping[str, int], mix: Mix) -> Mapping[str, float]:
    """Return the weight of each group, by default its tokens."""
    if not mix.weights:
        return tokens
    there = ", ".join(sorted(tokens))
    problems = [
        problem("mix", f"no {mix.by} '{each}'", f"there are: {there}", nearest(each, sorted(tokens)))
        for each in sorted(set(mix.weights) - set(tokens))
    ]
    problems += [
        problem("mix", f"no weight for '{each}'", do=f"add {each}=1, or {each}=0 to leave it out")
        for each in sorted(set(tokens) - set(mix.weights))
    ]
    if not problems and not any(mix.weights.values()):
        problems = [problem("mix", "every weight is 0", "one at least above 0")]
    if problems:
        raise ConfigError(*problems)
    return mix.weights


def _documents(folder: str, part: Part, mix: Mix, seed: int = 0) -> Iterator[tuple[str, int, int, float]]:
    """Yield group, split, tokens and a draw from [0, 1) of each document of a part."""
    found = tokenizing.outline(folder, part.number)
    digests = np.array([int(digest[:16], 16) for digest in found.digests], np.uint64)
    draws = (mixed(digests + np.uint64(seed)) >> np.uint64(11)) / 2**53
    names = [name(source) for source in found.sources] if mix.by == "source" else found.languages
    yield from zip(names, found.splits.tolist(), found.lengths.tolist(), draws.tolist(), strict=True)


def asked(told: str | None, temperature: float, by: Literal["source", "language"], repeats: float) -> Mix | None:
    """Return the mixture that is asked for, None where nothing is; ConfigError for choices about none."""
    if told is None and temperature == 1:
        alone = [name for name, given in (("mix_by", by != "source"), ("repeats", repeats != 4)) if given]
        if alone:
            raise ConfigError(*(problem(each, "without a mixture", do="add --mix or --temperature") for each in alone))
        return None
    return Mix(by=by, weights=parsed(told) if told else {}, temperature=temperature, most=repeats)


def parsed(text: str) -> dict[str, float]:
    """Return the weights in `name=weight,name=weight`; ConfigError where it says anything else."""
    found: dict[str, float] = {}
    problems = []
    for each in text.split(","):
        name, _, weight = each.strip().rpartition("=")
        try:
            value = float(weight)
        except ValueError:
            value = -1.0
        if not name or not 0 <= value < float("inf") or name in found:
            problems.append(problem("mix", f"'{each.strip()}'", "expected name=weight, each name once, weights from 0"))
        found[name] = value
    if problems:
        raise ConfigError(*problems)
    return found
