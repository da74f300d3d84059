"""The decoding loop: ragged batches, stops, streams, limits; and scoring what is already there."""

import codecs
import itertools

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from hanlin.batch import Layout
from hanlin.errors import AbilityError, ConfigError
from hanlin.generate import decode
from hanlin.generate import score as scoring
from hanlin.generate.decode import answers, generate
from hanlin.generate.sampling import Sampling
from hanlin.generate.score import score
from hanlin.generate.stops import Until
from hanlin.models import gpt2, llama
from hanlin.models.contract import Decodes, Memory, Model, ModelConfig
from hanlin.nn.cache import Cache

NONE: frozenset[int] = frozenset()
VOCAB, CONTEXT = 23, 48


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(family, **sizes):
    """Return a tiny model whose logits differ enough to be told apart."""
    defaults = {"vocab": VOCAB, "dim": 16, "layers": 2, "heads": 2, "context": CONTEXT, "spread": 0.4}
    return family.Config(**{**defaults, **sizes}).build(seed=3).eval()


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    return small({"llama": llama, "gpt2": gpt2}[request.param])


def plainly(model, prompt, limit, stop_ids=NONE):
    """Return the greedy continuation by reading everything again at each step: the slow twin of cache and batch."""
    ids = list(prompt)
    with torch.inference_mode():
        while len(ids) - len(prompt) < limit:
            ids.append(int(model.logits(model(torch.tensor([ids]))[0, -1]).argmax()))
            if ids[-1] in stop_ids:
                break
    return tuple(ids[len(prompt) :])


class ScriptConfig(ModelConfig):
    """A model that says one thing."""

    vocab: int = 256
    dim: int = 1
    layers: int = 0
    context: int = 1000
    script: tuple[int, ...]

    @classmethod
    def from_hf(cls, json):
        raise NotImplementedError

    def to_hf(self):
        raise NotImplementedError

    def make(self):
        return Script(self)


class Places(Cache):
    """Counts what was read."""

    def __init__(self, rows):
        self.lengths = torch.zeros(rows, dtype=torch.long)

    def extend(self, length, layout):
        real = torch.ones(len(self.lengths), length, dtype=torch.long) if layout is None else layout.real.long()
        positions = self.lengths[:, None] + real.cumsum(1) - 1
        self.lengths = self.lengths + real.sum(1)
        return positions

    def reorder(self, rows):
        self.lengths = self.lengths[rows]

    def layer(self, index):
        raise NotImplementedError

    def truncate(self, lengths):
        raise NotImplementedError

    snapshot = restore = truncate


class Script(Model[ScriptConfig], Decodes):
    """After a prompt of one token, writes the script, whatever it reads."""

    def __init__(self, config):
        super().__init__(config)
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, tokens, *, layout=None, kinds=None, memory=None, cache=None) -> Tensor:
        return cache.extend(tokens.shape[1], layout)[..., None].float()

    def logits(self, hidden):
        script = torch.tensor([*self.config.script, 0])
        said = script[hidden[..., 0].long().clamp(max=len(script) - 1)]
        return torch.nn.functional.one_hot(said, 256).float() * 100

    def initialize(self, generator):
        pass

    def new_cache(self, rows, length):
        return Places(rows)


class Bytes:
    """A tokenizer whose tokens are bytes, so that characters are cut everywhere."""

    def stream(self):
        return ByteStream()


class ByteStream:
    def __init__(self):
        self.decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token):
        return self.decoder.decode(bytes([token]))

    def finish(self):
        return self.decoder.decode(b"", True)


def says(text: str):
    """Return a model that writes the bytes of `text`, then zeros."""
    return ScriptConfig(script=tuple(text.encode())).build()


PROMPTS = ([5], [1, 2, 3, 4, 5, 6, 7], [9, 9], [3, 1, 4, 1, 5])


def test_ragged_batch_equals_one_by_one(model):
    """Guards against padding that is read, positions counted over padding, and logits taken at a padded column."""
    found = answers(model, PROMPTS, Sampling(temperature=0, limit=12), stop_ids=NONE)
    assert [each.ids for each in found] == [plainly(model, prompt, 12) for prompt in PROMPTS]
    assert [each.prompt for each in found] == [0, 1, 2, 3]
    assert {each.finish for each in found} == {"length"}


