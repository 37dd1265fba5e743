"""Miniature gold in the true layout of each source, with its odd cases; every word is made up.

`write_gold(task, folder)` writes the files of a task and gives what `load_gold` is pointed at. The rows are few, but
every label stands in train, test and (where there is one) validation.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from hf_synth.task.task import Task

CANARY = "CANARY-7f3a"
PLACES = (
    "the lantern ward",
    "the harbour clinic",
    "the quiet wing",
    "the attic office",
    "the river unit",
    "the old annex",
)
DEEDS = (
    "walked slowly",
    "slept well",
    "asked for tea",
    "read a letter",
    "waited an hour",
    "spoke with a cousin",
    "sang",
)
FINDS = ("a blue ribbon", "no change", "a small scar", "a warm hand", "a steady pulse", "a paper crane", "two buttons")
SIZES = {"train": 40, "validation": 16, "test": 20}


def note(number: int, topic: str = "", sentences: int = 4) -> str:
    """Write a made-up note; the same number gives the same note."""
    rng = random.Random(f"{number}:{topic}")
    lines = [f"Person {number} {rng.choice(DEEDS)} at {rng.choice(PLACES)}."]
    for _ in range(sentences - 1):
        lines.append(f"Later {rng.choice(DEEDS)}, with {rng.choice(FINDS)} in {rng.choice(PLACES)}.")
    if topic:
        lines.insert(rng.randrange(len(lines)) + 1, f"All of it is about {topic} number {rng.randrange(90)}.")
    return " ".join(lines)


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], *, encoding: str = "utf-8") -> Path:
    """Write a CSV file with the line ends of the standard (CRLF)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def _numbered(split: str) -> range:
    start = 1000 * (1 + list(SIZES).index(split))
    return range(start, start + SIZES[split])


# --- one function a source ------------------------------------------------------------------------------------------
def mts_dialog(folder: Path) -> Path:
    header = ["ID", "section_header", "section_text", "dialogue"]
    names = ["FAM/SOCHX", "GENHX", "ALLERGY", "ROS"]

    def rows(split: str) -> list[list[str]]:
        made = [
            [str(k), names[n % 4], note(n, names[n % 4]), f"Doctor: {note(n, 'talk')}\r\nPatient: yes, {n}."]
            for k, n in enumerate(_numbered(split))
        ]
        if split == "train":
            made[0][2] = f'Made-up passage {CANARY},\nwith a quoted line break, a "quote" and a comma.'
        return made

    train = rows("train")
    train[1][2], train[2][2], train[3][2] = "NA", "null", "Made-up “quotes” and é."
    write_csv(folder / "MTS-Dialog-TrainingSet.csv", header, train, encoding="utf-8-sig")
    write_csv(folder / "MTS-Dialog-ValidationSet.csv", header, rows("validation"))
    write_csv(folder / "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv", header, rows("test"))
    return folder


def esophagitis(folder: Path) -> Path:
    rows = [[f"p{n // 2}", note(n, f"swallowing {n % 4}"), str(n % 4)] for n in range(1000, 1060)]
    return write_csv(folder / "notes.csv", ["patient_id", "text", "grade"], rows)


def mednli(folder: Path) -> Path:
    for split, name in {"train": "train", "validation": "dev", "test": "test"}.items():
        rows = []
        for n in _numbered(split):
            for relation in ("entailment", "contradiction", "neutral"):
                pair = {"pairID": f"pair-{n}-{relation[:3]}", "sentence1": note(n, sentences=2), "gold_label": relation}
                rows.append(pair | {"sentence2": note(n, relation, 1), "sentence1_parse": "(ROOT (S))"})
        rows.append(rows[0] | {"pairID": f"pair-{split}-x", "gold_label": "-"})  # no agreed label
        write_jsonl(folder / f"mli_{name}_v1.jsonl", rows)
    return folder


def sdoh_nli(folder: Path) -> Path:
    """Write premises with two statements each; one of them is asked twice, as in the source."""
    statements = ["The person drinks tea.", "The person has a cousin."]
    for split in SIZES:
        rows = []
        for n in _numbered(split):
            for k, statement in enumerate([*statements, statements[0]]):
                rows.append([note(n, sentences=1), statement, "True" if n % 5 == k else "False"])
        if split == "train":  # a premise of the test set, but for case and punctuation
            shared = note(_numbered("test")[0], sentences=1).upper().replace(".", " !")
            rows += [[shared, statement, "False"] for statement in statements]
        write_csv(folder / f"sdoh_nli_{split}.csv", ["premise", "hypothesis", "label"], rows)
    return folder


