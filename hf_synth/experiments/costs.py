"""What synthetic notes cost against what they save: tokens, dollars and computing against minutes of labelling.

The prices of a person's time and of a computer's are the user's. The defaults are assumptions, and are called so.
"""

from __future__ import annotations

from dataclasses import dataclass

from hf_synth.errors import HfSynthError
from hf_synth.experiments.equivalence import Equivalence


@dataclass(frozen=True)
class Rates:
    """What time costs.

    Args:
        minutes_per_note: of a person who labels one note; 3 is an assumption.
        hourly_usd: of that person; 60 is an assumption.
        compute_usd: of an hour of one core; 0.05 is an assumption.
        gpu_usd: of an hour of one GPU, where models are trained on one; 2 is an assumption.
        given: whether these are the user's own numbers.
    """

    minutes_per_note: float = 3.0
    hourly_usd: float = 60.0
    compute_usd: float = 0.05
    gpu_usd: float = 2.0
    given: bool = False

    def __post_init__(self) -> None:
        if min(self.minutes_per_note, self.hourly_usd, self.compute_usd, self.gpu_usd) < 0:
            raise HfSynthError("minutes and dollars are 0 or more")


@dataclass(frozen=True)
class Spent:
    """What making and using synthetic rows took.

    Args:
        calls: to the generator.
        prompt_tokens: read by it.
        completion_tokens: written by it.
        usd: paid for them; None where no price is known.
        cpu_hours: of correction and training.
        gpu_hours: of correction and training, by the clock.
    """

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None
    cpu_hours: float = 0.0
    gpu_hours: float = 0.0


@dataclass(frozen=True)
class CostBenefit:
    """What was saved, and at what cost.

    Args:
        notes: gold notes that need no labelling: the equivalence less the gold that was used; below 0 a loss.
        notes_ci95: its interval.
        at_least: the score lies beyond what was measured: `notes` is a lower bound.
        at_most: it lies below what was measured: an upper bound.
        minutes: of labelling saved.
        saved_usd: what they are worth.
        spent_usd: on the generator and on computing; None where the generator's price is not known.
        spent: in detail.
        rates: what time costs.
    """

    notes: float
    notes_ci95: tuple[float, float]
    at_least: bool
    at_most: bool
    minutes: float
    saved_usd: float
    spent_usd: float | None
    spent: Spent
    rates: Rates


def cost_benefit(found: Equivalence, gold_size: int, spent: Spent, rates: Rates | None = None) -> CostBenefit:
    """Hold what synthetic rows cost against the labelling they save.

    Args:
        found: how many gold rows the mixture is worth.
        gold_size: gold rows of the mixture.
    """
    rates = rates or Rates()
    notes = found.rows - gold_size
    minutes = notes * rates.minutes_per_note
    computing = spent.cpu_hours * rates.compute_usd + spent.gpu_hours * rates.gpu_usd
    return CostBenefit(
        notes, (found.low - gold_size, found.high - gold_size), found.beyond, found.below, minutes,
        minutes / 60 * rates.hourly_usd, None if spent.usd is None else spent.usd + computing, spent, rates,
    )  # fmt: skip
