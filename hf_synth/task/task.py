"""Task: one clinical task as a frozen value, and the one place that defines the column contract.

A note travels as a row of a `datasets.Dataset`. Every stage takes rows with the columns below and adds some; the
columns are the only thing that stages share.

    id, group                     stable id; patient / admission / note that must not straddle a split
    <text columns>, <label>       the task's own columns
    source                        "gold", "synthetic" or "unlabelled" (a label, never trusted alone by the gate);
                                  unlabelled: a real note to which an LLM gave the label. Its text is gold's and never
                                  leaves, its label is no more certain than a synthetic row's
    task, task_version, access    where the row comes from, and what may be done with it
    seed_ids, prompt_sha256, generator, journal_key, sampling, created
    answer_code                   how the answer ended: the endpoint's finish reason, or "http_500", "timeout", ...
    prompt_tokens, completion_tokens, cost_usd   of the answer, on the first row that came of it: they add up
                                  provenance of a synthetic row; local only, dropped at export
    llm_label                     what the generator meant
    label_status, reason          kept | relabelled | dropped | rejected, and why (REASONS)
    label_probs, label_confidence, weight
                                  posterior over the labels, its maximum, the training weight; added by correction
    judged                        multi_label gold only, optional (Task.partly_judged): the labels that somebody
                                  judged, present or not; absent or null means all. What was not counts neither way

Nothing here loads torch, openai or transformers; `datasets` is loaded when features are first asked for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import pkgutil
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.errors import ColumnError, TaskError

if TYPE_CHECKING:
    from datasets import Dataset, Features

Kind = Literal["single_label", "multi_label", "text2text"]
Access = Literal["open", "restricted", "credentialed"]

KINDS: tuple[Kind, ...] = ("single_label", "multi_label", "text2text")
ACCESSES: tuple[Access, ...] = ("open", "restricted", "credentialed")  # loosest first

STATUSES = ("kept", "relabelled", "dropped", "rejected")
REASONS: dict[str, str] = {
    # kept
    "as_generated": "no correction was made: the label is the generator's",
    "agrees": "corrector and generator agree",
    "abstained": "the policy left the generator's label alone",
    "posterior_agrees": "generator and corrector together favour the generator's label",
    "weighted": "the generator's label stays, and counts as much as it is believed",
    "audited": "a person looked at the row and gave the label",
    "judged": "a real note, labelled by an LLM",
    # relabelled
    "argmax": "replaced by the corrector's most probable label",
    "posterior": "generator and corrector together favour another label",
    "rewritten": "the corrector's text replaces the generator's",
    # dropped
    "disagrees": "corrector and generator disagree",
    "label_issue": "confident learning holds the label for wrong",
    "not_in_text": "the target is not found in the text, where gold's targets are",
    "unknown_target": "the target is none of those that the task allows",
    # rejected: no usable row came of the answer
    "refusal": "the generator declined to answer",
    "unparsable": "the answer is not in the form that was asked for",
    "unknown_label": "the answer carries a label outside the task's set",
    "empty": "the text is empty or far too short",
    "truncated": "the answer was cut off at the token limit",
    "duplicate": "the same text came before, in gold or in an earlier row",
    "near_duplicate": "almost the same text came before in an earlier row",
    "copied": "the text repeats a gold text, or a long run of its words",
    "too_long": "the text is several times as long as any that was shown",
    "language": "the text is in another language than the gold",
    "template": "the text holds a place to be filled in, e.g. [patient name]",
    "facts_differ": "by the task's rule the text does not state the facts that were asked for",
    "label_leak": "the text names its own label",
    "llm_error": "the endpoint gave no answer",
    "budget": "the budget was spent before this call",
}

GOLD_COLUMNS = ("id", "group", "source", "task", "task_version", "access")
USAGE_COLUMNS = ("prompt_tokens", "completion_tokens", "cost_usd")
PROVENANCE_COLUMNS = (
    "seed_ids", "prompt_sha256", "generator", "journal_key", "answer_code", "sampling", "created", *USAGE_COLUMNS,
)  # fmt: skip
SYNTHETIC_COLUMNS = (*GOLD_COLUMNS, *PROVENANCE_COLUMNS, "llm_label", "label_status", "reason")
CORRECTION_COLUMNS = ("label_probs", "label_confidence", "weight")
JUDGED = "judged"
UNLABELLED = "unlabelled"  # the source of real notes that no person labelled

_TABLE_SUFFIXES = ("csv", "tsv", "jsonl", "parquet")
TABLES: dict[str, tuple[str, ...]] = {  # the files of a task that is read from a user's own tables
    split: tuple(f"{stem}.{suffix}" for stem in stems for suffix in _TABLE_SUFFIXES)
    for split, stems in {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}.items()
}
MANIFEST = "hf_synth.json"  # in a folder of ours: what stage wrote it, of which task
_SCRIPTS = "hf_synth.dataset_scripts"
_DEFINING = (
    "name", "kind", "text_columns", "label_column", "labels", "label_meanings", "targets", "version", "config",
    "metrics", "access", "source_url", "license", "citation", "group_column", "leaks", "partly_judged", "description",
)  # fmt: skip


@dataclass(frozen=True)
class Prompt:
    """One way of asking the generator for labelled notes: the paper's shape, in words of our own.

    Args:
        system: the system message; the same for every call, so that servers can cache it.
        instruction: what to write, without exemplars and without counts.
        exemplars: which gold rows a call shows: one of each label, some of mixed labels, some of one label, or none.
        n_exemplars: how many (for `one_per_label`: how many of each label).
        asks_for: whether a call asks for rows of every label or of one label (text2text tasks: ignored).
        rows: how many rows a call asks for, of each label it asks for.
        sampling: sampling parameters as the endpoint takes them, e.g. (("temperature", 0.9),).
        name: what it is chosen by, e.g. on the command line.
        attributes: what rows are to differ in, as (name, values): each call draws a value of each.
        facts: whether each call draws facts from `Task.facts` and asks for a text that states them.
    """

    system: str
    instruction: str
    exemplars: Literal["one_per_label", "mixed", "same_label", "none"] = "one_per_label"
    n_exemplars: int = 1
    asks_for: Literal["every_label", "one_label"] = "every_label"
    rows: int = 5
    sampling: tuple[tuple[str, float | int | str], ...] = (("temperature", 0.9), ("top_p", 0.95))
    name: str = "examples"
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    facts: bool = False


@dataclass(frozen=True)
class Fact:
    """One thing that decides a label, and how a text states it.

    Args:
        name: e.g. "gait".
        values: what may hold, as (statement, points, pattern): the pattern finds it in a text. One value may have an
            empty pattern: it holds where no other one is found.
    """

    name: str
    values: tuple[tuple[str, int, str], ...]


@dataclass(frozen=True)
class Facts:
    """What a label follows from by rule: points of facts, added up or the highest one, in bands.

    Args:
        items: the facts.
        combine: "sum" (a score such as the Morse Fall Scale) or "max" (a grade such as CTCAE's).
        bounds: points from which the second label holds, the third, ...: one fewer than there are labels.
    """

    items: tuple[Fact, ...]
    combine: Literal["sum", "max"]
    bounds: tuple[int, ...]

    def label(self, points: Sequence[int]) -> int:
        """Give the index of the label that points, one number for each fact, lead to."""
        total = sum(points) if self.combine == "sum" else max(points)
        return sum(total >= bound for bound in self.bounds)

    def found_in(self, text: str) -> int:
        """Give the index of the label that a text's own facts lead to.

        Of a fact that is stated several ways the one with most points counts; what is denied is not stated.
        """
        points = []
        for item in self.items:
            stated = [worth for _, worth, pattern in item.values if pattern and _stated(pattern, text)]
            otherwise = [worth for _, worth, pattern in item.values if not pattern]
            points.append(max(stated or otherwise or [0]))
        return self.label(points)


# Words before a finding, in the same clause, that deny it; and words behind it that do.
_DENIED = re.compile(
    r"(?:\b(?:no(?! longer)|not|non|never|without|denies|denied|denying|negative for|free of|absent)|n['\u2019]t)\b"
    r"(?:(?!\b(?:but|however|although|though|yet|except|and (?:an?|the|was|is|has|had))\b)[^.;:,\n])*$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    r"(?:\w*\s*:\s*(?:none|no|not|never|absent)\b|[^.;:,\n]{0,25}?(?:\bnot|n['\u2019]t)(?: been)? "
    r"(?:needed|required|indicated|placed|started|used|given|necessary)\b)",
    re.IGNORECASE,
)


def _stated(pattern: str, text: str) -> bool:
    return any(
        not _DENIED.search(text[max(0, found.start() - 60) : found.start()])
        and not _DENIED_AFTER.match(text[found.end() : found.end() + 60])
        for found in re.finditer(pattern, text, re.IGNORECASE)
    )


@dataclass(frozen=True)
class Task:
    """One clinical task as plain values.

    Args:
        name: short name, e.g. "mednli"; lower case, digits and underscores.
        kind: "single_label", "multi_label" or "text2text".
        text_columns: one column for a note, two for a pair; for text2text the inputs.
        label_column: the label (ClassLabel or a list of them), or for text2text the target text.
        labels: names of the labels in index order; empty for text2text.
        label_meanings: a definition of each label, in the same order, or empty.
        targets: of a text2text task, the only targets there are, where it has such ("A", "B", ...).
        version: bumped when prompt, parser or features change; part of every fingerprint.
        config: the variant of the task, e.g. "presence"; part of the name in cards.
        prompts: ways of asking for rows; the first is the default.
        facts: what a label follows from by rule, where it does: for prompts with facts, whose answers are checked.
        parse: turns one answer into rows ({column: text, ..., label_column: label name}); None for the JSON form.
        metrics: names of scores, the main one first.
        access: "open", "restricted" (own data, never leaves) or "credentialed" (nor do derivatives).
        source_url: the page where the data and its terms are.
        license: SPDX id or a short name of the terms.
        citation: how to cite the data.
        group_column: "group" when rows share patients or admissions, else None.
        leaks: regular expressions whose match in a text gives its label away.
        partly_judged: of a multi_label task: whether gold rows have the column `judged`.
        files: the files of each split as the source hands them over. A key is a split, or "split/part" where a split
            is read from several files; its value names alternatives, the first that is there counts. A name may hold
            folders ("train/notes.csv") and stars ("train/*.txt": all in the folder; "**/*.txt": in any folder).
        optional_files: keys of `files`, or whole splits, that may be missing.
        suites: where the task comes from: "paper" (arXiv 2403.19511), "DR.BENCH" (arXiv 2209.14901), "extra".
        unverified: what of the source's layout its authors could not check, in a few words; empty when all was.
        script: the module or path the task was read from; None for a task made from columns.
        description: one sentence.
    """

    name: str
    kind: Kind
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    label_meanings: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    version: str = "1.0.0"
    config: str = "default"
    prompts: tuple[Prompt, ...] = ()
    facts: Facts | None = None
    parse: Callable[[str], list[dict[str, str]]] | None = None
    metrics: tuple[str, ...] = ("macro_f1", "accuracy")
    access: Access = "restricted"
    source_url: str = ""
    license: str = "unknown"
    citation: str = ""
    group_column: str | None = None
    leaks: tuple[str, ...] = ()
    partly_judged: bool = False
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional_files: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    unverified: str = ""
    script: str | None = None
    description: str = ""

    def __post_init__(self) -> None:
        def must(fine: bool, problem: str) -> None:
            if not fine:
                raise TaskError(f"task {self.name!r}: {problem}")

        must(bool(re.fullmatch(r"[a-z][a-z0-9_]*", self.name)), "name must be lower case letters, digits and _")
        must(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}")
        must(self.access in ACCESSES, f"access must be one of {', '.join(ACCESSES)}")
        must(bool(self.text_columns), "needs at least one text column")
        own = (*self.text_columns, self.label_column)
        must(len(set(own)) == len(own), "text and label columns must differ from each other")
        taken = {*SYNTHETIC_COLUMNS, *CORRECTION_COLUMNS, JUDGED} & set(own)
        must(not taken, f"columns {sorted(taken)} are reserved; rename them")
        if self.kind == "text2text":
            must(not self.labels, "a text2text task has no labels")
        else:
            must(not self.targets, "only a text2text task has targets")
            must(len(self.labels) >= 2, "needs at least two labels")
            must(len(set(self.labels)) == len(self.labels), "labels must differ from each other")
        must(
            self.facts is None or (self.kind == "single_label" and len(self.facts.bounds) == len(self.labels) - 1),
            "facts need a single_label task and one bound fewer than labels",
        )
        must(
            self.kind == "multi_label" or not self.partly_judged, "only sets of labels (multi_label) are partly judged"
        )
        must(len(self.label_meanings) in (0, len(self.labels)), "needs a meaning for each label, or for none")

    @classmethod
    def from_columns(
        cls,
        name: str,
        *,
        text_columns: str | Sequence[str],
        label_column: str,
        labels: Sequence[str] = (),
        kind: Kind = "single_label",
        access: Access = "restricted",
        **more: Any,
    ) -> Task:
        """Make a task from the columns of one's own dataset, which keep their names.

        Args:
            access: "restricted" unless said otherwise. It cannot loosen what the rows themselves carry.
            more: any other field of `Task`.

        Raises:
            TaskError: the definition contradicts itself.
        """
        columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
        task = cls(
            name=name, kind=kind, text_columns=columns, label_column=label_column, labels=tuple(labels),
            access=access, **more,
        )  # fmt: skip
        return task if task.prompts else replace(task, prompts=(_plain_prompt(task),))

    @property
    def full_name(self) -> str:
        """Name with its config: "esophagitis:presence"; the default config is left out."""
        return self.name if self.config == "default" else f"{self.name}:{self.config}"

    @property
    def prompt(self) -> Prompt:
        """The default way of asking."""
        if not self.prompts:
            raise TaskError(
                f"task {self.name!r} has no prompt: give it one with dataclasses.replace(task, prompts=...)"
            )
        return self.prompts[0]

    def fingerprint(self) -> str:
        """Hash everything of the task that decides what is generated from it (hex sha256)."""
        deciding = [
            self.name, self.config, self.version, self.kind, self.text_columns, self.label_column, self.labels,
            self.label_meanings, self.targets, [vars(p) for p in self.prompts], self.leaks,
            asdict(self.facts) if self.facts else None,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    # --- features -----------------------------------------------------------------------------------------------

    def label_feature(self) -> Any:
        """Give the feature of the label: ClassLabel, a list of them, or a string."""
        from datasets import ClassLabel, List, Value

        if self.kind == "text2text":
            return Value("string")
        label = ClassLabel(names=list(self.labels))
        return List(label) if self.kind == "multi_label" else label

    def gold_features(self) -> Features:
        """Give the features of gold rows."""
        from datasets import Features, Value

        features = {"id": Value("string"), "group": Value("string")}
        features |= {c: Value("string") for c in self.text_columns}
        features[self.label_column] = self.label_feature()
        if self.partly_judged:
            features[JUDGED] = self.label_feature()
        return Features(features | {c: Value("string") for c in ("source", "task", "task_version", "access")})

    def synthetic_features(self) -> Features:
        """Give the features of generated rows, before correction."""
        from datasets import Features, List, Value

        return Features(
            {name: feature for name, feature in self.gold_features().items() if name != JUDGED}
            | {"seed_ids": List(Value("string"))}
            | {c: Value("string") for c in PROVENANCE_COLUMNS[1 : -len(USAGE_COLUMNS)]}
            | {"prompt_tokens": Value("int64"), "completion_tokens": Value("int64"), "cost_usd": Value("float64")}
            | {"llm_label": self.label_feature(), "label_status": Value("string"), "reason": Value("string")}
        )

    def corrected_features(self) -> Features:
        """Give the features of corrected rows."""
        from datasets import Features, List, Value

        return Features(
            dict(self.synthetic_features())
            | {"label_probs": List(Value("float32"))}
            | {"label_confidence": Value("float32"), "weight": Value("float32")}
        )

    def gold_row(self, id: str, group: str | None, label: str | int | None, *texts: str) -> dict[str, Any]:
        """Make one gold row, without `judged`; `texts` in the order of `text_columns`."""
        return {
            "id": id, "group": id if group is None else group, **dict(zip(self.text_columns, texts, strict=True)),
            self.label_column: label, "source": "gold", "task": self.full_name, "task_version": self.version,
            "access": self.access,
        }  # fmt: skip


def _plain_prompt(task: Task) -> Prompt:
    """Give a task that has no prompt of its own a plain one in the paper's shape."""
    what = "pairs of passages" if len(task.text_columns) > 1 else "clinical notes"
    return Prompt(
        system="You are an experienced clinician who writes realistic, wholly invented clinical text for training "
        "a classifier. Never copy an example; never use a real person's data.",
        instruction=f"Write new, varied {what} for the task {task.name!r}, in the style of the examples.",
        exemplars="mixed" if task.kind != "single_label" else "one_per_label",
        n_exemplars=3 if task.kind != "single_label" else 1,
        rows=2,
    )


# --- access ---------------------------------------------------------------------------------------------------------


def strictest(*accesses: str | None) -> Access:
    """Join accesses: the strictest wins; absent or unknown counts as credentialed; none at all too."""
    order: dict[str | None, int] = {a: i for i, a in enumerate(ACCESSES)}
    worst = max((order.get(a, len(ACCESSES) - 1) for a in accesses), default=len(ACCESSES) - 1)
    return ACCESSES[worst]


def access_of(dataset: Dataset) -> Access:
    """Read the access of a dataset from its rows (the `access` column), strictest first.

    A dataset without the column, or with an empty or unknown value in it, is credentialed. An empty dataset holds no
    note; it is open only if it has the column.
    """
    if "access" not in dataset.column_names:
        return "credentialed"
    if len(dataset) == 0:
        return "open"
    import pyarrow.compute as pc

    table = dataset.with_format("arrow")
    seen: set[str | None] = set()
    for batch in table.select_columns(["access"]).iter(batch_size=100_000):
        seen.update(pc.unique(batch["access"]).to_pylist())
    return strictest(*seen)


# --- checking datasets against the contract -------------------------------------------------------------------------


def check_columns(task: Task, dataset: Dataset, *more: str, what: str = "the dataset") -> None:
    """Check that a dataset has the task's columns, with its labels, and some more.

    Raises:
        ColumnError: a column is missing, or the label column holds other labels than the task's.
    """
    missing = [c for c in (*task.text_columns, task.label_column, *more) if c not in dataset.column_names]
    if missing:
        raise ColumnError(
            f"{what} has no column {', '.join(map(repr, missing))} for task {task.full_name!r}; "
            f"it has {', '.join(map(repr, dataset.column_names))}"
        )
    names = label_names(dataset.features[task.label_column])
    if task.kind != "text2text" and names is not None and tuple(names) != task.labels:
        raise ColumnError(
            f"{what} has labels {list(names)} in column {task.label_column!r}, "
            f"task {task.full_name!r} has {list(task.labels)}"
        )


def label_names(feature: Any) -> list[str] | None:
    """Give the names of a ClassLabel, or of a list of them; None for any other feature."""
    inner = getattr(feature, "feature", feature)
    names = getattr(inner, "names", None)
    return list(names) if names is not None else None


# --- finding tasks --------------------------------------------------------------------------------------------------


def load_task(name_or_path: str | Path, config: str | None = None) -> Task:
    """Load a task by name ("mednli", "esophagitis:presence"), from a script of one's own ("my_task.py",
    "my_task.py:config"), or from a folder that `hf-synth gold` wrote from columns, which carries its task.

    Raises:
        TaskError: there is no such task, config or file, or the script defines none.
    """
    name = str(name_or_path)
    if (Path(name) / MANIFEST).is_file():
        return _from_manifest(Path(name))
    if config is None and not name.endswith(".py") and ":" in name:
        name, config = name.rsplit(":", 1)
    tasks = script_tasks(task_script(name))
    if config is None:
        return next(iter(tasks.values()))
    if config not in tasks:
        raise TaskError(f"task {name!r} has no config {config!r}; it has {', '.join(tasks)}")
    return tasks[config]


def list_tasks() -> list[Task]:
    """List every task that comes with hf_synth, all configs, in order of name."""
    package = importlib.import_module(_SCRIPTS)
    names = sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))
    return [task for name in names for task in script_tasks(task_script(name)).values()]


