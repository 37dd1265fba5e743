"""Facts of a note: labels derived by rule from findings that a text states and does not negate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fact:
    """One finding that decides a label, and how a text states it.

    Args:
        name: e.g. "gait".
        values: the possible values as (statement, points, pattern); the pattern matches a text that states the value.
            One value may have an empty pattern: it holds where no other matches.
    """

    name: str
    values: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class Facts:
    """A rule from facts to a label: their points, summed or the maximum of them, fall into bands.

    Args:
        items: the facts.
        combine: "sum" (a score such as the Morse Fall Scale) or "max" (a grade such as CTCAE's).
        bounds: the lowest points of the second label, the third, ...: one fewer than there are labels.
    """

    items: tuple[Fact, ...]
    combine: Literal["sum", "max"]
    bounds: tuple[int, ...]

    def label(self, points: Sequence[int]) -> int:
        """Return the index of the label for the points of each fact."""
        total = sum(points) if self.combine == "sum" else max(points)
        return sum(total >= bound for bound in self.bounds)

    def found_in(self, text: str) -> int:
        """Return the index of the label for the facts that a text states.

        Of several stated values of a fact the one with most points counts; a negated value is not stated.
        """
        points = []
        for item in self.items:
            stated = [worth for _, worth, pattern in item.values if pattern and _is_stated(pattern, text)]
            default = [worth for _, worth, pattern in item.values if not pattern]
            points.append(max(stated or default or [0]))
        return self.label(points)


# Negations of a finding: words before it in the same clause, and words after it.
_NEGATED_BEFORE = re.compile(
    r"(?:\b(?:no(?! longer)|not|non|never|without|denies|denied|denying|negative for|free of|absent)|n['\u2019]t)\b"
    r"(?:(?!\b(?:but|however|although|though|yet|except|and (?:an?|the|was|is|has|had))\b)[^.;:,\n])*$",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"(?:\w*\s*:\s*(?:none|no|not|never|absent)\b|[^.;:,\n]{0,25}?(?:\bnot|n['\u2019]t)(?: been)? "
    r"(?:needed|required|indicated|placed|started|used|given|necessary)\b)",
    re.IGNORECASE,
)


def _is_stated(pattern: str, text: str) -> bool:
    return any(
        not _NEGATED_BEFORE.search(text[max(0, match.start() - 60) : match.start()])
        and not _NEGATED_AFTER.match(text[match.end() : match.end() + 60])
        for match in re.finditer(pattern, text, re.IGNORECASE)
    )


_UNITS = {
    "kg": r"(?:kgs?|kilos?|kilograms?)",
    "°C": r"(?:°\s*C?|degrees?(?: C(?:elsius)?)?|C)",
    "mg": r"(?:mg|milligrams?)",
    "ml": r"(?:ml|millilit(?:er|re)s?)",
    "l": r"(?:l|lit(?:er|re)s?)",
    "cm": r"(?:cm|centimet(?:er|re)s?)",
    "mm": r"(?:mm|millimet(?:er|re)s?)",
    "%": r"(?:%|percent|per cent)",
    "mmHg": r"mm\s?Hg",
    "": "",
}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def quantity(number: float, unit: str = "") -> str:
    """Return a pattern of a number with its unit, for `Fact.values`: 3 kg, 3.0 kilos, three kilograms.

    Args:
        number: 0 or more; no other number matches, so that 3 is not found in 13, 3.5 or 0.3.
        unit: kg, °C, mg, ml, l, cm, mm, %, mmHg, or "" for none. Any other unit matches as it is written.

    Example:
        >>> weight = Fact("weight", (("unchanged", 0, ""), ("lost 3 kg", 1, quantity(3, "kg"))))
        >>> facts = Facts((weight,), "max", (1,))
        >>> facts.found_in("Lost three kilos."), facts.found_in("Lost 13 kg.")
        (1, 0)
    """
    whole, _, part = f"{number:.6f}".rstrip("0").rstrip(".").partition(".")
    digits = rf"{whole}[.,]{part}0*" if part else rf"{whole}(?:[.,]0+)?"
    word = rf"|{_NUMBERS[int(whole)]}" if not part and int(whole) < len(_NUMBERS) else ""
    written = _UNITS.get(unit, re.escape(unit))
    end = rf"[\s-]*{written}(?!\w)" if written else ""
    return rf"(?<![\w.,])(?:{digits}(?!\d|[.,]\d){word}){end}"
