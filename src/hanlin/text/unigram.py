"""Learning a Unigram vocabulary that loses no character of any text.

    corpus ──PATTERN──> words ──EM, pruned──> pieces with log-probabilities
    text   ──PATTERN──> words ──Viterbi────-> the likeliest pieces; <0xE9> ... for characters without one

arXiv:1804.10959, as `tokenizers` trains it. Spaces stay spaces, in the pieces: where SentencePiece writes ▁, a ▁ of the
text comes back as a space.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from hanlin.text.literal import BYTES

DIGITS = 6  # of a score that are kept: the trainer adds in the order of a hash table, which moves the fifteenth
STEP = 0.0001  # between the scores of characters that the trainer did not learn
SPARE = 0.1  # pieces asked for beyond what is kept: which of the last is better is settled here, not by that order


def train(texts: Iterable[str], vocab: int, *, special: Sequence[str], unk: str, pattern: str) -> tokenizers.Tokenizer:
    """Learn at most `vocab` tokens: the special ones, the bytes, and pieces of the words that the pattern finds.

    `unk` is the special token that the model must have and never gives: the bytes stand for what has no piece.
    """
    taken = [*special, *BYTES]
    room = vocab - len(taken)
    known = set(taken)
    pieces = [(piece, score) for piece, score in _learn(texts, room, pattern) if piece not in known][:room]
    entries = [(token, 0.0) for token in taken] + pieces
    raw = tokenizers.Tokenizer(models.Unigram(entries, taken.index(unk), True))
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return raw


def _learn(texts: Iterable[str], count: int, pattern: str) -> list[tuple[str, float]]:
    """Return at least `count` pieces, the likeliest first; fewer when the texts have no more."""
    held = list(texts)
    characters = len(set().union(*held))  # the trainer keeps each of them, and refuses a size that has no room for it
    raw = tokenizers.Tokenizer(models.Unigram())
    raw.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    trainer = trainers.UnigramTrainer(
        vocab_size=max(int(count * (1 + SPARE)), characters + min(characters, count)) + 1,
        show_progress=False,
        special_tokens=[],
        unk_token=None,
    )
    raw.train_from_iterator(held, trainer)
    found = {piece: round(score, DIGITS) for piece, score in json.loads(raw.to_str())["model"]["vocab"]}
    return sorted(_settled(found).items(), key=lambda each: (-each[1], each[0]))


def _settled(scores: dict[str, float]) -> dict[str, float]:
    """Return the scores with all characters that were kept without being learnt at the lowest.

    The trainer gives them the lowest score and a step more each, in the order of its hash table.
    """
    lowest = min(scores.values(), default=0.0)
    edge = lowest + STEP * sum(len(piece) == 1 for piece in scores)
    return {piece: lowest if len(piece) == 1 and score < edge else score for piece, score in scores.items()}
