"""Access control of publishing: what may be published, where, and whether the gold given is the gold it came from.

`gate` is one pure function that every push and every export goes through:

    access        export folder   private repository                       public repository
    open          yes             yes                                      yes
    restricted    with gold       with gold, gated unless asked otherwise  with recorded gold, audit and attestation
    credentialed  with gold       with gold, on the institution's own Hub  never

"With gold": the gold was given, no record contradicts it, and the export was compared with it. "With recorded gold":
records confirm that it is the gold. A dataset is refused if the audit fails or finds more than 1% of the planted
canaries; a model that memorised canaries, or whose memorisation was not measured, stays private. A private repository
becomes public only if all that it can reach is a release of ours that may be public, and if it was not withdrawn
(`history`). PhysioNet and n2c2 count data derived from credentialed data as credentialed (PhysioNet, guidelines for
creating datasets and models from MIMIC, 2024).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from hf_synth.llm.endpoints import is_local
from hf_synth.privacy.findings import MAX_COPIED_SHARE, Findings
from hf_synth.privacy.membership import Exposure
from hf_synth.privacy.report import nearness
from hf_synth.publishing.changes import Changes
from hf_synth.task.columns import Access, strictest
from hf_synth.task.display import Displayed, counted, listed
from hf_synth.task.labels import MARKS, column_of, gold_marks, row_digests, rows_and_texts
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Kind = Literal["dataset", "model"]
Gated = Literal[False, "auto", "manual"]
Visible = Literal["public", "private"]
Confirm = Callable[["Verdict"], bool]

# The user vouches that these hosts, separated by commas, are the institution's own.
INSTITUTION_HUBS = "HF_SYNTH_INSTITUTION_HUBS"
_HOW_TO_PUSH = "; --push (push=True) sends it"
_PUBLIC_HUBS = ("huggingface.co", "hf.co")


@dataclass(frozen=True, repr=False)
class Verdict(Displayed):
    """The gate's decision, and what was done after it.

    Args:
        kind: "dataset" or "model".
        repo_id: of the repository.
        access: the strictest access of everything it came from.
        allowed: whether the request may be carried out; if not, nothing was exported and nothing sent.
        reasons: sentences: why it was refused, or else remarks.
        private, gated: of the repository, as it is or will be.
        counts: numbers of rows or files by what happened to them.
        hub: address of the repository on its Hub.
        push: whether it is to be pushed there.
        export: the export folder; None until it is written.
        url, commit, tag: of the repository, once pushed and read back.
        changes: what it changes in the repository; None where it is not to be pushed, or that was not looked at.
    """

    kind: Kind
    repo_id: str
    access: Access
    allowed: bool
    reasons: tuple[str, ...]
    private: bool = True
    gated: Gated = False
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    hub: str | None = None
    push: bool = True
    export: Path | None = None
    url: str | None = None
    commit: str | None = None
    tag: str | None = None
    changes: Changes | None = None

    @property
    def pushed(self) -> bool:
        """Whether the release is on a Hub, was read back and is equal."""
        return self.commit is not None

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return the decision; where it goes or went, the reasons, and the counts."""
        visibility = f"{'private' if self.private else 'public'}{f', gated ({self.gated})' if self.gated else ''}"
        where = self.url if self.pushed else f"to be pushed to {self.hub}" if self.hub and self.push else "not pushed"
        tag = f", tag {self.tag}" if self.tag else ""
        lines = [("repository", f"{where} ({visibility}){tag}"), ("reasons", "; ".join(self.reasons))]
        lines += [("counts", listed(counted(self.counts)))]
        lines += [("export folder", str(self.export or ""))]
        return f"{'allowed' if self.allowed else 'refused'}, {self.kind} {self.repo_id}, access {self.access}", lines

    def __bool__(self) -> bool:
        raise TypeError("a verdict has no truth value: use .allowed or .pushed")

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        plain |= {"reasons": list(self.reasons), "counts": dict(self.counts), "pushed": self.pushed}
        plain["changes"] = None if self.changes is None else self.changes.to_json()
        return plain | {"export": None if self.export is None else str(self.export)}

    def __str__(self) -> str:
        visibility = "private" if self.private else "public"
        gated = f", gated ({self.gated})" if self.gated else ""
        lines = [f"{'allowed' if self.allowed else 'refused'}: {self.kind} {self.repo_id}, access {self.access}"]
        if self.hub and not self.pushed:
            lines.append(
                f"  to: {self.hub} ({visibility}{gated})"
                if self.push
                else f"  nothing was sent to {self.hub}{_HOW_TO_PUSH if self.allowed else ''}"
            )
        lines += [f"  - {reason}" for reason in self.reasons]
        if self.counts:
            lines.append("  " + ", ".join(counted(self.counts)))
        if self.export:
            lines.append(f"  export folder: {self.export}")
        if self.changes is not None and not self.pushed:
            lines += [f"  {line}" for line in str(self.changes).splitlines()]
        if self.pushed:
            tag = f", tag {self.tag}" if self.tag else ""
            lines.append(f"  published: {self.url} ({visibility}{gated}), commit {self.commit}{tag}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Args:
        repo_id: of the repository.
        push: whether to push to a Hub; otherwise only an export folder is written.
        private: None is private, but leaves an open repository that is already public as it is.
        gated: None gates everything that is not open.
        attestation: who allows a public repository of restricted data, and when.
        tag: of the release; None is the next of v1, v2, ...
        dry_run: only decide.
        confirm: called with the verdict before anything is sent; nothing is sent if it returns False.
        export_dir: the export folder; None is "export/NAME".
        squash: whether what the repository holds besides this release is deleted, its history too.
        contact: whom to ask for access, for the card.
    """

    repo_id: str
    push: bool = True
    private: bool | None = None
    gated: bool | Literal["auto", "manual"] | None = None
    attestation: str | None = None
    tag: str | None = None
    dry_run: bool = False
    confirm: Confirm | None = None
    export_dir: str | Path | None = None
    squash: bool = False
    contact: str | None = None


@dataclass(frozen=True)
class Evidence:
    """What is known of a dataset or model to be published, and of the Hub.

    Args:
        access: of everything it came from, joined with the task's; None counts as credentialed.
        findings: of the audit; a dataset without them is refused. Models have none.
        gold_given: whether there was gold (at least one row) to compare with.
        origin: whether that is the gold it came from; None is unknown.
        exposure: how well a model knows canaries planted in its gold; None without canaries.
        unmeasured: that exposure was not measured, and why; "" if it was, or without canaries.
        counts: for the verdict.
        institution: whether the Hub is the institution's own (`is_institution`).
        visible: how the repository can be seen now; None if it does not exist.
        shown: what else would become public with a private repository, in words (`history.unreleased_contents`).
        withdrawn: whether the repository was withdrawn earlier.
        hub: address of the repository.
        doubts: what speaks against the labels of the rows, for the remarks.
    """

    access: str | None
    findings: Findings | None
    gold_given: bool
    origin: Origin | None = None
    exposure: Exposure | None = None
    unmeasured: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    institution: bool = False
    visible: Visible | None = None
    shown: tuple[str, ...] = ()
    withdrawn: bool = False
    hub: str | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """The result of comparing gold with the records of where rows or a model came from.

    Args:
        problems: why the gold is not, or not all of, the gold they came from.
        summary: what was compared, one sentence for verdict and card.
        known: whether there were records to compare with.
    """

    problems: tuple[str, ...] = ()
    summary: str = ""
    known: bool = False


def gate(task: Task, kind: Kind, evidence: Evidence, request: Request) -> Verdict:
    """Decide whether a dataset or model may be published as requested."""
    access, private, gated = strictest(task.access, evidence.access), request.private, request.gated
    if private is None:
        private = not (access == "open" and evidence.visible == "public")
    if not isinstance(gated, str):
        gated = "manual" if gated or (gated is None and access != "open") else False
    problems = _problems(kind, access, private, evidence, request)
    reasons = tuple(problems or _remarks(access, private, evidence, request))
    counts = MappingProxyType(dict(evidence.counts))
    return Verdict(
        kind, request.repo_id, access, not problems, reasons, private, gated, counts, evidence.hub, request.push
    )


def is_institution(endpoint: str) -> bool:
    """Return whether a Hub is the institution's own: on this machine, in a private network, or listed by the user.

    Names are not resolved, since what a name points to can change: list a host name in HF_SYNTH_INSTITUTION_HUBS. A
    listed Hub needs https, since it may lie outside the own network. The public Hub never counts.
    """
    address = urlsplit(endpoint)
    host = (address.hostname or "").lower().rstrip(".")
    if not host or any(host == h or host.endswith("." + h) for h in _PUBLIC_HUBS):
        return False
    if host == "localhost":
        return True
    try:
        return is_local(host)
    except ValueError:
        listed = {h.strip().lower() for h in os.environ.get(INSTITUTION_HUBS, "").split(",") if h.strip()}
        return address.scheme == "https" and host in listed


def gold_parts(gold: Dataset | DatasetDict | None) -> tuple[Dataset | None, Dataset | None]:
    """Return the gold that may have been seen, and the test split as held-out gold; None for a part without rows."""
    from datasets import Dataset, concatenate_datasets

    if gold is None or isinstance(gold, Dataset):
        return (gold if gold is not None and len(gold) else None), None
    seen = [rows for split, rows in gold.items() if not (split == "test" and len(gold) > 1) and len(rows)]
    held_out = gold["test"] if "test" in gold and len(gold) > 1 and len(gold["test"]) else None
    if not seen:
        return held_out, None
    return concatenate_datasets(seen), held_out


def origin_of_rows(
    task: Task, rows: Dataset, gold: Sequence[Dataset], manifest: Mapping[str, Any] | None = None
) -> Origin:
    """Compare gold with what synthetic rows and their folder record of the gold they came from.

    Args:
        gold: its parts; without any there is nothing to compare.
        manifest: of the folder that the rows were read from.
    """
    if not gold:
        return Origin()
    problems, compared = [*_unmarked(gold), *_other_task(rows, gold)], []
    seeds = column_of(rows, "seed_ids")
    exemplars = {s for ids in seeds if ids for s in ids}
    marks, used = set((manifest or {}).get(MARKS) or ()), (manifest or {}).get("gold_rows")
    made = rows_and_texts(used if isinstance(used, int) and used > len(marks) else len(marks), len(marks))
    gold_ids = {i for part in gold if "id" in part.column_names for i in part["id"][:]}
    for expected, present, what in (
        (exemplars, gold_ids, f"{len(exemplars):,} gold rows that were shown to the generator"),
        (marks, set(gold_marks(task, *gold)) if marks else set(), f"{made} that the folder was made with"),
    ):
        if expected:
            compared.append(f"all {what}")
        if missing := len(expected - present):
            problems.append(f"the gold lacks {missing:,} of the {what}: give all of it")
    if not compared:
        return Origin(tuple(problems), "no record says which gold the rows came from, so that could not be checked")
    known = bool(marks) or all(ids is not None for ids in seeds)
    return Origin(tuple(problems), f"the gold holds {' and '.join(compared)}", known)


def origin_of_model(task: Task, facts: Mapping[str, Any], gold: Sequence[Dataset]) -> Origin:
    """Compare gold with what the facts of a model record of the gold it was trained on.

    Texts are compared. Facts of earlier releases count only rows: as many texts may be missing as rows repeat others.
    """
    if not gold:
        return Origin()
    trained, seen = int(dict(facts.get("rows") or {}).get("gold", 0)), set(facts.get("row_digests") or ())
    if not trained or not seen:
        return Origin((), "no record says which gold the model came from, so that could not be checked")
    if problems := _unmarked(gold):
        return Origin(tuple(problems), "", True)
    n_found = len({d for part in gold for d in row_digests(task, part.select_columns(list(task.text_columns)))} & seen)
    texts = int(facts.get("gold_texts") or trained - _repeated(facts, len(seen)))
    known = rows_and_texts(trained, texts) if "gold_texts" in facts else f"{texts:,} gold texts"
    learnt = f"{known} that the model was trained on"
    if n_found < texts:
        lacking = f"the gold lacks {texts - n_found:,} of the {learnt}"
        return Origin((f"{lacking}: give all of it",), lacking, True)
    return Origin((), f"the gold holds all {learnt}", True)


# --- reasons --------------------------------------------------------------------------------------------------------
def _problems(kind: Kind, access: Access, private: bool, evidence: Evidence, request: Request) -> list[str]:
    """Return why a request is refused; none if it is allowed."""
    findings, origin, push = evidence.findings, evidence.origin, request.push
    public = push and not private
    problems: list[str] = []
    if access != "open" and not evidence.gold_given:
        problems.append(f"access is {access}: give the gold, so that the export can be compared with it")
    if access != "open" and origin is not None:
        problems += origin.problems
    if kind == "dataset":
        problems += _audit_problems(findings, access)
    if public and evidence.exposure is not None and evidence.exposure.known:
        problems.append(f"the model memorised canaries planted in its gold ({evidence.exposure}): keep it private")
    if public and evidence.unmeasured:
        problems.append(f"canaries were given, but {evidence.unmeasured}; keep it private")
    if access == "credentialed" and not private:
        problems.append(
            "data derived from credentialed data is never public: keep the repository "
            "private, or offer the export to PhysioNet, which can share it under the "
            "source's agreement"
        )
    if access == "credentialed" and push and not evidence.institution:
        problems.append(
            "data derived from credentialed data may not go to a Hub outside your "
            "institution: leave out --push (push=False), or use "
            f"your institution's own Hub (a loopback or private address, or https and a host of {INSTITUTION_HUBS})"
        )
    if access == "restricted" and public:
        needs = "a public repository of restricted data needs"
        if not _attested(request):
            problems.append(f"{needs} an attestation: who allows it, and when")
        if findings is None or not findings.compared or findings.verdict != "ok":
            problems.append(f"{needs} an audit that passed, with gold to compare with")
        if origin is None or not origin.known:
            problems.append(
                f"{needs} a record of the gold it came from: publish the folder that a command wrote, or rows with "
                "their seed_ids"
            )
    if push and private and evidence.visible == "public":
        problems.append(f"repository {request.repo_id} is public already: make it private, or choose another name")
    if public and evidence.visible is not None:
        problems += _problems_of_history(evidence, request)
    return problems


def _problems_of_history(evidence: Evidence, request: Request) -> list[str]:
    """Return why a private repository may not become public: everything that it can reach would become public too."""
    another = f"choose another name, e.g. {request.repo_id}-2"
    if evidence.withdrawn:
        return [
            f"repository {request.repo_id} was withdrawn, and its Hub may still serve what was: {another}, or delete "
            "the repository first"
        ]
    if evidence.shown and not request.squash:
        return [
            f"repository {request.repo_id} is private and would also show {', '.join(evidence.shown)}, by the "
            f"publishing log beside the export: {another}, or let this release replace it all (squash=True, --squash)"
        ]
    return []


def _remarks(access: Access, private: bool, evidence: Evidence, request: Request) -> list[str]:
    """Return what the user should know of a request that is allowed."""
    remarks = [f"caution: {doubt}" for doubt in evidence.doubts]
    if evidence.findings is not None and evidence.findings.figures.get("closeness_auc_low", 0) > 0.5:
        near = nearness(evidence.findings).rstrip(".")
        remarks.append(
            f"caution: {near[0].lower()}{near[1:]}: read some of them beside the gold before they leave, since the "
            "audit does not find gold in other words"
        )
    remarks += [] if evidence.exposure is None else [str(evidence.exposure)]
    if evidence.unmeasured:
        remarks.append(evidence.unmeasured)
    if access != "open" and not private and not request.push:
        remarks.append("nothing is pushed, so it was not checked whether the repository may be public")
    if attested := _attested(request):
        remarks.append(f"attested: {attested}")
    if access == "open" and not evidence.gold_given:
        remarks.append("not compared with gold: none was given")
    if evidence.gold_given and evidence.origin is not None and evidence.origin.summary:
        remarks.append(evidence.origin.summary)
    return remarks


def _attested(request: Request) -> str:
    return " ".join((request.attestation or "").split())


def _audit_problems(findings: Findings | None, access: Access) -> list[str]:
    if findings is None:
        return ["no audit was made"]
    problems = []
    if access != "open" and not findings.compared:
        problems.append("the audit had no gold to compare with")
    if findings.verdict != "ok":
        marked = sum("gold_row" in flags for flags in findings.row_flags)
        copied, n = findings.figures["copied_rows"], findings.figures["rows"]
        advice = f"{marked:,} rows are marked as gold: publish only synthetic rows"
        if not marked:
            advice = "the generator copies gold: remove those rows, or generate with more varied prompts"
        problems.append(f"the audit found gold in {copied:,} of {n:,} rows, more than {MAX_COPIED_SHARE:.0%}; {advice}")
    planted, found = (int(findings.figures.get(f"canaries_{what}", 0)) for what in ("planted", "found"))
    if found > MAX_COPIED_SHARE * planted:  # canaries are a sample of gold: as many of its sentences were copied
        problems.append(f"{found:,} of {planted:,} canaries planted in gold are in the rows: the generator copies gold")
    return problems


# --- origin -------------------------------------------------------------------------------------------------------
def _unmarked(gold: Sequence[Dataset]) -> list[str]:
    n = sum(source != "gold" for part in gold for source in column_of(part, "source", "gold"))
    return (
        [f"{n:,} rows of the gold that was given are not marked as gold: give the folder that `hf-synth gold` wrote"]
        if n
        else []
    )


def _other_task(rows: Dataset, gold: Sequence[Dataset]) -> list[str]:
    ours, theirs = (
        {str(name).split(":")[0] for part in parts for name in column_of(part, "task") if name}
        for parts in ([rows], gold)
    )
    return (
        ["the gold that was given is of another task than the rows: give that task's gold"]
        if ours and theirs and not ours & theirs
        else []
    )


def _repeated(facts: Mapping[str, Any], texts: int) -> int:
    """Return a lower bound on how many of a model's training rows repeat others."""
    rows = sum(map(int, dict(facts.get("rows") or {}).values())) + int(facts.get("validation_rows") or 0)
    return min(max(0, rows - texts), int(facts["rows"]["gold"]) - 1)
