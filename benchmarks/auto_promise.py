"""Whether the promise of `auto` holds on notes that a real small LLM wrote for a rare label.

    python benchmarks/real_llm.py --sdoh SDOH-NLI --parts linear --ratios .5 1 2 --out out
    python benchmarks/auto_promise.py out --out out/promise

Gold is SDOH-NLI, 5% of whose pairs are True. Rows are those that SmolLM2 wrote for `benchmarks/real_llm.py`, about as
many of True as of False. In "own gold" runs, 200 gold pairs are those from which the rows were written: three seeds at
ratios .5, 1 and 2. In "other gold" runs, 200 pairs are drawn anew from all others, and the rows are 200 of one of
the three pools. `auto` chooses on a linear head on its own features (TF-IDF of gold and rows), and the same head is
scored on the test split, which has other patients. The promise is broken where its accuracy is below that of gold only
by more than the printed X; where `auto` chooses by macro-F1 (--auto-metric macro_f1) both are macro-F1.

Beside the present candidates stand those that were tried, where no held-out gold row of a label is found. Runs are kept
in runs.jsonl: a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from real_noise import scorer, used  # noqa: E402

GOLD, RATIOS, SEEDS = 200, (0.5, 1.0, 2.0), 3
METHODS = ("gold_only", "blend", "posterior", "weight", "clean_drop", "none")
TRIED: dict[str, tuple[str, ...]] = {
    "as it is": (), "and none": ("none",), "and weight": ("weight",), "and clean_drop": ("clean_drop",),
    "and none, weight": ("none", "weight"),
}  # fmt: skip
BY_MACRO_F1: dict[str, tuple[str, ...]] = {
    "by macro-F1": ("weight", "clean_drop"), "by macro-F1, without these two": (),
    "by macro-F1, none for clean_drop": ("weight", "none"), "by macro-F1, and none": ("weight", "clean_drop", "none"),
}  # fmt: skip
KINDS = {"own": "Gold from which the rows were written", "other": "Other gold"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("made", type=Path, help="--out of real_llm.py")
    parser.add_argument("--draws", type=int, default=260, help="of other gold")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "runs.jsonl"
    known = map(json.loads, file.read_text().splitlines() if file.exists() else [])
    done = {tuple(r["run"]): r for r in known}
    wanted = [("own", seed, ratio) for seed in range(SEEDS) for ratio in RATIOS]
    wanted += [("other", draw, 1.0) for draw in range(args.draws)]
    with file.open("a") as out:
        for run in wanted:
            if run not in done:
                done[run] = one(args.made, *run)
                out.write(json.dumps(done[run]) + "\n")
                out.flush()
    text = summary([done[run] for run in wanted])
    (args.out / "auto_promise.md").write_text(text + "\n")
    print(text)


STUDY: dict[str, Any] = {}


def study(made: Path) -> dict[str, Any]:
    """Read task, gold, test rows and the pools by seed, once."""
    from hf_synth.experiments.cells import gold_of
    from hf_synth.experiments.leakage import copies, shared_groups, without
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.task.scripts import load_task

    if not STUDY:
        folder, task = made / "sdoh_nli" / "linear", load_task("sdoh_nli:pair")
        gold = gold_of(folder)
        seen = [*copies(task, gold["test"], gold["train"]), *shared_groups(gold["test"], gold["train"])]
        pools = {}
        for pool in sorted((folder / "synthetic").iterdir()):
            facts = json.loads((pool / "hf_synth.json").read_text())
            pools[facts["seed"]] = read_dataset(pool).filter(lambda s: s != "rejected", input_columns="label_status")
        STUDY.update(task=task, train=gold["train"], test=without(gold["test"], seen), pools=pools)
    return STUDY


def one(made: Path, kind: str, seed: int, ratio: float) -> dict[str, Any]:
    """Return the held-out hits of all methods, and the scores of their heads on the test rows."""
    from hf_synth.correction.crossfit import Rows, decide
    from hf_synth.correction.lineage import lineage_of
    from hf_synth.correction.trial import try_methods
    from hf_synth.gold.gold import subset
    from hf_synth.models.linear import feature_map, linear_learner
    from hf_synth.task.labels import groups_of, label_indices, texts_of

    s = study(made)
    task, train, pool = s["task"], s["train"], s["pools"][seed % SEEDS]
    own = subset(task, train, GOLD, seed=seed % SEEDS)
    if kind == "other":
        seen = set(own["id"])
        rest = train.select([i for i, name in enumerate(train["id"]) if name not in seen])
        own = subset(task, rest, GOLD, seed=1000 + seed)
    rows = subset(task, pool, min(len(pool), round(ratio * GOLD)), seed=seed)
    features = feature_map([*texts_of(task, own), *texts_of(task, rows)])
    x_gold, x_rows, x_test = (features(texts_of(task, part)) for part in (own, rows, s["test"]))
    truth, k = label_indices(task, own), len(task.labels)
    lineage = lineage_of(task, own, rows, seed=seed) if kind == "own" else None
    known = Rows(label_indices(task, rows, "llm_label"), truth, groups_of(own), k, {}, lineage=lineage)
    learn = linear_learner(x_gold, x_rows, truth, k)
    trial = try_methods(known, learn, METHODS, seed=seed)
    held = {"labels": trial.truth.tolist(), "groups": trial.groups}
    held["hits"] = {m: "".join(str(int(hit)) for hit in guess == trial.truth) for m, guess in trial.guesses.items()}
    score = scorer(x_gold, x_rows, x_test, truth, label_indices(task, s["test"]), k)
    shared: dict[str, Any] = {}
    scores = {m: score(*used(decide(known, learn, m, seed=seed, known=shared, bounds=False)[1])) for m in METHODS}
    return {"run": [kind, seed, ratio], "scores": scores, **held}


def chosen(run: dict[str, Any], more: tuple[str, ...]) -> Any:
    """Choose among the present candidates, and more of them where no held-out gold row of a label is found."""
    from hf_synth.correction.choice import CANDIDATES, choose

    labels = np.array(run["labels"])
    hits = hits_of(run)
    unfound = any(not hits["gold_only"][labels == label].any() for label in np.unique(labels))
    some = {m: hits[m] for m in (*CANDIDATES, *(more if unfound else ()))}
    return choose(some, labels, groups=run["groups"])


def chosen_by_macro_f1(run: dict[str, Any], more: tuple[str, ...]) -> Any:
    """Choose among the present candidates and more of them by macro-F1; of two labels a miss is the other one."""
    from hf_synth.correction.choice import CANDIDATES, choose

    labels = np.array(run["labels"])
    hits = {m: h for m, h in hits_of(run).items() if m in (*CANDIDATES, *more)}
    guesses = {m: np.where(h == 1, labels, 1 - labels) for m, h in hits.items()}
    return choose(hits, labels, groups=run["groups"], guesses=guesses, n_labels=2)


def hits_of(run: dict[str, Any]) -> dict[str, np.ndarray]:
    return {m: np.array(list(bits), dtype=float) for m, bits in run["hits"].items()}


def summary(runs: list[dict[str, Any]]) -> str:
    from hf_synth.reports.page import markdown_table

    about = __doc__.split("\n\n")[2]
    lines = ["# The promise of `auto` on notes of a real small LLM", "Measured by `benchmarks/auto_promise.py`.", about]
    for kind, title in KINDS.items():
        some, rows = [r for r in runs if r["run"][0] == kind], []
        arms = [(name, 0, [chosen(r, more) for r in some]) for name, more in TRIED.items()]
        arms += [(name, 1, [chosen_by_macro_f1(r, more) for r in some]) for name, more in BY_MACRO_F1.items()]
        for name, metric, choices in arms:
            gains = 100 * np.array([
                np.subtract(r["scores"][c.method], r["scores"]["gold_only"]) for r, c in zip(some, choices, strict=True)
            ])  # fmt: skip
            broken = sum(g[metric] < -100 * c.guarantee - 1e-9 for g, c in zip(gains, choices, strict=True))
            counts = ", ".join(f"{m} {n}" for m, n in Counter(c.method for c in choices).most_common())
            x = 100 * np.mean([c.guarantee for c in choices])
            rows.append([name, counts, *(f"{v:+.1f}" for v in gains.mean(0)), f"{x:.1f}", f"{broken} of {len(some)}"])
        head = ["candidates", "chosen", "accuracy", "macro-F1", "X", "promise broken"]
        lines.append(f"## {title}: {len(some)} runs\n\nPoints over gold only, means.\n\n{markdown_table(head, rows)}")
    return "\n\n".join(lines)


if __name__ == "__main__":
    main()
