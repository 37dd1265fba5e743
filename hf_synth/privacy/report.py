"""Report of a privacy audit in HTML and Markdown: figures, flags and closeness; counts and row numbers, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hf_synth.privacy.findings import FLAGS, MAX_COPIED_SHARE, Findings, refusing
from hf_synth.reports.page import Section, Table, markdown, page
from hf_synth.reports.plots import Interval, histogram_plot, interval_plot

if TYPE_CHECKING:
    from hf_synth.privacy.membership import Exposure, Membership

_TITLE = "Audit of synthetic rows"
_LIMITS = (
    "Patterns find what has a form: numbers, dates, e-mail and web addresses. They do not find names, nor places "
    "without a form. This audit is not de-identification, and it does not prove that nothing of gold is left: it "
    "misses paraphrases, and notes that consist of phrases which three or more notes of gold share."
)
_SHARED = {
    "longest_run_words": "longest run shared with one patient or note of gold, in words (set phrases left out)",
    "containment_mean": "mean share of a row's 8-word windows that occur in one of them",
    "containment_p95": "95th percentile of that share",
    "closest_median": "median distance to the closest row of gold (1 = nothing in common)",
}


def audit_sections(
    findings: Findings, *, membership: Membership | None = None, exposure: Exposure | None = None
) -> list[Section]:
    """Return the sections of a report on an audit.

    Args:
        membership: test of a model that was trained on the gold.
        exposure: of canaries in that model.
    """
    sections = [_verdict_section(findings)]
    if findings.compared:
        sections.append(_overlap_section(findings))
    sections.append(_flags_section(findings))
    if kinds := {k[5:]: v for k, v in findings.figures.items() if k.startswith("with_")}:
        rows = [[kind.replace("_", " "), count] for kind, count in kinds.items()]
        sections.append(
            Section("Identifiers", tables=[Table(["kind", "rows"], rows, "Rows with what looks like an identifier")])
        )
    if membership is not None or exposure is not None:
        sections.append(_model_section(membership, exposure))
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
    """Return the report of an audit as one self-contained HTML page.

    Args:
        facts: names and values that describe the audited data.
        simulated: why its figures are not clinical.
    """
    sections = audit_sections(findings, membership=membership, exposure=exposure)
    return page(_TITLE, sections, facts=facts, simulated=simulated)


def audit_markdown(findings: Findings, **options: Any) -> str:
    """Return the report of an audit as Markdown; the arguments are those of `audit_page`."""
    facts, simulated = options.pop("facts", ()), options.pop("simulated", "")
    return markdown(_TITLE, audit_sections(findings, **options), facts=facts, simulated=simulated)


def _verdict_section(findings: Findings) -> Section:
    figures = findings.figures
    rows, copied, refused = (int(figures[k]) for k in ("rows", "copied_rows", "refused_rows"))
    verdict, note = "Passed.", ""
    if findings.verdict != "ok":
        verdict = "Refused: the generator copies, and rows without a finding cannot be trusted either."
    scope = f"{rows:,} rows were compared with {int(figures['gold_rows']):,} rows of gold."
    if not findings.compared:
        scope, note = f"{rows:,} rows were searched.", "There was no gold to compare with, so copies cannot be found."
    text = (
        f"{verdict} {scope} {copied:,} of them contain gold ({figures['copied_share']:.2%}; the dataset is refused "
        f"above {MAX_COPIED_SHARE:.0%}), and {refused:,} must not leave."
    )
    return Section("Verdict", text, note=note)


def _overlap_section(findings: Findings) -> Section:
    figures = findings.figures
    rows = [[meaning, figures[k], figures.get(f"held_out_{k}")] for k, meaning in _SHARED.items() if k in figures]
    tables = [Table(["", "synthetic", "held-out gold"], rows, "Overlap with gold of synthetic rows and held-out gold")]
    plots, text = [], "Without held-out gold, the overlap that comes of a shared subject is unknown."
    if "closeness_auc" in figures:
        value, low, high = (float(figures[f"closeness_auc{end}"]) for end in ("", "_low", "_high"))
        nearer = "nearer to gold than" if low > 0.5 else "farther from gold than" if high < 0.5 else "about as near as"
        text = (
            f"The chance that a synthetic row lies nearer to gold than held-out gold does is {value:.3f} (95% CI "
            f"{low:.3f}-{high:.3f}): synthetic rows lie {nearer} held-out gold."
        )
        if figures["held_out_over_limit"]:
            text += (
                f"\n\n{int(figures['held_out_over_limit']):,} of the sampled rows of held-out gold count as copies "
                "too: gold repeats itself, or its set phrases are not recognised as such."
            )
    if findings.closeness:
        plots.append(
            histogram_plot(dict(findings.closeness), title="Distance to the closest row of gold",
                           axis="distance (0 = same words, 1 = none in common)", limits=(0.0, 1.0))
        )  # fmt: skip
    return Section("Shared with gold", text, plots, tables)


def _flags_section(findings: Findings) -> Section:
    raised = Counter(flag for flags in findings.row_flags for flag in flags)
    rows = [
        [f"`{flag}`", meaning, raised[flag], "yes" if flag in refusing(findings.access) else "no"]
        for flag, meaning in FLAGS.items()
    ]
    numbers = list(findings.refused)
    first = f" The first ones: rows {', '.join(str(i) for i in numbers[:20])}." if numbers else ""
    text = f"Rows with a flag that refuses them: {len(numbers):,}.{first} Row numbers count from 0."
    return Section("Flags", text, tables=[Table(["flag", "meaning", "rows", "refuses"], rows, align="llrl")])


def _model_section(membership: Membership | None, exposure: Exposure | None) -> Section:
    text, plots, rows = [], [], []
    if membership is not None:
        text.append(membership.note[0].upper() + membership.note[1:] + ".")
        if membership.auc is not None and membership.auc_low is not None and membership.auc_high is not None:
            intervals = [Interval("AUC", membership.auc, membership.auc_low, membership.auc_high, emphasis=True)]
            if membership.tpr is not None and membership.tpr_low is not None and membership.tpr_high is not None:
                intervals.append(Interval("TPR at 1% FPR", membership.tpr, membership.tpr_low, membership.tpr_high))
            plots.append(interval_plot(intervals, title="Membership inference", axis="share", reference=0.5))
        rows = [
            ["training rows", membership.members, membership.member_loss],
            ["held-out rows", membership.held_out, membership.held_out_loss],
        ]
    if exposure is not None:
        text.append(f"Canaries at {len(exposure.bits):,} places: {exposure}.")
    tables = [Table(["", "rows", "mean loss"], rows)] if rows else []
    return Section("The model", "\n\n".join(text), plots, tables)
