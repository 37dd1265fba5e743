"""Correction of Datasets: cross-fitting, refits, and the choice of a method; what may be known from which rows.

A corrector is the folder (or repo id) of a trained model, whose facts say which rows it saw, or a function
`fit(rows) -> predict` with `predict(rows) -> (N, K)`, which lets every opinion on a row come from a model that did not
see the row; or a judge: an object with `predict(rows)` that learnt from no row of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

import numpy as np
import numpy.typing as npt

from hf_synth.correction.audited import rekeyed
from hf_synth.correction.augmentation import augment
from hf_synth.correction.choice import Choice, choose_method
from hf_synth.correction.crossfit import Ints, Learn, Predict, Rows, check_parts, decide
from hf_synth.correction.label_sets import METHODS as SET_METHODS
from hf_synth.correction.label_sets import correct_sets
from hf_synth.correction.policy import METHODS, RELABELS, Corrected, Policy, apply, fit, settle
from hf_synth.correction.target_texts import METHODS as TEXT_METHODS
from hf_synth.correction.target_texts import correct_targets
from hf_synth.errors import ColumnError, OverlapError, TaskError
from hf_synth.gold.adoption import adopt
from hf_synth.models.inference import predict_proba
from hf_synth.models.linear import linear_learner, shift, text_features
from hf_synth.models.loading import model_folder
from hf_synth.models.record import model_facts
from hf_synth.task.columns import UNLABELLED, access_of, strictest
from hf_synth.task.labels import audited_labels, check_columns, groups_of, label_indices, row_digests, texts_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

Fit = Callable[["Dataset"], Callable[["Dataset"], npt.ArrayLike]]


class Judge(Protocol):
    """A corrector that labels rows and learnt from none of ours, such as an `LLMJudge`."""

    def predict(self, rows: Dataset) -> npt.ArrayLike:
        """Give the probability of each label for each row, (N, K)."""


Corrector = str | Path | Fit | Judge


class CorrectionOptions(TypedDict, total=False):
    """Keywords of `correct`, for functions that hand them on."""

    method: str
    audited: Mapping[str, int | str] | None
    coverage: float | None
    coverage_by_class: bool


Floats = npt.NDArray[np.float64]
_METHODS = {"single_label": METHODS, "multi_label": SET_METHODS, "text2text": TEXT_METHODS}
_LOG = logging.getLogger(__name__)


def fit_policy(
    task: Task,
    pilot: Dataset,
    corrector: Corrector,
    *,
    gold: Dataset,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    seed: int = 0,
) -> Policy:
    """Fit a policy on some synthetic rows and held-out gold, for rows that come later.

    Args:
        pilot: synthetic rows of the same making; some hundred.
        corrector: the model whose opinion will be used.
        gold: rows that the corrector never saw, or with out-of-fold `label_probs`; any gold rows with a `fit`.
        method: one of `correction.METHODS`, or "auto".
        audited: true labels of some pilot rows that a person checked, by row id; of a sample that was drawn with
            unequal chances an `Audited` (`audit_sample`, `hf-synth sample`).
        coverage: share of gold rows whose conformal set must hold the truth, e.g. 0.9: methods that relabel or drop
            leave each row as generated whose set does not hold just one label. None asks for no set.
        coverage_by_class: rows of each class are to be covered at that rate; needs more gold.

    Raises:
        OverlapError: the corrector was trained on some of the gold.
        ColumnError: columns are missing.
        TaskError: unknown method, or a task that is not single_label: nothing is fitted for those.
    """
    if task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: policies are fitted for single_label tasks only")
    return correct_with_policy(
        task, pilot, corrector, gold=gold, method=method, audited=audited, coverage=coverage,
        coverage_by_class=coverage_by_class, seed=seed,
    )[1]  # fmt: skip


def correct(
    task: Task,
    synthetic: Dataset,
    corrector: Corrector,
    *,
    gold: Dataset,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    seed: int = 0,
) -> Dataset:
    """Correct the labels of synthetic rows.

    With a `fit`, models are trained on gold and the rows themselves, each half judged by those of the other half; a
    linear head on frozen features does the first rounds, and two models of `fit` the last one. With a trained model its
    own opinion is used.

    A judge, such as an `LLMJudge`, is measured on the same gold, which it never saw; "llm_judge" is "posterior" by it.
    Sets of labels are corrected label by label (`label_sets.METHODS`), target texts by what the corrector writes
    (`target_texts.METHODS`).

    Args:
        synthetic: rows of `generate`, or any with the task's text columns and `llm_label`.
        corrector, gold, method, audited, coverage, coverage_by_class: as for `fit_policy`.

    Returns:
        The same rows in the same order with `task.corrected_features()`; rejected rows as they were.

    Raises:
        OverlapError: the corrector was trained on some of the gold.
        ColumnError: columns are missing.
        TaskError: unknown method, or a task whose labels cannot be corrected.
    """
    return correct_with_policy(
        task, synthetic, corrector, gold=gold, method=method, audited=audited, coverage=coverage,
        coverage_by_class=coverage_by_class, seed=seed,
    )[0]  # fmt: skip


def correct_with_policy(
    task: Task,
    synthetic: Dataset,
    corrector: Corrector,
    *,
    gold: Dataset,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    seed: int = 0,
) -> tuple[Dataset, Policy]:
    """Do what `correct` does, and give the policy as well."""
    method = check_correction(
        task, corrector, gold=gold, method=method, audited=audited, coverage=coverage,
        coverage_by_class=coverage_by_class,
    )  # fmt: skip
    everything = _contract(task, synthetic)
    usable = _usable(task, everything)
    if task.kind != "single_label":
        decided, policy = _correct_kind(task, usable, corrector, gold, method, seed)
        access = strictest(task.access, access_of(everything), access_of(gold))
        return _with_columns(task, everything, decided, access), policy
    known = Rows(
        label_indices(task, usable, "llm_label"),
        label_indices(task, gold),
        groups_of(gold),
        len(task.labels),
        audited_places(task, usable, audited),
        list(usable["group"][:]) if audited and "group" in usable.column_names else None,
    )
    opinions = None if callable(corrector) else _opinions(task, usable, corrector, gold)
    head, told = _head(task, usable, gold, known, seed)
    also: Mapping[str, Sequence[Floats]] = {}
    sets: dict[str, Any] = {"coverage": coverage, "coverage_by_class": coverage_by_class}
    if method == "auto":
        choice = choose_method(known, head, opinions=opinions, seed=seed, **sets)
        method, also = choice.method, choice.opinions
        told |= _told(choice)
    if opinions is None:
        assert callable(corrector)
        learn = _encoder_learner(task, gold, usable, corrector, seed)
        policy, done = decide(known, learn, method, head=head, also=also, seed=seed, **sets)
    else:
        held_out, said = opinions
        policy = fit(
            method, llm_label=known.meant, pred_probs=said, gold_label=known.truth, gold_probs=held_out,
            audited=known.audited, **sets,
        )  # fmt: skip
        done = settle(apply(policy, known.meant, said), known.meant, known.audited)
    policy = replace(policy, figures={**policy.figures, **told, **getattr(corrector, "figures", {})})
    policy = _warned(policy, corrector, gold)
    if policy.method in (*RELABELS, "posterior", "ensemble"):
        for line in policy.warnings:
            _LOG.warning("correction: %s", line)
    access = strictest(task.access, access_of(everything), access_of(gold))
    return _written(task, everything, done, access), policy


def check_correction(
    task: Task,
    corrector: Corrector,
    *,
    gold: Dataset,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    coverage: float | None = None,
    coverage_by_class: bool = False,
) -> str:
    """Check all that `correct` would refuse whatever the rows are, without loading a model; return the method.

    Raises:
        TaskError, ColumnError, OverlapError, ModelError: as `correct` has it.
    """
    single = task.kind == "single_label"
    method = _known_method(task, corrector, method)
    if task.kind == "text2text" and hasattr(corrector, "predict"):
        raise TaskError(f"task {task.full_name!r} is text2text: a judge chooses among labels, it has none")
    if coverage_by_class and coverage is None:
        raise TaskError("coverage_by_class says of what the coverage is: give the coverage too, e.g. 0.9")
    if coverage is not None and not 0 < coverage < 1:
        raise TaskError(f"coverage is a share between 0 and 1, e.g. 0.9; got {coverage}")
    for given, what in ((audited, "audited labels serve"), (coverage is not None, "conformal sets (coverage) serve")):
        if given and not single:
            raise TaskError(f"task {task.full_name!r} is {task.kind}: {what} single_label tasks only")
    check_columns(task, gold, what="gold")
    if "source" in gold.column_names and UNLABELLED in set(gold["source"][:]):
        raise ColumnError("gold holds notes that an LLM labelled: nothing can be measured on them; give them as rows")
    if method != "none" and (callable(corrector) or (method == "auto" and task.kind != "text2text")):
        check_parts(groups_of(gold))
    if single and len(gold) < 2:
        raise ColumnError("correction needs gold rows to measure the corrector on")
    if single:
        label_indices(task, gold)
    if isinstance(corrector, str | Path) and (single or method != "none"):
        model_folder(corrector)
        if "label_probs" not in gold.column_names:
            _check_unseen(task, corrector, gold)
    return method


def _opinions(task: Task, rows: Dataset, corrector: str | Path | Judge, gold: Dataset) -> tuple[Floats, Floats]:
    """Give the probabilities of a trained model or a judge for gold that it never saw and for the rows."""
    if not isinstance(corrector, str | Path):
        return np.asarray(corrector.predict(gold), float), np.asarray(corrector.predict(rows), float)
    said = np.asarray(predict_proba(task, corrector, rows), dtype=np.float64)
    if "label_probs" in gold.column_names:
        return np.asarray(gold["label_probs"], dtype=np.float64), said
    _check_unseen(task, corrector, gold)
    return np.asarray(predict_proba(task, corrector, gold), dtype=np.float64), said


def _check_unseen(task: Task, corrector: str | Path, gold: Dataset) -> None:
    seen = set(model_facts(corrector)["row_digests"])
    both = sum(d in seen for d in row_digests(task, gold.select_columns(list(task.text_columns))))
    if both:
        raise OverlapError(
            f"the corrector was trained on {both} of the {len(gold)} gold rows it is to be judged on; give gold that "
            "it never saw (a validation split), or a fit function instead of a model"
        )


def _warned(policy: Policy, corrector: Corrector, gold: Dataset) -> Policy:
    """Say with a policy that its figures may be too good, where nobody knows what the corrector was trained on."""
    if not isinstance(corrector, str | Path) or "label_probs" in gold.column_names or model_facts(corrector)["known"]:
        return policy
    line = "nothing is known of what the corrector was trained on: had it seen this gold, its figures would be too good"
    return replace(policy, warnings=(*policy.warnings, line))


def _head(task: Task, rows: Dataset, gold: Dataset, known: Rows, seed: int) -> tuple[Learn, dict[str, Any]]:
    """Give a linear head on frozen features of the texts, which does what a slow model need not, and a figure of it."""
    x_gold, x_rows = text_features(texts_of(task, gold), texts_of(task, rows))
    learn = linear_learner(x_gold, x_rows, known.truth, known.n_labels)
    return learn, {"gold_against_synthetic_auc": shift(x_gold, x_rows, seed)}


def _told(choice: Choice) -> dict[str, Any]:
    """Give the grounds of a choice as figures of the policy."""
    return {
        "auto_scores": dict(choice.scores),
        "auto_behind": {m: list(b) for m, b in choice.behind.items()},
        "auto_refused": list(choice.refused),
        "auto_why": choice.why,
    }


def _encoder_learner(task: Task, gold: Dataset, rows: Dataset, fit_rows: Fit, seed: int) -> Learn:
    """Give a `Learn` that trains by a user's `fit` on gold rows and synthetic rows with soft targets."""

    def learn(gold_at: Ints, rows_at: Ints, targets: npt.NDArray[np.float64]) -> Predict:
        data = gold.select(gold_at)
        if len(rows_at):
            chosen = rows.select(rows_at)
            n = len(rows_at)
            weight = targets.sum(1)
            probs = targets / weight[:, None]
            soft = Corrected(
                targets.argmax(1),
                probs,
                probs.max(1),
                weight,
                np.array(["kept"] * n),
                np.array(["posterior"] * n),
            )
            data = augment(task, _written(task, chosen, soft, "open"), gold=data, seed=seed)
        predict = fit_rows(data)

        def say(gold_at: Ints, rows_at: Ints) -> tuple[Floats, Floats]:
            return _said(predict, gold, gold_at, len(task.labels)), _said(predict, rows, rows_at, len(task.labels))

        return say

    return learn


