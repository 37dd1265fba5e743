"""The stages that can be cut into blocks: what each reads, and what its blocks become."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.cluster.work import Part, Work, check_kind
from hf_synth.correction.correction import Opinions, check_correction, usable_rows
from hf_synth.correction.judging import LLMJudge, access_of_notes
from hf_synth.correction.methods import DEFAULTS, CorrectionOptions
from hf_synth.correction.opinions import JudgeVotes, ModelOpinions, joined_probabilities, joined_votes
from hf_synth.errors import HfSynthError
from hf_synth.generation import blocks as generation
from hf_synth.llm.questions import identity_of
from hf_synth.models.record import reading_sha256, weights_sha256
from hf_synth.privacy.audit import Scanner, index_gold
from hf_synth.privacy.canaries import Canaries, note_columns
from hf_synth.publishing.looking import leaving_rows
from hf_synth.task.columns import access_of, strictest
from hf_synth.task.folders import file_digest
from hf_synth.task.labels import check_columns, checked_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.privacy.audit import FindIdentifiers

ROWS, GOLD = "rows", "gold"


# --- correct --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class OpinionWork:
    """The opinions that `correct` needs of a trained model or a judge.

    Args:
        task: of the rows.
        rows: synthetic rows that are judged.
        gold: gold that the corrector never saw.
        corrector: folder or repo id of a model, or a judge.
        work: its blocks.
    """

    task: Task
    rows: Dataset = field(repr=False)
    gold: Dataset = field(repr=False)
    corrector: str | LLMJudge
    work: Work

    def opinions(self) -> Opinions:
        """Return the probabilities of gold, (M, K), and of the rows, (N, K), once all blocks are there.

        A judge's `figures` then count what was asked.

        Raises:
            OutputError: a block is missing or broken.
        """
        found: dict[str, Any] = {}
        for part in self.work.parts:
            if isinstance(self.corrector, LLMJudge):
                found[part.name], _ = joined_votes(self.corrector, self.work.results(part), part.name)
                self.corrector.check_own(self.rows if part.name == ROWS else self.gold, part.name)
            else:
                found[part.name] = joined_probabilities(self.work.results(part), len(self.task.labels))
        if GOLD not in found:
            found[GOLD] = np.asarray(self.gold["label_probs"], dtype=np.float64)
        return found[GOLD], found[ROWS]


def opinion_work(
    task: Task,
    synthetic: Dataset,
    corrector: Any,
    *,
    gold: Dataset,
    folder: Path,
    options: CorrectionOptions = DEFAULTS,
    accept_failed: bool = False,
) -> OpinionWork:
    """Cut the opinions that `correct` needs into blocks, after all that it checks without a model.

    Args:
        corrector: folder or repo id of a trained model, or an `LLMJudge`.
        folder: for the blocks.
        options: of `correct`.
        accept_failed: as for `JudgeVotes`.

    Raises:
        HfSynthError: the corrector is trained in folds of all rows; it has no blocks.
        OverlapError, ColumnError, TaskError: as for `correct`.
    """
    check_kind(task.kind)
    if not isinstance(corrector, str | Path | LLMJudge):
        raise HfSynthError(
            "a corrector that is trained in folds needs all rows at once: train one model, and give it with "
            "--corrector, or name a --judge; then the labels can be corrected on many machines"
        )
    check_correction(task, corrector, gold=gold, options=options)
    rows = usable_rows(task, synthetic)
    parts = [_opinions_of(task, corrector, ROWS, rows, accept_failed)]
    if isinstance(corrector, LLMJudge) or "label_probs" not in gold.column_names:
        parts.append(_opinions_of(task, corrector, GOLD, gold, accept_failed))
    named = corrector if isinstance(corrector, LLMJudge) else str(corrector)
    return OpinionWork(task, rows, gold, named, Work(folder, parts))


def _opinions_of(task: Task, corrector: Any, name: str, rows: Dataset, accept_failed: bool) -> Part:
    checked_texts(task, rows)  # a missing text is found before anything is computed
    if isinstance(corrector, LLMJudge):
        return _votes_of(corrector, name, rows, strictest(task.access, access_of(rows)), accept_failed)
    facts = [task.fingerprint(), weights_sha256(corrector), reading_sha256(corrector)]
    model = str(Path(corrector).absolute()) if Path(corrector).is_dir() else str(corrector)
    columns = rows.select_columns(list(task.text_columns))
    return Part(name, columns, ModelOpinions(task, model), json.dumps(facts))


def _votes_of(judge: LLMJudge, name: str, rows: Dataset, access: str, accept_failed: bool) -> Part:
    columns = rows.select_columns(list(judge.task.text_columns))
    facts = [judge.identity, identity_of(judge.llm), access]
    return Part(name, columns, JudgeVotes(judge, access, accept_failed), json.dumps(facts))


# --- label ----------------------------------------------------------------------------------------------------------
def label_work(
    judge: LLMJudge, notes: Dataset, *, access: str | None, folder: Path, accept_failed: bool = False
) -> Work:
    """Cut the votes that `label` needs into blocks.

    Args:
        judge, notes, access: as for `correction.judging.label_with_judge`.
        folder: for the blocks.
        accept_failed: as for `JudgeVotes`.
    """
    checked_texts(judge.task, notes)
    carried = access_of_notes(judge.task, notes, access)
    return Work(folder, [_votes_of(judge, ROWS, notes, carried, accept_failed)])


def votes(judge: LLMJudge, work: Work) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return probabilities, (N, K), and numbers of votes, (N,), once all blocks are there.

    Raises:
        OutputError: a block is missing or broken.
    """
    return joined_votes(judge, work.results(work.parts[0]), ROWS)


