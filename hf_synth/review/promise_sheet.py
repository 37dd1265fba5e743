"""The rows that a promise about wrong labels asks for (`correction.promise`), as a sheet."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction import label_error
from hf_synth.correction.label_error import Plan, Sample
from hf_synth.correction.promise import (
    check_goal,
    draw_sample,
    percent,
    promise,
    range_line,
    sample_from_json,
    sample_to_json,
)
from hf_synth.errors import OutputError
from hf_synth.evaluation.statistics import wilson
from hf_synth.review.decisions import LABEL, REJECT, Decisions
from hf_synth.review.sheets import USED, Item, Noise, Progress, items_of, ordered_by_text
from hf_synth.task.columns import MANIFEST
from hf_synth.task.folders import read_manifest, work_folder, write_private
from hf_synth.task.labels import Ints, label_indices
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_NO_LABEL = -1  # of a row that a person found unusable: it differs from every label
PROMISE = "promise.json"  # in .hf_synth of a corrected folder


@dataclass(frozen=True)
class PromiseSheet:
    """The rows that a promise about wrong labels asks for: a random sample, then the least sure rows.

    Args:
        items: all used rows of the folder by id.
        ids: the same ids by their position in `sample`.
        labels: the index of each label, (N,).
        names: the task's labels.
    """

    items: Mapping[str, Item]
    ids: Sequence[str]
    sample: Sample
    labels: Ints
    names: Sequence[str]

    def progress(self, own: Decisions) -> Progress:
        """Return which notes are shown, and what is promised after the answers of one reviewer."""
        sample, plan = self.sample, self._plan(own)
        so_far = may_stop = ""
        if plan.stage == "done":
            may_stop = (
                f"You may stop here: at most {percent(sample.error)} of all {sample.rows:,} labels are wrong with "
                f"probability {percent(sample.confidence)}, labels that you gave counting as right."
            )
        elif plan.now is not None:
            share = percent(math.ceil(1_000 * plan.now / sample.rows) / 1_000)
            so_far = f"Without a further answer at most {share} of all labels are wrong."
        ahead = range_line(sample) if plan.stage == "sample" else ""
        return Progress(self._order(plan), self._noise(own), so_far, may_stop, ahead)

    def design(self, own: Decisions) -> dict[str, tuple[Item, float, str]]:
        """Return the rows of the table of labels with inclusion probability and stratum, as `promise` names them."""
        plan = self._plan(own)
        drawn = {self.ids[at] for at in self.sample.drawn}
        beyond = set() if plan.keep is None else {self.ids[at] for at in self.sample.order[plan.keep :]}
        share = len(drawn) / max(1, len(self.sample.order))
        first = "all" if plan.stage == "sample" else "surer"
        return {
            id: (self.items[id], 1.0 if id in beyond else share, "least sure" if id in beyond else first)
            for id in self._order(plan)
        }

    def _plan(self, own: Decisions) -> Plan:
        """Return the state of the promise; a rejected row has a label that differs from every other one."""
        index, given = {name: i for i, name in enumerate(self.names)}, {}
        for id, answer in own.answers.items():
            if id in self._place and (answer.do == REJECT or (answer.do == LABEL and answer.label in index)):
                given[self._place[id]] = index[answer.label] if answer.do == LABEL else _NO_LABEL
        return label_error.plan(self.sample, self.labels, given)

    def _order(self, plan: Plan) -> list[str]:
        """Return the sample, and the rows beyond the threshold once it is known; each part shuffled."""
        if plan.keep not in self._orders:
            drawn = [self.ids[at] for at in self.sample.drawn]
            beyond = [] if plan.keep is None else [self.ids[at] for at in self.sample.order[plan.keep :]]
            rest = set(beyond) - set(drawn)
            self._orders.clear()
            self._orders[plan.keep] = [*self._shuffled(drawn), *self._shuffled(rest)]
        return self._orders[plan.keep]

    def _shuffled(self, ids: Collection[str]) -> list[str]:
        return ordered_by_text(self.items[id] for id in ids)

    @cached_property
    def _place(self) -> dict[str, int]:
        """The position of each row in `sample`; rows that a person audited before are not asked for again."""
        return {self.ids[at]: at for at in self.sample.order.tolist()}

    @cached_property
    def _orders(self) -> dict[int | None, list[str]]:
        """The order of the last threshold: it changes seldom, and takes long where many rows lie beyond it."""
        return {}

    def _noise(self, own: Decisions) -> Noise | None:
        """Estimate the share of labels that were wrong before anybody looked, from the random sample."""
        answers = [(id, own.answers[id]) for at in self.sample.drawn if (id := self.ids[at]) in own.answers]
        wrong = [a.do == REJECT or self.items[id].label != a.label for id, a in answers if a.do in (LABEL, REJECT)]
        if len(wrong) < 2:
            return None
        low, high = wilson(sum(wrong), len(wrong))
        of = "all labels that nobody had looked at"
        return Noise(sum(wrong) / len(wrong), low, high, len(wrong), sum(wrong), of)


def begin_promise(
    task: Task, folder: Path, rows: Dataset, *, error: float, confidence: float = 0.95, seed: int = 0
) -> None:
    """Draw the sample of a promise about a corrected folder, as `hf-synth correct --error` does, and record it there.

    Rows are ordered by their `label_confidence`. Where a method decided hard, all are equally sure: the promise holds
    all the same, and asks for more rows.

    Raises:
        TaskError: the task is not single_label.
        ColumnError: the rows are not corrected, or a share is out of range.
        OutputError: the folder cannot be written.
    """
    check_goal(task, error, confidence)
    manifest = read_manifest(folder) or {}
    if manifest.get("stage") != "correct" or not isinstance(manifest.get("policy"), dict):
        raise OutputError(f"{folder} holds no corrected notes: run `hf-synth correct` first, or review a sample (--n)")
    sample = draw_sample(task, rows, error=error, confidence=confidence, seed=seed)
    if ((manifest["policy"] or {}).get("figures") or {}).get("promise") == "holds":
        raise OutputError(
            f"the promise of {folder} holds already: review a sample (--n), or correct the notes again into a new "
            "folder"
        )
    policy = dict(manifest["policy"])
    policy["figures"] = {**(policy.get("figures") or {}), **promise(task, rows, sample).figures}
    work = work_folder(folder)
    (work / PROMISE).unlink(missing_ok=True)  # a sample counts only with a manifest that names it
    write_private(folder / MANIFEST, json.dumps({**manifest, "policy": policy}, indent=1) + "\n")
    write_private(work / PROMISE, json.dumps(sample_to_json(task, rows, sample)) + "\n")


def read_promise(folder: Path) -> dict[str, Any] | None:
    """Read the sample of the promise that is under way in a folder; None without one, and for one that holds.

    Raises:
        OutputError: its file is broken.
    """
    figures = (((read_manifest(folder) or {}).get("policy") or {}).get("figures")) or {}
    file = folder / ".hf_synth" / PROMISE
    if figures.get("promise", "holds") == "holds" or not file.is_file():
        return None
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        return dict(plain) | {"error": float(plain["error"]), "confidence": float(plain["confidence"])}
    except (ValueError, KeyError, TypeError):
        raise OutputError(f"{file} is broken: correct the notes again into a new folder") from None


def load_promise(task: Task, rows: Dataset, plain: Mapping[str, Any]) -> PromiseSheet:
    """Return the sheet of a promise that is under way.

    Args:
        rows: of the corrected folder.
        plain: its sample, as `promise.sample_to_json` wrote it.

    Raises:
        ColumnError: the rows are not those that the sample was drawn of.
    """
    sample = sample_from_json(task, rows, plain)
    at = [i for i, status in enumerate(rows["label_status"][:]) if status in USED]
    used = rows.select(at)
    ids = [str(id) for id in used["id"][:]]
    return PromiseSheet(items_of(task, used, ids, {}), ids, sample, label_indices(task, used), task.labels)