def _said(predict: Callable[[Dataset], npt.ArrayLike], dataset: Dataset, at: Ints, k: int) -> Floats:
    if not len(at):
        return np.zeros((0, k))
    return np.asarray(predict(dataset.select(at)), dtype=np.float64)


# --- other kinds of tasks ---------------------------------------------------------------------------------------------
def _known_method(task: Task, corrector: Corrector, method: str) -> str:
    """Give the method that is meant: a judge's word is never taken alone, but joined with the generator's.

    Raises:
        TaskError: there is no such method, or none for such a task or corrector.
    """
    if method == "llm_judge":
        if not hasattr(corrector, "predict"):
            raise TaskError("method 'llm_judge' needs a judge: give LLMJudge(task, llm) as the corrector, or --judge")
        return "posterior"
    known = _METHODS[task.kind]
    if method not in (*known, "auto"):
        if any(method in names for names in _METHODS.values()):
            raise TaskError(f"method {method!r} does not serve {task.kind} tasks: give auto, {' or '.join(known)}")
        raise TaskError(f"unknown method of correction {method!r}; give auto or one of {', '.join(known)}")
    return method


def _correct_kind(
    task: Task, rows: Dataset, corrector: Corrector, gold: Dataset, method: str, seed: int
) -> tuple[list[dict[str, Any]], Policy]:
    """Correct sets of labels or target texts of rows; give the columns that are decided, and the policy."""
    fit_rows: Any = corrector if callable(corrector) else None
    model = str(corrector) if isinstance(corrector, str | Path) else None
    if task.kind == "multi_label":
        ask = fit_rows is None and method != "none"
        opinions = _opinions(task, rows, corrector, gold) if ask else None  # type: ignore[arg-type]
        decided, policy = correct_sets(task, rows, gold, method, opinions=opinions, fit_rows=fit_rows, seed=seed)
        policy = replace(policy, figures={**policy.figures, **getattr(corrector, "figures", {})})
    else:
        if model is None and fit_rows is None:
            raise TaskError(f"task {task.full_name!r} is text2text: a judge chooses among labels, it has none")
        if model is not None and method != "none":
            _check_unseen(task, model, gold)
        decided, policy = correct_targets(task, rows, gold, method, corrector=model, fit_rows=fit_rows, seed=seed)
    policy = _warned(policy, corrector, gold) if method != "none" else policy
    for line in policy.warnings:
        _LOG.warning("correction: %s", line)
    return decided, policy


