"""Label correction of Datasets: `correct` and `fit_policy`, for every kind of task and corrector.

A corrector is the folder (or repo id) of a trained model, whose facts say which rows it saw; or a function
`fit(rows) -> predict` with `predict(rows) -> (N, K)`, which is cross-fitted; or a judge: an object with `predict(rows)`
that was trained on none of the rows. Gold must be rows that the corrector never saw (early stopping counts as seen),
or carry out-of-fold `label_probs`, unless it is cross-fitted: a model looks perfect on its own training rows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.correction.advice import lineage_warnings
from hf_synth.correction.annotations import annotations_of, check_labelled, with_task_codes
from hf_synth.correction.audited import Audited, rekey
from hf_synth.correction.augmentation import augment
from hf_synth.correction.choice import CHOSEN_ON, Choice, choose_method
from hf_synth.correction.crossfit import Learn, Predict, Rows, check_parts, decide, part_of_rows
from hf_synth.correction.fitting import fit
from hf_synth.correction.label_sets import correct_sets
from hf_synth.correction.lineage import fold_groups, lineage_of
from hf_synth.correction.methods import DEFAULTS, CorrectionOptions, check_method
from hf_synth.correction.opinions import probabilities_of
from hf_synth.correction.policy import MEASURED, Corrected, Policy, apply, drop_unusable, set_audited_labels
from hf_synth.correction.target_texts import correct_targets
from hf_synth.errors import ColumnError, OverlapError, TaskError
from hf_synth.evaluation.baselines import Judge
from hf_synth.gold.adoption import adopt
from hf_synth.models.linear import LEARNT_ON, draw_positions, linear_learner, shift, text_features, text_shift
from hf_synth.models.loading import model_folder
from hf_synth.models.record import ModelAt, model_facts, weights_sha256
from hf_synth.reports.progress import shown, stage
from hf_synth.task.access import held_access, overall_access
from hf_synth.task.arrow import arrow_table, replace_values, rewrite_columns, text_column_of_codes
from hf_synth.task.columns import UNLABELLED, annotation_columns, strictest
from hf_synth.task.labels import (
    Floats,
    Ints,
    audited_labels,
    check_columns,
    groups_of,
    id_places,
    label_indices,
    row_digests,
    texts_of,
)
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
CROSS_FITTED = "cross-fitted"  # the identity of models that were trained in folds for one correction

Fit = Callable[["Dataset"], Callable[["Dataset"], npt.ArrayLike]]
Corrector = str | Path | Fit | Judge
Opinions = tuple[Floats, Floats]  # probabilities of gold rows, (M, K), and of synthetic rows, (N, K)


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
    auto_metric: str = "accuracy",
    seed: int = 0,
) -> Policy:
    """Fit a policy on some synthetic rows and held-out gold, for rows that come later.

    Args:
        pilot: synthetic rows of the same origin; some hundred.
        corrector: the model or judge that will be used.
        gold: rows that the corrector never saw, or with out-of-fold `label_probs`; any gold rows with a `fit`.
        method: one of `policy.METHODS`, or "auto".
        audited: true labels of audited pilot rows, by row id; an `Audited` if they were drawn with unequal
            probabilities (`audit_sample`, `hf-synth sample`).
        coverage: share of gold rows whose conformal set must hold the truth, e.g. 0.9: methods that relabel or drop
            leave a row as generated if its set does not hold exactly one label. No sets when None.
        coverage_by_class: cover the rows of each class at that rate; needs more gold.
        auto_metric: what "auto" compares the methods by, and promises not to fall below gold only: "accuracy" or
            "macro_f1".

    Raises:
        OverlapError: the corrector was trained on some of the gold.
        ColumnError: columns are missing.
        TaskError: unknown method, or a task that is not single_label.

    Example:
        >>> from hf_synth.models.linear import linear_fit
        >>> corrector = linear_fit(task, gold["train"], rows)  # or the folder of a model that `train` wrote
        >>> policy = fit_policy(task, rows, corrector, gold=gold["train"], method="posterior")
        >>> policy.method
        'posterior'
    """
    if task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: policies are fitted for single_label tasks only")
    asked = annotation_columns(gold.column_names)  # new rows have no labels of other LLMs: no policy may need them
    gold = gold.remove_columns(asked) if asked else gold
    options = CorrectionOptions(method, audited, coverage, coverage_by_class, seed, auto_metric)
    return correct_with_policy(task, pilot, corrector, gold=gold, options=options)[1]


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
    auto_metric: str = "accuracy",
    seed: int = 0,
    progress: bool = False,
) -> Dataset:
    """Correct the labels of synthetic rows.

    With a `fit`, models are trained on gold and the rows themselves, each half judged by those of the other half; a
    linear head on frozen features does the first rounds, and two models of `fit` the last one. A trained model or a
    judge is used as it is, and measured on gold that it never saw; "llm_judge" is "posterior" with a judge. Sets of
    labels are corrected label by label (`label_sets.METHODS`), target texts by the corrector's texts
    (`target_texts.METHODS`).

    Args:
        synthetic: rows of `generate`, or any with the task's text columns and `llm_label`.
        corrector, gold, method, audited, coverage, coverage_by_class, auto_metric: as for `fit_policy`.
        progress: show the progress: fold, epoch, loss and the time that is left.

    Returns:
        The same rows in the same order with `task.corrected_features()`; rejected rows as they were.

    Raises:
        OverlapError: the corrector was trained on some of the gold.
        ColumnError: columns are missing.
        TaskError: unknown method, or a task whose labels cannot be corrected.

    Example:
        >>> from hf_synth.models.linear import linear_fit
        >>> corrector = linear_fit(task, gold["train"], rows)  # or the folder of a model that `train` wrote
        >>> corrected = correct(task, rows, corrector, gold=gold["train"], method="agree")
        >>> set(corrected["label_status"]) <= {"kept", "dropped", "rejected"}
        True
    """
    options = CorrectionOptions(method, audited, coverage, coverage_by_class, seed, auto_metric)
    with shown(progress):
        return correct_with_policy(task, synthetic, corrector, gold=gold, options=options)[0]


def correct_with_policy(
    task: Task,
    synthetic: Dataset,
    corrector: Corrector,
    *,
    gold: Dataset,
    options: CorrectionOptions = DEFAULTS,
    opinions: Opinions | None = None,
) -> tuple[Dataset, Policy]:
    """Correct the labels of synthetic rows as `correct` does; return the rows and the policy.

    Args:
        opinions: probabilities that the corrector, a trained model or a judge, gave already: on gold, (M, K), and on
            the rows that `usable_rows` returns, (N, K).
    """
    with stage("correcting labels"):
        return _correct(task, synthetic, corrector, gold, opinions, options)


def usable_rows(task: Task, synthetic: Dataset) -> Dataset:
    """Return the rows that a corrector judges: in the column contract, without the rejected ones.

    Raises:
        ColumnError: there are none.
    """
    return _usable(task, _with_contract_columns(task, synthetic))


def _correct(
    task: Task,
    synthetic: Dataset,
    corrector: Corrector,
    gold: Dataset,
    opinions: Opinions | None,
    options: CorrectionOptions,
) -> tuple[Dataset, Policy]:
    method = check_correction(task, corrector, gold=gold, options=options)
    audited, seed, sets = options.audited, options.seed, options.conformal()
    rows = _with_contract_columns(task, synthetic)
    usable = _usable(task, rows)
    asked = ModelAt(corrector) if isinstance(corrector, str | Path) else corrector
    learnt = [held_access(asked)] if method != "none" else []
    access = overall_access(task, rows, gold, also=learnt, named=False)  # what a model learnt is in its labels
    if task.kind != "single_label":
        decisions, policy = _correct_kind(task, usable, corrector, gold, method, seed, opinions)
        columns = {name: [decision[name] for decision in decisions] for name in decisions[0]}
        return _with_columns(task, rows, columns, access), policy
    known = Rows(
        label_indices(task, usable, "llm_label"),
        label_indices(task, gold),
        fold_groups(task, gold),
        len(task.labels),
        audited_labels_by_position(task, usable, audited),
        list(usable["group"][:]) if audited and "group" in usable.column_names else None,
        annotations_of(task, gold, usable),
        lineage_of(task, gold, usable, seed=seed),
    )
    if method in MEASURED and known.annotations is None:
        raise TaskError(
            f"method {method!r} joins labels that one LLM gave to gold and to the rows, and they share none: let an "
            "LLM label both (`hf-synth label --as NAME`)"
        )
    if opinions is None and not callable(corrector):
        opinions = _opinions(task, usable, corrector, gold)
    also: Mapping[str, Sequence[Floats]] = {}
    features, figures, head = None, dict[str, Any](), None
    if opinions is None:
        head, features = _fit_linear_head(task, usable, gold, known)
    if method == "auto":
        if opinions is None:
            assert head is not None
            choice = choose_method(known, head, seed=seed, metric=options.auto_metric, **sets)
        else:
            chosen_by = {**sets, "metric": options.auto_metric}
            choice, features = _choose_on_some(task, usable, gold, known, opinions, seed, chosen_by)
        method, also = choice.method, choice.opinions
        figures |= choice.figures()
    difference = text_shift(task, gold, usable, seed=seed) if features is None else shift(*features, seed)
    figures["gold_against_synthetic_auc"] = difference
    if opinions is None:
        assert callable(corrector)
        learn = _encoder_learner(task, gold, usable, corrector, seed)
        policy, corrected = decide(known, learn, method, head=head, also=also, seed=seed, **sets)
    else:
        of_gold, of_rows = opinions
        labels: Any = {"llm_label": known.meant, "gold_label": known.truth, "audited": known.audited}
        labels["annotations"] = known.annotations
        policy = fit(method, pred_probs=of_rows, gold_probs=of_gold, **labels, **sets)
        given = None if known.annotations is None else known.annotations[1]
        corrected = set_audited_labels(
            apply(policy, known.meant, of_rows, annotations=given), known.meant, known.audited
        )
    figures |= {**policy.figures, **figures, **getattr(corrector, "figures", {})}
    policy = replace(policy, figures=figures, corrector=corrector_identity(corrector))
    measures = policy.method != "none" or "auto_why" in figures
    policy = _with_warnings(
        policy,
        corrector,
        gold,
        lineage_warnings(known, usable, gold, fitted=opinions is None, seed=seed) if measures else (),
    )
    for line in policy.warnings if policy.method != "none" else ():
        _LOG.warning("correction: %s", line)
    corrected = drop_unusable(corrected, _rejected_places(usable, audited))
    return _with_columns(task, rows, corrected.columns(task.label_column), access), policy


def check_correction(
    task: Task,
    corrector: Corrector,
    *,
    gold: Dataset,
    options: CorrectionOptions = DEFAULTS,
) -> str:
    """Check everything but the synthetic rows that `correct` checks, without loading a model; return the method.

    Raises:
        TaskError, ColumnError, OverlapError, ModelError: as for `correct`.
    """
    single = task.kind == "single_label"
    options.check_kind(task.kind)
    method = _known_method(task, corrector, options.method)
    if task.kind == "text2text" and hasattr(corrector, "predict"):
        raise TaskError(f"task {task.full_name!r} is text2text: a judge chooses among labels, and it has none")
    single_only = {"audited labels serve": options.audited, "conformal sets (coverage) serve": options.coverage}
    for name, option in single_only.items():
        if option and not single:
            raise TaskError(f"task {task.full_name!r} is {task.kind}: {name} single_label tasks only")
    check_columns(task, gold, what="gold")
    check_labelled(method, gold)
    if "source" in gold.column_names and UNLABELLED in set(gold["source"][:]):
        raise ColumnError(
            "gold holds notes that an LLM labelled, and only people's labels measure a "
            "corrector: give those notes as synthetic rows"
        )
    if method != "none" and (callable(corrector) or (method == "auto" and task.kind != "text2text")):
        check_parts(groups_of(gold))
    if single and len(gold) < 2:
        raise ColumnError("correction needs gold rows to measure the corrector on")
    if single and len(set(label_indices(task, gold).tolist())) < 2 and _learns_from_gold(corrector, method):
        raise ColumnError(
            f"all {len(gold)} gold rows have one label, and a corrector that is trained on them knows no other: add "
            "gold rows of another label, or keep the LLM's labels with method none"
        )
    if isinstance(corrector, str | Path) and (single or method != "none"):
        model_folder(corrector)
        if "label_probs" not in gold.column_names:
            _check_unseen(task, corrector, gold)
    return method


def _learns_from_gold(corrector: Corrector, method: str) -> bool:
    """Return whether a model that is trained on gold decides on labels, or on the method."""
    return method not in ("none", "gold_only") and (callable(corrector) or method == "auto")


def audited_labels_by_position(task: Task, rows: Dataset, audited: Mapping[str, int | str] | None) -> Mapping[int, int]:
    """Return audited labels by the position of their row.

    Raises:
        ColumnError: an id is not among the rows, or a label is not one of the task's.
    """
    if not audited:
        return {}
    place = id_places(rows["id"][:], audited, "the synthetic rows")
    return rekey(audited, audited_labels(task, {place[id]: label for id, label in audited.items()}), place)


def _rejected_places(rows: Dataset, audited: Mapping[str, int | str] | None) -> list[int]:
    """Return the positions of the rows that a person found unusable."""
    rejected = audited.rejected if isinstance(audited, Audited) else frozenset()
    return [i for i, id in enumerate(rows["id"][:]) if id in rejected] if rejected else []


def _known_method(task: Task, corrector: Corrector, method: str) -> str:
    """Return the method after checking it; "llm_judge" is "posterior" with a judge.

    Raises:
        TaskError: the method is unknown, or does not fit the task or the corrector.
    """
    if method == "llm_judge":
        if not hasattr(corrector, "predict"):
            raise TaskError("method 'llm_judge' needs a judge: give LLMJudge(task, llm) as the corrector, or --judge")
        return "posterior"
    check_method(task.kind, method)
    return method


def _correct_kind(
    task: Task,
    rows: Dataset,
    corrector: Corrector,
    gold: Dataset,
    method: str,
    seed: int,
    opinions: Opinions | None,
) -> tuple[list[dict[str, Any]], Policy]:
    """Correct the sets of labels or target texts of rows; return the corrected columns of each row, and the policy."""
    fit_rows: Any = corrector if callable(corrector) else None
    model = str(corrector) if isinstance(corrector, str | Path) else None
    if task.kind == "multi_label":
        if opinions is None and fit_rows is None and method != "none":
            opinions = _opinions(task, rows, corrector, gold)  # type: ignore[arg-type]
        decisions, policy = correct_sets(task, rows, gold, method, opinions=opinions, fit_rows=fit_rows, seed=seed)
        policy = replace(policy, figures={**policy.figures, **getattr(corrector, "figures", {})})
    else:
        if model is not None and method != "none":
            _check_unseen(task, model, gold)
        decisions, policy = correct_targets(task, rows, gold, method, corrector=model, fit_rows=fit_rows, seed=seed)
    policy = _with_warnings(policy, corrector, gold) if method != "none" else policy
    for line in policy.warnings:
        _LOG.warning("correction: %s", line)
    return decisions, policy


def _opinions(task: Task, rows: Dataset, corrector: str | Path | Judge, gold: Dataset) -> Opinions:
    """Return the probabilities of a trained model or a judge: on gold that it never saw, and on the rows."""
    if not isinstance(corrector, str | Path):
        return np.asarray(corrector.predict(gold), float), np.asarray(corrector.predict(rows), float)
    of_rows = probabilities_of(task, corrector, rows)
    if "label_probs" in gold.column_names:
        return np.asarray(gold["label_probs"], dtype=np.float64), of_rows
    _check_unseen(task, corrector, gold)
    return probabilities_of(task, corrector, gold), of_rows


def _check_unseen(task: Task, corrector: str | Path, gold: Dataset) -> None:
    facts = model_facts(corrector)
    seen, stopped = set(facts["row_digests"]), set(facts.get("validation_digests") or ())
    both = [d for d in row_digests(task, gold.select_columns(list(task.text_columns))) if d in seen]
    if both:
        how = "was trained on" if not stopped & set(both) else "was trained on, or stopped early by,"
        how = "was stopped early by" if stopped >= set(both) else how
        raise OverlapError(
            f"the corrector {how} {len(both)} of the {len(gold)} gold rows, so they cannot measure it: give gold that "
            "it never saw, such as the test split (--split test); or give no trained model, but let `correct` train "
            "its own in folds (--base-model; in Python trainer_fit(task, base_model=..., work_dir=...))"
        )


def _with_warnings(policy: Policy, corrector: Corrector, gold: Dataset, more: Sequence[str] = ()) -> Policy:
    """Add warnings to a policy, and one if the corrector's training rows are unknown."""
    lines = list(more)
    if (
        isinstance(corrector, str | Path)
        and "label_probs" not in gold.column_names
        and not model_facts(corrector)["known"]
    ):
        lines.append("the corrector's training rows are unknown: if it saw this gold, its figures are too good")
    return replace(policy, warnings=(*policy.warnings, *lines))


