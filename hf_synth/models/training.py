"""Fine-tune a model for a Task with transformers' Trainer, fully or by LoRA; resume a training; cross-fit.

Correctors and downstream models are trained alike. A gold row has a hard label and weight 1; a corrected row has its
posterior (`label_probs`) as a soft target, times its `weight`; dropped and rejected rows are left out. `objectives`
prepares the inputs of Trainer for a classifier, `text2text` those for a text2text task.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.errors import HfSynthError, ModelError, TaskError
from hf_synth.models.arguments import changed_arguments, cpu_has_bf16, main_arguments, mention_bf16, training_arguments
from hf_synth.models.checkpoints import STEPS, checkpoint_callbacks, checkpoint_folder, checkpoint_name, last_checkpoint
from hf_synth.models.inference import load_model, probabilities
from hf_synth.models.loading import cpu_threads, has_weights, load_tokenizer, model_folder, quiet
from hf_synth.models.objectives import TrainerInputs, classifier_inputs, pooled_notes
from hf_synth.models.record import ModelAt, joined_access, model_output, training_facts, weights_sha256, write_model
from hf_synth.models.text2text import load_seq2seq, predict_texts, start_seq2seq, trainer_parts
from hf_synth.models.tokens import check_vocabulary
from hf_synth.models.watching import mention_device, watch
from hf_synth.reports.progress import is_shown, shown, stage
from hf_synth.task.columns import Access
from hf_synth.task.folders import private_folder
from hf_synth.task.labels import row_digests, row_weights, soft_labels, target_texts, usable_rows
from hf_synth.task.processes import is_chief, joined_processes
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": "all-linear"}
LORA_LEARNING_RATE = 3e-4  # ten times that of full training (Biderman et al. 2024, arXiv:2405.09673)
PATIENCE = 3  # evaluations without a better score before training stops
_SMALL = 5_000_000  # parameters up to which bf16 gains nothing
_HINTS = {  # what a model that cannot read a text may lack, by its type
    "xmod": "name its default_language in config.json, or ",
    "reformer": "it trains on texts of one length only; ",
}
_HINT = "give its tokenizer a model_max_length that it can read, or "
_LOG = logging.getLogger(__name__)

Predict = Callable[["Dataset"], Any]


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
    base_access: str | None = None,
    resume: bool | int = False,
    cache_dir: str | Path | None = None,
    progress: bool = False,
) -> Path:
    """Fine-tune an encoder, or a sequence-to-sequence model for text2text; write it to a folder atomically.

    Args:
        train: gold rows, corrected rows, or both; dropped and rejected rows are left out.
        validation: rows with true labels: the epoch with the best main metric is kept, and training stops after three
            epochs without a better one. They count as seen by the model.
        base_model: repo id, folder, or "minilm" (of a Python package); a folder with config.json and tokenizer but no
            weights starts from scratch.
        output_dir: an earlier model of `train` there is replaced.
        args: None, a dict of `TrainingArguments` fields over our defaults, or a `TrainingArguments`, used unchanged.
        seed: of the head, the order of rows and dropout. On a CPU the same seed gives the same weights, bit by bit.
        class_weights: weight each class by the inverse of its share; for single_label tasks only.
        long_notes: "cut" notes at the model's length; read them in "windows" and pool by the maximum, or by the mean
            ("windows_mean"); "auto": windows where more than 5% of the rows would be cut. Text2text tasks cut.
        lora: train LoRA matrices beside the frozen weights, merged at the end: True, or fields of peft's `LoraConfig`.
        revision: branch, tag or commit of a repo id; the facts hold the commit.
        base_access: what may be done with the base model, as you state it; the facts record it. A base model counts as
            credentialed unless its facts or the table of `base_models` say otherwise, and the new model with it.
        resume: keep checkpoints every 500 steps, or every so many; after a kill the same call continues from the last
            one and ends with the same weights, on a CPU bit by bit.
        cache_dir: a private folder of the user's that caches the tokens of texts for other trainings.
        progress: show the progress: epoch, loss, validation score and the time that is left.

    Returns:
        The folder; its `hf_synth_facts.json` holds access, digests of every row seen, and parents.

    Raises:
        HfSynthError: a field of `args` is unknown, wrong or without effect.
        UsageError: several processes were started that do not find each other.
        TaskError: class weights for a task that is not single_label, or an unknown value of `long_notes`.
        ColumnError: a column is missing, a text or label is not usable, or no row is left to train on.
        ModelError: the base model cannot be loaded, or `base_access` is looser than what is known of it.
        OutputError: the folder cannot be written, or holds something that `train` did not write.

    Example:
        >>> model = train(task, gold["train"], base_model=base_model, output_dir="work/model", args={"max_steps": 2})
        >>> sorted(path.name for path in model.glob("*.safetensors"))
        ['model.safetensors']
    """
    if class_weights and task.kind != "single_label":
        raise TaskError(f"task {task.full_name!r} is {task.kind}: class_weights are for single_label tasks only")
    if resume and args is not None and not isinstance(args, Mapping):
        raise HfSynthError("a training that can be resumed takes its arguments as a dict, since it sets output_dir")
    processes, chief = joined_processes(), is_chief()
    if processes > 1 and chief:
        _LOG.info("%d processes train one model together; each waits for the others", processes)
    rows, output, parent = usable_rows(train), Path(output_dir), model_folder(base_model, revision)
    access = joined_access(task, base_model, parent, train, validation, base_access=base_access)
    if isinstance(args, Mapping):  # checked before a model is loaded and texts are tokenized
        own: dict[str, Any] = {"processes": processes, "resumable": bool(resume), "access": access}
        training_arguments(args, output, len(rows), validation is not None, seed, **own)
    options = {"class_weights": class_weights, "long_notes": long_notes, "lora": lora}
    inputs = {"task": task.fingerprint(), "args": args, "seed": seed, "processes": processes, **options}
    with contextlib.ExitStack() as stack:
        draft = stack.enter_context(model_output(output)) if chief else None
        stack.enter_context(shown(progress))
        stack.enter_context(quiet())
        threads = stack.enter_context(cpu_threads())
        started = time.perf_counter()
        work = stack.enter_context(
            _checkpoint_folder(output, draft, inputs, (task, rows, validation, parent), resume, chief)
        )
        with stage(f"loading {Path(base_model).name}"):
            network, tokenizer, new = _start(base_model, parent, task, seed)
        with stage(f"reading the words of {len(rows):,} rows"):
            data = trainer_inputs(network, tokenizer, task, rows, validation, class_weights, long_notes, cache_dir)
            _try_longest_and_shortest(network, data, str(base_model))
        how: dict[str, Any] = {"windows": data.windows, "processes": processes, "resumable": bool(resume)}
        how |= {"learning_rate": LORA_LEARNING_RATE if lora else 3e-5, "access": access}
        settings = training_arguments(args, work, len(rows), validation is not None, seed, is_shown(), **how)
        if settings.device.type == "cpu" and not settings.bf16 and network.num_parameters() > _SMALL and cpu_has_bf16():
            mention_bf16()
        trainee = with_lora(network, lora, new, task.kind) if lora else network
        mention_device(str(settings.device))
        with stage("training") as bar:
            bar.leaves = True
            watching = watch(bar, task)
            epochs, best = optimise(trainee, tokenizer, data, settings, watching, work if resume else None, int(resume))
        _wait_for_all()  # others may still read the best checkpoint, which the first process removes
        if draft is not None:
            network = merge_lora(trainee) if lora else network
            if data.long_notes != "cut":
                network.config.long_notes = data.long_notes
            facts = training_facts(task, rows, validation, base_model, parent) | _run_facts(settings, data)
            facts |= {"access": access, "seed": seed, "class_weights": class_weights, "threads": threads}
            facts |= {"base_access": base_access} if base_access else {}
            facts |= {"lora": dict(lora) if isinstance(lora, Mapping) else lora, "epochs": epochs}
            facts |= {"best_validation": best, "seconds": round(time.perf_counter() - started, 2)}
            write_model(network, tokenizer, draft, facts)
            draft.chmod(0o755 if access == "open" else 0o700)
    _wait_for_all()
    return output


def _run_facts(settings: Any, data: TrainerInputs) -> dict[str, Any]:
    return {
        "long_notes": data.facts,
        "hyperparameters": main_arguments(settings),
        "arguments": changed_arguments(settings),
        "processes": settings.world_size,
        "device": settings.device.type,
    }


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
    """Return a corrector that can be cross-fitted: `fit(rows)` trains anew and returns `predict(rows)` -> (N, K).

    For a text2text task `predict(rows)` returns N texts.

    Args:
        work_dir: models are written to `fold-<hash>` folders in it, removed afterwards unless `keep`.
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
            _wait_for_all()
            if is_chief():
                shutil.rmtree(folder)
        if text:
            return lambda rows: predict_texts(network, tokenizer, task, rows, progress=progress)
        return lambda rows: probabilities(network, tokenizer, task, rows, progress=progress, cache_dir=cache_dir)

    return _Writer(fit, ModelAt(base_model, options.get("base_access"))) if text else fit


