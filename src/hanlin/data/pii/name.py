"""Names of people: a tagger finds them; the fakes are combinations of common names, in the script of the original."""

from __future__ import annotations

from hanlin.data.pii.contract import Place, View

RANK = 1
TAGGED = True
GIVEN = ("Alex", "Blake", "Casey", "Dana", "Ellis", "Finley", "Gray", "Harper", "Jamie", "Kelly", "Logan", "Quinn")
FAMILY = ("Ashdown", "Birchall", "Coldwell", "Dunmore", "Eastlake", "Fairfold", "Greenholt", "Hartwick", "Kestrel")
SURNAMES = "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨"
SIGNS = "安平康宁文明志远思成嘉言若水子墨一鸣"


def find(view: View) -> tuple[Place, ...]:
    """Return nothing: no rule tells a name."""
    return ()


def fake(text: str, number: int, turn: int) -> str:
    """Return another name of about as many words or signs; numbered when the plain ones are taken."""
    suffix = str(number % 10**6) if turn > 3 else ""
    if any("\u4e00" <= char <= "\u9fff" for char in text):
        signs = SIGNS[number % len(SIGNS)] + SIGNS[number // 16 % len(SIGNS)]
        return SURNAMES[number // 256 % len(SURNAMES)] + signs + suffix
    given, family = GIVEN[number % len(GIVEN)], FAMILY[number // 64 % len(FAMILY)]
    return (f"{given} {family}" if " " in text else given) + suffix