def corrector_identity(corrector: Corrector) -> str:
    """Return what a policy is bound to: the hash of a model's weights or of a judge's settings, or "cross-fitted"."""
    if isinstance(corrector, str | Path):
        return f"model {weights_sha256(corrector)}"
    if hasattr(corrector, "predict"):
        return f"judge {getattr(corrector, 'identity', type(corrector).__name__)}"
    return CROSS_FITTED


def _fit_linear_head(
    task: Task, rows: Dataset, gold: Dataset, known: Rows, most: int | None = None
) -> tuple[Learn, tuple[Floats, Floats]]:
    """Return a linear head on frozen features of the texts, and the features of gold and of the rows."""
    x_gold, x_rows = text_features(texts_of(task, gold), texts_of(task, rows), most=most)
    return linear_learner(x_gold, x_rows, known.truth, known.n_labels), (x_gold, x_rows)


def _choose_on_some(
    task: Task, rows: Dataset, gold: Dataset, known: Rows, opinions: tuple[Floats, Floats], seed: int, sets: Any
) -> tuple[Choice, tuple[Floats, Floats]]:
    """Choose a method on at most CHOSEN_ON of the rows and every audited one; return features of LEARNT_ON, too."""
    keep = draw_positions(len(rows), CHOSEN_ON, seed, known.audited)
    some = rows if len(keep) == len(rows) else rows.select(keep)
    most = LEARNT_ON if len(keep) > LEARNT_ON else None
    head, (of_gold, of_rows) = _fit_linear_head(task, some, gold, known, most)
    part, _ = part_of_rows(known, head, keep)
    choice = choose_method(part, head, opinions=(opinions[0], opinions[1][keep]), seed=seed, **sets)
    return choice, (of_gold.copy(), of_rows[draw_positions(len(keep), LEARNT_ON, seed)])  # no view of all features


