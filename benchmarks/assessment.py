"""Honesty and power of `assess` and of the held-out figure of `auto`, where the truth is known.

    python benchmarks/assessment.py --mts MTS-Dialog/Main-Dataset --runs 20 --processes 2 --out out

Gold is of the artificial clinic, notes are written by the simulator through `generate` with default options: all of it
is simulated, but for the texts of "large gain". "coin flips": labels of gold are drawn at random and the simulator
copies from its exemplars, so that nothing can be learnt and a leak shows. "no gain": the pilot's labels are drawn at
random. "large gain": other sections of MTS-Dialog (its eight commonest), 10% of their labels wrong, as rows made
elsewhere. "larger gain": 900 of its twelve commonest sections, with people's labels. The true gain and the true
accuracy are those of the same head on 5,000 fresh notes of the clinic, and on all other sections.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import numpy as np  # noqa: E402
from runs import run_missing  # noqa: E402

CASES = (
    ("coin flips", 120, 240),
    ("no gain", 100, 300),
    ("large gain", 100, 500),
    ("large gain", 200, 500),
    ("larger gain", 100, 900),
    ("larger gain", 200, 900),
)
FRESH, TRAIN = 5_000, 1_200
SECTIONS = {"large gain": (8, 0.1), "larger gain": (12, 0.0)}  # how many, and the share of wrong labels
LARGE = 10.0  # points of true gain that should be recommended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mts", type=Path, required=True)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    wanted = [(*case, seed) for seed in range(args.runs) for case in CASES]
    run = partial(one, str(args.mts))
    text = summary(run_missing(run, wanted, args.out / "assessment.jsonl", args.processes))
    (args.out / "assessment.md").write_text(text + "\n")
    print(text)


CACHE: dict[str, Any] = {}


def clinic() -> Any:
    import datasets

    from hf_synth.gold.gold import load_gold
    from hf_synth.task.scripts import load_task

    if "task" not in CACHE:
        datasets.disable_progress_bars()
        task = load_task("clinic")
        CACHE["task"] = task
        CACHE["splits"] = load_gold(task, seed=3, n_train=TRAIN, n_validation=10, n_test=FRESH)
    return CACHE["task"], CACHE["splits"]


def one(mts: str, case: str, size: int, n: int, seed: int) -> dict[str, Any]:
    from hf_synth.correction.augmentation import augment
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.methods import CorrectionOptions
    from hf_synth.demo.simulator import Faults, running_simulator
    from hf_synth.experiments.assessment import METHOD, assess
    from hf_synth.generation.generation import generate
    from hf_synth.llm.llm import LLM
    from hf_synth.models.linear import linear_fit

    rng = np.random.default_rng([seed, size])
    if case in SECTIONS:
        task, gold, notes, fresh = sections(mts, case, size, n, rng)
    else:
        task, gold, fresh = patients(size, rng, flipped=case == "coin flips")
        faults = Faults(copying=0.5 if case == "coin flips" else 0.0)
        with tempfile.TemporaryDirectory() as folder, running_simulator(seed=seed, faults=faults) as url:
            llm = LLM("simulator", base_url=url, journal=Path(folder) / "journal.sqlite")
            notes = generate(task, gold, llm, n, seed=seed)
    if case == "no gain":
        labels = [None if y is None else int(rng.integers(len(task.labels))) for y in notes["llm_label"]]
        notes = with_column(with_column(notes, "llm_label", labels), task.label_column, labels)
    found = assess(task, notes, gold=gold, seed=seed)
    truth = np.array(fresh["label"])

    kept = [i for i, status in enumerate(notes["label_status"]) if status != "rejected"]
    fit = linear_fit(task, gold, notes.select(kept))

    def accuracy(rows: Any) -> tuple[float, float]:
        """Accuracy and score of a linear head trained on rows, on fresh notes."""
        right = fit(rows)(fresh).argmax(1) == truth
        return float(right.mean()), float((right.mean() + np.mean([right[truth == c].mean() for c in set(truth)])) / 2)

    blend, _ = correct_with_policy(task, notes, fit, gold=gold, options=CorrectionOptions(METHOD, seed=seed))
    auto, policy = correct_with_policy(task, notes, fit, gold=gold, options=CorrectionOptions(seed=seed))
    alone = accuracy(gold)
    gain = accuracy(augment(task, blend, gold=gold, seed=seed))[1] - alone[1]
    chosen = accuracy(augment(task, auto, gold=gold, seed=seed))[0]
    names = ("auto_accuracy_on_held_out_gold", "auto_accuracy_on_held_out_gold_ci95", "auto_loss_at_most")
    return {
        "run": [case, size, n, seed], "decision": found.decision, "certainty": found.certainty,
        "pilot": list(found.pilot.values()),
        "why": found.why, "gain": gain, "method": policy.method, "alone": alone[0], "chosen": chosen,
        "figures": {name: policy.figures.get(name) for name in names},
    }  # fmt: skip


def patients(size: int, rng: Any, *, flipped: bool) -> tuple[Any, Any, Any]:
    """Return the clinic's task, gold of whole patients, and fresh notes."""
    task, splits = clinic()
    train, fresh = splits["train"], splits["test"]
    groups = list(train["group"])
    place = {group: i for i, group in enumerate(rng.permutation(np.unique(groups)))}
    order = np.argsort([place[group] for group in groups], kind="stable")  # patient by patient
    gold = train.select(np.sort(order[:size]))
    return (task, shuffled(gold, rng), shuffled(fresh, rng)) if flipped else (task, gold, fresh)


