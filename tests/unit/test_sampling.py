"""Choosing the next token: bounds, penalties, filters, draws."""

import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hanlin.generate.sampling import History, Sampling, Settings, _gumbel, _split, adjust, choose, narrow


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def settings(*each: Sampling, copies=None) -> Settings:
    """Return the settings of some rows, each the first of its prompt's answers unless told."""
    return Settings.of(each, copies or [0] * len(each))


def scores_of(rows: int, vocab: int, seed: int = 0) -> Tensor:
    """Return random logits (rows, vocab)."""
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * 3


def tied(rows: int, vocab: int, seed: int = 0) -> Tensor:
    """Return logits (rows, vocab) with many ties, as bf16 models give."""
    return torch.randint(-4, 5, (rows, vocab), generator=torch.Generator().manual_seed(seed)).float()


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": "1"},
        {"top_k": -1},
        {"top_k": 1.5},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"min_p": -0.1},
        {"min_p": 1.1},
        {"repetition": 0.0},
        {"presence": 2.1},
        {"frequency": -2.1},
        {"logit_bias": {1: 101.0}},
        {"logit_bias": {-1: 1.0}},
        {"limit": -1},
        {"stop": ("",)},
        {"stop": tuple("abcdefghijklmnopq")},
        {"n": 0},
        {"n": 129},
        {"logprobs": -1},
        {"logprobs": 21},
        {"seed": 2**63},
        {"top_q": 1},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    """Guards against absurd requests that reach the model, and against typos taken for defaults."""
    with pytest.raises(ValidationError):
        Sampling(**wrong)


def test_edges_are_allowed():
    """Guards against bounds one step too tight: temperature 0 is greedy and not 'unset'."""
    edge = Sampling(temperature=0, top_p=1, min_p=1, presence=-2, frequency=2, logit_bias={0: -100}, limit=0, n=128)
    assert edge.temperature == 0
    assert Sampling(logprobs=0, seed=-(2**63), stop=tuple("abcdefghijklmnop")).logprobs == 0


@pytest.mark.parity
@pytest.mark.parametrize("make", [scores_of, tied])
@pytest.mark.parametrize("top_k", [0, 1, 5, 1000])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5, 0.01])
@pytest.mark.parametrize("min_p", [0.0, 0.1, 1.0])
def test_filters_equal_transformers(make, top_k, top_p, min_p):
    """Guards against another order of the filters, ties cut elsewhere, and a nucleus one token short."""
    from transformers import MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    for vocab, temperature in ((7, 1.0), (300, 0.7), (300, 2.5)):
        scores = make(4, vocab, seed=vocab)
        theirs = scores
        for wanted, warper in (
            (temperature != 1, lambda t=temperature: TemperatureLogitsWarper(t)),
            (top_k > 0, lambda: TopKLogitsWarper(top_k)),
            (top_p < 1, lambda: TopPLogitsWarper(top_p)),
            (min_p > 0, lambda: MinPLogitsWarper(min_p)),
        ):
            theirs = warper()(None, theirs) if wanted else theirs
        one = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        ours = narrow(scores, settings(*[one] * 4))
        assert torch.allclose(ours.softmax(1).sort().values, theirs.softmax(1).sort().values, atol=1e-6)
        if make is scores_of or top_p == 1:  # which of equal tokens a nucleus keeps is left to chance over there
            assert torch.equal(ours.isinf(), theirs.isinf())


def test_nucleus_keeps_the_lower_of_equal_ids():
    """Guards against ties cut by chance, and against a nucleus of one that is not the greedy token."""
    each = [Sampling(top_p=share) for share in (0.5, 0.01, 1e-12)]
    kept = narrow(torch.tensor([[0.0, 1, 1, 1, 0]]).repeat(3, 1), settings(*each)).isfinite()
    assert kept.tolist() == [[False, True, True, False, False], *[[False, True, False, False, False]] * 2]


