"""Beam search gives the tokens and scores of transformers' `generate(num_beams=…)`, for every option both have."""

from __future__ import annotations

import importlib.util
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from hanlin import bundle
from hanlin.batch import Layout, Tokens
from hanlin.generate.beam import Beam, search

pytestmark = pytest.mark.parity

VOCAB, STOP, LIMIT = 40, 1, 14
CASES = {
    "plain": ({}, {}),
    "long": ({"length_penalty": 2.0, "early_stopping": "never"}, {"length_penalty": 2.0, "early": "never"}),
    "short": ({"length_penalty": -1.0}, {"length_penalty": -1.0}),
    "sums": ({"length_penalty": 0.0, "early_stopping": "never"}, {"length_penalty": 0.0, "early": "never"}),
    "early": ({"early_stopping": True}, {"early": True}),
    "least": ({"min_new_tokens": 6}, {"least": 6}),
    "no repeat": ({"no_repeat_ngram_size": 2}, {"no_repeat": 2}),
    "forced": ({"forced_eos_token_id": STOP}, {"last": STOP}),
    "suppressed first": (
        {"begin_suppress_tokens": [*range(20)]},
        {"suppress_first": tuple(range(20))},
    ),
    "suppressed": ({"suppress_tokens": [3, 4, 5, 6]}, {"suppress": (3, 4, 5, 6)}),
}
WIDTHS = (2, 5)


def random_weights(model, seed=0):
    """Fill every parameter, so wide that nothing ties, and make the stop id likely enough to come early."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, each in model.named_parameters():
            wide = 0.3 if each.ndim == 1 else 0.45
            each.copy_(torch.randn(each.shape, generator=generator) * wide + ("norm" in name or "ln_" in name))
    return model.eval()


def llama():
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config)


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=None, eos_token_id=None
        )
    )


def t5():
    config = T5Config(
        vocab_size=VOCAB, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, dropout_rate=0.0,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=STOP, tie_word_embeddings=True,
    )  # fmt: skip
    return T5ForConditionalGeneration(config)


def bart():
    config = BartConfig(
        vocab_size=VOCAB, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64, dropout=0.0,
        decoder_start_token_id=2, pad_token_id=0, bos_token_id=2, eos_token_id=STOP, forced_eos_token_id=None,
    )  # fmt: skip
    return BartForConditionalGeneration(config)


DECODERS = {"llama": llama, "gpt2": gpt2}
READERS = {
    name: make for name, make in {"t5": t5, "bart": bart}.items() if importlib.util.find_spec(f"hanlin.models.{name}")
}


def both(make, folder, seed=0):
    """Return transformers' model and ours of the same weights."""
    theirs = random_weights(make(), seed)
    theirs.save_pretrained(folder)
    return theirs, bundle.read_model(folder)


def likely_stop(model, prompts, memory=None):
    """Return the stop ids: those that the model finds likely somewhere, so that beams end at different times."""
    found = search(model, prompts, Beam(limit=LIMIT, beams=4), stop_ids=frozenset(), memory=memory)
    return sorted({each.ids[3 + each.prompt % 3] for each in found} | {STOP})


def compare(theirs, ours, prompts, stops, case, width, *, memory=None, **given):
    """Assert equal tokens and scores, n-best, for every prompt."""
    their_options, our_options = CASES[case]
    with torch.no_grad():
        out = theirs.generate(
            **given, **their_options, num_beams=width, num_return_sequences=width, max_new_tokens=LIMIT,
            do_sample=False, eos_token_id=stops, pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    beam = Beam(beams=width, n=width, limit=LIMIT, **our_options)
    found = search(ours, prompts, beam, stop_ids=frozenset(stops), memory=memory)
    assert len(found) == len(out.sequences)
    start = out.sequences.shape[1] - max(len(each.ids) for each in found)
    for each, row, score in zip(found, out.sequences[:, start:].tolist(), out.sequences_scores.tolist()):
        assert list(each.ids) == row[: len(each.ids)]
        assert each.score == pytest.approx(score, abs=1e-4)
    return found


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", DECODERS)
def test_decoders(name, case, width, tmp_path):
    """A score, penalty, stopping rule or reordering that is not theirs, for prompts of one length in one batch."""
    theirs, ours = both(DECODERS[name], tmp_path)
    prompts = torch.randint(2, VOCAB, (5, 4), generator=torch.Generator().manual_seed(2))
    rows = prompts.tolist()
    stops = likely_stop(ours, rows)
    mask = torch.ones_like(prompts)
    found = compare(theirs, ours, rows, stops, case, width, input_ids=prompts, attention_mask=mask)
    if case == "plain":
        assert len({len(each.ids) for each in found}) > 1, "they end at different times"


@pytest.mark.parametrize("name", DECODERS)
def test_prompts_of_different_length(name, tmp_path):
    """Padding on their left and on our right."""
    theirs, ours = both(DECODERS[name], tmp_path, seed=1)
    generator = torch.Generator().manual_seed(4)
    rows = [torch.randint(2, VOCAB, (size,), generator=generator).tolist() for size in (3, 7, 1, 5)]
    ids = torch.tensor([[0] * (7 - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (7 - len(row)) + [1] * len(row) for row in rows])
    stops = likely_stop(ours, rows)
    compare(theirs, ours, rows, stops, "plain", 4, input_ids=ids, attention_mask=mask)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", READERS)
def test_readers(name, case, width, tmp_path):
    """A memory that does not follow its beams; sources of different length."""
    theirs, ours = both(READERS[name], tmp_path)
    generator = torch.Generator().manual_seed(2)
    segments = (torch.arange(6) < torch.tensor([6, 3, 5, 2, 4])[:, None]).long()
    ids = torch.randint(2, VOCAB, (5, 6), generator=generator) * segments
    with torch.no_grad():
        memory = ours.encode(Tokens(ids=ids, layout=Layout.of(segments)))
    prompts = [[theirs.config.decoder_start_token_id]] * 5
    stops = likely_stop(ours, prompts, memory)
    compare(theirs, ours, prompts, stops, case, width, memory=memory, input_ids=ids, attention_mask=segments)
