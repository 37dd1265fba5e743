"""The stages of a journey that lie in a folder: what each holds, what it was made of, and whether it is out of date.

A verb records in the manifest of its folder a digest of each folder that it read (`note_inputs`). A stage is out of
date when the folder no longer holds what it was made of. Where nothing was recorded, as by the Python API and by
earlier versions, the times at which the folders were written decide.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from argparse import Namespace
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hf_synth.cli.config import is_secret
from hf_synth.cli.options import Result, gold_path
from hf_synth.errors import HfSynthError
from hf_synth.models.record import FACTS
from hf_synth.task.columns import MANIFEST, STATUSES
from hf_synth.task.folders import edited_files, file_digest, read_manifest, write_private

ORDER = ("gold", "generate", "correct", "augment", "train", "evaluate", "publish")  # verbs of the journey
# The stages that a stage may be made of. Of the kinds in one tuple, the first that is there is meant.
_INPUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "generate": (("gold",),),
    "correct": (("gold",), ("generate",)),
    "augment": (("gold",), ("correct", "generate")),
    "train": (("augment",), ("gold",)),
    "evaluate": (("gold",), ("train",)),
    "publish": (),  # by what it is: a model or notes
}
_READ = ("synthetic", "data", "model", "corrector", "notes", "folder")  # options that may name a stage's folder
_MADE_OF, _RAN_WITH = "made_of", "ran_with"  # in a manifest
_KEPT_OPTIONS = ("llm", "judge", "base_model", "base_url", "gold_size", "seed")
_TASK_NAME = re.compile(r"[a-z][a-z0-9_]*(:[a-z0-9_]+)?")
_MOST_JSON = 20 << 20  # bytes of a file that may hold scores


@dataclass(frozen=True)
class Stage:
    """One stage of a journey, as it lies on disk.

    Args:
        kind: the verb that wrote it: "gold", "generate", "correct", "augment", "train", "evaluate", "publish", and
            "run", "experiment", "audit" and "label" outside the journey.
        path: its folder, or the file of scores.
        task: full name of its task; "" where nothing states it.
        version: version of the task.
        when: when it was written, in seconds since 1970.
        facts: its manifest, the facts of the model, or the scores.
        digest: of its content (`content_digest`); "" until it is read.
        rows: rows by split or status, in words.
        edited: files that a person edited.
        outdated: why it is out of date, a sentence each.
    """

    kind: str
    path: Path
    task: str
    version: str
    when: float
    facts: Result
    digest: str = ""
    rows: str = ""
    edited: tuple[str, ...] = ()
    outdated: tuple[str, ...] = ()

    @property
    def made_by(self) -> str:
        """The LLM, the method of correction, or the base model that it was made with; "" where none was used."""
        facts = self.facts
        if self.kind in ("generate", "label"):
            return str(facts.get("generator") or self.options.get("llm") or "")
        if self.kind == "correct":
            policy, ran = facts.get("policy"), self.options
            method = str(policy.get("method") or "") if isinstance(policy, dict) else ""
            opinion = "" if method == "none" else ran.get("judge") or ran.get("base_model")
            return method + (f" with {opinion}" if opinion else "")
        if self.kind == "train":
            return str(facts.get("base_model") or "")
        return ""

    @property
    def options(self) -> Result:
        """Options that the verb was given, of those that later verbs need."""
        noted = self.facts.get(_RAN_WITH)
        kinds: dict[str, type] = {"gold_size": int, "seed": int}
        plain = noted.items() if isinstance(noted, dict) else ()
        return {name: v for name, v in plain if name in _KEPT_OPTIONS and isinstance(v, kinds.get(name, str))}


# --- what lies in a folder ------------------------------------------------------------------------------------------
def stages_in(folder: Path) -> list[Stage]:
    """Return the stages that lie directly in a folder, and the releases in its folder "export", in the journey's order.

    Only manifests and small JSON files are read. What cannot be read is no stage.
    """
    with contextlib.suppress(OSError):
        paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        export = folder / "export"
        paths += sorted(path for path in export.iterdir() if path.is_dir()) if export.is_dir() else []
        found = [stage for path in paths if (stage := stage_at(path)) is not None]
        order = {kind: place for place, kind in enumerate(ORDER)}
        return sorted(found, key=lambda stage: (order.get(stage.kind, len(ORDER)), stage.when))
    return []


def stage_at(path: Path) -> Stage | None:
    """Return the stage that a path is; None for anything else."""
    try:
        return (_folder(path) if path.is_dir() else _scores(path)) if path.exists() else None
    except (HfSynthError, OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None


def _folder(path: Path) -> Stage | None:
    release = path / "release.json"
    if release.is_file():
        return _stage("publish", path, release, json.loads(release.read_text(encoding="utf-8")))
    manifest = read_manifest(path)
    if manifest is None:
        results = path / "results"
        if (results / MANIFEST).is_file():
            return _stage("experiment", path, results / MANIFEST, read_manifest(results) or {})
        if (path / "report.html").is_file() and (path / "scores.json").is_file():
            inner = read_manifest(path / "corrected") or read_manifest(path / "synthetic") or {}
            return _stage("run", path, path / "scores.json", {k: inner.get(k) for k in ("task", "task_version")})
        return None
    if (path / FACTS).is_file():
        learnt = json.loads((path / FACTS).read_text(encoding="utf-8"))
        manifest = {**learnt, **manifest, "row_digests": None}
    return _stage(str(manifest.get("stage") or ""), path, path / MANIFEST, manifest)


def _scores(path: Path) -> Stage | None:
    if path.suffix != ".json" or path.stat().st_size > _MOST_JSON:
        return None
    facts = json.loads(path.read_text(encoding="utf-8"))
    if not {"task", "n", "values", "per_class"} <= set(facts):
        return None
    return _stage("evaluate", path, path, facts)


def _stage(kind: str, path: Path, written: Path, facts: Result) -> Stage | None:
    if not kind or not isinstance(facts, dict):
        return None
    task, version = str(facts.get("task") or ""), str(facts.get("task_version") or "")
    # a folder may come from somebody else: what is no plain name could be the path of a script, which would be run
    task = task if _TASK_NAME.fullmatch(task) else ""
    return Stage(kind, path, task, version[:20], written.stat().st_mtime, facts)


def newest(stages: Iterable[Stage], task: str = "") -> dict[str, Stage]:
    """Return the stage of each kind that was written last; of one task where it is named."""
    return {stage.kind: stage for stage in sorted(stages, key=lambda s: s.when) if task in ("", stage.task)}


# --- what a stage was made of ---------------------------------------------------------------------------------------
def content_digest(path: Path, facts: Mapping[str, Any]) -> str:
    """Return a digest of the rows of a folder, or of the weights of a model as its facts state them."""
    if isinstance(facts.get("weights"), str):
        return str(facts["weights"])[:32]
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    listed = json.dumps([[file.name, file_digest(file)] for file in files])
    return hashlib.sha256(listed.encode()).hexdigest()[:32]


def inputs_of(args: Namespace) -> dict[str, str]:
    """Return the digest of each stage that a verb is about to read, by the stage's kind."""
    paths = [path for name in _READ if (path := getattr(args, name, None)) is not None]
    if hasattr(args, "gold") and isinstance(getattr(args, "task", None), str):
        with contextlib.suppress(HfSynthError):
            paths.append(gold_path(args) if args.gold is None or isinstance(args.gold, Path) else None)
    found = [stage_at(Path(path)) for path in paths if isinstance(path, str | Path)]
    with contextlib.suppress(OSError):
        return {s.kind: content_digest(s.path, s.facts) for s in found if s is not None and s.path.is_dir()}
    return {}


