"""The page of real_llm.py, from the results that it kept: short tables first, all tables of each study after them.

Nothing is run here. The written text is in `real_llm_text.py`.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import real_llm_text as text_of
from real_llm_kept import GENERATORS, PARTS, Difference, Kept, Row, difference, predictions_of, read_kept

from hf_synth.evaluation.statistics import holm
from hf_synth.experiments.cells import gold_of, held_out
from hf_synth.experiments.grid import Study
from hf_synth.experiments.names import mix_name
from hf_synth.experiments.report import report_sections
from hf_synth.gold.gold import subset
from hf_synth.reports.page import markdown, markdown_table
from hf_synth.task.scripts import load_task

MIXES = {
    "raw": "uncorrected", "argmax": "argmax", "auto": "`auto`", "auto_macro_f1": "`auto` by macro-F1",
    "llm_judge": "LLM judge",
}  # fmt: skip
_STAR = "\ue000"  # stands for an asterisk that a table must not escape
RARE_ROWS = 12  # a section header with fewer test rows is rare
RARE_SHARE = 0.1  # in recall: a label with a smaller share of the test rows is rare
LEVEL = 0.05
# Categories of the hypotheses of SDOH-NLI, by words of their templates; the first that fits counts.
CATEGORIES = {
    "alcohol": r"alcohol",
    "tobacco": r"smokers?",
    "drugs": r"drugs?|cocaine|marijuana|opioids",
    "employment": r"employed|homemaker|retired|student",
    "food": r"food",
    "transport": r"transportation",
    "living alone": r"alone",
    "housing": r"home|housing",
}


def in_words(found: Sequence[Difference]) -> list[str]:
    """Write differences with their intervals; bold: beyond chance after Holm's correction over all of them."""
    tested = [d for d in found if d.p is not None]
    adjusted = dict(zip(map(id, tested), holm([d.p for d in tested]) if tested else [], strict=True))
    texts = []
    for d in found:
        if not d.seeds:
            texts.append("")
            continue
        ends = f" ({d.ci95[0]:+.3f} to {d.ci95[1]:+.3f})" if d.ci95 else ""
        text = f"{d.mean:+.3f}{ends}"
        texts.append(f"**{text}**" if adjusted.get(id(d), 1.0) <= LEVEL else text)
    return texts


def bold_table(head: Sequence[str], lines: Sequence[Sequence[object]], align: str) -> str:
    """Return a table of Markdown in which **...** is bold."""
    marked = [[cell.replace("*", _STAR) if isinstance(cell, str) else cell for cell in line] for line in lines]
    return markdown_table(head, marked, align=align).replace(_STAR, "*")


# --- short tables -----------------------------------------------------------------------------------------------------
def mean_score(runs: dict[int, Row]) -> float | None:
    return float(np.mean([r["macro_f1"] for r in runs.values()])) if runs else None


def score_table(kept: Sequence[Kept]) -> str:
    """Show gold alone and gold with notes, by study and ratio; the best score of a line is bold."""
    lines = []
    for k in kept:
        for ratio in k.ratios:
            arms = ["gold", *(f"augment {labels}" for labels in MIXES)]
            scores = [mean_score(k.runs(arm, ratio)) for arm in arms]
            best = max(s for s in scores if s is not None)
            texts = ["" if s is None else f"**{s:.3f}**" if s == best else f"{s:.3f}" for s in scores]
            if not any(s is not None for s in scores[1:]):
                continue
            whole = ("augment raw", "augment llm_judge")  # which leave no note out
            notes = [r["n_synthetic"] for a in whole for r in k.runs(a, ratio).values()]
            seeds = max(len(k.runs(arm, ratio)) for arm in arms[1:])
            lines.append([k.title, f"{ratio:g}", f"{np.mean(notes):,.0f}", seeds, *texts])
    head = ["macro-F1 of 200 gold rows with ...", "ratio", "good notes", "seeds", "no notes"]
    return bold_table([*head, *MIXES.values()], lines, "lrrr" + "r" * (len(MIXES) + 1))


