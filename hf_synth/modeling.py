"""Encoders: find, load, tokenize, and give probabilities or embeddings at full speed.

A model is a folder or the id of a Hub repository. A repository is first brought into the local cache as one snapshot of
one commit; everything else reads that folder. Weights are safetensors, or else a torch file read with
`weights_only=True`; no code of a repository is ever run.

A folder written by `train` holds its facts (`hf_synth_facts.json`): access, the digests of the rows it saw, labels,
parents. A model without facts may have seen anything: it counts as credentialed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import ModelError, TaskError
from hf_synth.rows import batches, pad, token_limit, tokenize
from hf_synth.task import Task, strictest

if TYPE_CHECKING:
    from datasets import Dataset

FACTS = "hf_synth_facts.json"
TOKENS_PER_BATCH = 8192
_SMALL_FILES = ["*.json", "*.txt", "*.model"]
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")

Floats = npt.NDArray[np.float32]


# --- finding and loading --------------------------------------------------------------------------------------------


def model_folder(model: str | Path) -> Path:
    """Give the local folder of a model; a Hub repository is fetched, or found in the cache when offline.

    Raises:
        ModelError: it is neither a folder with a config.json nor a repository that can be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} holds no config.json: it is not a model folder")
        return folder
    if isinstance(model, Path) or folder.exists() or not _REPO_ID.fullmatch(str(model)):
        raise ModelError(f"{model} is no model folder, nor the id of a Hub repository")
    return _snapshot(str(model))


