"""A person labels some rows, and what may then be said of the others: `sample`, `--audited` and `--error` in Python.

The person is played by the simulator, which knows what it wrote. In your project they fill the column `label` of the
CSV in a spreadsheet: run the script up to `sample_csv`, and `read_audited` on their file.

    python examples/person_in_the_loop.py [WORK_FOLDER]
"""

import csv
import sys
from pathlib import Path

from datasets import Dataset

from hf_synth import LLM, correct, generate, load_gold, load_task
from hf_synth.correction.audited import audit_sample, read_audited, sample_csv
from hf_synth.correction.promise import draw_sample, promise, with_labels
from hf_synth.demo.simulator import running_simulator, true_label
from hf_synth.models.linear import linear_fit


def ask_person(rows: Dataset, file: Path) -> Path:
    """Write rows for a person, and the labels that the person gives."""
    file.write_text(sample_csv(rows), encoding="utf-8")
    with file.open(encoding="utf-8", newline="") as table:
        filled = [row | {"label": f"grade_{true_label(row['text'])}"} for row in csv.DictReader(table)]
    with file.open("w", encoding="utf-8", newline="") as table:
        writer = csv.DictWriter(table, filled[0])
        writer.writeheader()
        writer.writerows(filled)
    return file


def main(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    task = load_task("clinic")
    gold = load_gold(task, n_train=150, n_validation=2, n_test=2)["train"]
    with running_simulator() as url:
        rows = generate(task, gold, LLM("simulator", base_url=url, journal=work / "journal.sqlite"), n=400)

    # 1. How many of the LLM's labels are right? 60 rows, equally many of each label.
    audited = read_audited(ask_person(audit_sample(task, rows, 60), work / "sample.csv"), task)
    corrected = correct(task, rows, linear_fit(task, gold, rows), gold=gold, method="posterior", audited=audited)
    by_person = sum(reason == "audited" for reason in corrected["reason"])
    print(f"{by_person} labels by a person, the other rows corrected with what these show of the LLM")

    # 2. A promise: with 95% probability at most 10% of all labels of the result are wrong.
    sample = draw_sample(task, corrected, error=0.10)
    labels: dict[str, str] = {}
    state = promise(task, corrected, sample, labels)
    while not state.holds:
        print(state)
        labels |= read_audited(ask_person(state.look, work / "next.csv"), task)
        state = promise(task, corrected, sample, labels)
    print(state)
    result = with_labels(task, corrected, labels)
    used = [i for i, status in enumerate(result["label_status"]) if status in ("kept", "relabelled")]
    wrong = sum(result["label"][i] != true_label(result["text"][i]) for i in used) / len(used)
    print(f"the person looked at {len(labels)} of {len(used)} rows; in truth {wrong:.1%} of the labels are wrong")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/person"))
