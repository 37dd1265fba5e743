"""Rows of a table by column, and what is wrong with rows: collected, and reported in one error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hf_synth.errors import RowError, line_of

_MOST_FAULTS, _MOST_LINES = 8, 8  # kinds of faults in a message, and lines of each


class Faults:
    """Collect what is wrong with the rows of a file, to report all of it in one error.

    Args:
        file: the file's name.
        at_once: raise the first fault where it is found.
    """

    def __init__(self, file: str, *, at_once: bool = False) -> None:
        self.file, self.at_once = file, at_once
        self.count = 0
        self.skippable = 0
        self._numbers: dict[str, list[int]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, number: int, problem: str, *, empty: bool = False) -> None:
        """Add a fault of a row.

        Args:
            empty: the row may be left out, since its text or its label is empty.

        Raises:
            RowError: faults are raised at once.
        """
        if self.at_once:
            raise RowError(self.file, number, problem)
        self.count += 1
        self.skippable += empty
        if problem not in self._numbers and len(self._numbers) >= _MOST_FAULTS:
            return
        numbers = self._numbers.setdefault(problem, [])
        self._counts[problem] += 1
        if len(numbers) < _MOST_LINES:
            numbers.append(number)

    def check(self) -> None:
        """Raise what was collected as one error.

        Raises:
            RowError: a fault was added.
        """
        if not self.count:
            return
        skip = "; --skip-empty leaves rows without text or label out" if self.skippable else ""
        if self.count == 1:
            [(problem, [number])] = self._numbers.items()
            raise RowError(self.file, number, problem + skip)
        parts = [f"{self._lines(problem)}: {problem}" for problem in self._numbers]
        more = self.count - sum(self._counts.values())
        others = f"; {more:,} more rows" if more else ""
        raise RowError(self.file, None, f"{self.count:,} rows cannot be read: {'; '.join(parts)}{others}{skip}")

    def _lines(self, problem: str) -> str:
        numbers, count = self._numbers[problem], self._counts[problem]
        what, first = line_of(self.file, numbers[0])
        lines = [line_of(self.file, n)[1] for n in numbers]
        more = f" and {count - len(numbers):,} more" if count > len(numbers) else ""
        return f"{what}{'s' if count > 1 else ''} {', '.join(lines)}{more}" if count > 1 else f"{what} {first}"


@dataclass(frozen=True)
class Batch:
    """Some rows of a table, by column.

    Args:
        numbers: the number of each row.
        columns: the values of each column, as long as `numbers`.
    """

    numbers: Sequence[int]
    columns: Mapping[str, Sequence[Any]]

    def column(self, name: str) -> Sequence[Any]:
        """Return the values of a column; nulls where the table lacks it."""
        return self.columns[name] if name in self.columns else [None] * len(self.numbers)
