"""Rows of files as they stand there, the guess of columns, the split, and batches of encoded rows."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
import zstandard

from hanlin.errors import ConfigError, DataError
from hanlin.tasks import classify, rows
from hanlin.tasks.batches import Bucketed, grouped, in_turn
from hanlin.tasks.contract import Row

TASK = classify.Config()


def written(path, content):
    """Write text or bytes; return the path."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def values(path):
    return [dict(raw.values) for raw in rows.read(path)]


class TestRead:
    """Every kind of table."""

    def test_csv_keeps_quoted_commas_quotes_and_lines(self, tmp_path):
        """A cell cut at its comma, and numbers of rows that are not lines of the file."""
        path = written(tmp_path / "a.csv", 'text,label\n"one, ""two""\nthree",up\n好，坏,down\n')
        found = list(rows.read(path))
        assert [dict(each.values) for each in found] == [
            {"text": 'one, "two"\nthree', "label": "up"},
            {"text": "好，坏", "label": "down"},
        ]
        assert [each.number for each in found] == [3, 4]

    def test_tsv_takes_quotation_marks_for_text(self, tmp_path):
        """A quotation mark in a review that swallows the rows after it."""
        path = written(tmp_path / "a.tsv", 'text\tlabel\n"so good\tup\nbad"\tdown\n')
        assert [each["text"] for each in values(path)] == ['"so good', 'bad"']

    @pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
    def test_a_byte_order_mark_and_packing(self, tmp_path, ending):
        """A first column that no one can name."""
        content = "\ufefftext,label\na,1\n".encode()
        pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}[ending]
        assert values(written(tmp_path / f"a.csv{ending}", pack(content))) == [{"text": "a", "label": "1"}]

    def test_parquet(self, tmp_path):
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.table({"text": ["a", "好"], "label": [1, None]}), tmp_path / "a.parquet")
        assert values(tmp_path / "a.parquet") == [{"text": "a", "label": 1}, {"text": "好", "label": None}]
        with pytest.raises(DataError, match="damaged"):
            list(rows.read(written(tmp_path / "b.parquet", b"PAR1 nothing")))

    def test_json_lists_and_lines(self, tmp_path):
        listed = json.dumps({"version": 1, "data": [{"text": "a"}, 3]})
        found = list(rows.read(written(tmp_path / "a.json", listed)))
        assert [each.error for each in found] == ["", "not an object"]
        found = list(rows.read(written(tmp_path / "a.jsonl", '{"text": "a"}\n\n{"text": \n')))
        assert [(each.number, bool(each.error)) for each in found] == [(1, False), (3, True)]

    def test_ragged_rows_are_told_and_not_shifted(self, tmp_path):
        """A row of too few cells whose label is taken from its neighbour."""
        found = list(rows.read(written(tmp_path / "a.csv", "text,label\na\nb,1,2\nc,1\n")))
        assert [each.error for each in found] == ["1 fields, the head names 2", "3 fields, the head names 2", ""]

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.csv", "text,text\na,b\n", "the names of the columns"),
            ("a.csv", "", "the names of the columns"),
            ("a.csv", b"text\n\xff\xfe\n", "not UTF-8 at byte"),
            ("a.csv.gz", b"no gzip", "cannot be read"),
            ("a.docx", "x", "a file ending in '.docx'"),
            ("a.json", '{"a": 1}', "no list of rows"),
        ],
    )
    def test_what_is_no_table(self, tmp_path, name, content, said):
        with pytest.raises(DataError, match=said):
            list(rows.read(written(tmp_path / name, content)))

    def test_a_name_misspelt(self, tmp_path):
        written(tmp_path / "reviews.csv", "text\na\n")
        with pytest.raises(DataError, match=r"did you mean '.*reviews\.csv'"):
            list(rows.read(tmp_path / "review.csv"))