def test_rows_leave_without_disturbing_the_others(model):
    """Guards against caches, settings and histories that no longer belong to their rows after one has left."""
    limits = (1, 15, 4, 40, 9, 2, 3)
    prompts = [PROMPTS[i % 4] for i in range(7)]
    each = [Sampling(temperature=0, limit=limit) for limit in limits]
    stop_ids = frozenset({plainly(model, prompts[3], 40)[20]})
    found = answers(model, prompts, each, stop_ids=stop_ids)
    expected = [plainly(model, prompt, limit, stop_ids) for prompt, limit in zip(prompts, limits)]
    assert [each.ids for each in found] == expected
    assert [each.finish for each in found] == ["stop" if ids[-1] in stop_ids else "length" for ids in expected]


def test_finished_rows_never_pass_their_limit():
    """Guards against a finished row that stays in the batch and runs past the context of learned positions."""
    model = small(gpt2)
    script = plainly(model, [1] * 40, 8)
    stop_ids = frozenset({script[0]})
    prompts = [[1] * 40, *([7, number] for number in range(10))]
    each = [Sampling(temperature=0, limit=8), *[Sampling(temperature=0, limit=30)] * 10]
    found = answers(model, prompts, each, stop_ids=stop_ids)
    assert [one.ids for one in found] == [
        plainly(model, prompt, one.limit, stop_ids) for prompt, one in zip(prompts, each)
    ]


SAMPLINGS = (
    Sampling(limit=9, n=2, seed=1),
    Sampling(limit=14, top_k=6, seed=2, n=3, repetition=1.3),
    Sampling(limit=5, temperature=0, presence=1.0),
    Sampling(limit=11, top_p=0.8, temperature=1.4, frequency=0.5, seed=1, logprobs=2),
)


def test_company_never_changes_what_is_drawn(model):
    """Guards against one request's settings, seed or penalties reaching its neighbours, in any order of the batch."""
    alone = {
        prompt: answers(model, [PROMPTS[prompt]], SAMPLINGS[prompt], stop_ids=frozenset({2})) for prompt in range(4)
    }
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        prompts, each = [PROMPTS[prompt] for prompt in order], [SAMPLINGS[prompt] for prompt in order]
        found = answers(model, prompts, each, stop_ids=frozenset({2}))
        expected = [(place, one) for place, prompt in enumerate(order) for one in alone[prompt]]
        assert [(each.prompt, each.n, each.ids, each.finish) for each in found] == [
            (place, one.n, one.ids, one.finish) for place, one in expected
        ]


def test_answers_of_one_prompt_differ_and_are_stable(model):
    """Guards against n equal answers, and against answer 0 depending on how many others are asked for."""
    three = answers(model, [[4, 5]], Sampling(limit=20, n=3, seed=9), stop_ids=NONE)
    assert len({each.ids for each in three}) == 3
    assert [each.n for each in three] == [0, 1, 2]
    one = answers(model, [[4, 5]], Sampling(limit=20, n=1, seed=9), stop_ids=NONE)
    assert one[0].ids == three[0].ids
    assert one == answers(model, [[4, 5]], Sampling(limit=20, seed=9), stop_ids=NONE)


def test_prompts_are_read_once(model, monkeypatch):
    """Guards against reading a prompt again for each of its n answers."""
    read = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, tokens, **k: read.append(tuple(tokens.shape)) or forward(self, tokens, **k)
    )
    answers(model, [[4, 5, 6]], Sampling(limit=3, n=5), stop_ids=NONE)
    assert read == [(1, 3), (5, 1), (5, 1)]


def test_logprobs_are_those_of_score(model):
    """Guards against log-probabilities of another token, of adjusted logits, or shifted by one step."""
    sampling = Sampling(temperature=0.7, top_k=5, limit=8, logprobs=3, repetition=1.2)
    (one,) = answers(model, [[1, 2, 3]], sampling, stop_ids=NONE)
    (expected,) = score(model, [[1, 2, 3, *one.ids]], prefix=[3])
    assert one.logprobs == pytest.approx(expected, abs=1e-4)
    assert len(one.tops) == 8
    for token, logprob, top in zip(one.ids, one.logprobs, one.tops):
        assert len(top) == 3
        assert sorted(top, key=lambda pair: -pair[1]) == list(top)
        assert dict(top).get(token, logprob) == pytest.approx(logprob)