def task_script(name_or_path: str) -> ModuleType:
    """Import the script that defines a task: one of ours by name, or a file by path.

    Raises:
        TaskError: there is no such script, or it cannot be imported.
    """
    if name_or_path.endswith(".py"):
        return _import_file(Path(name_or_path))
    if re.fullmatch(r"[a-z][a-z0-9_]*", name_or_path):
        module = f"{_SCRIPTS}.{name_or_path}"
        if importlib.util.find_spec(module) is not None:
            return importlib.import_module(module)
    known = ", ".join(dict.fromkeys(t.name for t in list_tasks()))
    raise TaskError(f"there is no task {name_or_path!r}; there are {known}, or give the path of a .py file")


def script_tasks(module: ModuleType) -> dict[str, Task]:
    """Give the tasks of a script by config; the first is the default.

    Raises:
        TaskError: the script has no `TASKS`.
    """
    tasks = getattr(module, "TASKS", None)
    if not isinstance(tasks, Mapping) or not tasks or not all(isinstance(t, Task) for t in tasks.values()):
        raise TaskError(f"{module.__name__}: a task script defines TASKS, a dict from config to Task")
    return {c: replace(t, script=_origin(module)) for c, t in tasks.items()}


def task_to_json(task: Task) -> dict[str, Any]:
    """Give a task made from columns as plain values, for the manifest of the folder that holds its rows."""
    return {name: getattr(task, name) for name in _DEFINING} | {"prompts": [vars(p) for p in task.prompts]}


