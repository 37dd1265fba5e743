"""Summaries of MTS-Dialog (real_llm.py, part `summary`): a T5 without pretraining, against copies of the dialogue.

No pretrained sequence-to-sequence model is at hand, so the model is trained from nothing on real pairs. Baselines need
no model: the first words of the dialogue, and one text of the training split for all dialogues.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

LEADS = (10, 20, 40)  # words
TRAINING = {"num_train_epochs": 20, "learning_rate": 3e-3, "per_device_train_batch_size": 16}
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


def summarise(folder: Path, out: Path, sizes: tuple[int, ...] = (200, 1201), **training: Any) -> list[dict[str, Any]]:
    """Score baselines and models; keep the scores in out/runs.jsonl, one line each."""
    from hf_synth.demo.encoder import make_seq2seq
    from hf_synth.evaluation.evaluation import predict
    from hf_synth.gold.gold import load_gold, subset
    from hf_synth.models.text2text import text_scores
    from hf_synth.models.training import train
    from hf_synth.task.scripts import load_task

    task = load_task("mts_dialog:summary")
    gold = load_gold(task, folder)
    out.mkdir(parents=True, exist_ok=True)
    test = gold["test"]
    truth, documents = list(test[task.label_column]), list(test["document"])
    runs: list[dict[str, Any]] = []

    def keep(name: str, n_train: int, texts: list[str], seconds: float = 0.0) -> None:
        scores = {metric: round(float(v.mean()), 4) for metric, v in text_scores(texts, truth).items()}
        about = {"system": name, "gold": n_train, "test": len(truth), "distinct": len(set(texts))}
        runs.append({**about, "cpu_seconds": round(seconds), **scores})
        lines = "".join(json.dumps(run) + "\n" for run in runs)
        (out / "runs.jsonl").write_text(lines, encoding="utf-8")
        print(runs[-1], flush=True)

    for words in LEADS:
        keep(f"the first {words} words of the dialogue", 0, leads(documents, words))
    summaries = list(gold["train"][task.label_column])
    keep("one summary of the training split for all", len(summaries), [commonest(summaries, 0)] * len(truth))
    for size in sizes:
        own, started = subset(task, gold["train"], min(size, len(summaries)), seed=0), time.process_time()
        base, model = out / f"base-{size}", out / f"model-{size}"
        if not base.exists():
            make_seq2seq([*own["document"], *own[task.label_column]], base)
        if not model.exists():
            train(task, own, base_model=str(base), output_dir=model, args={**TRAINING, **training}, seed=0)
        keep("a T5 of two layers, trained from nothing", len(own), list(predict(task, model, test)),
             time.process_time() - started)  # fmt: skip
    return runs
