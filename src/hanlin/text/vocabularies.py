"""A tokenizer's folder of any kind: tokenizer.json, or the files models had before it.

    tokenizer.json                                          as it is (folder.py)
    *.model                                                 SentencePiece (sentencepiece.py)
    source.spm + vocab.json                                 Marian: how to cut, and the ids of both languages
    vocab.json + merges.txt, encoder.json + vocab.bpe       GPT-2, RoBERTa
    vocab.txt                                               BERT

The old files say how a text is cut, not what stands around it: that is the family's, which the companions
tokenizer_config.json (tokenizer_class) or config.json (model_type) name; where they are silent, the vocabulary tells.
A family that is not in the table is refused: some shift every id.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import processors

from hanlin.errors import TokenizerError, nearest, problem
from hanlin.text import folder as files
from hanlin.text import sentencepiece
from hanlin.text.folder import Found, Json
from hanlin.text.sentencepiece import Kind, Piece, added
from hanlin.text.stream import alphabet


@dataclass(frozen=True, kw_only=True)
class Family:
    """What a family of models puts around a text, as TemplateProcessing writes it, and the names of its tokens."""

    single: str = "$A"
    pair: str = "$A $B:1"
    names: Mapping[str, str] = field(default_factory=dict)  # roles that the well-known names do not tell


PLAIN = Family()
BERT = Family(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1")
T5 = Family(single="$A </s>", pair="$A </s> $B </s>")
ROBERTA = Family(
    single="<s> $A </s>",
    pair="<s> $A </s> </s> $B </s>",
    names={"bos": "<s>", "eos": "</s>", "unk": "<unk>", "sep": "</s>", "pad": "<pad>", "cls": "<s>", "mask": "<mask>"},
)
XLNET = Family(
    single="$A <sep> <cls>:2",
    pair="$A <sep> $B:1 <sep>:1 <cls>:2",
    names={
        "bos": "<s>",
        "eos": "</s>",
        "unk": "<unk>",
        "sep": "<sep>",
        "pad": "<pad>",
        "cls": "<cls>",
        "mask": "<mask>",
    },
)
PIECES = {  # families with a SentencePiece model
    **dict.fromkeys(("llama", "codellama", "mistral", "gemma"), PLAIN),
    **dict.fromkeys(("t5", "mt5", "umt5"), T5),
    "xlmroberta": ROBERTA,
    "xlnet": XLNET,
    "albert": BERT,
}
BOTH = {"marian": Family(single="$A </s>", pair="$A $B:1 </s>:1")}  # families with a vocabulary of two languages
PAIRS = {"gpt2": PLAIN, "roberta": ROBERTA, "bart": ROBERTA}  # families with a vocabulary and its merges
WORDS = dict.fromkeys(("bert", "distilbert", "electra"), BERT)  # families with a list of words
ANY = ("pretrained", "backend")  # classes of transformers that name no family
UNREACHED = "\ue000"  # a letter of nobody: before pieces that no text is cut into, and taken out of texts
UNKNOWN = 10.0  # SentencePiece's penalty for a letter that it does not know
EXTRA = 100  # T5's tokens <extra_id_99> to <extra_id_0>, after all others
MODELS = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")


def read(folder: Path) -> Found:
    """Read a tokenizer folder of any kind; TokenizerError with one line for every problem found."""
    if (folder / "tokenizer.json").is_file():
        return files.read(folder)
    config = files.companion(folder, "tokenizer_config.json")
    for find, convert in READERS:
        if found := find(folder):
            data, family = convert(found, config)
            data["added_tokens"] = _joined(data["added_tokens"], _told(folder, config))
            data["post_processor"] = _around(data, family)
            return files.opened(data, folder, found[0].name, family.names)
    raise TokenizerError(files.missing(folder))


def _told(folder: Path, config: Json) -> list[Json]:
    """Return the added tokens of the companions: chat models have some that their vocabulary lacks."""
    older = files.companion(folder, "added_tokens.json")
    found = [added(content, id) for content, id in older.items()]
    newer = config.get("added_tokens_decoder")
    for id, token in newer.items() if isinstance(newer, dict) else ():
        known = token if isinstance(token, dict) else {}
        flags = {key: known.get(key) is True for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        found.append({"id": int(id) if id.isdecimal() else id, "content": known.get("content"), **flags})
    if problems := files.check_added(found, "tokenizer_config.json or added_tokens.json"):
        raise TokenizerError(*(f"{folder}: {each}" for each in problems))
    return found


def _joined(own: list[Json], told: list[Json]) -> list[Json]:
    """Return both lists as one in the order of ids; what the companions tell of a token goes first."""
    tokens = {token["content"]: token for token in (*own, *told)}
    return sorted(tokens.values(), key=lambda token: int(token["id"]))


def _around(data: Json, family: Family) -> Json | None:
    """Return the rule that adds a family's tokens; those the vocabulary lacks are left out."""
    ids = {token["content"]: token["id"] for token in data["added_tokens"]}

    def there(template: str) -> str:
        parts = template.split()
        return " ".join(part for part in parts if part[0] == "$" or part.split(":")[0] in ids)

    used = [(token, id) for token, id in ids.items() if token in f"{family.single} {family.pair}"]
    made = processors.TemplateProcessing(single=there(family.single), pair=there(family.pair), special_tokens=used)
    return json.loads(made.__getstate__()) if used else None


