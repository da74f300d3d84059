"""Learning a WordPiece vocabulary as BERT's: words whole where they are frequent, else in pieces.

    "Hanlin, 翰林"  ──>  Han ##lin , 翰 林

arXiv:1810.04805; the pieces are those of BPE, as `tokenizers` trains it. It is lossy by design: which spaces stood in a
text, control characters, and words with a character never seen (they are [UNK] whole) do not come back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train(texts: Iterable[str], vocab: int, *, lowercase: bool = False) -> tokenizers.Tokenizer:
    """Learn at most `vocab` tokens; characters beyond half of them, the rarest, are not learnt."""
    raw = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK))
    raw.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece()
    raw.model = models.WordPiece(_learn(_count(raw, texts), vocab), unk_token=UNK, max_input_chars_per_word=100)
    raw.add_special_tokens(list(SPECIAL))
    ids = [(name, SPECIAL.index(name)) for name in (CLS, SEP)]
    raw.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B:1 {SEP}:1", special_tokens=ids
    )
    return raw


def _count(raw: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """Return how often each word occurs, as the model will see it."""
    spaced: Counter[str] = Counter()
    for text in texts:
        spaced.update(raw.normalizer.normalize_str(text).split())
    words: Counter[str] = Counter()
    for text, times in spaced.items():
        for word, _ in raw.pre_tokenizer.pre_tokenize_str(text):
            words[word] += times
    return words


def _learn(words: Counter[str], vocab: int) -> dict[str, int]:
    """Return the vocabulary: special tokens, characters inside words, characters, and what the trainer joins.

    Characters get their ids here: the trainer would number those inside words in the order of its hash table, and
    break ties by that.
    """
    often: Counter[str] = Counter()
    for word, times in words.items():
        for letter in word:
            often[letter] += times
    kept = set(sorted(often, key=lambda letter: (-often[letter], letter))[: (vocab - len(SPECIAL)) // 2])
    inside = sorted({letter for word in words for letter in word[1:]} & kept)
    raw = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[*SPECIAL, *(f"##{letter}" for letter in inside)],
        initial_alphabet=sorted(kept),
        limit_alphabet=len(kept),
        show_progress=False,
    )
    raw.train_from_iterator((" ".join([word] * times) for word, times in sorted(words.items())), trainer)
    return dict(json.loads(raw.to_str())["model"]["vocab"])
