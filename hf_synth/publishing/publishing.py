"""Publish a dataset or a model to a Hugging Face Hub: look -> decide -> write -> push.

    look    build what would leave, audit it, compare the gold with the records of where it came from
    decide  ask the gate, with what the repository holds already
    write   export folder with a card; its files are listed and checked, loaded back and compared
    push    the listed files and no others: private repository -> one commit on top of the known head -> gated -> read
            back byte for byte -> public, where that was requested and allowed, and nothing else would be shown -> tag

A refusal is a `Verdict` with `allowed=False`: only an entry of the publishing log was written, and nothing was sent. A
`PublishError` means that the export failed its own check, or that the Hub did not accept what was allowed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.correction.policy import Policy
from hf_synth.errors import PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.models.loading import model_folder
from hf_synth.models.record import FACTS, ModelAt, model_facts, weights_sha256
from hf_synth.privacy.audit import FindIdentifiers, audit
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.findings import Findings, refusals
from hf_synth.privacy.membership import Membership
from hf_synth.publishing import card_text, cards, export, release
from hf_synth.publishing.checks import (
    Watched,
    architecture,
    content_check,
    gold_in_files,
    names_in,
    row_keys,
    watched,
    widget_texts,
)
from hf_synth.publishing.gate import (
    Confirm,
    Evidence,
    Request,
    Verdict,
    gate,
    gold_parts,
    is_institution,
    origin_of_model,
    origin_of_rows,
)
from hf_synth.publishing.history import Releases, releases_of, strangers
from hf_synth.publishing.model_checks import exposure_of, load_check, membership_of
from hf_synth.publishing.model_files import model_files, weights_check
from hf_synth.publishing.remote import Repository, endpoint_of
from hf_synth.task.access import overall_access
from hf_synth.task.columns import Access
from hf_synth.task.folders import WORK, notes_of, write_private
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

AnyPolicy = Policy | Mapping[str, Any] | str | None


@dataclass(frozen=True)
class _Look:
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
    release: _Rows | _Model


@dataclass(frozen=True)
class _Written:
    """An export folder, with facts for the publishing log and remarks for the verdict."""

    export: export.Written
    facts: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


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
        dry_run: only decide; nothing is written.
        confirm: called with the verdict before anything is sent; nothing is sent if it returns False. Without it,
            `push=True` is the consent.
        squash: let this release replace everything that the repository holds: files, earlier commits, other branches
            and tags. Where a private repository holds something else than releases, it cannot become public otherwise.

    Raises:
        ColumnError: a dataset lacks columns.
        PublishError: the export fails its check, or the Hub does not accept it, or holds something else afterwards.
        OutputError: the folder cannot be written.
    """
    hub = Repository("dataset", repo_id, endpoint_of(endpoint), token)
    request = Request(repo_id, push, private, gated, attestation, tag, dry_run, confirm, export_dir, squash)
    found = _look_at_rows(
        task, dataset, gold=gold, manifest=manifest or {}, augmented=augmented, scores=scores, policy=policy,
        detectors={"canaries": canaries, "find_identifiers": find_identifiers},
    )  # fmt: skip
    return _publish(task, hub, request, found)


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

    Raises:
        ModelError: there is no such model.
        ColumnError: no canary is in the gold.
        PublishError: the model or its export fails a check, or the Hub does not accept it, or holds something else.
        OutputError: the folder cannot be written.
    """
    hub = Repository("model", repo_id, endpoint_of(endpoint), token)
    request = Request(repo_id, push, private, gated, attestation, tag, dry_run, confirm, export_dir, squash)
    found = _look_at_model(
        task, model, (repo_id, tag), gold=gold, scores=scores, examples=examples, membership=membership,
        detectors={"canaries": canaries, "find_identifiers": find_identifiers},
    )  # fmt: skip
    return _publish(task, hub, request, found)


# --- look ------------------------------------------------------------------------------------------------------------
def _look_at_rows(
    task: Task,
    dataset: Dataset,
    *,
    gold: Dataset | DatasetDict | None,
    manifest: Mapping[str, Any],
    augmented: bool,
    detectors: Mapping[str, Any],
    scores: Scores | Mapping[str, Scores] | None,
    policy: AnyPolicy,
) -> _Look:
    """Audit the rows as they would leave.

    Args:
        detectors: `canaries` and `find_identifiers`.
    """
    seen, held_out = gold_parts(gold)
    parts = [p for p in (seen, held_out) if p is not None]
    rows = export.as_exported(task, export.plain_columns(dataset, parts))
    access = overall_access(task, rows, *parts, also=[manifest.get("access")] if manifest else [])
    findings = audit(task, rows, gold=seen, held_out=held_out, access=access, **detectors)
    exported = export.view_rows(task, rows, findings.refused)
    problems = [] if next(iter(exported.values())) else ["no row is left to publish"]
    problems += _problems_of_names(task, access, detectors["find_identifiers"])
    if augmented and (access != "open" or seen is None):
        problems.append("an augmented config holds gold: it needs gold, and everything must be open")
    elif augmented and detectors["canaries"] is not None:
        problems.append("an augmented config would publish the canaries planted in gold: leave out one of the two")
    counts = {f"rows of {name}": len(at) for name, at in exported.items()} | _audit_counts(rows, findings)
    origin = origin_of_rows(task, rows, parts, manifest)
    leaving = _Rows(
        task, rows, exported, findings, access, parts, seen if augmented else None, detectors, origin.summary, scores,
        policy if policy is not None else manifest.get("policy"), manifest.get("corrector"),
    )  # fmt: skip
    log = {"audit": {"verdict": findings.verdict, "figures": dict(findings.figures)}}
    return _Look(Evidence(access, findings, bool(parts), origin, counts=counts), problems, log, leaving)


def _look_at_model(
    task: Task,
    model: str | Path,
    names: Sequence[str | None],
    *,
    gold: Dataset | DatasetDict | None,
    detectors: Mapping[str, Any],
    scores: Scores | None,
    examples: Dataset | None,
    membership: Membership | bool,
) -> _Look:
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
    exposure = str(measured or unmeasured)
    leaving = _Model(task, folder, trained, access, parts, seen, detectors, exposure, scores, examples, membership)
    log = {} if detectors["canaries"] is None else {"exposure": measured.to_json() if measured else why}
    return _Look(evidence, problems, log, leaving)


def _problems_of_names(task: Task, access: Access, find_identifiers: FindIdentifiers | None) -> list[str]:
    """Return whether labels of a task look like identifiers of a person: their names stand in every file."""
    seen = Watched(find_identifiers=find_identifiers, strict=access != "open")
    kinds = sorted({kind for name in (*task.labels, *task.label_meanings) for kind in names_in(name, seen)})
    return [f"a label of the task looks like an identifier of a person ({', '.join(kinds)})"] if kinds else []


def _audit_counts(rows: Dataset, findings: Findings) -> dict[str, int]:
    """Count withheld and rejected rows, canaries and kinds of identifiers, for the verdict."""
    counts = {"withheld": len(findings.refused)}
    counts |= {f"withheld: {flag}": n for flag, n in refusals(findings, findings.refused).items()}
    counts["rejected"] = column_of(rows, "label_status").count("rejected")
    figures = {k: int(v) for k, v in findings.figures.items() if k.startswith(("canaries_", "with_"))}
    return counts | {k.replace("with_", "rows with ").replace("_", " "): n for k, n in figures.items()}


def _membership_test(
    task: Task, folder: Path, trained: Mapping[str, Any], gold: Sequence[Dataset], requested: Membership | bool
) -> tuple[Membership | None, str]:
    """Return the result of a membership test, or None and why there is none."""
    if isinstance(requested, bool):
        return membership_of(task, folder, trained, gold) if requested else (None, "none was wanted")
    if not requested.members:
        return None, requested.note.removeprefix("not tested: ")
    return requested, ""


# --- decide ----------------------------------------------------------------------------------------------------------
def _publish(task: Task, hub: Repository, request: Request, found: _Look) -> Verdict:
    """Decide, write and push what was looked at."""
    verdict, known = _decide(task, hub, request, found)
    if request.dry_run or not verdict.allowed:
        return _refused(task, hub, request, verdict, found.log)
    path = _export_folder(task, request, verdict.access)
    written = found.release.write(hub, request, path, release.salt_of(path.parent))
    verdict = replace(verdict, export=path, reasons=(*verdict.reasons, *written.remarks))
    log = {**written.facts, **found.log, "content": written.export.content}
    return _push(task, hub, request, verdict, written.export, known, log)


def _decide(task: Task, hub: Repository, request: Request, found: _Look) -> tuple[Verdict, Releases]:
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
            evidence = replace(evidence, shown=tuple(strangers(hub.reach(known), known)))
        verdict = gate(task, hub.kind, evidence, request)
    return verdict, known


# --- write -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Rows:
    """Rows that were looked at, as they are written.

    Args:
        rows: in the form in which they leave.
        exported: numbers of the rows of each config.
        parts: of the gold.
        augmented: gold of a config of its own; None without.
        origin: whether the gold is the gold they came from, for the card.
    """

    task: Task
    rows: Dataset
    exported: dict[str, list[int]]
    findings: Findings
    access: Access
    parts: list[Dataset]
    augmented: Dataset | None
    detectors: Mapping[str, Any]
    origin: str
    scores: Scores | Mapping[str, Scores] | None
    policy: AnyPolicy
    corrector: Any

    def write(self, hub: Repository, request: Request, path: Path, salt: bytes) -> _Written:
        """Write the export folder and the map of its ids."""
        task, rows, more, access = self.task, self.rows, self.augmented, self.access
        ids = release.public_ids(task, rows, salt)
        facts = cards.dataset_facts(
            task, rows, scores=self.scores, findings=self.findings, repo_id=hub.repo_id, policy=self.policy,
            access=access, attestation=request.attestation, origin=self.origin,
            gold_rows=None if more is None else len(more),
            gold_notes=list(dict.fromkeys(note for part in self.parts for note in notes_of(part))),
        )  # fmt: skip
        provenance = release.release_facts(
            task, kind="dataset", repo_id=hub.repo_id, access=access, policy=_policy_fingerprint(self.policy),
            gold=release.gold_fingerprint(task, self.parts, salt),
            corrector=release.salted(salt, "corrector", self.corrector) if isinstance(self.corrector, str) else None,
        )  # fmt: skip
        views = export.dataset_views(task, rows, self.exported, access, ids)
        passed = row_keys(task, rows, sorted({i for at in self.exported.values() for i in at}))
        if more is not None:
            first, gold_ids = next(iter(views.values())), release.public_ids(task, more, salt)
            views["augmented"] = export.augmented_view(task, more, first, access, gold_ids)
            passed = chain(passed, row_keys(task, more))
        names = (hub.repo_id, request.tag)
        seen = watched(task, self.parts, access, token=hub.token, names=names, rows=passed, **self.detectors)
        written = export.write_dataset(
            task, views, path, card=card_text.dataset_card(facts), access=access,
            physionet_name=_physionet_name(task, hub.repo_id), release=provenance, checks=[content_check(seen)],
        )  # fmt: skip
        id_map = release.write_map(task, rows, ids, path, written.content, salt)
        return _Written(written, provenance | {"map": id_map.name})


@dataclass(frozen=True)
class _Model:
    """A model that was looked at, as it is written.

    Args:
        trained: its facts.
        parts: of the gold.
        seen: what its files may not hold.
        exposure: of canaries, or why it was not measured, for the card.
    """

    task: Task
    folder: Path
    trained: Mapping[str, Any]
    access: Access
    parts: list[Dataset]
    seen: Watched
    detectors: Mapping[str, Any]
    exposure: str
    scores: Scores | None
    examples: Dataset | None
    membership: Membership | bool

    def write(self, hub: Repository, request: Request, path: Path, salt: bytes) -> _Written:
        """Write the export folder, after a membership test."""
        task, folder, trained, access = self.task, self.folder, self.trained, self.access
        tested, untested = _membership_test(task, folder, trained, self.parts, self.membership)
        parents = release.parents_of(trained, release.entries(path.parent), path.parent, salt)
        facts = cards.model_card_facts(
            task, trained, self.scores, repo_id=hub.repo_id, access=access, attestation=request.attestation,
            architecture=architecture(folder), parents=parents, membership=tested.note if tested else "",
            untested=untested, exposure=self.exposure,
            widget=widget_texts(task, self.examples, self.parts, access, **self.detectors),
        )  # fmt: skip
        provenance = release.release_facts(
            task, kind="model", repo_id=hub.repo_id, access=access,
            gold=release.gold_fingerprint(task, self.parts, salt), derives_from=parents,
        )  # fmt: skip
        seen = replace(self.seen, secrets=(*self.seen.secrets, hub.token))
        written = export.write_model(
            task, folder, path, card=card_text.model_card(facts), facts=trained, access=access,
            eval_results=card_text.eval_results(facts) if self.scores else "",
            physionet_name=_physionet_name(task, hub.repo_id), release=provenance,
            checks=[content_check(seen), weights_check(task), load_check(task, folder)],
        )  # fmt: skip
        tests = {"membership": tested.to_json() if tested else untested, "weights": weights_sha256(path)}
        remark = str(tested) if tested else f"no membership test was made: {untested}"
        return _Written(written, provenance | tests, (remark,))


def _export_folder(task: Task, request: Request, access: Access) -> Path:
    name = request.repo_id.split("/")[-1] or task.name
    if access == "credentialed" and not request.push:
        name = _physionet_name(task, name)
    return Path(request.export_dir or Path("export") / name)


def _physionet_name(task: Task, repo_id: str) -> str:
    """Return a name as PhysioNet asks for derived datasets: SOURCE-Ext-NAME."""
    name = repo_id.split("/")[-1]
    return name if "-Ext-" in name else f"{task.name}-Ext-{name}"


def _policy_fingerprint(policy: AnyPolicy) -> dict[str, Any] | None:
    """Return method and fingerprint of a policy, for release.json."""
    if policy is None or isinstance(policy, str):
        return {"method": policy, "fingerprint": None} if policy else None
    known = policy if isinstance(policy, Policy) else Policy.from_json(policy)
    return {"method": known.method, "fingerprint": known.fingerprint()}


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
        hint = f"for PhysioNet: submit it as a derived project, e.g. {_physionet_name(task, hub.repo_id)!r}"
        verdict = replace(verdict, reasons=(*verdict.reasons, hint))
    if request.push and (request.confirm is None or request.confirm(verdict)):
        note, keep_gate = f"Access: {verdict.access}", request.gated is None
        try:
            pushed = hub.push(
                path, written.seal, private=verdict.private, gated=verdict.gated, keep_gate=keep_gate, tag=request.tag,
                note=note, known=known, content=written.content, squash=request.squash,
            )  # fmt: skip
        except PublishError as error:
            release.record(path.parent, "push failed", **facts, error=str(error))
            raise
        result = {"url": pushed.url, "commit": pushed.commit, "tag": pushed.tag, "gated": pushed.gated}
        verdict = replace(verdict, url=pushed.url, commit=pushed.commit, tag=pushed.tag, gated=pushed.gated)
        release.record(path.parent, "push", **(facts | result | {"uploaded": pushed.changed}))
    elif request.push:
        verdict = replace(verdict, reasons=(*verdict.reasons, "not confirmed: nothing was sent"))
    write_private(path.parent / WORK / f"{path.name}.verdict.json", json.dumps(verdict.to_json(), indent=1) + "\n")
    return verdict