def change_table(kept: Sequence[Kept]) -> str:
    """Show what uncorrected notes add to gold alone, and what correction then adds, with p by Holm within a study."""
    whats = ("augment raw - gold", *(f"augment {m} - augment raw" for m in ("argmax", "auto", "auto_macro_f1")))
    lines = []
    for k in kept:
        known = {(c.what, c.where): c for c in k.results.comparisons}
        chosen = [difference((k, k.runs("augment auto_macro_f1", r)), (k, k.runs("gold", r))) for r in k.ratios]
        for ratio, promised in zip(k.ratios, in_words(chosen), strict=True):
            texts = []
            for what in whats:
                c = next((c for (w, where), c in known.items() if w == what and f", ratio {ratio:g}," in where), None)
                if c is None:
                    texts.append("")
                    continue
                text = f"{c.difference:+.3f}" + (f" ({c.ci95[0]:+.3f} to {c.ci95[1]:+.3f})" if c.ci95 else "")
                texts.append(f"**{text}**" if c.p_holm is not None and c.p_holm <= LEVEL else text)
            judged = difference((k, k.runs("augment llm_judge", ratio)), (k, k.runs("gold", ratio)))
            if any(texts) or judged.seeds:
                lines.append([k.title, f"{ratio:g}", *texts, promised, *in_words([judged])])
    head = ["differences of macro-F1", "ratio", "uncorrected - no notes", "argmax - uncorrected"]
    head += ["`auto` - uncorrected", "`auto` by macro-F1 - uncorrected", "`auto` by macro-F1 - no notes"]
    return bold_table([*head, "LLM judge - no notes"], lines, "lr")


def recall_table(kept: Sequence[Kept]) -> str:
    """Show by study, at its largest ratio, the recall of rare and of other labels and accuracy of each mix."""
    arms = {"gold": "no notes"} | {f"augment {m}": name for m, name in MIXES.items() if m != "llm_judge"}
    lines: list[list[Any]] = []
    for k in (k for k in kept if k.first and k.part != "judge"):
        runs = {arm: list(k.runs(arm, max(k.ratios)).values()) for arm in arms}
        support = {n: s["support"] for n, s in json.loads(k.results.main[0]["per_class"]).items() if s["support"]}
        rare = {n for n, rows in support.items() if rows < RARE_SHARE * sum(support.values())}
        for what, labels in (("rare", rare), ("other", set(support) - rare)):
            means = [
                [scores[n]["recall"] for r in of for scores in [json.loads(r["per_class"])] for n in labels]
                for of in runs.values()
            ]
            names = ", ".join(labels) if len(labels) == 1 else f"{len(labels)} {what} labels"
            lines.append([k.title, f"recall of {names}", *(f"{np.mean(m):.3f}" if m else "" for m in means)])
        accuracies = [[r["accuracy"] for r in of] for of in runs.values()]
        lines.append([k.title, "accuracy", *(f"{np.mean(a):.3f}" if a else "" for a in accuracies)])
    return bold_table(["at the largest ratio", "mean of", *arms.values()], lines, "ll" + "r" * len(arms))


def generator_table(kept: Sequence[Kept]) -> str:
    """Compare the generators of the same task and part on the seeds that both have."""
    lines: list[list[Any]] = []
    found: list[Difference] = []
    small, other = GENERATORS
    of_other = {(k.task, k.part): k for k in kept if k.first and k.generator == other}
    for k in (k for k in kept if k.first and k.generator == small and (k.task, k.part) in of_other):
        theirs = of_other[k.task, k.part]
        for ratio in sorted(set(k.ratios) & set(theirs.ratios)):
            for arm in [f"{s} {m}" for s in ("augment", "replace", "synthetic") for m in MIXES]:
                both = k.runs(arm, ratio), theirs.runs(arm, ratio)
                if seeds := sorted(set(both[0]) & set(both[1])):
                    found.append(difference((theirs, both[1]), (k, both[0])))
                    means = [f"{np.mean([runs[s]['macro_f1'] for s in seeds]):.3f}" for runs in both]
                    counts = [f"{np.mean([runs[s]['n_synthetic'] for s in seeds]):,.0f}" for runs in both]
                    lines.append([mix_name(arm), f"{ratio:g}", len(seeds), *counts, *means])
    if not lines:
        return ""
    for line, text in zip(lines, in_words(found), strict=True):
        line.append(text)
    names = list(GENERATORS.values())
    head = ["trained on", "ratio", "seeds", *(f"notes of {n}" for n in names), *names]
    return bold_table([*head, f"{names[1]} - {names[0]}"], lines, "lrrrrrr")


