"""Look at what would leave, before anything is decided: rows in the form in which they leave, the files of a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction.policy import Policy
from hf_synth.evaluation.evaluation import Scores
from hf_synth.generation.likeness import likeness
from hf_synth.models.loading import model_folder
from hf_synth.models.record import FACTS, ModelAt, model_facts, weights_sha256
from hf_synth.privacy.audit import FindIdentifiers, audit, audit_of_blocks
from hf_synth.privacy.findings import Findings, refusals
from hf_synth.privacy.membership import Membership
from hf_synth.publishing import export
from hf_synth.publishing.cards import Recorded, doubts_of
from hf_synth.publishing.checks import (
    Watched,
    gold_in_files,
    names_in,
    watched,
)
from hf_synth.publishing.gate import (
    Evidence,
    gold_parts,
    origin_of_model,
    origin_of_rows,
)
from hf_synth.publishing.languages import contradicts, recognised
from hf_synth.publishing.model_checks import exposure_of
from hf_synth.publishing.model_files import model_files
from hf_synth.publishing.writing import AnyPolicy, DatasetRelease, ModelRelease
from hf_synth.task.access import overall_access
from hf_synth.task.columns import Access
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict


@dataclass(frozen=True)
class Look:
    """What looking at rows or a model found.

    Args:
        evidence: for the gate.
        problems: why it is refused, whatever the gate decides.
        log: what the publishing log records of it, also of a refusal.
        release: what is written if the gate allows it.
    """

    evidence: Evidence
    problems: Sequence[str]
    log: Mapping[str, Any]
    release: DatasetRelease | ModelRelease


def leaving_rows(
    task: Task, dataset: Dataset, gold: Dataset | DatasetDict | None
) -> tuple[Dataset, Dataset | None, Dataset | None]:
    """Return rows in the form in which they leave, the gold that may have been seen, and the held-out gold."""
    seen, held_out = gold_parts(gold)
    plain = export.plain_columns(dataset, [p for p in (seen, held_out) if p is not None])
    return export.with_exported_target(task, plain), seen, held_out


def look_at_rows(
    task: Task,
    dataset: Dataset,
    *,
    gold: Dataset | DatasetDict | None,
    manifest: Mapping[str, Any],
    augmented: bool,
    detectors: Mapping[str, Any],
    scores: Scores | Mapping[str, Scores] | None,
    policy: AnyPolicy,
    scanned: Iterable[pa.Table] | None = None,
) -> Look:
    """Audit the rows as they would leave.

    Args:
        detectors: `canaries` and `find_identifiers`.
        scanned: what was found in the blocks of `leaving_rows`; all rows are scanned here when None.
    """
    rows, seen, held_out = leaving_rows(task, dataset, gold)
    parts = [p for p in (seen, held_out) if p is not None]
    access = overall_access(task, rows, *parts, also=[manifest.get("access")] if manifest else [])
    given: dict[str, Any] = {"gold": seen, "held_out": held_out, "access": access, **detectors}
    findings = audit(task, rows, **given) if scanned is None else audit_of_blocks(task, rows, scanned, **given)
    exported = export.view_rows(task, rows, findings.refused)
    policy = policy if policy is not None else manifest.get("policy")
    problems = [] if next(iter(exported.values())) else [why_nothing_is_left(rows, findings, policy)]
    problems += _problems_of_names(task, access, detectors["find_identifiers"])
    problems += _problems_of_language(task, rows, next(iter(exported.values())))
    if augmented and (access != "open" or seen is None):
        problems.append("an augmented config holds gold: it needs gold, and everything must be open")
    elif augmented and detectors["canaries"] is not None:
        problems.append("an augmented config would publish the canaries planted in gold: leave out one of the two")
    counts = {f"rows of {name}": len(at) for name, at in exported.items()} | _audit_counts(rows, findings)
    origin = origin_of_rows(task, rows, parts, manifest)
    first = next(iter(exported.values()))
    alike = likeness(task, rows.select(first), seen) if seen is not None and first else None
    leaving = DatasetRelease(
        task, rows, exported, findings, access, parts, seen if augmented else None, detectors, origin.summary, scores,
        policy, manifest.get("corrector"), Recorded(manifest, alike),
    )  # fmt: skip
    log = {"audit": {"verdict": findings.verdict, "figures": dict(findings.figures)}}
    doubts = doubts_of(rows, policy, set(findings.refused))
    return Look(Evidence(access, findings, bool(parts), origin, counts=counts, doubts=doubts), problems, log, leaving)


def why_nothing_is_left(rows: Dataset, findings: Findings, policy: AnyPolicy) -> str:
    """Return why no row is left to publish, and what to do next."""
    method = (
        policy.method if isinstance(policy, Policy) else policy.get("method") if isinstance(policy, Mapping) else ""
    )
    status = Counter(column_of(rows, "label_status"))
    if method == "gold_only":
        return (
            "no row is left to publish: correction chose gold alone and uses none of the rows; publish the model that "
            "gold trained, label more gold, or correct with another --method"
        )
    if status["rejected"] == len(rows):
        return "no row is left to publish: every answer of the LLM was rejected; generate again, with another prompt"
    if len(findings.refused) + status["dropped"] + status["rejected"] >= len(rows) and findings.refused:
        return (
            "no row is left to publish: the audit withholds every row that correction uses; `hf-synth audit --show` "
            "prints why"
        )
    return "no row is left to publish: correction dropped all rows; label more gold, or correct with another --method"


def look_at_model(
    task: Task,
    model: str | Path,
    names: Sequence[str | None],
    *,
    gold: Dataset | DatasetDict | None,
    detectors: Mapping[str, Any],
    scores: Scores | None,
    examples: Dataset | None,
    membership: Membership | bool,
) -> Look:
    """Search the files of a model, and measure what it knows of the canaries.

    Args:
        names: of the repository and the tag.
        detectors: `canaries` and `find_identifiers`.
    """
    parts = [p for p in gold_parts(gold) if p is not None]
    folder, trained = model_folder(model), model_facts(model)
    access = overall_access(task, *parts, ModelAt(model, folder=folder), also=[trained["access"]])
    files, seen = model_files(folder), watched(task, parts, access, names=names, **detectors)
    n_left = sum(f.name not in (*files, FACTS) for f in folder.iterdir())
    measured, why = exposure_of(task, folder, trained, detectors["canaries"], parts)
    unmeasured = f"exposure was not measured: {why}" if why else ""
    origin, counts = origin_of_model(task, trained, parts), {"files": len(files), "files left behind": n_left}
    evidence = Evidence(access, None, bool(parts), origin, measured, unmeasured, counts)
    problems = gold_in_files(folder, files, seen, parts, task)
    problems += _problems_of_names(task, access, detectors["find_identifiers"])
    scored = scores.model.get("weights_sha256") if scores is not None else None
    if scored and scored != weights_sha256(folder):
        problems.append("the scores are those of another model: score this one with `hf-synth evaluate`")
    exposure = str(measured or unmeasured)
    leaving = ModelRelease(
        task, folder, trained, access, parts, seen, detectors, exposure, scores, examples, membership
    )
    log = {} if detectors["canaries"] is None else {"exposure": measured.to_json() if measured else why}
    return Look(evidence, problems, log, leaving)


def _problems_of_names(task: Task, access: Access, find_identifiers: FindIdentifiers | None) -> list[str]:
    """Return whether labels of a task look like identifiers of a person: their names stand in every file."""
    seen = Watched(find_identifiers=find_identifiers, strict=access != "open")
    kinds = sorted({kind for name in (*task.labels, *task.label_meanings) for kind in names_in(name, seen)})
    return [f"a label of the task looks like an identifier of a person ({', '.join(kinds)})"] if kinds else []


def _problems_of_language(task: Task, rows: Dataset, exported: Sequence[int]) -> list[str]:
    """Return whether the texts look like another language than the task states."""
    seen = recognised(rows[i][task.text_columns[0]] for i in exported) if task.language else None
    if not contradicts(task.language, seen):
        return []
    looks = "have letters that are not Latin" if seen == "other" else f"look like {seen!r}"
    return [f"the task states language {task.language!r}, but its texts {looks}: correct the task's language"]


def _audit_counts(rows: Dataset, findings: Findings) -> dict[str, int]:
    """Count withheld and rejected rows, canaries and kinds of identifiers, for the verdict."""
    counts = {"withheld": len(findings.refused)}
    counts |= {f"withheld: {flag}": n for flag, n in refusals(findings, findings.refused).items()}
    counts["rejected"] = column_of(rows, "label_status").count("rejected")
    figures = {k: int(v) for k, v in findings.figures.items() if k.startswith(("canaries_", "with_"))}
    return counts | {k.replace("with_", "rows with ").replace("_", " "): n for k, n in figures.items()}