class TestExamples:
    """From rows to examples."""

    def test_usual_names_are_guessed_whatever_their_case(self, tmp_path):
        path = written(tmp_path / "a.csv", "Stars,Review,id\n5,fine,7\n1,bad,8\n")
        found, taken = rows.examples(TASK, path, {}, labelled=True)
        assert taken == {"text": "Review", "label": "Stars"}
        assert [(each.text, each.label) for each in found] == [("fine", "5"), ("bad", "1")]

    def test_a_column_is_taken_once(self, tmp_path):
        """`question` as text and as pair."""
        taken = rows.guess(TASK, ["sentence1", "sentence2", "label"], {}, "x", labelled=True)
        assert taken == {"text": "sentence1", "pair": "sentence2", "label": "label"}

    @pytest.mark.parametrize(
        ("content", "chosen", "said"),
        [
            ("a,b\n1,2\n", {}, r"no column for 'text'.*columns: a, b.*data\.columns\.text=COLUMN"),
            ("text,b\n1,2\n", {}, "no column for 'label'"),
            ("text,label\nx,y\n", {"label": "lable"}, "did you mean 'label'"),
            ("text,label\n", {}, "no rows"),
            ("text,label\nx,\n", {}, r"a\.csv:2.*one label"),
            ("text,label\n ,up\n", {}, r"a\.csv:2.*text: empty"),
        ],
    )
    def test_what_is_missing_is_named(self, tmp_path, content, chosen, said):
        with pytest.raises(DataError, match=said):
            rows.examples(TASK, written(tmp_path / "a.csv", content), chosen, labelled=True)

    def test_the_first_bad_rows_are_shown_and_the_others_counted(self, tmp_path):
        lines = "".join('{"text": "a"}\n' if at % 2 else '{"text": "a", "label": 1}\n' for at in range(20))
        with pytest.raises(DataError) as caught:
            rows.examples(TASK, written(tmp_path / "a.jsonl", lines), {"label": "label"}, labelled=True)
        assert len(caught.value.problems) == rows.SHOWN + 1
        assert "a.jsonl:2: no label" in caught.value.problems[0]
        assert "5 more bad rows" in caught.value.problems[-1]

    @pytest.mark.parametrize(("spare", "said"), [(1, "2 leaves out as many"), (2, None), (9, None)])
    def test_as_many_as_are_borne_are_left_out_and_named(self, tmp_path, spare, said):
        """Two bad rows of three thousand that end a training for good, or rows that are gone without a word."""
        path = written(tmp_path / "a.csv", "text,label\na,up\n,up\nb,\nc,down\n")
        told = []
        if said is not None:
            with pytest.raises(DataError, match=said):
                rows.examples(TASK, path, {}, labelled=True, spare=spare, say=told.append)
            return
        found, _ = rows.examples(TASK, path, {}, labelled=True, spare=spare, say=told.append)
        assert [each.text for each in found] == ["a", "c"]
        assert [each.split(": ")[0].rsplit(":", 1)[1] for each in told] == ["3", "4"]
        assert all(each.endswith("left out") for each in told)

    def test_a_text_twice_goes_to_one_side(self):
        """What was learned, scored."""
        given = [classify.Example(text=f"text {at % 50}", label=str(at)) for at in range(200)]
        kept, held = rows.divided(TASK, given, 0.3, seed=0)
        assert len(kept) + len(held) == 200
        assert held
        assert not {each.text for each in kept} & {each.text for each in held}
        with pytest.raises(ConfigError, match="leaves no row"):
            rows.divided(TASK, given, 1.0, seed=0)


def encoded(lengths):
    return [Row(example=at, ids=[1] * length, answer=0) for at, length in enumerate(lengths)]


