"""Fine-tuning: transformers' Trainer as it is, for a Task; the corrector and the downstream model are made alike.

Gold rows are hard labels of weight 1. A corrected row trains on its posterior (`label_probs`) with its `weight`; rows
that were dropped or rejected are left out. What a classifier is trained towards stands in `objectives`, what is
different for text2text tasks in `text2text`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hf_synth.errors import HfSynthError, ModelError, TaskError
from hf_synth.models.arguments import changed_arguments, told_arguments, training_arguments
from hf_synth.models.checkpoints import STEPS, checkpoint_callbacks, checkpoint_folder, checkpoint_name, last_checkpoint
from hf_synth.models.inference import load_model, probabilities
from hf_synth.models.loading import cpu_threads, load_tokenizer, model_folder, quiet
from hf_synth.models.objectives import Lessons, label_lessons, pooled_notes
from hf_synth.models.record import has_weights, joined_access, model_output, training_facts, weights_sha256, write_model
from hf_synth.models.text2text import load_seq2seq, start_seq2seq, trainer_parts, written_texts
from hf_synth.task.folders import clear_disk_errors, private_folder
from hf_synth.task.labels import row_digests, row_weights, soft_labels, target_texts, usable_rows
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

_LOG = logging.getLogger(__name__)
Floats = npt.NDArray[np.float32]
Predict = Callable[["Dataset"], Any]
_PATIENCE = 3  # evaluations without a better score before training stops


def train(
    task: Task,
    train: Dataset,
    validation: Dataset | None = None,
    *,
    base_model: str | Path,
    output_dir: str | Path,
    args: Any = None,
    seed: int = 0,
    class_weights: bool = False,
    long_notes: str = "auto",
    lora: bool | Mapping[str, Any] = False,
    revision: str | None = None,
    resume: bool | int = False,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Fine-tune an encoder, or a sequence-to-sequence model for text2text, into a folder, whole or not at all.

    Args:
        train: gold rows, corrected rows, or both; rows that were dropped or rejected are left out.
        validation: rows with true labels; the epoch with the best main metric of the task is kept, and training stops
            when three epochs bring nothing better. They count as seen by the model.
        base_model: repo id or folder; a folder with config.json and tokenizer but no weights starts from scratch.
        output_dir: an earlier model of ours there is replaced.
        args: None, a dict of `TrainingArguments` fields over our defaults, or a `TrainingArguments`, used untouched.
        seed: of the head, the order of rows and dropout. On a CPU the same seed gives the same weights, bit by bit.
        class_weights: weigh each class by the inverse of its share; for single_label tasks only.
        long_notes: "cut" notes at the model's length; read them in "windows" and pool by the maximum, or by the mean
            ("windows_mean"); "auto": windows where more than 5% of the rows would be cut. Text2text tasks cut.
        lora: train small matrices beside the frozen weights, merged when done: True, or fields of peft's `LoraConfig`.
        revision: branch, tag or commit of a repo id; the commit stands in the facts.
        resume: keep checkpoints, every 500 steps or as many as it says; after a kill the same call goes on from the
            last one and ends with the same weights, on a CPU bit by bit.
        cache_dir: a private folder of the user's that keeps the tokens of texts, for other trainings on them.

    Returns:
        The folder. Access, digests of every row seen, and parents are in its `hf_synth_facts.json`.

    Raises:
        TaskError: class weights for a task that is not single_label, or an unknown way with long notes.
        ColumnError: a column is missing, a text or label is not usable, or no row is left to train on.
        ModelError: the base model cannot be loaded.
        OutputError: the folder cannot be written, or holds something that is not a model of ours.
    """
    if class_weights and task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: class_weights are for single_label tasks only")
    if resume and args is not None and not isinstance(args, Mapping):
        raise HfSynthError("to be resumed, a training takes its arguments as a dict: its checkpoints lie in our folder")
    rows, output = usable_rows(train), Path(output_dir)
    parent = model_folder(base_model, revision)
    access = joined_access(task, base_model, parent, train, validation)
    chief = int(os.environ.get("RANK", "0")) == 0
    options = {"class_weights": class_weights, "long_notes": long_notes, "lora": lora}
    decides = {"task": task.fingerprint(), "args": args, "seed": seed, "processes": _processes(), **options}
    with contextlib.ExitStack() as stack:
        draft = stack.enter_context(model_output(output)) if chief else None
        stack.enter_context(quiet(not progress))
        threads = stack.enter_context(cpu_threads())
        started = time.perf_counter()
        work = stack.enter_context(_work(output, draft, decides, (task, rows, validation, parent), resume, chief))
        network, tokenizer, new = _start(base_model, parent, task, seed)
        lessons = _lessons(network, tokenizer, task, rows, validation, class_weights, long_notes, cache_dir)
        settings = training_arguments(
            args, work, len(rows), validation is not None, seed, progress, windows=lessons.windows,
            processes=_processes(), learning_rate=LORA_LEARNING_RATE if lora else 3e-5, resumable=bool(resume),
        )  # fmt: skip
        learner = with_lora(network, lora, new, task.kind) if lora else network
        epochs, best = _optimise(learner, tokenizer, lessons, settings, work if resume else None, int(resume))
        if draft is not None:
            network = merged(learner) if lora else network
            if lessons.long_notes != "cut":
                network.config.long_notes = lessons.long_notes
            facts = training_facts(task, rows, validation, base_model, parent) | {
                "access": access,
                "seed": seed,
                "class_weights": class_weights,
                "lora": dict(lora) if isinstance(lora, Mapping) else lora,
                "long_notes": lessons.facts,
                "hyperparameters": told_arguments(settings),
                "arguments": changed_arguments(settings),
                "processes": settings.world_size,
                "device": settings.device.type,
                "threads": threads,
                "epochs": epochs,
                "best_validation": best,
                "seconds": round(time.perf_counter() - started, 2),
            }
            write_model(network, tokenizer, draft, facts)
    if chief:
        with clear_disk_errors(output):
            output.chmod(0o755 if access == "open" else 0o700)
    _wait_for_all()
    return output