def note_inputs(args: Namespace, inputs: Mapping[str, str]) -> None:
    """Record in what a verb wrote which stages it read, and the options that later verbs need."""
    out = getattr(args, "out", None)
    stage = stage_at(out) if isinstance(out, Path) else None
    if stage is None or stage.kind not in _INPUTS or stage.kind == "publish":
        return
    given = {
        name: value
        for name in _KEPT_OPTIONS
        if (value := getattr(args, name, None)) not in (None, "", 0) and not is_secret(name, value)
    }
    file = stage.path / MANIFEST if stage.path.is_dir() else stage.path
    with contextlib.suppress(HfSynthError, OSError, ValueError):
        facts = json.loads(file.read_text(encoding="utf-8"))
        write_private(file, json.dumps({**facts, _MADE_OF: dict(inputs), _RAN_WITH: given}, indent=1) + "\n")


# --- out of date ----------------------------------------------------------------------------------------------------
def add_facts(stages: Sequence[Stage]) -> list[Stage]:
    """Return stages with their rows, what a person edited, and why they are out of date: every file is read once."""
    read = [replace(s, digest=_digest(s), rows=_rows(s), edited=_edited(s)) for s in stages]
    reference = next((s.task for s in read if s.kind == "gold" and s.task), "")
    done: list[Stage] = []
    for stage in read:
        reasons = [] if stage.kind in ("run", "experiment", "audit", "label") else list(_outdated(stage, read, done))
        if stage.kind == "audit":
            reasons = list(_outdated_audit(stage, read))
        if reference and stage.task not in ("", reference):
            reasons = [f"is of task {stage.task}, while the gold here is of {reference}"]
        done.append(replace(stage, outdated=tuple(reasons)))
    return done


def _digest(stage: Stage) -> str:
    with contextlib.suppress(OSError):
        return content_digest(stage.path, stage.facts)
    return ""


