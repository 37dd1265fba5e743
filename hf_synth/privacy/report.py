"""An audit as a page and as Markdown: figures, flags and closeness; counts and row numbers only, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hf_synth.privacy.findings import FLAGS, MAX_COPIED_SHARE, Findings, refusing
from hf_synth.reports.page import Section, Table, markdown, page
from hf_synth.reports.plots import Interval, histogram_plot, interval_plot

if TYPE_CHECKING:
    from hf_synth.privacy.membership import Exposure, Membership

_TITLE = "Audit of synthetic rows"
_LIMITS = (
    "Patterns find what has a form: numbers, dates, addresses of the net. They do not find names, nor places without a "
    "form. This is not de-identification, and not a proof that nothing of gold is left: meaning that was put in other "
    "words is not seen, nor is a note that consists of phrases which three or more notes of gold share."
)
_SHARED = {
    "longest_run_words": "longest run shared with one patient or note of gold, in words (set phrases left out)",
    "containment_mean": "mean share of a row's 8-word windows that stand in one of them",
    "containment_p95": "95th percentile of that share",
    "closest_median": "median distance to the closest row of gold (1 = nothing in common)",
}


def audit_sections(
    findings: Findings, *, membership: Membership | None = None, exposure: Exposure | None = None
) -> list[Section]:
    """Give the sections of a report on an audit, to stand alone or among others.

    Args:
        membership: what the losses of a model that was trained on the gold tell.
        exposure: of canaries in that model.
    """
    sections = [_verdict(findings)]
    if findings.compared:
        sections.append(_shared(findings))
    sections.append(_flags(findings))
    if kinds := {k[5:]: v for k, v in findings.figures.items() if k.startswith("with_")}:
        rows = [[kind.replace("_", " "), count] for kind, count in kinds.items()]
        sections.append(
            Section("Identifiers", tables=[Table(["kind", "rows"], rows, "Rows with what looks like an identifier")])
        )
    if membership is not None or exposure is not None:
        sections.append(_model(membership, exposure))
    sections.append(Section("What this cannot show", _LIMITS))
    return sections


def audit_page(
    findings: Findings,
    *,
    membership: Membership | None = None,
    exposure: Exposure | None = None,
    facts: Sequence[tuple[str, object]] = (),
    simulated: str = "",
) -> str:
    """Give an audit as one HTML page that needs nothing else.

    Args:
        facts: names and values that say what was audited.
        simulated: why its figures are no clinical ones.
    """
    sections = audit_sections(findings, membership=membership, exposure=exposure)
    return page(_TITLE, sections, facts=facts, simulated=simulated)


def audit_markdown(
    findings: Findings,
    *,
    membership: Membership | None = None,
    exposure: Exposure | None = None,
    facts: Sequence[tuple[str, object]] = (),
    simulated: str = "",
) -> str:
    """Give an audit as Markdown; arguments as for `audit_page`."""
    sections = audit_sections(findings, membership=membership, exposure=exposure)
    return markdown(_TITLE, sections, facts=facts, simulated=simulated)


def _verdict(findings: Findings) -> Section:
    figures = findings.figures
    rows, copied, refused = (int(figures[k]) for k in ("rows", "copied_rows", "refused_rows"))
    said, note = "Passed.", ""
    if findings.verdict != "ok":
        said = "Refused: the generator copies, and what the audit did not see cannot be trusted either."
    held = f"{rows:,} rows were held against {int(figures['gold_rows']):,} rows of gold."
    if not findings.compared:
        held, note = f"{rows:,} rows were looked at.", "There was no gold to compare with: copies cannot be found so."
    text = (
        f"{said} {held} {copied:,} of them hold gold ({figures['copied_share']:.2%}; the whole is refused above "
        f"{MAX_COPIED_SHARE:.0%}), and {refused:,} may not leave."
    )
    return Section("Verdict", text, note=note)


def _shared(findings: Findings) -> Section:
    figures = findings.figures
    rows = [[meaning, figures[k], figures.get(f"held_out_{k}")] for k, meaning in _SHARED.items() if k in figures]
    tables = [Table(["", "synthetic", "held-out gold"], rows, "What rows share with gold, beside gold never shown")]
    plots, text = [], "There was no held-out gold: what gold reaches by being about the same things is not known."
    if "closeness_auc" in figures:
        value, low, high = (float(figures[f"closeness_auc{end}"]) for end in ("", "_low", "_high"))
        nearer = "nearer to gold than" if low > 0.5 else "farther from gold than" if high < 0.5 else "about as near as"
        text = (
            f"The chance that a synthetic row lies nearer to gold than held-out gold does is {value:.3f} (95% CI "
            f"{low:.3f}-{high:.3f}): synthetic rows lie {nearer} held-out gold."
        )
        if figures["held_out_over_limit"]:
            text += (
                f"\n\nOf the sampled rows of held-out gold {int(figures['held_out_over_limit']):,} would be called "
                "copies too: gold repeats itself, or its set phrases are not known as such."
            )
    if findings.closeness:
        plots.append(
            histogram_plot(dict(findings.closeness), title="Distance to the closest row of gold",
                           axis="distance (0 = same words, 1 = none in common)", limits=(0.0, 1.0))
        )  # fmt: skip
    return Section("Shared with gold", text, plots, tables)


def _flags(findings: Findings) -> Section:
    raised = Counter(flag for flags in findings.row_flags for flag in flags)
    rows = [
        [f"`{flag}`", meaning, raised[flag], "yes" if flag in refusing(findings.access) else "no"]
        for flag, meaning in FLAGS.items()
    ]
    numbers = list(findings.refused)
    first = f" The first of them: rows {', '.join(str(i) for i in numbers[:20])}." if numbers else ""
    text = f"Rows that a refusing flag was raised on: {len(numbers):,}.{first} Row numbers count from 0."
    return Section("Flags", text, tables=[Table(["flag", "what it says", "rows", "refuses"], rows, align="llrl")])


def _model(membership: Membership | None, exposure: Exposure | None) -> Section:
    text, plots, rows = [], [], []
    if membership is not None:
        text.append(membership.note[0].upper() + membership.note[1:] + ".")
        if membership.auc is not None and membership.auc_low is not None and membership.auc_high is not None:
            shown = [Interval("AUC", membership.auc, membership.auc_low, membership.auc_high, emphasis=True)]
            if membership.tpr is not None and membership.tpr_low is not None and membership.tpr_high is not None:
                shown.append(Interval("named at 1% FPR", membership.tpr, membership.tpr_low, membership.tpr_high))
            plots.append(interval_plot(shown, title="Who was in the training set", axis="share", reference=0.5))
        rows = [
            ["training rows", membership.members, membership.member_loss],
            ["held-out rows", membership.held_out, membership.held_out_loss],
        ]
    if exposure is not None:
        text.append(f"Canaries at {len(exposure.bits):,} places: {exposure}.")
    tables = [Table(["", "rows", "mean loss"], rows)] if rows else []
    return Section("The model", "\n\n".join(text), plots, tables)
