"""The Python door: ours and anyone's folders, answers in the shape asked for, one line for what cannot be."""

from __future__ import annotations

import math
import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import pytest
import tokenizers
import torch
from folders import GPT2, LLAMA, change, same, write
from tokenizers import decoders, models, pre_tokenizers

import hanlin
from hanlin import api, bundle, runtime
from hanlin.errors import HanlinError
from hanlin.generate.sampling import Sampling
from hanlin.models import bart, rnn, t5
from hanlin.text.stream import alphabet
from hanlin.text.tokenizer import byte_level


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder of ours, bytes as tokens."""
    place = tmp_path_factory.mktemp("models") / "ours"
    write(place, config=LLAMA)
    return place


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A model folder that transformers made, whose tokenizer adds no BOS and has none."""
    transformers = pytest.importorskip("transformers")
    transformers.utils.logging.disable_progress_bar()
    place = tmp_path_factory.mktemp("models") / "theirs"
    letters = {letter: id for id, letter in enumerate(sorted(alphabet()))}
    raw = tokenizers.Tokenizer(models.BPE(vocab={**letters, "<|end|>": 256}, merges=[]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|end|>").save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"vocab_size": 257, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    config = transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=256, initializer_range=0.5)
    transformers.GPT2LMHeadModel(config).save_pretrained(place)
    return place


@pytest.fixture
def model(folder):
    return hanlin.load(str(folder))


def told(model, ids):
    """Return the log-probability of each of ids after the first."""
    tokens = torch.tensor([ids])
    with torch.no_grad():
        logits = model.module.logits(model.module(tokens[:, :-1])[0])
    return logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0].tolist()


class TestLoad:
    """Opening."""

    def test_the_parts(self, model, folder):
        """A model in training mode, another tokenizer, a config of another family."""
        assert not model.module.training
        assert model.config == LLAMA.model_copy(update={"extra": model.config.extra})
        assert model.tokenizer.hash == byte_level().hash
        assert model.card["schema"] == 1
        assert same(model.module, hanlin.load(str(folder), precision="fp32").module)
        assert hanlin.load(str(folder), precision="bf16").module.dtype == torch.bfloat16

    @pytest.mark.parametrize(
        ("name", "given", "expected"),
        [
            ("{}/our", {}, "did you mean '{}/ours'"),
            ("nothing", {}, "no such folder"),
            ("{}/ours", {"revision": "main"}, "a folder has no revisions"),
            ("{}/ours", {"precision": "fp8"}, "one of: fp32, bf16"),
            ("{}/ours", {"device": "abacus"}, "'abacus' is not on this machine; here: cpu"),
        ],
    )
    def test_what_cannot_be_is_one_line(self, folder, name, given, expected):
        """A traceback of another library, or the network asked for a mistyped path."""
        with pytest.raises(HanlinError) as caught:
            hanlin.load(name.format(folder.parent), **given)
        (line,) = caught.value.problems
        assert expected.format(folder.parent) in line

    def test_public_names(self):
        """A name in __all__ that is not there; a typo that imports something."""
        assert {getattr(hanlin, name) for name in hanlin.__all__} == {api.load, api.LanguageModel, HanlinError}
        with pytest.raises(AttributeError, match="'hanlin' has no attribute 'laod'"):
            _ = hanlin.laod


class TestGenerate:
    """Writing."""

    def test_the_shape_is_that_of_the_question(self, model):
        """A list of one where a text was asked for; n answers mixed up among prompts."""
        one = model.generate("ab", limit=5, seed=1)
        other = model.generate("翰林", limit=5, seed=1)
        assert isinstance(one, str)
        assert model.generate(["ab", "翰林", "ab"], limit=5, seed=1) == [one, other, one]
        several = model.generate("ab", limit=5, seed=1, n=3)
        assert several[0] == one
        assert len(set(several)) == 3
        assert model.generate(["翰林", "ab"], limit=5, seed=1, n=3)[1] == several
        assert model.generate(("ab",), limit=5, seed=1) == [one]
        assert model.generate([], limit=5) == []

    def test_pieces_join_to_the_answer(self, model):
        """A stream that draws otherwise, shows broken characters, or ends early."""
        for prompt in ("ab", "翰林", ""):
            whole = model.generate(prompt, limit=20, seed=3)
            pieces = list(model.generate(prompt, limit=20, seed=3, stream=True))
            assert "".join(pieces) == whole
            assert all(pieces)
            assert len(pieces) > 1

    def test_the_limit_unsaid_is_what_the_context_leaves(self, model):
        """An answer that does not fit, refused where nobody asked for a length."""
        found = model.answers(["abc"], model.sampling(["abc"], {"temperature": 0}))
        assert len(found[0].ids) == LLAMA.context - 4 or found[0].finish == "stop"  # a BOS and three bytes
        assert model.sampling(["abc", "abcdef"], {}).limit == LLAMA.context - 7
        assert model.sampling(["x" * 99], {}).limit == 0
        assert model.sampling(["abc"], {"limit": 7}).limit == 7

    def test_choices_reach_the_sampler(self, model):
        """A choice that is taken and ignored."""
        assert model.generate("a", limit=3, logit_bias={3 + ord("x"): 100}, temperature=0) == "xxx"
        assert model.generate("a", limit=9, logit_bias={3 + ord("x"): 100}, stop=["xx"]) == ""

    @pytest.mark.parametrize(
        ("prompt", "choices", "expected"),
        [
            ("a", {"stream": True, "n": 2}, "takes one prompt and n=1"),
            (["a", "b"], {"stream": True}, "takes one prompt and n=1"),
            ("a", {"limt": 3}, "generate.limt: unknown key; known: .*did you mean 'limit'"),
            ("a", {"temperature": -1}, "generate.temperature: -1"),
            ("a" * 99, {}, "prompt 0: prompt 100 tokens"),
            ("a" * 99, {"stream": True}, "prompt 0: prompt 100 tokens"),
            ("a", {"limit": 99}, "limit 99 > context 32"),
            ("\udcff", {}, "half a surrogate"),
        ],
    )
    def test_what_cannot_be_is_one_line_at_the_call(self, model, prompt, choices, expected):
        """A stream that fails at its first piece, after the headers of a response are gone."""
        with pytest.raises(HanlinError, match=expected) as caught:
            model.generate(prompt, **choices)
        assert len(caught.value.problems) == 1


class TestScore:
    """Log-probabilities."""

    def test_are_those_of_one_forward(self, model):
        """A first token left out though BOS stands before it, or numbers shifted by one."""
        texts = ["ab", "翰", ""]
        found = model.score(texts)
        for text, scored in zip(texts, found):
            expected = told(model, [0, *(3 + byte for byte in text.encode())])
            assert list(scored.logprobs) == pytest.approx(expected, abs=1e-5)
            assert scored.total == pytest.approx(math.fsum(expected), abs=1e-5)
            assert len(scored.tokens) == len(text.encode())
        assert found[0].tokens == ("a", "b")
        assert found[2].total == 0.0

    def test_given(self, model):
        """A past that is scored too, forgotten, or followed by a second BOS."""
        (scored,) = model.score(["cd"], given="ab")
        ids = [0, *(3 + byte for byte in b"abcd")]
        assert list(scored.logprobs) == pytest.approx(told(model, ids)[-2:], abs=1e-5)
        (whole,), (past,) = model.score(["abcd"]), model.score(["ab"])
        assert whole.total == pytest.approx(past.total + scored.total, abs=1e-5)
        assert model.score(["cd"], given="") == model.score(["cd"])

    def test_without_bos_the_first_token_has_nothing_before_it(self, stranger):
        """A token scored by what follows it, or a crash, where the tokenizer has no BOS."""
        model = hanlin.load(str(stranger))
        ids = list(model.tokenizer.encode("abc").ids)
        (scored,) = model.score(["abc"])
        assert scored.tokens == ("b", "c")
        assert list(scored.logprobs) == pytest.approx(told(model, ids), abs=1e-5)
        assert model.score(["bc"], given="a")[0].logprobs == pytest.approx(scored.logprobs, abs=1e-5)
        assert [each.total for each in model.score(["", "a"])] == [0.0, 0.0]

    def test_a_bos_that_encoding_does_not_add_stands_before_all_the_same(self, stranger, tmp_path):
        """GPT-2's way: the first token scored by nothing, and no answer to an empty prompt."""
        shutil.copytree(stranger, tmp_path, dirs_exist_ok=True)
        change(tmp_path / "tokenizer_config.json", bos_token="<|end|>")
        model = hanlin.load(str(tmp_path))
        ids = list(model.tokenizer.encode("abc").ids)
        assert 256 not in ids
        assert list(model.score(["abc"])[0].logprobs) == pytest.approx(told(model, [256, *ids]), abs=1e-5)
        assert isinstance(model.generate("", limit=2), str)

    @pytest.mark.parametrize(
        ("texts", "expected"),
        [("abc", "a list of texts; write \\[text\\]"), (["x" * 99], "sequence 0: 100 tokens > context")],
    )
    def test_what_cannot_be_is_one_line(self, model, texts, expected):
        """The letters of a text scored one by one; a text cut without a word."""
        with pytest.raises(HanlinError, match=expected) as caught:
            model.score(texts)
        assert len(caught.value.problems) == 1


class TestFeatures:
    """Hidden states."""

    def test_one_row_a_token(self, model):
        """States of the embedding instead of the last layer, offsets in bytes, gradients kept alive."""
        text = "a 翰"
        found = model.features(text)
        with torch.no_grad():
            expected = model.module(torch.tensor([model.tokenizer.encode(text).ids]))[0]
        assert torch.equal(found.states, expected)
        assert not found.states.requires_grad
        assert (found.states.shape, found.states.dtype) == ((6, LLAMA.dim), torch.float32)
        assert len(found.tokens) == len(found.offsets) == 6
        assert found.offsets == ((0, 0), (0, 1), (1, 2), (2, 3), (2, 3), (2, 3))
        assert found.truncated == 0

    def test_precision_is_told_by_the_numbers_not_the_type(self, folder):
        """States in bf16, which numpy does not know."""
        assert hanlin.load(str(folder), precision="bf16").features("a").states.dtype == torch.float32

    def test_what_is_cut_off_is_counted(self, model):
        """A long text shortened without a word."""
        found = model.features("x" * 99)
        assert (len(found.tokens), found.truncated) == (LLAMA.context, 100 - LLAMA.context)

    def test_nothing_has_no_states(self, stranger):
        """A crash on an empty text where the tokenizer adds nothing."""
        found = hanlin.load(str(stranger)).features("")
        assert (found.tokens, found.offsets, tuple(found.states.shape)) == ((), (), (0, 16))


@pytest.mark.parity
class TestStrangers:
    """A plain Hugging Face folder."""

    def test_greedy_text_is_that_of_transformers(self, stranger):
        """Another folder's special tokens, tokenizer or weights read otherwise than their makers do."""
        import transformers

        theirs = transformers.GPT2LMHeadModel.from_pretrained(stranger)
        tokenizer = transformers.AutoTokenizer.from_pretrained(stranger)
        model = hanlin.load(str(stranger))
        assert model.stop_ids == {256}
        for text in ("ab", "a model", "翰林"):
            given = tokenizer(text, return_tensors="pt")
            options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 256}
            ids = theirs.generate(**given, **options)[0, given.input_ids.shape[1] :]
            (ours,) = model.answers([text], model.sampling([text], {"limit": 20, "temperature": 0}))
            assert list(ours.ids) == ids.tolist()
            assert ours.text == tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def test_a_prompt_of_nothing_needs_a_bos(self, stranger, folder):
        """A crash inside the model for an empty prompt."""
        with pytest.raises(HanlinError, match="no tokens; at least one, and this tokenizer adds no BOS"):
            hanlin.load(str(stranger)).generate("")
        assert isinstance(hanlin.load(str(folder)).generate("", limit=3), str)


