"""Beam search: what the best answers are, whoever else is in the batch."""

import itertools

import pytest
import torch
import toys

from hanlin.batch import Frames, Layout, Tokens
from hanlin.errors import ConfigError
from hanlin.generate import constrain, decode
from hanlin.generate.beam import Beam, search
from hanlin.generate.sampling import Sampling
from hanlin.models import gpt2, llama
from hanlin.text.tokenizer import byte_level

NONE: frozenset[int] = frozenset()
STOP = frozenset({1})
MANY = frozenset({1, 3, 8, 11, 15, 20, 21, 22})
PROMPTS = ([5], [1, 2, 3, 4, 5, 6, 7], [9, 9], [3, 1, 4, 1, 5])


def peaked(config, vocab=23, seed=3, wide=0.7):
    """Return a model with every parameter random, its logits far enough apart that nothing ties."""
    model = config.model_copy(update={"vocab": vocab}).build(seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) * wide)
    return model


LLAMA = llama.Config(vocab=23, dim=16, layers=2, heads=2, context=48)
GPT2 = gpt2.Config(vocab=23, dim=16, layers=2, heads=2, context=48)
FAMILIES = {
    "llama": LLAMA,
    "gpt2": GPT2,
    "pair": toys.PairConfig(),
    "speech": toys.SpeechConfig(),
    "recurrent": toys.RecurrentConfig(),
}


def read(model, rows, seed=9):
    """Return the memory of sources of different length, None for a model that reads none."""
    generator = torch.Generator().manual_seed(seed)
    segments = (torch.arange(6) < 3 + torch.arange(rows)[:, None] % 4).long()
    layout = Layout.of(segments)
    if isinstance(model, toys.Speech):
        return model.encode(Frames(values=torch.randn(rows, 6, 5, generator=generator), layout=layout))
    if isinstance(model, toys.Pair):
        return model.encode(Tokens(ids=torch.randint(0, 23, (rows, 6), generator=generator), layout=layout))
    return None


def alone(memory, row):
    return None if memory is None else decode.pick(memory, torch.tensor([row]))


@pytest.fixture(params=FAMILIES)
def model(request):
    return peaked(FAMILIES[request.param])


def logprob(model, prompt, ids, memory):
    """Return the log-probability of a continuation, read in one piece."""
    tokens = torch.tensor([[*prompt, *ids]])
    with torch.inference_mode():
        scores = model.logits(model(tokens, memory=memory))[0].log_softmax(1)
    return sum(float(scores[len(prompt) - 1 + at, token]) for at, token in enumerate(ids))


@pytest.mark.parametrize("penalty", [0.0, 1.0, -0.5])
def test_wide_enough_it_is_exhaustive_search(model, penalty):
    """A hypothesis lost, counted twice, scored over the wrong length, or read from another beam's cache."""
    model = peaked(model.config, vocab=4, seed=5)
    memory = None
    if isinstance(model, toys.Speech):
        memory = read(model, 1)
    elif isinstance(model, toys.Pair):
        memory = model.encode(Tokens(ids=torch.tensor([[3, 2, 0, 3]])))
    prompt, limit = [2, 3], 4
    wholes = [
        ids
        for size in range(1, limit + 1)
        for ids in itertools.product(range(4), repeat=size)
        if 1 not in ids[:-1] and (size == limit or ids[-1] == 1)
    ]
    scored = {ids: logprob(model, prompt, ids, memory) / len(ids) ** penalty for ids in wholes}
    best = sorted(scored, key=lambda ids: -scored[ids])
    beam = Beam(beams=128, n=128, limit=limit, length_penalty=penalty, early="never")
    found = search(model, [prompt], beam, stop_ids=STOP, memory=memory)
    assert [each.ids for each in found] == best[: len(found)]
    assert len(found) == min(128, len(best))
    assert [each.n for each in found] == list(range(len(found)))
    assert [each.score for each in found] == pytest.approx([scored[ids] for ids in best[: len(found)]], abs=1e-4)
    assert [each.finish for each in found] == ["stop" if ids[-1] == 1 else "length" for ids in best[: len(found)]]


@pytest.mark.parametrize("early", [True, False, "never"])
def test_a_batch_is_its_rows_alone(model, early):
    """A prompt that leaves takes another's cache, memory or sums along; padding of a longer neighbour is read."""
    memory = read(model, 4)
    beam = Beam(beams=4, n=3, limit=14, early=early)
    found = search(model, PROMPTS, beam, stop_ids=MANY, memory=memory)
    for row, prompt in enumerate(PROMPTS):
        one = search(model, [prompt], beam, stop_ids=MANY, memory=alone(memory, row))
        mine = [each for each in found if each.prompt == row]
        assert [each.ids for each in mine] == [each.ids for each in one]
        assert [each.score for each in mine] == pytest.approx([each.score for each in one], abs=1e-4)


def test_scores_are_those_of_reading_the_answer(model):
    """Beams and caches that no longer belong together after a few reorderings."""
    memory = read(model, 4)
    found = search(model, PROMPTS, Beam(beams=5, n=5, limit=20), stop_ids=STOP, memory=memory)
    for each in found:
        expected = logprob(model, PROMPTS[each.prompt], each.ids, alone(memory, each.prompt)) / len(each.ids)
        assert each.score == pytest.approx(expected, abs=1e-4)
    for row in range(4):
        scores = [each.score for each in found if each.prompt == row]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
        assert len({each.ids for each in found if each.prompt == row}) == 5


