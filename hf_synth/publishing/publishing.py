"""Publishing: audit, gate, card, export folder, check, one commit, read back, tag.

    export folder -> loaded and compared here -> private repository -> one commit on top of what was seen -> gate
    -> read back byte for byte -> public, where that was asked for and allowed -> tag

A refusal is a `Verdict` with `allowed=False`: nothing was written then but a line of the audit log, and nothing was
sent. An error (`PublishError`) is an export that its own check refused, or a Hub that did not take what was allowed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.correction.policy import Policy
from hf_synth.errors import PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.models.loading import model_folder
from hf_synth.models.record import FACTS, model_facts, weights_sha256
from hf_synth.privacy.audit import FindIdentifiers, audit
from hf_synth.privacy.canaries import Canaries
from hf_synth.privacy.findings import Findings, refusals
from hf_synth.privacy.membership import Membership
from hf_synth.publishing import card_text, cards, export, release
from hf_synth.publishing.checks import architecture, content_check, gold_in_files, widget_texts
from hf_synth.publishing.gate import (
    Verdict,
    gate,
    gold_parts,
    is_institution,
    joined_access,
    origin_of_model,
    origin_of_rows,
)
from hf_synth.publishing.model_checks import known_canaries, load_check, membership_of
from hf_synth.publishing.remote import Repository, endpoint_of
from hf_synth.task.columns import Access
from hf_synth.task.folders import WORK, write_private
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Confirm = Callable[[Verdict], bool]
AnyPolicy = Policy | Mapping[str, Any] | str | None


@dataclass(frozen=True)
class _Asked:
    """What a caller wants of a publishing, whatever is published."""

    repository: Repository
    push: bool
    private: bool | None
    gated: bool | Literal["auto", "manual"] | None
    attestation: str | None
    tag: str | None
    dry_run: bool
    confirm: Confirm | None
    export_dir: Path | None = field(default=None)

    def export_folder(self, task: Task, access: Access) -> Path:
        """Give the export folder: as asked, or export/NAME; for PhysioNet with the name it wants."""
        name = self.repository.repo_id.split("/")[-1] or task.name
        physionet = access == "credentialed" and not self.push
        return self.export_dir or Path("export") / (_physionet_name(task, name) if physionet else name)


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
) -> Verdict:
    """Publish synthetic rows: check, describe, write an export folder, push it in one commit, read it back, tag it.

    Rows that the audit refuses are withheld and counted. With `load_dataset(repo_id, revision=tag)` anyone gets the
    corrected rows of a release.

    Args:
        dataset: rows of `generate` or `correct`; rejected ones are told of in the card and stay here.
        gold: all gold, as a Dataset or its splits; a split "test" is taken as the control. Needed unless all is open.
        scores: of models trained with the rows, for the card.
        private: None is private; only open data, and restricted data with an attestation, can be public.
        gated: whether access is asked for; None gates what is not open.
        push: False writes the export folder only.
        export_dir: the export folder; "export/<name>" when None. Salt, map and audit log lie beside it.
        attestation: who allows a public repository of restricted data, and when; stands in card and audit log.
        endpoint: URL of the Hub; HF_ENDPOINT or the public one when None.
        policy: of the correction, for the card: a policy, its JSON, or the name of its method; else the manifest's.
        manifest: of the folder that the rows were read from (`hf_synth.json`): its access and its marks of gold count.
        augmented: also publish gold (without its test split) and the rows together, as a config of that name: only
            where everything is open. Gold leaves in no other way.
        canaries: what was planted in gold (`canaries.plant`); more than one in a hundred in the rows refuses them all.
        find_identifiers: a finder of your own beside the patterns, as for `audit`; a row that holds any stays here.
        tag: of the release; the next of v1, v2, ... when None.
        dry_run: only decide; nothing is written.
        confirm: asked with the verdict before anything is sent; when it says False, nothing is.

    Raises:
        ColumnError: a dataset lacks columns.
        PublishError: the export is not fit to leave, the Hub did not take it, or what it took is not what was sent.
        OutputError: the folder cannot be written.
    """
    hub = Repository("dataset", repo_id, endpoint_of(endpoint), token)
    asked = _Asked(
        hub, push, private, gated, attestation, tag, dry_run, confirm, Path(export_dir) if export_dir else None
    )
    known, held_out = gold_parts(gold)
    parts = [p for p in (known, held_out) if p is not None]
    rows = export.plain_columns(dataset, parts)
    access = joined_access(task, rows, *parts, also=[manifest.get("access")] if manifest else [])
    findings = audit(
        task, rows, gold=known, held_out=held_out, access=access, canaries=canaries, find_identifiers=find_identifiers
    )
    origin = origin_of_rows(task, rows, parts, manifest)
    leaving = export.view_rows(task, rows, findings.refused)
    counts = {
        **{f"rows of {name}": len(at) for name, at in leaving.items()},
        **_withheld(rows, findings),
        **_told(findings),
    }
    nothing = [] if next(iter(leaving.values())) else ["no row is left to publish"]
    if augmented and (access != "open" or known is None):
        nothing.append("an augmented config holds gold: only with gold, and only where everything is open")
    elif augmented and canaries is not None:
        nothing.append(
            "an augmented config would publish the canaries that were planted in gold: leave one of the two away"
        )
    told = {"access": access, "findings": findings, "gold_given": bool(parts), "origin": origin, "counts": counts}
    verdict = _decide(task, asked, told, nothing)
    looked: dict[str, Any] = {"audit": {"verdict": findings.verdict, "figures": dict(findings.figures)}}
    if dry_run or not verdict.allowed:
        return _refused(task, asked, verdict, looked)
    path = asked.export_folder(task, access)
    salt = release.salt_of(path.parent)
    ids = release.public_ids(task, rows, salt)
    rule = policy if policy is not None else (manifest or {}).get("policy")
    facts = cards.dataset_facts(
        task, rows, scores=scores, findings=findings, repo_id=repo_id, policy=rule, access=access,
        attestation=attestation, origin=origin.told, gold_rows=len(known) if augmented and known is not None else None,
    )  # fmt: skip
    tied = release.release_facts(
        task, kind="dataset", repo_id=repo_id, access=access, gold=release.gold_fingerprint(task, parts, salt),
        policy=_named(rule), corrector=_salted(salt, (manifest or {}).get("corrector")),
    )  # fmt: skip
    views = export.dataset_views(task, rows, leaving, access, ids)
    if augmented and known is not None:
        first = next(iter(views.values()))
        views["augmented"] = export.augmented_view(task, known, first, access, release.public_ids(task, known, salt))
    content = export.write_dataset(
        task, views, path, card=card_text.dataset_card(facts),
        access=access, physionet_name=_physionet_name(task, repo_id), release=tied,
        check=content_check(task, parts, access, token),
    )  # fmt: skip
    mapped = release.write_map(task, rows, ids, path, content, salt)
    log = tied | looked | {"content": content, "map": mapped.name}
    return _finished(task, asked, replace(verdict, export=path), log)


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
) -> Verdict:
    """Publish a trained model: weights, tokenizer, config, card and scores; nothing else of its folder.

    Its facts decide its access: a model without facts may have seen anything, and counts as credentialed.

    Args:
        model: folder (or repo id) of a model; other arguments as for `publish_dataset`.
        gold: what files and card are compared with. Needed unless all is open.
        examples: synthetic rows for the page's widget; only open ones that the audit lets pass are shown.
        membership: what a test found of whether it tells its training rows, for the card; True makes one on a sample of
            the gold, False makes none.
        canaries: what was planted in the gold that it was trained on: how well a classifier knows those in rows that it
            learnt from is measured. A model that knows them by heart is not made public, nor one where that could not
            be measured; the verdict, the card and the audit log say why it could not.
        find_identifiers: a finder of your own, for the examples.

    Raises:
        ModelError: there is no such model.
        ColumnError: no canary stands in the gold, so that it was not planted there.
        PublishError: the model, the export loaded back from its folder alone, or the Hub is not as it should be.
        OutputError: the folder cannot be written.
    """
    hub = Repository("model", repo_id, endpoint_of(endpoint), token)
    asked = _Asked(
        hub, push, private, gated, attestation, tag, dry_run, confirm, Path(export_dir) if export_dir else None
    )
    parts = [p for p in gold_parts(gold) if p is not None]
    folder, trained = model_folder(model), model_facts(model)
    access = joined_access(task, *parts, also=[trained["access"]])
    origin = origin_of_model(task, trained, parts)
    names = export.model_files(folder)
    left = [f for f in folder.iterdir() if f.name not in (*names, FACTS)]
    counts = {"files": len(names), "files left behind": len(left)}
    exposed, why = known_canaries(task, folder, trained, canaries, parts)
    unmeasured = f"exposure was not measured: {why}" if why else ""
    told = {
        "access": access, "findings": None, "gold_given": bool(parts), "origin": origin, "exposure": exposed,
        "unmeasured": unmeasured, "counts": counts,
    }  # fmt: skip
    verdict = _decide(task, asked, told, gold_in_files(task, folder, names, parts, canaries))
    looked: dict[str, Any] = {}
    if canaries is not None:
        looked["exposure"] = exposed.to_json() if exposed else why
    if dry_run or not verdict.allowed:
        return _refused(task, asked, verdict, looked)
    path = asked.export_folder(task, access)
    salt = release.salt_of(path.parent)
    found, untested = _membership(task, folder, trained, parts, membership)
    parents = release.parents_of(trained, release.entries(path.parent), path.parent, salt)
    facts = cards.model_card_facts(
        task, trained, scores, repo_id=repo_id, access=access, attestation=attestation,
        architecture=architecture(folder), parents=parents,
        membership=found.note if found else "", untested=untested, exposure=str(exposed or unmeasured),
        widget=widget_texts(task, examples, parts, access, canaries=canaries, find_identifiers=find_identifiers),
    )  # fmt: skip
    tied = release.release_facts(
        task, kind="model", repo_id=repo_id, access=access, gold=release.gold_fingerprint(task, parts, salt),
        derives_from=parents,
    )  # fmt: skip
    content = export.write_model(
        task, folder, path, card=card_text.model_card(facts),
        eval_results=card_text.eval_results(facts) if scores else "",
        facts=trained, access=access, physionet_name=_physionet_name(task, repo_id), release=tied,
        check=_both(content_check(task, parts, access, token), load_check(task, folder)),
    )  # fmt: skip
    looked["membership"] = found.to_json() if found else untested
    log = tied | looked | {"content": content, "weights": weights_sha256(path)}
    told_too = str(found) if found else f"no membership test was made: {untested}"
    return _finished(task, asked, replace(verdict, export=path, reasons=(*verdict.reasons, told_too)), log)


# --- what the gate is told ------------------------------------------------------------------------------------------
def _decide(task: Task, asked: _Asked, told: Mapping[str, Any], more: Sequence[str]) -> Verdict:
    """Ask the gate; the Hub is asked about the repository only when nothing else speaks against it."""
    hub = asked.repository
    question = {
        **told, "push": asked.push, "private": asked.private, "gated": asked.gated, "attestation": asked.attestation,
        "institution": is_institution(hub.endpoint), "repo_id": hub.repo_id,
    }  # fmt: skip
    verdict = gate(task, hub.kind, **question)
    if more:
        no = (*more, *(() if verdict.allowed else verdict.reasons))
        verdict = replace(verdict, allowed=False, reasons=no)
    if verdict.allowed and asked.push:
        verdict = gate(task, hub.kind, **question, visible=hub.visible())
    return verdict


def _withheld(dataset: Dataset, findings: Findings) -> dict[str, int]:
    counts = {f"withheld: {flag}": n for flag, n in refusals(findings, findings.refused).items()}
    statuses = list(dataset["label_status"]) if "label_status" in dataset.column_names else []
    return {"withheld": len(findings.refused), **counts, "rejected": statuses.count("rejected")}


def _told(findings: Findings) -> dict[str, int]:
    """Give what a reader of the verdict wants to know of canaries and of kinds of identifiers."""
    figures = {k: int(v) for k, v in findings.figures.items() if k.startswith(("canaries_", "with_"))}
    return {k.replace("with_", "rows with ").replace("_", " "): n for k, n in figures.items()}


def _membership(
    task: Task, folder: Path, trained: Mapping[str, Any], gold: Sequence[Dataset], asked: Membership | bool
) -> tuple[Membership | None, str]:
    if isinstance(asked, bool):
        return membership_of(task, folder, trained, gold) if asked else (None, "none was wanted")
    if not asked.members:
        return None, asked.note.removeprefix("not tested: ")
    return asked, ""


# --- what is written ------------------------------------------------------------------------------------------------
def _both(*checks: Callable[[Path], None]) -> Callable[[Path], None]:
    def check(folder: Path) -> None:
        for one in checks:
            one(folder)

    return check


def _physionet_name(task: Task, repo_id: str) -> str:
    """Suggest a name as PhysioNet asks for derived sets: source, -Ext-, what it is."""
    name = repo_id.split("/")[-1]
    return name if "-Ext-" in name else f"{task.name}-Ext-{name}"


def _named(policy: AnyPolicy) -> dict[str, Any] | None:
    """Give method and fingerprint of a policy, for release.json."""
    if policy is None or isinstance(policy, str):
        return {"method": policy, "fingerprint": None} if policy else None
    known = policy if isinstance(policy, Policy) else Policy.from_json(policy)
    return {"method": known.method, "fingerprint": known.fingerprint()}


def _salted(salt: bytes, value: Any) -> str | None:
    return release.salted(salt, "corrector", value) if isinstance(value, str) else None


def _facts(task: Task, asked: _Asked, verdict: Verdict) -> dict[str, Any]:
    """Give what the audit log holds of any attempt."""
    hub = asked.repository
    wish = {"push": asked.push, "private": asked.private, "gated": asked.gated, "tag": asked.tag}
    return {
        "kind": hub.kind, "repo_id": hub.repo_id, "endpoint": hub.endpoint, "task": task.full_name, "asked": wish,
        "attestation": asked.attestation, "access": verdict.access, "allowed": verdict.allowed,
        "reasons": list(verdict.reasons), "counts": dict(verdict.counts), "private": verdict.private,
        "gated": verdict.gated,
    }  # fmt: skip


def _refused(task: Task, asked: _Asked, verdict: Verdict, looked: Mapping[str, Any]) -> Verdict:
    if not asked.dry_run:
        beside = asked.export_folder(task, verdict.access).parent
        release.record(beside, "refused", **_facts(task, asked, verdict), **looked)
    return verdict


def _finished(task: Task, asked: _Asked, verdict: Verdict, log: Mapping[str, Any]) -> Verdict:
    """Record an export; push it where that was asked for and confirmed, and record that too."""
    path, hub = verdict.export, asked.repository
    assert path is not None
    facts = _facts(task, asked, verdict) | dict(log)
    release.record(path.parent, "export", **facts)
    if not asked.push and verdict.access == "credentialed":
        hint = f"for PhysioNet: submit it as a derived project, e.g. {_physionet_name(task, hub.repo_id)!r}"
        verdict = replace(verdict, reasons=(*verdict.reasons, hint))
    if asked.push and (asked.confirm is None or asked.confirm(verdict)):
        try:
            done = hub.push(
                path, private=verdict.private, gated=verdict.gated, keep_gate=asked.gated is None, tag=asked.tag,
                note=f"Access: {verdict.access}",
            )  # fmt: skip
        except PublishError as error:
            release.record(path.parent, "push failed", **facts, error=str(error))
            raise
        verdict = replace(verdict, url=done.url, commit=done.commit, gated=done.gated, tag=done.tag)
        told = {"url": done.url, "commit": done.commit, "tag": done.tag, "gated": done.gated, "uploaded": done.changed}
        release.record(path.parent, "push", **(facts | told))
    elif asked.push:
        verdict = replace(verdict, reasons=(*verdict.reasons, "not confirmed: nothing was sent"))
    write_private(path.parent / WORK / f"{path.name}.verdict.json", json.dumps(verdict.to_json(), indent=1) + "\n")
    return verdict
