"""The facts of a model (`hf_synth_facts.json`): access, base model, digests of its training rows; read and write them.

`train` writes them into the model's folder, with the weights or not at all. A model without facts may have seen any row
and counts as credentialed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ModelError, OutputError
from hf_synth.models.base_models import known_model, packaged_model
from hf_synth.models.loading import has_weights, model_folder, model_revision
from hf_synth.task.columns import MANIFEST, UNLABELLED, Access, access_of, strictest
from hf_synth.task.folders import new_folder
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

FACTS = "hf_synth_facts.json"


def model_facts(model: str | Path) -> dict[str, Any]:
    """Read the facts of a model.

    Returns:
        What `train` wrote, among it access, row_digests, task, labels, base_model, base_revision and parents; for a
        model without facts {"access": "credentialed", "row_digests": [], "known": False}.

    Raises:
        ModelError: there is no such model, or its facts are broken.
    """
    file = model_folder(model) / FACTS
    if not file.is_file():
        return {"access": "credentialed", "row_digests": [], "known": False}
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        digests = facts.get("row_digests", [])
        if not isinstance(digests, list):
            raise TypeError
    except (ValueError, TypeError, AttributeError):
        raise ModelError(f"{FACTS} of {str(model)!r} is broken: train the model again") from None
    return {**facts, "access": strictest(facts.get("access")), "row_digests": digests, "known": True}


def weights_sha256(model: str | Path) -> str:
    """Hash a model's weights (hex sha256 over the names and bytes of its weight files).

    Raises:
        ModelError: there is no such model, or it has no weights.
    """
    folder = model_folder(model)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ModelError(f"model {str(model)!r} holds no weights (.safetensors)")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\x00{file.stat().st_size}\x00".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def trained_on(facts: Mapping[str, Any]) -> set[str] | None:
    """Return the digests of the rows that a model and its parents were trained on; None where the facts lack them.

    Rows for early stopping were seen and are among `row_digests`, but no weight was fitted to them. Facts of earlier
    releases do not name those of the model or its parents.
    """
    held_out = facts.get("validation_digests", None if facts.get("validation_rows") or facts.get("parents") else [])
    return set(facts.get("row_digests") or ()) - set(held_out) if isinstance(held_out, list) else None


def joined_access(task: Task, base_model: str | Path, parent: Path, *datasets: Dataset | None) -> Access:
    """Return the strictest access of the task, of every row, and of the base model where it is known."""
    facts, listed = model_facts(parent), known_model(_name(base_model, parent))
    known = [facts["access"]] if facts["known"] else [listed.access] if listed else []
    return strictest(task.access, *known, *(access_of(d) for d in datasets if d is not None))


def training_facts(
    task: Task, rows: Dataset, validation: Dataset | None, base_model: str | Path, parent: Path
) -> dict[str, Any]:
    """Return the facts of a new model: its task, base model, parents, and the digests of every row it saw.

    Args:
        parent: the folder of the base model.
    """
    import accelerate
    import tokenizers
    import torch
    import transformers

    from hf_synth import __version__

    trained, held_out = (
        set(row_digests(task, part.select_columns(list(task.text_columns)))) if part is not None else set()
        for part in (rows, validation)
    )
    parent_facts, name = model_facts(parent), _name(base_model, parent)
    listed = known_model(name)
    weights = weights_sha256(parent) if has_weights(parent) else None
    columns = [column_of(rows, c) for c in ("source", "label_status")]
    counts = Counter(
        source if source in ("gold", UNLABELLED) else status or "unmarked"
        for source, status in zip(*columns, strict=True)
    )
    gold = rows.select([i for i, source in enumerate(columns[0]) if source == "gold"])
    libraries = {m.__name__: str(m.__version__) for m in (torch, transformers, tokenizers, accelerate)}
    return {
        "kind": "model",
        "hf_synth": __version__,
        "task": task.full_name,
        "task_version": task.version,
        "labels": list(task.labels),
        "base_model": name,
        "base_revision": model_revision(parent),
        "base_weights": weights,
        "pretrained_on": listed.pretrained_on if listed else parent_facts.get("pretrained_on"),
        "parents": [weights] if parent_facts["known"] and any(parent.glob("*.safetensors")) else [],
        "row_digests": sorted(trained | held_out | set(parent_facts["row_digests"])),
        "validation_digests": _validation_only(trained, held_out, parent_facts),
        "rows": dict(sorted(counts.items())),
        "gold_texts": len(set(row_digests(task, gold.select_columns(list(task.text_columns))))),
        "validation_rows": 0 if validation is None else len(validation),
        "versions": libraries,
    }


def _validation_only(trained: set[str], held_out: set[str], parent: Mapping[str, Any]) -> list[str] | None:
    """Return the digests of rows that a model and its parents used for early stopping only; None where unknown.

    Args:
        trained: digests of the rows that the model is trained on.
        held_out: digests of its validation rows.
        parent: the facts of the base model.
    """
    before = trained_on(parent)
    if before is None:
        return None
    return sorted((held_out | set(parent["row_digests"])) - before - trained)


def _name(base_model: str | Path, parent: Path) -> str:
    """Return the name of a base model: its repo id, or its folder's name without the path.

    A model that comes with a package has the repo id of the model that the package holds.
    """
    if Path(base_model).is_dir():
        return parent.resolve().name
    packaged = packaged_model(str(base_model))
    return str(base_model) if packaged is None else packaged.repo_id


@contextlib.contextmanager
def model_output(path: Path) -> Iterator[Path]:
    """Yield a folder that is written atomically; raise an `OutputError` where safetensors cannot write the weights."""
    from safetensors import SafetensorError

    try:
        with new_folder(path) as draft:
            yield draft
    except SafetensorError:
        raise OutputError(f"{path}: the weights cannot be written; is the disk full?") from None


def write_model(network: Any, tokenizer: Any, draft: Path, facts: Mapping[str, Any]) -> None:
    """Write a plain transformers model, its tokenizer and its facts."""
    network.config.name_or_path = ""
    network.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    write_facts(draft, facts)
    manifest = {"stage": "train", **{key: facts[key] for key in ("task", "task_version", "access")}}
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a model into its folder."""
    text = json.dumps(dict(facts), indent=1, sort_keys=True)
    (Path(folder) / FACTS).write_text(text + "\n", encoding="utf-8")
