"""For every text, and for every list of ids: what goes in comes out, whole or piece by piece."""

from __future__ import annotations

import string

import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, processors

from hanlin.text.tokenizer import Special, Tokenizer, byte_level, characters, train_bpe, train_unigram

SEEN = "The dog doesn't sleep. 翰林学士教书 中文 and English 365 한국어 é ê "
OURS = [train_bpe([SEEN] * 4, 330), characters([SEEN]), byte_level(), train_unigram([SEEN] * 4, 330)]

texts = (
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.text(SEEN + "<|eos|>▁\u0301\u200d👩❤️", max_size=60)
    | st.lists(
        st.sampled_from(["<|bos|>", "<|unk|>", "<0x41>", "<0xE9>", "<", "|>", " ", "dog", "翰"]), max_size=8
    ).map("".join)
)
quick = settings(max_examples=100, deadline=None, database=None, derandomize=True)


def llama() -> Tokenizer:
    """A tokenizer like Llama 2's: ▁ for spaces, one put before the text, bytes for what is not in the vocabulary."""
    pieces = ["▁", *string.ascii_lowercase, *".,'", "翰", "林", "▁t", "▁th", "▁the", "do", "dog", "▁▁", "<0x", ">"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("d", "o"), ("do", "g"), ("▁", "▁")]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    vocab = {token: id for id, token in enumerate(tokens)}
    raw = tokenizers.Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens(["<unk>", "<s>", "</s>"])
    raw.encode_special_tokens = True
    raw.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B:1", special_tokens=[("<s>", 1)]
    )
    return Tokenizer(raw, Special(bos=1, eos=2, unk=0), {})


def others() -> list[Tokenizer]:
    """Tokenizers whose decoders are more than a table of bytes."""
    words = ["[UNK]", "[CLS]", "[SEP]", "the", "dog", "##s", "##leep", "n't", "'", "t", ".", ",", "翰", "##林"]
    bytes_of = [f"<0x{byte:02X}>" for byte in "好a".encode()]
    made = [
        (words, decoders.WordPiece()),
        (["[UNK]", "▁the", "▁", "s", "▁dog"], decoders.Metaspace()),
        (["[UNK]", *bytes_of, "▁the", "▁"], decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])),
        (["[UNK]", "the</w>", "do", "g</w>", "s"], decoders.BPEDecoder()),
        (["[UNK]", "the", "dog"], None),
    ]
    found = []
    for tokens, decoder in made:
        raw = tokenizers.Tokenizer(models.WordLevel({token: id for id, token in enumerate(tokens)}))
        if decoder is not None:
            raw.decoder = decoder
        raw.add_special_tokens(["[UNK]"])
        found.append(Tokenizer(raw, Special(unk=0), {}))
    return found


LLAMA = llama()
OTHERS = others()


def streamed(tokenizer: Tokenizer, ids: list[int], special: bool) -> list[str]:
    """Return the pieces that a stream gives."""
    stream = tokenizer.stream(special=special)
    return [*map(stream.push, ids), stream.finish()]


@quick
@given(texts)
def test_every_text_comes_back(text):
    """Guards against any character that a tokenizer of ours loses or changes."""
    for tokenizer in OURS:
        ids = tokenizer.document(text)
        assert tokenizer.decode(ids) == tokenizer.raw.decode(ids) == text
        assert "".join(streamed(tokenizer, ids, False)) == text


@quick
@given(texts)
def test_no_piece_of_a_stream_is_broken(text):
    """Guards against half characters at token edges."""
    text = text.replace("\N{REPLACEMENT CHARACTER}", "")
    for tokenizer in [*OURS, LLAMA]:
        assert "\N{REPLACEMENT CHARACTER}" not in "".join(streamed(tokenizer, tokenizer.document(text), False))


@quick
@given(texts)
def test_offsets_tile_every_text(text):
    """Guards against offsets in bytes, and against gaps between tokens."""
    for tokenizer in OURS:
        offsets = tokenizer.encode(text).offsets[1:]
        assert {place for start, end in offsets for place in range(start, end)} == set(range(len(text)))
        assert list(offsets) == sorted(offsets)


@quick
@given(texts)
def test_special_ids_never_come_from_text(text):
    """Guards against text that becomes control ids."""
    for tokenizer in OURS:
        special = set(tokenizer.raw.get_added_tokens_decoder())
        assert special.isdisjoint(tokenizer.encode(text).ids[1:])


@quick
@given(texts)
def test_llama_decodes_as_the_library_does(text):
    """Guards against the leading space kept or lost, and against byte tokens shown as their names."""
    ids = LLAMA.encode(text).ids
    assert LLAMA.decode(ids) == LLAMA.raw.decode(ids) == text.replace("▁", " ")
    assert LLAMA.decode(ids, special=True) == LLAMA.raw.decode(ids, skip_special_tokens=False)


@quick
@example([260, 259, 261], False)  # Llama's 'a', '▁', 'b': only a text's first space is dropped
@given(st.lists(st.integers(-2, 340) | st.integers(0, 2), max_size=30), st.booleans())
def test_pieces_joined_are_the_whole_for_any_ids(ids, special):
    """Guards against a stream that differs from the answer, for ids that no text would give."""
    for tokenizer in [*OURS, LLAMA]:
        assert "".join(streamed(tokenizer, ids, special)) == tokenizer.decode(ids, special=special)


@quick
@given(st.lists(st.integers(0, 329), max_size=30), st.booleans())
def test_byte_level_decodes_any_ids_as_the_library_does(ids, special):
    """Guards against another count of broken characters than everybody else shows."""
    for tokenizer in (OURS[0], OURS[2]):
        known = [id for id in ids if id < tokenizer.vocab]
        assert tokenizer.decode(known, special=special) == tokenizer.raw.decode(known, skip_special_tokens=not special)


@quick
@given(st.lists(st.integers(-1, 14), max_size=30), st.booleans())
def test_other_decoders_stream_what_they_decode(ids, special):
    """Guards against spaces lost or doubled where a word's spelling depends on its neighbours."""
    for tokenizer in [*OTHERS[:2], *OTHERS[3:]]:
        assert "".join(streamed(tokenizer, ids, special)) == tokenizer.decode(ids, special=special)


@quick
@given(st.lists(st.sampled_from([[1, 2, 3], [4], [5], [6], [0]]), max_size=20), st.booleans())
def test_other_decoders_hold_a_broken_character(groups, special):
    """Guards against a character of three byte tokens shown as three broken ones."""
    ids = [id for group in groups for id in group]
    pieces = streamed(OTHERS[2], ids, special)
    assert "".join(pieces) == OTHERS[2].decode(ids, special=special)
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
