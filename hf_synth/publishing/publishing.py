"""Publish a dataset or a model to a Hugging Face Hub: look -> decide -> write -> push.

    look    build what would leave, audit it, compare the gold with the records of where it came from
    decide  ask the gate, with what the repository holds already
    write   export folder with a card; its files are listed and checked, loaded back and compared
    compare with what the repository holds now: the changes are shown, and confirmed where somebody can be asked
    push    the listed files and no others: private repository -> one commit on top of the known head -> gated -> read
            back byte for byte -> public, where that was requested and allowed, and nothing else would be shown -> tag

A refusal is a `Verdict` with `allowed=False`: only an entry of the publishing log was written, and nothing was sent. A
`PublishError` means that the export failed its own check, or that the Hub did not accept what was allowed.
"""

from __future__ import annotations

import json
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import astuple, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.errors import PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.privacy.audit import FindIdentifiers
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.membership import Membership
from hf_synth.publishing import export, release
from hf_synth.publishing.client import endpoint_of
from hf_synth.publishing.gate import (
    Confirm,
    Request,
    Verdict,
    gate,
    is_institution,
)
from hf_synth.publishing.history import Releases, releases_of, unreleased_contents
from hf_synth.publishing.looking import Look, look_at_model, look_at_rows
from hf_synth.publishing.remote import Repository
from hf_synth.publishing.writing import AnyPolicy, DatasetRelease, physionet_name
from hf_synth.task.columns import Access
from hf_synth.task.folders import WORK, clear_disk_errors, write_private
from hf_synth.task.task import Task

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset, DatasetDict


def publish_dataset(
    task: Task,
    dataset: Dataset,
    repo_id: str,
    *,
    gold: Dataset | DatasetDict | None = None,
    scores: Scores | Mapping[str, Scores] | None = None,
    private: bool | None = None,
    gated: bool | Literal["auto", "manual"] | None = None,
    push: bool = True,
    export_dir: str | Path | None = None,
    token: str | None = None,
    attestation: str | None = None,
    endpoint: str | None = None,
    policy: AnyPolicy = None,
    manifest: Mapping[str, Any] | None = None,
    augmented: bool = False,
    canaries: Canaries | None = None,
    find_identifiers: FindIdentifiers | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    confirm: Confirm | None = None,
    squash: bool = False,
    contact: str | None = None,
) -> Verdict:
    """Publish synthetic rows: audit them, write an export folder with a card, push it in one commit, and tag it.

    Rows that the audit refuses are withheld and counted. `load_dataset(repo_id, revision=tag)` loads the corrected rows
    of a release.

    Args:
        dataset: rows of `generate` or `correct`; the card counts rejected rows, which are not exported.
        gold: all gold, as a Dataset or its splits; a split "test" serves as held-out gold. Needed unless all is open.
        scores: of models trained with the rows, for the card.
        private: None is private; only open data, and restricted data with an attestation, can be public.
        gated: whether users must request access; None gates everything that is not open.
        push: False only writes the export folder.
        export_dir: the export folder; None is "export/NAME". Salt, map and publishing log are written beside it.
        attestation: who allows a public repository of restricted data, and when; for card and publishing log.
        endpoint: URL of the Hub; HF_ENDPOINT or the public one when None.
        policy: of the correction, for the card: a policy, its JSON, or the name of its method; None is the manifest's.
        manifest: of the folder that the rows were read from (`hf_synth.json`), with its access and gold digests.
        augmented: also publish gold (without its test split) and the rows together, as a config of that name: only
            where everything is open. Gold is exported in no other way.
        canaries: planted in gold (`canaries.plant`); all rows are refused if they hold more than 1% of them.
        find_identifiers: a finder of your own beside the patterns, as for `audit`; rows with a match are withheld.
        tag: of the release; the next of v1, v2, ... when None.
        dry_run: only decide. With `push=True` the verdict has the changes in the repository: for them the export is
            written to a hidden folder beside the export folder, which is deleted again. Nothing else is written.
        confirm: called with the verdict, which has the changes in the repository (`Verdict.changes`), before anything
            is sent; nothing is sent if it returns False. Without it,
            `push=True` is the consent.
        squash: let this release replace everything that the repository holds: files, earlier commits, other branches
            and tags. Where a private repository holds something else than releases, it cannot become public otherwise.
        contact: whom to ask for access, for the card: an address or a page. None names the owners of the repository.

    Raises:
        ColumnError: a dataset lacks columns.
        PublishError: the export fails its check, or the Hub does not accept it, or holds something else afterwards.
        OutputError: the folder cannot be written.

    Example:
        >>> verdict = publish_dataset(task, rows, "org/synth-notes", gold=gold["train"], push=False)  # a folder alone
        >>> verdict.allowed, verdict.pushed
        (True, False)
    """
    hub = Repository("dataset", repo_id, endpoint_of(endpoint), token)
    request = Request(repo_id, push, private, gated, attestation, tag, dry_run, confirm, export_dir, squash, contact)
    found = look_at_rows(
        task, dataset, gold=gold, manifest=manifest or {}, augmented=augmented, scores=scores, policy=policy,
        detectors={"canaries": canaries, "find_identifiers": find_identifiers},
    )  # fmt: skip
    return _publish(task, hub, request, found)


