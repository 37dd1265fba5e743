"""Export folders: what leaves, as the tree of a Hub repository, and nothing else.

A dataset goes out as parquet with new ids; exemplar ids, prompt hashes and journal keys stay in a local map (0600)
beside the folder, never in it. Of a model's folder only files on an allow-list go out. Every folder is written whole or
not at all, and a dataset is loaded back with plain `datasets` and compared before it counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ColumnError, PublishError
from hf_synth.folders import MANIFEST, clear_disk_errors, new_folder, work_folder
from hf_synth.modeling import FACTS
from hf_synth.task import Access, Task

if TYPE_CHECKING:
    from datasets import Dataset

# What an outsider may know of how a model was made: digests of rows would be a test of membership.
PUBLIC_FACTS = (
    *("kind", "hf_synth", "task", "task_version", "labels", "access", "base_model", "base_revision", "parents", "rows"),
    *("validation_rows", "hyperparameters", "versions", "seed", "class_weights", "seconds"),
    *("pretrained_on", "long_notes", "lora"),
)
# Files of a model that may leave. Pickles, optimizer state, training arguments and anything unknown stay.
MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|model(?:-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|"
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(?:txt|json)|merges\.txt|"
    r"tokenizer\.model|spiece\.model|sentencepiece\.bpe\.model|spm\.model"
)
_LICENSE_NOTE = """This folder derives from credentialed data. It is under the data use agreement of its source
({source}) and may be shared only as that agreement allows: on PhysioNet as a derived project
("{name}"), or with people who signed the same agreement. Never on a public Hub.
"""


# --- datasets -------------------------------------------------------------------------------------------------------


def dataset_views(task: Task, dataset: Dataset, access: Access, withheld: set[int]) -> dict[str, Dataset]:
    """Give what leaves of a dataset by config, the default first, in columns that hold nothing local.

    `corrected` (only where labels went through correction, so never for text2text) has the rows kept or relabelled,
    `raw` every row that was not rejected with the label that the generator meant. A row has the same id in both: its
    number.

    Raises:
        ColumnError: a label is not one of the task's.
    """
    status = dataset["label_status"] if "label_status" in dataset.column_names else ["kept"] * len(dataset)
    text = [all(row) for row in zip(*(dataset[c] for c in task.text_columns), strict=True)]
    leaving = [i for i, s in enumerate(status) if s != "rejected" and text[i] and i not in withheld]
    views = {}
    if "label_probs" in dataset.column_names and task.kind != "text2text":
        kept = [i for i in leaving if status[i] in ("kept", "relabelled")]
        more = ("llm_label", "label_status", "reason", "label_probs", "label_confidence", "weight")
        views["corrected"] = _view(task, dataset, kept, access, task.label_column, more)
    meant = "llm_label" if "llm_label" in dataset.column_names else task.label_column
    views["raw"] = _view(task, dataset, leaving, access, meant, ())
    return views


def _view(task: Task, dataset: Dataset, rows: list[int], access: Access, label: str, more: Sequence[str]) -> Dataset:
    from datasets import Dataset, Features, Value

    picked = dataset.select(rows)
    known = task.corrected_features()
    told = {
        "source": "synthetic",
        "task": task.full_name,
        "task_version": task.version,
        "access": access,
    }
    columns: dict[str, Any] = {"id": [row_id(task, i) for i in rows]}
    columns |= {c: list(picked[c]) for c in task.text_columns}
    columns[task.label_column] = list(picked[label])
    columns |= {name: [value] * len(rows) for name, value in told.items()}
    columns |= {c: list(picked[c]) for c in ("generator", *more) if c in picked.column_names}
    features = Features({c: known.get(c, Value("string")) for c in columns})
    try:
        return Dataset.from_dict(columns, features=features)
    except Exception as error:  # the library's message may hold text
        raise ColumnError(f"the rows do not fit task {task.full_name!r} ({type(error).__name__})") from None


def row_id(task: Task, number: int) -> str:
    """Name a row of an export by its number, so that nothing of the site's own ids leaves."""
    return f"{task.name}-{number:06d}"


def write_dataset(
    task: Task, views: Mapping[str, Dataset], path: Path, *, card: str, access: Access, physionet_name: str
) -> Path:
    """Write an export folder of a dataset, load it back with plain `datasets` and compare.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        PublishError: what was read back is not what was written.
    """
    with new_folder(path) as draft:
        for name, rows in views.items():
            (draft / name).mkdir()
            _write_parquet(
                rows, draft / name / "train-00000-of-00001.parquet", {"access": access, "task": task.full_name}
            )
        (draft / "README.md").write_text(card, encoding="utf-8")
        _finish(task, draft, access, physionet_name, {name: len(rows) for name, rows in views.items()})
        _check_loads(draft, views)
    return path


def _write_parquet(rows: Dataset, file: Path, told: Mapping[str, str]) -> None:
    import pyarrow.parquet as pq

    metadata = dict(rows.features.arrow_schema.metadata) | {b"hf_synth": json.dumps(dict(told)).encode()}
    pq.write_table(rows.data.table.replace_schema_metadata(metadata), file)


