"""Label correction on real text: 200 gold rows of MTS-Dialog, the other rows as a pool with wrong labels.

    python benchmarks/mts_dialog_correction.py --gold MTS-Dialog/Main-Dataset --seeds 10 --out out

For each seed 200 rows are drawn as gold, labels in proportion; the other 1,001 training rows are the pool, and each of
their labels is made another one with probability 0.3. The corrector is a linear model over TF-IDF through
`hf_synth.pipeline.correct`, the product's own code; so is the choice of `auto`. Labels are judged on all rows (a
dropped row counts as wrong) and on the rows kept, beside their share. Models trained on each mixture (the same kind of
linear model) are scored on validation and test together; differences are paired over seeds and rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from datasets import Dataset
from sklearn.metrics import f1_score

from hf_synth.correction import METHODS
from hf_synth.frozen import linear_learner, text_features
from hf_synth.gold import adopt, load_gold, subset
from hf_synth.pipeline import correct_with_policy
from hf_synth.report import markdown_table
from hf_synth.rows import soft_labels, usable_rows
from hf_synth.task import load_task

NOISE, GOLD, MANY = 0.3, 200, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gold", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    task = load_task("mts_dialog")
    gold = load_gold(task, args.gold)
    found = []
    for seed in range(args.seeds):
        found.append(one_seed(task, gold, seed))
        print(f"seed {seed}: auto chose {found[-1]['chosen']}", flush=True)
        table = summary(found)
        (args.out / "mts_dialog_correction.json").write_text(json.dumps(found, indent=1) + "\n")
        (args.out / "mts_dialog_correction.md").write_text(table + "\n")
    print(table)


def one_seed(task, gold, seed: int) -> dict:
    shown = subset(task, gold["train"], GOLD, seed=seed)
    ids = set(shown["id"])
    pool = gold["train"].select([i for i, id in enumerate(gold["train"]["id"]) if id not in ids])
    truth = np.array(pool["label"])
    rng = np.random.default_rng(seed)
    k = len(task.labels)
    meant = np.where(rng.random(len(truth)) < NOISE, (truth + rng.integers(1, k, len(truth))) % k, truth)
    names = [task.labels[i] for i in meant]
    rows = adopt(task, Dataset.from_dict({"text": list(pool["text"]), "llm_label": names}), access="open")
    test_text = [*gold["validation"]["text"], *gold["test"]["text"]]
    test_label = np.array([*gold["validation"]["label"], *gold["test"]["label"]])
    x = text_features(list(shown["text"]), list(rows["text"]), test_text)
    learn = linear_learner(x[0], x[1], np.array(shown["label"]), k)
    place = {id: ("gold", i) for i, id in enumerate(shown["id"])} | {id: ("rows", i) for i, id in enumerate(rows["id"])}

    def positions(dataset: Dataset, part: str) -> tuple[np.ndarray, np.ndarray]:
        at = [(i, place[id][1]) for i, id in enumerate(dataset["id"]) if place[id][0] == part]
        return np.array([i for i, _ in at], dtype=int), np.array([j for _, j in at], dtype=int)

    def fit(data: Dataset):
        """Fit the linear model on rows of a Dataset, as any user's corrector is given them."""
        in_data, in_rows = positions(data, "rows")
        predict = learn(positions(data, "gold")[1], in_rows, soft_labels(task, data)[in_data].astype(float))

        def said(dataset: Dataset) -> np.ndarray:
            out = np.zeros((len(dataset), k))
            for part in ("gold", "rows"):
                at, where = positions(dataset, part)
                empty = np.arange(0)
                probs = predict(where, empty)[0] if part == "gold" else predict(empty, where)[1]
                out[at] = probs
            return out

        return said

    every = np.arange(len(shown))
    # for testing: the same learner, with the test rows in the place of gold that is asked about
    tester = linear_learner(_stack(x[0], x[2]), x[1], np.r_[np.array(shown["label"]), test_label], k)

    def score(used: np.ndarray, targets: np.ndarray) -> np.ndarray:
        asked = np.arange(len(shown), len(shown) + len(test_label))
        return tester(every, used, targets)(asked, np.arange(0))[0].argmax(1)

    none = np.arange(0)
    answers = {
        "gold only": score(none, np.zeros((0, k))),
        "gold + true labels": score(np.arange(len(rows)), np.eye(k)[truth]),
    }
    labels, lost, chosen = {}, {}, ""
    for method in (*METHODS, "auto"):
        done, policy = correct_with_policy(task, rows, fit, gold=shown, method=method, seed=seed)
        used = np.array([s in ("kept", "relabelled") for s in done["label_status"]])
        right = np.array(done["label"]) == truth
        labels[method] = [float((right & used).mean()), float(right[used].mean()), float(used.mean())]
        chosen = policy.method if method == "auto" else chosen
        unseen = set(meant.tolist()) - set(shown["label"])
        lost[method] = sorted(unseen - set(np.array(done["label"])[used].tolist()))
        trained = usable_rows(done)
        name = "gold + raw" if method == "none" else f"gold + {method}"
        answers[name] = score(positions(trained, "rows")[1], soft_labels(task, trained).astype(float))
    counts = np.bincount(test_label, minlength=k)
    many = np.flatnonzero(counts >= MANY)
    hits = {name: (said == test_label).astype(int).tolist() for name, said in answers.items()}
    macro = {
        name: float(f1_score(test_label, said, labels=many, average="macro", zero_division=0))
        for name, said in answers.items()
    }
    return {"seed": seed, "labels": labels, "hits": hits, "macro_f1_min10": macro, "chosen": chosen, "lost": lost}


def _stack(a, b):
    from scipy.sparse import vstack

    return vstack([a, b]).tocsr()


def difference(found: list[dict], a: str, b: str, n: int = 2_000) -> tuple[float, float, float]:
    """Give the mean accuracy difference a - b with a paired bootstrap over seeds and test rows (95%)."""
    gaps = np.array([np.array(f["hits"][a]) - np.array(f["hits"][b]) for f in found], dtype=float)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(n):
        some = gaps[rng.integers(0, len(gaps), len(gaps))]
        drawn.append(some[:, rng.integers(0, gaps.shape[1], gaps.shape[1])].mean())
    return float(gaps.mean()), *(float(q) for q in np.percentile(drawn, [2.5, 97.5]))


def summary(found: list[dict]) -> str:
    def mean(values) -> float:
        return float(np.mean(list(values)))

    label_rows = [
        [m, *(mean(f["labels"][m][i] for f in found) for i in range(3)), sum(bool(f["lost"][m]) for f in found)]
        for m in (*METHODS, "auto")
    ]
    rows = []
    for name in found[0]["hits"]:
        row = [name, mean(mean(f["hits"][name]) for f in found), mean(f["macro_f1_min10"][name] for f in found)]
        for other in ("gold only", "gold + raw"):
            gap, low, high = difference(found, name, other)
            row.append("" if name == other else f"{gap:+.3f} ({low:+.3f} to {high:+.3f})")
        rows.append(row)
    chosen = {m: sum(f["chosen"] == m for f in found) for m in METHODS}
    return "\n\n".join(
        [
            f"{len(found)} seeds; auto chose {', '.join(f'{m} {n} times' for m, n in chosen.items() if n)}.",
            markdown_table(
                ["labels by", "right, all rows", "right, kept rows", "kept", "seeds with a lost class"], label_rows
            ),
            markdown_table(
                ["trained on", "accuracy", "macro-F1 (>= 10)", "against gold only", "against gold + raw"], rows
            ),
        ]
    )


if __name__ == "__main__":
    main()
