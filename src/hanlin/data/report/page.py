"""The page about a folder of shards: one file without scripts, that asks nobody for anything, for people.

Every text of the corpus on it is escaped; what a browser could take for part of the page is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from hanlin.data.report import pictures
from hanlin.data.report.account import LEAKS, Account

STYLE = """
:root { color-scheme: light dark }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
  font-family: system-ui, "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", sans-serif }
h1, h2 { line-height: 1.2 } table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #8884 }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.small { font-size: .85em; opacity: .8 } .hash { font-family: monospace; font-size: .8em; word-break: break-all }
q { display: block; white-space: pre-wrap; overflow-wrap: anywhere; quotes: none; margin: .2rem 0;
  padding-left: .6rem; border-left: 3px solid #8886 } svg { width: 100%; height: auto } svg text { fill: currentColor }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"  # even a mistake here could fetch and run nothing
SCRIPTS = "A script stands for all its languages; zh, ja and ko have their own. With --mix-by language all are told."

Cell = str | int | float


def page(account: Account, title: str) -> str:
    """Return the page, whole."""
    counts = account.counts
    head = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>Of {counts["read"]:,} documents {counts["kept"]:,} were kept, {counts["bytes"]:,} bytes of text.
Made by Hanlin {escape(account.hanlin)}.</p>
"""
    parts = [head, _splits(account), _pictures(account), _dropped(account), _changed(account)]
    parts += [_personal(account), _against(account), _mixture(account), _lineage(account)]
    return "".join(parts) + "</body></html>\n"


def _splits(account: Account) -> str:
    """Return what was written."""
    rows: list[list[Cell]] = [
        [name, each["documents"], each["tokens"], each["bytes"], each["bytes"] / max(1, each["tokens"])]
        for name, each in account.splits.items()
    ]
    return _section("Splits", _table(["split", "documents", "tokens", "bytes", "bytes a token"], rows))


def _pictures(account: Account) -> str:
    """Return languages and lengths."""
    shown = {name: int(each["bytes"]) for name, each in account.languages.items()}
    lengths = {
        name: {int(power): int(count) for power, count in each["lengths"].items()}
        for name, each in account.languages.items()
    }
    note = f"<p class=small>{SCRIPTS}</p>"
    rows = [[name, each["documents"], each["bytes"]] for name, each in account.languages.items()]
    body = note + pictures.bars(shown, "bytes of text") + _table(["language", "documents", "bytes"], rows)
    return _section("Languages", body) + _section("Lengths", pictures.histogram(lengths, "documents by bytes"))


def _dropped(account: Account) -> str:
    """Return what was dropped, why, and examples."""
    rows = []
    for reason, each in account.counts["dropped"].items():
        quoted = "".join(f"<q>{escape(text)}</q>" for text in account.excerpts.get(reason, ()))
        named = "<br>".join(escape(source) for source in each["examples"])
        rows.append(
            f"<tr><td>{escape(reason)}<td class=n>{each['count']:,}<td><span class=small>{named}</span>{quoted}</tr>"
        )
    if not rows:
        return _section("Dropped", "<p>Nothing.</p>")
    head = "<tr><th>reason<th class=n>documents<th>the first of them</tr>"
    return _section("Dropped", f"<table>{head}{''.join(rows)}</table>")


def _changed(account: Account) -> str:
    """Return what cleaning changed, and what readers decided by themselves."""
    changed, notes = account.counts.get("changed", {}), account.counts.get("notes", {})
    rows = [[step, each["documents"], each["lines"], each["characters"]] for step, each in changed.items()]
    found = ""
    if rows:
        found += _section("Changed", _table(["step", "documents", "lines less", "characters less"], rows))
    if notes:
        found += _section("Decided while reading", _table(["what", "times"], [list(each) for each in notes.items()]))
    return found


def _personal(account: Account) -> str:
    """Return how much personal data was replaced."""
    found = account.extra.get("personal")
    if not found:
        return ""
    said = f"Found in {found['touched']:,} of {found['documents']:,} documents; replaced by: {escape(found['how'])}."
    return _section(
        "Personal data", f"<p>{said}</p>" + _table(["kind", "found"], [list(each) for each in found["found"].items()])
    )


def _against(account: Account) -> str:
    """Return which evaluation files stand in the text."""
    found = account.extra.get("against")
    if not found:
        return ""
    done = "taken out" if found["removed"] else "left where they are"
    said = f"{found['documents']:,} documents hold {found['rows']:,} rows of evaluation files, {done}: {LEAKS}."
    rows = [[name, digest] for name, digest in found["files"].items()]
    examples = "".join(f"<br>{escape(each)}" for each in found["examples"])
    return _section(
        "Contamination", f"<p>{said}<span class=small>{examples}</span></p>{_table(['file', 'SHA-256'], rows)}"
    )


def _mixture(account: Account) -> str:
    """Return how often each group is shown."""
    found = account.extra.get("mixture")
    if not found:
        return ""
    rows: list[list[Cell]] = [
        [
            name,
            each["documents"],
            each["tokens"],
            f"{each['share']:.1%}",
            f"{each['repeats']:.2f}",
            each["shown"],
            each["shown_tokens"],
        ]
        for name, each in found.items()
    ]
    head = ["group", "documents", "tokens", "share", "repeats", "documents shown", "tokens shown"]
    return _section("Mixture", _table(head, rows))


def _lineage(account: Account) -> str:
    """Return what it was made of and what came out, with hashes."""
    rows: list[list[Cell]] = [
        [f"{each['role']}: {each['name']}", each["sha256"] or "not readable"] for each in account.files
    ]
    if account.more_files:
        rows.append([f"and {account.more_files:,} more; all together", account.all_files])
    rows += [[f"hub: {name}", commit] for name, commit in account.hub.items()]
    rows.append(["tokenizer", account.tokenizer])
    rows += [[file, digest] for file, digest in account.shards.items()]
    rows.append(["all shards, as a model's lineage names them", account.data])
    asked = [[key, str(value)] for key, value in account.asked.items() if value not in (None, (), [], "", False)]
    return _section("Lineage", _table(["what", "hash"], rows, "hash")) + _section(
        "Asked for", _table(["option", "value"], asked)
    )


def _section(title: str, body: str) -> str:
    """Return a part of the page."""
    return f"<h2>{escape(title)}</h2>\n{body}\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Cell]], last: str = "") -> str:
    """Return a table; numbers stand to the right, as their heads do; `last` is the class of its last column."""
    rows = list(rows)
    numbers = [all(isinstance(row[place], int | float) for row in rows) for place in range(len(head))]
    heads = "".join(f"<th{' class=n' if right else ''}>{escape(each)}" for each, right in zip(head, numbers))
    lines = "".join(f"<tr>{''.join(_cells(row, last))}</tr>\n" for row in rows)
    return f"<table><tr>{heads}</tr>\n{lines}</table>"


def _cells(row: Sequence[Cell], last: str) -> Iterable[str]:
    """Yield the cells of a row."""
    for number, each in enumerate(row):
        if isinstance(each, int | float):
            yield f"<td class=n>{each:,}" if isinstance(each, int) else f"<td class=n>{each:.2f}"
        elif last and number == len(row) - 1:
            yield f'<td class="{last}">{escape(str(each))}'
        else:
            yield f"<td>{escape(str(each))}"
