"""Figures of a cell: counts, costs, policy, scores, subgroups, swaps and versions, and the files that hold them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.correction.augmentation import trainable_rows
from hf_synth.evaluation.demographics import ATTRIBUTES
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.subgroups import Subgroup, flips_by_subgroup, score_subgroups, swap_counterfactual
from hf_synth.experiments.grid import LINEAR, Job, Study
from hf_synth.experiments.leakage import text_digests
from hf_synth.gold.adoption import read_dataset
from hf_synth.models.inference import usual_device
from hf_synth.task.columns import USAGE_COLUMNS
from hf_synth.task.folders import atomic_file, read_manifest
from hf_synth.task.labels import label_indices
from hf_synth.task.scripts import is_artificial
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset


def sources_of(data: Dataset, rows: Dataset | None) -> dict[str, Any]:
    """Count the rows a cell was trained on, and what correction did with them."""
    sources = Counter(data["source"])
    status = Counter() if rows is None else Counter(rows["label_status"])
    return {
        "n_train": len(data), "n_gold": sources["gold"], "n_synthetic": sources["synthetic"],
        "n_kept": status["kept"], "n_relabelled": status["relabelled"], "n_dropped": status["dropped"],
        "n_usable": 0 if rows is None else len(trainable_rows(rows)),
    }  # fmt: skip


def generation_figures(study: Study, job: Job, raw: Dataset | None) -> dict[str, Any]:
    """Return the cost of a cell's share of its synthetic rows, their generators and gates."""
    none = {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "cost_usd": None, "seconds_generate": 0.0,
            "simulated": is_artificial(study.task), "generated_by": "", "gates": "{}"}  # fmt: skip
    if raw is None:
        return none
    folder = study.out / "synthetic" / job.pool
    every, facts = read_dataset(folder), read_manifest(folder) or {}
    good = max(1, sum(status != "rejected" for status in every["label_status"]))
    share = len(raw) / good
    sums = {c: [v for v in every[c] if v is not None] if c in every.column_names else [] for c in USAGE_COLUMNS}
    gates = zip(every["label_status"], every["reason"], strict=True)
    writers = sorted({str(g) for g in raw["generator"]})
    return {
        "calls": round(share * len({k for k in every["journal_key"] if k})),
        "prompt_tokens": round(share * sum(sums["prompt_tokens"])),
        "completion_tokens": round(share * sum(sums["completion_tokens"])),
        "cost_usd": share * sum(sums["cost_usd"]) if sums["cost_usd"] else None,
        "seconds_generate": round(share * float(facts.get("seconds", 0)), 2),
        "simulated": none["simulated"] or any("simulator" in w for w in writers),
        "generated_by": ", ".join(writers),
        "gates": json.dumps(Counter("good" if s != "rejected" else r for s, r in gates)),
    }


def correction_of(study: Study, job: Job, rows: Dataset | None) -> dict[str, Any]:
    """Return how labels were corrected, with the figures of the policy."""
    facts = (read_manifest(study.out / "corrected" / job.corrected) or {}) if job.corrected else {}
    policy = facts.get("policy", {})
    return {
        "policy": policy.get("method", "none" if job.pool else ""),
        "policy_figures": json.dumps(policy.get("figures", {})),
        "policy_warnings": json.dumps(policy.get("warnings", [])),
        "noise": json.dumps(policy.get("noise", [])),
        "noise_after": json.dumps(_noise_after(study.task, rows) if policy and rows is not None else []),
        "corrector_confusion": json.dumps(policy.get("confusion", [])),
        "seconds_correct": float(facts.get("seconds", 0.0)),
        "cpu_seconds_correct": float(facts.get("cpu_seconds", 0.0)),
        "gpu_seconds_correct": float(facts.get("gpu_seconds", 0.0)),
    }