@dataclass(frozen=True)
class _Writer:
    """A `fit` of models that write texts: these may repeat what the base model learnt, so that its access counts."""

    fit: Callable[[Dataset], Predict]
    base: ModelAt

    def __call__(self, rows: Dataset) -> Predict:
        return self.fit(rows)

    @property
    def access(self) -> Access:
        """The access of the base model."""
        return self.base.access


def _digest(task: Task, rows: Dataset, seed: int) -> str:
    """Digest the rows and labels of a training (12 hex digits)."""
    digest = hashlib.sha256(f"{task.fingerprint()} {seed}".encode())
    for text in row_digests(task, rows.select_columns(list(task.text_columns))):
        digest.update(text.encode())
    usable = usable_rows(rows)
    if task.kind == "text2text":
        digest.update("\x1f".join(target_texts(task, usable)).encode() + row_weights(usable).tobytes())
    else:
        digest.update(soft_labels(task, usable).tobytes())
    return digest.hexdigest()[:12]


def start(base_model: str | Path, task: Task, seed: int) -> tuple[Any, Any]:
    """Load the base model, with a new head where it has none for the task, and its tokenizer.

    Raises:
        ModelError: it cannot be loaded.
    """
    return _start(base_model, model_folder(base_model), task, seed)[:2]


