"""Report of a privacy audit in HTML and Markdown: figures, flags and closeness; counts and row numbers, never text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hf_synth.privacy.findings import FLAGS, MAX_COPIED_SHARE, Findings, refusals, refusing
from hf_synth.privacy.short_texts import FEWEST
from hf_synth.reports.page import Section, Table, markdown, page
from hf_synth.reports.plots import Interval, histogram_plot, interval_plot

if TYPE_CHECKING:
    from hf_synth.privacy.membership import Exposure, Membership

_TITLE = "Audit of synthetic rows"
_LIMITS = (
    "Patterns find what has a form: numbers, dates, e-mail and web addresses. They do not find names, nor places "
    "without a form. This audit is not de-identification, and it does not prove that nothing of gold is left: it "
    "misses paraphrases, texts of a few words of which one was changed, and notes that consist of phrases which three "
    "or more notes of gold share."
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
    sections = [_verdict_section(findings, model=membership is not None)]
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


def _verdict_section(findings: Findings, *, model: bool) -> Section:
    """Write what may leave, what must not and what was not checked.

    Args:
        model: whether a model was tested too.
    """
    figures = findings.figures
    rows, copied, refused = (int(figures[k]) for k in ("rows", "copied_rows", "refused_rows"))
    left = 0 if findings.verdict != "ok" else rows - refused
    nearer = float(figures.get("closeness_auc_low", 0.0)) > 0.5
    text = (
        f"{rows:,} rows were compared with {int(figures['gold_rows']):,} rows of gold. {copied:,} of them contain gold "
        f"({figures['copied_share']:.2%}), and {refused:,} must not leave."
    )
    if not findings.compared:
        text = (
            f"{rows:,} rows were searched. There was no gold to compare with, so copies cannot be found. {refused:,} "
            "must not leave."
        )
    if findings.verdict != "ok":
        text += (
            f" Above {MAX_COPIED_SHARE:.0%} the generator copies, and rows without a finding cannot be trusted either: "
            "nothing may leave. Generate again, e.g. with fewer or shorter exemplars."
        )
    note = ""
    if nearer:
        note = (
            "The rows lie nearer to gold than held-out gold does "
            f"({float(figures['closeness_auc']):.3f}; 0.5 is neither). A generator that tells single notes in other "
            "words looks like this: read rows beside the gold before any of them leave."
        )
    glance = [
        ["may leave", left, _share(left, rows), "nothing was found in them" if left else None],
        ["must not leave", rows - left, _share(rows - left, rows), _reasons(findings)],
    ]
    if not findings.compared and left:
        glance[0] = ["not known", left, _share(left, rows), "nothing was found in them, but copies were not looked for"]
    glance += [["was not checked", count, "", what] for count, what in _unchecked(findings, model=model)]
    title = f"Verdict: {left:,} of {rows:,} rows may leave" if left else "Verdict: no row may leave"
    if not findings.compared and left:
        title = "Verdict: not known, the rows were not compared with gold"
    elif nearer and left:
        title += ", once a person has looked at them"
    return Section(title, text, tables=[Table(["", "rows", "share", "why"], glance, align="lrrl")], note=note)


def _share(part: int, rows: int) -> str:
    return f"{part / max(1, rows):.1%}"


def _reasons(findings: Findings) -> str:
    """Name the flags that refuse most rows."""
    counts = refusals(findings, findings.refused)
    most = sorted(counts, key=lambda flag: -counts[flag])[:3]
    reasons = [f"{counts[flag]:,} `{flag}`" for flag in most]
    return ("all rows, since too many copy gold: " if findings.verdict != "ok" else "") + (", ".join(reasons) or "–")


def _unchecked(findings: Findings, *, model: bool) -> Iterator[tuple[int | None, str]]:
    """Yield what the audit did not check, each with a number of rows where it is of some rows."""
    figures = findings.figures
    if not findings.compared:
        yield None, "copies of gold: no gold was given"
    elif short := int(figures.get("too_short", 0)):
        yield short, f"near-copies, in rows of fewer than {FEWEST} words: only whole texts of gold were looked for"
    if findings.compared and "closeness_auc" not in figures:
        yield None, "whether the rows lie too near to gold: there was no held-out gold"
    if "canaries_planted" not in figures:
        yield None, "canaries: none was named"
    if not model:
        yield None, "whether a model tells who was in its training rows: no model was named"
    yield None, "names, and places without a form; gold in other words"


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
        [f"`{flag}`", raised[flag], "yes" if flag in refusing(findings.access) else "no", meaning]
        for flag, meaning in FLAGS.items()
    ]
    numbers = list(findings.refused)
    first = f" The first ones: rows {', '.join(str(i) for i in numbers[:20])}." if numbers else ""
    text = f"Rows with a flag that refuses them: {len(numbers):,}.{first} Row numbers count from 0."
    return Section("Flags", text, tables=[Table(["flag", "rows", "refuses", "meaning"], rows, align="lrll")])


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
