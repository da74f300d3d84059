"""Names of places: a tagger finds them; the fakes are towns that no map shows, in the script of the original."""

from __future__ import annotations

from hanlin.data.pii.contract import Place, View

RANK = 1
TAGGED = True
HEADS = ("Amber", "Birch", "Cedar", "Dapple", "Ember", "Fallow", "Gorse", "Hazel", "Juniper", "Linden", "Maple")
TAILS = ("mere", "holt", "wick", "thorpe", "combe", "leigh", "stead", "garth")
SIGNS = "云松溪石泉枫荷竹雁霞梅岚"
ENDS = "镇县乡市"


def find(view: View) -> tuple[Place, ...]:
    """Return nothing: no rule tells a place."""
    return ()


def fake(text: str, number: int, turn: int) -> str:
    """Return another place; numbered when the plain ones are taken."""
    suffix = str(number % 10**6) if turn > 3 else ""
    if any("\u4e00" <= char <= "\u9fff" for char in text):
        pair = SIGNS[number % len(SIGNS)] + SIGNS[number // 16 % len(SIGNS)]
        end = text[-1] if text[-1] in "省市县区镇乡村路街" else ENDS[number // 256 % len(ENDS)]
        return pair + suffix + end
    return HEADS[number % len(HEADS)] + TAILS[number // 16 % len(TAILS)] + suffix
