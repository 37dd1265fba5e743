"""Write the export folder of what was looked at, with a card and the checks of every file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction.policy import Policy
from hf_synth.evaluation.evaluation import Scores
from hf_synth.evaluation.weakness import weakness_text
from hf_synth.models.record import weights_sha256
from hf_synth.privacy.findings import Findings
from hf_synth.privacy.membership import Membership
from hf_synth.publishing import card_models, card_text, cards, export, release
from hf_synth.publishing.card_schema import dataset_info
from hf_synth.publishing.card_values import checked_contact
from hf_synth.publishing.checks import (
    Watched,
    architecture,
    content_check,
    row_keys,
    watched,
    widget_texts,
)
from hf_synth.publishing.croissant import croissant
from hf_synth.publishing.gate import (
    Request,
)
from hf_synth.publishing.model_checks import load_check, membership_of
from hf_synth.publishing.model_files import weights_check
from hf_synth.publishing.remote import Repository
from hf_synth.task.columns import Access
from hf_synth.task.folders import notes_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

AnyPolicy = Policy | Mapping[str, Any] | str | None


@dataclass(frozen=True)
class WrittenRelease:
    """An export folder, with facts for the publishing log and remarks for the verdict."""

    export: export.Written
    facts: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetRelease:
    """Rows that were looked at, as they are written.

    Args:
        rows: in the form in which they leave.
        exported: numbers of the rows of each config.
        parts: of the gold.
        augmented: gold of a config of its own; None without.
        origin: whether the gold is the gold they came from, for the card.
        recorded: what is known of the rows besides their columns, for the card.
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
    recorded: cards.Recorded

    def write(self, hub: Repository, request: Request, path: Path, salt: bytes) -> WrittenRelease:
        """Write the export folder and the map of its ids."""
        task, rows, more, access = self.task, self.rows, self.augmented, self.access
        ids = release.public_ids(task, rows, salt)
        facts = cards.dataset_facts(
            task, rows, scores=self.scores, findings=self.findings, repo_id=hub.repo_id, policy=self.policy,
            access=access, attestation=request.attestation, origin=self.origin,
            gold_rows=None if more is None else len(more),
            gold_notes=list(dict.fromkeys(note for part in self.parts for note in notes_of(part))),
            recorded=replace(self.recorded, contact=request.contact),
        )  # fmt: skip
        named = isinstance(self.corrector, str)
        corrector = release.salted_digest(salt, "corrector", self.corrector) if named else None
        provenance = release.release_facts(
            task, kind="dataset", repo_id=hub.repo_id, access=access, policy=_policy_fingerprint(self.policy),
            gold=release.gold_fingerprint(task, self.parts, salt), corrector=corrector,
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
            task, views, path, describe=partial(_card_and_metadata, facts, hub.url if request.push else None),
            access=access, physionet_name=physionet_name(task, hub.repo_id), release=provenance,
            checks=[content_check(seen)],
        )  # fmt: skip
        id_map = release.write_map(task, rows, ids, path, written.content, salt)
        return WrittenRelease(written, provenance | {"map": id_map.name})


@dataclass(frozen=True)
class ModelRelease:
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

    def write(self, hub: Repository, request: Request, path: Path, salt: bytes) -> WrittenRelease:
        """Write the export folder, after a membership test."""
        task, folder, trained, access = self.task, self.folder, self.trained, self.access
        tested, untested = _membership_test(task, folder, trained, self.parts, self.membership)
        parents = release.parents_of(trained, release.entries(path.parent), path.parent, salt)
        facts = card_models.model_card_facts(
            task, trained, self.scores, repo_id=hub.repo_id, access=access, attestation=request.attestation,
            architecture=architecture(folder), parents=parents, membership=tested.note if tested else "",
            untested=untested, exposure=self.exposure,
            widget=widget_texts(task, self.examples, self.parts, access, **self.detectors),
        ) | {"contact": checked_contact(request.contact)}  # fmt: skip
        provenance = release.release_facts(
            task, kind="model", repo_id=hub.repo_id, access=access,
            gold=release.gold_fingerprint(task, self.parts, salt), derives_from=parents,
        )  # fmt: skip
        seen = replace(self.seen, secrets=(*self.seen.secrets, hub.token))
        written = export.write_model(
            task, folder, path, card=card_text.model_card(facts), facts=trained, access=access,
            eval_results=card_text.eval_results(facts) if self.scores else "",
            physionet_name=physionet_name(task, hub.repo_id), release=provenance,
            checks=[content_check(seen), weights_check(task), load_check(task, folder)],
        )  # fmt: skip
        tests = {"membership": tested.to_json() if tested else untested, "weights": weights_sha256(path)}
        remark = str(tested) if tested else f"no membership test was made: {untested}"
        weak = weakness_text("the model", vars(self.scores)) if self.scores is not None else ""
        return WrittenRelease(written, provenance | tests, (*((weak,) if weak else ()), remark))


def _card_and_metadata(facts: Mapping[str, Any], url: str | None, folder: Path) -> dict[str, str]:
    """Return the card and the metadata of a folder of rows, which state their schema."""
    info = dataset_info(folder, [config["name"] for config in facts["configs"]])
    card = card_text.dataset_card({**facts, "dataset_info": info})
    return {"README.md": card, release.CROISSANT: croissant(facts, folder, url)}


def physionet_name(task: Task, repo_id: str) -> str:
    """Return a name as PhysioNet asks for derived datasets: SOURCE-Ext-NAME."""
    name = repo_id.split("/")[-1]
    return name if "-Ext-" in name else f"{task.name}-Ext-{name}"


def _policy_fingerprint(policy: AnyPolicy) -> dict[str, Any] | None:
    """Return method and fingerprint of a policy, for release.json."""
    if policy is None or isinstance(policy, str):
        return {"method": policy, "fingerprint": None} if policy else None
    known = policy if isinstance(policy, Policy) else Policy.from_json(policy)
    return {"method": known.method, "fingerprint": known.fingerprint()}


def _membership_test(
    task: Task, folder: Path, trained: Mapping[str, Any], gold: Sequence[Dataset], requested: Membership | bool
) -> tuple[Membership | None, str]:
    """Return the result of a membership test, or None and why there is none."""
    if isinstance(requested, bool):
        return membership_of(task, folder, trained, gold) if requested else (None, "none was wanted")
    if not requested.members:
        return None, requested.note.removeprefix("not tested: ")
    return requested, ""
