"""The split into train and valid."""

import pytest

from hanlin.data.documents import Document
from hanlin.data.split import split
from hanlin.errors import ConfigError


def document(text: str, **meta: str) -> Document:
    return Document(text=text, source="s", meta=meta)


def test_known_sides() -> None:
    """Guards against a split that changes with the version of Python, the process or the order of documents."""
    sides = [split(document(f"text {number}"), 0.5, 0)[0] for number in range(16)]
    assert "".join(sides) == "tvvvvvvttvttttvv"


def test_fraction() -> None:
    """Guards against a fraction that is not the share of valid documents, and bounds that are off by one side."""
    texts = [document(f"text {number}") for number in range(4000)]
    for fraction in (0.0, 0.05, 0.5):
        share = sum(split(each, fraction, 3) == "valid" for each in texts) / len(texts)
        assert share == pytest.approx(fraction, abs=0.025 if fraction else 0)


def test_groups_stay_together() -> None:
    """Guards against parts of one module, or copies of one text, on both sides."""
    assert len({split(document(f"text {number}", group="g"), 0.5, 0) for number in range(50)}) == 1
    assert split(document("text"), 0.5, 0) == split(document(" text\n"), 0.5, 0)
    assert split(document("a", group="\ud83d"), 0.5, 0) in {"train", "valid"}


def test_seed() -> None:
    """Guards against a seed that changes nothing."""
    texts = [document(f"text {number}") for number in range(50)]
    assert [split(each, 0.5, 0) for each in texts] != [split(each, 0.5, 1) for each in texts]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2.0, float("nan")])
def test_impossible_fraction(fraction: float) -> None:
    """Guards against a fraction that leaves nothing to train on."""
    with pytest.raises(ConfigError, match="valid_fraction"):
        split(document("text"), fraction, 0)