def export_scanned(task: Task, dataset: Dataset, repo_id: str, scanned: Iterable[pa.Table], **options: Any) -> Verdict:
    """Export rows as `publish_dataset(..., push=False)` does, from what was found in their blocks.

    Args:
        scanned: of each block of `looking.leaving_rows`, in the order of the rows.
        options: of `publish_dataset`, but for those of a push.

    Raises:
        ColumnError, PublishError, OutputError: as for `publish_dataset`; or the blocks are not of these rows.
    """
    endpoint, token = options.pop("endpoint", None), options.pop("token", None)
    asked = {name: options.pop(name) for name in Request.__dataclass_fields__ if name in options}
    detectors = {name: options.pop(name, None) for name in ("canaries", "find_identifiers")}
    looked: dict[str, Any] = {"gold": None, "augmented": False, "scores": None, "policy": None, **options}
    looked["manifest"] = looked.get("manifest") or {}
    found = look_at_rows(task, dataset, scanned=scanned, detectors=detectors, **looked)
    hub = Repository("dataset", repo_id, endpoint_of(endpoint), token)
    return _publish(task, hub, Request(repo_id, push=False, **asked), found)


def publish_model(
    task: Task,
    model: str | Path,
    scores: Scores | None,
    repo_id: str,
    *,
    gold: Dataset | DatasetDict | None = None,
    private: bool | None = None,
    gated: bool | Literal["auto", "manual"] | None = None,
    push: bool = True,
    export_dir: str | Path | None = None,
    token: str | None = None,
    attestation: str | None = None,
    endpoint: str | None = None,
    examples: Dataset | None = None,
    membership: Membership | bool = True,
    canaries: Canaries | None = None,
    find_identifiers: FindIdentifiers | None = None,
    tag: str | None = None,
    dry_run: bool = False,
    confirm: Confirm | None = None,
    squash: bool = False,
    contact: str | None = None,
) -> Verdict:
    """Publish a trained model: weights, tokenizer, config, card and scores; no other file of its folder.

    Its facts decide its access: a model without facts may have seen anything, and counts as credentialed.

    Args:
        model: folder (or repo id) of a model; other arguments as for `publish_dataset`.
        gold: for comparing files and card with it. Needed unless all is open.
        examples: synthetic rows for the page's widget; only open ones that pass the audit are shown.
        membership: result of a membership test, for the card; True runs one on a sample of the gold, False none.
        canaries: planted in the gold that the model was trained on: a classifier's exposure is measured on those in its
            training rows. A model that memorised them, or whose exposure cannot be measured, stays private; verdict,
            card and publishing log say why it was not measured.
        find_identifiers: a finder of your own, for the examples.
        contact: whom to ask for access, for the card.

    Raises:
        ModelError: there is no such model.
        ColumnError: no canary is in the gold.
        PublishError: the model or its export fails a check, or the Hub does not accept it, or holds something else.
        OutputError: the folder cannot be written.

    Example:
        >>> verdict = publish_model(task, model, scores, "org/grader", gold=gold["train"], push=False)
        >>> verdict.pushed
        False
    """
    hub = Repository("model", repo_id, endpoint_of(endpoint), token)
    request = Request(repo_id, push, private, gated, attestation, tag, dry_run, confirm, export_dir, squash, contact)
    found = look_at_model(
        task, model, (repo_id, tag), gold=gold, scores=scores, examples=examples, membership=membership,
        detectors={"canaries": canaries, "find_identifiers": find_identifiers},
    )  # fmt: skip
    return _publish(task, hub, request, found)


# --- decide ----------------------------------------------------------------------------------------------------------
def _publish(task: Task, hub: Repository, request: Request, found: Look) -> Verdict:
    """Decide, write and push what was looked at."""
    verdict, known = _decide(task, hub, request, found)
    if request.dry_run and verdict.allowed and request.push:
        verdict = _foresee_changes(task, hub, request, found, verdict)
    if request.dry_run or not verdict.allowed:
        return _refused(task, hub, request, verdict, found.log)
    path = _export_folder(task, request, verdict.access)
    written = found.release.write(hub, request, path, release.salt_of(path.parent))
    verdict = replace(verdict, export=path, reasons=(*verdict.reasons, *written.remarks))
    log = {**written.facts, **found.log, "content": written.export.content}
    return _push(task, hub, request, verdict, written.export, known, log)


