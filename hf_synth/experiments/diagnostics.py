"""Parts of the report of an experiment: what it cost, how far its models can be believed, what the gates kept out."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hf_synth.evaluation.calibration import reliability_bins
from hf_synth.evaluation.demographics import UNKNOWN
from hf_synth.experiments.grid import MIXTURES
from hf_synth.experiments.results import Row, grouped, mean_of, naming, short_name, with_interval
from hf_synth.reports.page import Section, Table, matrix_table
from hf_synth.reports.plots import Bin, bar_plot, matrix_plot, reliability_plot
from hf_synth.task.columns import REASONS
from hf_synth.task.task import Task

_MOST_STATES = 3  # models in one reliability picture


# --- calibration ------------------------------------------------------------------------------------------------------
def calibration_section(rows: Sequence[Row], metric: str, mark: str) -> Section | None:
    """Show how far the probabilities of each kind of cell can be believed, as they are and tempered on other rows."""
    name, lines, beneath = naming(rows), [], []
    found = {
        group: told
        for group, cells in sorted(grouped(rows).items())
        if (told := [f for f in (json.loads(r.get("calibration") or "{}") for r in cells) if f])
    }
    if not found:
        return None
    firsts = {group: cells[0] for group, cells in grouped(rows).items()}
    for group, told in found.items():
        after = [f["ece_tempered"] for f in told if "ece_tempered" in f]
        lines.append([
            name(firsts[group]), f"{group[1]:,}", f"{np.mean([f['temperature'] for f in told]):.2f}",
            f"{np.mean([f['ece'] for f in told]):.3f}", f"{np.mean(after):.3f}" if after else "",
        ])  # fmt: skip
    shown = _shown(rows, found, metric)
    plots = []
    for which, title in (("bins", "Calibration on the test rows"), ("bins_tempered", "The same, tempered")):
        states = {}
        for group in shown:
            bins = _pooled([f[which] for f in found[group] if which in f])
            states[f"{group[1]:,} gold: {name(firsts[group])}"] = bins
            beneath += [[title, f"{group[1]:,} gold: {name(firsts[group])}", b.confidence, b.accuracy, b.n]
                        for b in bins]  # fmt: skip
        if any(states.values()):
            plots.append(reliability_plot(states, title=title, width=460, simulated=mark))
    text = (
        "Means over seeds. A temperature is found on the test rows of other patients than those it is judged on. "
        "Intervals in the pictures are for one run's rows, since all runs are scored on the same ones."
    )
    by_label = [
        [f"{group[1]:,} gold: {name(firsts[group])}", label, *(f"{np.mean([of[k] for of in ofs]):{form}}" for k, form in
          (("rows", ".0f"), ("confidence", ".3f"), ("accuracy", ".3f"), ("ece", ".3f")))]
        for group in shown for label, ofs in _by_label(found[group]).items()
    ]  # fmt: skip
    tables = [
        Table(["trained on", "gold", "temperature", "ECE", "ECE after it"], lines),
        Table(["trained on", "label said", "rows a run", "mean probability", "share right", "ECE"], by_label),
        Table(["picture", "trained on", "mean probability", "share right", "rows a run"], beneath),
    ]
    return Section("Calibration", text, plots=plots, tables=tables)


def _by_label(runs: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, float]]]:
    """Give what runs tell of each label; a run that never said a label tells nothing of it."""
    found: dict[str, list[Mapping[str, float]]] = defaultdict(list)
    for run in runs:
        for label, of in run.get("by_label", {}).items():
            found[label].append(of)
    return found


def _shown(rows: Sequence[Row], found: Mapping[tuple[Any, ...], Any], metric: str) -> list[tuple[Any, ...]]:
    """Choose what is drawn: of the smallest size with a mixture gold alone, the best raw and the best corrected one."""
    groups = {g: cells for g, cells in grouped(rows).items() if g in found}
    size = min((g[1] for g in groups if g[2] in MIXTURES), default=min(g[1] for g in groups))
    kinds: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for group in groups:
        if group[1] == size and group[2] in ("gold", *MIXTURES):
            kinds[group[2] if group[2] == "gold" else "raw" if group[3] == "raw" else "corrected"].append(group)
    best = [max(some, key=lambda g: mean_of(groups[g], metric)) for some in kinds.values()]
    return sorted(best, key=lambda g: (g[2] != "gold", g[3] != "raw"))[:_MOST_STATES]


def _pooled(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[Bin]:
    """Join the bins of runs on the same test rows; a bin counts the rows of one run in the mean."""
    edges: dict[float, list[Mapping[str, float]]] = defaultdict(list)
    for bins in runs:
        for one in bins:
            edges[round(float(one["low"]), 6)].append(one)
    joined = []
    for _, same in sorted(edges.items()):
        n = np.array([one["rows"] for one in same], float)
        weighted = {k: float(np.average([one[k] for one in same], weights=n)) for k in ("confidence", "accuracy")}
        joined.append({**weighted, "rows": max(1, round(float(n.sum()) / len(runs)))})
    return reliability_bins(joined)


# --- gates ------------------------------------------------------------------------------------------------------------
def gate_section(rows: Sequence[Row], mark: str) -> Section | None:
    """Show what became of the generators' answers."""
    pools = {r["pool_key"]: r for r in rows if r["pool_key"]}
    if not pools:
        return None
    by_name: dict[str, Counter[str]] = defaultdict(Counter)
    for row in pools.values():
        by_name[row["generator"]].update(json.loads(row["gates"]))
    reasons = sorted({reason for found in by_name.values() for reason in found} - {"good"})
    lines = [[name, f"{found['good']:,}", *(f"{found[r]:,}" for r in reasons)] for name, found in by_name.items()]
    told = {r: REASONS.get(r, r) for r in ("good", *reasons)} | {"good": "good rows"}
    plot = bar_plot(list(by_name), {told[r]: [found[r] for found in by_name.values()] for r in told},
                    title="What became of the generators' answers", axis="rows of all generations",
                    simulated=mark)  # fmt: skip
    text = "Rows of all generations, and why answers were left out."
    return Section("Gates", text, plots=[plot], tables=[Table(["generator", *told.values()], lines)])