def rare_table(kept: Sequence[Kept], task: str) -> str:
    """Show for each rare label how well gold alone and uncorrected notes do, and how many training mixes find it."""
    studies = [k for k in kept if k.task == task]
    first = next((k for k in studies if k.part == "linear"), None)
    arms = {"gold": "gold alone", "augment raw": "+ uncorrected", "augment auto_macro_f1": "+ `auto` by macro-F1"}
    if first is None:
        return ""
    support = {name: s["support"] for name, s in json.loads(first.results.main[0]["per_class"]).items()}
    rare = sorted((n for n, rows in support.items() if 0 < rows < RARE_ROWS), key=lambda n: support[n])
    ratio = max(first.ratios)
    arms = {arm: name for arm, name in arms.items() if first.runs(arm, ratio)}

    def per_class(row: Row) -> dict[str, Any]:
        return dict(json.loads(row["per_class"]))

    def f1(arm: str, label: str) -> float:
        return float(np.mean([per_class(r)[label]["f1"] for r in first.runs(arm, ratio).values()]))

    lines = []
    for label in rare:
        before, *after = (f1(arm, label) for arm in arms)
        finders = []
        for k in studies:
            mixes: dict[tuple[str, float], bool] = defaultdict(bool)
            for r in k.results.main:
                if r["gold_size"] == k.gold:
                    mixes[r["arm"], r["ratio"]] |= per_class(r)[label]["recall"] > 0
            finders.append(f"{sum(mixes.values())} of {len(mixes)}")
        scores = [f"{s:.3f}" for s in (before, *after)]
        lines.append([label, support[label], *scores, *(f"{s - before:+.3f}" for s in after), *finders])
    parts = [f"found by mixes: {PARTS[k.part]}" for k in studies]
    mixes_of = [f"F1, {name}" for name in arms.values()]
    changes = [f"change, {name}" for name in list(arms.values())[1:]]
    head = ["label", "test rows", *mixes_of, *changes, *parts]
    return markdown_table(head, lines, align="l" + "r" * (len(head) - 1))


def category_of(hypothesis: str) -> str:
    """Return the category of a hypothesis by the words of its template; "other" where none fits."""
    found = (name for name, words in CATEGORIES.items() if re.search(rf"\b(?:{words})\b", hypothesis.lower()))
    return next(found, "other")


def test_rows(kept: Kept) -> Any:
    """Return the test rows of a study as they were scored: without those that are in the gold for training."""
    return held_out(Study(task=load_task(kept.task), out=kept.results.out, drop_seen=True))["test"]


def category_table(kept: Kept) -> str:
    """Show how many True pairs of each category gold alone finds, and with notes, and who gains."""
    task, ratio = load_task(kept.task), max(kept.ratios)
    positive, rows = task.labels.index("True"), test_rows(kept)
    names, labels = np.array([category_of(t) for t in rows["hypothesis"]]), np.array(rows[task.label_column])
    mixes = {"gold": "gold alone", "augment raw": "+ uncorrected", "augment auto_macro_f1": "+ `auto` by macro-F1"}
    arms = [runs for runs in (kept.runs(arm, ratio) for arm in mixes) if runs]
    seeds = sorted(set.intersection(*(set(runs) for runs in arms)))
    in_gold: Counter[str] = Counter()
    for seed in seeds:
        own = subset(task, gold_of(kept.results.out)["train"], kept.gold, seed=seed)
        in_gold.update(category_of(r["hypothesis"]) for r in own if r[task.label_column] == positive)
    lines: list[list[Any]] = []
    found: list[list[Difference]] = []
    for name in (*CATEGORIES, "other"):
        mask = names == name
        if not mask.any():
            continue
        cells, n_true = [], 0
        for runs in arms:
            counts = np.zeros(2)
            for seed in seeds:
                truth, predicted, _ = predictions_of(kept, runs[seed])
                assert (truth == labels).all(), "the test rows are not those that were scored"
                said, right = predicted[mask] == positive, truth[mask] == positive
                counts += np.array([(said & right).sum(), (said & ~right).sum()]) / len(seeds)
                n_true = int(right.sum())
            cells += [f"{count:.1f}" for count in counts]
        none = Difference(0, 0.0, None, None)
        found.append([difference((kept, a), (kept, arms[0]), mask) if n_true else none for a in arms[1:]])
        lines.append([name, int(mask.sum()), n_true, f"{in_gold[name] / len(seeds):.1f}", *cells])
    for of_mix in zip(*found, strict=True):
        for line, text in zip(lines, in_words(of_mix), strict=True):
            line.append(text)
    names_of = list(mixes.values())[: len(arms)]
    head = ["category", "test pairs", "True", "True in gold"]
    head += [text for name in names_of for text in (f"{name}: found", "false alarms")]
    head += [f"change of macro-F1, {name}" for name in names_of[1:]]
    return bold_table(head, lines, "lrrr" + "rr" * len(arms))


