"""Questions to SQL: the form and back, slots, a grammar that SQLite can always plan, and what counts as right."""

import sqlite3

import numpy as np
import pytest
import toys
import written

from hanlin.errors import ConfigError, DataError
from hanlin.generate.constrain import Vocabulary, lark
from hanlin.metrics.texts import execution
from hanlin.tasks import parse
from hanlin.tasks.predict import Predictor
from hanlin.tasks.sql import form, grammar
from hanlin.tasks.sql.database import Database
from hanlin.tasks.sql.nearest import Nearest
from hanlin.tasks.sql.slots import Slots, emptied, filled
from hanlin.text.tokenizer import byte_level

SAID = {  # SQL -> its form
    "SELECT name FROM city": "from city select name",
    "SELECT CITYalias0.NAME FROM CITY AS CITYalias0 WHERE CITYalias0.SIZE = ( SELECT MAX( CITYalias1.SIZE ) FROM CITY "
    "AS CITYalias1 ) ;": "from city select name where size = ( from city select max ( size ) )",
    'SELECT c.name FROM city AS c WHERE c.land = "中国" ORDER BY c.size DESC LIMIT 1': "from city select name where "
    "land = '中国' order by size desc limit 1",
    "SELECT c.name FROM city AS c , river AS r WHERE r.land = c.land": "from city , river select city.name where "
    "river.land = city.land",
    "SELECT a.name FROM city AS a , city AS b WHERE a.size != b.size": "from city , city as city2 select city.name "
    "where city.size <> city2.size",
    "SELECT land FROM city GROUP BY ( land ) HAVING COUNT( * ) > 1": "from city select land group by land having "
    "count ( * ) > 1",
    "SELECT name FROM city WHERE name NOT IN ( SELECT name FROM river WHERE land = 'x y' ) AND size > 3.5": "from city "
    "select name where name not in ( from river select name where land = 'x y' ) and size > 3.5",
}
FOREIGN = [
    "SELECT name FROM moon",
    "SELECT moon FROM city",
    "SELECT a.name FROM city AS a WHERE a.size > ( SELECT b.size FROM city AS b WHERE b.land = a.land )",
    "SELECT x.name FROM ( SELECT name FROM city ) AS x",
    "SELECT name FROM city UNION SELECT name FROM river",
    "SELECT a.name FROM city AS a LEFT OUTER JOIN river AS r ON a.land = r.land",
    "SELECT name FROM city ; DROP TABLE city",
    "SELECT name FROM city WHERE name = 'a",
    "SELECT name FROM city )",
    "DELETE FROM city",
    "",
]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return Database(str(written.city_database(tmp_path_factory.mktemp("sql"))))


@pytest.fixture(scope="module")
def columns(database):
    return {each.name: each.columns for each in database.tables()}


class TestForm:
    """What comes first, and back."""

    @pytest.mark.parametrize("sql", SAID)
    def test_there_and_back(self, sql, columns, database):
        """Guards against a query that finds something else after it was said in the form."""
        said, lists = form.formed(sql, columns)
        assert said == SAID[sql]
        assert database.run(form.sql(said)) == database.run(sql) is not None
        assert all(each.split()[0] in columns for each in lists)

    @pytest.mark.parametrize("sql", FOREIGN)
    def test_what_it_cannot_say(self, sql, columns):
        """Guards against half a query that passes for the whole."""
        with pytest.raises(form.Foreign):
            form.formed(sql, columns)

    def test_quotes_survive(self, database):
        """Guards against a text that ends its own quotation."""
        text = "o'x' OR 1 = 1 --"
        assert database.run(f"SELECT {form.literal(text)}") == [(text,)]
        assert filled("from city select name where name = value0", [text]).endswith("= 'o''x'' OR 1 = 1 --'")