def ap_reasoning(folder: Path) -> Path:
    relations = ["Direct", "Indirect", "Neither", "Not Relevant"]
    header = ["HADM ID", "Assessment", "Plan Subsection", "Relation"]
    files = {"train": "train.csv", "validation": "dev.csv", "test": "n2c2_track3_test.csv"}
    for split, name in files.items():
        rows = [[str(n // 2), note(n, sentences=2), f"# {note(n, r, 2)}\nmore", r] for n in _numbered(split)
                for r in [relations[n % 4]]]  # fmt: skip
        rows[0][1] = "NA"
        rows.append([str(_numbered(split)[-1]), "", "A plan without an assessment.", "Direct"])
        write_csv(folder / name, header, rows)
    return folder


def problem_summary(folder: Path) -> Path:
    header = ["File ID", "Assessment", "Summary", "Subjective Sections", "Objective Sections"]
    for split, name in {"train": "BioNLP2023-1A-Train.csv", "test": "BioNLP2023-1A-Test.csv"}.items():
        rows = []
        for n in _numbered(split):
            problems = f"{FINDS[n % 7]}; {DEEDS[n % 5]} often"
            rows.append([f"{n}.txt", f"{note(n)} This is {problems}.", problems, note(n, "said", 2), "\nHR: 3 of 7\n"])
        rows.append(["9.txt", "An assessment that nobody summed up.", "", "", ""])
        write_csv(folder / name, header, rows)
    return folder


def soap(folder: Path) -> Path:
    tags = ["S", "O", "assessment", "Plan"]
    for split, name in {"train": "train", "validation": "dev", "test": "test"}.items():
        lines = []
        for n in _numbered(split)[::4]:
            lines += [[f"n{n}", note(n + k, f"part {tag}", 1), tag] for k, tag in enumerate(tags)]
        lines.append(["n0", "", "S"])
        write_csv(folder / f"{name}.csv", ["note_id", "line", "tag"], lines)
    return folder


def emrqa(folder: Path) -> Path:
    """Write data.json with all subsets; the title stands behind the notes in one of them."""

    def paragraph(subset: str, n: int) -> dict[str, Any]:
        lines = [f"{note(n, sentences=1)}\n", f"It was {FINDS[n % 7]} of {subset}.\n", "\n", f"{note(n + 1)}\n"]
        found, where = f"{FINDS[n % 7]} of {subset}", PLACES[n % 6]  # several notes have the same, as from a template
        evidence = {"evidence": lines[1], "evidence_start": 2}
        qas = [
            {"question": [f"What was found in {where}?", f"Which finding has {where}?"], "id": [["a", "b"], "c"],
             "answers": [{"answer_start": [2, 3], "text": found, **evidence}, {"text": "another"}]},
            {"question": [f"Was there anything in {where}?"], "id": ["x"],
             "answers": [{"answer_start": "", "text": "", **evidence}]},
            {"question": ["Nobody knows?"], "id": ["y"], "answers": []},
        ]  # fmt: skip
        return {"note_id": f"note-{n}", "context": lines, "qas": qas}

    subsets = []
    for k, title in enumerate(("medications", "relations", "obesity", "smoking", "risk")):
        notes = [paragraph(title, 1000 * k + n) for n in range(24)]
        both = {"title": title, "paragraphs": notes}
        subsets.append(both if k != 1 else dict(reversed(both.items())))
    subsets[0]["paragraphs"].append({"note_id": "empty", "context": [], "qas": [{"question": ["?"], "answers": []}]})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.json").write_text(json.dumps({"data": subsets}), encoding="utf-8-sig")
    return folder


def medqa(folder: Path) -> Path:
    for four in (False, True):
        letters = "ABCD" if four else "ABCDE"
        for split, name in {"train": "train", "validation": "dev", "test": "test"}.items():
            rows = []
            for n in _numbered(split):
                options = {x: f"{FINDS[(n + k) % 7]} {x}" for k, x in enumerate(letters)}
                right = letters[n % len(letters)]
                rows.append({"question": f"{note(n)} What is it?", "options": options, "answer": options[right],
                             "meta_info": "step1", "answer_idx": right})  # fmt: skip
            file = f"4_options/phrases_no_exclude_{name}.jsonl" if four else f"{name}.jsonl"
            write_jsonl(folder / "questions" / "US" / file, rows)
    return folder


def obesity(folder: Path, *, by_source: bool = False) -> Path:
    """Write records and judgments, one addendum; or the layout with a file for each source."""
    folder.mkdir(parents=True, exist_ok=True)
    diseases = ["Asthma", "CAD", "Venous Insufficiency"]

    def records(name: str, notes: Sequence[int]) -> None:
        docs = "".join(f'<doc id="{n}"><text>\n{escape(note(n))} &amp; so on\n</text></doc>\n' for n in notes)
        docs = docs.replace(escape(note(notes[0])), "") if name.endswith("2") else docs
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<root><docs>{docs}</docs></root>\n'
        (folder / f"obesity_patient_records_{name}.xml").write_text(text, encoding="utf-8")

    def annotations(name: str, judged: Mapping[str, Sequence[tuple[str, int, str]]]) -> None:
        text = ""
        for source, judgments in judged.items():
            parts = ""
            for disease in diseases:
                docs = "".join(f'<doc id="{n}" judgment="{j}"/>' for d, n, j in judgments if d == disease)
                parts += f'<disease name="{disease}">{docs}</disease>'
            text += f'<diseases source="{source}">{parts}</diseases>'
        (folder / f"obesity_standoff_{name}.xml").write_text(f"<diseaseset>{text}</diseaseset>", encoding="utf-8")

    def judge(notes: Sequence[int], letters: str) -> list[tuple[str, int, str]]:
        # one judgment in seven is missing
        return [(d, n, letters[(n + k) % len(letters)]) for n in notes for k, d in enumerate(diseases) if (n + k) % 7]

    for split, ending in (("train", "training"), ("test", "test")):
        notes = list(_numbered(split)[:16])
        more = [notes[-1] + 1000 + k for k in range(3)] if split == "train" else []
        records(ending, notes)
        if more:
            records(f"{ending}2", more)
        judged = {"textual": judge([*notes, *more], "YNQU"), "intuitive": judge([*notes, *more], "YNQ")}
        judged["textual"].append((diseases[0], 77777, "Y"))  # a note that nobody has
        if by_source:
            for source in judged:
                annotations(f"{source}_annotations_{ending}", {source: judged[source]})
        else:
            annotations(f"annotations_{ending}", judged)
            if split == "train":  # judges one again and one that was missing
                gap = next(n for n in notes if n % 7 == 0)
                annotations(
                    f"annotations_{ending}_addendum", {"textual": [("Asthma", gap, "Q"), ("CAD", notes[1], "U")]}
                )
    return folder


def medication(folder: Path) -> Path:
    cases = [
        ("Disposition", ("Start", "Past", "Certain", "Physician", "NotNegated")),
        ("NoDisposition", None),
        ("Undetermined", None),
        ("Disposition", ("Stop", "Present", "Hypothetical", "Patient", "Negated")),
        ("Disposition", ("Increase", "Future", "Conditional", "Unknown", "NotNegated")),
        ("Disposition", ("Decrease", "Unknown", "Unknown", "Physician", "Negated")),
        ("Disposition", ("UniqueDose", "Past", "Certain", "Patient", "NotNegated")),
        ("Disposition", ("OtherChange", "Past", "Certain", "Unknown", "Negated")),
        ("Disposition", ("Unknown", "Present", "Certain", "Physician", "NotNegated")),
    ]
    names = ("Action", "Temporality", "Certainity", "Actor", "Negation")  # the third is spelled so in the source
    for split, below in {"train": "train", "validation": "dev"}.items():
        where = folder / "data" / below
        where.mkdir(parents=True, exist_ok=True)
        for k, n in enumerate(_numbered(split)[:4]):
            text, lines = f"{note(n)}\r\n", []
            for m, (kind, attributes) in enumerate(cases, 1):
                drug = f"madeupine {m}"
                text += f"On day {m} of {n}: "
                lines.append(f"T{m}\t{kind} {len(text)} {len(text) + len(drug)}\t{drug}")
                text += (
                    f"{drug} was {kind.lower()} {(attributes or ('so',))[0].lower()}. {note(n + m, sentences=1)}\r\n"
                )
                lines.append(f"E{m}\t{kind}:T{m} ")
                for a, (name, value) in enumerate(zip(names, attributes or (), strict=False), 1):
                    lines.append(f"A{m}{a}\t{name} E{m} {value}")
            if k == 0:
                lines = [x for x in lines if not x.startswith("A15")] + ["#1\tAnnotatorNotes T1\tnothing"]
            (where / f"{n}-01.txt").write_bytes(text.encode())
            (where / f"{n}-01.ann").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
        (where / "0-00.txt").write_text("", encoding="utf-8")  # an empty note
        (where / "0-00.ann").write_text("", encoding="utf-8")
    return folder


def medication_2009(folder: Path) -> Path:
    for k in range(30):
        n = 1000 + k
        drug, dose = f"madeupine {k % 5}", f"{k % 5} mg"  # several patients take the same, as they do
        text = f"Admission\n{note(n)}\nShe took {drug} {dose} by mouth daily.\n"
        here = folder / "training.sets.released" / str(1 + k % 3) / str(n)
        here.parent.mkdir(parents=True, exist_ok=True)
        here.write_text(text, encoding="utf-8")
        if k == 7:
            continue  # most training notes have no annotations
        line = f'm="{drug}" 3:2 3:3||do="{dose}" 3:4 3:5||mo="by mouth" 3:6 3:7||f="daily." 3:8 3:8||du="nm"||r="nm"'
        more = '||e="start"||t="past"||c="factual"||ln="narrative"\n'
        gold = folder / "annotations_ground_truth" / f"{n}_gold.entries"
        gold.parent.mkdir(parents=True, exist_ok=True)
        gold.write_text(
            f'{line}{more}m="tea"||do="nm"||mo="nm"||f="nm"||du="nm"||r="nm"||ln="list"\n', encoding="utf-8"
        )
    return folder


def fall_risk(folder: Path, config: str = "fall") -> Path:
    """Write the layout of the Portuguese set, Windows-1252 and semicolons; for `morse` the items of the scale."""
    folder.mkdir(parents=True, exist_ok=True)
    if config == "fall":
        rows = [[f"Evolução {n}. {note(n, 'queda' if n % 2 else 'sono')}", str(n % 2)] for n in range(1000, 1060)]
        rows.append(rows[0])  # a note that repeats an earlier one
        text = "Evolucao;Target\r\n" + "".join(f'"{t}";{y}\r\n' for t, y in rows)
        (folder / "falls.csv").write_bytes(text.encode("cp1252"))
        return folder / "falls.csv"
    header = ["patient_id", "note", "history_of_falling", "secondary_diagnosis", "ambulatory_aid", "iv_or_heparin_lock",
              "gait", "mental_status", "total"]  # fmt: skip
    kinds = [[0, 15, 0, 0, 0, 0], [25, 0, 0, 0, 10, 0], [25, 15, 15, 20, 20, 15]]
    scored = [[f"p{n // 2}", note(n, f"gait {n % 3}"), *kinds[n % 3], sum(kinds[n % 3])] for n in range(1000, 1060)]
    return write_csv(folder / "morse.csv", header, [[str(v) for v in row] for row in scored])


WRITERS: dict[str, Callable[..., Path]] = {
    f.__name__: f
    for f in (mts_dialog, esophagitis, mednli, sdoh_nli, ap_reasoning, problem_summary, soap, emrqa, medqa, obesity,
              medication, medication_2009, fall_risk)
}  # fmt: skip


def write_gold(task: Task, folder: Path) -> Path | None:
    """Write the miniature files of a task; give the path for `load_gold`, None for a task without files."""
    if not task.files:
        return None
    if task.name not in WRITERS:
        raise AssertionError(f"write a miniature of the files of {task.name}")
    return fall_risk(folder, task.config) if task.name == "fall_risk" else WRITERS[task.name](folder)


def options(task: Task) -> dict[str, Any]:
    """Return the builder's options that keep a task without files small."""
    return {} if task.files else {"n_train": 60, "n_validation": 20, "n_test": 40}


def mts_folder(folder: Path) -> Path:
    """Write miniature files in the layout of MTS-Dialog; every word is made up."""
    folder.mkdir()
    header = ["ID", "section_header", "section_text", "dialogue"]
    train = [
        ["0", "GENHX", f"Made-up passage {CANARY},\nwith a quoted line break and a comma.", "Doctor: hello"],
        ["1", "ALLERGY", "NA", "Doctor: any allergies?"],
        ["2", "ROS", "null", "x"],
        ["3", "CC", "Made-up “quotes” and é.", "x"],
    ]
    write_csv(folder / "MTS-Dialog-TrainingSet.csv", header, train, encoding="utf-8-sig")
    write_csv(folder / "MTS-Dialog-ValidationSet.csv", header, [["0", "PLAN", "Made-up plan.", "x"]])
    write_csv(folder / "MTS-Dialog-TestSet-1-MEDIQA-Chat-2023.csv", header, [["0", "LABS", "Made-up labs.", "x"]])
    return folder
