"""How many requests a server works on at once, learnt from how many answers come a second.

A server that has work for more requests than it can serve either refuses them (`pacing` obeys) or lets them wait: each
answer takes longer, and no more of them come. The number in flight is therefore changed in rounds. A round is as many
answers as may be in flight, to requests that were sent in it; the number in flight over their mean time is the answers
a second (Little's law). As long as more in flight bring more answers, the next round has twice as many. Where they do
not, the number goes back to the least that brings as many, and some more.

Too many in flight cost time-outs alone, too few cost answers: in doubt the greater number stays. Where answers wait so
long that they may come too late, the number falls.
"""

from __future__ import annotations

from statistics import fmean

FIRST, USUAL, MOST = 16, 64, 512  # in flight in the first round, after it if no answer waited for another, and ever
_GROWTH, _BETTER = 2.0, 1.1  # of the number in flight from round to round, as long as answers a second grow so much
_AS_MANY = 0.97  # share of the most answers a second that the chosen number must bring
_ROOM = 1.25  # of the chosen number: some wait at the server's door, so that no place stays free
_AGAIN = 12  # rounds after which more in flight are tried again
_FEWEST = 8  # answers of a round
_LATE, _WAITING = 0.25, 1.5  # share of the time-out, and times the quickest round, above which answers wait too long


class Learning:
    """The number of requests in flight that a server can use; `limit` changes with the answers.

    Args:
        timeout: seconds after which an answer comes too late.
    """

    def __init__(self, timeout: float = 120.0) -> None:
        self.limit = FIRST
        self._timeout = timeout
        self._began = float("-inf")  # of the round
        self._seconds: list[float] = []
        self._rates: dict[int, float] = {}  # answers a second by the number in flight
        self._quickest = float("inf")  # mean seconds of a round
        self._rounds_left = 0  # before more in flight are tried again
        self._most = MOST

    def answered(self, now: float, seconds: float, *, busy: bool) -> None:
        """Count an answer.

        Args:
            now: the time in seconds.
            seconds: how long it took.
            busy: whether as many requests as allowed were in flight.
        """
        if now - seconds < self._began - 1e-6:
            return  # sent in an earlier round
        self._seconds.append(seconds)
        if len(self._seconds) < max(_FEWEST, self.limit):
            return
        if busy:
            # the first answers of a round met the queue of the round before
            self._decide(max(fmean(self._seconds[len(self._seconds) // 2 :]), 1e-6))
        self._began, self._seconds = now, []

    def refused(self) -> None:
        """Count a refusal for load: the server says itself what is too much, so that no more are tried."""
        self._most = min(self._most, USUAL)
        self.limit = min(self.limit, self._most)

    def fits(self, slots: int) -> None:
        """Take the number of requests that the server says it works on at once: some more wait at its door."""
        self._most = self.limit = min(MOST, slots + max(1, slots // 4))

    def _decide(self, mean: float) -> None:
        limit, first = self.limit, not self._rates
        rate = limit / mean
        best_before = max((r for n, r in self._rates.items() if n < limit), default=0.0)
        self._rates[limit] = rate if limit not in self._rates else (self._rates[limit] + rate) / 2
        self._quickest = min(1.02 * self._quickest, mean)
        if mean > _LATE * self._timeout and mean > _WAITING * self._quickest:
            self.limit = max(1, min(limit - 1, int(rate * _LATE * self._timeout)))
            self._rates.clear()
            self._rounds_left = _AGAIN
        elif self._rounds_left:
            self._rounds_left -= 1
        elif rate > _BETTER * best_before:
            self._rates = {n: r for n, r in self._rates.items() if n <= limit}
            self.limit = min(self._most, max(USUAL if first and self._even() else 0, round(_GROWTH * limit)))
        else:
            self._rounds_left = _AGAIN
            enough = _AS_MANY * max(self._rates.values())
            self.limit = min(self._most, round(_ROOM * min(n for n, r in self._rates.items() if r >= enough)))

    def _even(self) -> bool:
        """Check that no answer of the first round waited for another: the slow ones took about as long as the quick."""
        ordered = sorted(self._seconds)
        return ordered[-1 - len(ordered) // 8] <= 3 * ordered[len(ordered) // 8]