_FLIPS = ("relabelled", "dropped")


def _class_section(task: Task, rows: Sequence[Row], mark: str) -> Section:
    """Show F1 of each label, from rare to frequent in the test rows, and who is taken for whom by gold and the best."""
    support = {label: told["support"] for label, told in json.loads(rows[0]["per_class"]).items()}
    order = sorted(support, key=lambda label: support[label])
    named, groups = naming(rows), grouped(rows)
    lines = []
    for group, cells in sorted(groups.items()):
        told = [json.loads(r["per_class"]) for r in cells]
        lines.append([named(cells[0]), f"{group[1]:,}", *(f"{np.mean([t[x]['f1'] for t in told]):.3f}" for x in order)])
    plots, tables = [], []
    sizes = {g[1] for g in groups if g[2] in MIXTURES}
    size = min(sizes or {g[1] for g in groups if g[1]} or {0})
    at = [g for g in groups if g[1] == size]
    for wanted in ("gold", "mixture"):
        some = [g for g in at if g[2] in (("gold",) if wanted == "gold" else MIXTURES)]
        if some and len(task.labels) <= 12:
            best = max(some, key=lambda g: mean_of(groups[g], "accuracy"))
            counts = np.sum([json.loads(r["confusion"]) for r in groups[best]], axis=0)
            title = f"Confusion: {size:,} gold, {named(groups[best][0])}"
            plots.append(matrix_plot(counts.tolist(), task.labels, task.labels, title=title, row_axis="true label",
                                     column_axis="predicted, all seeds", simulated=mark))  # fmt: skip
            tables.append(matrix_table(counts.tolist(), task.labels, task.labels, corner="true label / predicted",
                                       caption=title))  # fmt: skip
    head = ["trained on", "gold", *(f"{x} ({support[x]} rows)" for x in order)]
    return Section("Rare classes", "Mean F1 of each label over seeds, the rarest first.", plots=plots,
                   tables=[Table(head, lines), *tables])  # fmt: skip


def _noise_section(task: Task, rows: Sequence[Row], mark: str) -> Section | None:
    """Show the generator's confusion as the policies estimate it, and where correction moved labels."""
    kept = {r["corrected_key"]: r for r in rows if r["corrected_key"] and r["policy"] != "none"}
    if not kept or len(task.labels) > 12:
        return None
    noise = [json.loads(r["noise"]) for r in kept.values() if r["labels"] == "auto"] or [
        json.loads(r["noise"]) for r in kept.values()
    ]
    noise = [n for n in noise if n]
    after = [json.loads(r["noise_after"]) for r in kept.values() if r["labels"] == "auto" and r["noise_after"] != "[]"]
    plots, tables = [], []
    for name, found in (("before", noise), ("after", after)):
        if found:
            mean = np.mean(found, axis=0)
            title = f"Labels {name} correction, by what is held for true (estimated)"
            plots.append(matrix_plot(mean.tolist(), task.labels, task.labels, title=title, row_axis="held for true",
                                     column_axis="label", simulated=mark))  # fmt: skip
            tables.append(matrix_table(mean.tolist(), task.labels, task.labels, corner="held for true / label",
                                       caption=title))  # fmt: skip
    note = (
        "Estimates: they assume that corrector and generator err independently given the truth. After correction the "
        "truth is taken from the policy's own belief, so that this matrix says how sure it is, not how right."
    )
    return Section("Noise before and after", plots=plots, tables=tables, note=note) if plots else None