def test_only_those_who_ask_get_logprobs(model):
    """Guards against a neighbour's logprobs in an answer that asked for none, or for fewer."""
    each = [Sampling(limit=2), Sampling(limit=2, logprobs=0), Sampling(limit=2, logprobs=2)]
    found = answers(model, PROMPTS[:3], each, stop_ids=NONE)
    assert found[0].logprobs is None
    assert found[0].tops is None
    assert [len(one.logprobs) for one in found[1:]] == [2, 2]
    assert [[len(top) for top in one.tops] for one in found[1:]] == [[0, 0], [2, 2]]


TEXTS = (
    "Hello, world.",
    "翰林院讀書，天下第一。",
    "안녕하세요 세계",
    "مرحبا بالعالم",
    "👩‍👩‍👧‍👦 and 👨🏽‍🚀 met 🇨🇳.",
    "é",
)


@pytest.mark.parametrize("text", TEXTS)
def test_stream_equals_whole(text):
    """Guards against broken characters and lost pieces in streams, at every byte a token can end on."""
    for limit in range(len(text.encode()) + 1):
        steps = list(
            generate(says(text), [[0]], Sampling(temperature=0, limit=limit), stop_ids=NONE, tokenizer=Bytes())
        )
        assert "".join(step.text for step in steps) == text.encode()[:limit].decode(errors="replace")
        assert [step.finish for step in steps] == [None] * (len(steps) - 1) + ["length"]
        assert all("\ufffd" not in step.text for step in steps[:-1])


class Pieces(Bytes):
    """Drops the first space of a text, as SentencePiece does."""

    def stream(self):
        return PieceStream()


class PieceStream(ByteStream):
    begun = False

    def push(self, token):
        piece = super().push(token)
        piece, self.begun = piece if self.begun else piece.removeprefix(" "), self.begun or bool(piece)
        return piece


def test_first_space_of_an_answer_stays():
    """Guards against 'Onceupon': a tokenizer that drops a text's first space must be told that a prompt came before."""
    model = ScriptConfig(script=(*[0] * 3, *b" upon")).build()
    (one,) = answers(model, [list(b"Once")], Sampling(temperature=0, limit=5), stop_ids=NONE, tokenizer=Pieces())
    assert one.text == " upon"


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("one two three", ("two",), "one "),
        ("one two three", ("t",), "one "),
        ("one two three", ("three", "wo"), "one t"),
        ("one two three", ("four",), "one two three"),
        ("aab", ("ab",), "a"),
        ("ababac", ("abac",), "ab"),
        ("one two thr", ("three",), "one two thr"),
        ("abcd", ("abcd", "bc"), "a"),
        ("xabc", ("bc", "abc"), "x"),
        ("天下第一", ("第",), "天下"),
        ("天下第一", ("下第",), "天"),
        ("家👩‍👩‍👧!", ("👩‍👧",), "家👩‍"),
        ("stop", ("stop",), ""),
    ],
)
def test_stop_strings(text, stops, expected):
    """Guards against stop strings missed across tokens, shown in part, or eaten when they never complete."""
    limit = len(text.encode())
    steps = list(
        generate(says(text), [[0]], Sampling(temperature=0, limit=limit, stop=stops), stop_ids=NONE, tokenizer=Bytes())
    )
    assert "".join(step.text for step in steps) == expected
    assert steps[-1].finish == ("length" if text == expected else "stop")


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="abc", max_size=14),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
    places=st.lists(st.integers(0, 14), max_size=6),
)
@example(text="abcd", stops=["abcd", "bc"], places=[])
@example(text="xabc", stops=["bc", "abc"], places=[2])
def test_pieces_never_change_where_text_ends(text, stops, places):
    """Guards against an answer that depends on how its text was cut into tokens: brute force over all ends."""
    cuts = sorted(min(place, len(text)) for place in places)
    pieces = [text[start:stop] for start, stop in itertools.pairwise([0, *cuts, len(text)])]
    until, shown = Until(stops), []
    for piece in pieces:
        if not until.done:
            shown.append(until.push(piece))
    shown.append(until.finish())
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(stop) for stop in stops)]
    longest = max((len(stop) for stop in stops if ends and text[: ends[0]].endswith(stop)), default=0)
    assert "".join(shown) == (text[: ends[0] - longest] if ends else text)
    assert until.done == bool(ends)


