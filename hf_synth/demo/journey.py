"""The demo: the whole pipeline on artificial notes with a simulated LLM, without network or key.

It shows that the software works. Its notes are artificial, its LLM is a simulator with programmed errors, and its
encoder is a tiny one made on the spot: its figures show no clinical benefit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.demo.encoder import DEMO_ARGS, make_encoder
from hf_synth.demo.simulator import running_simulator, true_label
from hf_synth.errors import HfSynthError
from hf_synth.experiments.journey import ARMS, run, score_table
from hf_synth.experiments.journey_report import journey_lead, write_journey_report
from hf_synth.experiments.journey_sections import Journey
from hf_synth.generation.generation import generate
from hf_synth.gold.gold import load_gold, subset
from hf_synth.hub import client_environment, connected, running_hub
from hf_synth.llm.llm import LLM
from hf_synth.models.inference import predict_proba
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.reports.page import Section, Table, matrix_table
from hf_synth.reports.plots import matrix_plot
from hf_synth.task.folders import clear_disk_errors, private_folder, work_folder, write_stage
from hf_synth.task.scripts import load_task

if TYPE_CHECKING:
    from datasets import DatasetDict

CAPTION = "Artificial notes, simulated LLM, tiny encoder: this shows that the software works, not a clinical benefit."
DATASET, MODEL = "demo/synth-esophagitis", "demo/esophagitis-grader"
BEST_ARM = "gold_200_plus_corrected"
# Loads what was published without hf_synth, in a process of its own against the local Hub.
PULL = """
import json, sys
from datasets import load_dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer
import torch

rows = load_dataset(sys.argv[1], split="train")
tokenizer = AutoTokenizer.from_pretrained(sys.argv[2])
model = AutoModelForSequenceClassification.from_pretrained(sys.argv[2]).eval()
note = "Week 5 of chemoradiation. Pain with every swallow; living on broth and shakes, oxycodone before meals."
with torch.no_grad():
    probs = model(**tokenizer(note, return_tensors="pt")).logits.softmax(-1)[0]
assert not any(name.split(".")[0] == "hf_synth" for name in sys.modules)
print(json.dumps({"rows": len(rows), "labels": rows.features["label"].names,
                  "grade": model.config.id2label[int(probs.argmax())], "probability": round(float(probs.max()), 3)}))