# --- generate -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class GenerationWork:
    """The answers that `generate` needs.

    Args:
        order: what is generated.
        work: its blocks; each part holds the calls that the plan lacked after the parts before it.
        answers: of the blocks that were read so far.
    """

    order: generation.Order
    work: Work
    answers: generation.Answers = field(repr=False)

    def rows(self) -> tuple[Dataset, dict[str, Any]]:
        """Return rows and figures once all blocks are there, as `generate_with_figures` does.

        Raises:
            OutputError: an answer is missing, or a block is broken.
        """
        return generation.rows_of_answers(self.order, self.answers)


def generation_work(order: generation.Order, *, folder: Path, accept_failed: bool = False) -> GenerationWork:
    """Cut the calls of `generate` into blocks.

    Args:
        order: what is generated.
        folder: for the blocks.
        accept_failed: as for `generation.CallAnswers`.

    Raises:
        ColumnError, TaskError: as for `generate`.
    """
    task = order.task
    columns = ("id", "group", "access", *task.text_columns, task.label_column)
    access = strictest(task.access, access_of(order.exemplars))
    identity = json.dumps([*order.identity(), access, _digest_of([order.exemplars], columns)], default=str)
    block = generation.CallAnswers(order, accept_failed)

    def part(number: int) -> Part | None:
        calls = generation.open_calls(order, answers)
        rows = generation.calls_table(calls)
        return Part(f"round {number}", rows, block, identity, generation.CALLS) if calls else None

    def follow(work: Work) -> Part | None:
        for number, (of, *_) in enumerate(work.places):
            if of is work.parts[-1]:
                answers.add(number)
        return part(len(work.parts) + 1)

    answers = generation.Answers(lambda number: work.result(number))
    first = part(1)
    work = Work(folder, [] if first is None else [first], follow)
    return GenerationWork(order, work, answers)


# --- audit ----------------------------------------------------------------------------------------------------------
def audit_work(
    task: Task,
    synthetic: Dataset,
    *,
    gold: Dataset | None,
    held_out: Dataset | None = None,
    find_identifiers: FindIdentifiers | None = None,
    canaries: Canaries | None = None,
    folder: Path,
) -> Work:
    """Cut an audit into blocks: gold is indexed once, each block is compared with the index.

    Repeated rows, pieces of gold in many rows and the closeness to gold are found when the blocks are merged
    (`privacy.audit.audit_of_blocks`).

    Raises:
        ColumnError: a dataset lacks columns of the task.
    """
    check_columns(task, synthetic, what="the synthetic dataset")
    parts = [part for part in (gold, held_out) if part is not None]
    for part in parts:
        check_columns(task, part, what="the gold")
    index = index_gold(task, *parts) if parts else None
    digest = _digest_of(parts, (*note_columns(task), "group"))
    planted = None if canaries is None else hashlib.sha256(json.dumps(canaries.planted).encode()).hexdigest()
    facts = [task.fingerprint(), digest, _source_of(find_identifiers), planted]
    rows = synthetic.select_columns(note_columns(task))
    scanner = Scanner(task, index, find_identifiers, canaries)
    return Work(folder, [Part(ROWS, rows, scanner, json.dumps(facts))])


def export_work(
    task: Task,
    dataset: Dataset,
    *,
    gold: Dataset | DatasetDict | None,
    canaries: Canaries | None = None,
    find_identifiers: FindIdentifiers | None = None,
    folder: Path,
) -> Work:
    """Cut the audit of an export into blocks of the rows as they leave.

    The rows are chosen, written and checked when the blocks are merged (`publishing.publishing.export_scanned`).

    Raises:
        ColumnError: a dataset lacks columns of the task.
    """
    rows, seen, held_out = leaving_rows(task, dataset, gold)
    detectors: dict[str, Any] = {"canaries": canaries, "find_identifiers": find_identifiers}
    return audit_work(task, rows, gold=seen, held_out=held_out, folder=folder, **detectors)


def _digest_of(parts: Sequence[Dataset], columns: Sequence[str]) -> str:
    """Return a digest of the columns of datasets, as far as they have them."""
    digest = hashlib.sha256()
    for part in parts:
        for column in (name for name in columns if name in part.column_names):
            for batch in part.select_columns([column]).with_format("arrow").iter(10_000):
                digest.update(json.dumps(batch[column].to_pylist()).encode())
        digest.update(b"\0")
    return digest.hexdigest()


def _source_of(function: Any) -> str:
    """Return a digest of the file that defines a function, and its name; the name alone where there is no file."""
    if function is None:
        return ""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    file = Path(getattr(getattr(function, "__code__", None), "co_filename", ""))
    return f"{name} {file_digest(file) if file.is_file() else ''}"