def test_stop_id_ends_without_text():
    """Guards against an EOS that is shown, not counted, or that keeps what was held back."""
    model = says("ab<\x01cd")
    (one,) = answers(model, [[0]], Sampling(temperature=0, stop=("<end>",)), stop_ids=frozenset({1}), tokenizer=Bytes())
    assert (one.text, one.finish, one.ids) == ("ab<", "stop", (97, 98, 60, 1))


def test_last_token_may_be_a_stop():
    """Guards against 'length' where the last allowed token completes a stop string or is a stop id."""
    for sampling in (Sampling(temperature=0, limit=2, stop=("b",)), Sampling(temperature=0, limit=3)):
        (one,) = answers(says("ab\x01"), [[0]], sampling, stop_ids=frozenset({1}), tokenizer=Bytes())
        assert one.finish == "stop"


def test_limit_zero_draws_nothing(model):
    """Guards against one token too many, and against a limit of 0 taken for 'no limit'."""
    found = answers(model, PROMPTS[:2], [Sampling(limit=0, n=2), Sampling(limit=1)], stop_ids=NONE)
    assert [(each.prompt, each.n, len(each.ids), each.finish) for each in found] == [
        (0, 0, 0, "length"),
        (0, 1, 0, "length"),
        (1, 0, 1, "length"),
    ]
    assert answers(model, [], Sampling(), stop_ids=NONE) == []


def test_whole_context_can_be_used(model):
    """Guards against a limit that is one short of the model's context."""
    (one,) = answers(model, [[1] * 8], Sampling(temperature=0, limit=CONTEXT - 8), stop_ids=NONE)
    assert one.ids == plainly(model, [1] * 8, CONTEXT - 8)


def test_what_cannot_be_done_is_said_at_once(model):
    """Guards against a stop in the middle of an answer, silent truncation, and one problem at a time."""
    prompts = [[1] * 30, [], [VOCAB], [-1]]
    each = [
        Sampling(limit=40),
        Sampling(limit=1, stop=("x",)),
        Sampling(limit=1, logit_bias={99: 1.0}),
        Sampling(limit=1),
    ]
    with pytest.raises(ConfigError) as caught:
        generate(model, prompts, each, stop_ids=NONE)
    said = "\n".join(caught.value.problems)
    for part in (
        "prompt 0: prompt 30 tokens + limit 40 > context 48",
        "prompt 1: no tokens",
        "prompt 1: stop strings without a tokenizer",
        f"prompt 2: token {VOCAB}; the model's vocab is {VOCAB}",
        "prompt 2: logit_bias for token 99",
        "prompt 3: token -1",
    ):
        assert part in said
    with pytest.raises(ConfigError, match="1 for 2 prompts"):
        generate(model, [[1], [1]], [Sampling()], stop_ids=NONE)


class Reader(Script):
    """Writes what stands in its memory."""

    def forward(self, tokens, *, layout=None, kinds=None, memory=None, cache=None) -> Tensor:
        positions = cache.extend(tokens.shape[1], layout)
        assert memory.layout.segments.shape == memory.states.shape[:2] == (len(positions), 12)
        assert torch.equal(memory.layout.segments[:, 0], memory.carry)
        return memory.states.gather(1, positions[..., None])

    def logits(self, hidden):
        return torch.nn.functional.one_hot(hidden[..., 0].long(), 256).float()


def test_memory_follows_its_row():
    """Guards against a source read by the wrong row once prompts are repeated, dropped at limit 0, or finished."""
    model = Reader(ScriptConfig(script=(0,)))
    numbers = torch.arange(1, 6)
    states = (10 * numbers[:, None] + torch.arange(12) % 10)[..., None].float()
    layout = Layout.of(numbers[:, None].expand(5, 12))
    memory = Memory(states=states, layout=layout, carry=numbers)
    each = [Sampling(temperature=0, limit=limit, n=n) for limit, n in ((9, 1), (0, 1), (3, 2), (6, 1), (9, 3))]
    found = answers(model, [[0]] * 5, each, stop_ids=frozenset({44}), memory=memory)
    expected = {0: range(10, 19), 1: (), 2: range(30, 33), 3: range(40, 45), 4: range(50, 59)}
    assert [one.ids for one in found] == [tuple(expected[prompt]) for prompt in (0, 1, 2, 2, 3, 4, 4, 4)]


