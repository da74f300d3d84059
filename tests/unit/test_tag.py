"""Tagging by hand: schemes, words, offsets, windows, files, and every row that cannot be."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from hanlin.batch import IGNORE
from hanlin.errors import DataError
from hanlin.tasks import rows, tag
from hanlin.tasks.reading import schemes, words
from hanlin.tasks.reading.windows import home, windows
from hanlin.text.tokenizer import byte_level, train_wordpiece

BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")


def fitted(values, **settings):
    """Return a task fitted to rows, and their examples."""
    task = tag.Config(**settings)
    examples = [task.example(each) for each in values]
    return task.fitted(examples), examples


def told(task, example, labels, tokenizer=None, context=64):
    """Return the prediction for scores that say, of each word, the label of the list, wherever its window is."""
    encoded = task.encode([example], tokenizer or byte_level(), context)
    outputs = []
    for row in encoded:
        scores = np.full((len(row.ids), len(task.tags)), -5.0)  # what is not read from a word's place says nothing
        for word, place in row.note:
            scores[place] = [3.0 * (name == labels[word]) for name in task.tags]
        outputs.append((scores, None))
    return task.decode(example, encoded, outputs, tokenizer or byte_level()), encoded


class TestSchemes:
    def test_schemes_are_told_apart(self):
        assert schemes.scheme_of({"O", "B-A", "I-A"}) == "bio"
        assert schemes.scheme_of({"O", "B-A", "M-A", "E-A", "S-A"}) == "bioes"
        assert (
            schemes.scheme_of({"NOUN", "VERB"}) == schemes.scheme_of({"O"}) == schemes.scheme_of({"B-", "O"}) == "plain"
        )
        assert schemes.complete({"O", "B-A"}, "bio") == ("O", "B-A", "I-A")
        assert schemes.complete({"S-名", "M-名"}, "bioes") == ("O", "B-名", "M-名", "E-名", "S-名")
        assert schemes.letters_of({"L-A", "U-A"}, "bioes") == ("B", "I", "L", "U")

    @pytest.mark.parametrize("letters", [("B", "I", "I", "B"), ("B", "M", "E", "S"), ("B", "I", "L", "U")])
    def test_spans_come_back_from_their_tags(self, letters):
        spans = {(0, 1, "A"), (1, 4, "A"), (5, 7, "B")}
        tags = schemes.written(spans, 8, letters)
        assert schemes.spans(tags, "bio" if letters[1] == letters[2] else "bioes", strict=True) == spans

    def test_what_may_follow(self):
        """By hand: I-X after B-X and I-X alone; nothing of BIOES left open at the end."""
        may = schemes.follows(BIO, "bio")
        assert [BIO[at] for at in range(5) if may[at, 2]] == ["B-X", "I-X"]
        assert may[-1].tolist() == [True, True, False, True, False, True]
        labels = ("O", "B-X", "M-X", "E-X", "S-X")
        may = schemes.follows(labels, "bioes")
        assert may[1].tolist() == may[2].tolist() == [False, False, True, True, False, False]
        assert may[3].tolist() == may[0].tolist() == [True, True, False, False, True, True]

    @pytest.mark.parametrize("labels", [BIO, ("O", "B-X", "I-X", "E-X", "S-X")])
    def test_viterbi_is_the_best_of_all_legal_sequences(self, labels):
        scheme = "bio" if labels is BIO else "bioes"
        may, draws = schemes.follows(labels, scheme), np.random.default_rng(0)
        for length in (1, 2, 4):
            scores = draws.normal(size=(length, 5))
            legal = [
                each
                for each in itertools.product(range(5), repeat=length)
                if all(may[a, b] for a, b in itertools.pairwise([-1, *each, -1]))
            ]
            best = max(legal, key=lambda each: sum(scores[at, one] for at, one in enumerate(each)))
            assert schemes.likeliest(scores, may) == list(best)
        assert schemes.likeliest(np.zeros((0, 5)), may) == []


class TestWindows:
    @pytest.mark.parametrize(("length", "room", "overlap"), [(10, 6, 2), (6, 6, 2), (7, 6, 5), (0, 4, 1), (31, 5, 0)])
    def test_every_token_is_read_and_neighbours_overlap(self, length, room, overlap):
        found = windows(length, room, overlap)
        assert {place for start, end in found for place in range(start, end)} == {*range(length)}
        assert all(end - start <= room for start, end in found)
        assert all(a[1] - b[0] >= overlap and b[0] > a[0] for a, b in itertools.pairwise(found))

    def test_a_token_is_told_where_most_is_seen_around_it(self):
        found = windows(10, 6, 2)
        assert [home(place, found) for place in range(10)] == [0] * 5 + [1] * 5
        assert windows(8, 5, 2, starts=[True, True, False, False, True, True, True, True])[1] == (1, 6)

    @pytest.mark.parametrize("context", [8, 12, 64])
    def test_long_texts_are_never_cut(self, context):
        """A word in no window, or in two; offsets of a window taken for the text's."""
        text = "Ada 遇见了 李白😀 and " * 6 + "Bo"
        task, (example, _) = fitted([{"text": text, "tags": [[0, 3, "X"]]}, {"text": "b", "tags": []}])
        cut = words.found(text, task.unit)
        labels = ["B-X" if text[a:b] in ("Ada", "李", "Bo") else "I-X" if text[a:b] == "白" else "O" for a, b in cut]
        found, encoded = told(task, example, labels, context=context)
        assert (len(encoded) > 1) == (context < 64 or len(encoded) > 1)
        assert sorted(word for row in encoded for word, _ in row.note) == list(range(len(cut)))
        assert all(len(row.ids) <= context and row.truncated == 0 for row in encoded)
        assert sum(each != IGNORE for row in encoded for each in row.targets) == len(cut)
        assert [each.text for each in found.spans] == ["Ada", "李白"] * 6 + ["Bo"]
        assert all(text[each.start : each.end] == each.text for each in found.spans)


