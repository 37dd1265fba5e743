"""Summaries of MTS-Dialog (real_llm.py, part `summary`): a T5 without pretraining, against copies of the dialogue.

No pretrained sequence-to-sequence model is at hand, so the model is trained from nothing on real pairs. Baselines need
no model: the first words of the dialogue, and one text of the training split for all dialogues.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

ONE_FOR_ALL = "one summary of the training split for all"
LEADS = (10, 20, 40)  # words
RUNS = ((200, 20), (1201, 4))  # gold pairs and epochs: about 300 steps each
TRAINING = {"learning_rate": 3e-3, "per_device_train_batch_size": 16}
_CANDIDATES, _READERS = 60, 100  # texts of the training split that may stand for all, and those they are compared with


def leads(documents: list[str], words: int) -> list[str]:
    """Return the first words of each dialogue, without the names of the speakers."""
    return [
        " ".join([w for w in text.split() if w not in ("Doctor:", "Patient:", "Guest_family:")][:words])
        for text in documents
    ]


def commonest(summaries: list[str], seed: int) -> str:
    """Return the summary that is nearest to the others, by mean ROUGE-L over a sample."""
    from hf_synth.models.text2text import text_scores

    order = np.random.default_rng(seed).permutation(len(summaries))
    some, others = order[:_CANDIDATES], order[_CANDIDATES : _CANDIDATES + _READERS]
    targets = [summaries[i] for i in others]
    means = [text_scores([summaries[i]] * len(targets), targets)["rougeL"].mean() for i in some]
    return summaries[some[int(np.argmax(means))]]


def summarise(folder: Path, out: Path) -> list[dict[str, Any]]:
    """Score baselines and models; keep the scores in out/runs.jsonl, one line each. What it has is not run again."""
    from hf_synth.demo.encoder import make_seq2seq
    from hf_synth.evaluation.evaluation import predict
    from hf_synth.gold.gold import load_gold, subset
    from hf_synth.models.text2text import text_scores
    from hf_synth.models.training import train
    from hf_synth.task.scripts import load_task

    task = load_task("mts_dialog:summary")
    gold = load_gold(task, folder)
    out.mkdir(parents=True, exist_ok=True)
    test, kept = gold["test"], out / "runs.jsonl"
    truth, documents, summaries = list(test[task.label_column]), list(test["document"]), list(gold["train"]["summary"])
    runs = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []

    def trained(size: int, epochs: int) -> list[str]:
        own, base, model = (
            subset(task, gold["train"], size, seed=0),
            out / f"base-{size}",
            out / f"model-{size}-{epochs}",
        )
        if not base.exists():
            make_seq2seq([*own["document"], *own["summary"]], base)
        if not model.exists():
            how = {**TRAINING, "num_train_epochs": epochs}
            train(task, own, base_model=str(base), output_dir=model, args=how, seed=0)
        return list(predict(task, model, test))

    systems: list[tuple[str, int, Callable[[], list[str]]]] = [
        (f"the first {n} words of the dialogue", 0, partial(leads, documents, n)) for n in LEADS
    ]
    systems.append((ONE_FOR_ALL, len(summaries), lambda: [commonest(summaries, 0)] * len(truth)))
    systems += [(f"a T5 from nothing, {epochs} epochs", n, partial(trained, n, epochs)) for n, epochs in RUNS]
    for name, size, write in systems:
        if any((run["system"], run["gold"]) == (name, size) for run in runs):
            continue
        started = time.process_time()
        texts = write()
        scores = {metric: round(float(v.mean()), 4) for metric, v in text_scores(texts, truth).items()}
        about = {"system": name, "gold": size, "test": len(truth), "distinct": len(set(texts))}
        runs.append({**about, "cpu_seconds": round(time.process_time() - started), **scores})
        kept.write_text("".join(json.dumps(run) + "\n" for run in runs), encoding="utf-8")
        print(runs[-1], flush=True)
    return runs