@pytest.mark.parity
@pytest.mark.parametrize("penalty", [0.5, 1.3])
def test_repetition_equals_transformers(penalty):
    """Guards against a penalty that rewards negative logits, counts a token twice, or forgets the prompt."""
    from transformers import RepetitionPenaltyLogitsProcessor

    scores, written = scores_of(2, 20), torch.tensor([[1, 1, 5], [0, 19, 7]])
    theirs = RepetitionPenaltyLogitsProcessor(penalty)(written, scores.clone())
    history = History.of(written[:, :2].tolist(), 20)
    history.add(written[:, 2])
    ours = adjust(scores, settings(*[Sampling(repetition=penalty)] * 2), history)
    assert torch.equal(ours, theirs)


def test_presence_and_frequency_look_at_the_output_alone():
    """Guards against penalties for what the prompt says, and against the one passed as the other."""
    history = History.of([[3, 3], [1]], 6)
    for ids in ([2, 4], [2, 5]):
        history.add(torch.tensor(ids))
    found = adjust(torch.zeros(2, 6), settings(Sampling(presence=0.5), Sampling(frequency=-1.5)), history)
    assert found.tolist() == [[0, 0, -0.5, 0, 0, 0], [0, 0, 0, 0, 1.5, 1.5]]
    both = adjust(torch.zeros(1, 6), settings(Sampling(presence=0.5, frequency=1.0)), history.take(torch.tensor([0])))
    assert both[0, 2] == -2.5


def test_bias_bans_and_forces_its_own_row():
    """Guards against a bias that reaches the neighbours."""
    one, other = Sampling(temperature=0, logit_bias={4: 100.0}), Sampling(temperature=0, logit_bias={0: -100.0, 1: 1.0})
    scores = torch.tensor([[9.0, 0, 0, 0, 0]]).repeat(3, 1)
    ids = choose(scores, settings(one, other, Sampling(temperature=0)), 0).ids
    assert ids.tolist() == [4, 1, 0]


def test_noise_is_splitmix64():
    """Guards against a sign carried down by a shift: the first numbers of the published stream for seed 1234567."""
    found = _split(torch.tensor(1234567), torch.arange(4))
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [number % 2**64 for number in found.tolist()] == published


def test_noise_is_finite_at_both_ends():
    """Guards against an infinite draw, which plus the -inf of a filtered token is NaN."""
    ends = _gumbel(torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)]))
    assert ends.isfinite().all()


@pytest.mark.parametrize("how", [{}, {"top_k": 3}, {"temperature": 0.5}])
def test_draws_follow_the_distribution(how):
    """Guards against a skewed draw: Pearson's chi-squared over 20,000 rows of different seeds stays below p = 0.001."""
    rows, vocab = 20_000, 40
    scores = scores_of(1, vocab) / 3
    each = [Sampling(seed=seed, **how) for seed in range(rows)]
    expected = narrow(scores, settings(each[0])).softmax(1)[0] * rows
    found = choose(scores.expand(rows, -1), settings(*each), 7).ids.bincount(minlength=vocab)
    kept = expected > 0
    assert found[~kept].sum() == 0
    free = int(kept.sum()) - 1
    surprise = ((found - expected)[kept] ** 2 / expected[kept]).sum()
    assert surprise < free + 3.1 * math.sqrt(2 * free) + 5


def test_steps_copies_and_seeds_are_independent():
    """Guards against the same draw for every step, answer or seed, or the answer n of seed s being n+1 of s-1."""
    rows = 4000
    flat = torch.zeros(rows, 50)
    by_seed = choose(flat, settings(*[Sampling(seed=seed) for seed in range(rows)]), 0).ids
    by_copy = choose(flat, settings(*[Sampling()] * rows, copies=range(rows)), 0).ids
    by_step = choose(flat, settings(*[Sampling()] * rows), torch.arange(rows)).ids
    assert all(len(drawn.unique()) == 50 for drawn in (by_seed, by_copy, by_step))
    for one, other in ((by_seed, by_copy), (by_seed, by_step), (by_copy, by_step), (by_seed[1:], by_seed[:-1])):
        assert (one == other).float().mean() == pytest.approx(1 / 50, abs=0.01)


