"""Several LLMs labelled your notes: count each one's errors on gold that it labelled too, and join their labels.

The labels are in columns `llm_label` and `llm_label_NAME`, on the gold and on the notes. `hf-synth label` writes
them, in Python `hf_synth.correction.annotations.annotate`. Here two annotators are drawn by chance, one right in 80% of
the notes and one in 60%, so that the truth is known: all of it is simulated. The two warnings are in order: these
notes were written by no LLM, and `correct` cannot know that.

    python examples/several_annotators.py [WORK_FOLDER]
"""

import random
import sys
from pathlib import Path

import datasets

from hf_synth import Task, adopt, correct, load_gold, load_task
from hf_synth.models.linear import linear_fit

RIGHT = {"llm_label": 0.8, "llm_label_small": 0.6}  # the share of the notes that each annotator labels right


def labels_of(task: Task, truth: list[int], right: float, seed: int) -> list[str]:
    """Draw an annotator's labels: the truth, or a neighbouring grade."""
    rng, last = random.Random(seed), len(task.labels) - 1
    beside = [y if rng.random() < right else rng.choice([k for k in (y - 1, y + 1) if 0 <= k <= last]) for y in truth]
    return [task.labels[y] for y in beside]


def main(work: Path) -> None:
    task = load_task("clinic")
    notes = load_gold(task, n_train=800, n_validation=2, n_test=2)["train"]
    gold, others = notes.select(range(200)), notes.select(range(200, 800))
    for seed, (column, right) in enumerate(RIGHT.items()):
        gold = gold.add_column(column, labels_of(task, gold["label"], right, seed), feature=None)
    table = {"text": list(others["text"])}
    table |= {c: labels_of(task, others["label"], right, 10 + i) for i, (c, right) in enumerate(RIGHT.items())}
    rows = adopt(task, datasets.Dataset.from_dict(table), access="open", generator="two annotators")

    corrected = correct(task, rows, linear_fit(task, gold, rows), gold=gold, method="measured")
    truth = [task.labels[y] for y in others["label"]]
    names = [task.labels[y] for y in corrected["label"]]
    labels = {column: table[column] for column in RIGHT} | {"measured": names}
    for name, given in labels.items():
        right = sum(a == b for a, b in zip(given, truth, strict=True)) / len(truth)
        print(f"labels right by {name}: {right:.1%}")
    corrected.to_parquet(work / "corrected.parquet")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/annotators"))
