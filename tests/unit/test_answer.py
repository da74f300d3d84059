"""Answers by hand: windows, offsets, n-best, no answer, files in SQuAD's layout, and every row that cannot be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hanlin.errors import DataError
from hanlin.tasks import answer, rows
from hanlin.tasks.contract import Settles
from hanlin.text.tokenizer import byte_level, train_wordpiece

CONTEXT = "李白 (701–762)  was born 😀 in Suyab, 碎叶城.  " * 3 + "He died in Dangtu."


def asked(context=CONTEXT, answers=None, question="where?", article=None):
    """Return an example."""
    values = {"question": question, "context": context, "answers": answers, "article": article}
    return answer.Config().example({key: value for key, value in values.items() if value is not None})


def pointing(encoded, spans, nothing=0.0):
    """Return scores that point at spans of characters, (start, end, score), in each window that holds them whole."""
    found = []
    for row in encoded:
        scores = np.full((len(row.ids), 2), -9.0)
        scores[0] = nothing / 2
        first, offsets = row.note
        for start, end, score in spans:
            begins = [at for at, (a, b) in enumerate(offsets) if a <= start < b]
            ends = [at for at, (a, b) in enumerate(offsets) if a < end <= b]
            if begins and ends:
                scores[first + begins[0], 0] = scores[first + ends[-1], 1] = score / 2
        found.append(scores)
    return found


@pytest.fixture(scope="module", params=["bytes", "pieces"])
def tokenizer(request):
    return byte_level() if request.param == "bytes" else train_wordpiece([CONTEXT, "where?"] * 3, 300)


class TestWindows:
    @pytest.mark.parametrize("context", [24, 40, 400])
    def test_every_character_is_read_and_the_answer_is_found(self, tokenizer, context):
        """Offsets of a window taken for those of the context; an emoji or 碎 cut in two; the last words never read."""
        task, start = answer.Config(), CONTEXT.index("Dangtu")
        example = asked(answers=[{"text": "Dangtu", "answer_start": start}])
        encoded = task.encode([example], tokenizer, context)
        assert all(len(row.ids) <= context for row in encoded)
        read = {at for row in encoded for a, b in row.note[1] for at in range(a, b)}
        assert {at for at, letter in enumerate(CONTEXT) if not letter.isspace()} <= read
        assert any(row.answer != (0, 0) for row in encoded)
        for row in encoded:
            first, offsets = row.note
            a, b = (place - first for place in row.answer)
            assert row.answer == (0, 0) or CONTEXT[offsets[a][0] : offsets[b][1]].strip() == "Dangtu"
            holds = offsets[0][0] <= start and offsets[-1][1] >= start + 6
            assert (row.answer != (0, 0)) == holds
        found = task.decode(example, encoded, pointing(encoded, [(start, start + 6, 5.0)]), tokenizer)
        assert (found.answer, found.start, found.end) == ("Dangtu", start, start + 6)
        assert found.score == pytest.approx(5.0)

    def test_chinese_and_emoji(self, tokenizer):
        for text in ("碎叶城", "😀", "李白 (701–762)"):
            start = CONTEXT.index(text)
            task, example = answer.Config(longest=60), asked(answers=text)
            encoded = task.encode([example], tokenizer, 400)
            assert encoded[0].answer != (0, 0) or "😀" in text
            if encoded[0].answer == (0, 0):
                continue  # WordPiece has no piece for it
            outputs = pointing(encoded, [(start, start + len(text), 4.0)])
            found = task.decode(example, encoded, outputs, tokenizer)
            assert (found.answer, found.start) == (text, start)
            assert task.score([example], [found])["exact_match"].value == 100

    def test_a_long_question_is_cut_and_counted(self, tokenizer):
        """A question that leaves no room for the passage, or is cut in silence."""
        encoded = answer.Config().encode([asked(question="where? " * 40)], tokenizer, 40)
        assert sum(row.truncated for row in encoded) > 0
        assert all(len(row.ids) <= 40 and len(row.note[1]) > 10 for row in encoded[:-1])
        with pytest.raises(DataError, match=r"plan\.context: 2"):
            answer.Config().encode([asked()], tokenizer, 2)


class TestChoosing:
    def test_best_are_distinct_ordered_and_likely(self):
        example = asked(" Bo met Al in  Rome ")
        task = answer.Config(best=3)
        encoded = task.encode([example], byte_level(), 64)
        found = task.decode(example, encoded, pointing(encoded, [(1, 3, 4.0), (15, 19, 2.0)]), byte_level())
        assert [each.text for each in found.best][:2] == ["Bo", "Bo met Al in  Rome"]
        assert len({(each.start, each.end) for each in found.best}) == 3
        assert [each.score for each in found.best] == sorted((each.score for each in found.best), reverse=True)
        assert sum(each.probability for each in found.best) < 1
        short = task.model_copy(update={"longest": 4})
        again = short.decode(example, encoded, pointing(encoded, [(1, 3, 4.0), (15, 19, 2.0)]), byte_level())
        assert [each.text for each in again.best][:2] == ["Bo", "Rome"]

    def test_spans_never_begin_after_they_end(self):
        example, task = asked("abc def"), answer.Config(longest=50)
        encoded = task.encode([example], byte_level(), 64)
        scores = pointing(encoded, [])
        first = encoded[0].note[0]
        scores[0][first + 5, 0] = scores[0][first + 1, 1] = 20.0
        best = task.decode(example, encoded, scores, byte_level()).best
        assert len(best) == 5
        assert all(each.start < each.end and each.text == "abc def"[each.start : each.end] for each in best)

    def test_the_threshold_is_learned_from_questions_without_answer(self):
        """One learned where all have answers; one with the wrong sign; the cut-off answer lost to the next curve."""
        task = answer.Config()
        examples = [asked("Bo", "Bo"), asked("Al", "Al"), asked("Cy", []), asked("Di", [])]
        assert isinstance(task, Settles)
        predictions = []
        for example, gain in zip(examples, (6.0, 5.0, 3.0, -2.0)):
            encoded = task.encode([example], byte_level(), 64)
            predictions.append(task.decode(example, encoded, pointing(encoded, [(0, 2, gain)]), byte_level()))
        assert [each.answer for each in predictions] == ["Bo", "Al", "Cy", "Di"]
        assert task.settled(examples[:2], predictions[:2]) == task
        settled = task.settled(examples, predictions)
        assert settled.threshold == pytest.approx(5.0)
        encoded = settled.encode(examples[2:3], byte_level(), 64)
        silent = settled.decode(examples[2], encoded, pointing(encoded, [(0, 2, 3.0)]), byte_level())
        assert (silent.answer, silent.start, silent.best[0].text) == ("", None, "Cy")
        curve = settled.abstention(examples, [*predictions[:2], silent, predictions[3]])
        assert curve.f1[curve.best] == 100
        assert (curve.answered[0], curve.answered[-1]) == (1, 0)

    def test_each_rule_scores_its_way(self):
        example, given = asked("在北京大学。", "在北京大学"), answer.Prediction(answer="北京大学。")
        assert answer.Config().score([example], [given])["f1"].value == 0
        cmrc = answer.Config(rule="cmrc").score([example], [given])
        assert cmrc["f1"].value == pytest.approx(100 * 8 / 9)
        silent = answer.Config(rule="cmrc").score([example, asked("a", [])], [given, answer.Prediction(answer="")])
        assert silent["f1_unanswerable"].value == 100

    def test_articles_move_together(self):
        examples = [asked("Bo", "Bo", article="a"), asked("Bo", "Bo", article="a"), asked("Bo", "Bo", article="b")]
        given = [answer.Prediction(answer=each) for each in ("Bo", "", "Bo")]
        assert answer.Config().score(examples, given)["f1"].n == 2


def nested(**changed):
    """Return a file in SQuAD's layout: two articles, three questions, the last without answer."""
    first = {"id": "1", "question": "who?", "answers": [{"text": "Bo", "answer_start": 0}]}
    second = {"id": "2", "question": "where?", "answers": [{"text": "Rome", "answer_start": 6}], **changed}
    third = {"id": "3", "question": "why?", "answers": [], "is_impossible": True}
    articles = [
        {"title": "Bo", "paragraphs": [{"context": "Bo in Rome", "qas": [first, second]}]},
        {"title": "Al", "paragraphs": [{"context": "Al and Cy.", "qas": [third]}]},
    ]
    return {"version": "1.1", "data": articles}


