"""Comparison of correction policies with a fine-tuned encoder, in some cells of the correction grid.

    python benchmarks/encoder_cells.py --gold MTS-Dialog/Main-Dataset --seeds 3 --out out --processes 2

The cells and their rows are those of `correction_grid.py`. Correction is `correct_with_policy` with a corrector that is
fine-tuned by `trainer_fit`, as a user calls it; the downstream model is fine-tuned in the same way on gold and the pool
under each policy. The encoder is a tiny one, made on the spot from the texts without labels (`--encoder DIR` takes
another one): it compares policies and does not show the accuracy of a clinical encoder. Runs are stored in
`encoder_runs.jsonl`: a second call continues.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
from correction_grid import TEST, cut, each_text_once
from runs import run_missing

CELLS = ((50, "uniform", 0.1), (200, "uniform", 0.3), (200, "fixed", 0.3), (400, "fixed", 0.4))
ARMS = ("gold only", "none", "argmax", "clean_drop", "posterior", "auto", "gold + true labels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--encoder", help="folder or repo id to fine-tune (default: a tiny one made on the spot)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    encoder = args.encoder or str(tiny(args.gold, args.out / "encoder"))
    wanted = [(*cell, seed) for seed in range(args.seeds) for cell in CELLS]
    run = partial(one, args.gold, encoder, args.encoder is None, args.out)
    results = run_missing(run, wanted, args.out / "encoder_runs.jsonl", args.processes)
    name = Path(encoder).name if args.encoder else "a tiny encoder made on the spot"
    text = summary(results, name)
    (args.out / "encoder_cells.md").write_text(text + "\n")
    print(text)


def tiny(gold: Path, folder: Path) -> Path:
    from hf_synth.demo.encoder import make_encoder
    from hf_synth.gold.gold import load_gold
    from hf_synth.task.scripts import load_task

    if folder.exists():
        return folder
    splits = load_gold(load_task("mts_dialog"), gold)
    return make_encoder([t for s in splits for t in splits[s]["text"]], folder, seed=0)


def one(folder: Path, encoder: str, is_tiny: bool, out: Path, size: int, kind: str, rate: float, seed: int) -> dict:
    from datasets import Dataset, concatenate_datasets

    from hf_synth.correction.augmentation import augment
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.methods import CorrectionOptions
    from hf_synth.demo.encoder import DEMO_ARGS
    from hf_synth.gold.adoption import adopt
    from hf_synth.gold.gold import load_gold
    from hf_synth.models.training import trainer_fit
    from hf_synth.task.scripts import load_task

    started = time.perf_counter()
    task = load_task("mts_dialog")
    splits = load_gold(task, folder)
    rows = each_text_once(concatenate_datasets([splits[s] for s in splits]))
    labels = np.array(rows["label"])
    test_at, gold_at, pool_at, meant = cut(labels, size, kind, rate, seed)
    gold, test, pool = rows.select(gold_at), rows.select(test_at), rows.select(pool_at)

    def synthetic(llm_labels: np.ndarray) -> Dataset:
        names = [task.labels[i] for i in llm_labels]
        return adopt(task, Dataset.from_dict({"text": list(pool["text"]), "llm_label": names}), access="open")

    work = out / "work" / f"{size}-{kind}-{rate}-{seed}"
    fit = trainer_fit(task, base_model=encoder, args=DEMO_ARGS if is_tiny else None, seed=seed, work_dir=work)

    def accuracy(data: Dataset) -> float:
        return float((np.asarray(fit(data)(test)).argmax(1) == labels[test_at]).mean())

    scores, right, chosen = {"gold only": accuracy(gold)}, {}, ""
    for method in ("none", "argmax", "clean_drop", "posterior", "auto"):
        corrected, policy = correct_with_policy(
            task, synthetic(meant), fit, gold=gold, options=CorrectionOptions(method, seed=seed)
        )
        used = np.array(corrected["weight"]) > 0
        right[method] = float(np.mean((np.array(corrected["label"]) == labels[pool_at]) & used))
        scores[method] = accuracy(augment(task, corrected, gold=gold, seed=seed))
        chosen = policy.method
    scores["gold + true labels"] = accuracy(augment(task, synthetic(labels[pool_at]), gold=gold, seed=seed))
    seconds = round(time.perf_counter() - started, 1)
    return {"run": [size, kind, rate, seed], "chosen": chosen, "scores": scores, "right": right, "seconds": seconds}


def summary(results: list[dict], encoder: str) -> str:
    from hf_synth.reports.page import markdown_table

    cells = list(dict.fromkeys(tuple(r["run"][:3]) for r in results))
    head = ["trained on gold and the pool by", *(f"{n} gold, {kind} {rate:.0%}" for n, kind, rate in cells), "mean"]
    rows = []
    for arm in ARMS:
        by = [[r["scores"][arm] for r in results if tuple(r["run"][:3]) == cell] for cell in cells]
        rows.append([arm, *(f"{np.mean(v):.3f} ({min(v):.3f}-{max(v):.3f})" for v in by), float(np.mean(by))])
    right = [
        [m, *(float(np.mean([r["right"][m] for r in results if tuple(r["run"][:3]) == cell])) for cell in cells), ""]
        for m in ("none", "argmax", "clean_drop", "posterior", "auto")
    ]
    chosen = {m: sum(r["chosen"] == m for r in results) for m in sorted({r["chosen"] for r in results})}
    seeds = len({r["run"][3] for r in results})
    return "\n\n".join([
        f"{encoder}, fine-tuned; {len(cells)} cells, {seeds} seeds each. The texts are real, the errors are simulated.",
        f"Accuracy on {TEST} test rows, mean (lowest-highest seed):\n\n" + markdown_table(head, rows),
        "\n\n".join(gain_of_auto(results, other) for other in ("none", "gold only", "posterior")),
        "Share of pool rows used with the right label (only a simulation knows):\n\n"
        + markdown_table(["labels by", *head[1:-1], ""], right),
        "auto chose " + ", ".join(f"{m} {n} times" for m, n in chosen.items()) + f". "
        f"{np.mean([r['seconds'] for r in results]):.0f} seconds a run.",
    ])  # fmt: skip


def gain_of_auto(results: list[dict], other: str) -> str:
    """Return the gain of `auto` over another arm as text, with an interval over seeds of the mean over cells."""
    from scipy.stats import t

    gains = [(r["run"][3], 100 * (r["scores"]["auto"] - r["scores"][other])) for r in results]
    seeds = sorted({seed for seed, _ in gains})
    means = np.array([np.mean([g for s, g in gains if s == seed]) for seed in seeds])
    half = t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means)) if len(means) > 1 else float("nan")
    lower = sum(g < 0 for _, g in gains)
    return (
        f"auto minus {other}: {means.mean():+.1f} points (+-{half:.1f}, 95% over seeds), lower in {lower} of "
        f"{len(gains)} runs."
    )


if __name__ == "__main__":
    main()
