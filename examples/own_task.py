"""A task script: notes in a form of your own, with labels, meanings and a prompt, used as a task everywhere.

This file is the task. Every verb takes it in the place of a name:

    hf-synth gold examples/own_task.py calls.txt --out work/gold
    hf-synth generate work/gold --llm MODEL --base-url URL --out work/synthetic

Run as a program it writes an invented log of telephone calls, reads it by the script, and has new calls written:

    python examples/own_task.py [WORK_FOLDER]

A table needs no script (`hf-synth gold notes.csv`); `hf-synth new-task NAME` writes a longer one to fill in.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_synth.errors import RowError
from hf_synth.gold import ROWS, WHOLE, GoldBuilder, Parts, read_text
from hf_synth.task import Prompt, Task

# A label, and what a clinician would say it means: the generator reads this.
LABELS = {"today": "somebody must call back today", "week": "it can wait until the end of the week"}
PROMPT = Prompt(
    system="You write realistic, wholly invented notes of telephone calls. Vary callers and wording.",
    instruction="Write new notes of calls. What decides the label must be in the text; the label must not.",
    exemplars="one_per_label",
    rows=2,  # of each label that one call asks for
)
TASKS = {
    "default": Task(
        name="calls",
        kind="single_label",
        text_columns=("text",),
        label_column="label",
        labels=tuple(LABELS),
        label_meanings=tuple(LABELS.values()),
        prompts=(PROMPT,),
        metrics=("macro_f1", "accuracy"),
        access="open",  # "restricted" for real notes
        license="CC0-1.0",
        group_column="group",
        files={WHOLE: ("calls.txt",)},  # one file, which is split by patient
        version="1.0.0",  # raise it when prompt, labels or reading change
        description="How soon a caller must be called back.",
    )
}
ENTRY = re.compile(r"#(?P<patient>\w+) (?P<label>[A-Z]+)\n(?P<text>.*)", re.DOTALL)


class Calls(GoldBuilder):
    """Read a log whose entries begin with "#PATIENT LABEL" and are separated by blank lines."""

    TASKS = TASKS

    def rows(self, split: str, files: Parts) -> Iterator[dict[str, Any]]:
        """Read the entries; a wrong one is an error that names file and number, and shows no text."""
        file = files[ROWS][0]
        for number, entry in enumerate(read_text(file).split("\n\n"), 1):
            match = ENTRY.fullmatch(entry.strip())
            if match is None or match["label"].lower() not in LABELS:
                raise RowError(file.name, number, 'does not begin with "#PATIENT TODAY" or "#PATIENT WEEK"')
            yield self.task.gold_row(f"call-{number}", match["patient"], match["label"].lower(), match["text"])


CALLS = [
    ("TODAY", "Caller says the wound on the shin smells and the edges have turned dark since the weekend."),
    ("WEEK", "Asks whether the new cushion has come in. The old one is flat but does for now."),
    ("TODAY", "Husband found her on the bathroom floor, awake, cannot put weight on the right hip."),
    ("WEEK", "Would like the diet sheet in larger print, and a word about salt at the next visit."),
    ("TODAY", "The insulin pen jams and there is no other in the house; sugar was 310 an hour ago."),
    ("WEEK", "Wants to swap Tuesday's bath for Thursday since the grandchildren are there."),
    ("TODAY", "Not a drop in the catheter bag since last night and the belly hurts."),
    ("WEEK", "Thinks the compression stockings are a size too big now. No swelling."),
    ("TODAY", "Daughter cannot wake him properly, he took the night tablets twice."),
    ("WEEK", "Has a question about the flu shot: here, or does she come to the practice?"),
    ("TODAY", "The feeding tube came out an hour ago and the hole is closing."),
    ("WEEK", "Needs a new battery for the blood pressure cuff. Values were fine until Sunday."),
]


def main(work: Path) -> None:
    """Show the task at work."""
    from hf_synth import LLM, generate, load_gold, load_task
    from hf_synth.demo.simulator import running_simulator

    work.mkdir(parents=True, exist_ok=True)
    log = work / "calls.txt"
    entries = [f"#p{i:02} {label}\n{text}" for i, (label, text) in enumerate(CALLS)]
    log.write_text("\n\n".join(entries), encoding="utf-8")

    task = load_task(__file__)
    gold = load_gold(task, log)
    print(f"{task.full_name}: {', '.join(f'{len(rows)} {split}' for split, rows in gold.items())}")
    with running_simulator() as url:
        llm = LLM("simulator", base_url=url, journal=work / "journal.sqlite")
        rows = generate(task, gold["train"], llm, n=8, max_calls=30)
    good = [row for row in rows if row["label_status"] != "rejected"]
    for row in good[:4]:
        print(f"{task.labels[row['llm_label']]}: {row['text']}")
    print(f"{len(good)} new calls by the simulator, which says in other words what it was shown")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "examples-out/own-task"))
