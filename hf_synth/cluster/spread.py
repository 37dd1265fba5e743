"""Stages on many machines from Python: `correct`, `label`, `generate`, `audit` and `export`, with an engine.

Each returns what its local twin returns. What is computed is kept in blocks in a folder: the same call again computes
what is missing. The folder can be deleted afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

from hf_synth.cluster.asking import generate_on_ray
from hf_synth.cluster.on_ray import run_on_ray
from hf_synth.cluster.stages import audit_work, export_work, generation_work, label_work, opinion_work
from hf_synth.cluster.stages import votes as votes_of_blocks
from hf_synth.cluster.work import Work, run_to_the_end
from hf_synth.correction.correction import correct_with_policy
from hf_synth.correction.judging import VOTES, LLMJudge, label_with_judge
from hf_synth.correction.methods import CorrectionOptions
from hf_synth.errors import UsageError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.generation.blocks import Order
from hf_synth.generation.mending import FACT_ROUNDS
from hf_synth.generation.plan import Balance
from hf_synth.llm.questions import Chat
from hf_synth.privacy.audit import audit_of_blocks
from hf_synth.publishing.publishing import export_scanned
from hf_synth.publishing.writing import AnyPolicy
from hf_synth.reports.progress import shown
from hf_synth.task.folders import private_folder
from hf_synth.task.task import Prompt, Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.privacy.audit import FindIdentifiers
    from hf_synth.privacy.canaries import Canaries
    from hf_synth.privacy.findings import Findings
    from hf_synth.publishing.gate import Verdict


class Machines(TypedDict, total=False):
    """Where blocks are computed.

    Args:
        engine: "ray" (the default; needs hf_synth[ray]), or "here": one after the other in this process.
        address: of a running cluster, as for `ray.init`, e.g. "auto"; Ray is started on this machine when None.
        shards: blocks that are computed at the same time, each in a process; one for each core, or for each GPU, when
            None.
        gpus: of each process.
        accept_failed: go on without answers to questions that got none, as one process does. Otherwise they are an
            error, and the same call asks for them again. On Ray `generate` goes on without them.
    """

    engine: str
    address: str | None
    shards: int | None
    gpus: float
    accept_failed: bool


class Correcting(Machines, total=False):
    """`auto_metric` of `hf_synth.correct`, and `Machines`."""

    auto_metric: str


class Exporting(Machines, total=False):
    """Options of `export`: those of `hf_synth.publish_dataset` that do not push, and `Machines`."""

    gold: Dataset | DatasetDict | None
    scores: Scores | Mapping[str, Scores] | None
    private: bool | None
    gated: bool | Literal["auto", "manual"] | None
    export_dir: str | Path | None
    token: str | None
    attestation: str | None
    endpoint: str | None
    policy: AnyPolicy
    manifest: Mapping[str, Any] | None
    augmented: bool
    canaries: Canaries | None
    find_identifiers: FindIdentifiers | None
    tag: str | None
    contact: str | None


def correct(
    task: Task,
    synthetic: Dataset,
    corrector: str | Path | LLMJudge,
    *,
    gold: Dataset,
    folder: str | Path,
    method: str = "auto",
    audited: Mapping[str, int | str] | None = None,
    coverage: float | None = None,
    coverage_by_class: bool = False,
    seed: int = 0,
    progress: bool = False,
    **engine: Unpack[Correcting],
) -> Dataset:
    """Correct the labels of synthetic rows, as `hf_synth.correct` does; the corrector's opinions are spread.

    Args:
        corrector: folder or repo id of a trained model, or a judge.
        gold, method, audited, coverage, coverage_by_class, seed, progress: as for `hf_synth.correct`.
        folder: for the blocks; private.
        engine: `auto_metric`, as for `hf_synth.correct`; else see `Machines`.

    Raises:
        HfSynthError: the corrector is trained in folds of all rows; Ray is missing or fails.
        OverlapError, ColumnError, TaskError: as for `hf_synth.correct`.

    Example:
        >>> from hf_synth import cluster
        >>> corrected = cluster.correct(
        ...     task, rows, "work/model", gold=gold["validation"], folder="work/blocks", shards=2
        ... )  # doctest: +SKIP
    """
    metric = engine.pop("auto_metric", "accuracy")
    options = CorrectionOptions(method, audited, coverage, coverage_by_class, seed, metric)
    with shown(progress):
        how: Any = {"folder": _private(folder), "accept_failed": engine.get("accept_failed", False)}
        cut = opinion_work(task, synthetic, corrector, gold=gold, options=options, **how)
        _compute(cut.work, engine)
        given: Any = corrector
        return correct_with_policy(task, synthetic, given, gold=gold, options=options, opinions=cut.opinions())[0]


def label(
    task: Task,
    notes: Dataset,
    llm: Chat,
    *,
    folder: str | Path,
    access: str | None = None,
    votes: int = VOTES,
    logprobs: bool = False,
    seed: int = 0,
    sampling: Mapping[str, Any] | None = None,
    progress: bool = False,
    **engine: Unpack[Machines],
) -> Dataset:
    """Label real notes by an LLM, as `correction.judging.label_notes` does; its votes are spread.

    Args:
        llm: its concurrency, rpm, tpm and budget_usd hold over all processes on Ray. What a process that dies had in
            flight counts as spent.
        access, votes, logprobs, seed, sampling, progress: as for `label_notes`.
        folder: for the blocks; private.
        engine: see `Machines`.

    Raises:
        LLMError: the budget is spent, or the endpoint cannot be used; the same call goes on.
        HfSynthError: Ray is missing or fails.

    Example:
        >>> from hf_synth import cluster
        >>> labelled = cluster.label(task, notes, llm, folder="work/blocks", shards=2)  # doctest: +SKIP
    """
    judge = LLMJudge(task, llm, votes, logprobs, seed=seed, sampling=dict(sampling or {}))
    with shown(progress):
        how: Any = {"folder": _private(folder), "accept_failed": engine.get("accept_failed", False)}
        work = label_work(judge, notes, access=access, **how)
        _compute(work, engine)
        return label_with_judge(judge, notes, access=access, votes=votes_of_blocks(judge, work))


def generate(
    task: Task,
    exemplars: Dataset,
    llm: Chat,
    n: int | Mapping[str, int],
    *,
    folder: str | Path,
    prompt: Prompt | str | None = None,
    balance: Balance = "equal",
    max_calls: int | None = None,
    seed: int = 0,
    fact_rounds: int = FACT_ROUNDS,
    progress: bool = False,
    **engine: Unpack[Machines],
) -> Dataset:
    """Generate synthetic rows, as `hf_synth.generate` does; its calls are spread.

    Args:
        llm: its concurrency, rpm, tpm and budget_usd hold over all processes on Ray. What a process that dies had in
            flight counts as spent.
        n, prompt, balance, max_calls, seed, fact_rounds, progress: as for `hf_synth.generate`.
        folder: private; for the files of Ray, or with engine "here" for blocks, which hold answers.
        engine: see `Machines`.

    Raises:
        LLMError: the budget is spent, or the endpoint cannot be used; the same call goes on.
        ColumnError, TaskError: as for `hf_synth.generate`.
        HfSynthError: the LLM is neither an `LLM` nor a `LocalLLM`; Ray is missing or fails.

    Example:
        >>> from hf_synth import cluster
        >>> notes = cluster.generate(task, gold["train"], llm, 20, folder="work/blocks", engine="here")
        >>> notes["label_status"][:].count("kept")
        20
    """
    order = Order(task, exemplars, llm, n, prompt, balance, max_calls, seed, fact_rounds)
    with shown(progress):
        place = _private(folder)
        if engine.get("engine", "ray") == "ray":
            return generate_on_ray(order, folder=place, **_ray_of(engine))[0]
        cut = generation_work(order, folder=place, accept_failed=engine.get("accept_failed", False))
        _compute(cut.work, engine)
        return cut.rows()[0]


def audit(
    task: Task,
    synthetic: Dataset,
    *,
    gold: Dataset | None,
    folder: str | Path,
    held_out: Dataset | None = None,
    find_identifiers: FindIdentifiers | None = None,
    canaries: Canaries | None = None,
    seed: int = 0,
    access: str = "open",
    progress: bool = False,
    **engine: Unpack[Machines],
) -> Findings:
    """Compare synthetic rows with gold, as `hf_synth.audit` does; the comparison is spread.

    Args:
        gold, held_out, find_identifiers, canaries, seed, access, progress: as for `hf_synth.audit`.
        folder: for the blocks, which hold no text; private.
        engine: see `Machines`.

    Raises:
        ColumnError: as for `hf_synth.audit`.
        HfSynthError: `find_identifiers` failed; Ray is missing or fails.

    Example:
        >>> from hf_synth import cluster
        >>> findings = cluster.audit(task, rows, gold=gold["train"], folder="work/blocks", engine="here")
        >>> findings.verdict
        'ok'
    """
    sides: Any = {
        "gold": gold, "held_out": held_out, "find_identifiers": find_identifiers, "canaries": canaries
    }  # fmt: skip
    with shown(progress):
        work = audit_work(task, synthetic, **sides, folder=_private(folder))
        _compute(work, engine)
        found = work.results(work.parts[0])
        return audit_of_blocks(task, synthetic, found, **sides, seed=seed, access=access)


def export(
    task: Task,
    dataset: Dataset,
    repo_id: str,
    *,
    folder: str | Path,
    progress: bool = False,
    **options: Unpack[Exporting],
) -> Verdict:
    """Write an export folder, as `hf_synth.publish_dataset(..., push=False)` does; its audit is spread.

    Args:
        dataset, repo_id: as for `hf_synth.publish_dataset`.
        folder: for the blocks, which hold no text; private. The export lies in `export_dir`.
        progress: show how many blocks are computed.
        options: see `Exporting`.

    Raises:
        ColumnError, PublishError, OutputError: as for `hf_synth.publish_dataset`.
        HfSynthError: `find_identifiers` failed; Ray is missing or fails.

    Example:
        >>> from hf_synth import cluster
        >>> given = {"gold": gold["train"], "folder": "work/blocks", "engine": "here"}
        >>> verdict = cluster.export(task, rows, "org/synth-notes", **given)
        >>> verdict.allowed, verdict.pushed
        (True, False)
    """
    engine: Machines = {name: options.pop(name) for name in Machines.__annotations__ if name in options}  # type: ignore
    sides: Any = {name: options.get(name) for name in ("gold", "canaries", "find_identifiers")}
    with shown(progress):
        work = export_work(task, dataset, **sides, folder=_private(folder))
        _compute(work, engine)
        return export_scanned(task, dataset, repo_id, work.results(work.parts[0]), **options)


def _private(folder: str | Path) -> Path:
    return private_folder(Path(folder))


def _compute(work: Work, engine: Machines) -> None:
    """Compute all blocks.

    Raises:
        UsageError: there is no such engine.
    """
    name = engine.get("engine", "ray")
    if name == "here":
        run_to_the_end(work)
    elif name == "ray":
        run_on_ray(work, **_ray_of(engine))
    else:
        raise UsageError(f"engine is 'ray' or 'here', not {name!r}")


def _ray_of(engine: Machines) -> Any:
    return {"workers": engine.get("shards"), "address": engine.get("address"), "gpus": engine.get("gpus", 0)}
