"""A report of made-up numbers with every kind of picture, for tests; nothing was measured."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from hf_synth.evaluation.statistics import wilson
from hf_synth.reports.page import Lead, Section, Table, Tile, write_report
from hf_synth.reports.plots import (
    Bin,
    Interval,
    Reference,
    Series,
    bar_plot,
    curve_plot,
    histogram_plot,
    interval_plot,
    matrix_plot,
    reliability_plot,
)

MADE_UP = "every number on this page was made up to try the pictures; nothing was measured."
GRADES = ("grade_0", "grade_1", "grade_2", "grade_3")
LONG = ("not present", "present, but of no consequence to the patient", "unknown", "grade_4_or_higher_toxicity")


def curves(n: int, *, log_x: bool = True) -> str:

    def at(x: int, i: int) -> tuple[float, ...]:
        y = 0.97 - 0.6 * math.exp(-x / (300 + 90 * i)) - 0.02 * i
        return x, y, y - 0.05, min(1, y + 0.03)

    series = [
        Series(f"sample curve {i}" if i else "gold only (sample)", [at(x, i) for x in (50, 100, 200, 400, 800, 1243)],
               dashed=i == 2, emphasis=i == 1)
        for i in range(n)
    ]  # fmt: skip
    return curve_plot(
        series, title=f"Learning curves, {n} of them", x_axis="gold notes", y_axis="macro-F1 on sample rows",
        log_x=log_x,
        lines=(Reference("all gold (sample)", 0.94), Reference("200 + 2,000 synthetic", 640, vertical=True)),
        caption="Bands: 95% interval over seeds and groups, if these had been measured.", simulated=MADE_UP,
    )  # fmt: skip


def noise(names: tuple[str, ...], right: float) -> str:
    k = len(names)
    rows = [[right if i == j else (1 - right) / (k - 1) for j in range(k)] for i in range(k)]
    return matrix_plot(
        rows, names, names, title=f"Noise of the labels of {k} classes", row_axis="true label",
        column_axis="label given", caption="Each row sums to 1.", simulated=MADE_UP,
    )  # fmt: skip


def sections() -> list[Section]:
    arms = [
        Interval("gold_200", 0.56, 0.52, 0.6),
        Interval("gold_200_plus_corrected", 0.71, 0.67, 0.75, emphasis=True),
        Interval("gold_200_plus_raw_of_another_generator_with_a_long_name", 0.49, 0.44, 0.53),
        Interval("not measured", math.nan, math.nan, math.nan),
    ]
    gains = [Interval("Corrected minus raw", 0.04, -0.01, 0.09), Interval("Raw minus gold", -0.06, -0.1, -0.02, True)]
    sure = [(0.05 + 0.1 * i, 20 * (i + 1)) for i in range(10)]
    bins = {
        "before (sample ECE 0.20)": [
            Bin(s, 0.6 * s + 0.05, n, *wilson(round((0.6 * s + 0.05) * n), n)) for s, n in sure
        ],
        "after (sample ECE 0.03)": [Bin(s, s, n, *wilson(round(s * n), n)) for s, n in sure],
    }
    what = {"kept": [310, 280, 190, 20], "relabelled": [44, 120, 60, 5], "dropped": [12, 90, 140, 61]}
    scored = Table(
        ["trained on", "rows", "macro_f1 (95% CI)", "p (Holm)", "what it is"],
        [[r.name, 200 + 100 * i, f"{r.value:.3f} ({r.low:.3f}-{r.high:.3f})", 10.0 ** -(i + 2), "a `sample` row"]
         for i, r in enumerate(arms)],
        "Sample scores",
    )  # fmt: skip
    return [
        Section("What it says", "One sentence with `code` in it, and 3 < 4 & 5 > 4.\n\n- a first point\n- a second",
                note="A note: on these numbers nothing can be built."),
        Section("Scores", plots=[
            interval_plot(arms, title="Sample: macro-F1", axis="macro-F1", caption="A caption.", simulated=MADE_UP),
            interval_plot(gains, title="Sample: differences", axis="difference of macro-F1", simulated=MADE_UP),
        ], tables=[scored]),
        Section("Learning curves", plots=[curves(3), curves(8, log_x=False)]),
        Section("Noise", plots=[
            noise(GRADES, 0.8), noise(LONG, 0.7), noise(tuple(f"class {i}" for i in range(20)), 0.9),
            matrix_plot([[1243, 0, 2], [40, 11, 9], [0, 0, 0]], LONG[:3], LONG[:3], title="Confusion of a sample model",
                        row_axis="true label", column_axis="label said", simulated=MADE_UP),
        ]),
        Section("Calibration", plots=[reliability_plot(bins, title="Sample calibration", simulated=MADE_UP)]),
        Section("Rows and cost", plots=[
            bar_plot(GRADES, what, title="What became of the rows", axis="rows", simulated=MADE_UP),
            bar_plot(["generation", "annotation saved"], {"dollars": [3.2, 410.0]}, title="Sample cost",
                     axis="US dollars", digits=2, simulated=MADE_UP),
            histogram_plot({"gold": [math.sin(i) ** 2 for i in range(500)],
                            "synthetic": [math.sin(i) ** 4 for i in range(900)]}, title="Sample overlap",
                           axis="share of n-grams shared", lines=[Reference("threshold", 0.6, vertical=True)],
                           simulated=MADE_UP),
            curve_plot([], title="A plot without a value", x_axis="x", y_axis="y", simulated=MADE_UP),
        ]),
    ]  # fmt: skip


LEAD = Lead(
    "The verdict: 200 gold + 800 corrected notes of a sample, macro-F1 0.74 (0.69-0.77).", "unsure",
    ("2 of 9 runs failed", "2 because of a made-up cause.", "hf-synth experiment sample --out " + "x" * 99),
    [Tile("0.74", "macro-F1", "95% CI 0.69-0.77"), Tile("+0.14", "over gold alone", "95% CI 0.09 to 0.18", "good"),
     Tile("412 of 1,600", "labels changed", "", "bad")],
    ["The worst label is grade_1."], [("Look at it", "hf-synth sample 'a b'"), ("Then", "hf-synth audit x")],
)  # fmt: skip


def write(folder: Path) -> Path:
    facts = [("task", "sample"), ("rows", 1243), ("share", 0.25)]
    return write_report(folder, "A sample report: made-up numbers", sections(), simulated=MADE_UP, facts=facts)


def write_with_lead(folder: Path) -> Path:
    """Write a page with all that a page can have: a lead, folded parts, a wide table, a table of long texts."""
    wide = Table([f"column number {i}" for i in range(9)], [[f"row_{i}", *[0.5] * 8] for i in range(3)], "A wide table")
    told = ["A sample note of no patient. " * 20, "a", "b", "because " * 12]
    notes = Table(["note", "LLM said", "now", "why"], [told] * 2, "Notes", align="llll")
    first = [Section("Notes", tables=[notes], private=True), Section("Wide", tables=[wide])]
    rest = [replace(section, folded=True) for section in sections()]
    facts = [("task", "sample"), ("a_long_fact", "y" * 90)]
    return write_report(folder, "A sample report", [*first, *rest], simulated=MADE_UP, facts=facts, lead=LEAD)
