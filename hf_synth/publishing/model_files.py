"""The files of a model that are exported: those that `from_pretrained` needs, with the tensors of the architecture.

A file is left behind if another one makes it unnecessary: slow vocabularies beside tokenizer.json, shards beside
model.safetensors. JSON is written anew, so that its bytes hold what a parser reads, and nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_synth.errors import ModelError, PublishError
from hf_synth.models.loading import tensor_shapes
from hf_synth.publishing.contents import safetensors_header
from hf_synth.task.task import Task

# Files of a model that are exported. Pickles, optimizer state, training arguments and unknown files are not.
MODEL_FILES = re.compile(
    r"config\.json|generation_config\.json|model(?:-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json|"
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.(?:txt|json)|merges\.txt|"
    r"tokenizer\.model|spiece\.model|sentencepiece\.bpe\.model|spm\.model"
)
_SLOW = re.compile(r"added_tokens\.json|vocab\.(?:txt|json)|merges\.txt|.*\.model")
_SHARDS = re.compile(r"model-\d{5}-of-\d{5}\.safetensors|model\.safetensors\.index\.json")
TOKENIZER_FILES = re.compile(
    r"tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\..*|merges\.txt|.*\.model"
)
# of the machine that it was saved on, or of code beside it, which is never exported
_LOCAL_NAMES = ("_name_or_path", "name_or_path", "vocab_file", "tokenizer_file", "hub_token", "token", "auto_map")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "BOOL": 1}
_FORMATS = ("pt", "tf", "flax", "np", "mlx")


def model_files(model: Path) -> list[str]:
    """Return the sorted names of a model's files that are exported; links are left out."""
    files = [f for f in sorted(model.iterdir()) if f.is_file() and not f.is_symlink()]
    names = [f.name for f in files if MODEL_FILES.fullmatch(f.name)]
    unneeded = [p for p, needs in ((_SLOW, "tokenizer.json"), (_SHARDS, "model.safetensors")) if needs in names]
    return [name for name in names if not any(pattern.fullmatch(name) for pattern in unneeded)]


def weights_check(task: Task) -> Callable[[Path], None]:
    """Return the check of an export folder: its weights have the tensors of the architecture, and no others.

    Raises:
        PublishError: (by the check) they have others, or its config describes no model.
    """

    def check(folder: Path) -> None:
        try:
            shapes = tensor_shapes(folder, text2text=task.kind == "text2text")
        except ModelError as error:
            raise PublishError(
                f"the export cannot be loaded alone ({type(error).__name__}); nothing was exported"
            ) from None
        check_weights(folder, [f.name for f in folder.glob("*.safetensors")], shapes)

    return check


def check_weights(folder: Path, names: Sequence[str], shapes: Mapping[str, Sequence[int]] | None = None) -> None:
    """Check that safetensors files hold the tensors of an architecture, and nothing else.

    Args:
        names: files of the folder; others than safetensors are passed over.
        shapes: of the tensors of the architecture; None checks only that the files hold tensors and nothing else.

    Raises:
        PublishError: a file is no safetensors file, has metadata of its own, a tensor that the architecture lacks or
            that has another shape, or bytes that belong to no tensor.
    """
    for name in names:
        if name.endswith(".safetensors"):
            _check_safetensors(folder / name, shapes)


def _check_safetensors(file: Path, shapes: Mapping[str, Sequence[int]] | None) -> None:
    try:
        header, begin = safetensors_header(file)
    except (ValueError, OSError, RecursionError):
        raise PublishError(f"{file.name} is no safetensors file; save the model again") from None
    metadata = header.pop("__metadata__", None) or {}  # some programs write null
    if not isinstance(metadata, dict) or set(metadata) - {"format"} or not set(metadata.values()) <= set(_FORMATS):
        raise PublishError(f"{file.name} has metadata of its own; save the model again without it")
    if not all(map(_is_tensor, header.values())):
        raise PublishError(f"{file.name} is no safetensors file; save the model again")
    other = [t for t, about in header.items() if shapes is not None and about["shape"] != list(shapes.get(t, [None]))]
    if other:
        raise PublishError(
            f"{file.name} has {len(other):,} tensors that the architecture of config.json does not have, or has in "
            "another shape; save the model again with transformers"
        )
    end = 0
    for first, last in sorted(about["data_offsets"] for about in header.values()):
        if first != end:
            break
        end = last
    else:
        if begin + end == file.stat().st_size:
            return
    raise PublishError(f"{file.name} holds bytes that belong to no tensor; save the model again")


def _is_tensor(about: Any) -> bool:
    """Return whether an entry of a header is a tensor of a known type, with as many bytes as its shape needs."""
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        return False
    shape, offsets = about["shape"], about["data_offsets"]
    if not all(isinstance(part, list) and all(type(n) is int for n in part) for part in (shape, offsets)):
        return False
    size = _BYTES.get(str(about["dtype"]))
    return size is not None and len(offsets) == 2 and offsets[1] - offsets[0] == size * math.prod(shape)


def clean_files(task: Task, draft: Path) -> None:
    """Write the JSON files of a model anew, without local paths, and check that its labels are the task's.

    Raises:
        PublishError: one is broken, or the labels are not the task's.
    """
    for file in sorted(draft.glob("*.json")):
        try:
            facts = json.loads(file.read_text(encoding="utf-8"))
            if file.name in ("config.json", "tokenizer_config.json"):
                facts = {k: v for k, v in facts.items() if k not in _LOCAL_NAMES}
            names = sorted(map(str, facts.get("id2label", {}).values())) if file.name == "config.json" else []
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            file.write_text(text, encoding="utf-8")
        except (ValueError, AttributeError, TypeError, RecursionError):
            raise PublishError(f"{file.name} of the model is broken; save the model again") from None
        if task.labels and file.name == "config.json" and names != sorted(task.labels):
            raise PublishError(f"the model's labels are not those of task {task.full_name!r}: {', '.join(task.labels)}")