def _outdated(stage: Stage, every: Sequence[Stage], done: Sequence[Stage]) -> Iterable[str]:
    """Yield why a stage does not follow from the other stages of its folder.

    Args:
        every: all stages of the folder.
        done: those before it, for which it is known.
    """
    noted = stage.facts.get(_MADE_OF)
    inputs = _INPUTS.get(stage.kind, ())
    if stage.kind == "publish":
        inputs = (("train",),) if stage.facts.get("kind") == "model" else (("correct", "generate"),)
    if stage.kind == "generate" and stage.facts.get("no_gold") is True:
        inputs = ()  # gold that is there was made of these notes
    if not isinstance(noted, dict) and stage.kind == "train" and not set(stage.facts.get("rows") or ()) - {"gold"}:
        inputs = (("gold",),)  # of gold alone
    for kinds in inputs:
        beside = [s for s in every if s.kind in kinds and s.path != stage.path and stage.task in ("", s.task)]
        used = None
        if isinstance(noted, dict):
            kinds = tuple(kind for kind in kinds if kind in noted)
            beside = [s for s in beside if s.kind in kinds]
            used = next((s for s in beside if s.digest == noted.get(s.kind)), None)
            if beside and used is None:
                yield f"was made of earlier content of {_names(beside)}"
        elif beside:
            first = next(kind for kind in kinds if any(s.kind == kind for s in beside))
            beside = [s for s in beside if s.kind == first]
            used = next((s for s in beside if s.when <= stage.when), None)
            if used is None:
                yield f"is older than {_names(beside)}"
        before = next((s for s in done if used is not None and s.path == used.path), None)
        if before is not None and before.outdated:
            yield f"was made of {before.path.name}, which is out of date"
    yield from _other_version(stage)


def _outdated_audit(stage: Stage, every: Sequence[Stage]) -> Iterable[str]:
    """Yield that the gold, or the notes that an audit looked at, were written after it."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, RecursionError):
        audited = json.loads((stage.path / "audit.json").read_text(encoding="utf-8")).get("synthetic")
        newer = [s for s in every if s.when > stage.when and (s.kind == "gold" or s.path.name == Path(audited).name)]
        if newer:
            yield f"is older than {' and '.join(dict.fromkeys(s.path.name for s in newer))}"


def _names(stages: Sequence[Stage]) -> str:
    return " or ".join(dict.fromkeys(stage.path.name for stage in stages))


def _other_version(stage: Stage) -> Iterable[str]:
    """Yield that a stage is of another version of its task than hf_synth has; a task of a table has its own."""
    from hf_synth.task.scripts import load_task

    if not stage.version or "definition" in stage.facts or stage.kind == "publish":
        return
    with contextlib.suppress(HfSynthError):
        now = load_task(stage.task).version
        if now != stage.version:
            yield f"is of version {stage.version} of task {stage.task}, which is now at {now}"


def _edited(stage: Stage) -> tuple[str, ...]:
    from hf_synth.models.record import weights_sha256

    if not stage.path.is_dir():
        return ()
    try:
        names = edited_files(stage.path) if stage.kind not in ("run", "experiment", "publish") else []
        if stage.kind == "train" and isinstance(stage.facts.get("weights"), str):
            names += ["its weights"] if weights_sha256(stage.path) != stage.facts["weights"] else []
        return tuple(names)
    except (HfSynthError, OSError):
        return ("files that cannot be read",)


# --- rows -----------------------------------------------------------------------------------------------------------
def _rows(stage: Stage) -> str:
    """Return how many rows a stage has, by split, status or source, in words."""
    try:
        return _rows_of(stage)
    except (ValueError, TypeError, AttributeError, KeyError):  # a file that somebody else wrote
        return "figures that cannot be read"


def _rows_of(stage: Stage) -> str:
    facts, rows = stage.facts, stage.facts.get("rows")
    if stage.kind == "gold" and isinstance(rows, dict):
        return _counted(rows)
    if stage.kind == "train" and isinstance(rows, dict):
        return _counted(rows)
    if stage.kind == "evaluate":
        return _score(facts)
    column = {"generate": "label_status", "correct": "label_status", "label": "label_status", "augment": "source"}
    if stage.kind in column:
        with contextlib.suppress(Exception):  # a file that is no parquet, or lacks the column
            return _counted(column_counts(stage.path, column[stage.kind]))
        return "rows that cannot be read"
    if stage.kind == "publish":
        return " ".join(str(facts.get(name) or "") for name in ("kind", "repo_id")).strip()
    return ""


def column_counts(path: Path, column: str) -> Counter[str]:
    """Count the values of a column in the parquet files of a folder."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    counts: Counter[str] = Counter()
    for file in sorted(path.glob("*.parquet")):
        for pair in pc.value_counts(pq.read_table(file, columns=[column])[column]).to_pylist():
            counts[str(pair["values"] or "unmarked")] += pair["counts"]
    return counts


def _counted(counts: Mapping[str, Any]) -> str:
    order = {name: place for place, name in enumerate(("gold", *STATUSES))}
    named = sorted(counts, key=lambda name: order.get(name, -1 if name == "train" else len(order)))
    return ", ".join(f"{counts[name]:,} {name}" for name in named if isinstance(counts[name], int) and counts[name])


def _score(facts: Mapping[str, Any]) -> str:
    """Return the main score with the number of rows, and the labels that are never found."""
    values = facts.get("values") or {}
    name = "macro_f1" if "macro_f1" in values else next(iter(values), "")
    words = f"{name} {values[name]:.3f} on {facts.get('n')} rows" if name else ""
    never = ", ".join(facts.get("never_found") or ())
    return words + (f"; never finds {never}" if never else "")