def _encoder_learner(task: Task, gold: Dataset, rows: Dataset, fit_rows: Fit, seed: int) -> Learn:
    """Return a `Learn` that trains by a user's `fit` on gold rows and synthetic rows with soft targets."""

    def learn(gold_at: Ints, rows_at: Ints, targets: Floats) -> Predict:
        data, n = gold.select(gold_at), len(rows_at)
        if n:
            weight = targets.sum(1)
            probs = targets / weight[:, None]
            status, reason = np.array(["kept"] * n), np.array(["posterior"] * n)
            soft = Corrected(targets.argmax(1), probs, probs.max(1), weight, status, reason)
            believed = _with_columns(task, rows.select(rows_at), soft.columns(task.label_column), "open")
            data = augment(task, believed, gold=data, seed=seed)
        predict = fit_rows(data)

        def probs_at(dataset: Dataset, at: Ints) -> Floats:
            none = np.zeros((0, len(task.labels)))
            return np.asarray(predict(dataset.select(at)), dtype=np.float64) if len(at) else none

        return lambda gold_at, rows_at: (probs_at(gold, gold_at), probs_at(rows, rows_at))

    return learn


def _with_contract_columns(task: Task, synthetic: Dataset) -> Dataset:
    """Return rows in the column contract; rows made elsewhere are adopted."""
    complete = {"label_status", "llm_label", "seed_ids", "id"} <= set(synthetic.column_names)
    return with_task_codes(task, synthetic) if complete else adopt(task, synthetic)