class TestFiles:
    def test_nested_flat_and_lists(self, tmp_path):
        (tmp_path / "a.json").write_text(json.dumps(nested()))
        found, _ = rows.examples(answer.Config(), tmp_path / "a.json", {}, labelled=True)
        assert [(each.question, each.answers, each.article) for each in found] == [
            ("who?", (("Bo", 0),), "Bo"),
            ("where?", (("Rome", 6),), "Bo"),
            ("why?", (), "Al"),
        ]
        flat = [
            {"question": each.question, "passage": each.context, "answers": [a for a, _ in each.answers]}
            for each in found
        ]
        (tmp_path / "b.jsonl").write_text("".join(json.dumps(each) + "\n" for each in flat))
        (tmp_path / "c.json").write_text(json.dumps({"rows": flat}))
        for name in ("b.jsonl", "c.json"):
            again, taken = rows.examples(answer.Config(), tmp_path / name, {}, labelled=True)
            assert [each.answers for each in again] == [each.answers for each in found]
            assert taken["context"] == "passage"

    def test_questions_asked_elsewhere(self, tmp_path):
        """A passage of the same article; one that holds the answer; questions made again when a bundle reads a file."""
        path = tmp_path / "a.json"
        path.write_text(json.dumps(nested()))
        task = answer.Config(elsewhere=1.0)
        found, _ = rows.examples(task, path, {}, labelled=True)
        assert [(each.question, each.article, bool(each.answers)) for each in found][:4] == [
            ("who?", "Bo", True),
            ("who?", "Bo", False),
            ("where?", "Bo", True),
            ("where?", "Bo", False),
        ]
        assert {each.context for each in found[1:4:2]} == {"Al and Cy."}
        assert rows.examples(task, path, {}, labelled=True)[0] == found
        assert len(rows.examples(task.fitted(found), path, {}, labelled=True)[0]) == 3
        (tmp_path / "b.jsonl").write_text(json.dumps({"question": "a", "context": "b", "answers": []}) + "\n")
        with pytest.raises(DataError, match="articles are not told apart"):
            rows.examples(task, tmp_path / "b.jsonl", {}, labelled=True)

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            (
                {"answers": [{"text": "Rome", "answer_start": 5}]},
                "'Rome' at 5, where the context is ' Rom'; it stands at 6",
            ),
            ({"answers": [{"text": "Rom", "answer_start": -4}]}, "'Rom' at -4"),
            ({"answers": [{"text": "Paris", "answer_start": 0}]}, "it is not in the context"),
            ({"answers": [{"text": "", "answer_start": 0}]}, "a text, and the character"),
            ({"answers": [{"text": "Rome", "answer_start": "6"}]}, "a text, and the character"),
            ({"answers": "Rome"}, "no list of objects"),
            ({"question": " "}, "question: empty"),
            ({"question": None}, "no context or no question"),
        ],
    )
    def test_a_bad_row_is_named_in_one_line(self, tmp_path, changed, said):
        path = tmp_path / "a.json"
        path.write_text(json.dumps(nested(**changed)))
        with pytest.raises(DataError) as caught:
            rows.examples(answer.Config(), path, {}, labelled=True)
        (line,) = caught.value.problems
        assert line.startswith(f"{path}:2: ")
        assert said in line

    def test_no_answers_at_all(self):
        with pytest.raises(DataError, match="no answers"):
            answer.Config().fitted([asked("a", [])])
