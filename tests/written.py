"""Rows of the contract table whose answers are written: (task, toy model, labelled rows, a row that cannot be one)."""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

import toys

from hanlin.models import rnn, t5
from hanlin.tasks import parse, summarize, translate


def city_database(folder):
    """Write a small database of cities; return its path."""
    path = Path(folder) / "cities.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE city (name TEXT, size INT, land TEXT)")
        connection.execute("CREATE TABLE river (name TEXT, land TEXT)")
        cities = [("Paris", 2, "France"), ("北京", 21, "中国"), ("上海", 24, "中国"), ("Lyon", 1, "France")]
        connection.executemany("INSERT INTO city VALUES (?, ?, ?)", cities)
        connection.executemany("INSERT INTO river VALUES (?, ?)", [("Seine", "France"), ("长江", "中国")])
    connection.close()
    return path


PAIRS = [("a", "b"), ("ab", "ba"), ("好 a", "a 好"), ("abc", "cba"), ("你好", "好你"), ("b", "a"), ("bb a", "a bb")]
TRANSLATED = [{"source": a, "target": b} for a, b in PAIRS]
MANY = [{"source": a, "target": b, "target_language": "de" if len(a) % 2 else "zh"} for a, b in PAIRS]
SHORTENED = [{"source": [f"{a} one.", f"{b} 二。", "x."], "target": [a, b]} for a, b in PAIRS]
FRAMED = [{"question": a, "query": f"({b})"} for a, b in PAIRS]
ASKED = [
    {"question": "size of Paris", "query": "SELECT size FROM city WHERE name = 'Paris'"},
    {"question": "北京多大", "query": "SELECT size FROM city WHERE name = '北京'"},
    {"question": "all", "query": "SELECT c.name FROM city AS c ORDER BY c.size DESC"},
    {"question": "none", "query": "SELECT name FROM city WHERE name = 'Rome'"},
    {"question": "rivers", "query": "SELECT river.name FROM river , city WHERE river.land = city.land"},
]
SQL = parse.Config(database=str(city_database(tempfile.mkdtemp())), limit=6, beams=2)
PAIR = toys.PairConfig(context=64)
T5 = t5.Config(vocab=259, dim=16, layers=1, heads=2, hidden=16, context=64, dropout=0.0)
RNN = rnn.Config(
    vocab=259, dim=16, hidden=16, layers=1, context=64, encoder="bidirectional", attention="luong", copies=True
)
ROWS = {
    "translate": (translate.Config(limit=4), PAIR, TRANSLATED, {"source": " ", "target": "a"}),
    "translate-many": (translate.Config(limit=4, beams=1, cut=True), T5, MANY, {"source": "a", "target": ""}),
    "summarize": (summarize.Config(limit=4, cut=True), RNN, SHORTENED, {"source": [" "], "target": "a"}),
    "summarize-sentences": (
        summarize.Config(kind="extractive"),
        toys.EncoderConfig(vocab=259),
        SHORTENED,
        {"source": "a", "target": []},
    ),
    "parse-frame": (parse.Config(kind="frame", limit=4), T5, FRAMED, {"question": "a", "query": " "}),
    "parse-sql": (SQL, PAIR, ASKED, {"question": "", "query": "SELECT 1"}),
}
