"""The progress of a training: its epoch, its loss and its validation score, in the line of `reports.progress`."""

from __future__ import annotations

from typing import Any

from hf_synth.models.loading import cores
from hf_synth.reports import progress
from hf_synth.reports.progress import Stage
from hf_synth.task.task import Task

LOGGED = 0.02  # share of a training's steps after which its loss is taken, where progress is shown


def mention_device(device: str) -> None:
    """Show once, where progress is shown, the device that models run on: "cpu", "cuda", "cuda:0", ..."""
    if progress.is_shown():
        alone = "; no GPU is used" if device.startswith("cpu") else ""
        progress.mention(f"models run on {device_text(device)}{alone}")


def device_text(device: str) -> str:
    """Return a device as words: "the CPU (2 cores)", or the name of the GPU."""
    if device.startswith("cpu"):
        return f"the CPU ({cores()} cores)"
    if device.startswith("cuda"):
        import torch

        return f"the GPU {torch.cuda.get_device_name(device)}"
    return f"the device {device}"


def watch(stage: Stage, task: Task) -> Any:
    """Return a callback of Trainer that shows a training in a stage."""
    from transformers import TrainerCallback

    score = "accuracy" if task.metrics and task.metrics[0] == "accuracy" else "macro-F1"
    score = task.metrics[0] if task.kind == "text2text" and task.metrics else score

    class Watch(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._loss = self._score = ""

        def _show(self, state: Any) -> None:
            epochs = max(1, int(state.num_train_epochs))
            stage.label = f"epoch {min(int(state.epoch or 0) + 1, epochs)}/{epochs}"
            stage.done = state.global_step
            stage.words = " | ".join(word for word in (self._loss, self._score) if word)

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            stage.total = state.max_steps
            self._show(state)
            stage.restart()

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            self._show(state)

        def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self._loss = f"loss {logs['loss']:.2f}"
                self._show(state)

        def on_evaluate(self, _args: Any, state: Any, _control: Any, metrics: Any = None, **_: Any) -> None:
            found = metrics or {}
            if "eval_main" in found:
                self._score = f"validation {score} {found['eval_main']:.2f}"
            elif "eval_loss" in found:
                self._score = f"validation loss {found['eval_loss']:.2f}"
            before = stage.label  # the epoch that ended, not the next one
            self._show(state)
            stage.keep(" | ".join(word for word in (before, self._loss, self._score) if word))

    return Watch()