def trainer_fit(
    task: Task,
    *,
    base_model: str | Path,
    args: Any = None,
    work_dir: str | Path,
    seed: int = 0,
    keep: bool = False,
    progress: bool = False,
    **options: Any,
) -> Callable[[Dataset], Predict]:
    """Give a corrector that can be cross-fitted: `fit(rows)` trains afresh and gives `predict(rows)` -> (N, K).

    Of a text2text task `predict(rows)` gives what the model writes: N texts.

    Args:
        work_dir: trainings happen in `fold-<hash>` folders in it, removed afterwards unless `keep`.
        options: of `train`, such as class_weights, long_notes, lora, revision or cache_dir.

    Raises:
        HfSynthError: as `train`, when `fit` is called.
    """
    cache_dir, text = options.get("cache_dir"), task.kind == "text2text"

    def fit(rows: Dataset) -> Predict:
        folder = private_folder(Path(work_dir)) / f"fold-{_digest(task, rows, seed)}"
        train(task, rows, base_model=base_model, output_dir=folder, args=args, seed=seed, progress=progress, **options)
        network, tokenizer = load_seq2seq(folder) if text else load_model(folder, task), load_tokenizer(folder)
        if not keep:
            shutil.rmtree(folder)
        if text:
            return lambda asked: written_texts(network, tokenizer, task, asked, progress=progress)
        return lambda asked: probabilities(network, tokenizer, task, asked, progress=progress, cache_dir=cache_dir)

    return fit


def _digest(task: Task, rows: Dataset, seed: int) -> str:
    """Name a training by its rows and their labels (12 hex digits)."""
    digest = hashlib.sha256(f"{task.fingerprint()} {seed}".encode())
    for text in row_digests(task, rows.select_columns(list(task.text_columns))):
        digest.update(text.encode())
    used = usable_rows(rows)
    if task.kind == "text2text":
        digest.update("\x1f".join(target_texts(task, used)).encode() + row_weights(used).tobytes())
    else:
        digest.update(soft_labels(task, used).tobytes())
    return digest.hexdigest()[:12]


# --- Trainer --------------------------------------------------------------------------------------------------------
def start(base_model: str | Path, task: Task, seed: int) -> tuple[Any, Any]:
    """Load the model to start from, with a new head for the task where it has none, and its tokenizer.

    Raises:
        ModelError: it cannot be loaded.
    """
    return _start(base_model, model_folder(base_model), task, seed)[:2]


