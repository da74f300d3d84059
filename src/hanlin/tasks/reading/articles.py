"""Questions about passages in SQuAD's layout (CMRC, DRCD and XQuAD too) as flat rows, and questions asked elsewhere.

data[].{title, paragraphs[].{context, qas[].{id, question, answers[].{text, answer_start}, is_impossible}}}
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from hanlin.errors import DataError, problem
from hanlin.tasks import rows
from hanlin.tasks.contract import Raw

TRIES = 20  # passages looked at until one does not hold the answer


def read(path: Path, part: float = 0.0) -> Iterator[Raw]:
    """Yield the questions of a file in SQuAD's layout, or the rows of a table; a `part` asked elsewhere too.

    DataError where a part is to be asked elsewhere and the rows name no articles.
    """
    found = rows.read(path, {"json": _json})
    if not part:
        return found
    known = list(found)
    if not all(row.error or {"article", "context", "answers"} <= row.values.keys() for row in known):
        do = "task.elsewhere=0, or a file that names them"
        raise DataError(problem(str(path), "articles are not told apart", "SQuAD's layout", do=do))
    return iter(elsewhere(known, part, str(path)))


def _json(text: IO[str], where: str) -> Iterator[Raw]:
    """Yield the questions of SQuAD's layout, or the rows of any other JSON."""
    whole = text.read()
    try:
        found = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise DataError(problem(where, f"not JSON: {error}"[:120])) from None
    return flat(found) if nested(found) else rows.plain_json(io.StringIO(whole), where)


def nested(found: object) -> bool:
    """Return whether JSON is in SQuAD's layout."""
    data = found.get("data") if isinstance(found, dict) else None
    return (
        isinstance(data, list) and bool(data) and all(isinstance(each, dict) and "paragraphs" in each for each in data)
    )


def flat(found: Mapping[str, Any]) -> Iterator[Raw]:
    """Yield one row a question, numbered from 1; what is not as it should be is the row's error."""
    number = 0
    for place, article in enumerate(found["data"], 1):
        title = str(article.get("title") or f"article {place}")
        for paragraph in _list(article, "paragraphs"):
            for asked in _list(paragraph, "qas"):
                number += 1
                yield _row(number, title, paragraph, asked)


def elsewhere(given: Sequence[Raw], part: float, where: str, seed: int = 0) -> list[Raw]:
    """Return the rows, a share of the questions asked a second time of a passage of another article, without answer.

    The passage holds none of the answers' texts. DataError where there is but one article.
    """
    sound = [row for row in given if not row.error]
    articles: dict[str, list[str]] = {}
    for row in sound:
        articles.setdefault(row.values["article"], []).append(row.values["context"])
    if len(articles) < 2:
        raise DataError(
            problem(where, "one article", "at least two, to ask questions elsewhere", do="task.elsewhere=0")
        )
    draws = np.random.Generator(np.random.PCG64(seed))
    made: list[Raw] = []
    for row in given:
        made.append(row)
        if row.error or draws.random() >= part:
            continue
        others = [name for name in articles if name != row.values["article"]]
        for _ in range(TRIES):
            passages = articles[others[draws.integers(len(others))]]
            context = passages[draws.integers(len(passages))]
            if not any(str(each.get("text")).lower() in context.lower() for each in row.values["answers"]):
                values = {**row.values, "id": f"{row.values['id']}-elsewhere", "context": context, "answers": []}
                made.append(Raw(number=row.number, values=values))
                break
    return made


def _row(number: int, title: str, paragraph: object, asked: object) -> Raw:
    """Return one question."""
    passage = paragraph.get("context") if isinstance(paragraph, dict) else None
    if not isinstance(passage, str) or not isinstance(asked, dict) or not isinstance(asked.get("question"), str):
        return Raw(number=number, values={}, error="no context or no question")
    values = {"id": str(asked.get("id", number)), "question": asked["question"], "context": passage, "article": title}
    answers = [] if asked.get("is_impossible") else asked.get("answers")
    if answers is None:
        return Raw(number=number, values=values)
    if not isinstance(answers, list) or not all(isinstance(each, dict) for each in answers):
        return Raw(number=number, values={}, error="answers that are no list of objects")
    return Raw(number=number, values={**values, "answers": answers})


def _list(holder: object, key: str) -> list[Any]:
    """Return a list that should stand under a key; one empty thing, to be named as a bad row, where it does not."""
    found = holder.get(key) if isinstance(holder, dict) else None
    return found if isinstance(found, list) else [None]
