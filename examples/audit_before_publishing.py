"""What may leave? Compare synthetic notes with the gold, look at what is refused, and see it withheld from an export.

Four notes are planted among the synthetic ones: a copy of a gold note, the first half of one, one with other words
here and there, and one with a date. A pool with so many copies is refused as a whole. Without
them it is exported, less the rows that must not leave. Nothing is pushed.

    python examples/audit_before_publishing.py [WORK_FOLDER]
"""

import csv
import sys
from collections import Counter
from pathlib import Path

import datasets

from hf_synth import LLM, Task, adopt, audit, generate, load_gold, publish_dataset
from hf_synth.demo.clinic import write_notes
from hf_synth.demo.simulator import running_simulator
from hf_synth.privacy.report import audit_page

GRADES = [f"grade_{g}" for g in range(4)]


def main(work: Path) -> None:
    work.mkdir(parents=True, exist_ok=True)
    # The artificial clinic's notes as a table of your own. Its access is restricted, as that of real notes.
    with (work / "notes.csv").open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["patient_id", "note", "grade"])
        writer.writerows([n.patient_id, n.text, f"grade_{n.grade}"] for n in write_notes(400, seed=3))
    columns = {"text_columns": "note", "label_column": "grade", "group_column": "patient_id"}
    task = Task.from_columns("own_notes", labels=GRADES, **columns)
    gold = load_gold(task, work / "notes.csv")

    with running_simulator() as url:
        llm = LLM("simulator", base_url=url, journal=work / "journal.sqlite")
        rows = generate(task, gold["train"], llm, n=200)
    good = [i for i, status in enumerate(rows["label_status"]) if status != "rejected"]
    texts, labels = [rows["note"][i] for i in good], [GRADES[rows["llm_label"][i]] for i in good]
    long = [text for text in gold["train"]["note"] if len(text.split()) > 60]
    planted = {
        "a copy": long[0],
        "half of a note": " ".join(long[1].split()[: len(long[1].split()) // 2]),
        "some words changed": " ".join("indeed" if i % 12 == 5 else w for i, w in enumerate(long[2].split())),
        "a date": texts[0] + " Seen on 03/14/2025.",
    }
    pool = {"note": [*planted.values(), *texts], "llm_label": [*labels[: len(planted)], *labels]}
    rows = adopt(task, datasets.Dataset.from_dict(pool), access="restricted", generator="simulator")

    findings = audit(task, rows, gold=gold["train"], held_out=gold["test"])
    for name, flags in zip(planted, findings.row_flags, strict=False):
        print(f"{name}: {', '.join(flags) or 'not found'}")
    others = Counter(flag for flags in findings.row_flags[len(planted) :] for flag in flags)
    print(f"the {len(texts)} generated notes: {dict(others) or 'no flags'}")
    print(f"verdict: {findings.verdict}; {len(findings.refused)} of {len(rows)} rows must not leave")
    page = work / "audit.html"
    page.write_text(audit_page(findings, simulated="the notes are artificial"), encoding="utf-8")
    print(f"the whole report: {page}")

    for part, name in ((rows, "with the planted notes"), (rows.select(range(len(planted), len(rows))), "without them")):
        verdict = publish_dataset(task, part, "me/own-notes", gold=gold, push=False, export_dir=work / "export")
        print(f"{name}: {verdict}")


if __name__ == "__main__":
    datasets.disable_progress_bars()
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/audit"))
