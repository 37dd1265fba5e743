"""Default `TrainingArguments` for small data sets, the fields that cannot act, and those that a model card lists."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hf_synth.errors import AccessError, HfSynthError
from hf_synth.models.watching import LOGGED
from hf_synth.task.columns import Access

_LOG = logging.getLogger(__name__)
_MAIN = (
    "learning_rate", "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "weight_decay", "warmup_steps", "lr_scheduler_type", "bf16", "fp16",
)  # fmt: skip
_LOCAL_REPORTS = {"none", "tensorboard"}  # the others send metrics, some of them weights, to a service
_SCORED = "the score of an epoch needs the predictions for all validation rows at once"
_SHAPED = "the inputs of Trainer are made here, and hold what the model reads alone"
_NO_PART = "`train` decides by its own arguments what is run"
_NO_HUB = "training pushes to no Hub; publish_model does, after its checks"
_CANNOT_ACT = {  # fields that change nothing, or break the training: why
    "label_smoothing_factor": "the loss is the cross-entropy with soft labels, which Trainer does not smooth; smooth "
    "the labels in column label_probs",
    "remove_unused_columns": _SHAPED,
    "label_names": _SHAPED,
    "length_column_name": _SHAPED,
    "include_for_metrics": "the score of an epoch is computed from predictions and labels alone",
    "batch_eval_metrics": _SCORED,
    "prediction_loss_only": _SCORED,
    "eval_do_concat_batches": _SCORED,
    "ignore_data_skip": "a resumed training goes on at the row where it stopped; use `resume` of `train`",
    "resume_from_checkpoint": "Trainer does not read it; use `resume` of `train`",
    "do_train": _NO_PART,
    "do_predict": _NO_PART,
    "local_rank": "the launcher (torchrun) sets the ranks",
    "hub_token": _NO_HUB,
    "hub_private_repo": _NO_HUB,
    "hub_model_id": _NO_HUB,
    "hub_strategy": _NO_HUB,
    "hub_always_push": _NO_HUB,
    "hub_revision": _NO_HUB,
}
_OF_A_RESUMABLE = ("output_dir", "save_only_model", "restore_callback_states_from_checkpoint")  # fields that it sets
_MEASURED = ("main", "eval_main", "loss", "eval_loss")  # what a validation measures
_KUBEFLOW = "kubeflow"  # `TrainingArguments` add it by themselves where KUBEFLOW_TRAINER_SERVER_URL is set
_LEFT_OUT = ("output_dir", "run_name", "disable_tqdm", "report_to")  # of the changed arguments, with logs and the Hub


def training_arguments(
    args: Any,
    work: str | Path,
    n_rows: int,
    validated: bool,
    seed: int,
    progress: bool = False,
    *,
    windows: float = 1.0,
    processes: int = 1,
    learning_rate: float = 3e-5,
    resumable: bool = False,
    access: Access = "credentialed",
) -> Any:
    """Return the `TrainingArguments`: the user's own unchanged, or a dict of fields over our defaults.

    Fields that cannot act are refused, so that no card lists a setting that changed nothing.

    The defaults follow the advice for small data sets (Mosbach et al. 2021, arXiv:2006.04884): a small learning rate
    with warm-up and enough epochs, here about 600 steps between 3 and 20 epochs.

    Args:
        progress: whether the loss is taken now and then, for the line of progress.
        windows: mean number of windows of a row; with several, batches are smaller and gradients are accumulated.
        processes: that train together; with several, rows are not sorted by length, since each would sort its own way.
        resumable: whether checkpoints hold the optimizer's state and the callbacks'.
        access: of all that is trained on. Unless it is open, no tracking service is reported to.

    Raises:
        HfSynthError: a field is unknown, wrong or without effect, the arguments would push to a Hub past the publishing
            gate, or other processes than those that were started would train together.
        AccessError: the arguments report to a tracking service on data that is not open.
    """
    import torch
    from transformers import TrainingArguments

    if not isinstance(args, TrainingArguments):
        fields = dict(args or {})
        ours = [name for name in _OF_A_RESUMABLE if resumable and name in fields]
        if ours:
            raise HfSynthError(f"a training that can be resumed sets {', '.join(ours)} itself: leave that out")
        logs = progress or processes > 1  # the loss is gathered from all: one that takes it alone waits for ever
        defaults = _defaults(fields, n_rows, validated, windows, processes) | {
            "output_dir": str(work),
            "learning_rate": learning_rate,
            "save_only_model": not resumable,
            "restore_callback_states_from_checkpoint": resumable,
            "logging_strategy": "steps" if logs or {"logging_steps", "logging_first_step"} & set(fields) else "no",
            "disable_tqdm": True,
            "seed": seed,
        }
        if processes > 1:
            defaults["ddp_find_unused_parameters"] = False  # there are none, and looking for them costs a pass a step
            if not torch.accelerator.is_available():  # accelerate joins CPUs only where it is told that they train
                os.environ.setdefault("ACCELERATE_USE_CPU", "1")
        if logs:
            defaults["logging_steps"] = LOGGED
        if fields.get("bf16") and not torch.accelerator.is_available():
            defaults["use_cpu"] = True  # transformers asks for it where no GPU is there
            if not cpu_has_bf16():
                _warn_of_bf16()
        try:
            args = TrainingArguments(**(defaults | fields))
        except (TypeError, ValueError) as error:
            raise HfSynthError(f"training arguments: {error}") from None
        if access != "open" and _KUBEFLOW not in (fields.get("report_to") or ()):
            args.report_to = [name for name in args.report_to if name != _KUBEFLOW]
    if access != "open":
        _check_reports(args, access)
    if args.push_to_hub:
        raise HfSynthError(
            "training does not push to a Hub: publish the model with publish_model, which checks it first"
        )
    if args.world_size != processes:
        raise HfSynthError(
            f"{processes} processes were started, and {args.world_size} of them would train together: each would learn "
            "from all rows by itself; start them with torchrun, before anything else uses torch.distributed"
        )
    problem = _ineffective_field(args, validated)
    if problem:
        raise HfSynthError(f"training arguments: {problem}")
    return args


def _ineffective_field(args: Any, validated: bool) -> str:
    """Return a sentence on the first field that cannot act in a training of ours; "" where all can.

    Args:
        validated: whether there are validation rows.
    """
    for field in dataclasses.fields(args):
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        if field.name in _CANNOT_ACT and getattr(args, field.name) != default:
            return f"{field.name} has no effect here: {_CANNOT_ACT[field.name]}"
    if args.fp16 and args.device.type == "cpu":
        return "fp16 has no effect on a CPU: give bf16, or leave it out"
    scored = str(getattr(args.eval_strategy, "value", args.eval_strategy)) != "no"
    if args.do_eval and not scored:
        return "do_eval has no effect by itself: give eval_strategy, and validation rows"
    if not validated and (scored or args.eval_on_start):
        return "there are no validation rows to score: give `train` some, or leave eval_strategy and eval_on_start out"
    if validated and args.dataloader_drop_last:
        return "dataloader_drop_last would leave validation rows out of the score; leave it out"
    if validated and args.load_best_model_at_end and args.metric_for_best_model not in _MEASURED:
        return "metric_for_best_model is main (the task's main metric) or loss; nothing else is measured"
    if args.data_seed is not None and args.train_sampling_strategy != "random":
        return f"data_seed has no effect with train_sampling_strategy {args.train_sampling_strategy}: give random"
    return ""


def _check_reports(args: Any, access: Access) -> None:
    """Check that a training reports to nothing outside, by its arguments, by DeepSpeed or by the environment."""
    asked = [args.report_to] if isinstance(args.report_to, str) else args.report_to or ()  # it may be set afterwards
    foreign = sorted(set(asked) - _LOCAL_REPORTS)
    if foreign:
        hint = "; set DISABLE_KUBEFLOW_INTEGRATION=TRUE, too" if _KUBEFLOW in foreign else ""
        raise AccessError(
            f"training on {access} data does not report to {', '.join(foreign)}: metrics, arguments and weights would "
            f"leave the site; give report_to none or tensorboard{hint}"
        )
    if "tensorboard" in asked and "://" in os.environ.get("TENSORBOARD_LOGGING_DIR", ""):
        raise AccessError(
            f"training on {access} data writes tensorboard's logs to a folder of this machine: "
            "TENSORBOARD_LOGGING_DIR names an address"
        )
    if getattr(args, "deepspeed", None):
        monitors = args.deepspeed if isinstance(args.deepspeed, dict) else _json_of(args.deepspeed)
        if services := sorted({"wandb", "comet"} & set(monitors)):
            raise AccessError(
                f"training on {access} data does not report to {', '.join(services)}: take it out of the arguments' "
                "deepspeed"
            )


@functools.cache
def cpu_has_bf16() -> bool:
    """Return whether the CPU computes in bf16, as /proc/cpuinfo names it; False where that cannot be read."""
    try:
        words = set(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


@functools.cache
def _warn_of_bf16() -> None:
    _LOG.warning("this CPU has no arithmetic in bf16 (AVX512_BF16 or AMX): training is slower with it")


@functools.cache
def mention_bf16() -> None:
    """Log once that bf16 would be faster on this CPU."""
    _LOG.info("this CPU computes in bf16: --set bf16=true (args={'bf16': True}) trains faster, and rounds more")


def _json_of(path: str) -> dict[str, Any]:
    try:
        plain = json.loads(Path(path).read_text(encoding="utf-8"))
        return plain if isinstance(plain, dict) else {}
    except (OSError, ValueError):
        raise HfSynthError("training arguments: deepspeed names no file of JSON") from None


def _defaults(own: Mapping[str, Any], n_rows: int, validated: bool, windows: float, processes: int) -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    rows = max(1, round(16 / windows))
    steps = 1 if "per_device_train_batch_size" in own else max(1, 16 // rows)
    batch = int(own.get("per_device_train_batch_size", rows))
    accumulated = int(own.get("gradient_accumulation_steps", steps))
    strategy = "epoch" if validated else "no"
    return {
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulated,
        "per_device_eval_batch_size": max(1, round(64 / windows)),
        "num_train_epochs": int(np.clip(round(600 * batch * accumulated * processes / n_rows), 3, 20)),
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "train_sampling_strategy": "group_by_length" if processes == 1 else "random",
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "dataloader_pin_memory": cuda,
        "eval_strategy": strategy,
        "save_strategy": strategy,
        "save_total_limit": 1,
        "load_best_model_at_end": validated,
        "metric_for_best_model": "main",
        "greater_is_better": True,
        "report_to": "none",
    }


def main_arguments(settings: Any) -> dict[str, Any]:
    """Return the hyperparameters that a card shows, by their names in `TrainingArguments`."""
    return {name: _plain(getattr(settings, name)) for name in _MAIN}


def changed_arguments(settings: Any) -> dict[str, Any]:
    """Return the fields of `TrainingArguments` that differ from their defaults; without paths, logs and the Hub."""
    default = type(settings)(output_dir=settings.output_dir)
    changed = {}
    for field in dataclasses.fields(settings):
        if field.name in _LEFT_OUT or field.name.startswith(("hub_", "logging_", "push_")):
            continue
        value = getattr(settings, field.name)
        if value != getattr(default, field.name):
            changed[field.name] = _plain(value)
    return changed


def _plain(value: Any) -> Any:
    if isinstance(value, int | float | str | None):
        return value
    return dict(value) if isinstance(value, dict) else str(getattr(value, "value", value))