class TestBatches:
    """Rows of like length together."""

    TASK = classify.Config(labels=("a", "b"))
    LENGTHS = np.random.default_rng(0).integers(1, 60, 500).tolist()

    def source(self, **choices):
        return Bucketed(self.TASK, encoded(self.LENGTHS), **{"rows": 8, "tokens": None, "seed": 1, "pad": 0, **choices})

    def test_little_is_padding(self):
        """Batches sorted by nothing: half of what is computed would be padding."""
        source = self.source()
        batches = [source.batch(step) for step in range(source.steps_per_epoch)]
        computed = sum(batch.tokens.numel() for batch in batches)
        assert sum(self.LENGTHS) / computed > 0.85
        assert all(batch.rows == 8 for batch in batches[:-1] if batch.rows != 4)

    def test_epochs_differ_and_steps_do_not(self):
        source, again = self.source(), self.source()
        epochs = [[source.batch(step + at * source.steps_per_epoch).rows for step in range(3)] for at in (0, 1)]
        assert len(epochs) == 2
        later = source.steps_per_epoch * 2 + 3
        assert (again.batch(later).tokens == source.batch(later).tokens).all()
        first, second = source.batch(0).tokens, source.batch(source.steps_per_epoch).tokens
        assert first.shape != second.shape or (first != second).any()

    @pytest.mark.parametrize("choices", [{}, {"tokens": 200}])
    def test_the_first_epoch_may_begin_with_short_rows(self, choices):
        """Later epochs that are sorted too, rows left out, and batches that depend on what was asked for before."""
        source, plain = self.source(shortest_first=True, **choices), self.source(**choices)
        later = source.batch(source.steps_per_epoch + 1).tokens
        widths = [source.batch(step).tokens.shape[1] for step in range(source.steps_per_epoch)]
        assert widths == sorted(widths)
        assert sum(source.batch(step).rows for step in range(source.steps_per_epoch)) == len(self.LENGTHS)
        second = [source.batch(source.steps_per_epoch + step).tokens.shape[1] for step in range(12)]
        assert second != sorted(second)
        assert (source.batch(source.steps_per_epoch + 1).tokens == later).all()
        other = [plain.batch(step).tokens.shape[1] for step in range(12)]
        assert other != sorted(other)

    @pytest.mark.parametrize("sorted_", [False, True])
    def test_a_sample_is_like_the_epoch(self, sorted_):
        """Minutes planned by the first batches, which are the shortest where a run begins with these."""
        source = self.source(shortest_first=sorted_)
        every = np.mean([source.batch(step).tokens.shape[1] for step in range(source.steps_per_epoch)])
        for count in (7, 12, 20):
            found = np.mean([source.sample(number).tokens.shape[1] for number in range(3, 3 + count)])
            assert found == pytest.approx(every, rel=0.12 if sorted_ else 0.5)

    def test_a_token_budget_counts_padding(self):
        source = self.source(tokens=200)
        sizes = [source.batch(step).tokens.numel() for step in range(source.steps_per_epoch)]
        assert max(sizes) <= 200
        seen = sum(source.batch(step).rows for step in range(source.steps_per_epoch))
        assert seen == len(self.LENGTHS)

    def test_groups_stay_together(self):
        made = [Row(example=at, ids=[1], answer=0, group=at // 3) for at in range(9)]
        assert [len(each) for each in grouped(made)] == [3, 3, 3]
        source = Bucketed(self.TASK, made, rows=2, tokens=None, seed=0, pad=0)
        assert sorted(source.batch(step).rows for step in range(source.steps_per_epoch)) == [3, 6]

    def test_answering_holds_to_its_budget(self):
        places = in_turn(encoded(self.LENGTHS), tokens=120, most=6)
        assert sorted(at for each in places for at in each) == list(range(500))
        assert all(len(each) <= 6 for each in places)
        assert all(max(self.LENGTHS[at] for at in each) * len(each) <= 120 for each in places)

    def test_nothing_to_learn_from(self):
        with pytest.raises(DataError, match="no rows to learn from"):
            Bucketed(self.TASK, [], rows=2, tokens=None, seed=0, pad=0)