def _start(base_model: str | Path, folder: Path, task: Task, seed: int) -> tuple[Any, Any, list[str]]:
    """Do what `start` does from the folder of the base model; name the weights that its files lack, too."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    if task.kind == "text2text":
        return *start_seq2seq(folder, seed, shown=str(base_model)), []
    tokenizer = load_tokenizer(folder)
    set_seed(seed)
    names: dict[str, Any] = {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: i for i, label in enumerate(task.labels)},
        "problem_type": f"{task.kind}_classification",
    }
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **names)
        config.__dict__.pop("long_notes", None)  # of an earlier training, which does not bind this one
        if not has_weights(folder):
            network = AutoModelForSequenceClassification.from_config(config)
            return network, tokenizer, [name for name, _ in network.named_parameters() if "classifier" in name]
        network, seen = AutoModelForSequenceClassification.from_pretrained(
            folder, config=config, trust_remote_code=False, weights_only=True, dtype=torch.float32,
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except Exception as error:
        raise ModelError(f"base model {str(base_model)!r} cannot be loaded ({type(error).__name__})") from None
    other = [key if isinstance(key, str) else key[0] for key in seen["mismatched_keys"]]
    return network, tokenizer, sorted({*seen["missing_keys"], *other})


def _lessons(
    network: Any, tokenizer: Any, task: Task, rows: Dataset, validation: Dataset | None, class_weights: bool,
    long_notes: str, cache_dir: str | Path | None,
) -> Lessons:  # fmt: skip
    if task.kind == "text2text":
        return Lessons(trainer_parts(network, tokenizer, task, rows, validation))
    lessons = label_lessons(
        network, tokenizer, task, rows, validation, class_weights=class_weights, long_notes=long_notes,
        cache_dir=cache_dir,
    )  # fmt: skip
    told = lessons.facts or {}
    if told["longer"]:
        way = {"cut": "cut", "windows": "read in windows, pooled by their maximum"}
        _LOG.info(
            "%s of %s rows are longer than the %s tokens that the model reads: %s",
            told["longer"], told["rows"], told["tokens"], way.get(told["how"], "read in windows, pooled by their mean"),
        )  # fmt: skip
    return lessons


def _optimise(
    network: Any, tokenizer: Any, lessons: Lessons, settings: Any, resumed: Path | None, steps: int
) -> tuple[float, float | None]:
    """Train a network in place; give the epochs run, and the best main score on validation rows.

    Args:
        resumed: the folder of checkpoints to go on from; None where none are kept.
        steps: between checkpoints; 1 for the usual number.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

    stops = lessons.parts["eval_dataset"] is not None and settings.load_best_model_at_end
    callbacks: list[Any] = [EarlyStoppingCallback(_PATIENCE)] if stops else []
    last = None
    if resumed is not None:
        callbacks = checkpoint_callbacks(resumed, STEPS if steps == 1 else steps, _PATIENCE if stops else None)
        last = last_checkpoint(resumed)
        if last is not None:
            _LOG.info("going on from step %s", last.name.rpartition("-")[2])
    trainer = Trainer(network, settings, processing_class=tokenizer, callbacks=callbacks, **lessons.parts)
    if settings.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    with pooled_notes(network, lessons.long_notes) if lessons.long_notes != "cut" else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    network.eval().to("cpu")
    return round(float(trainer.state.epoch or 0), 2), trainer.state.best_metric


# --- where it happens -----------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _work(
    output: Path,
    draft: Path | None,
    decides: Mapping[str, Any],
    data: tuple[Task, Dataset, Dataset | None, Path],
    resume: bool | int,
    chief: bool,
) -> Iterator[Path]:
    """Give the folder for checkpoints: a passing one, or one that the same call, and every process of it, finds."""
    if draft is not None and not resume and _processes() == 1:
        with tempfile.TemporaryDirectory(prefix=".work-", dir=draft) as work:
            yield Path(work)
        return
    import torch
    import transformers

    from hf_synth import __version__

    task, rows, validation, parent = data
    digest = hashlib.sha256((parent / "config.json").read_bytes())
    digest.update((weights_sha256(parent) if has_weights(parent) else "").encode())
    for part in (rows, validation):
        if part is not None:
            columns = [c for c in ("label_probs", "weight", "label_status", "source") if c in part.column_names]
            for values in zip(*(part[c] for c in (*task.text_columns, task.label_column, *columns)), strict=True):
                digest.update(repr(values).encode("utf-8", "surrogatepass"))
        digest.update(b"\x00")
    versions = [__version__, transformers.__version__, str(torch.__version__), torch.get_num_threads()]
    name = checkpoint_name({**decides, "data": digest.hexdigest(), "versions": versions})
    with checkpoint_folder(output, name, chief=chief) as folder:
        yield folder


def _processes() -> int:
    """Give how many processes train together, as torchrun says it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _wait_for_all() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}
LORA_LEARNING_RATE = 3e-4  # ten times that of full training (Biderman et al. 2024, arXiv:2405.09673)


def with_lora(network: Any, options: bool | Mapping[str, Any], new: Collection[str], kind: str) -> Any:
    """Wrap a network so that only LoRA matrices and its new parts are trained.

    Args:
        options: True for LORA_DEFAULTS, or fields of peft's `LoraConfig` over them.
        new: names of the weights that the pretrained files lack.
        kind: of the task.

    Raises:
        HfSynthError: peft is not installed, or refuses an option.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise HfSynthError("LoRA needs peft: pip install 'hf_synth[lora]'") from None
    own = dict(options) if isinstance(options, Mapping) else {}
    parts = sorted({name.rpartition(".")[0] for name in new if "." in name})
    task_type = "SEQ_2_SEQ_LM" if kind == "text2text" else "SEQ_CLS"
    try:
        config = LoraConfig(**{**LORA_DEFAULTS, "modules_to_save": parts or None, "task_type": task_type, **own})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that will go
            return get_peft_model(network, config)
    except (TypeError, ValueError) as error:
        raise HfSynthError(f"LoRA options: {str(error).splitlines()[0]}") from None


def merged(network: Any) -> Any:
    """Merge what LoRA learnt into the plain network, and give that."""
    return network.merge_and_unload()
