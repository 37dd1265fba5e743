"""Priors of `auto`: what each method gains over gold only, before any gold row is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GOLD_ONLY = "gold_only"  # the method with which all others are compared
_MOST_EDGE = 0.1  # measured lead of the LLM over gold only beyond which it promises no more


@dataclass(frozen=True)
class Prior:
    """What a method gains over gold only, before any gold row is asked, in points of score as shares of 1.

    Args:
        mean: expected gain where nothing is known of the LLM.
        sd: standard deviation of the gains.
        level, slope, spread: where the LLM's labels were measured: the expected gain is `level` + `slope` times the
            lead of its score over that of gold only (at most _MOST_EDGE), with standard deviation `spread`.
    """

    mean: float
    sd: float
    level: float
    slope: float
    spread: float

    def expected(self, edge: float | None) -> tuple[float, float]:
        """Return mean and standard deviation of the gain, given the LLM's measured lead over gold only or None."""
        if edge is None:
            return self.mean, self.sd
        return self.level + self.slope * min(edge, _MOST_EDGE), self.spread


# Rounded from `benchmarks/real_noise.py --fit` on half of its sets, no spread below .02; its page reports each half.
PRIORS: Mapping[str, Prior] = {
    "blend": Prior(0.025, 0.035, 0.025, 0.25, 0.025),
    "posterior": Prior(0.02, 0.055, 0.015, 0.35, 0.04),
    "loss_rank": Prior(0.03, 0.03, 0.03, 0.15, 0.03),
    "measured": Prior(0.025, 0.025, 0.025, 0.2, 0.02),
}
UNKNOWN = Prior(0.0, 0.06, 0.0, 0.3, 0.06)  # of a method whose prior was not fitted
# The same of macro-F1, no spread below .02
MACRO_F1_PRIORS: Mapping[str, Prior] = {
    "blend": Prior(0.03, 0.05, 0.025, 0.3, 0.035),
    "posterior": Prior(0.02, 0.07, 0.015, 0.45, 0.05),
    "loss_rank": Prior(0.035, 0.04, 0.035, 0.2, 0.035),
    "measured": Prior(0.03, 0.03, 0.03, 0.25, 0.02),
    "weight": Prior(0.005, 0.08, 0.0, 0.55, 0.055),
    "clean_drop": Prior(0.005, 0.075, 0.0, 0.5, 0.05),
}