class TestWords:
    def test_lists_are_joined_as_their_language_is_written(self):
        assert words.given(["EU", "rejects", "German"])[0] == "EU rejects German"
        assert words.given(["李", "白", "P", "M", "来", "了"])[0] == "李白PM来了"
        assert words.given(["中国", "人民", "loves", "it"])[0] == "中国人民 loves it"

    def test_what_clings_stays(self):
        """An accent, a joined emoji or a keycap cut in two."""
        for text in ("e\u0301", "👩\u200d💻", "❤\ufe0f"):
            assert words.found(text, "character") == words.found(text, "word") == ((0, len(text)),)
        assert [a for a, _ in words.found(" \u3000a\tb", "character")] == [2, 4]

    def test_the_first_token_of_each_word(self):
        """The place of another word's token, where words have several tokens or share one."""
        cut = ((0, 2), (3, 4), (4, 6))  # read as "ab c de"
        assert words.first_tokens(cut, [(0, 1), (1, 2), (2, 4), (5, 6), (6, 7)]) == [0, 2, 3]
        assert words.first_tokens(cut, [(0, 4), (5, 7)]) == [0, 0, 1]
        assert words.first_tokens(cut, [(0, 2), (5, 7)]) == [0, None, 1]

    def test_labels_of_wordpieces_stand_at_their_first(self):
        """Digits and Latin letters that a tokenizer glues, of characters that are labelled one by one."""
        tokenizer = train_wordpiece(["1998 年 生 PMI 会 员 " * 3], 300)
        values = [{"text": list("1998年PMI会员"), "tags": ["O"] * 5 + ["B-X", "M-X", "M-X", "M-X", "E-X"]}]
        task, (example,) = fitted(values)
        assert (task.unit, task.scheme) == ("character", "bioes")
        (row,) = task.encode([example], tokenizer, 64)
        assert [task.labels[each] for each in row.targets if each != IGNORE] == list(example.tags)
        found, _ = told(task, example, example.tags, tokenizer)
        assert [(each.start, each.end, each.text) for each in found.spans] == [(5, 10, "PMI会员")]
        assert found.tags == example.tags


class TestDecoding:
    def test_repaired_as_conlleval_or_legal(self):
        values = [{"text": list("abcd"), "tags": ["B-X", "I-X", "B-Y", "O"]}]
        task, (example,) = fitted(values)
        found, _ = told(task, example, ["I-X", "I-X", "I-Y", "O"])
        assert found.tags == ("B-X", "I-X", "B-Y", "O")
        assert [(each.start, each.label) for each in found.spans] == [(0, "X"), (4, "Y")]
        legal, _ = told(task.model_copy(update={"legal": True}), example, ["I-Y", "I-X", "I-X", "O"])
        assert legal.tags == ("B-X", "I-X", "I-X", "O")

    def test_scores_by_hand(self):
        values = [{"text": list("abcd"), "tags": ["B-X", "I-X", "O", "B-Y"], "intent": "go"}]
        task, (example,) = fitted(values, joint=False)
        found, _ = told(task, example, ["B-X", "I-X", "B-Y", "O"])
        assert task.score([example], [found])["f1"].value == task.marks([example], [found])[0] == 0.5
        joint, (example,) = fitted(values)
        found = found.model_copy(update={"intent": "go"})
        scores = joint.score([example], [found])
        assert (joint.main, scores["slot_f1"].value, scores["intent_accuracy"].value) == ("slot_f1", 0.5, 1.0)
        assert joint.labels[-1] == "intent:go"
        plain, (example,) = fitted([{"text": ["a", "b"], "tags": "NOUN VERB"}])
        found = tag.Prediction(tags=("NOUN", "NOUN"))
        assert plain.score([example], [found])["accuracy"].value == plain.marks([example], [found])[0] == 0.5