def _snapshot(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    def fetch(*patterns: str) -> Path:
        return Path(snapshot_download(repo_id, allow_patterns=list(patterns), ignore_patterns=["*/*"]))

    try:
        with quiet():
            folder = fetch(*_SMALL_FILES, "*.safetensors")
            if not list(folder.glob("*.safetensors")):
                folder = fetch(*_SMALL_FILES, "pytorch_model*.bin")
    except GatedRepoError:
        problem = "is gated: ask for access on its page and log in with `hf auth login`"
    except (RepositoryNotFoundError, HFValidationError):
        problem = "is no folder here and no repository on the Hub that you may read"
    except LocalEntryNotFoundError:
        problem = "is not in the local cache and the Hub cannot be reached: give the path of a folder instead"
    except Exception as error:  # the clients raise many kinds; none must end as a traceback
        problem = f"cannot be fetched from the Hub ({type(error).__name__})"
    else:
        if (folder / "config.json").is_file():
            return folder
        problem = "holds no config.json: it is not a model repository"
    raise ModelError(f"model {repo_id!r} {problem}") from None


def model_revision(model: str | Path) -> str | None:
    """Give the commit of a Hub repository's snapshot; None for a plain folder."""
    if Path(model).is_dir():
        return None
    name = model_folder(model).name
    return name if re.fullmatch(r"[0-9a-f]{40}", name) else None


def load_model(model: str | Path, task: Task | None = None) -> Any:
    """Load a classifier for inference (eval mode, float32, CPU).

    Args:
        task: when given, the model must have its labels by name, in any order.

    Raises:
        ModelError: it cannot be loaded, has no classification head, or has other labels.
    """
    from transformers import AutoModelForSequenceClassification

    network, missing = load_network(AutoModelForSequenceClassification, model)
    if missing:
        raise ModelError(f"model {_shown(model)} has no trained classification head: fine-tune it with `train` first")
    if task is not None:
        label_order(network.config, task, what=f"model {_shown(model)}")
    return network


def load_tokenizer(model: str | Path) -> Any:
    """Load the tokenizer of a model, without the truncation and padding that its file may fix.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    folder = model_folder(model)
    if not any(any(folder.glob(name)) for name in ("tokenizer.json", "vocab.*", "*.model")):
        raise ModelError(f"{_shown(model)} holds no tokenizer")  # transformers would make an empty one
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"the tokenizer of {_shown(model)} cannot be loaded ({type(error).__name__})") from None
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer of {_shown(model)} has no padding token: batches cannot be made")
    return tokenizer


def load_network(kind: Any, model: str | Path, **options: Any) -> tuple[Any, list[str]]:
    """Load a network of a kind (an auto class) in eval mode, with the names of weights that the files lack.

    Raises:
        ModelError: it has no weights, or cannot be loaded as one of that kind.
    """
    import torch

    folder = model_folder(model)
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"{_shown(model)} holds no weights (.safetensors)")
    try:
        with quiet():
            network, seen = kind.from_pretrained(
                folder,
                trust_remote_code=False,
                weights_only=True,
                dtype=torch.float32,
                output_loading_info=True,
                **options,
            )
    except Exception as error:
        raise ModelError(f"model {_shown(model)} cannot be loaded ({type(error).__name__})") from None
    return network.eval(), sorted(seen["missing_keys"])


def _shown(model: str | Path) -> str:
    return repr(str(model))


@contextlib.contextmanager
def quiet(active: bool = True) -> Iterator[None]:
    """Silence progress bars and messages below errors of transformers and huggingface_hub for a while."""
    if not active:
        yield
        return
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging

    level, bars, hub_bars = logging.get_verbosity(), logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
        if hub_bars:
            enable_progress_bars()


# --- labels ---------------------------------------------------------------------------------------------------------


def label_order(config: Any, task: Task, *, what: str = "the model") -> list[int]:
    """Give for each label of the task its column in the model's output.

    Raises:
        ModelError: the model's labels are not the task's.
    """
    if task.kind == "text2text":
        raise TaskError(f"task {task.full_name!r} is text2text: it has no labels to classify by, use generate_text")
    problem = getattr(config, "problem_type", None)
    if problem not in (None, f"{task.kind}_classification"):
        raise ModelError(f"{what} was trained for {problem}, task {task.full_name!r} is {task.kind}: train one for it")
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if sorted(names) != sorted(task.labels):
        raise ModelError(
            f"{what} has {len(names)} labels {names}, task {task.full_name!r} has {len(task.labels)} "
            f"{list(task.labels)}: use a model of this task, or name them in `id2label` of its config.json"
        )
    return [names.index(label) for label in task.labels]


# --- inference ------------------------------------------------------------------------------------------------------


def predict_proba(
    model: str | Path,
    task: Task,
    dataset: Dataset,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    device: str | None = None,
    progress: bool = False,
) -> Floats:
    """Give the probability of each of the task's labels for each row, shape (N, K), in the order of `task.labels`.

    They sum to 1 for a single_label task; for a multi_label one each label's stands by itself. Rows go through in
    length-sorted batches of `tokens_per_batch` tokens, in bfloat16 on CUDA, and come back in their own order; the same
    call gives the same numbers.

    Args:
        model: folder or repo id of a trained classifier; the last two used stay in memory.
        device: "cpu", "cuda", ...; a CUDA device when there is one.

    Raises:
        ModelError: the model cannot be loaded or is not one of this task.
        ColumnError: a text is missing.
    """
    folder = model_folder(model)
    network, tokenizer = _kept_in_memory(str(folder), _stamp(folder))
    label_order(network.config, task, what=f"model {_shown(model)}")
    return probabilities(
        network, tokenizer, task, dataset, tokens_per_batch=tokens_per_batch, device=device, progress=progress
    )


@functools.lru_cache(maxsize=2)
def _kept_in_memory(folder: str, stamp: tuple[tuple[str, int, int], ...]) -> tuple[Any, Any]:
    return load_model(folder), load_tokenizer(folder)


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Tell a folder's present files from later ones of the same names."""
    stats = [(f.name, f.stat()) for f in sorted(folder.iterdir()) if f.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


def probabilities(network: Any, tokenizer: Any, task: Task, dataset: Dataset, **how: Any) -> Floats:
    """Do what `predict_proba` does with a classifier that is in memory already; `how` as there."""
    order = label_order(network.config, task)

    def pick(output: Any, _mask: Any) -> Any:
        logits = output.logits.float()
        return (logits.sigmoid() if task.kind == "multi_label" else logits.softmax(-1))[:, order]

    return _infer(network, tokenizer, task, dataset, pick, len(order), **how)


def embed(model: str | Path, task: Task, dataset: Dataset, **how: Any) -> Floats:
    """Give the mean of the last hidden states over each row's tokens, shape (N, H), from the encoder as it is.

    Args:
        how: `tokens_per_batch`, `device`, `progress`, as for `predict_proba`.

    Raises:
        ModelError: the model cannot be loaded.
        ColumnError: a text is missing.
    """
    from transformers import AutoModel

    network, missing = load_network(AutoModel, model)
    if [name for name in missing if "pooler" not in name]:
        raise ModelError(f"{_shown(model)} holds only a part of the encoder's weights")

    def pick(output: Any, mask: Any) -> Any:
        weight = mask.unsqueeze(-1).float()
        return (output.last_hidden_state.float() * weight).sum(1) / weight.sum(1)

    return _infer(network, load_tokenizer(model), task, dataset, pick, int(network.config.hidden_size), **how)


def _infer(
    network: Any,
    tokenizer: Any,
    task: Task,
    dataset: Dataset,
    pick: Callable[[Any, Any], Any],
    width: int,
    *,
    tokens_per_batch: int = TOKENS_PER_BATCH,
    device: str | None = None,
    progress: bool = False,
) -> Floats:
    import torch
    from tqdm import tqdm

    rows = tokenize(tokenizer, task, dataset, token_limit(tokenizer, network.config))
    found = np.zeros((len(rows), width), dtype=np.float32)
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(where).eval()
    half = torch.autocast("cuda", torch.bfloat16) if where.startswith("cuda") else contextlib.nullcontext()
    with torch.inference_mode(), half, cpu_threads(), tqdm(total=len(rows), disable=not progress, unit="row") as bar:
        for group in batches([len(row["input_ids"]) for row in rows], tokens_per_batch):
            padded = pad(tokenizer, [rows[i] for i in group])
            inputs = {key: torch.from_numpy(values).to(where) for key, values in padded.items()}
            found[group] = pick(network(**inputs), inputs["attention_mask"]).cpu().numpy()
            bar.update(len(group))
    return found


@contextlib.contextmanager
def cpu_threads() -> Iterator[int]:
    """Keep torch to the cores this process may use, also inside a container with a quota, for a while.

    More threads than cores make torch several times slower. The number depends on the machine only, never on its load,
    so that a run can be repeated bit by bit. `OMP_NUM_THREADS` is obeyed.
    """
    import torch

    before = torch.get_num_threads()
    now = before if os.environ.get("OMP_NUM_THREADS") else max(1, min(before, _cores()))
    torch.set_num_threads(now)
    try:
        yield now
    finally:
        torch.set_num_threads(before)


def _cores() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, int(quota) // int(period))  # "max" is no number: no quota
    return max(1, cores)


# --- facts ----------------------------------------------------------------------------------------------------------


def model_facts(model: str | Path) -> dict[str, Any]:
    """Read what is known of how a model was made.

    Returns:
        What `train` wrote, among it access, row_digests, task, labels, base_model, base_revision and parents. A model
        without facts is {"access": "credentialed", "row_digests": [], "known": False}: it may have seen any row.

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
        raise ModelError(f"{FACTS} of {_shown(model)} is broken: train the model again") from None
    return {**facts, "access": strictest(facts.get("access")), "row_digests": digests, "known": True}


def write_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of a model into its folder."""
    text = json.dumps(dict(facts), indent=1, sort_keys=True)
    (Path(folder) / FACTS).write_text(text + "\n", encoding="utf-8")


def weights_sha256(model: str | Path) -> str:
    """Hash a model's weights (hex sha256 over the names and bytes of its weight files).

    Raises:
        ModelError: there is no such model, or it has no weights.
    """
    folder = model_folder(model)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise ModelError(f"{_shown(model)} holds no weights (.safetensors)")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\x00{file.stat().st_size}\x00".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