def test_one_beam_is_greedy(model):
    """The bookkeeping of beams changes a token where there is nothing to choose."""
    memory = read(model, 4)
    found = search(model, PROMPTS, Beam(beams=1, limit=15), stop_ids=STOP, memory=memory)
    greedy = decode.answers(model, PROMPTS, Sampling(temperature=0, limit=15), stop_ids=STOP, memory=memory)
    assert [(each.ids, each.finish) for each in found] == [(each.ids, each.finish) for each in greedy]


def test_answers_share_one_memory(model):
    """A memory copied for each answer, or an answer that looks at its neighbour's source."""
    memory = read(model, 4)
    each = [Sampling(limit=3 + 4 * row, n=3, seed=row) for row in range(4)]
    found = decode.answers(model, PROMPTS, each, stop_ids=STOP, memory=memory)
    for row, prompt in enumerate(PROMPTS):
        one = decode.answers(model, [prompt], each[row], stop_ids=STOP, memory=alone(memory, row))
        assert [answer.ids for answer in found if answer.prompt == row] == [answer.ids for answer in one]
    pieces = list(decode.generate(model, PROMPTS, each, stop_ids=STOP, memory=memory))
    assert len(pieces) == sum(len(answer.ids) for answer in found), "every family streams"


def test_memory_stays_one_row_a_source(monkeypatch):
    """Cross-attention keys made anew at each step: a beam search as slow as no cache at all."""
    model = peaked(toys.PairConfig())
    seen = set()
    forward = model.forward

    def spy(tokens, *, memory=None, **given):
        seen.add((id(memory), len(memory.states), len(tokens)))
        return forward(tokens, memory=memory, **given)

    monkeypatch.setattr(model, "forward", spy)
    memory = read(model, 4)
    search(model, PROMPTS, Beam(beams=3, limit=6), stop_ids=NONE, memory=memory)
    decode.answers(model, PROMPTS, Sampling(n=3, limit=6), stop_ids=NONE, memory=memory)
    assert seen == {(id(memory), 4, 4), (id(memory), 4, 12)}


def test_options_hold():
    """A forced, suppressed or repeated token that comes all the same; a stop before its time."""
    model = peaked(LLAMA)
    plain = search(model, [[5]], Beam(limit=12), stop_ids=STOP)[0].ids
    assert all(len(each.ids) > 9 for each in search(model, [[5]], Beam(limit=12, least=9, n=4), stop_ids=STOP))
    assert plain[0] not in search(model, [[5]], Beam(limit=12, suppress=(plain[0],)), stop_ids=STOP)[0].ids
    for each in search(model, [[5]], Beam(limit=8, first=7, last=1, least=7, n=4), stop_ids=STOP):
        assert (each.ids[0], each.ids[-1], each.finish) == (7, 1, "stop")
    for each in search(model, [[5, 6, 5]], Beam(limit=16, no_repeat=2, n=4), stop_ids=NONE):
        whole = (5, 6, 5, *each.ids)
        assert len({*itertools.pairwise(whole)}) == len(whole) - 1


def test_a_grammar_holds_in_every_beam():
    """Beams that share one place in the grammar, or end where it is not complete."""
    tokenizer = byte_level()
    model = peaked(LLAMA, vocab=259)
    beam = Beam(beams=6, n=6, limit=12, grammar=constrain.regex("(ab|ba|你){2,3}"))
    found = search(model, [[5], [7, 8]], beam, stop_ids=STOP, tokenizer=tokenizer)
    assert len(found) == 12
    assert {each.finish for each in found} == {"stop"}
    assert {len(each.text.replace("你", "ab")) for each in found} <= {4, 6}
    assert len({each.text for each in found if each.prompt == 0}) == 6


def test_fewer_answers_where_there_are_fewer():
    """Hypotheses that never were, returned to make up the number."""
    tokenizer = byte_level()
    beam = Beam(beams=8, n=8, limit=3, grammar=constrain.regex("a|bc"))
    found = search(peaked(LLAMA, vocab=259), [[5]], beam, stop_ids=STOP, tokenizer=tokenizer)
    assert sorted(each.text for each in found) == ["a", "bc"]


def test_what_cannot_be_is_said_at_once():
    """A wrong memory, a token that is none, more answers than beams: an index error deep inside."""
    pair = peaked(toys.PairConfig())
    with pytest.raises(ConfigError, match="reads a source first"):
        search(pair, [[5]], Beam(), stop_ids=STOP)
    with pytest.raises(ConfigError, match="4 sources for 1 prompts"):
        decode.answers(pair, [[5]], Sampling(limit=3), stop_ids=STOP, memory=read(pair, 4))
    with pytest.raises(ConfigError, match="suppress: token 23"):
        search(peaked(LLAMA), [[5]], Beam(limit=3, suppress=(23,)), stop_ids=STOP)
    with pytest.raises(ConfigError, match="context"):
        search(peaked(LLAMA), [[5]], Beam(limit=48), stop_ids=STOP)
    with pytest.raises(ValueError, match="at most beams"):
        Beam(beams=2, n=3)
    assert search(peaked(LLAMA), [], Beam(), stop_ids=STOP) == []