def _family(folder: Path, config: Json, known: Mapping[str, Family]) -> str:
    """Return the family that the companions name, or an empty text; TokenizerError when its ids are not known."""
    given = config.get("tokenizer_class") or files.companion(folder, "config.json").get("model_type")
    name = str(given or "").removesuffix("Fast").removesuffix("Tokenizer").lower().replace("-", "").replace("_", "")
    if not name or any(part in name for part in ANY):
        return ""
    if name not in known:
        do = "transformers' AutoTokenizer, then save_pretrained, writes a tokenizer.json"
        allowed = f"known with these files: {', '.join(sorted(known))}"
        raise TokenizerError(
            problem(f"{folder}: tokenizer_class", f"{given!r}"[:80], allowed, nearest(name, known), do)
        )
    return name


def _find_model(folder: Path) -> list[Path]:
    """Return the SentencePiece model of a folder: by its usual name, or the only one."""
    usual = [folder / name for name in MODELS if (folder / name).is_file()]
    others = sorted(path for path in folder.glob("*.model") if path.is_file()) if not usual else []
    return usual[:1] or (others if len(others) == 1 else [])


def _from_model(found: Sequence[Path], config: Json) -> tuple[Json, Family]:
    """Return the tokenizer.json of a SentencePiece model and its family, told by the pieces where nobody says it."""
    path = found[0]
    model = sentencepiece.read(files.content(path), str(path))
    tokens = {piece.text for piece in model.pieces if piece.kind != Kind.NORMAL}
    name = _family(path.parent, config, PIECES)
    if not name and path.name == "sentencepiece.bpe.model":
        name = "xlmroberta"
    if name == "xlmroberta":
        model = fairseq(model)
    data = sentencepiece.rules(model)
    if PIECES.get(name) is T5:
        first = len(model.pieces)
        data["added_tokens"] += [added(f"<extra_id_{EXTRA - 1 - n}>", first + n) for n in range(EXTRA)]
    if name not in PIECES and {"<cls>", "<sep>"} <= tokens:
        name = "xlnet"
    if name not in PIECES and {"[CLS]", "[SEP]"} <= tokens:
        name = "albert"
    if name not in PIECES and [piece.text for piece in model.pieces[:2]] == ["<pad>", "</s>"]:
        name = "t5"
    family = PIECES.get(name, PLAIN)
    return data, _framed(tokens, config) if family is PLAIN else family


def _find_marian(folder: Path) -> list[Path]:
    """Return Marian's model that cuts a source, and the vocabulary of both languages."""
    found = [folder / "source.spm", folder / "vocab.json"]
    return found if all(path.is_file() for path in found) else []


def _from_marian(found: Sequence[Path], config: Json) -> tuple[Json, Family]:
    """Return the tokenizer.json of a vocabulary of two languages whose texts are cut as the first one's.

    What the target alone has can be written and is not found in a text, but for single letters, which SentencePiece
    leaves as they are where it does not know them. A language code (`>>fra<<`) is found anywhere.
    """
    path, words = found
    _family(path.parent, config, BOTH)
    model, ids = sentencepiece.read(files.content(path), str(path)), files.load(words)
    problems = []
    if model.algorithm != sentencepiece.Algorithm.UNIGRAM:
        problems.append(problem(f"{path}: model_type", f"{int(model.algorithm)}", "1 (unigram)"))
    if config.get("separate_vocabs"):
        problems.append(problem(f"{path.parent}: separate_vocabs", "true", "one vocabulary of both languages"))
    if sorted(map(repr, ids.values())) != sorted(map(repr, range(len(ids)))):
        problems.append(problem(str(words), "ids that are doubled or left out", f"0 to {len(ids) - 1:,}, once each"))
    problems += [
        problem(str(words), f"no {token}", "</s> and <unk>") for token in ("</s>", "<unk>") if token not in ids
    ]
    if problems:
        raise TokenizerError(*problems)
    known = {piece.text: piece for piece in model.pieces if piece.kind in (Kind.NORMAL, Kind.USER)}
    least = min((piece.score for piece in known.values()), default=0.0)
    kinds = {"<unk>": Kind.UNKNOWN, **dict.fromkeys(("<s>", "</s>", "<pad>"), Kind.CONTROL)}
    codes = {text: None for text in ids if text.startswith(">>") and text.endswith("<<")}  # an ordered set

    def piece(text: str) -> Piece:
        if text in kinds:
            return Piece(text, kind=kinds[text])
        found = text in codes or len(text) == 1
        return known.get(text) or Piece(text if found else UNREACHED + text, least - UNKNOWN)

    order = sorted(ids, key=ids.__getitem__)
    data = sentencepiece.rules(dataclasses.replace(model, pieces=tuple(map(piece, order))))
    data["normalizer"]["normalizers"].insert(0, sentencepiece.replaced(String=UNREACHED, by=""))
    data["decoder"]["decoders"].insert(0, sentencepiece.replaced(String=UNREACHED, by=""))
    data["added_tokens"] += [{**added(text, ids[text]), "special": False} for text in codes]
    return data, BOTH["marian"]


