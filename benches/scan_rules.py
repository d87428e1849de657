"""Rules in the shapes that harm patterns have: a request, a gap, an action, an object. Written for the benchmarks."""

from __future__ import annotations

from itertools import product

ASKS = (
    r"(?:how (?:to|do i|can i)|ways? to|steps to|help me)",
    r"(?:teach me to|show me how to|tell me how to|best way to)",
    r"(?:instructions|tutorial|guide|recipe) (?:for|on|to)",
)
ACTS = (
    "(?:kill|murder|stab|strangle|poison)",
    "(?:steal|rob|shoplift|embezzle)",
    "(?:hack|crack|bypass|hijack)",
    "(?:forge|counterfeit|fake)",
    "(?:smuggle|traffic|launder)",
)
THINGS = (
    "(?:someone|a person|my (?:boss|wife|neighbou?r))",
    "(?:cars?|jewel(?:le)?ry|bicycles|wallets?)",
    "(?:passwords?|accounts?|routers?|webcams?)",
    "(?:money|passports?|documents|prescriptions?)",
)
GAPS = (r"\s+", r"\s+(?:\w+\s+){0,3}", r".{0,40}\b", r"[^.!?]{0,30}\s")


def rules(count: int) -> list[str]:
    """Return so many patterns, at most 300, that every engine in the table accepts."""
    found = []
    for number, (gap, ask, act, thing) in enumerate(product(GAPS, ASKS, ACTS, THINGS)):
        rest = GAPS[(number + 1) % len(GAPS)] if number % 3 else r"\s+"
        found.append(rf"\b{ask}{gap}{act}{rest}{thing}\b")
    chosen = [found[place * len(found) // min(count, len(found))] for place in range(min(count, len(found)))]
    for number in range(count - len(chosen)):
        left, right = ACTS[number % 5], THINGS[number // 5 % 4]
        chosen.append(rf"\b{left}ing\s+(?:\w+\s+){{0,{1 + number // 20}}}{right}\b")
    return list(dict.fromkeys(chosen))[:count]
