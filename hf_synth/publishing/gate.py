"""The gate: what may be published, and how. One pure function that every push and export goes through.

    access        export folder   private repository                       public repository
    open          yes             yes                                      yes
    restricted    with gold       with gold, gated unless said otherwise   with known gold, clean audit, an attestation
    credentialed  with gold       with gold, on the institution's own Hub  never

"with gold": the gold was given, it is not plainly another gold than the one it came from, and what leaves was compared
with it. "with known gold": records say that it is that gold. In every case the audit must not have found the rows to
hold gold, nor more than one in a hundred planted canaries, and a model that knows canaries by heart, or of which nobody
could measure whether it does, is not made public.
PhysioNet and n2c2 count what is derived from credentialed data as such data (PhysioNet, guidelines
for creating datasets and models from MIMIC, 2024).
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from hf_synth.errors import TaskError
from hf_synth.llm.endpoints import is_local
from hf_synth.privacy.findings import MAX_COPIED_SHARE, Findings
from hf_synth.privacy.membership import Exposure
from hf_synth.task.columns import Access, access_of, strictest
from hf_synth.task.labels import MARKS, gold_marks, row_digests
from hf_synth.task.scripts import load_task
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

Kind = Literal["dataset", "model"]
Gated = Literal[False, "auto", "manual"]
Visible = Literal["public", "private"]
# Hosts that a user vouches for as the institution's own, separated by commas.
INSTITUTION_HUBS = "HF_SYNTH_INSTITUTION_HUBS"
_PUBLIC_HUBS = ("huggingface.co", "hf.co")
_TASK_NAME = re.compile(r"[a-z][a-z0-9_]*(?::[a-z0-9_]+)?")


@dataclass(frozen=True)
class Verdict:
    """What the gate decided, and what was done then.

    Args:
        kind: "dataset" or "model".
        repo_id: where it goes.
        access: the strictest access of everything it came from.
        allowed: whether what was asked for may be done; if not, nothing was written and nothing sent.
        reasons: sentences: why not, or what is to be known.
        private: whether the repository is (to be) private.
        gated: whether it is (to be) gated, and how.
        counts: rows or files by what became of them.
        export: the folder that holds what leaves; None until it is written.
        url, commit, tag: of the repository, once pushed and read back.
    """

    kind: Kind
    repo_id: str
    access: Access
    allowed: bool
    reasons: tuple[str, ...]
    private: bool = True
    gated: Gated = False
    counts: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    export: Path | None = None
    url: str | None = None
    commit: str | None = None
    tag: str | None = None

    @property
    def pushed(self) -> bool:
        """Whether it is on a Hub, read back and found whole."""
        return self.commit is not None

    def __bool__(self) -> bool:
        raise TypeError("a verdict is neither true nor false: ask its .allowed or .pushed")

    def to_json(self) -> dict[str, Any]:
        """Give plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        told = {"reasons": list(self.reasons), "counts": dict(self.counts), "pushed": self.pushed}
        return plain | told | {"export": None if self.export is None else str(self.export)}

    def __str__(self) -> str:
        seen = "private" if self.private else "public"
        gated = f", gated ({self.gated})" if self.gated else ""
        lines = [f"{'allowed' if self.allowed else 'refused'}: {self.kind} {self.repo_id}, access {self.access}"]
        lines += [f"  - {reason}" for reason in self.reasons]
        if self.counts:
            lines.append("  " + ", ".join(f"{n:,} {what}" for what, n in self.counts.items()))
        if self.export:
            lines.append(f"  export folder: {self.export}")
        if self.pushed:
            tag = f", tag {self.tag}" if self.tag else ""
            lines.append(f"  published: {self.url} ({seen}{gated}), commit {self.commit}{tag}")
        return "\n".join(lines)


