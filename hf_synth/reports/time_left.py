"""The time that a count still takes, estimated from the steps that were made.

A step is a change of the count. Nothing is estimated from fewer than three steps. The pace is a mean over steps in
which later ones weigh more. Between two steps the estimate goes down with the time, for as long as a step takes, and
then stands still: it never grows while a step is under way.
"""

from __future__ import annotations

import math
from typing import NamedTuple

FEWEST_STEPS = 3
_EARLY = 2.0  # seconds from which on a time is estimated
_MEMORY = 60.0  # seconds that the pace remembers, at least


class Estimate(NamedTuple):
    """What is left of a count.

    Args:
        seconds: that are left, to be shown.
        end: when it ends, as it was expected at the last step.
    """

    seconds: float
    end: float


class TimeLeft:
    """The time that is left of a count.

    Args:
        done: the count so far.
        now: seconds of a clock that never goes back.
    """

    def __init__(self, done: float, now: float) -> None:
        self.restart(done, now)

    def restart(self, done: float, now: float) -> None:
        """Forget all steps: the count so far took no time."""
        self._done, self._began, self._last = done, now, now
        self._steps = 0
        self._seconds = self._units = self._weight = 0.0  # of the steps, the earlier ones with less weight
        self._of_unit = 0.0  # seconds that the unit under way takes in all, by the last estimate of what is inside it

    def step(self, done: float, now: float) -> None:
        """Take note of a new count; a smaller one begins anew."""
        if done == self._done:
            return
        if done < self._done:
            self.restart(done, now)
            return
        seconds, units = now - self._last, done - self._done
        memory = max(_MEMORY, 30 * self._seconds / self._weight if self._weight else 0.0, (now - self._began) / 4)
        kept = math.exp(-seconds / memory)
        self._seconds = kept * self._seconds + seconds
        self._units = kept * self._units + units
        self._weight = kept * self._weight + 1
        self._steps += 1
        self._done, self._last = done, now

    def estimate(self, total: float, now: float, inside: Estimate | None = None) -> Estimate | None:
        """Estimate what is left; None where too little is known.

        Args:
            total: the count in the end.
            inside: the estimate of what is counted inside the unit under way; None where that is not known.
        """
        left = max(0.0, total - self._done)
        if inside is not None:
            self._of_unit = inside.end - self._last
            one = self._seconds / self._units if self._units else self._of_unit
            more = one * max(0.0, left - 1)
            return Estimate(inside.seconds + more, inside.end + more)
        if now - self._began < _EARLY:
            return None
        if self._steps >= FEWEST_STEPS or (self._of_unit and self._steps):
            whole, step = self._seconds / self._units * left, self._seconds / self._weight
        elif self._of_unit:
            whole, step = self._of_unit * left, self._of_unit
        else:
            return None
        return Estimate(max(0.0, whole - min(now - self._last, step)), self._last + whole)