def _check_loads(folder: Path, views: Mapping[str, Dataset]) -> None:
    from datasets import load_dataset

    for number, (name, rows) in enumerate(views.items()):
        with tempfile.TemporaryDirectory(prefix=".check-", dir=folder.parent) as cache:
            try:
                config = None if number == 0 else name  # the first must be what a plain load gives
                back = load_dataset(str(folder), config, split="train", cache_dir=cache)
                same = back.features == rows.features and back.with_format("arrow")[:].equals(
                    rows.with_format("arrow")[:], check_metadata=False
                )
            except Exception as error:  # the library's message may hold text
                raise PublishError(f"the export cannot be read back ({type(error).__name__}); nothing left") from None
        if not same:
            raise PublishError(f"config {name!r} of the export reads back differently; nothing left")


def write_map(task: Task, dataset: Dataset, export: Path) -> Path:
    """Write what links exported rows to this site's ids (0600), beside the export folder.

    Raises:
        OutputError: it cannot be written.
    """
    path = work_folder(export.parent) / f"{export.name}.provenance.jsonl"
    kept = [c for c in ("id", "group", "seed_ids", "prompt_sha256", "journal_key") if c in dataset.column_names]
    columns = [list(dataset[c]) for c in kept]
    with clear_disk_errors(path):
        handle, draft = tempfile.mkstemp(dir=path.parent)  # mode 0600
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            for number, values in enumerate(zip(*columns, strict=True)):
                row = {"exported": row_id(task, number), **dict(zip(kept, values, strict=True))}
                out.write(json.dumps(row) + "\n")
        os.replace(draft, path)
    return path


# --- models ---------------------------------------------------------------------------------------------------------


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
) -> Path:
    """Write an export folder of a model: files on the allow-list, its card, its scores and what may be told of it.

    Raises:
        OutputError: the folder cannot be written, or holds something else.
        PublishError: the model has no safetensors weights, carries other content in them, or has other labels.
    """
    names = model_files(model)
    if not any(n.endswith(".safetensors") for n in names) or "config.json" not in names:
        raise PublishError(f"{model} holds no config.json with .safetensors weights: only such models are published")
    with new_folder(path) as draft:
        for name in names:
            _check_weights(model / name)
            shutil.copyfile(model / name, draft / name)
        _clean_config(task, draft / "config.json")
        (draft / "README.md").write_text(card, encoding="utf-8")
        if eval_results:
            (draft / ".eval_results").mkdir()
            (draft / ".eval_results" / f"{task.name}.yaml").write_text(eval_results, encoding="utf-8")
        told = {k: facts[k] for k in PUBLIC_FACTS if k in facts} | {"access": access}
        (draft / FACTS).write_text(json.dumps(told, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        _finish(task, draft, access, physionet_name, {})
    return path


def model_files(model: Path) -> list[str]:
    """Give the names of a model's files that may leave, sorted; links and anything off the allow-list stay."""
    found = [f for f in sorted(model.iterdir()) if f.is_file() and not f.is_symlink()]
    return [f.name for f in found if MODEL_FILES.fullmatch(f.name)]


def _check_weights(file: Path) -> None:
    """Look into the header of a safetensors file: it must be one, with no words of its own."""
    if file.suffix != ".safetensors":
        return
    with file.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        try:
            header = json.loads(stream.read(size)) if size <= 100_000_000 else None
        except ValueError:
            header = None
    if not isinstance(header, dict):
        raise PublishError(f"{file.name} is no safetensors file; save the model again")
    if set(header.get("__metadata__", {})) - {"format"}:
        raise PublishError(f"{file.name} carries metadata of its own; save the model again without it")


def _clean_config(task: Task, file: Path) -> None:
    """Take local paths out of the config, and see that its labels are the task's."""
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        names = sorted(config.get("id2label", {}).values())
    except (ValueError, AttributeError, TypeError):
        raise PublishError("config.json of the model is broken; save the model again") from None
    if task.labels and names != sorted(task.labels):
        raise PublishError(f"the model's labels are not those of task {task.full_name!r}: {', '.join(task.labels)}")
    if config.pop("_name_or_path", None) is not None:
        file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


# --- both -----------------------------------------------------------------------------------------------------------


def _finish(task: Task, draft: Path, access: Access, name: str, rows: Mapping[str, int]) -> None:
    """Write the manifest; for credentialed data also the licence note and checksums that PhysioNet wants."""
    told = {"stage": "export", "task": task.full_name, "task_version": task.version, "access": access, "rows": rows}
    (draft / MANIFEST).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if access != "credentialed":
        return
    note = _LICENSE_NOTE.format(source=task.source_url or task.license, name=name)
    (draft / "LICENSE.md").write_text(note, encoding="utf-8")
    lines = [f"{sha256}  {name}" for name, (_, (_, sha256)) in file_oids(draft).items()]
    (draft / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")


def exported_files(folder: Path) -> list[str]:
    """Give the paths of an export's files, relative, sorted; our own work folder is no part of it."""
    found = (f.relative_to(folder) for f in folder.rglob("*") if f.is_file())
    return sorted(f.as_posix() for f in found if f.parts[0] != ".hf_synth")


def file_oids(folder: Path) -> dict[str, tuple[int, tuple[str, str]]]:
    """Give the size of each file of an export, and both names the Hub may know its bytes by: git's own and sha256."""
    found = {}
    for name in exported_files(folder):
        size = (folder / name).stat().st_size
        blob, content = hashlib.sha1(b"blob %d\x00" % size, usedforsecurity=False), hashlib.sha256()
        with (folder / name).open("rb") as stream:
            while chunk := stream.read(1 << 22):
                blob.update(chunk)
                content.update(chunk)
        found[name] = (size, (blob.hexdigest(), content.hexdigest()))
    return found
