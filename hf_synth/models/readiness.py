"""Whether a base model fits a task, and which models are at hand without a network: before any row is read.

Only small files are read: the config, the tokenizer, the facts. A repository of the Hub is fetched, as training would.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hf_synth.errors import MissingExtraError, ModelError
from hf_synth.models.arguments import training_arguments
from hf_synth.models.base_models import BASE_MODELS
from hf_synth.models.inference import label_order
from hf_synth.models.loading import has_weights, load_tokenizer, model_folder
from hf_synth.models.record import access_of_model
from hf_synth.task.columns import Access, Kind
from hf_synth.task.task import Task

_MOST = 5  # models of the local cache that are named


def check_base_model(
    task: Task,
    base_model: str | Path,
    *,
    revision: str | None = None,
    base_access: str | None = None,
    lora: Any = False,
) -> None:
    """Check that a base model is there and of the right kind, with its tokenizer.

    Raises:
        ModelError: it is missing, of another kind, without a usable tokenizer, or `base_access` is looser than what is
            known of it.
        MissingExtraError: LoRA is asked for and peft is not installed.
    """
    if lora and importlib.util.find_spec("peft") is None:
        raise MissingExtraError("peft", "lora")
    folder = model_folder(base_model, revision)
    name, kind = f"base model {str(base_model)!r}", _model_type(folder)
    if kind not in _model_types(task.kind):
        needed = "a sequence-to-sequence model, such as a T5 or a BART" if task.kind == "text2text" else "an encoder"
        raise ModelError(f"{name} is of type {kind!r}: task {task.full_name!r} is {task.kind} and needs {needed}")
    load_tokenizer(folder)
    if base_access is not None:
        access_of_model(base_model, base_access, folder=folder)


def check_model(task: Task, model: str | Path) -> None:
    """Check that a trained model is there and has the labels of a task, without its weights.

    Raises:
        ModelError: it is missing, has no weights, or has other labels.
    """
    from transformers import AutoConfig

    folder = model_folder(model)
    if not has_weights(folder):
        raise ModelError(f"model {str(model)!r} holds no weights (.safetensors)")
    if task.kind == "text2text":
        if _model_type(folder) not in _model_types(task.kind):
            raise ModelError(f"model {str(model)!r} writes no texts, and task {task.full_name!r} is text2text")
        return
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"model {str(model)!r} cannot be loaded ({type(error).__name__})") from None
    label_order(config, task, what=f"model {str(model)!r}")


def check_fields(
    fields: Mapping[str, Any] | None,
    *,
    validated: bool = False,
    resumable: bool = False,
    access: Access = "open",
    work: Path = Path("unused"),
) -> None:
    """Check names and values of fields of `TrainingArguments`.

    Raises:
        HfSynthError: one is unknown, wrong or without effect.
        AccessError: they would report to a service on data that is not open.
    """
    if fields:
        training_arguments(fields, work, 100, validated, 0, resumable=resumable, access=access)


def installed_models(kind: Kind) -> list[str]:
    """Return models for a kind of task that are here without a network: of installed packages, and of the Hub's cache.

    Returns:
        Names for `base_model`, at most five of the cache.
    """
    types = _model_types(kind) - (set() if kind == "text2text" else _model_types("text2text"))
    return [*packaged_models(kind), *_cached(types)[:_MOST]]


def packaged_models(kind: Kind) -> list[str]:
    """Return the short names of base models for a kind of task whose packages are installed."""
    return [m.name for m in BASE_MODELS if m.name and kind in m.kinds and _is_here(m.name)]


def _is_here(name: str) -> bool:
    try:
        model_folder(name)
    except ModelError:
        return False
    return True


def _cached(types: set[str]) -> list[str]:
    """Return the repo ids of the Hub's cache whose config is of one of the types and whose weights are there."""
    from huggingface_hub.constants import HF_HUB_CACHE

    found = []
    for repo in sorted(Path(HF_HUB_CACHE).glob("models--*")):
        for snapshot in repo.glob("snapshots/*"):
            if (snapshot / "config.json").is_file() and has_weights(snapshot) and _model_type(snapshot) in types:
                found.append(repo.name.removeprefix("models--").replace("--", "/"))
                break
    return found


def _model_type(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return str(config.get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        raise ModelError(f"config.json of {folder} is broken") from None


def _model_types(kind: Kind) -> set[str]:
    """Return the types of models that transformers trains for a kind of task."""
    from transformers.models.auto import modeling_auto as auto

    if kind == "text2text":
        return set(auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    return set(auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
