"""Findings of a privacy audit: flags by row, figures and a verdict; counts and row numbers, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ColumnError
from hf_synth.privacy.overlap import MAX_CONTAINMENT, MAX_LETTER_RUN, MAX_RUN, WINDOW
from hf_synth.task.display import Displayed, listed

if TYPE_CHECKING:
    from datasets import Dataset

# Rows that contain gold are withheld. Above one in a hundred the generator copies, and rows without a finding cannot be
# trusted either.
MAX_COPIED_SHARE = 0.01

COPIED = ("gold_row", "copy_of_gold", "copied_span", "near_copy", "piece_of_gold", "canary")
FLAGS: dict[str, str] = {
    "gold_row": "the row is marked as gold",
    "copy_of_gold": "one of its texts has the words of a text of gold; of long texts in any order",
    "copied_span": f"{MAX_RUN} words or {MAX_LETTER_RUN} letters in a row occur in gold of one patient or note",
    "near_copy": f"more than {MAX_CONTAINMENT:.0%} of its {WINDOW}-word windows, or much of its letters, occur in gold "
    "of one patient or note; or a short text in it is nearly one of gold; or its rarer words follow each other "
    "as in a row of gold, whatever stands between them",
    "piece_of_gold": "it is a piece of a text of gold, of which short rows together contain most",
    "canary": "it contains a canary that was planted in gold",
    "exemplar_echo": "it follows an exemplar of its own prompt too closely",
    "identifier": "it contains what looks like an identifier of a person",
    "date_or_age": "it contains a date, an age over 89 or a ZIP code",
    "label_leak": "it names its own label",
    "refusal": "the generator refuses in it, or writes about itself",
    "duplicate": "the same text occurs earlier among the synthetic rows",
    "near_duplicate": "almost the same text occurs earlier among the synthetic rows",
}


def refusing(access: str) -> frozenset[str]:
    """Return the flags that refuse a row; dates and ages do so only where the data is not open."""
    return frozenset({*COPIED, "exemplar_echo", "identifier"} | (set() if access == "open" else {"date_or_age"}))


@dataclass(frozen=True, repr=False)
class Findings(Displayed):
    """Findings of an audit, without any text.

    Args:
        figures: counts and shares by name, as a card prints them.
        row_flags: the flags (FLAGS) of each row of the synthetic dataset, in the order of FLAGS.
        refused: the flags that refuse a row, by row number; such a row must not leave.
        compared: whether there was gold to compare with.
        access: the strictest access of task, synthetic rows and gold; it decides which flags refuse a row.
        run_words: (N,) each row's longest run of words of one group of gold; 0 without gold.
        containment: (N,) the share of each row's windows that occur in one group of gold.
        closeness: distances to the closest row of gold: of sampled synthetic rows ("synthetic") and of held-out gold
            ("held_out"); empty without gold.
    """

    figures: Mapping[str, int | float]
    row_flags: tuple[tuple[str, ...], ...]
    refused: Mapping[int, tuple[str, ...]]
    compared: bool
    access: str
    run_words: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32), repr=False, compare=False)
    containment: npt.NDArray[np.float32] = field(
        default_factory=lambda: np.zeros(0, np.float32), repr=False, compare=False
    )
    closeness: Mapping[str, Sequence[float]] = field(
        default_factory=lambda: MappingProxyType({}), repr=False, compare=False
    )

    @property
    def verdict(self) -> str:
        """The verdict: "ok", or "refuse" when more than `MAX_COPIED_SHARE` of the rows contain gold."""
        return "refuse" if self.figures["copied_share"] > MAX_COPIED_SHARE else "ok"

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return how many rows may leave; why others may not, other flags, and what was not checked."""
        rows, withheld = len(self.row_flags), len(self.refused)
        may = 0 if self.verdict == "refuse" else rows - withheld
        why = refusals(self, self.refused)
        refusing_flags = refusing(self.access)
        others = Counter(f for flags in self.row_flags for f in flags if f not in refusing_flags)
        gold = f"{self.figures.get('gold_rows', 0):,} rows" if self.compared else "none was compared"
        lines = [
            ("withheld", listed(f"{flag} {n:,}" for flag, n in why.items())),
            ("noted", listed(f"{flag} {n:,}" for flag, n in others.most_common())),
            ("gold", gold),
            ("not checked", "names and places, unless find_identifiers finds them"),
        ]
        return f"{self.verdict}, {may:,} of {rows:,} rows may leave", lines

    def columns(self) -> dict[str, Any]:
        """Return the findings as columns of the dataset."""
        return {
            "audit_flags": [list(flags) for flags in self.row_flags],
            "audit_refused": [i in self.refused for i in range(len(self.row_flags))],
            "audit_run_words": self.run_words.tolist(),
            "audit_containment": self.containment.tolist(),
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values: verdict, figures, refused rows by number."""
        return {
            "verdict": self.verdict,
            "compared": self.compared,
            "access": self.access,
            "figures": dict(self.figures),
            "refused": {str(i): list(flags) for i, flags in self.refused.items()},
        }

    def __str__(self) -> str:
        figures = ", ".join(f"{name} {value:g}" for name, value in self.figures.items())
        return f"audit {self.verdict}: {figures}"


def with_findings(dataset: Dataset, findings: Findings) -> Dataset:
    """Add the findings to the rows as columns `audit_flags`, `audit_refused`, `audit_run_words`, `audit_containment`.

    Raises:
        ColumnError: the findings are of other rows.
    """
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    if len(dataset) != len(findings.row_flags):
        raise ColumnError(
            f"the findings are of {len(findings.row_flags):,} rows, the dataset has {len(dataset):,}; audit it again"
        )
    columns = findings.columns()
    types = (List(Value("string")), Value("bool"), Value("int32"), Value("float32"))
    features = Features(dict(zip(columns, types, strict=True)))
    others = dataset.remove_columns([c for c in columns if c in dataset.column_names])
    return concatenate_datasets([others, Dataset.from_dict(columns, features=features)], axis=1)


def refusals(findings: Findings, rows: Iterable[int]) -> dict[str, int]:
    """Count the flags that refuse some rows, in the order of FLAGS."""
    counts = Counter(flag for i in rows for flag in findings.refused.get(i, ()))
    return {flag: counts[flag] for flag in FLAGS if counts[flag]}
