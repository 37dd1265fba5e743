"""Facts of a note: what it states, and what it denies."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Fact:
    """One thing that decides a label, and how a text states it.

    Args:
        name: e.g. "gait".
        values: what may hold, as (statement, points, pattern): the pattern finds it in a text. One value may have an
            empty pattern: it holds where no other one is found.
    """

    name: str
    values: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class Facts:
    """What a label follows from by rule: points of facts, added up or the highest one, in bands.

    Args:
        items: the facts.
        combine: "sum" (a score such as the Morse Fall Scale) or "max" (a grade such as CTCAE's).
        bounds: points from which the second label holds, the third, ...: one fewer than there are labels.
    """

    items: tuple[Fact, ...]
    combine: Literal["sum", "max"]
    bounds: tuple[int, ...]

    def label(self, points: Sequence[int]) -> int:
        """Give the index of the label that points, one number for each fact, lead to."""
        total = sum(points) if self.combine == "sum" else max(points)
        return sum(total >= bound for bound in self.bounds)

    def found_in(self, text: str) -> int:
        """Give the index of the label that a text's own facts lead to.

        Of a fact that is stated several ways the one with most points counts; what is denied is not stated.
        """
        points = []
        for item in self.items:
            stated = [worth for _, worth, pattern in item.values if pattern and _stated(pattern, text)]
            otherwise = [worth for _, worth, pattern in item.values if not pattern]
            points.append(max(stated or otherwise or [0]))
        return self.label(points)


# Words before a finding, in the same clause, that deny it; and words behind it that do.
_DENIED = re.compile(
    r"(?:\b(?:no(?! longer)|not|non|never|without|denies|denied|denying|negative for|free of|absent)|n['\u2019]t)\b"
    r"(?:(?!\b(?:but|however|although|though|yet|except|and (?:an?|the|was|is|has|had))\b)[^.;:,\n])*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"(?:\w*\s*:\s*(?:none|no|not|never|absent)\b|[^.;:,\n]{0,25}?(?:\bnot|n['\u2019]t)(?: been)? "
    r"(?:needed|required|indicated|placed|started|used|given|necessary)\b)",
    re.IGNORECASE,
)


def _stated(pattern: str, text: str) -> bool:
    return any(
        not _DENIED.search(text[max(0, found.start() - 60) : found.start()])
        and not _DENIED_AFTER.match(text[found.end() : found.end() + 60])
        for found in re.finditer(pattern, text, re.IGNORECASE)
    )
