"""Text to token ids and back, one way for training, scoring and serving.

    text ──encode──> Encoding(ids, offsets, words, kinds, truncated)        what the file's post-processor adds is added
    text ──document─> [BOS] ids [EOS]                                       what training and scoring see
    ids  ──decode, stream──> text                                           exact; never a broken character

    train_bpe(texts, vocab)         byte-level BPE                    arXiv:1508.07909, on bytes as in GPT-2
    train_unigram(texts, vocab)     the likeliest pieces, and bytes   arXiv:1804.10959
    train_wordpiece(texts, vocab)   BERT's, which keeps no spaces     arXiv:1810.04805
    characters(texts)               one token a character, bytes for characters never seen
    byte_level()                    one token a byte

The ids of a tokenizer made here begin with <|bos|> 0, <|eos|> 1, <|pad|> 2; WordPiece's with BERT's five. A user's text
that spells a special token is ordinary text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import tokenizers
from pydantic import Field
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers

from hanlin import config, files
from hanlin.errors import TokenizerError, problem
from hanlin.text import unigram, wordpiece
from hanlin.text.encoding import Encoding as Encoding
from hanlin.text.encoding import encoding, require_unicode
from hanlin.text.folder import MOST, TEMPLATE, Json, guarded
from hanlin.text.literal import protect
from hanlin.text.stream import Decoder, Stream, alphabet, decoder
from hanlin.text.vocabularies import read

BOS, EOS, PAD, UNK = "<|bos|>", "<|eos|>", "<|pad|>", "<|unk|>"
SMALLEST = 259  # the 256 bytes and three special tokens
CJK = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー"
WORD = rf"(?:[^\P{{L}}{CJK}]\p{{M}}*)+"  # letters of scripts that put spaces between words, with their marks
PATTERN = "|".join(
    (
        rf"(?:[{CJK}]\p{{M}}*)+",  # a run of Chinese or Japanese, never glued to Latin
        rf" ?{WORD}(?:['’]{WORD})?",  # a word and the space before it; "don't" is one
        r"\p{N}",  # a digit, alone, so that every number is spelled the same way (arXiv:2302.13971)
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",  # punctuation and symbols, and the end of their line
        r"\s*[\r\n]+(?: +(?= ))?",  # line ends and the indentation after them
        r"\s+(?!\S)|\s+",  # other white space, less the one space that belongs to the next word
    )
)


@dataclass(frozen=True, kw_only=True)
class Special:
    """Ids of the special tokens; None for one that the tokenizer does not have."""

    bos: int | None = None
    eos: int | None = None
    pad: int | None = None
    unk: int | None = None
    mask: int | None = None
    sep: int | None = None
    cls: int | None = None


class Tokenizer:
    """A tokenizer.json at work; it does not change once made, and may be shared by threads.

    >>> tokenizer = byte_level()
    >>> tokenizer.decode(tokenizer.encode("翰林").ids)
    '翰林'
    """

    def __init__(self, raw: tokenizers.Tokenizer, special: Special, settings: Json) -> None:
        """Keep the library's tokenizer, the special ids, and keys of tokenizer_config.json to write back."""
        self.raw = raw
        self.special = special
        self.settings = settings

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Read a folder with a tokenizer.json, or with the files that GPT-2, BERT or SentencePiece had before it.

        Padding and truncation stored in it are cleared.

        Special tokens are those that tokenizer_config.json or special_tokens_map.json name and the vocabulary has, or
        where both are silent the well-known ones.
        """
        found = read(Path(folder))
        special = Special(**{role: found.raw.token_to_id(name) for role, name in found.names.items()})
        return cls(found.raw, special, found.settings)

    def encode(self, text: str, pair: str | None = None, *, context: int | None = None, added: bool = True) -> Encoding:
        """Return the ids of a text, or of two, with what the post-processor adds, in at most `context` tokens.

        What does not fit is cut from the end of the longer text and counted in `truncated`; added tokens stay. With
        `added` false, nothing is added.
        """
        with guarded("text"):
            require_unicode(text, pair or "")
            return encoding(self.raw.encode(text, pair, add_special_tokens=added), context)

    def prompt(self, text: str) -> list[int]:
        """Return the ids of a text to be continued; nothing at all begins with BOS where there is one."""
        bos = self.special.bos
        return list(self.encode(text).ids) or ([] if bos is None else [bos])

    def encode_batch(self, texts: Sequence[str], *, context: int | None = None) -> list[Encoding]:
        """Return `encode` of every text, computed in parallel."""
        with guarded("text"):
            require_unicode(*texts)
            return [encoding(each, context) for each in self.raw.encode_batch(texts)]

    def document(self, text: str) -> list[int]:
        """Return the ids of a whole document, from BOS to EOS where the tokenizer has them; neither is doubled."""
        return self.documents([text])[0]

    def documents(self, texts: Sequence[str]) -> list[list[int]]:
        """Return `document` of every text, computed in parallel."""
        head, tail = self._frame
        with guarded("text"):
            require_unicode(*texts)
            encoded = self.raw.encode_batch_fast(texts, add_special_tokens=False)
        return [[*head, *each.ids, *tail] for each in encoded]

    def decode(self, ids: Iterable[int], *, special: bool = False) -> str:
        """Return the text of ids, special tokens left out unless asked for; bytes that are not UTF-8 become U+FFFD."""
        return self._decoder.decode(ids, special)

    def stream(self, *, special: bool = False) -> Stream:
        """Return a stream: the pieces that `push(id)` and `finish()` give, joined, are `decode` of all ids."""
        return self._decoder.stream(special)

    @cached_property
    def vocab(self) -> int:
        """Return how many ids a model needs: one more than the highest, added tokens included."""
        return max(self.raw.get_vocab(with_added_tokens=True).values()) + 1

    def token(self, id: int) -> str:
        """Return a token as the vocabulary writes it; TokenizerError when there is no such id."""
        found = self.raw.id_to_token(id) if 0 <= id < self.vocab else None
        if found is None:
            raise TokenizerError(problem(f"id {id}", "no such token", f"ids go from 0 to {self.vocab - 1}"))
        return found

    def bytes_of(self, id: int) -> bytes | None:
        """Return the bytes that a token stands for, None where the vocabulary does not say."""
        return self._decoder.bytes_of(id)

    def id(self, token: str) -> int | None:
        """Return the id of a token as the vocabulary writes it, or None."""
        return self.raw.token_to_id(token)

    @cached_property
    def hash(self) -> str:
        """Return the SHA-256 of the tokenizer.json, keys sorted and spaces left out."""
        data = json.dumps(json.loads(self.raw.to_str()), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(data.encode()).hexdigest()

    def save(self, folder: Path | str, *, context: int | None = None) -> None:
        """Write a folder that transformers' AutoTokenizer opens; `context` becomes its model_max_length."""
        names = {f"{role}_token": self.token(id) for role, id in asdict(self.special).items() if id is not None}
        settings = {
            **self.settings,
            **({"model_max_length": context} if context else {}),
            **names,
            "clean_up_tokenization_spaces": False,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
        template = settings.get("chat_template")
        with guarded(str(folder)):
            if isinstance(template, str):  # older files have it, or several of them, in their settings
                files.write(Path(folder) / TEMPLATE, settings.pop("chat_template").encode())
            files.write(Path(folder) / "tokenizer.json", self.raw.to_str(pretty=True).encode())
            files.write_json(Path(folder) / "tokenizer_config.json", settings)
            files.write_json(Path(folder) / "special_tokens_map.json", names)

    @cached_property
    def _decoder(self) -> Decoder:
        return decoder(self.raw)

    @cached_property
    def _frame(self) -> tuple[list[int], list[int]]:
        """Return what stands before and after a document: what the post-processor adds, and BOS and EOS."""
        added = self.raw.get_added_tokens_decoder()
        word = next((self.raw.id_to_token(id) for id in range(self.vocab) if id not in added), None) or "a"
        with guarded("tokenizer"):
            encoding = self.raw.encode(word)
        text = [place for place, which in enumerate(encoding.sequence_ids) if which is not None] or [0]
        head, tail = encoding.ids[: text[0]], encoding.ids[text[-1] + 1 :]
        bos, eos = self.special.bos, self.special.eos
        if bos is not None and bos not in head:
            head = [bos, *head]
        if eos is not None and eos not in tail:
            tail = [*tail, eos]
        return head, tail


def train_bpe(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Learn byte-level BPE of at most `vocab` tokens; the same texts give the same tokenizer.

    Fewer tokens come out when the texts have no more pairs that occur twice.
    """
    if vocab < SMALLEST:
        raise TokenizerError(problem("vocab", f"{vocab}", f"at least {SMALLEST}: 256 bytes and 3 special tokens"))
    raw = tokenizers.Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=2,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=sorted(alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(_unicode(texts), trainer)
    return _finished(raw)


def train_unigram(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Learn a Unigram vocabulary of at most `vocab` tokens, a token for each byte included; deterministic."""
    if vocab < SMALLEST + 2:
        allowed = f"at least {SMALLEST + 2}: 256 bytes, 4 special tokens and a piece"
        raise TokenizerError(problem("vocab", f"{vocab}", allowed))
    special = (BOS, EOS, PAD, UNK)
    return _finished(unigram.train(_unicode(texts), vocab, special=special, unk=UNK, pattern=PATTERN))


def train_wordpiece(texts: Iterable[str], vocab: int, *, lowercase: bool = False) -> Tokenizer:
    """Learn a WordPiece vocabulary of at most `vocab` tokens; deterministic. Texts do not come back whole."""
    raw = wordpiece.train(_unicode(texts), vocab, lowercase=lowercase)
    raw.encode_special_tokens = True
    protect(raw)
    return Tokenizer(raw, Special(pad=0, unk=1, cls=2, sep=3, mask=4), {})


def characters(texts: Iterable[str], *, fallback: bool = True) -> Tokenizer:
    """Make each character of the texts a token; others become their UTF-8 bytes or, without fallback, <|unk|>."""
    seen: set[str] = set()
    for text in _unicode(texts):
        seen.update(text)
    others = [f"<0x{byte:02X}>" for byte in range(256)] if fallback else [UNK]
    vocab = {token: id for id, token in enumerate([BOS, EOS, PAD, *others, *sorted(seen)])}
    model = models.BPE(vocab=vocab, merges=[], byte_fallback=fallback, unk_token=None if fallback else UNK)
    raw = tokenizers.Tokenizer(model)
    raw.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()]) if fallback else decoders.Fuse()
    return _finished(raw)