def _noise_after(task: Task, rows: Dataset) -> list[list[float]]:
    """Estimate the noise matrix after correction, (K, K): true label by the policy's probabilities, then label."""
    if task.kind != "single_label":
        return []
    used = rows.select(trainable_rows(rows))
    probs, k = np.asarray(used["label_probs"], dtype=np.float64), len(task.labels)
    labels = np.eye(k)[label_indices(task, used)] * np.asarray(used["weight"], dtype=np.float64)[:, None]
    counts = probs.reshape(-1, k).T @ labels
    return np.round(counts / np.maximum(counts.sum(1, keepdims=True), 1e-12), 6).tolist()  # type: ignore[no-any-return]


def figures_of(scores: Scores) -> dict[str, Any]:
    """Return all figures of a cell's scores as flat columns."""
    plain: dict[str, Any] = {"n_test": scores.n, "test_groups": len(set(scores.groups)) or None}
    for name, value in scores.values.items():
        low, high = scores.ci95.get(name, (None, None))
        plain |= {name: value, f"{name}_low": low, f"{name}_high": high}
    nested = {"per_class": scores.per_class, "confusion": scores.confusion, "calibration": scores.calibration}
    return plain | {name: json.dumps(value) for name, value in nested.items()}


def subgroups_of(study: Study, job: Job, rows: Dataset, scores: Scores) -> str:
    """Return scores by sex, age band and race as JSON, from columns or words of the notes; single_label only."""
    if not scores.predictions:
        return "[]"
    how: dict[str, Any] = {"n_bootstrap": study.n_bootstrap, "seed": job.cell.seed}
    return _as_json(score_subgroups(study.task, rows, np.array(scores.predictions), **how))


def swaps_of(study: Study, job: Job, rows: Dataset, predicted: Any, predict: Callable[[Dataset], Any]) -> str:
    """Return how predictions change when only the patient's sex, age or race words are swapped, as JSON.

    Args:
        rows: rows that are scored.
        predicted: the model's predictions for them.
        predict: predicts other rows.
    """
    known = dict(zip(text_digests(study.task, rows), predicted, strict=True))

    def predict_once(swapped: Dataset) -> Any:
        names = text_digests(study.task, swapped)
        new = [i for i, name in enumerate(names) if name not in known]
        if new:
            known.update(zip((names[i] for i in new), predict(swapped.select(new)), strict=True))
        return np.array([known[name] for name in names])

    how: dict[str, Any] = {"n_bootstrap": study.n_bootstrap, "seed": job.cell.seed}
    return _as_json([s for a in ATTRIBUTES for s in swap_counterfactual(study.task, predict_once, rows, a, **how)])


def flips_of(study: Study, job: Job, rows: Dataset | None) -> str:
    """Return how often correction changed or dropped labels, by subgroup, as JSON."""
    if rows is None or not job.corrected:
        return "[]"
    return _as_json(flips_by_subgroup(study.task, rows, n_bootstrap=study.n_bootstrap, seed=job.cell.seed))


def _as_json(subgroups: Iterable[Subgroup]) -> str:
    return json.dumps([asdict(subgroup) for subgroup in subgroups])


def gpu_seconds(base_model: str, seconds: float) -> float:
    """Return the wall seconds of a training that used a GPU; 0 without one."""
    return 0.0 if base_model == LINEAR or usual_device() == "cpu" else round(seconds, 2)


def versions() -> dict[str, str]:
    """Return the versions of hf_synth and of the packages it computes with."""
    from importlib.metadata import version

    from hf_synth import __version__

    names = ("torch", "transformers", "datasets", "scikit-learn", "numpy")
    return {"hf_synth": __version__, "versions": json.dumps({n: version(n) for n in names})}


def write_cell(study: Study, job: Job, rows: list[dict[str, Any]], scores: Mapping[str, Scores]) -> None:
    """Write the labels and predictions of each test row, then the cell's figures; their file marks the cell as done."""
    folder = study.out / "cells"
    arrays: dict[str, Any] = {}
    for split, s in scores.items():
        arrays |= {
            f"{split}_{name}": np.array(getattr(s, name), np.int32) for name in ("labels", "predictions", "groups")
        }
    with atomic_file(folder / f"{job.key}.npz") as draft, draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    with atomic_file(folder / f"{job.key}.json") as draft:
        draft.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