class TestSlots:
    """Texts of the database in questions."""

    def test_taken_out_and_put_back(self, database):
        """Guards against parts of words, case, Chinese without spaces, and one text that gets two slots."""
        slots = Slots(database.tables(), ["name", "land"])
        asked, texts = slots.taken("Is PARIS, not Parisian, in France? Paris北京多大")
        assert asked == "is value0 ( name ), not parisian, in value1 ( land )? value0 ( name )value2 ( name )多大"
        assert texts == ("Paris", "France", "北京")
        said = "from city select size where name = '北京' and land = 'Rome'"
        assert emptied(said, texts) == "from city select size where name = value2 and land = 'Rome'"
        assert filled(emptied(said, texts), texts) == said

    def test_only_columns_that_are_named(self, database):
        """Guards against texts of columns that nobody asks by, which hide those that are meant."""
        assert Slots(database.tables(), ["land"]).taken("Paris in France")[0] == "paris in value0 ( land )"
        assert Slots(database.tables(), []).taken("Paris") == ("paris", ())

    def test_a_slot_without_a_text(self):
        """Guards against a query that asks for the word value3; in a text it is only a word."""
        assert filled("from city select size where name = value3", ["Paris"]) is None
        assert filled("from city select size where name = 'value3'", ["Paris"]) is not None


class TestGrammar:
    """All that it allows can be planned."""

    def test_random_walks(self, database):
        """Guards against a column of another table, MAX where it may not stand, two columns inside brackets."""
        tokens = byte_level()
        rules = grammar.rules(database.tables(), ["city , river", "city , city as city2"])
        start = Vocabulary(tokens, frozenset([1])).guide(lark(rules), [0])
        draws, whole = np.random.default_rng(0), []
        for _ in range(60):
            guide, ids = start.fork(), []
            while len(ids) < 400 and not guide.ended and not guide.broken:
                open_ = np.flatnonzero(guide.mask(tokens.vocab))
                if 1 in open_ and draws.random() < 0.3:
                    break
                ids.append(int(draws.choice(open_[open_ != 1])))
                guide.take(ids[-1])
            if guide.ended or guide.mask(tokens.vocab)[1]:
                whole.append(filled(tokens.decode(ids), ["x"] * grammar.SLOTS))
        assert len(whole) > 30
        assert len({*whole}) > 25
        assert [each for each in whole if not database.explains(form.sql(each))] == []

    @pytest.mark.parametrize("sql", SAID)
    def test_the_form_of_queries_is_allowed(self, sql, columns, database):
        """Guards against a grammar that the right answer does not keep to."""
        said, lists = form.formed(sql.replace("'x y'", "'France'"), columns)
        tokens = byte_level()
        guide = Vocabulary(tokens, frozenset([1])).guide(lark(grammar.rules(database.tables(), lists)), [0])
        for id in tokens.encode(said, added=False).ids:
            assert guide.mask(tokens.vocab)[id], said
            guide.take(id)
        assert guide.ended or guide.mask(tokens.vocab)[1]


class TestDatabase:
    """Reading alone."""

    @pytest.mark.parametrize(
        "sql",
        [
            "DELETE FROM city",
            "ATTACH 'x.sqlite' AS x",
            "PRAGMA journal_mode = DELETE",
            "CREATE TABLE x (a)",
            "SELECT name FROM moon",
            "SELECT load_extension('x')",
            "SELECT 1; SELECT 2",
            "",
        ],
    )
    def test_nothing_else(self, database, sql):
        """Guards against a query that writes or reaches for other files."""
        assert database.run(sql) is None

    def test_endless_queries_are_cut(self, database):
        """Guards against a query that runs for hours, and a result that fills the memory."""
        endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT {} FROM n"
        quick = Database(str(database.path), limit_s=0.05)
        assert quick.run(endless.format("max(x)")) is None
        assert database.run(endless.format("x") + " LIMIT 200000") is None

    def test_files_that_are_none(self, tmp_path):
        """Guards against a traceback, and a new empty file where the name is wrong."""
        with pytest.raises(DataError, match="is not there"):
            Database(str(tmp_path / "x.sqlite"))
        assert list(tmp_path.iterdir()) == []
        (tmp_path / "y.sqlite").write_bytes(b"no database at all" * 100)
        with pytest.raises(DataError, match="no SQLite database"):
            Database(str(tmp_path / "y.sqlite"))
        sqlite3.connect(tmp_path / "z.sqlite").close()
        with pytest.raises(DataError, match="no tables"):
            Database(str(tmp_path / "z.sqlite")).tables()