def cost_table(kept: Sequence[Kept]) -> str:
    """Show calls, tokens and hours of each generation, the mean over seeds."""
    lines = []
    for k in kept:
        if k.part != "linear":
            continue
        pools = {r["pool_key"]: r for r in k.results.main if r["pool_key"] and r["ratio"] == max(k.ratios)}
        if not pools:
            continue
        gates: Counter[str] = Counter()
        for row in pools.values():
            gates.update(json.loads(row["gates"]))
        rejected = ", ".join(f"{name.replace('_', ' ')} {n / len(pools):,.0f}" for name, n in gates.most_common()
                             if name != "good")  # fmt: skip
        pool = [manifest_of(k, key) for key in pools]
        means = [np.mean([p[name] for p in pool]) for name in ("asked_for", "seconds")]
        tokens = [sum(r[c] for r in pools.values()) / len(pools) for c in ("prompt_tokens", "completion_tokens")]
        lines.append([k.title, len(pools), f"{means[0]:,.0f}", f"{gates['good'] / len(pools):,.0f}",
                      *(f"{t:,.0f}" for t in tokens), f"{means[1] / 3600:.2f}", rejected])  # fmt: skip
    head = ["a run (one seed)", "seeds", "notes wanted", "good notes", "tokens read", "tokens written", "hours"]
    return markdown_table([*head, "answers that were rejected"], lines, align="lrrrrrrl")


def manifest_of(kept: Kept, pool: str) -> dict[str, Any]:
    """Return the manifest of a pool of synthetic rows."""
    return dict(json.loads((kept.results.out / "synthetic" / pool / "hf_synth.json").read_text()))


def summary_table(folders: Iterable[Path]) -> str:
    """Show the scores of part `summary`; "" where it was not run."""
    paths = [path for folder in folders for path in sorted(folder.glob("*/summary/runs.jsonl"))]
    runs = [json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    lines = []
    for run in runs:
        gold, seconds = (f"{run[name]:,}" if run[name] else "" for name in ("gold", "cpu_seconds"))
        scores = [f"{run[m]:.3f}" for m in ("rouge1", "rouge2", "rougeL")]
        lines.append([run["system"], gold, run["distinct"], *scores, seconds])
    if not lines:
        return ""
    head = ["summary", "gold pairs", "different texts", "ROUGE-1", "ROUGE-2", "ROUGE-L", "CPU seconds"]
    best = {name: max((r["rougeL"] for r in runs if name in r["system"]), default=0.0) for name in ("T5", "20 words")}
    outcome = (
        f"The T5 did not learn this in a few CPU minutes: its best ROUGE-L is {best['T5']:.3f}, and the first 20 words "
        f"of the dialogue have {best['20 words']:.3f}."
    )
    table = markdown_table(head, lines, align="lrrrrrr")
    return f"{outcome}\n\n{table}" if 0 < best["T5"] < best["20 words"] else table


# --- the page ---------------------------------------------------------------------------------------------------------
SHOWN = ("Score by training mix", "Gold equivalence", "Differences", "What correction did")


def all_tables(kept: Kept) -> str:
    """Return the tables of a study's own report."""
    sections = [s for s in report_sections(load_task(kept.task), kept.results) if s.title in SHOWN]
    body = markdown(kept.title, sections).split("\n", 1)[1].replace("\n## ", "\n#### ")
    count = f"{len(kept.results.rows)} runs, {len(kept.results.failed)} failed."
    return "\n\n".join([f"### {kept.title}", count, body.strip()])


def page_from(folders: Sequence[Path], *, written: bool = True) -> str:
    """Return the page of everything that the folders keep.

    Args:
        written: with the text that says what the kept results show.
    """
    kept = read_kept(folders)
    parts = [text_of.ABOUT, text_of.HEAD if written else ""]
    if kept:
        parts += [score_table(kept), text_of.SCORES, change_table(kept), text_of.CHANGES]
        parts += [recall_table(kept), text_of.RECALL]
    parts += [text_of.USED if written else ""]
    first = [k for k in kept if k.first and k.generator == "smollm2"]
    sdoh = [k for k in first if k.task == "sdoh_nli:pair" and k.part in ("linear", "encoder")]
    categories = "\n\n".join(f"{k.title}, ratio {max(k.ratios):g}:\n\n{category_table(k)}" for k in sdoh)
    for text, table in (
        (text_of.GENERATORS, generator_table(kept)),
        (text_of.RARE, rare_table(first, "mts_dialog:section")),
        (text_of.SUBGROUPS, categories),
        (text_of.SUMMARIES, summary_table(folders)),
        (text_of.KEPT, cost_table(kept)),
    ):
        parts += [text, table] if table else []
    parts += [text_of.FULL, *map(all_tables, kept)]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"