def test_family_that_cannot_decode_is_refused():
    """Guards against an AttributeError about a cache where a sentence is due."""

    class Mute(Script):
        """Pretends to have no ability."""

    Mute.__bases__ = (Model,)
    with pytest.raises(AbilityError, match="cannot decode step by step"):
        generate(Mute(ScriptConfig(script=(1,))), [[1]], Sampling(), stop_ids=NONE)


def test_dropout_is_off_inside_and_back_after():
    """Guards against noisy answers from a model in training, and against training that goes on without dropout."""
    model = small(llama, dropout=0.5)
    model.train()
    found = answers(model, [[1, 2]], Sampling(temperature=0, limit=10), stop_ids=NONE)
    scored = score(model, [[1, 2, 3]], prefix=[1])
    assert model.training
    model.eval()
    assert found[0].ids == plainly(model, [1, 2], 10)
    assert np.array_equal(scored[0], score(model, [[1, 2, 3]], prefix=[1])[0])
    assert not model.training
    steps = generate(model.train(), [[1, 2]], Sampling(limit=10), stop_ids=NONE)
    next(steps)
    steps.close()
    assert model.training


def ragged(count: int, seed: int = 0):
    """Return random sequences of 1 to 40 tokens and a prefix for each."""
    draws = np.random.default_rng(seed)
    sequences = [draws.integers(0, VOCAB, size=draws.integers(1, 41)) for _ in range(count)]
    return sequences, [int(draws.integers(1, len(each) + 1)) for each in sequences]


@pytest.mark.parametrize("budget", [1, 64, 8192])
@pytest.mark.parametrize("packs", [True, False])
def test_scores_do_not_depend_on_company(model, monkeypatch, budget, packs):
    """Guards against packed or padded neighbours in a score, a shift by one, and answers in sorted order."""
    monkeypatch.setattr(type(model), "packs", packs)
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 4 * VOCAB * 7)
    sequences, prefix = ragged(30)
    found = score(model, sequences, prefix=prefix, tokens_per_batch=budget)
    for ids, first, part in zip(sequences, prefix, found):
        with torch.inference_mode():
            sure = model.logits(model(torch.tensor(ids)[None]))[0].log_softmax(-1)
        alone = sure[torch.arange(len(ids) - 1), torch.tensor(ids[1:])][first - 1 :]
        assert part.dtype == np.float64
        assert np.allclose(part, alone.numpy(), atol=1e-5)
        assert len(part) == len(ids) - first


@settings(max_examples=100, deadline=None)
@given(reads=st.lists(st.integers(1, 50), max_size=30), budget=st.integers(1, 200), packs=st.booleans())
def test_batches_hold_each_sequence_once_within_the_budget(reads, budget, packs):
    """Guards against sequences scored twice or never, and against batches larger than memory was planned for."""
    batches = list(scoring._batches(dict(enumerate(reads)), budget, packs))
    assert sorted(index for batch in batches for row in batch for index in row) == list(range(len(reads)))
    for batch in batches:
        width = max(sum(reads[index] for index in row) for row in batch)
        assert len(batch) == 1 or len(batch) * width <= budget
        assert width == max(reads[index] for row in batch for index in row)
        assert packs or all(len(row) == 1 for row in batch)


def test_score_takes_one_token_more_than_the_context(model):
    """Guards against refusing what fits (the last token is not read), and against cutting what does not."""
    assert len(score(model, [[1] * (CONTEXT + 1)], prefix=[1])[0]) == CONTEXT
    with pytest.raises(ConfigError, match=r"sequence 1: 50 tokens > context 48 \+ 1") as caught:
        score(model, [[1, 2], [1] * (CONTEXT + 2)], prefix=[0, 1])
    assert "sequence 0: prefix 0" in str(caught.value)
    assert score(model, [], prefix=[]) == []
    assert decode.Step(0, 0, 1, "x").finish is None