def _start(base_model: str | Path, folder: Path, task: Task, seed: int) -> tuple[Any, Any, list[str]]:
    """Load as `start` does, from the base model's folder; also return the names of weights that its files lack."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification, set_seed

    if task.kind == "text2text":
        return *start_seq2seq(folder, seed, name=str(base_model)), []
    tokenizer = load_tokenizer(folder)
    set_seed(seed)
    labels: dict[str, Any] = {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: i for i, label in enumerate(task.labels)},
        "problem_type": f"{task.kind}_classification",
    }
    name = f"base model {str(base_model)!r}"
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, **labels)
        config.__dict__.pop("long_notes", None)  # of an earlier training; this one chooses anew
        if config.pad_token_id is not None and tokenizer.pad_token_id < getattr(config, "vocab_size", 0):
            # Trainer takes the tokenizer's: a model that counts positions from its padding has it from the start
            config.pad_token_id = tokenizer.pad_token_id
        if has_weights(folder):
            options = {"trust_remote_code": False, "weights_only": True, "dtype": torch.float32}
            network, info = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, ignore_mismatched_sizes=True, output_loading_info=True, **options
            )
            mismatched = [key if isinstance(key, str) else key[0] for key in info["mismatched_keys"]]
            new = sorted({*info["missing_keys"], *mismatched})
        else:
            network = AutoModelForSequenceClassification.from_config(config)
            new = [name for name, _ in network.named_parameters() if "classifier" in name]
    except Exception as error:
        raise ModelError(f"{name} cannot be loaded as a classifier ({type(error).__name__})") from None
    check_vocabulary(tokenizer, network, name)
    return network, tokenizer, new


def trainer_inputs(
    network: Any,
    tokenizer: Any,
    task: Task,
    rows: Dataset,
    validation: Dataset | None,
    class_weights: bool,
    long_notes: str,
    cache_dir: str | Path | None,
) -> TrainerInputs:
    """Return Trainer's inputs for a task of any kind; log how long notes are read."""
    data = (network, tokenizer, task, rows, validation)
    if task.kind == "text2text":
        return TrainerInputs(trainer_parts(*data))
    inputs = classifier_inputs(*data, class_weights=class_weights, long_notes=long_notes, cache_dir=cache_dir)
    facts = inputs.facts or {}
    if facts["longer"]:
        ways = {"cut": "cut", "windows": "read in windows, pooled by their maximum"}
        way = ways.get(facts["how"], "read in windows, pooled by their mean")
        counts = facts["longer"], facts["rows"], facts["tokens"]
        _LOG.info("%s of %s rows are longer than the %s tokens that the model reads: %s", *counts, way)
    return inputs