class TestTask:
    """What is learned, and what counts."""

    def made(self, rows=written.ASKED):
        examples = [written.SQL.example(each) for each in rows]
        return written.SQL.fitted(examples), examples

    def given(self, task, examples, queries):
        return [parse.Prediction(query=each or "", complete=each is not None) for each in queries]

    def test_what_the_form_cannot_say_is_counted_and_not_learned(self):
        """Guards against foreign queries that train the model to stop at once, or vanish."""
        task, examples = self.made([*written.ASKED, {"question": "q", "query": FOREIGN[3]}])
        assert task.foreign == 1
        rows = task.encode(examples, byte_level(), 200)
        assert set(rows[-1].targets) == {-100}
        with pytest.raises(DataError, match="no query"):
            self.made([{"question": "q", "query": FOREIGN[3]}])

    def test_order_counts_only_where_it_is_asked_for(self):
        """Guards against rows in another order that count as wrong, or ORDER BY that is ignored."""
        task, examples = self.made()
        queries = [each.query for each in examples]
        queries[2] = "SELECT name FROM city ORDER BY size"
        scores = task.score(examples, self.given(task, examples, queries))
        assert scores["exec_accuracy"].value == pytest.approx(3 / 4)
        assert scores["exec_accuracy"].n == 4  # 'Rome' finds nothing and tells nothing
        assert (scores["complete"].value, scores["explained"].value) == (1, 1)

    def test_what_was_cut_counts_as_wrong(self):
        """Guards against a fallback, and cut rows that are left out of the mean."""
        task, examples = self.made()
        queries = [each.query for each in examples]
        predictions = self.given(task, examples, [queries[0], None, "SELECT moon FROM city", None, queries[4]])
        scores = task.score(examples, predictions)
        assert scores["exec_accuracy"].value == pytest.approx(2 / 4)
        assert scores["complete"].value == pytest.approx(3 / 5)
        assert scores["explained"].value == pytest.approx(2 / 3)
        assert task.marks(examples, predictions).tolist() == [1, 0, 0, 1, 1]

    def test_order_of_marks(self):
        """Guards against marks that belong to other rows."""
        task, examples = self.made()
        assert execution.told(task._results(examples, self.given(task, examples, [None] * 5))[1]).tolist() == [
            *(True, True, True, False, True)
        ]

    def test_what_does_not_go_together(self):
        """Guards against a task that fails only after training."""
        with pytest.raises(ValueError, match=r"task\.database"):
            parse.Config()
        frame = parse.Config(kind="frame", lark="start: (")
        model = toys.PairConfig(context=32).build(seed=0)
        with pytest.raises(ConfigError, match="this grammar cannot be used") as caught:
            Predictor(frame, model, byte_level())([frame.asked("a")])
        assert len(caught.value.problems) == 1

    def test_only_the_slots_of_the_question_can_be_named(self):
        """Guards against answers that name a text that the question has not, and rows in another order."""
        task, _ = self.made()
        tokens = byte_level()
        rules = grammar.rules(task.tables, task.lists, 1)
        guide = Vocabulary(tokens, frozenset([1])).guide(lark(rules), [0])
        for id in tokens.encode("from city select size where name = value", added=False).ids:
            assert guide.mask(tokens.vocab)[id]
            guide.take(id)
        named = [tokens.decode([int(id)]) for id in np.flatnonzero(guide.mask(tokens.vocab))]
        assert named == ["0"]
        assert "SLOT" not in grammar.rules(task.tables, task.lists, 0)


def test_the_nearest_question():
    """Guards against common words that decide, and a tie that is settled by chance."""
    nearest = Nearest(["how big is ohio", "how long is the nile", "how big is it"], ["a", "b", "c"])
    assert [nearest(each) for each in ("is the nile blue", "big ohio", "zzz")] == ["b", "a", "a"]
