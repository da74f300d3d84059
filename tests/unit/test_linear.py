"""Linear layers: in inference in fp32 the product is made by another library, and must stay the same."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hanlin import machine, runtime
from hanlin.models import gpt2
from hanlin.nn import linear as layers
from hanlin.nn.linear import LEAST, PACKED, Linear, linear, prepack

WIDE, DEEP = 1024, LEAST // 1024  # the smallest matrix that goes to oneDNN


ONEDNN = layers._products()
packs = pytest.mark.skipif(
    not (ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported()), reason="this processor's oneDNN multiplies no bf16"
)


@pytest.fixture(autouse=True)
def abroad(monkeypatch):
    """Have every processor be another's than Intel's."""
    monkeypatch.setattr(layers, "_at_home", lambda: False)


@pytest.fixture
def home(monkeypatch, abroad):
    """Have it be Intel's."""
    monkeypatch.setattr(layers, "_at_home", lambda: True)


@pytest.fixture
def asked(monkeypatch):
    """Return the answers to "does oneDNN make it?" in a list."""
    answers = []
    plain = layers._for_onednn

    def told(x, weight):
        matrix = plain(x, weight)
        answers.append(matrix is not None)
        return matrix

    monkeypatch.setattr(layers, "_for_onednn", told)
    return answers


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 2, 7, 64, 300])
def test_inference_equals_training(asked, rows, bias):
    x, weight, b = drawn(rows, DEEP), drawn(WIDE, DEEP, seed=1), drawn(WIDE, seed=2) if bias else None
    with torch.inference_mode():
        quick = linear(x, weight, b)
    torch.testing.assert_close(quick, linear(x, weight, b), atol=1e-4, rtol=1e-5)
    assert asked == [ONEDNN, False]


@pytest.mark.parametrize(("rows", "made"), [(0, False), (1, False), (7, False), (8, True), (300, True)])
def test_few_rows_stay_with_mkl_where_it_is_at_home(home, asked, rows, made):
    """Guards against one row of fp32 that takes half as long again on Intel's processors."""
    x, weight = drawn(rows, DEEP), drawn(WIDE, DEEP, seed=1)
    with torch.inference_mode():
        torch.testing.assert_close(linear(x, weight), x @ weight.T, atol=1e-4, rtol=1e-5)
    assert asked == [made and ONEDNN]


@pytest.mark.skipif(not ONEDNN, reason="this torch has no oneDNN")
@pytest.mark.parametrize(("rows", "made"), [(1, False), (3, False), (4, True), (8, True), (70, True)])
def test_fp32_has_a_copy_where_mkl_is_at_home(home, asked, rows, made):
    """Guards against eight rows of fp32 that are no faster than torch's, and a copy that is read after a change."""
    layer = prepack(Linear(DEEP, WIDE))
    assert hasattr(layer.weight, PACKED)
    x = drawn(rows, DEEP)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias, atol=1e-4, rtol=1e-5)
        layer.weight.mul_(3)
        torch.testing.assert_close(layer(x), x @ layer.weight.T + layer.bias, atol=1e-4, rtol=1e-5)
    assert asked == [made, rows >= 8]


def test_whose_processor_it_is(monkeypatch, tmp_path):
    """Guards against a guess where the system says nothing."""
    said = {
        "vendor_id\t: GenuineIntel\nflags\t: fpu": True,
        "vendor_id\t: AuthenticAMD\n": False,
        "Hardware: arm": False,
    }
    for text, wanted in said.items():
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(machine, "Path", lambda _: tmp_path / "cpuinfo")
        assert machine.intel() is wanted
    monkeypatch.setattr(machine, "Path", lambda _: tmp_path / "nothing")
    assert machine.intel() is False


CUTS = {
    "last": lambda x: x[:, -1],
    "every other": lambda x: x[:, ::2],
    "turned": lambda x: x.transpose(0, 1),
    "expanded": lambda x: x[:1].expand(5, -1, -1),
    "one": lambda x: x[0, 0],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
def test_views_are_read_as_they_lie(cut):
    x, weight = cut(drawn(4, 6, DEEP)), drawn(DEEP, WIDE, seed=1).T
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight), x @ weight.T, atol=1e-4, rtol=1e-5)


KINDS = [
    (torch.float32, WIDE, True),
    (torch.float32, WIDE - 1, False),
    (torch.bfloat16, WIDE, False),
    (torch.float64, WIDE, False),
]