def fairseq(model: sentencepiece.Model) -> sentencepiece.Model:
    """Return XLM-R's order of a model's pieces: its own four special tokens, all but the first three, and <mask>."""
    control = [Piece("<s>", kind=Kind.CONTROL), Piece("<pad>", kind=Kind.CONTROL), Piece("</s>", kind=Kind.CONTROL)]
    unknown = Piece("<unk>", kind=Kind.UNKNOWN)
    pieces = (*control, unknown, *model.pieces[3:], Piece("<mask>", kind=Kind.CONTROL))
    return dataclasses.replace(model, pieces=pieces)


def _framed(tokens: set[str], config: Json) -> Family:
    """Return Llama's family: BOS before every text and no EOS after it, unless the companion says otherwise."""
    bos = next((name for name in ("<s>", "<bos>") if name in tokens), None)
    eos = next((name for name in ("</s>", "<eos>") if name in tokens), None)
    before = f"{bos} " if bos and config.get("add_bos_token", True) else ""
    after = f" {eos}" if eos and config.get("add_eos_token", False) else ""
    return Family(
        single=f"{before}$A{after}",
        pair=f"{before}$A{after} {before.replace(' ', ':1 ')}$B:1{after and after + ':1'}",
    )


def _find_pair(folder: Path) -> list[Path]:
    """Return GPT-2's vocabulary and merges, by their names at Hugging Face or at OpenAI."""
    for names in (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")):
        if all((folder / name).is_file() for name in names):
            return [folder / name for name in names]
    return []


def _from_pair(found: Sequence[Path], config: Json) -> tuple[Json, Family]:
    """Return the tokenizer.json of a byte-level vocabulary and its merges."""
    path, merges = found
    vocab = files.load(path)
    lacking = [letter for letter in alphabet() if letter not in vocab]
    if lacking:
        given = f"no token for {len(lacking)} of the 256 bytes"
        raise TokenizerError(problem(str(path), given, "a byte-level vocabulary, as GPT-2's"))
    family = _family(path.parent, config, PAIRS) or ("roberta" if {"<s>", "</s>", "<mask>"} <= vocab.keys() else "gpt2")
    special = [name for name in ("<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>") if name in vocab]
    space = config.get("add_prefix_space", False) is True
    level = {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": True}
    lines = files.content(merges).decode(errors="replace").split("\n")
    pairs = [line.rstrip("\r").split(" ") for line in lines if line.strip() and not line.startswith("#version")]
    return {
        "version": "1.0",
        "added_tokens": [added(name, vocab[name]) for name in special],
        "normalizer": None,
        "pre_tokenizer": level,
        "decoder": {**level, "add_prefix_space": True},
        "model": {"type": "BPE", "vocab": vocab, "merges": pairs},
    }, PAIRS[family]


def _find_words(folder: Path) -> list[Path]:
    """Return BERT's list of words."""
    return [folder / "vocab.txt"] if (folder / "vocab.txt").is_file() else []


def _from_words(found: Sequence[Path], config: Json) -> tuple[Json, Family]:
    """Return the tokenizer.json of BERT's vocabulary; who does not say so is cased when a word has a capital letter."""
    path = found[0]
    family = _family(path.parent, config, WORDS) or "bert"
    words = [line.rstrip("\r") for line in files.content(path).decode(errors="replace").rstrip("\n").split("\n")]
    vocab = {word: id for id, word in enumerate(words)}
    if "[UNK]" not in vocab:
        raise TokenizerError(problem(str(path), "no [UNK]", "a word a line, as BERT's"))
    special = [name for name in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if name in vocab]
    cased = any("A" <= word[:1] <= "Z" for word in vocab)
    return {
        "version": "1.0",
        "added_tokens": [added(name, vocab[name]) for name in special],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": config.get("tokenize_chinese_chars", True) is not False,
            "strip_accents": config.get("strip_accents") if isinstance(config.get("strip_accents"), bool) else None,
            "lowercase": bool(config.get("do_lower_case", not cased)),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocab,
        },
    }, WORDS[family]


Find = Callable[[Path], list[Path]]
Convert = Callable[[Sequence[Path], Json], tuple[Json, Family]]
READERS: tuple[tuple[Find, Convert], ...] = (
    (_find_marian, _from_marian),
    (_find_model, _from_model),
    (_find_pair, _from_pair),
    (_find_words, _from_words),
)
