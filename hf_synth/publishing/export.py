"""Export folders of datasets and models, laid out as a Hub repository.

A dataset is exported as parquet with new ids; exemplar ids, prompt hashes and journal keys stay in a local map beside
the folder (`release`). Of a model's folder only files on an allow-list are copied (`model_files`). A folder is written
whole or not at all. The list of its files and their digests is taken before they are checked, and it is compared
afterwards; a dataset is also loaded back with plain `datasets` and compared.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.errors import ColumnError, PublishError
from hf_synth.models.record import FACTS
from hf_synth.publishing.local_paths import has_local_path
from hf_synth.publishing.model_files import MODEL_FILES, check_weights, clean_files, model_files
from hf_synth.publishing.release import RELEASE, content_digest
from hf_synth.publishing.sealed import Seal, sealed
from hf_synth.task.arrow import arrow_table, rewrite_columns
from hf_synth.task.columns import MANIFEST, REASONS, STATUSES, Access
from hf_synth.task.folders import new_folder, write_parquet
from hf_synth.task.labels import column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

# Facts of a model that are published. Digests of rows are not: anyone could test with them who was in the training set.
PUBLIC_FACTS = (
    *("kind", "hf_synth", "task", "task_version", "labels", "access", "base_model", "base_revision", "parents", "rows"),
    *("validation_rows", "hyperparameters", "versions", "seed", "class_weights", "seconds"),
    *("pretrained_on", "long_notes", "lora", "base_access", "weights"),
)
# The files that an export may have.
EXPORTED = re.compile(
    rf"README\.md|LICENSE\.md|SHA256SUMS|hf_synth\.json|release\.json|hf_synth_facts\.json|croissant\.json|{MODEL_FILES.pattern}|"
    r"(?:corrected|raw|augmented)/train-00000-of-00001\.parquet|\.eval_results/[a-z][a-z0-9_]*\.yaml"
)
# A generator's name as servers report it: "gpt-5", "org/model", "llama3.1:8b"; never a sentence.
_GENERATOR = re.compile(r"[A-Za-z0-9][\w.:@+/-]{0,99}")
_MOST_GENERATORS = 20
_COMPARED = 1_000  # rows of an export that are compared at once
_LONG_NAME = 6  # characters; a name this long is not in gold by coincidence
_LICENSE_NOTE = """This folder derives from credentialed data. It is under the data use agreement of its source
({source}) and may be shared only as that agreement allows: on PhysioNet as a derived project
("{name}"), or with people who signed the same agreement. Never on a public Hub.
"""


@dataclass(frozen=True)
class Written:
    """An export folder that passed its checks.

    Args:
        path: the folder.
        content: digest of its rows, or of weights and tokenizer.
        seal: the closed list of its files as the checks saw them.
    """

    path: Path
    content: str
    seal: Seal


def with_exported_target(task: Task, dataset: Dataset) -> Dataset:
    """Return rows with the target that is exported in the label column; only for text2text it may be another one.

    The only config of a text2text dataset holds what the generator wrote (`llm_label`), also where a corrector replaced
    it. The audit reads the label column, so that it must read what leaves.
    """
    if task.kind != "text2text" or "llm_label" not in dataset.column_names:
        return dataset
    from datasets import Value

    kept = dataset.remove_columns(task.label_column) if task.label_column in dataset.column_names else dataset
    return kept.add_column(task.label_column, list(dataset["llm_label"][:]), feature=Value("string"))


def view_rows(task: Task, dataset: Dataset, withheld: Container[int]) -> dict[str, list[int]]:
    """Return the numbers of the exported rows by config, the default config first.

    `corrected` (only for corrected labels, so never for text2text) has the rows kept or relabelled, `raw` every row
    with a text that was not rejected.

    Args:
        withheld: numbers of rows that must not be exported.
    """
    status = column_of(dataset, "label_status", "kept")
    import pyarrow.compute as pc

    table, has_text = arrow_table(dataset), np.ones(len(dataset), bool)
    for column in task.text_columns:
        has_text &= np.asarray(pc.fill_null(pc.greater(pc.utf8_length(table[column]), 0), False))
    raw = [i for i, s in enumerate(status) if s != "rejected" and has_text[i] and i not in withheld]
    if "label_probs" not in dataset.column_names or task.kind == "text2text":
        return {"raw": raw}
    return {"corrected": [i for i in raw if status[i] in ("kept", "relabelled")], "raw": raw}


def dataset_views(
    task: Task, dataset: Dataset, rows: Mapping[str, list[int]], access: Access, ids: Sequence[str]
) -> dict[str, Dataset]:
    """Return the exported rows by config, without local columns; a row has the same id in each config.

    Raw rows have the label that the generator meant, corrected rows the corrected label.

    Args:
        rows: `view_rows`.
        ids: of the exported rows, one for each row of the dataset.

    Raises:
        ColumnError: a label is not one of the task's.
    """
    meant = "llm_label" if "llm_label" in dataset.column_names else task.label_column
    more = ("llm_label", "label_status", "reason", "label_probs", "label_confidence", "weight")
    columns: dict[str, tuple[str, Sequence[str]]] = {"corrected": (task.label_column, more), "raw": (meant, ())}
    return {name: _view(task, dataset, at, access, *columns[name], ids) for name, at in rows.items()}


def augmented_view(task: Task, gold: Dataset, synthetic: Dataset, access: Access, ids: Sequence[str]) -> Dataset:
    """Return open gold and synthetic rows together as training data; no other view holds gold.

    Args:
        synthetic: the default view.
        ids: of the exported gold rows, one for each.
    """
    from datasets import concatenate_datasets

    view = _view(task, gold, list(range(len(gold))), access, task.label_column, (), ids)
    view = view.remove_columns("source").add_column("source", ["gold"] * len(gold))
    columns = ["id", *task.text_columns, task.label_column, "source", "task", "task_version", "access"]
    return concatenate_datasets([view.select_columns(columns), synthetic.select_columns(columns)])


def plain_columns(dataset: Dataset, gold: Sequence[Dataset]) -> Dataset:
    """Replace unknown values in the columns of statuses, reasons and generators.

    An unknown status becomes "rejected", an unknown reason null, an odd name of a generator "unknown".

    Args:
        gold: its parts, which may hold no name of a generator.
    """
    allowed: dict[str, tuple[Any, Any]] = {"label_status": (STATUSES, "rejected"), "reason": (REASONS, None)}
    if "generator" in dataset.column_names:
        names = {g for g in dataset["generator"][:] if isinstance(g, str)}
        allowed["generator"] = (generator_names(names, gold), "unknown")
    for column, (known, default) in allowed.items():
        values = column_of(dataset, column)
        if any(v is not None and v not in known for v in values):
            plain = [v if v is None or v in known else default for v in values]
            dataset = dataset.remove_columns(column).add_column(column, plain)
    return dataset


def generator_names(names: set[str], gold: Sequence[Dataset]) -> set[str]:
    """Return the names of generators that may be published: no path, no phrase, nothing that is in gold."""
    plain = {n for n in names if _GENERATOR.fullmatch(n) and "//" not in n and not has_local_path(n)}
    if len(plain) > _MOST_GENERATORS:
        return set()
    for part in gold:
        for column, feature in part.features.items():
            if column != "generator" and getattr(feature, "dtype", "") in ("string", "large_string"):
                long = [n for n in plain if len(n) >= _LONG_NAME]
                plain -= {n for value in (part.unique(column) if long else ()) for n in long if value and n in value}
    return plain


def _view(
    task: Task, dataset: Dataset, rows: list[int], access: Access, label: str, more: Sequence[str], ids: Sequence[str]
) -> Dataset:
    import pyarrow as pa
    from datasets import Dataset, Features, Value

    known, constant = task.corrected_features(), _constant_columns(task, access)
    more = [c for c in ("generator", *more) if c in dataset.column_names]
    names = dict.fromkeys(("id", *task.text_columns, task.label_column, *constant, *more))
    features = Features({c: known.get(c, Value("string")) for c in names})
    types = {field.name: field.type for field in features.arrow_schema}
    columns: dict[str, Any] = {c: pa.repeat(pa.scalar(v, types[c]), len(dataset)) for c, v in constant.items()}
    target = {task.label_column: column_of(dataset, label)}
    try:
        made = Dataset.from_dict(target, features=Features({c: features[c] for c in target}))
        columns |= {"id": list(ids), task.label_column: made.data.table[task.label_column]}
        return rewrite_columns(dataset, columns, features).select(rows)
    except Exception as error:  # the library's message may hold text
        raise ColumnError(f"the rows do not fit task {task.full_name!r} ({type(error).__name__})") from None


def _constant_columns(task: Task, access: Access) -> dict[str, str]:
    """Return the columns of an export that have one value."""
    return {"source": "synthetic", "task": task.full_name, "task_version": task.version, "access": access}


def write_dataset(
    task: Task,
    views: Mapping[str, Dataset],
    path: Path,
    *,
    describe: Callable[[Path], Mapping[str, str]],
    access: Access,
    physionet_name: str,
    release: Mapping[str, Any],
    checks: Sequence[Callable[[Path], None]],
) -> Written:
    """Write an export folder of a dataset, check it, load it back with plain `datasets` and compare.

    Args:
        describe: from the folder with the rows to the texts of card and metadata, by file name.
        release: `release_facts`, for release.json.
        checks: each raises PublishError if the folder must not leave.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        PublishError: a check fails, or the rows read back differ.
    """
    with new_folder(path) as draft:
        for name, rows in views.items():
            (draft / name).mkdir()
            write_parquet(task, rows, draft / name / "train-00000-of-00001.parquet", access)
        for name, text in describe(draft).items():
            (draft / name).write_text(text, encoding="utf-8")
        counts = {name: len(rows) for name, rows in views.items()}
        content = _write_manifests(task, draft, access, physionet_name, counts, release)
        seal = _checked(draft, [*checks, lambda folder: _check_loads(folder, views)])
    return Written(path, content, seal)


def _checked(draft: Path, checks: Sequence[Callable[[Path], None]]) -> Seal:
    """Run the checks of an export, and return the list of the files that they saw."""
    seal = sealed(draft)
    for check in checks:
        check(draft)
    if sealed(draft) != seal:
        raise PublishError("the export changed while it was checked; nothing was exported")
    return seal


def _check_loads(folder: Path, views: Mapping[str, Dataset]) -> None:
    from datasets import load_dataset

    for number, (name, rows) in enumerate(views.items()):
        with tempfile.TemporaryDirectory(prefix=".check-", dir=folder.parent) as cache:
            try:
                config = None if number == 0 else name  # the first is the default
                back = load_dataset(str(folder), config, split="train", cache_dir=cache)
                same = back.features == rows.features and len(back) == len(rows)
                parts = zip(*(part.with_format("arrow").iter(_COMPARED) for part in (back, rows)), strict=True)
                same = same and all(one.equals(other, check_metadata=False) for one, other in parts)
            except Exception as error:  # the library's message may hold text
                reason = type(error).__name__
                raise PublishError(f"the export cannot be read back ({reason}); nothing was exported") from None
        if not same:
            raise PublishError(f"config {name!r} of the export differs when read back; nothing was exported")


def write_model(
    task: Task,
    model: Path,
    path: Path,
    *,
    card: str,
    eval_results: str,
    facts: Mapping[str, Any],
    access: Access,
    physionet_name: str,
    release: Mapping[str, Any],
    checks: Sequence[Callable[[Path], None]],
) -> Written:
    """Write an export folder of a model: files on the allow-list, card, scores and public facts.

    Args:
        release, checks: as for `write_dataset`.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        PublishError: the model has no safetensors weights, or something else in them, or other labels; a check fails.
    """
    names = model_files(model)
    if not any(n.endswith(".safetensors") for n in names) or "config.json" not in names:
        raise PublishError(f"{model} holds no config.json with .safetensors weights: only such models are published")
    with new_folder(path) as draft:
        for name in names:
            shutil.copyfile(model / name, draft / name, follow_symlinks=False)
        check_weights(draft, names)
        clean_files(task, draft)
        (draft / "README.md").write_text(card, encoding="utf-8")
        if eval_results:  # only if gold is a dataset of the Hub
            (draft / ".eval_results").mkdir()
            (draft / ".eval_results" / f"{task.name}.yaml").write_text(eval_results, encoding="utf-8")
        public = {k: facts[k] for k in PUBLIC_FACTS if k in facts} | {"access": access}
        (draft / FACTS).write_text(json.dumps(public, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        content = _write_manifests(task, draft, access, physionet_name, {}, release)
        seal = _checked(draft, checks)
    return Written(path, content, seal)


def _write_manifests(
    task: Task, draft: Path, access: Access, name: str, rows: Mapping[str, int], release: Mapping[str, Any]
) -> str:
    """Write the manifests; for credentialed data also the licence note and checksums that PhysioNet asks for."""
    manifest = {"stage": "export", "task": task.full_name, "task_version": task.version, "access": access, "rows": rows}
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    if access == "credentialed":
        note = _LICENSE_NOTE.format(source=task.source_url or task.license, name=name)
        (draft / "LICENSE.md").write_text(note, encoding="utf-8")
    files = {name: file.sha256 for name, file in sealed(draft).items()}
    content = content_digest(files)
    text = json.dumps({**release, "content": content, "files": files}, indent=1, sort_keys=True)
    (draft / RELEASE).write_text(text + "\n", encoding="utf-8")
    if access == "credentialed":
        lines = [f"{file.sha256}  {name}" for name, file in sealed(draft).items()]
        (draft / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return content