def test_gpt2_of_ours_opens_too(tmp_path):
    """A door that knows one family."""
    written = write(tmp_path / "gpt2", config=GPT2)
    assert same(hanlin.load(str(tmp_path / "gpt2")).module, written)


@pytest.mark.parametrize("name", ["t5", "bart", "lstm"])
class TestAnswersToASource:
    """Encoder–decoders read a prompt and answer it; by the same door, whole or in pieces."""

    @pytest.fixture
    def opened(self, tmp_path, name):
        sizes = {"vocab": 300, "dim": 16, "layers": 2, "hidden": 24, "context": 64}
        config = {
            "t5": lambda: t5.Config(**sizes, encoder_layers=2, heads=2, head_dim=8),
            "bart": lambda: bart.Config(**sizes, encoder_layers=2, heads=2, start=1, first=5),
            "lstm": lambda: rnn.Config(**{**sizes, "hidden": 16}, encoder="bidirectional", attention="luong"),
        }[name]().model_copy(update={"never": tuple(range(70, 170))})
        module = config.build()
        with torch.no_grad():
            for each in module.parameters():
                each.mul_(8 if name == "bart" else 3)  # so that the source is heard
        bundle.write(tmp_path / name, module, byte_level())
        return hanlin.load(str(tmp_path / name))

    def test_pieces_are_the_whole(self, opened):
        """A stream without the source, an answer that begins with the prompt, a neighbour's source read."""
        prompts = ["one two three", "四", "five"]
        whole = opened.generate(prompts, limit=12, seed=3)
        assert [opened.generate(each, limit=12, seed=3) for each in prompts] == whole
        assert len(set(whole)) == 3
        assert "".join(opened.generate(prompts[0], limit=12, seed=3, stream=True)) == whole[0]

    def test_what_is_withheld_never_comes(self, opened):
        """Tokens that the checkpoint was told never to write."""
        plain = opened.answers(["one"] * 4, Sampling(limit=40, n=4))
        kept = opened.answers(["one"] * 4, opened.sampling(["one"], {"limit": 40, "n": 4}))
        never = set(range(70, 170))
        assert never & {token for each in plain for token in each.ids}
        assert not never & {token for each in kept for token in each.ids}
        told = opened.sampling(["one"], {"logit_bias": {5: 1.0, 80: 0.0}})
        assert (told.logit_bias[5], told.logit_bias[80], told.logit_bias[81]) == (1.0, 0.0, -100.0)
        beam = opened.sampling(["one"], {"beams": 2})
        assert set(beam.suppress) == never

    def test_a_source_beyond_the_context_is_refused(self, opened):
        """A source that is cut in silence."""
        with pytest.raises(HanlinError, match=r"prompt 0: .* tokens"):
            opened.generate("a" * 65)