def sections(mts: str, case: str, size: int, n: int, rng: Any) -> tuple[Any, Any, Any, Any]:
    """Return a task of MTS-Dialog's sections, gold, rows with some wrong labels, and all other sections."""
    from datasets import Dataset
    from real_noise_data import read_mts_dialog

    from hf_synth.gold.adoption import adopt
    from hf_synth.task.task import Task

    most, wrong_share = SECTIONS[case]
    if case not in CACHE:
        CACHE[case] = read_mts_dialog(Path(mts), most)
    source = CACHE[case]
    task = Task.from_columns("sections", text_columns="text", label_column="label", labels=source.names, access="open")
    order, k = rng.permutation(len(source.texts)), len(source.names)

    def known(at: Any) -> Any:
        rows = [task.gold_row(f"r{i}", f"r{i}", int(source.labels[i]), source.texts[i]) for i in at]
        return Dataset.from_list(rows, features=task.gold_features())

    pool = order[size : size + n]
    wrong = rng.random(n) < wrong_share
    labels = np.where(wrong, (source.labels[pool] + rng.integers(1, k, n)) % k, source.labels[pool]).tolist()
    made = {"text": [source.texts[i] for i in pool], "llm_label": labels, "access": ["open"] * n}
    return task, known(order[:size]), adopt(task, Dataset.from_dict(made)), known(order[size + n :])


def shuffled(rows: Any, rng: Any) -> Any:
    return with_column(rows, "label", rng.integers(0, 4, len(rows)).tolist())


def with_column(rows: Any, name: str, values: list[Any]) -> Any:
    feature = rows.features[name]
    order = rows.column_names
    return rows.remove_columns(name).add_column(name, values, feature=feature).select_columns(order)


def summary(results: list[dict[str, Any]]) -> str:
    from hf_synth.reports.page import markdown_table

    rows = []
    for case, size, n in CASES:
        some = [r for r in results if tuple(r["run"][:3]) == (case, size, n)]
        counts = [sum(r["decision"] == d for r in some) for d in ("generate", "label", "cannot_tell")]
        gains = [100 * r["gain"] for r in some]
        unmeasured = sum("cannot be measured" in r["why"] for r in some)
        intervals = [(r["chosen"], r["figures"]["auto_accuracy_on_held_out_gold_ci95"]) for r in some]
        inside = [ends[0] <= value <= ends[1] for value, ends in intervals if ends]
        broken = sum(r["chosen"] < r["alone"] - (r["figures"]["auto_loss_at_most"] or 0.0) - 1e-9 for r in some)
        gain = f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})"
        large = [r["decision"] == "generate" for r in some if 100 * r["gain"] >= LARGE]
        recommended = f"{sum(large)} of {len(large)}"
        inside_count = f"{sum(inside)} of {len(inside)}"
        rows.append([case, size, n, len(some), gain, *counts, recommended, unmeasured, inside_count, broken])
    head = ["case", "gold", "pilot", "runs", "true gain (range)", "generate", "label", "no decision"]
    head += [
        f"generate, of gains of {LARGE:.0f} or more",
        "not measurable",
        "interval of auto holds the truth",
        "guarantee broken",
    ]
    return markdown_table(head, rows)


if __name__ == "__main__":
    main()