def _subgroup_section(rows: Sequence[Row], metric: str) -> Section | None:
    """Show scores by subgroup of gold alone and of each mixture, at the size of the mixtures."""
    named, groups = naming(rows), grouped(rows)
    sizes = {g[1] for g in groups if g[2] in MIXTURES}
    lines = []
    for group, cells in sorted(groups.items()):
        if sizes and group[1] not in {0, *sizes}:
            continue
        found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
        for row in cells:
            for one in json.loads(row.get("subgroups", "[]")):
                found[one["attribute"], one["name"]].append(one)
        for (attribute, name), ones in sorted(found.items()):
            behind = [one["behind"][metric][0] for one in ones if metric in one["behind"]]
            values = [one["values"][metric] for one in ones if metric in one["values"]]
            if len(found) > 1 and values and name != UNKNOWN:
                gap = f"{np.mean(behind):+.3f}" if behind else "too few"
                lines.append([named(cells[0]), f"{group[1]:,}", attribute, name, ones[0]["n"], ones[0]["patients"],
                              f"{np.mean(values):.3f}", gap])  # fmt: skip
    if not lines:
        return None
    head = ["trained on", "gold", "attribute", "subgroup", "test rows", "patients", metric, "less all others"]
    text = "Means over seeds. Sex, age and race are read from columns of that name, else from the notes' own words."
    return Section("Subgroups", text, tables=[Table(head, lines)])


def _flip_section(rows: Sequence[Row]) -> Section | None:
    """Show of whose notes correction changed or dropped the label."""
    kept = {r["corrected_key"]: r for r in rows if r["corrected_key"] and r["policy"] != "none"}
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in kept.values():
        for one in json.loads(row.get("flips", "[]")):
            if one["name"] != UNKNOWN:
                found[row["labels"], one["attribute"], one["name"]].append(one)
    lines = [
        [*names, sum(one["n"] for one in ones), *(f"{np.mean([one['values'][w] for one in ones]):.3f}" for w in _FLIPS)]
        for names, ones in sorted(found.items())
    ]
    if not lines:
        return None
    head = ["labels by", "attribute", "subgroup", "synthetic rows", *_FLIPS]
    text = "Shares of synthetic rows, means over runs."
    return Section("Whose labels were changed", text, tables=[Table(head, lines)])


def _policy_section(rows: Sequence[Row]) -> Section | None:
    corrected = [r for r in rows if r["corrected_key"]]
    if not corrected:
        return None
    named = naming(corrected)
    by_arm: dict[tuple[int, str], dict[str, Row]] = defaultdict(dict)
    for row in corrected:
        by_arm[row["gold_size"], named({**row, "arm": row["labels"]})][row["corrected_key"]] = row
    lines, warnings = [], Counter[str]()
    for (size, labels), by_key in sorted(by_arm.items()):
        cells = list(by_key.values())
        chosen = Counter(r["policy"] for r in cells)
        # where nothing was corrected no opinion was asked for, and estimates from it mean nothing
        figures = [json.loads(r["policy_figures"]) for r in cells if r["policy"] != "none"]
        warnings.update(w for r in cells for w in json.loads(r["policy_warnings"]))
        counts = (f"{mean_of(cells, f'n_{s}'):,.0f}" for s in ("kept", "relabelled", "dropped"))
        told = ", ".join(f"{m} {n}" if len(chosen) > 1 else m for m, n in chosen.most_common())
        names = ("corrector_accuracy_on_held_out_gold", "generator_accuracy_estimated", "generator_accuracy_audited",
                 "corrector_ece_on_held_out_gold", "corrector_ece_after_temperature")  # fmt: skip
        lines.append([labels, f"{size:,}", told, *counts, *(_figure(figures, n) for n in names)])
    head = ["labels by", "gold", "policy (runs)", "kept", "relabelled", "dropped", "corrector right on held-out gold",
            "generator right, estimated", "generator right, audited", "its ECE", "after temperature"]  # fmt: skip
    said = "\n".join(f"- {w} ({n} runs)" for w, n in warnings.most_common(5))
    text = "Means over runs. Which labels are right is only known where a person has checked rows (audited)."
    return Section("What correction did", f"{text}\n\n{said}" if said else text, tables=[Table(head, lines)])


def _figure(figures: Sequence[Mapping[str, Any]], name: str) -> str:
    values = [f[name] for f in figures if f.get(name) is not None]
    return f"{np.mean(values):.3f}" if values else ""


def _swap_section(rows: Sequence[Row]) -> Section | None:
    """Show how often predictions change when only the patient is another."""
    named, lines = naming(rows), []
    for group, cells in sorted(grouped(rows).items()):
        found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for row in cells:
            for one in json.loads(row.get("swaps") or "[]"):
                if one["name"] == "all":
                    found[one["attribute"]].append(one)
        for attribute, ones in sorted(found.items()):
            mean, low, high = with_interval([one["values"]["flipped"] for one in ones])
            between = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
            moved = [one["values"]["moved"] for one in ones if "moved" in one["values"]]
            lines.append([named(cells[0]), f"{group[1]:,}", short_name(group[0]), attribute, f"{ones[0]['n']:,}",
                          f"{mean:.3f}", between, f"{np.mean(moved):.3f}" if moved else ""])  # fmt: skip
    if not lines:
        return None
    head = ["trained on", "gold", "base model", "swapped", "test notes", "predictions that flip", "95% CI over seeds",
            "probability moves by"]  # fmt: skip
    text = (
        "Test notes that name the patient's sex, age or race, with only these words swapped. The labels do not depend "
        "on them, so that each flip is one too many; what is said in other words stays and may contradict the swap."
    )
    return Section("The same note of another patient", text, tables=[Table(head, lines)])
