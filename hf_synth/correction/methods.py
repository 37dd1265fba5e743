"""The methods of correction: which kinds of task each serves, what it does in one line, and its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hf_synth.errors import TaskError
from hf_synth.task.columns import Kind

_ONE: tuple[Kind, ...] = ("single_label",)
_LABELS: tuple[Kind, ...] = ("single_label", "multi_label")
_ALL: tuple[Kind, ...] = ("single_label", "multi_label", "text2text")
METRICS = ("accuracy", "macro_f1")  # by which "auto" can choose
_TEXTS: tuple[Kind, ...] = ("text2text",)


@dataclass(frozen=True)
class Described:
    """What a method does.

    Args:
        kinds: kinds of task that it serves.
        meaning: one line.
    """

    kinds: tuple[Kind, ...]
    meaning: str


@dataclass(frozen=True)
class CorrectionOptions:
    """How the labels of synthetic rows are corrected.

    Args:
        method: one of `DESCRIBED`, "llm_judge", or "auto".
        audited: true labels of audited rows, by row id; an `Audited` if they were drawn with unequal probabilities.
        coverage: share of gold rows whose conformal set must hold the truth, between 0 and 1. No sets when None.
        coverage_by_class: cover the rows of each class at that rate.
        seed: of folds, draws and models.
        auto_metric: one of METRICS: what "auto" compares the methods by, and promises not to fall below gold only.

    Raises:
        TaskError: the coverage is no share, or is missing; the metric is unknown, or no method is chosen by it.
    """

    method: str = "auto"
    audited: Mapping[str, int | str] | None = None
    coverage: float | None = None
    coverage_by_class: bool = False
    seed: int = 0
    auto_metric: str = "accuracy"

    def __post_init__(self) -> None:
        if self.coverage_by_class and self.coverage is None:
            raise TaskError("coverage_by_class needs a coverage: give one too, e.g. 0.9")
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise TaskError(f"coverage is a share between 0 and 1, e.g. 0.9; got {self.coverage}")
        if self.auto_metric not in METRICS:
            raise TaskError(f"unknown auto_metric {self.auto_metric!r}: give {' or '.join(METRICS)}")
        if self.auto_metric != METRICS[0] and self.method != "auto":
            raise TaskError(
                f"auto_metric {self.auto_metric} serves method 'auto' only, and the method is {self.method!r}: "
                "give auto, or leave the metric out"
            )

    def conformal(self) -> dict[str, Any]:
        """Return the options of conformal sets, as keywords of `fit`, `decide` and `choose_method`."""
        return {"coverage": self.coverage, "coverage_by_class": self.coverage_by_class}

    def check_kind(self, kind: Kind) -> None:
        """Check that the metric serves a kind of task.

        Raises:
            TaskError: it does not.
        """
        if self.auto_metric != METRICS[0] and kind != "single_label":
            raise TaskError(
                f"auto_metric {self.auto_metric} serves single_label tasks only, and this one is {kind}: leave it out"
            )


DEFAULTS = CorrectionOptions()

DESCRIBED: Mapping[str, Described] = {
    "none": Described(_ALL, "every label stays as generated"),
    "gold_only": Described(_ALL, "no synthetic row is used"),
    "argmax": Described(_LABELS, "every label becomes the corrector's"),
    "threshold": Described(_LABELS, "the corrector's label is taken where it is sure enough; else the label stays"),
    "agree": Described(_LABELS, "rows are dropped where corrector and generator disagree"),
    "clean_drop": Described(_ONE, "rows whose label confident learning finds wrong are dropped"),
    "loss_rank": Described(_ONE, "of each label the rows that fit it worst are dropped, as many as are wrong"),
    "posterior": Described(_LABELS, "the opinions of corrector and generator are joined"),
    "blend": Described(_ONE, "the mean of posterior and of models that learnt from gold alone"),
    "weight": Described(_ONE, "every label stays; its estimated probability is the row's weight"),
    "ensemble": Described(_ONE, "the mean of posterior and weight"),
    "measured": Described(_ONE, "the errors of LLMs, counted on gold, are taken out of their labels"),
    "stack": Described(_ONE, "a regression on gold decides by text model, labels of LLMs and their confidence"),
    "drop": Described(_TEXTS, "targets that the corrector contradicts are dropped"),
    "replace": Described(_TEXTS, "targets that the corrector contradicts are replaced by its own"),
}


def methods_of(kind: Kind) -> tuple[str, ...]:
    """Return the methods that serve a kind of task."""
    return tuple(name for name, described in DESCRIBED.items() if kind in described.kinds)


def check_method(kind: Kind, method: str) -> None:
    """Check that a method serves a kind of task; "auto" serves all.

    Raises:
        TaskError: it does not, or is unknown.
    """
    known = methods_of(kind)
    if method in (*known, "auto"):
        return
    if method in DESCRIBED:
        raise TaskError(f"method {method!r} does not serve {kind} tasks: give auto, {' or '.join(known)}")
    raise TaskError(f"unknown method of correction {method!r}; give auto or one of {', '.join(known)}")