def gate(
    task: Task,
    kind: Kind,
    *,
    access: str | None,
    findings: Findings | None,
    gold_given: bool,
    origin: Origin | None = None,
    exposure: Exposure | None = None,
    unmeasured: str = "",
    push: bool = True,
    private: bool | None = None,
    gated: bool | Literal["auto", "manual"] | None = None,
    visible: Visible | None = None,
    institution: bool = False,
    attestation: str | None = None,
    repo_id: str = "",
    counts: Mapping[str, int] | None = None,
) -> Verdict:
    """Decide whether something may be published as asked.

    Args:
        access: of all it came from; joined with the task's, unknown counts as credentialed.
        findings: of the audit; a dataset without one is refused. Models have none.
        gold_given: whether there was gold (at least a row) to compare with.
        origin: what is known of whether that is the gold it came from; None is nothing.
        exposure: how well a model knows canaries that were planted in its gold; None where none were.
        unmeasured: that this was not measured, and why; "" where it was, or no canaries were given.
        push: whether it is to go to a Hub; else an export folder is written and stays here.
        private: as asked; None is private, but leaves an open repository that is public already as it is.
        gated: as asked; None gates what is not open.
        visible: how the repository can be seen now; None when it does not exist.
        institution: whether the Hub is the institution's own (`is_institution`).
        attestation: who allows a public repository of restricted data, and when.
    """
    worst = strictest(task.access, access)
    hidden = private if private is not None else not (worst == "open" and visible == "public")
    locked: Gated = (
        gated if isinstance(gated, str) else "manual" if gated or (gated is None and worst != "open") else False
    )
    public = push and not hidden
    no: list[str] = []
    told: list[str] = []

    if worst != "open" and not gold_given:
        no.append(f"access is {worst}: give the gold, so that what leaves can be compared with it")
    if worst != "open" and origin is not None:
        no += origin.wrong
    if kind == "dataset":
        no += _audit_says(findings, worst)
    if exposure is not None:
        told.append(str(exposure))
        if public and exposure.known:
            no.append(f"the model knows canaries by heart that were planted in its gold ({exposure}): keep it private")
    if unmeasured:
        told.append(unmeasured)
        if public:
            no.append(f"canaries were given, and {unmeasured}; keep it private")
    if worst != "open" and not hidden and not push:
        told.append("nothing is pushed: the wish for a public repository was not looked at")
    if worst == "credentialed" and not hidden:
        no.append(
            "what derives from credentialed data is never public; PhysioNet shares it under the source's agreement"
        )
    if worst == "credentialed" and push and not institution:
        no.append(
            "what derives from credentialed data goes to no outside Hub: write the export folder (push=False), or use "
            f"your institution's own Hub (a loopback or private address, or a host listed in {INSTITUTION_HUBS})"
        )
    if worst == "restricted" and public:
        if not (attestation and attestation.strip()):
            no.append("a public repository of restricted data needs an attestation: who allows it, and when")
        if findings is None or not findings.compared or findings.verdict != "ok":
            no.append("a public repository of restricted data needs an audit that passed; there is none for this")
        if origin is None or not origin.known:
            no.append(
                "a public repository of restricted data needs gold that is known to be its own: publish the folder "
                "that a verb wrote, or rows with their seed_ids"
            )
    if push and visible == "public" and hidden:
        no.append(f"repository {repo_id} is public already: make it private first, or choose another name")
    if attestation and attestation.strip():
        told.append(f"attested: {' '.join(attestation.split())}")
    if worst == "open" and not gold_given:
        told.append("not compared with gold: none was given")
    if gold_given and origin is not None and origin.told:
        told.append(origin.told)
    reasons = tuple(no or told)
    kept = MappingProxyType(dict(counts or {}))
    return Verdict(kind, repo_id, worst, not no, reasons, hidden, locked, kept)


def _audit_says(findings: Findings | None, access: Access) -> list[str]:
    if findings is None:
        return ["no audit was made"]
    no = []
    if access != "open" and not findings.compared:
        no.append("the audit had no gold to compare with")
    if findings.verdict != "ok":
        called = sum("gold_row" in flags for flags in findings.row_flags)
        copied, n = findings.figures["copied_rows"], findings.figures["rows"]
        why = f"{called:,} rows call themselves gold: publish synthetic rows alone"
        if not called:
            why = "the generator copies: take those rows out, or generate with more varied prompts"
        no.append(f"the audit found gold in {copied:,} of {n:,} rows, more than {MAX_COPIED_SHARE:.0%}; {why}")
    planted, found = (int(findings.figures.get(f"canaries_{what}", 0)) for what in ("planted", "found"))
    if found > MAX_COPIED_SHARE * planted:  # canaries are a sample of gold: as many of its sentences were copied
        no.append(
            f"{found:,} of {planted:,} canaries that were planted in gold stand in the rows: the generator copies"
        )
    return no


def is_institution(endpoint: str) -> bool:
    """Tell whether a Hub counts as the institution's own: on this machine, in a private network, or listed by the user.

    Names are not resolved, since what a name points to can change: a host by name has to be listed in
    HF_SYNTH_INSTITUTION_HUBS. The public Hub never counts.
    """
    host = (urlsplit(endpoint).hostname or "").lower().rstrip(".")
    if not host or any(host == h or host.endswith("." + h) for h in _PUBLIC_HUBS):
        return False
    if host == "localhost":
        return True
    try:
        return is_local(host)
    except ValueError:
        return host in {h.strip().lower() for h in os.environ.get(INSTITUTION_HUBS, "").split(",") if h.strip()}


# --- what the gate is told ------------------------------------------------------------------------------------------
def gold_parts(gold: Dataset | DatasetDict | None) -> tuple[Dataset | None, Dataset | None]:
    """Give gold that may have been seen, and a test split as held out; no rows is no gold."""
    from datasets import Dataset, concatenate_datasets

    if gold is None or isinstance(gold, Dataset):
        return (gold if gold is not None and len(gold) else None), None
    seen = [rows for split, rows in gold.items() if not (split == "test" and len(gold) > 1) and len(rows)]
    held_out = gold["test"] if "test" in gold and len(gold) > 1 and len(gold["test"]) else None
    if not seen:
        return held_out, None
    return concatenate_datasets(seen), held_out