def _foresee_changes(task: Task, hub: Repository, request: Request, found: Look, verdict: Verdict) -> Verdict:
    """Return the verdict of a dry run with what the rows would change: they are written to a folder that is deleted.

    A model is not written twice.
    """
    if not isinstance(found.release, DatasetRelease):
        return replace(verdict, reasons=(*verdict.reasons, "what changes in the repository is shown before a push"))
    path = _export_folder(task, request, verdict.access)
    beside = next(folder for folder in path.absolute().parents if folder.is_dir())
    salt = path.parent / WORK / "salt"
    with clear_disk_errors(path), tempfile.TemporaryDirectory(prefix=".dry-run-", dir=beside) as place:
        key = release.salt_of(path.parent) if salt.is_file() else secrets.token_bytes(32)
        written = found.release.write(hub, request, Path(place) / path.name, key)
        changes = hub.changes(task, written.export.path, written.export.seal, verdict, request)
    return replace(verdict, changes=changes)


def _decide(task: Task, hub: Repository, request: Request, found: Look) -> tuple[Verdict, Releases]:
    """Ask the gate; look at the repository on the Hub only if nothing else is against it."""
    evidence = replace(found.evidence, institution=is_institution(hub.endpoint), hub=hub.url)
    verdict, known = gate(task, hub.kind, evidence, request), Releases()
    if found.problems:
        reasons = (*found.problems, *(() if verdict.allowed else verdict.reasons))
        verdict = replace(verdict, allowed=False, reasons=reasons)
    if verdict.allowed and request.push:
        log = release.entries(_export_folder(task, request, verdict.access).parent)
        known, visible = releases_of(log, hub.kind, hub.repo_id, hub.endpoint), hub.visible()
        evidence = replace(evidence, visible=visible, withdrawn=known.withdrawn)
        if visible == "private" and request.private is False and not known.withdrawn:
            evidence = replace(evidence, shown=tuple(unreleased_contents(hub.reach(known), known)))
        verdict = gate(task, hub.kind, evidence, request)
    return verdict, known


def _export_folder(task: Task, request: Request, access: Access) -> Path:
    name = request.repo_id.split("/")[-1] or task.name
    if access == "credentialed" and not request.push:
        name = physionet_name(task, name)
    return Path(request.export_dir or Path("export") / name)


def _log_facts(task: Task, hub: Repository, request: Request, verdict: Verdict) -> dict[str, Any]:
    """Return what the publishing log records of every attempt."""
    wish = {"push": request.push, "private": request.private, "gated": request.gated, "tag": request.tag}
    return {
        "kind": hub.kind, "repo_id": hub.repo_id, "endpoint": hub.endpoint, "task": task.full_name, "asked": wish,
        "attestation": request.attestation, "access": verdict.access, "allowed": verdict.allowed,
        "reasons": list(verdict.reasons), "counts": dict(verdict.counts), "private": verdict.private,
        "gated": verdict.gated,
    }  # fmt: skip


def _refused(task: Task, hub: Repository, request: Request, verdict: Verdict, log: Mapping[str, Any]) -> Verdict:
    """Record a refusal, and return its verdict."""
    if not request.dry_run:
        beside = _export_folder(task, request, verdict.access).parent
        release.record(beside, "refused", **_log_facts(task, hub, request, verdict), **log)
    return verdict


# --- push ------------------------------------------------------------------------------------------------------------
def _push(
    task: Task,
    hub: Repository,
    request: Request,
    verdict: Verdict,
    written: export.Written,
    known: Releases,
    log: Mapping[str, Any],
) -> Verdict:
    """Record an export; if requested and confirmed, push the files that its checks saw, and record that."""
    path = written.path
    facts = _log_facts(task, hub, request, verdict) | dict(log)
    files = {name: list(astuple(file)) for name, file in written.seal.items()}
    release.record(path.parent, "export", **facts, files=files)
    if not request.push and verdict.access == "credentialed":
        hint = f"for PhysioNet: submit it as a derived project, e.g. {physionet_name(task, hub.repo_id)!r}"
        verdict = replace(verdict, reasons=(*verdict.reasons, hint))
    try:
        if request.push:
            verdict = replace(verdict, changes=hub.changes(task, path, written.seal, verdict, request))
        if request.push and (request.confirm is None or request.confirm(verdict)):
            note, keep_gate = f"Access: {verdict.access}", request.gated is None
            pushed = hub.push(
                path, written.seal, private=verdict.private, gated=verdict.gated, keep_gate=keep_gate, tag=request.tag,
                note=note, known=known, content=written.content, squash=request.squash,
                head=verdict.changes.head if verdict.changes else "",
            )  # fmt: skip
            result = {"url": pushed.url, "commit": pushed.commit, "tag": pushed.tag, "gated": pushed.gated}
            if not pushed.changed:
                same = "the repository held the same files already: nothing was uploaded"
                verdict = replace(verdict, reasons=(*verdict.reasons, same))
            verdict = replace(verdict, url=pushed.url, commit=pushed.commit, tag=pushed.tag, gated=pushed.gated)
            release.record(path.parent, "push", **(facts | result | {"uploaded": pushed.changed}))
        elif request.push:
            verdict = replace(verdict, reasons=(*verdict.reasons, "not confirmed: nothing was sent"))
    except PublishError as error:
        release.record(path.parent, "push failed", **facts, error=str(error))
        raise
    write_private(path.parent / WORK / f"{path.name}.verdict.json", json.dumps(verdict.to_json(), indent=1) + "\n")
    return verdict