@pytest.mark.parametrize(("kind", "wide", "made"), KINDS)
def test_large_matrices_in_fp32_go_to_onednn(asked, kind, wide, made):
    with torch.inference_mode():
        assert linear(drawn(2, DEEP).to(kind), drawn(wide, DEEP).to(kind)).dtype == kind
    assert asked == [made and ONEDNN]


def test_gradients_are_torchs():
    ours = Linear(DEEP, WIDE)
    theirs = nn.Linear(DEEP, WIDE)
    theirs.load_state_dict(ours.state_dict())
    x = drawn(3, DEEP)
    for each in (ours, theirs):
        each(x).square().sum().backward()
    assert torch.equal(ours.weight.grad, theirs.weight.grad)
    assert torch.equal(ours.bias.grad, theirs.bias.grad)


def test_drawn_on_the_meta_device():
    with torch.no_grad(), torch.device("meta"):
        assert Linear(DEEP, WIDE)(torch.empty(2, DEEP)).shape == (2, WIDE)


def halved(bias=True):
    """Return a layer in bf16 whose matrix is just large enough."""
    return Linear(DEEP, WIDE, bias=bias).bfloat16()


@packs
@pytest.mark.parametrize("rows", [1, 2, 8, 70])
def test_prepacked_matrices_give_the_same(asked, rows):
    layer = prepack(halved())
    x = drawn(rows, 1, DEEP).bfloat16()
    with torch.inference_mode():
        packed = layer(x)
    torch.testing.assert_close(packed, layer(x))
    assert asked == [rows > 1, False]


@packs
def test_one_row_takes_the_copy_where_mkl_is_at_home(home, asked):
    """Guards against the slower way for a row alone on Intel's processors."""
    layer = prepack(halved())
    x = drawn(1, DEEP).bfloat16()
    with torch.inference_mode(), runtime.thin(1, torch.bfloat16, torch.device("cpu")):
        packed = layer(x)
    torch.testing.assert_close(packed, layer(x))
    assert asked == [True, False]


@packs
def test_a_matrix_that_changed_is_read_anew(asked):
    layer = prepack(halved(bias=False))
    x = drawn(4, DEEP).bfloat16()
    with torch.no_grad():
        before = layer(x)
        layer.weight.mul_(-2)
        torch.testing.assert_close(layer(x), -2 * before)
        layer.float()
        torch.testing.assert_close(layer(x.float()), x.float() @ layer.weight.T, atol=1e-4, rtol=1e-5)
    assert asked == [True, False, ONEDNN]


@packs
def test_only_what_fits_is_copied():
    room = halved().weight.nbytes
    assert hasattr(prepack(halved(), most=room).weight, PACKED)
    assert not hasattr(prepack(halved(), most=room - 1).weight, PACKED)
    assert not hasattr(prepack(Linear(DEEP, WIDE)).weight, PACKED)
    assert not hasattr(prepack(Linear(DEEP, WIDE - 1).bfloat16()).weight, PACKED)


@packs
@pytest.mark.parametrize("tied", [True, False])
def test_the_embedding_is_copied_where_it_is_the_output_matrix(tied):
    model = gpt2.Config(vocab=WIDE, dim=DEEP, layers=1, heads=4, context=LEAST // DEEP, tied=tied).build()
    prepack(model.bfloat16())
    assert hasattr(model.embed.weight, PACKED) == tied
    assert not hasattr(model.positions.weight, PACKED)
    if not tied:
        assert hasattr(model.head.weight, PACKED)


@packs
def test_a_copy_is_never_saved(tmp_path):
    layer = prepack(halved())
    assert list(layer.state_dict()) == ["weight", "bias"]
    torch.save(layer.state_dict(), tmp_path / "layer.pt")
    assert (tmp_path / "layer.pt").stat().st_size < 1.1 * layer.weight.nbytes


def test_another_torch_has_other_names(asked, monkeypatch):
    """Guards against inference that ends with a new release."""
    monkeypatch.setattr(torch.ops, "mkldnn", SimpleNamespace())
    monkeypatch.setattr(layers, "_products", layers._products.__wrapped__)  # what it found before is forgotten
    layer = prepack(halved())
    with torch.inference_mode():
        layer(drawn(2, DEEP).bfloat16())
        layer.float()(drawn(2, DEEP))
    assert asked == [False, False]