def joined_access(task: Task, *datasets: Dataset, also: Sequence[str | None] = ()) -> Access:
    """Join the access of a task, of rows, and of the tasks that rows name, so that no label alone loosens it.

    A name of another task that is not known here counts as credentialed.

    Args:
        also: further accesses to join, e.g. that of the folder's manifest.
    """
    found: list[str | None] = [task.access, *also, *(access_of(rows) for rows in datasets)]
    for rows in datasets:
        for name in set(rows["task"]) if "task" in rows.column_names else ():
            if name is not None:
                found.append(_access_of_task(task, name))
    return strictest(*found)


def _access_of_task(task: Task, name: Any) -> str | None:
    """Look a task up by the name that rows give it; a path is never run."""
    if isinstance(name, str) and _TASK_NAME.fullmatch(name):
        with contextlib.suppress(TaskError):
            return load_task(name).access
    return task.access if name == task.full_name else None


@dataclass(frozen=True)
class Origin:
    """What is known of where something came from.

    Args:
        wrong: why the gold given is not, or not all of, the gold it came from.
        told: what was compared, as a sentence for verdict and card.
        known: whether anything was recorded to compare with.
    """

    wrong: tuple[str, ...] = ()
    told: str = ""
    known: bool = False


def origin_of_rows(
    task: Task, rows: Dataset, gold: Sequence[Dataset], manifest: Mapping[str, Any] | None = None
) -> Origin:
    """Compare gold with what synthetic rows say of the gold they came from.

    Args:
        gold: its parts; none is nothing to compare.
        manifest: of the folder that the rows were read from.
    """
    if not gold:
        return Origin()
    wrong, told = _not_gold(rows, gold), []
    seeds = list(rows["seed_ids"]) if "seed_ids" in rows.column_names else [None]
    shown = {s for ids in seeds if ids for s in ids}
    if shown:
        there = {i for part in gold if "id" in part.column_names for i in part["id"]}
        if shown - there:
            wrong.append(
                f"the gold lacks {len(shown - there):,} of the {len(shown):,} rows that were shown to the generator: "
                "give all of it"
            )
        told.append(f"all {len(shown):,} gold rows that were shown to the generator")
    marks = set((manifest or {}).get(MARKS) or ())
    if marks:
        missing = len(marks - set(gold_marks(task, *gold)))
        if missing:
            wrong.append(f"the gold lacks {missing:,} of the {len(marks):,} gold rows that the folder was made with")
        told.append(f"all {len(marks):,} gold rows that the folder was made with")
    if not told:
        return Origin(tuple(wrong), "nothing recorded says which gold the rows came from: that could not be checked")
    known = bool(marks) or (bool(shown) and all(ids is not None for ids in seeds))
    return Origin(tuple(wrong), f"the gold holds {' and '.join(told)}", known)


def origin_of_model(task: Task, facts: Mapping[str, Any], gold: Sequence[Dataset]) -> Origin:
    """Compare gold with what the facts of a model say of the gold it was trained on, text by text.

    A text counts once, however often it stands in what is given. Facts of earlier releases count rows alone: there as
    many texts may be wanting as rows of the training set are known to repeat others.
    """
    if not gold:
        return Origin()
    trained = int(dict(facts.get("rows") or {}).get("gold", 0))
    seen = set(facts.get("row_digests") or ())
    if not trained or not seen:
        return Origin((), "nothing recorded says which gold the model came from: that could not be checked")
    if others := sum(s != "gold" for part in gold if "source" in part.column_names for s in part["source"]):
        return Origin((f"{others:,} rows of what was given as gold do not call themselves gold",), "", True)
    columns = list(task.text_columns)
    there = len({d for part in gold for d in row_digests(task, part.select_columns(columns))} & seen)
    texts = int(facts.get("gold_texts") or trained - _repeated(facts, len(seen)))
    if there < texts:
        lacking = f"the gold lacks {texts - there:,} of the {texts:,} gold texts that the model was trained on"
        return Origin((f"{lacking}: give all of it",), lacking, True)
    return Origin((), f"the gold holds all {texts:,} gold texts that the model was trained on", True)


def _repeated(facts: Mapping[str, Any], texts: int) -> int:
    """Give how many rows a model saw that repeat others at least, by what its facts count."""
    rows = sum(map(int, dict(facts.get("rows") or {}).values())) + int(facts.get("validation_rows") or 0)
    return min(max(0, rows - texts), int(facts["rows"]["gold"]) - 1)


def _not_gold(rows: Dataset, gold: Sequence[Dataset]) -> list[str]:
    """Tell where what was given as gold calls itself something else."""
    wrong = []
    others = sum(s != "gold" for part in gold if "source" in part.column_names for s in part["source"])
    if others:
        wrong.append(f"{others:,} rows of what was given as gold do not call themselves gold")
    mine = {str(name).split(":")[0] for name in (rows["task"] if "task" in rows.column_names else ()) if name}
    named = {str(n).split(":")[0] for part in gold if "task" in part.column_names for n in part["task"] if n}
    if mine and named and not mine & named:
        wrong.append("the gold given is of another task than the rows")
    return wrong