MIXED = (
    Sampling(temperature=0.0),
    Sampling(),
    Sampling(temperature=0.8, top_k=5, seed=3),
    Sampling(top_p=0.7, seed=4),
    Sampling(top_p=0.9, top_k=50, min_p=0.05, temperature=1.5, seed=5),
    Sampling(min_p=0.2, presence=1.0, seed=6),
    Sampling(repetition=1.4, frequency=0.4, logit_bias={3: 5.0}, seed=7),
)


@pytest.mark.parametrize("vocab", [11, 2000])
def test_neighbours_never_change_a_choice(vocab):
    """Guards against a request's settings, noise or place in the batch leaking into another's."""
    rows = len(MIXED)
    scores, prompts = scores_of(rows, vocab, seed=vocab), [[b, 2 * b % 11] for b in range(rows)]
    steps = torch.arange(rows) * 3
    company = choose(scores, settings(*MIXED), steps, History.of(prompts, vocab)).ids
    for b, one in enumerate(MIXED):
        alone = choose(scores[b : b + 1], settings(one), 3 * b, History.of([prompts[b]], vocab)).ids
        assert alone.item() == company[b].item()


def test_candidates_draw_what_the_whole_row_draws():
    """Guards against the fast path over a few candidates: its slow twin gives noise to every token of the vocab."""
    scores = scores_of(64, 3000)
    each = [Sampling(top_k=20, top_p=0.95, seed=seed) for seed in range(64)]
    found = settings(*each)
    noise = _gumbel(_split(_split(found.streams, torch.tensor(9))[:, None], torch.arange(3000)))
    assert torch.equal(choose(scores, found, 9).ids, (narrow(scores, found) + noise).argmax(1))


def test_rounding_errors_do_not_change_draws():
    """Guards against a draw by cumulative sums, where noise of 1e-6 in the logits changes tokens in the thousandth."""
    scores = scores_of(1, 1000) / 3
    each = settings(*[Sampling(seed=seed) for seed in range(1000)])
    shaken = scores + 1e-6 * scores_of(1, 1000, seed=1)
    assert torch.equal(choose(scores.expand(1000, -1), each, 0).ids, choose(shaken.expand(1000, -1), each, 0).ids)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30, 5e-324])
def test_cold_is_greedy(temperature):
    """Guards against NaN when a tiny temperature carries the logits out of float32."""
    scores = scores_of(5, 100) * 1000
    each = [Sampling(temperature=temperature, top_p=0.9, top_k=3, min_p=0.1, seed=seed) for seed in range(5)]
    assert torch.equal(choose(scores, settings(*each), 0).ids, scores.argmax(1))


def test_logprobs_are_the_models_own():
    """Guards against log-probabilities that move with temperature, filters or penalties."""
    scores = scores_of(3, 30)
    each = settings(Sampling(temperature=0.3, top_k=2, logprobs=4), Sampling(), Sampling(temperature=0, logprobs=0))
    found = choose(scores, each, 0)
    sure = scores.log_softmax(1)
    assert torch.equal(found.logprobs, sure[torch.arange(3), found.ids])
    assert torch.equal(found.top_logprobs, sure.sort(descending=True).values[:, :4])
    assert torch.equal(sure.gather(1, found.top_ids), found.top_logprobs)
    assert choose(scores, settings(*[Sampling()] * 3), 0).logprobs is None
    assert choose(scores[:, :3], each, 0).top_ids.shape == (3, 3)


def test_half_precision_is_computed_in_full():
    """Guards against a softmax over a large vocab in bf16, whose sums stop growing at 256."""
    scores = (scores_of(1, 1000) / 9).bfloat16().expand(2000, -1)
    each = [Sampling(top_p=0.8, logprobs=1, seed=seed) for seed in range(2000)]
    found, full = (choose(logits, settings(*each), 0) for logits in (scores, scores.float()))
    assert torch.equal(found.ids, full.ids)
    assert torch.equal(found.logprobs, full.logprobs)