# --- rows -----------------------------------------------------------------------------------------------------------
def _contract(task: Task, synthetic: Dataset) -> Dataset:
    """Give rows in the column contract: ours as they are, rows made elsewhere adopted."""
    ours = {"label_status", "llm_label", "seed_ids", "id"} <= set(synthetic.column_names)
    return synthetic if ours else adopt(task, synthetic)


def _usable(task: Task, rows: Dataset) -> Dataset:
    check_columns(task, rows, "llm_label", "label_status", what="the synthetic dataset")
    used = [i for i, status in enumerate(rows["label_status"][:]) if status != "rejected"]
    if not used:
        raise ColumnError("there is no synthetic row to correct: all were rejected")
    return rows if len(used) == len(rows) else rows.select(used)


def audited_places(task: Task, rows: Dataset, audited: Mapping[str, int | str] | None) -> Mapping[int, int]:
    """Give audited labels by the position of their row.

    Raises:
        ColumnError: an id is not among the rows, or a label is none of the task's.
    """
    if not audited:
        return {}
    place = {id: i for i, id in enumerate(rows["id"][:])}
    missing = [id for id in audited if id not in place]
    if missing:
        raise ColumnError(f"{len(missing)} audited ids are not among the synthetic rows")
    return rekeyed(audited, audited_labels(task, {place[id]: label for id, label in audited.items()}), place)