def _usable(task: Task, rows: Dataset) -> Dataset:
    check_columns(task, rows, "llm_label", "label_status", what="the synthetic dataset")
    used = [i for i, status in enumerate(rows["label_status"][:]) if status != "rejected"]
    if not used:
        raise ColumnError("there is no synthetic row to correct: all are rejected")
    return rows if len(used) == len(rows) else rows.select(used)


def _with_columns(task: Task, rows: Dataset, decisions: Mapping[str, Any], access: str) -> Dataset:
    """Write decisions into the rows that were not rejected, in place and order; other columns stay as they are.

    Args:
        decisions: the new columns of those rows, as for `arrow.arrow_array`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from datasets import Features

    wanted = dict(task.corrected_features())
    features = Features(wanted | {c: f for c, f in rows.features.items() if c not in wanted})
    table, kinds = arrow_table(rows), {field.name: field.type for field in features.arrow_schema}
    at = np.flatnonzero(np.asarray(pc.not_equal(table["label_status"], "rejected")))
    before: dict[str, Any] = {c: table[c].cast(kinds[c]) for c in (task.label_column, "reason", "label_status")}
    nothing = {"label_probs": None, "label_confidence": None, "weight": 0.0}  # of a rejected row
    before |= {c: pa.chunked_array([pa.repeat(pa.scalar(v, kinds[c]), len(rows))]) for c, v in nothing.items()}
    columns = {name: replace_values(values, at, before.pop(name)) for name, values in decisions.items()}
    accesses = pc.unique(table["access"])
    stricter = [strictest(access, value) for value in accesses.to_pylist()]
    columns["access"] = text_column_of_codes(stricter, pc.index_in(table["access"], accesses), kinds["access"])
    return rewrite_columns(rows, before | columns, features)