def _try_longest_and_shortest(network: Any, data: TrainerInputs, base_model: str) -> None:
    """Pass the longest and the shortest text through the network once, before all the others.

    Limits that neither config nor tokenizer names are found so in a second instead of in the middle of a training.

    Raises:
        ModelError: the model cannot read one of them.
    """
    import torch

    rows, collate = data.parts["train_dataset"], data.parts["data_collator"]
    sizes = [len(row["input_ids"]) for row in rows]
    longest, shortest = sizes.index(max(sizes)), sizes.index(min(sizes))
    for i in dict.fromkeys((longest, shortest)):
        batch = {name: tensor for name, tensor in collate([rows[i]]).items() if name != "labels"}
        if batch["input_ids"].dim() == 3:  # one window of a long note is enough
            batch = {name: tensor[:, 0] for name, tensor in batch.items()}
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):  # what a model caches here is used in training
                network.train()(**batch)["logits"]
        except Exception as error:  # models fail in many ways, and their messages may show text
            kind, size = network.config.model_type, batch["input_ids"].shape[-1]
            raise ModelError(
                f"base model {base_model!r} cannot read a text of {size:,} tokens ({type(error).__name__}): "
                f"{_HINTS.get(kind, _HINT if i == longest else '')}choose another model"
            ) from None
    network.eval()


def optimise(
    network: Any,
    tokenizer: Any,
    inputs: TrainerInputs,
    settings: Any,
    watching: Any,
    checkpoints: Path | None = None,
    steps: int = 0,
) -> tuple[float, float | None]:
    """Train a network in place; return the epochs run, and the best main score on validation rows.

    Args:
        watching: a callback of Trainer.
        checkpoints: the folder of checkpoints to resume from; None where none are kept.
        steps: between checkpoints; 1 for the default number.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

    stops = inputs.parts["eval_dataset"] is not None and settings.load_best_model_at_end
    callbacks: list[Any] = [EarlyStoppingCallback(PATIENCE)] if stops else []
    last = None
    if checkpoints is not None:
        callbacks = checkpoint_callbacks(checkpoints, STEPS if steps == 1 else steps, PATIENCE if stops else None)
        last = last_checkpoint(checkpoints)
        if last is not None:
            _LOG.info("resuming the training from step %s", last.name.rpartition("-")[2])
    callbacks.append(watching)
    trainer = Trainer(network, settings, processing_class=tokenizer, callbacks=callbacks, **inputs.parts)
    if settings.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
    with pooled_notes(network, inputs.long_notes) if inputs.long_notes != "cut" else contextlib.nullcontext():
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    network.eval().to("cpu")
    return round(float(trainer.state.epoch or 0), 2), trainer.state.best_metric


@contextlib.contextmanager
def _checkpoint_folder(
    output: Path,
    draft: Path | None,
    inputs: Mapping[str, Any],
    data: tuple[Task, Dataset, Dataset | None, Path],
    resume: bool | int,
    chief: bool,
) -> Iterator[Path]:
    """Yield the folder of checkpoints: a temporary one, or one named by the inputs, shared by calls and processes."""
    if draft is not None and not resume and inputs["processes"] == 1:
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
    name = checkpoint_name({**inputs, "data": digest.hexdigest(), "versions": versions})
    with checkpoint_folder(output, name, chief=chief) as folder:
        yield folder


def _wait_for_all() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def with_lora(network: Any, options: bool | Mapping[str, Any], new: Collection[str], kind: str) -> Any:
    """Wrap a network so that only LoRA matrices and newly initialised modules are trained.

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
    modules = sorted({name.rpartition(".")[0] for name in new if "." in name})
    task_type = "SEQ_2_SEQ_LM" if kind == "text2text" else "SEQ_CLS"
    try:
        config = LoraConfig(**{**LORA_DEFAULTS, "modules_to_save": modules or None, "task_type": task_type, **own})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft uses a deprecated name of transformers
            return get_peft_model(network, config)
    except (TypeError, ValueError) as error:
        raise HfSynthError(f"LoRA options: {str(error).splitlines()[0]}") from None


def merge_lora(network: Any) -> Any:
    """Merge the LoRA matrices into the network; return the plain network."""
    return network.merge_and_unload()
