"""Lanes: rows of different length in one forward give what each gives alone."""

import pytest
import torch
from folders import GPT2, LLAMA, build

from hanlin.errors import AbilityError
from hanlin.nn.attention import spelled_out
from hanlin.nn.cache import KeyValueCache, StateCache
from hanlin.nn.lanes import Lanes, Part, lanes_of
from hanlin.runtime import thin


class Played:
    """Texts fed to a model through lanes, piece by piece, and the hidden states that came out."""

    def __init__(self, model, texts, lanes=4):
        self.model, self.texts = model, texts
        self.lanes = Lanes(model.new_cache(lanes, 32))
        self.states = [[] for _ in texts]
        self.fed = [0] * len(texts)
        self.place = list(range(len(texts)))  # text -> lane

    @torch.inference_mode()
    def feed(self, together, *alone):
        """Feed one token to each of the first `together` lanes, then `count` tokens to each (lane, count)."""
        self.lanes.coming(together, [Part(*each, False) for each in alone])
        spans = [(lane, 1) for lane in range(together)] + list(alone)
        owners = [self.place.index(lane) for lane, _ in spans]
        parts = [self.texts[t][self.fed[t] : self.fed[t] + n] for t, (_, n) in zip(owners, spans)]
        hidden = self.model(torch.cat(parts)[None], cache=self.lanes)[0]
        for text, part in zip(owners, hidden.split([n for _, n in spans])):
            self.states[text].append(part)
            self.fed[text] += len(part)

    def check(self):
        """Compare with each text read alone in one forward."""
        for text, states in zip(self.texts, self.states):
            with torch.inference_mode():
                whole = self.model(text[None])[0]
            got = torch.cat(states)
            assert len(got) > 3
            torch.testing.assert_close(got, whole[: len(got)], atol=1e-5, rtol=1e-5)


WINDOWED = LLAMA.model_copy(update={"kind": "qwen2", "window": 3, "full": (0,)})


@pytest.fixture(params=[LLAMA, GPT2, WINDOWED], ids=["llama", "gpt2", "windowed"])
def played(request):
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(3, 300, (length,), generator=generator) for length in (22, 9, 6)]
    return Played(build(request.param), texts)


def test_mixed_steps_equal_each_row_alone(played):
    """Guards against a neighbour's slots being read, wrong positions, and a mask that is one off."""
    played.feed(0, (0, 5), (1, 3))
    played.feed(2, (2, 2))
    played.feed(2, (2, 1))
    played.feed(3)
    played.feed(1, (2, 1), (1, 2))
    played.feed(0, (0, 7))
    played.check()


def test_swapped_lanes_go_on(played):
    """Guards against keys and lengths parting ways when lanes change places."""
    played.feed(0, (0, 6), (1, 2), (2, 3))
    played.lanes.swap(0, 2)
    played.place = [2, 1, 0]
    played.feed(3)
    played.feed(2, (2, 4))
    played.check()


def test_a_copy_is_what_its_source_was(played):
    """Guards against a copy that shares memory with its source, or carries too much."""
    played.feed(0, (0, 6))
    played.lanes.copy(0, 1, 4)
    assert played.lanes.held[:2] == [6, 4]
    played.texts[1] = torch.cat([played.texts[0][:4], played.texts[1][4:]])
    played.fed[1] = 4
    played.states[1] = [torch.cat(played.states[0])[:4]]
    played.feed(2)
    played.feed(0, (1, 2), (2, 4))
    played.feed(1)
    played.check()


def test_what_a_freed_lane_held_is_never_seen(played):
    """Guards against slots of the lane's former row being attended to."""
    played.lanes.coming(0, [Part(2, 20, False)])
    with torch.inference_mode():
        played.model(torch.full((1, 20), 7), cache=played.lanes)
    played.lanes.clear(2)
    played.feed(0, (0, 4), (1, 4), (2, 4))
    played.feed(3)
    played.check()