def byte_level() -> Tokenizer:
    """Make each byte a token: id 3 + byte."""
    places = {BOS: 0, EOS: 1, PAD: 2} | {letter: 3 + byte for letter, byte in alphabet().items()}
    raw = tokenizers.Tokenizer(models.BPE(vocab=places, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    return _finished(raw)


def _unicode(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        require_unicode(text)
        yield text


def _finished(raw: tokenizers.Tokenizer) -> Tokenizer:
    """Give a new tokenizer its special tokens and the BOS before every text."""
    names = [name for name in (BOS, EOS, PAD, UNK) if raw.token_to_id(name) is not None]
    raw.add_special_tokens(names)
    raw.encode_special_tokens = True
    raw.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B:1", special_tokens=[(BOS, 0)]
    )
    protect(raw)
    return Tokenizer(raw, Special(bos=0, eos=1, pad=2, unk=raw.token_to_id(UNK)), {})


class Config(config.Config):
    """Which tokenizer to make, or the folder of one that exists."""

    kind: Literal["bpe", "unigram", "wordpiece", "characters", "bytes"] = Field(
        "bpe", description="What a token is made of."
    )
    vocab: int = Field(
        8192, ge=SMALLEST, le=MOST, description="How many tokens bpe, unigram and wordpiece learn at most."
    )
    fallback: bool = Field(True, description="Whether characters never seen become bytes, rather than <|unk|>.")
    folder: str | None = Field(None, alias="from", description="A folder whose tokenizer is used as it is.")


def build(config: Config, texts: Iterable[str]) -> Tokenizer:
    """Return the tokenizer a config asks for; only bytes, and a folder's, read no texts."""
    if config.folder is not None:
        return Tokenizer.load(config.folder)
    if config.kind == "characters":
        return characters(texts, fallback=config.fallback)
    if config.kind == "bytes":
        return byte_level()
    train = {"bpe": train_bpe, "unigram": train_unigram, "wordpiece": train_wordpiece}[config.kind]
    return train(texts, config.vocab)
