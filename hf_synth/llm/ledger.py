"""The money of an LLM: what was spent, and what is reserved for questions in flight."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_synth.llm.pacing import Pace
from hf_synth.llm.questions import Messages

_TWO_LETTERS = re.compile(rb"[A-Za-z ]{2}")
ROUNDING = 1e-9  # dollars: sums of reserved and settled amounts return to zero only approximately
_USUAL_ANSWER = 2_048  # tokens reserved for an answer of unbounded length

Price = tuple[float, float]  # US dollars for 1 million tokens read and written


def _known_prices() -> dict[str, Price]:
    prices = json.loads(Path(__file__).with_name("prices.json").read_text(encoding="utf-8"))
    return {model: (read, written) for model, (read, written) in prices["usd_per_million_tokens"].items()}


PRICES = _known_prices()  # by model


class Ledger:
    """Money spent, and reserved for questions in flight, in US dollars; shared by threads."""

    def __init__(self, budget: float | None, price: Price | None) -> None:
        self.budget, self.price = budget, price
        self.spent = self.reserved = 0.0
        self.longest = _USUAL_ANSWER
        self.plain = False  # whether the endpoint has refused a schema
        self.short = False  # whether a question was not asked because the budget is spent
        self.doubts = 0  # questions in a row that it answered only without the schema
        self._lock = threading.Lock()

    def pace(self, *given: Any, **more: Any) -> Pace:
        """Return the pace of a run (`pacing.Pace`)."""
        return Pace(*given, **more)

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float | None:
        """Compute the price of so many tokens; None where it is unknown."""
        if self.price is None:
            return None
        return (prompt_tokens * self.price[0] + completion_tokens * self.price[1]) / 1e6

    def reserve(self, amount: float) -> bool:
        """Reserve an amount; return False where the budget is too small."""
        with self._lock:
            if self.budget is not None and self.spent + self.reserved + amount > self.budget:
                self.short |= self.reserved < ROUNDING
                return False
            self.reserved += amount
            return True

    def worst_case(self, messages: Messages, max_tokens: int | None, schema: Mapping[str, Any] | None = None) -> float:
        """Estimate the most that a question may cost: what it and its schema hold, and the longest answer.

        Two letters count as a token, and every byte of all else (digits are tokens of their own in some vocabularies).
        """
        if self.budget is None:
            return 0.0
        text = json.dumps([messages, schema] if schema else messages, ensure_ascii=False).encode("utf-8", "replace")
        read = len(text) - len(_TWO_LETTERS.findall(text))
        return self.cost(read, max_tokens or self.longest) or 0.0

    def settle(self, reserved: float, spent: float | None) -> None:
        """Replace a reserved amount by the amount spent."""
        with self._lock:
            self.reserved = max(0.0, self.reserved - reserved)
            self.spent += spent or 0.0


def is_short(llm: object) -> bool:
    """Check whether an `LLM` left questions unasked because its budget is spent."""
    ledger = getattr(llm, "_ledger", None)
    return isinstance(ledger, Ledger) and ledger.short