CONLL = "-DOCSTART- O\n\nEU NNP B-ORG\nrejects VBZ O\n\n\n-DOCSTART- O\n\nPeter NNP B-PER\n"
UD = "# text = Don't go\n1-2\tDon't\t_\t_\n1\tDo\tdo\tAUX\n2\tn't\tnot\tPART\n3\tgo\tgo\tVERB\n\n"


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "text", "expected"),
        [
            ("a.conll", CONLL, [("EU rejects", "B-ORG O", "1"), ("Peter", "B-PER", "2")]),
            ("a.txt", "李 B-PER\n白 I-PER\n来 O\n", [("李白来", "B-PER I-PER O", None)]),
            ("a.txt", "good movie\nbad movie\n", [("good movie", None, None), ("bad movie", None, None)]),
            ("a.conllu", UD, [("Do n't go", "AUX PART VERB", None)]),
            ("a.csv", "text,tags\nAda met,B-X O\n", [("Ada met", "B-X O", None)]),
        ],
    )
    def test_columns(self, tmp_path, name, text, expected):
        (tmp_path / name).write_text(text, encoding="utf-8")
        labelled = expected[0][1] is not None
        found, _ = rows.examples(tag.Config(), tmp_path / name, {}, labelled=labelled)
        assert [(each.text, each.tags and " ".join(each.tags), each.document) for each in found] == expected

    def test_spans_in_three_forms(self):
        """CLUENER's last character is inside; others' end is one past it."""
        forms = ([[1, 3, "P"]], [{"start": 1, "end": 3, "label": "P", "text": "李白"}], {"P": {"李白": [[1, 2]]}})
        assert {tag.Config().example({"text": "是李白", "tags": each}).spans for each in forms} == {((1, 3, "P"),)}

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"text": ["a", "b"], "tags": ["O"]}, "1 tags for 2 words"),
            ({"text": "是李白", "tags": {"P": {"李白": [[0, 1]]}}}, "where the text is '是李'; it stands at 1"),
            ({"text": "ab", "tags": [[0, 3, "P"]]}, "span from 0 to 3"),
            ({"text": "abc", "tags": [[0, 2, "P"], [1, 3, "Q"]]}, "overlap"),
            ({"text": [], "tags": []}, "empty: no words"),
            ({"text": " ", "tags": []}, "empty"),
            ({"text": ["a", ""], "tags": ["O", "O"]}, "word 2 is empty"),
            ({"text": ["a"], "tags": [[0, 1, "P"]]}, "a tag a word"),
            ({"text": "a", "tags": [7]}, "tags, or spans"),
            ({"text": 3, "tags": ["O"]}, "text, or a list of words"),
            ({"text": "a\ud800", "tags": []}, "surrogate"),
        ],
    )
    def test_a_bad_row_is_named_in_one_line(self, tmp_path, row, said):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(each) + "\n" for each in ({"text": ["a"], "tags": ["O"]}, row)))
        with pytest.raises(DataError) as caught:
            rows.examples(tag.Config(), path, {}, labelled=True)
        (line,) = caught.value.problems
        assert line.startswith(f"{path}:2: ")
        assert said in line

    def test_uneven_columns(self, tmp_path):
        (tmp_path / "a.bio").write_text("a O\nb\n\nc O\n")
        with pytest.raises(DataError, match=r"a\.bio:1: 1 columns in line 2, not 2"):
            rows.examples(tag.Config(), tmp_path / "a.bio", {}, labelled=True)


class TestLabels:
    def test_a_label_or_intent_only_in_dev(self):
        task, _ = fitted([{"text": ["a"], "tags": ["B-PER"], "intent": "tell"}])
        for row in (
            {"text": ["b"], "tags": ["B-PEX"], "intent": "tell"},
            {"text": ["b"], "tags": ["O"], "intent": "tall"},
        ):
            dev = task.example(row)
            with pytest.raises(DataError, match=r"row 1 \('b'\): (label 'B-PEX'|intent 'tall').*did you mean"):
                task.encode([dev], byte_level(), 32)
            (encoded,) = task.model_copy(update={"unseen": "miss"}).encode([dev], byte_level(), 32)
            assert (encoded.answer == IGNORE) != ({*encoded.targets} == {IGNORE})
        assert task.encode([task.example({"text": ["b"], "tags": ["I-PER"], "intent": "tell"})], byte_level(), 32)

    @pytest.mark.parametrize(
        ("values", "said"),
        [
            ([{"text": ["a"], "tags": ["O"]}], "no labels but O"),
            ([{"text": "a"}], "no labels"),
            (
                [{"text": ["a"], "tags": ["B-X"], "intent": "i"}, {"text": ["b"], "tags": ["O"]}],
                r"row 2 \('b'\): no intent",
            ),
        ],
    )
    def test_what_cannot_be_learned_from(self, values, said):
        with pytest.raises(DataError, match=said):
            fitted(values)

    def test_a_context_that_holds_no_word(self):
        task, examples = fitted([{"text": ["a"], "tags": ["B-X"]}])
        with pytest.raises(DataError, match=r"plan\.context: 2"):
            task.encode(examples, byte_level(), 2)
