"""Mixtures: the shares asked for, repeats that are counted, and every token's document, source and repeat."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from corpora import chinese, content, english, prepare, texts, write

from hanlin.data import shards
from hanlin.data.clean.scripts import of
from hanlin.data.pipeline import mixing, parts
from hanlin.data.pipeline.mixing import Mix
from hanlin.errors import ConfigError
from hanlin.text.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a corpus of two folders and a file: much English, less Chinese, very few notes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts.cut, "__defaults__", (3000,))
    write(tmp_path / "in" / "en" / "a.jsonl", [english(n) for n in range(60)])
    write(tmp_path / "in" / "en" / "b.jsonl", [english(n) for n in range(60, 90)])
    write(tmp_path / "in" / "zh" / "a.jsonl", [chinese(n) for n in range(40)])
    write(tmp_path / "in" / "notes.jsonl", [english(n, 20) for n in range(200, 206)])
    return tmp_path


def shown(folder="out"):
    """Return how often each source stands in the training split."""
    return Counter(shards.open(folder, "train").sources())


class TestShares:
    """What is shown, and how often."""

    def test_weights_are_shares_of_the_tokens(self, folder):
        """Guards against weights that are shares of documents, or that nobody heeds."""
        manifest = prepare(mix=Mix(weights={"en": 1, "zh": 1, "notes": 0}), valid_fraction=0)
        found = manifest.report["mixture"]
        tokens = {name: group["shown_tokens"] for name, group in found.items()}
        assert tokens["notes"] == 0
        assert 0.45 < tokens["en"] / sum(tokens.values()) < 0.55
        assert (found["en"]["share"], found["zh"]["share"]) == (0.5, 0.5)
        assert min(found["en"]["repeats"], found["zh"]["repeats"]) == 1  # nothing with a weight is left out
        assert manifest.report["dropped"][mixing.LEFT_OUT]["count"] == 6
        assert manifest.report["dropped"][mixing.LEFT_OUT]["examples"][0] == "notes.jsonl:1"
        assert sum(tokens.values()) == manifest.splits["train"].tokens
        assert sum(group["shown"] for group in found.values()) == manifest.splits["train"].documents

    def test_the_most_repeats_bound_the_small_and_shrink_the_large(self, folder):
        """Guards against notes that are shown a thousand times."""
        manifest = prepare(mix=Mix(weights={"en": 1, "zh": 1, "notes": 1}, most=3), valid_fraction=0)
        found = manifest.report["mixture"]
        assert found["notes"]["repeats"] == 3
        assert found["en"]["repeats"] < 1
        times = shown()
        assert {times[f"notes.jsonl:{n}"] for n in range(1, 7)} == {3}
        assert manifest.report["dropped"][mixing.LEFT_OUT]["count"] == 96 + 40 - sum(
            source.startswith(("en", "zh", "notes")) for source in times
        )
        report = manifest.report
        assert report["read"] == report["kept"] + sum(each["count"] for each in report["dropped"].values())

    @pytest.mark.parametrize(("temperature", "less"), [(1.0, 0.0), (0.7, 0.01), (0.0, 0.1)])
    def test_temperature_flattens(self, folder, temperature, less):
        """Guards against a temperature that sharpens: 1 changes nothing, 0 makes all equal."""
        tokens = {"en": 90_000, "zh": 10_000}
        shares, repeats = mixing.planned(tokens, Mix(temperature=temperature))
        assert shares["zh"] == pytest.approx(10_000**temperature / (10_000**temperature + 90_000**temperature))
        assert shares["zh"] >= 0.1 + less
        assert (repeats == {"en": 1, "zh": 1}) == (temperature == 1)

    def test_by_language(self, folder):
        """Guards against languages that are told by the names of files."""
        pytest.importorskip("py3langid")
        manifest = prepare(mix=Mix(by="language", temperature=0), valid_fraction=0)
        assert manifest.report["mixture"]["zh"]["documents"] == 40

    def test_held_out_text_is_shown_once(self, folder):
        """Guards against repeats that make an examination easier."""
        prepare("plain")
        prepare(mix=Mix(weights={"en": 1, "zh": 5, "notes": 1}))
        assert texts("out", "valid") == texts("plain", "valid")

    @pytest.mark.parametrize(
        ("weights", "line"),
        [
            ({"en": 1, "zn": 1}, "mix: no source 'zn'; there are: en, notes, zh"),
            ({"en": 1, "zh": 1}, "mix: no weight for 'notes'; add notes=1, or notes=0 to leave it out"),
            ({"en": 0, "zh": 0, "notes": 0}, "mix: every weight is 0"),
        ],
    )
    def test_weights_that_do_not_fit(self, folder, weights, line):
        """Guards against a typo that leaves a source out in silence."""
        with pytest.raises(ConfigError) as caught:
            prepare(mix=Mix(weights=weights))
        assert any(line in each for each in caught.value.problems), caught.value.problems

    def test_spelling(self):
        """Guards against weights that are read in part."""
        assert mixing.parsed("en=2, zh=0.5") == {"en": 2, "zh": 0.5}
        for wrong in ("en", "en=", "=1", "en=x", "en=-1", "en=nan", "en=inf", "en=1,en=2", ""):
            with pytest.raises(ConfigError, match="expected name=weight"):
                mixing.parsed(wrong)


class TestProvenance:
    """Where a token came from."""

    def test_every_span_says_document_source_and_repeat(self, folder):
        """Guards against provenance that is off by one document from the first repeat on."""
        prepare(mix=Mix(weights={"en": 1, "zh": 3, "notes": 3}), valid_fraction=0)
        data, tokenizer = shards.open("out", "train"), Tokenizer.load("out")
        known = {
            f"{name}:{number}": json.loads(line)["text"]
            for name in ("en/a.jsonl", "en/b.jsonl", "zh/a.jsonl", "notes.jsonl")
            for number, line in enumerate(Path("in", name).read_text().splitlines(), start=1)
        }
        seen = Counter()
        for number, origin in enumerate(data.origins()):
            assert tokenizer.decode(data.document(number).tolist()) == known[origin.source]
            assert origin.repeat == seen[origin.source]
            assert origin.group == mixing.name(origin.source)
            seen[origin.source] += 1
        assert max(seen.values()) > 1
        assert data.spans(data.starts[:-1]).tolist() == list(range(data.documents))
        assert data.spans(data.starts[1:] - 1).tolist() == list(range(data.documents))
        assert data.spans(np.zeros((2, 3), np.int64)).shape == (2, 3)

    def test_repeats_are_apart(self, folder):
        """Guards against the same text twice in a row, which a model would learn to repeat."""
        prepare(mix=Mix(temperature=0), valid_fraction=0)
        repeats = [origin.repeat for origin in shards.open("out", "train").origins()]
        assert repeats == sorted(repeats)
        assert repeats[-1] > 0

    def test_the_same_for_any_parts(self, folder, monkeypatch):
        """Guards against a mixture that depends on where the corpus was cut, or changes from run to run."""
        asked = {"mix": Mix(weights={"en": 1, "zh": 2, "notes": 3}), "near": 0.8}
        prepare("one", **asked)
        for size in (700, 10**6):
            monkeypatch.setattr(parts.cut, "__defaults__", (size,))
            prepare("many", **asked)
            assert content("many") == content("one")
        assert prepare("other", seed=1, **asked).hash != prepare("one", **asked).hash


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("The old bridge", "latin"),
        ("旧桥在春天封了", "zh"),
        ("used with 旧桥在春天", "zh"),
        ("春になると古い橋が閉まった", "ja"),
        ("옛 다리는 봄에 닫혔다", "ko"),
        ("Старый мост", "cyrillic"),
        ("الجسر القديم", "arabic"),
        ("1 + 1 = 2 …", "none"),
        ("", "none"),
    ],
)
def test_scripts(text, name):
    """Guards against a script of one language being counted as another's."""
    assert of(text) == name
    assert len(name.encode()) <= 8
