"""Report of a privacy audit in HTML and Markdown: what may leave, what not, and what was not checked, then figures.

It holds counts and row numbers, never text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hf_synth.privacy.findings import COPIED, FLAGS, MAX_COPIED_SHARE, Findings, refusals, refusing
from hf_synth.privacy.short_texts import FEWEST
from hf_synth.reports.page import Lead, Section, Table, Tile, markdown, page
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
_FLAG_HEADER = ("flag", "rows", "refuses", "meaning")


_SHOWN = 20  # row numbers that are listed


def audit_lead(findings: Findings) -> Lead:
    """Return what the report of an audit says first: what may leave, what not, and that names were not checked."""
    figures = findings.figures
    rows, refused = int(figures["rows"]), int(figures["refused_rows"])
    left = _rows_left(findings)
    names = "" if any("name" in kind for kind in figures if kind.startswith("with_")) else " Names were not checked."
    withheld = f"{refused:,} {'is' if refused == 1 else 'are'} withheld."
    points = []
    if findings.verdict != "ok":
        verdict = f"No row may leave: {int(figures['copied_rows']):,} of {rows:,} rows contain gold."
        points.append(
            f"Above {MAX_COPIED_SHARE:.0%} of copies the generator copies, and rows without a finding cannot be "
            "trusted either. Generate again, e.g. with fewer or shorter exemplars."
        )
    elif not left:
        verdict = f"No row may leave: all {rows:,} are withheld." if rows else "No row may leave: there is none."
    elif not findings.compared:
        verdict = f"It is not known what may leave: {rows:,} rows were not compared with gold. {withheld}{names}"
    elif _nearer(findings):
        verdict = f"{left:,} of {rows:,} rows may leave once a person has looked at them; {withheld}{names}"
        points.append(
            f"{nearness(findings)} A generator that writes single notes in other words looks like this: read rows "
            "beside the gold before any of them leave."
        )
    else:
        verdict = f"{left:,} of {rows:,} rows may leave; {withheld}{names}"
    sure = left and findings.compared and not _nearer(findings)
    tiles = [
        Tile(f"{left:,}", "rows may leave" if findings.compared else "rows without a finding",
             f"of {rows:,}" + ("; nothing was found in them" if left else ""), "good" if sure else ""),
        Tile(f"{rows - left:,}", "rows must not leave", _reasons(findings, words=True), "bad" if rows > left else ""),
        Tile("Names" if names else "Paraphrases", "were not checked", "nor was what is listed below", "unsure"),
    ]  # fmt: skip
    return Lead(verdict, "bad" if not left else "good" if sure and 2 * left >= rows else "unsure", (), tiles, points)


def _rows_left(findings: Findings) -> int:
    """Return the number of rows that are not withheld."""
    return 0 if findings.verdict != "ok" else int(findings.figures["rows"]) - int(findings.figures["refused_rows"])


def _nearer(findings: Findings) -> bool:
    return float(findings.figures.get("closeness_auc_low", 0.0)) > 0.5


def nearness(findings: Findings) -> str:
    """Write how often a synthetic row lies nearer to gold than held-out gold does."""
    value, low, high = (float(findings.figures[f"closeness_auc{end}"]) for end in ("", "_low", "_high"))
    how = "nearer to gold than" if low > 0.5 else "farther from gold than" if high < 0.5 else "about as near to gold as"
    share = "all" if value == 1 else f"{value:.1%} of all"
    return (
        f"The synthetic rows lie {how} held-out gold: in {share} pairs of a synthetic and a held-out row the synthetic "
        f"one is nearer ({value:.3f}, 95% CI {low:.3f}-{high:.3f}; 0.5 would be no difference)."
    )


def audit_sections(
    findings: Findings,
    *,
    membership: Membership | None = None,
    exposure: Exposure | None = None,
    simulated: str = "",
    more: Sequence[Section] = (),
) -> list[Section]:
    """Return the sections of a report on an audit.

    Args:
        membership: test of a model that was trained on the gold.
        exposure: of canaries in that model.
        simulated: why its figures are not clinical; a stamp in each picture.
        more: further sections on the rows, e.g. what people thought of them.
    """
    sections = [_glance_section(findings, model=membership is not None), _flags_section(findings)]
    if findings.compared:
        sections.append(_overlap_section(findings, simulated))
    if kinds := {k[5:]: int(v) for k, v in findings.figures.items() if k.startswith("with_")}:
        rows = [[kind.replace("_", " "), count] for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1])]
        table = Table(["kind", "rows"], rows, "Rows with what looks like an identifier")
        sections.append(Section("Identifiers", tables=[table], folded=True))
    if membership is not None or exposure is not None:
        sections.append(_model_section(membership, exposure, simulated))
    sections += [*more, _silent_section(findings)]
    sections.append(Section("What this cannot show", _LIMITS))
    return sections


def audit_page(
    findings: Findings,
    *,
    membership: Membership | None = None,
    exposure: Exposure | None = None,
    facts: Sequence[tuple[str, object]] = (),
    simulated: str = "",
    more: Sequence[Section] = (),
) -> str:
    """Return the report of an audit as one self-contained HTML page.

    Args:
        facts: names and values that describe the audited data.
        simulated: why its figures are not clinical.
        more: further sections on the rows.
    """
    sections = audit_sections(findings, membership=membership, exposure=exposure, simulated=simulated, more=more)
    return page(_TITLE, sections, facts=facts, simulated=simulated, lead=audit_lead(findings))


def audit_markdown(findings: Findings, **options: Any) -> str:
    """Return the report of an audit as Markdown; the arguments are those of `audit_page`."""
    facts, simulated = options.pop("facts", ()), options.pop("simulated", "")
    sections = audit_sections(findings, **options)
    return markdown(_TITLE, sections, facts=facts, simulated=simulated, lead=audit_lead(findings))


def _glance_section(findings: Findings, *, model: bool) -> Section:
    """Write what may leave, what must not and what was not checked.

    Args:
        model: whether a model was tested too.
    """
    figures = findings.figures
    rows, copied, refused = (int(figures[k]) for k in ("rows", "copied_rows", "refused_rows"))
    left = _rows_left(findings)
    text = (
        f"{rows:,} rows were compared with {int(figures['gold_rows']):,} rows of gold. {copied:,} of them contain gold "
        f"({figures['copied_share']:.2%}), and {refused:,} must not leave."
    )
    if not findings.compared:
        text = (
            f"{rows:,} rows were searched. There was no gold to compare with, so copies cannot be found. {refused:,} "
            "must not leave."
        )
    glance: list[list[object]] = [
        ["✓ may leave", left, _share(left, rows), "nothing was found in them" if left else None],
        ["✗ must not leave", rows - left, _share(rows - left, rows), _reasons(findings)],
    ]
    if not findings.compared and left:
        why = "nothing was found in them, but copies were not looked for"
        glance[0] = ["? not known", left, _share(left, rows), why]
    glance += [["! not checked", count, "", what] for count, what in _unchecked(findings, model=model)]
    table = Table(["", "rows", "share", "why"], glance, align="lrrl")
    return Section("What may leave, and what not", text, tables=[table])


def _share(part: int, rows: int) -> str:
    return f"{part / max(1, rows):.1%}"


def _reasons(findings: Findings, *, words: bool = False) -> str:
    """Name the flags that refuse most rows; with `words` not as they are written in a file."""
    counts = refusals(findings, findings.refused)
    most = sorted(counts, key=lambda flag: -counts[flag])[:3]
    reasons = [f"{counts[flag]:,} {flag.replace('_', ' ') if words else f'`{flag}`'}" for flag in most]
    return ("all rows, since too many copy gold: " if findings.verdict != "ok" else "") + (", ".join(reasons) or "none")


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


def _overlap_section(findings: Findings, simulated: str) -> Section:
    figures = findings.figures
    rows = [[meaning, figures[k], figures.get(f"held_out_{k}")] for k, meaning in _SHARED.items() if k in figures]
    tables = [Table(["", "synthetic", "held-out gold"], rows, "Overlap with gold of synthetic rows and held-out gold")]
    plots, text = [], "Without held-out gold, the overlap that comes of a shared subject is unknown."
    if "closeness_auc" in figures:
        text = nearness(findings)
        if figures["held_out_over_limit"]:
            text += (
                f"\n\n{int(figures['held_out_over_limit']):,} of the sampled rows of held-out gold count as copies "
                "too: gold repeats itself, or its set phrases are not recognised as such."
            )
    if findings.closeness:
        groups = {name.replace("held_out", "held-out gold"): values for name, values in findings.closeness.items()}
        axis = "distance (0 = same words, 1 = none in common)"
        title = "Distance to the closest row of gold"
        plots.append(histogram_plot(groups, title=title, axis=axis, limits=(0.0, 1.0), simulated=simulated))
    return Section("Shared with gold", text, plots, tables, folded=not _nearer(findings))


def set_phrase_hint(findings: Findings) -> list[str]:
    """Return what to do where reports of one form are withheld as copies; [] where no row is withheld as one."""
    if not any({"copy_of_gold", "copied_span", "near_copy"} & set(flags) for flags in findings.refused.values()):
        return []
    over = int(findings.figures.get("held_out_over_limit", 0))
    also = f"; {over:,} of the sampled rows of held-out gold would be withheld, too" if over else ""
    return [
        "wording that three patients or notes of gold share is a set phrase, and no copy: where reports of one form "
        f"are withheld, gold with three notes of that form mends it{also}"
    ]


def _flags_section(findings: Findings) -> Section:
    """List the flags that were raised, those of most rows first, and the numbers of the rows that are refused."""
    rows = [line for line in _flag_lines(findings) if line[1]]
    numbers = list(findings.refused)
    text = "No row has a flag that refuses it." if not numbers else (
        f"{len(numbers):,} {'row is' if len(numbers) == 1 else 'rows are'} refused because of a flag. Rows, counted "
        f"from 0: {', '.join(str(i) for i in numbers[:_SHOWN])}{' and more' if len(numbers) > _SHOWN else ''}. Every "
        "row's flags are in `findings.parquet` beside this page; `hf-synth audit ... --show` prints the words in "
        "question in a terminal."
    )  # fmt: skip
    text += "".join(f"\n\n{hint[0].upper()}{hint[1:]}." for hint in set_phrase_hint(findings))
    tables = [Table(_FLAG_HEADER, rows, "Flags that were raised", align="lrll")] if rows else []
    return Section("Flags", text, tables=tables)


def _silent_section(findings: Findings) -> Section:
    """List the flags that no row has, without those that were not looked for."""
    unseen = {f"`{flag}`" for flag in (*COPIED, "exemplar_echo")} - {"`gold_row`"} if not findings.compared else set()
    unseen |= set() if "canaries_planted" in findings.figures else {"`canary`"}
    rows = [line for line in _flag_lines(findings) if not line[1] and line[0] not in unseen]
    text = "" if findings.compared else "Copies of gold were not looked for."
    table = Table(_FLAG_HEADER, rows, "Flags that no row has", align="lrll")
    return Section("Looked for and not found", text, tables=[table], folded=True)


def _flag_lines(findings: Findings) -> list[tuple[str, int, str, str]]:
    raised = Counter(flag for flags in findings.row_flags for flag in flags)
    order = sorted(FLAGS, key=lambda flag: -raised[flag])
    refuse = refusing(findings.access)
    return [(f"`{flag}`", raised[flag], "yes" if flag in refuse else "no", FLAGS[flag]) for flag in order]


def _model_section(membership: Membership | None, exposure: Exposure | None, simulated: str) -> Section:
    text, plots, rows = [], [], []
    if membership is not None:
        text.append(membership.note[0].upper() + membership.note[1:] + ".")
        if membership.auc is not None and membership.auc_low is not None and membership.auc_high is not None:
            intervals = [Interval("AUC", membership.auc, membership.auc_low, membership.auc_high, emphasis=True)]
            if membership.tpr is not None and membership.tpr_low is not None and membership.tpr_high is not None:
                intervals.append(Interval("TPR at 1% FPR", membership.tpr, membership.tpr_low, membership.tpr_high))
            title = "Membership inference"
            plots.append(interval_plot(intervals, title=title, axis="share", reference=0.5, simulated=simulated))
        rows = [
            ["training rows", membership.members, membership.member_loss],
            ["held-out rows", membership.held_out, membership.held_out_loss],
        ]
    if exposure is not None:
        text.append(f"Canaries at {len(exposure.bits):,} places: {exposure}.")
    tables = [Table(["", "rows", "mean loss"], rows)] if rows else []
    return Section("The model", "\n\n".join(text), plots, tables)