def _from_manifest(folder: Path) -> Task:
    """Load the task whose rows a folder of ours holds.

    Its access can only be as the manifest says: the rows carry theirs, and the strictest wins wherever they meet.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if "definition" not in facts:
            return load_task(facts["task"])
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts["definition"].items()}
        prompts = [
            p
            | {"sampling": tuple((k, v) for k, v in p["sampling"])}
            | {"attributes": tuple((k, tuple(v)) for k, v in p.get("attributes", ()))}
            for p in plain.pop("prompts")
        ]
        return Task(**plain, prompts=tuple(Prompt(**p) for p in prompts))
    except (ValueError, TypeError, KeyError, AttributeError):
        raise TaskError(f"{folder / MANIFEST} names no task; write the folder again with `hf-synth gold`") from None


def _origin(module: ModuleType) -> str:
    if module.__name__.startswith(_SCRIPTS + "."):
        return module.__name__.rsplit(".", 1)[1]
    return str(module.__file__)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"there is no task script {path.name!r} in {path.parent}")
    name = f"hf_synth_task_{path.stem}_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path.name} cannot be imported as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise TaskError(f"{path.name} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def row_digests(task: Task, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Digest each row's text (hex sha256 over the task's text columns): the name a row keeps when ids change."""
    return [hashlib.sha256("\x1f".join(str(row[c]) for c in task.text_columns).encode()).hexdigest() for row in rows]
