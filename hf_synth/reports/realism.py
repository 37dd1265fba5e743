"""What people thought of synthetic notes among real ones, as a table for cards and reports.

The figures come from a file that a person may have edited: whatever is not in its form is left out, and no text of the
file is shown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_synth.errors import RowError
from hf_synth.reports.page import Section, Table

REALISM = "realism.json"  # in the folder of the notes
_FIGURES = {  # figure: its meaning, least and greatest value, digits
    "plausibility_mean": ("plausibility of synthetic notes, 1 to 5, with its 95% interval", 1, 5, 1),
    "taken_for_real": ("share of synthetic notes taken for real ones, with its 95% interval", 0, 1, 2),
    "real_taken_for_real": ("share of real notes among them taken for real ones", 0, 1, 2),
    "told_apart": ("share of all notes of which it was told rightly whether they are real, with its 95% interval; "
                   "0.50 by guessing", 0, 1, 2),
}  # fmt: skip


def read_realism(folder: Path) -> Any:
    """Return what people thought of the notes of a folder (`realism.json` in it); None where nobody was asked.

    Raises:
        RowError: the file is broken.
    """
    file = folder / REALISM
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        raise RowError(str(file), None, "is broken; export the realism sheet again, or remove the file") from None


def realism_facts(recorded: Any) -> dict[str, Any]:
    """Return what people thought of synthetic notes, as a table; empty where it is not recorded, or not in its form.

    Args:
        recorded: numbers by name: `n`, `reviewers`, `plausibility_mean` (1 to 5), `taken_for_real`,
            `real_taken_for_real` and `told_apart` (shares), and `plausibility_ci95`, `taken_for_real_ci95`,
            `told_apart_ci95` as pairs.

    Returns:
        `realism`: rows with `meaning` and `value`; `realism_of`: the numbers of notes and reviewers.
    """
    plain = recorded if isinstance(recorded, Mapping) else {}
    rows = []
    for name, (meaning, low, high, digits) in _FIGURES.items():
        ends = plain.get(f"{name.removesuffix('_mean')}_ci95")
        interval = list(ends) if isinstance(ends, list | tuple) and len(ends) == 2 else []
        if all(_is_within(value, low, high) for value in (plain.get(name), *interval)):
            shown = f" ({interval[0]:.{digits}f}-{interval[1]:.{digits}f})" if interval else ""
            rows.append({"meaning": meaning, "value": f"{plain[name]:.{digits}f}{shown}"})
    counts = [plain.get(name) for name in ("n", "reviewers")]
    if not rows or not all(isinstance(c, int) and not isinstance(c, bool) and c > 0 for c in counts):
        return {"realism": [], "realism_of": []}
    return {"realism": rows, "realism_of": counts}


def realism_section(recorded: Any, folder: str = "") -> Section | None:
    """Return the section of a report; None where nothing is recorded.

    Args:
        recorded: as for `realism_facts`.
        folder: whose notes were looked at, where a report is about several.
    """
    facts = realism_facts(recorded)
    if not facts["realism"]:
        return None
    n, reviewers = facts["realism_of"]
    where = f" of {folder}" if folder else ""
    text = (
        f"{n:,} synthetic notes{where}, mixed with real ones, were looked at by {reviewers:,} "
        f"reviewer{'' if reviewers == 1 else 's'}. The intervals hold for other notes, not for other reviewers."
    )
    table = Table(["figure", "value"], [[row["meaning"], row["value"]] for row in facts["realism"]], align="lr")
    return Section("Realism, as people judged it", text, tables=[table])


def _is_within(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high
