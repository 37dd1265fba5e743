"""The facts of a model (`hf_synth_facts.json`): access, base model, digests of its training rows; read and write them.

`train` writes them into the model's folder, with the weights or not at all. A model without facts may have seen any row
and counts as credentialed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import ModelError, OutputError
from hf_synth.models.base_models import known_model, packaged_model
from hf_synth.models.loading import has_weights, model_folder, model_revision
from hf_synth.task.access import overall_access
from hf_synth.task.columns import ACCESSES, MANIFEST, UNLABELLED, Access, strictest
from hf_synth.task.folders import new_folder, recorded_access
from hf_synth.task.labels import column_of, row_digests
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

FACTS = "hf_synth_facts.json"
_LOG = logging.getLogger(__name__)
# The configuration, and the files of a tokenizer in all its forms.
_READING = ("config.json", "tokenizer*", "vocab*", "merges.txt", "*.model", "special_tokens_map.json", "added_tokens.*")


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


def reading_sha256(model: str | Path) -> str:
    """Hash how a model reads texts (hex sha256): its configuration, and the files of its tokenizer.

    Raises:
        ModelError: there is no such model.
    """
    folder, digest = model_folder(model), hashlib.sha256()
    for file in sorted({file for pattern in _READING for file in folder.glob(pattern) if file.is_file()}):
        content = file.read_bytes()
        digest.update(f"{file.name}\x00{len(content)}\x00".encode())
        digest.update(content)
    return digest.hexdigest()


def training_row_digests(facts: Mapping[str, Any]) -> set[str] | None:
    """Return the digests of the rows that a model and its parents were trained on; None where the facts lack them.

    Rows for early stopping were seen and are among `row_digests`, but no weight was fitted to them. Facts of earlier
    releases do not name those of the model or its parents.
    """
    held_out = facts.get("validation_digests", None if facts.get("validation_rows") or facts.get("parents") else [])
    return set(facts.get("row_digests") or ()) - set(held_out) if isinstance(held_out, list) else None


@dataclass(frozen=True)
class ModelAt:
    """A model whose access is asked for (`task.access.overall_access`), by its folder or repo id.

    Args:
        model: folder or repo id.
        stated: its access as the user states it, where nothing stricter is known.
        folder: of the repository's snapshot, if it was fetched already.
    """

    model: str | Path
    stated: str | None = None
    folder: Path | None = None

    @property
    def access(self) -> Access:
        """The access of the model (`access_of_model`)."""
        return access_of_model(self.model, self.stated, folder=self.folder)


def access_of_model(model: str | Path, stated: str | None = None, *, folder: Path | None = None) -> Access:
    """Return the access of a model: that of its facts, of the table of base models, or the one that the user states.

    A folder without facts may hold weights that learnt from any notes: it counts as credentialed, whatever its name.
    So does a folder whose facts describe other weights, as after a training elsewhere that saved over them. A
    repository of the Hub is open where `base_models` lists its full id as open; any other one is credentialed.

    Args:
        model: folder or repo id.
        stated: the access as the user states it, for a model of which nothing stricter is known.
        folder: of the repository's snapshot, if it was fetched already.

    Raises:
        ModelError: there is no such model, its facts are broken, or the statement is looser than what is known.
    """
    parent = folder or model_folder(model)
    facts, name = model_facts(parent), _name(model, parent)
    listed = known_model(name)
    floor: Access = "open" if listed is None else listed.access  # the loosest access that may be stated
    found: Access = "credentialed"
    if facts["known"]:
        floor, described = strictest(floor, facts["access"]), facts.get("weights")
        found = floor if described in (None, _weights(parent)) else found  # earlier releases did not record it
    elif listed is not None and not Path(model).is_dir() and "/" in name and name.lower() == listed.repo_id.lower():
        found = floor
    if stated is None:
        return found
    if stated not in ACCESSES:
        raise ModelError(f"base_access is one of {', '.join(ACCESSES)}; got {stated!r}")
    if strictest(floor, stated) != stated:
        raise ModelError(f"base model {name!r} is known to be {floor}: base_access={stated!r} cannot loosen that")
    return strictest(stated)


def access_on_record(model: str | Path, folder: Path) -> Access | None:
    """Return the access of the notes that a model is known to have learnt from; None where nothing is recorded.

    It is recorded in its facts, in a folder's manifest, and in the table of base models.

    Args:
        model: folder or repo id.
        folder: where its files are.

    Raises:
        ModelError: its facts are broken.
        RowError: a manifest is broken.
    """
    if (folder / FACTS).is_file():
        return access_of_model(model, folder=folder)
    listed, recorded = known_model(_name(model, folder)), recorded_access(folder)
    found = [*([listed.access] if listed else []), *([recorded] if recorded else [])]
    return strictest(*found) if found else None


def joined_access(
    task: Task, base_model: str | Path, parent: Path, *datasets: Dataset | None, base_access: str | None = None
) -> Access:
    """Return the strictest access of the task, of every row, and of the base model (`access_of_model`).

    Raises:
        ModelError: `base_access` is looser than what is known of the base model.
    """
    of_model = ModelAt(base_model, base_access, parent).access
    joined = overall_access(task, *(rows for rows in datasets if rows is not None), named=False)
    if base_access is None and strictest(joined, of_model) != joined and not model_facts(parent)["known"]:
        _LOG.warning(
            "nothing is known of base model %s: the trained model counts as %s; state what it may be used for with "
            "base_access (--base-access) if you know that it saw no such notes",
            *(_name(base_model, parent), of_model),
        )
    return strictest(joined, of_model)


def _weights(folder: Path) -> str | None:
    return weights_sha256(folder) if has_weights(folder) else None


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
    weights = _weights(parent)
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
    before = training_row_digests(parent)
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
    """Write a plain transformers model, its tokenizer and its facts, with the digest of the weights they describe."""
    network.config.name_or_path = ""
    network.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    write_facts(draft, {**facts, "weights": weights_sha256(draft)})
    manifest = {"stage": "train", **{key: facts[key] for key in ("task", "task_version", "access")}}
    (draft / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a model into its folder."""
    text = json.dumps(dict(facts), indent=1, sort_keys=True)
    (Path(folder) / FACTS).write_text(text + "\n", encoding="utf-8")