"""


def demo(out: Path, *, seed: int = 0, full: bool = False, say: Callable[[str], None]) -> dict[str, Any]:
    """Run the demo into a folder; return its figures (the JSON object of `hf-synth demo`).

    Args:
        out: folder for everything; an earlier demo there is continued: answers in its journal are used again.
        full: more gold sizes and more synthetic notes.
        say: called with each line of progress.

    Raises:
        HfSynthError: the error of a stage.
    """
    started = time.perf_counter()
    task = load_task("clinic")
    out = private_folder(Path(out))
    gold = load_gold(task, notes_seed=seed)
    write_stage(task, gold, out / "gold", stage="gold", seed=seed)
    say(
        f"artificial gold: {len(gold['train']):,} notes for training (200 of them used), {len(gold['test']):,} for test"
    )
    with running_simulator(seed=seed) as url:
        llm = LLM("simulator", base_url=url, journal=work_folder(out) / "journal.sqlite")
        shown = subset(task, gold["train"], 200, seed=seed)
        rows = generate(task, shown, llm, 3_000 if full else 1_600, seed=seed)
    texts = [text for text in rows["text"] if text is not None]
    say(f"simulated LLM: {len(texts):,} notes, {len(rows) - len(texts):,} answers rejected")
    # the encoder is made from unlabelled texts: gold and synthetic ones
    base = make_encoder([*gold["train"]["text"], *texts], work_folder(out) / "encoder", seed=seed)

    journey = run(
        task,
        rows,
        gold=gold,
        base_model=base,
        out=out,
        gold_size=200,
        arms=(*ARMS, *((50, 100, 400, 800, 1_243) if full else (1_243,))),
        training={"args": DEMO_ARGS},
        seed=seed,
        say=say,
        caption=CAPTION,
    )
    labels = label_accuracy(journey)
    report = write_journey_report(journey, more=[truth_section(journey, labels)])
    published, hub = _publish_and_pull(journey, gold, say)
    facts = {
        "scores": _main_scores(journey),
        "policy": journey.policy.method,
        "label_accuracy": labels,
        "published": published,
        "hub": hub,
        "seconds": round(time.perf_counter() - started, 1),
    }
    with clear_disk_errors(out):
        (out / "demo.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"\n{journey_lead(journey).verdict}\n\n{score_table(task, journey.scores)}\n")
    print(f"{_label_line(labels, journey.policy.method)}\n{CAPTION}\n")
    print(f"report: {report}   cards: {out / 'published'}   seconds: {facts['seconds']}")
    return facts


def _main_scores(journey: Journey) -> dict[str, Any]:
    scores = {}
    for name, s in journey.scores.items():
        macro_f1, ci95 = round(s.values["macro_f1"], 4), [round(v, 4) for v in s.ci95.get("macro_f1", ())]
        scores[name] = {"macro_f1": macro_f1, "ci95": ci95, "accuracy": round(s.values["accuracy"], 4)}
    return scores


def label_accuracy(journey: Journey) -> dict[str, float]:
    """Compare labels with the true labels, which only a simulation knows.

    Returns:
        Shares of right labels: "llm" as asked for; "corrected" on all rows, a dropped row counted as wrong; "argmax"
        if a model trained on the gold labels every row; "kept" on the rows that correction kept or relabelled; and
        "yield", the share of those rows.
    """
    task = journey.task
    rows = journey.corrected.filter(lambda status: status != "rejected", input_columns="label_status")
    truth = [task.labels.index(f"grade_{true_label(text)}") for text in rows["text"]]
    replaced = predict_proba(task, journey.models["gold_200"], rows).argmax(1)

    def share(hits: Sequence[bool]) -> float:
        return round(sum(hits) / max(1, len(hits)), 4)

    used = [status in ("kept", "relabelled") for status in rows["label_status"]]
    right = [a == b for a, b in zip(rows["label"], truth, strict=True)]
    return {
        "llm": share([a == b for a, b in zip(rows["llm_label"], truth, strict=True)]),
        "corrected": share([r and u for r, u in zip(right, used, strict=True)]),
        "argmax": share([a == b for a, b in zip(replaced, truth, strict=True)]),
        "kept": share([r for r, u in zip(right, used, strict=True) if u]),
        "yield": share(used),
    }


def truth_section(journey: Journey, labels: dict[str, float]) -> Section:
    """Show the true noise of the labels before and after correction.

    Args:
        labels: of `label_accuracy`.
    """
    k, names = len(journey.task.labels), list(journey.task.labels)
    before, after = ([[0] * k for _ in range(k)] for _ in range(2))
    columns = (journey.corrected[c] for c in ("text", "llm_label", "label", "label_status"))
    for text, llm_label, label, status in zip(*columns, strict=True):
        if status == "rejected":
            continue
        truth = journey.task.labels.index(f"grade_{true_label(text)}")
        before[truth][llm_label] += 1
        if status != "dropped":
            after[truth][label] += 1
    stages = {"Labels before correction": before, "Labels after correction, rows used": after}
    plots = [
        matrix_plot(counts, names, names, row_axis="true label", column_axis="label", **journey.plot_labels(title))
        for title, counts in stages.items()
    ]
    corner = "true label / label"
    tables = [matrix_table(counts, names, names, corner=corner, caption=title) for title, counts in stages.items()]
    meanings = {
        "llm": "right before correction", "corrected": "right after it, of all rows; a dropped row counts as wrong",
        "kept": "right after it, of the rows used", "yield": "rows used",
        "argmax": "right if a model trained on the gold labels every row",
    }  # fmt: skip
    table = Table(["share", "of the rows"], [[meaning, labels[key]] for key, meaning in meanings.items()], digits=4)
    text = "The true label of a note is known because a program wrote it. For real notes it takes a person."
    return Section("Labels against the truth", text, plots, [table, *tables])


def _label_line(labels: dict[str, float], policy: str) -> str:
    return (
        f"right labels: {labels['llm']:.1%} of the simulator's, {labels['corrected']:.1%} after correction by {policy} "
        f"({labels['kept']:.1%} of the {labels['yield']:.1%} kept), {labels['argmax']:.1%} if a model trained on the "
        "gold labels every row"
    )


def _publish_and_pull(journey: Journey, gold: DatasetDict, say: Callable[[str], None]) -> tuple[dict[str, Any], str]:
    """Publish to a local Hub and load it in a process without hf_synth; return the figures and the Hub's address."""
    task, scores, published = journey.task, journey.scores, journey.out / "published"
    with running_hub(journey.out / "hub") as hub, connected(hub):
        say("publishing to a local Hub, then pulling in a process without hf_synth")
        how: dict[str, Any] = {"gold": gold, "private": False, "token": hub.token, "endpoint": hub.url}
        data_how = {**how, "scores": scores, "policy": journey.policy, "export_dir": published / "dataset"}
        model_how = {**how, "export_dir": published / "model"}
        best = BEST_ARM if BEST_ARM in journey.models else "gold_200"  # correction may leave no row
        verdicts = [
            publish_dataset(task, journey.corrected, DATASET, **data_how),
            publish_model(task, journey.models[best], scores[best], MODEL, **model_how),
        ]
        for verdict in verdicts:
            if not verdict.allowed:
                raise HfSynthError(f"publishing was refused: {'; '.join(verdict.reasons)}")
        return {"dataset": DATASET, "model": MODEL, "pulled": pull(hub, journey.out, DATASET, MODEL)}, hub.url


def pull(hub: Any, out: Path, dataset: str, model: str) -> dict[str, Any]:
    """Load what was published in a process without hf_synth; return the number of rows and a prediction.

    Raises:
        HfSynthError: the process could not load it.
    """
    environment = client_environment(hub) | {"HF_HOME": str(work_folder(out) / "pulled"), "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-I", "-c", PULL, dataset, model]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if process.returncode:
        raise HfSynthError(
            "a process without hf_synth could not load the published dataset and model; see the folder hub"
        )
    pulled: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
    return pulled
