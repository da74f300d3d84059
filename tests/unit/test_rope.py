"""Rotary positions against the definition, written out in complex numbers."""

from __future__ import annotations

import cmath
import math

import pytest
import torch

from hanlin.errors import ConfigError
from hanlin.nn import rope
from hanlin.nn.rope import Rope, frequencies, rotate, turn

KINDS = {
    "default": Rope(theta=500.0),
    "linear": Rope(theta=100.0, kind="linear", factor=3.0),
    "llama3": Rope(theta=100.0, kind="llama3", factor=8.0, low_factor=1.0, high_factor=4.0, original_context=16),
    "yarn": Rope(theta=100.0, kind="yarn", factor=4.0, original_context=64, beta_fast=9.0, truncate=False, mscale=2.0),
}


def vectors(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def turned(x, positions, kind="default"):
    rates = frequencies(KINDS[kind], x.shape[-1]).double()
    angles = positions[:, None, :, None].double() * rates
    both = torch.cat((angles, angles), -1)
    return rotate(x, (both.cos(), both.sin()))


class TestRotation:
    """Turning queries and keys."""

    def test_each_pair_turns_by_its_own_angle(self):
        """Pairs taken side by side instead of half a head apart, the wrong sign, theta to the wrong power."""
        x = vectors(1, 1, 3, 6)
        found = rotate(x, turn(torch.tensor([[0, 1, 7]]), frequencies(Rope(theta=500.0), 6), torch.float64))
        for at, position in enumerate((0, 1, 7)):
            for pair in range(3):
                first, second = x[0, 0, at, pair].item(), x[0, 0, at, pair + 3].item()
                expected = complex(first, second) * cmath.exp(1j * position * 500.0 ** (-2 * pair / 6))
                got = complex(found[0, 0, at, pair].item(), found[0, 0, at, pair + 3].item())
                assert cmath.isclose(got, expected, rel_tol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    def test_only_the_distance_counts(self, kind):
        """A score that changes when both move, or that does not change with the distance."""
        q, k = vectors(1, 2, 1, 10), vectors(1, 2, 1, 10, seed=1)

        def score(at, other):
            return (turned(q, torch.tensor([[at]]), kind) * turned(k, torch.tensor([[other]]), kind)).sum(-1)

        torch.testing.assert_close(score(5, 3), score(105, 103))
        assert not torch.allclose(score(5, 3), score(5, 2))

    def test_length_stays(self):
        x = vectors(2, 3, 5, 8)
        torch.testing.assert_close(turned(x, torch.arange(5)[None].expand(2, 5)).norm(dim=-1), x.norm(dim=-1))

    def test_rows_have_their_own_positions(self):
        """The first row's positions used for all."""
        x = vectors(1, 1, 2, 4).expand(2, 1, 2, 4)
        both = turned(x, torch.tensor([[0, 1], [4, 9]]))
        torch.testing.assert_close(both[1:], turned(x[1:], torch.tensor([[4, 9]])))
        torch.testing.assert_close(both[:1], turned(x[:1], torch.tensor([[0, 1]])))

    def test_angles_are_not_rounded_to_the_models_type(self):
        """Positions in bf16: all from 256 on are even."""
        cos, _ = turn(torch.tensor([[1001]]), torch.tensor([1.0]), torch.bfloat16)
        assert cos.dtype == torch.bfloat16
        assert math.isclose(float(cos[0, 0, 0, 0]), math.cos(1001), abs_tol=2e-3)


class TestFrequencies:
    """How fast each pair turns."""

    def test_plain(self):
        expected = [10000.0 ** (-i / 32) for i in range(0, 32, 2)]
        torch.testing.assert_close(frequencies(Rope(), 32), torch.tensor(expected))

    def test_linear_divides(self):
        torch.testing.assert_close(frequencies(Rope(kind="linear", factor=4.0), 8), frequencies(Rope(), 8) / 4)

    def test_llama3_by_wavelength(self):
        """The three ranges in the wrong order, the blend upside down, low and high exchanged."""
        config = Rope(theta=500000.0, kind="llama3", factor=8.0, original_context=8192)
        plain, found = frequencies(Rope(theta=500000.0), 128), frequencies(config, 128)
        seen = set()
        for before, after in zip(plain.tolist(), found.tolist()):
            wavelength = 2 * math.pi / before
            if wavelength < 8192 / 4:
                expected = before
                seen.add("short")
            elif wavelength > 8192 / 1:
                expected = before / 8
                seen.add("long")
            else:
                share = (8192 / wavelength - 1) / (4 - 1)
                expected = (1 - share) * before / 8 + share * before
                seen.add("between")
            assert math.isclose(after, expected, rel_tol=1e-5)
        assert seen == {"short", "long", "between"}

    def test_yarn_by_turns(self):
        """Fast pairs slowed or slow ones left alone, a blend that is upside down, borders rounded the wrong way."""
        config = Rope(theta=10000.0, kind="yarn", factor=4.0, original_context=4096)
        plain, found = frequencies(Rope(), 128), frequencies(config, 128)
        turns = [4096 * rate / (2 * math.pi) for rate in plain.tolist()]
        low, high = 20, 46  # the pairs that make 32 turns and 1, 20.9 and 45.0 by the formula, rounded outwards
        assert turns[low] > 32 > turns[low + 1]
        assert turns[high - 1] > 1 > turns[high]
        for pair, (before, after) in enumerate(zip(plain.tolist(), found.tolist())):
            share = min(1.0, max(0.0, (pair - low) / (high - low)))
            assert math.isclose(after, (1 - share) * before + share * before / 4, rel_tol=1e-5)

    def test_only_yarn_sharpens(self):
        """Attention as flat at four times the context as if it had been trained there."""
        assert [rope.scale(KINDS[kind]) for kind in ("default", "linear", "llama3")] == [1.0] * 3
        plain = Rope(kind="yarn", factor=4.0)
        assert rope.scale(plain) == pytest.approx(0.1 * math.log(4) + 1)
        assert rope.scale(plain.model_copy(update={"attention_factor": 0.8})) == 0.8
        weighted = plain.model_copy(update={"mscale": 2.0, "mscale_all_dim": 1.0})
        assert rope.scale(weighted) == pytest.approx((0.2 * math.log(4) + 1) / (0.1 * math.log(4) + 1))
        one, two = (rope.turn(torch.tensor([[3]]), torch.tensor([0.5]), torch.float32, each) for each in (1.0, 2.0))
        assert all(torch.equal(2 * a, b) for a, b in zip(one, two))


class TestConfig:
    """The two spellings."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_written_and_read(self, kind):
        """A field that one spelling forgets."""
        json = rope.to_hf(KINDS[kind])
        known = {"theta", "kind", *rope._KINDS[kind], *rope._CHOICES.get(kind, ())}
        for keys in (("rope_theta", "rope_scaling"), ("rope_parameters",), tuple(json)):
            found = rope.from_hf({key: json[key] for key in keys})
            assert {name: getattr(found, name) for name in known} == {
                name: getattr(KINDS[kind], name) for name in known
            }

    def test_nothing_said(self):
        assert rope.from_hf({}) == rope.from_hf({"rope_theta": None, "rope_scaling": None}) == Rope()
        assert rope.from_hf({"rope_scaling": {}}, theta=7.0) == Rope(theta=7.0)

    def test_theta_inside_counts(self):
        """The outer theta over the one that stands with the scaling."""
        assert rope.from_hf({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 6.0}}).theta == 6.0

    @pytest.mark.parametrize(
        "given",
        [3, [1], {"rope_type": []}, {"rope_type": {}}, {"rope_type": "yarn"}, {"type": None}, {"type": "linear"}]
        + [{"type": "linear", "factor": factor} for factor in (0, -1, "2", None, float("nan"), 10**400, 0.5, True)]
        + [{"type": "default", "more": 1}],
    )
    def test_what_cannot_be_is_one_line(self, given):
        """A traceback, or a scaling left out in silence."""
        with pytest.raises(ConfigError, match=r"config\.json: rope_scaling"):
            rope.from_hf({"rope_scaling": given})