def _written(task: Task, rows: Dataset, done: Corrected, access: str) -> Dataset:
    """Write decisions on single labels into the rows that were not rejected."""
    told = [
        {
            task.label_column: int(done.label[k]), "label_status": str(done.status[k]), "reason": str(done.reason[k]),
            "label_probs": done.probs[k].tolist(), "label_confidence": float(done.confidence[k]),
            "weight": float(done.weight[k]),
        }
        for k in range(len(done.label))
    ]  # fmt: skip
    return _with_columns(task, rows, told, access)


def _with_columns(task: Task, rows: Dataset, done: Sequence[Mapping[str, Any]], access: str) -> Dataset:
    """Write decisions into the rows that were not rejected, in place and order; other columns stay as they are."""
    import pyarrow as pa
    from datasets import Dataset, Features

    statuses = list(rows["label_status"][:])
    at = [i for i, status in enumerate(statuses) if status != "rejected"]
    columns: dict[str, list[Any]] = {
        task.label_column: list(rows[task.label_column][:]),
        "label_status": statuses, "reason": list(rows["reason"][:]),
        "label_probs": [None] * len(rows), "label_confidence": [None] * len(rows), "weight": [0.0] * len(rows),
        "access": [strictest(access, a) for a in rows["access"][:]],
    }  # fmt: skip
    for i, told in zip(at, done, strict=True):
        for name, value in told.items():
            columns[name][i] = value
    wanted = dict(task.corrected_features())
    extra = {c: f for c, f in rows.features.items() if c not in wanted}
    features = Features(wanted | extra)
    table = rows.with_format("arrow")[:]
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else table[f.name].cast(f.type)
        for f in features.arrow_schema
    ]
    return Dataset(pa.table(arrays, schema=features.arrow_schema))