@pytest.mark.parametrize("window", [1, 3, None])
def test_windows(window):
    """Guards against a window that is ignored, or off by one, in either way of attending."""
    torch.manual_seed(0)
    heads, width = 2, 9
    q, k, v = torch.randn(3, 1, heads, width, 4)
    distance = torch.arange(width)[:, None] - torch.arange(width)
    visible = (distance >= 0) & (distance < (window or width))
    expected = spelled_out(q, k, v, torch.zeros(1, 1, width, width).masked_fill(~visible, -torch.inf))
    pool = KeyValueCache(
        layers=1, rows=2, kv_heads=heads, head_dim=4, length=16, dtype=torch.float32, device=torch.device("cpu")
    )
    lanes, at = Lanes(pool), 0
    for together, alone in [(0, [(0, 3)]), (1, []), (1, []), (0, [(0, 2)]), (1, []), (1, [])]:
        count = together + sum(n for _, n in alone)
        lanes.coming(together, [Part(*each, False) for each in alone])
        assert lanes.extend(count, None).tolist() == [list(range(at, at + count))]
        new = slice(at, at + count)
        got = lanes.layer(0).attend(q[:, :, new], k[:, :, new], v[:, :, new], window)
        torch.testing.assert_close(got, expected[:, :, new])
        at += count
    assert at == width


@pytest.mark.parametrize("window", [2, None])
def test_one_call_for_all_lanes_is_one_by_one(played, window):
    """Guards against a path that only an accelerator takes, and that no test on a CPU would go."""
    played.feed(0, (0, 6), (1, 2), (2, 4))
    lanes = played.lanes
    lanes.coming(3, [])
    lanes.extend(3, None)
    keys, values = lanes.pool.keys[0], lanes.pool.values[0]
    q = torch.randn(4, 3, keys.shape[-1])
    found = [each(keys, values, q, window) for each in (lanes._masked, lanes._one_by_one)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize(
    ("rows", "dtype", "off"), [(1, torch.bfloat16, True), (2, torch.bfloat16, False), (1, torch.float32, False)]
)
def test_thin_rows_leave_no_trace(rows, dtype, off):
    """Guards against a setting of the whole process that stays changed after an error, or is changed for nothing."""
    before = torch.backends.mkldnn.enabled
    inside = []

    def fail():
        with thin(rows, dtype, torch.device("cpu")):
            inside.append(torch.backends.mkldnn.enabled)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside == [before and not off]
    assert torch.backends.mkldnn.enabled == before


def test_lengths_can_be_cut_and_restored(played):
    """Guards against lengths kept twice that disagree."""
    played.feed(0, (0, 6), (1, 4))
    saved = played.lanes.snapshot()
    played.feed(2)
    assert played.lanes.lengths.tolist() == [7, 5, 0, 0]
    played.lanes.restore(saved)
    assert played.lanes.lengths.tolist() == [6, 4, 0, 0]
    played.lanes.truncate(torch.tensor([2, 9, 0, 0]))
    played.lanes.reorder(torch.tensor([1, 0, 2, 3]))
    assert played.lanes.held == [4, 2, 0, 0]


def test_only_caches_that_are_known_have_lanes():
    """Guards against a model being served by a cache that silently mixes its rows."""
    with pytest.raises(AbilityError, match="NoneType"):
        lanes_of(None)


def test_a_lane_of_states_is_copied_whole_swapped_and_cleared():
    """Guards against a state that stays behind, is shared, or is cut."""
    lanes = lanes_of(StateCache([torch.arange(6.0).view(3, 2)]))
    lanes.held = [4, 5, 0]
    lanes.copy(0, 2, 4)
    lanes.swap(0, 1)
    lanes.clear(1)
    assert lanes.pool.states[0].tolist() == [[2, 3], [0, 0], [0, 1]]
    assert lanes.held == [5, 0, 4]
    with pytest.raises(AssertionError, match="cannot be cut"):
        lanes.copy(0, 1, 3)


def test_a_lane_that_is_full_says_so(played):
    """Guards against writing past the end of the cache."""
    played.lanes.coming(0, [Part(0, 33, False)])
    with pytest.raises(AssertionError, match="holds 32"):
        played.lanes.extend(33, None)
