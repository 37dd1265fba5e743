"""How fast a base model trains and reads on this machine: measured on a few steps, for an estimate before a training.

Nothing is written: the steps are made in memory, and the model is thrown away.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.models.arguments import training_arguments
from hf_synth.models.inference import probabilities
from hf_synth.models.loading import cpu_threads, model_folder, quiet
from hf_synth.models.record import joined_access
from hf_synth.models.text2text import predict_texts
from hf_synth.models.training import PATIENCE, optimise, start, trainer_inputs, with_lora
from hf_synth.models.watching import device_text
from hf_synth.reports.progress import stage
from hf_synth.task.labels import usable_rows
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

MOST_STEPS = 24  # steps that are measured
ENOUGH = 6.0  # seconds after which no further step is measured
_FEWEST_STEPS = 3
_READ = 64  # rows that are read
SPREAD = 1.5  # an estimate is given from 1 / SPREAD to SPREAD times what was measured: machines are shared


@dataclass(frozen=True)
class Pace:
    """The pace of a base model on this machine.

    Args:
        load: seconds to load the model.
        row: seconds to tokenize a row.
        step: seconds of a training step.
        read: seconds to predict a row.
        steps: how many steps were measured.
        device: the device, in words.
        size: rows of a step.
        spent: seconds that the measurement took.
    """

    load: float
    row: float
    step: float
    read: float
    steps: int
    device: str
    size: int
    spent: float
    _fields: Mapping[str, Any]
    _windows: float

    def plan(self, rows: int, *, validated: bool = False) -> tuple[int, int]:
        """Return the steps and the epochs of a training on so many rows."""
        with tempfile.TemporaryDirectory() as work:
            how: dict[str, Any] = {"windows": self._windows, "access": "open"}
            fields = {name: value for name, value in self._fields.items() if name != "report_to"}
            settings = training_arguments(fields, work, rows, validated, 0, **how)
        in_epoch = max(1, math.ceil(rows / self.size))
        if settings.max_steps > 0:
            return settings.max_steps, math.ceil(settings.max_steps / in_epoch)
        return math.ceil(in_epoch * settings.num_train_epochs), math.ceil(settings.num_train_epochs)

    def training(self, rows: int, validation: int = 0) -> tuple[float, float]:
        """Estimate the seconds of a training, from and to.

        Args:
            rows: to train on.
            validation: rows that are scored after each epoch. Training may stop early by them.
        """
        steps, epochs = self.plan(rows, validated=validation > 0)
        least = min(1.0, (PATIENCE + 1) / epochs) if validation else 1.0
        fixed = 2 * self.load + self.row * rows
        whole = steps * self.step + epochs * validation * self.read
        return (fixed + least * whole) / SPREAD, (fixed + whole) * SPREAD


def measure_pace(
    task: Task,
    rows: Dataset,
    *,
    base_model: str | Path,
    args: Mapping[str, Any] | None = None,
    seed: int = 0,
    lora: bool | Mapping[str, Any] = False,
    long_notes: str = "auto",
    class_weights: bool = False,
    **options: Any,
) -> Pace:
    """Measure the pace of a base model by a few training steps on some rows; nothing is written.

    Args:
        rows: those of the training, or some like them.
        args, lora, long_notes, class_weights: as for `train`.
        options: the other arguments of `train`: revision and base_access are used.

    Raises:
        ModelError: the base model cannot be loaded.
        HfSynthError: a field of `args` is unknown, wrong or without effect.
    """
    import transformers  # noqa: F401 - its import is no part of the time to load a model

    access = joined_access(
        task, base_model, model_folder(base_model, options.get("revision")), rows,
        base_access=options.get("base_access"),
    )  # fmt: skip
    rows = usable_rows(rows)
    rng = np.random.default_rng(seed)
    fields = {name: value for name, value in (args or {}).items() if not name.startswith(("eval_", "save_", "load_"))}
    fields |= {"max_steps": MOST_STEPS, "save_strategy": "no", "eval_strategy": "no"}
    with tempfile.TemporaryDirectory() as work, quiet(), cpu_threads(), stage("measuring a few steps"):
        own = {name: value for name, value in fields.items() if name != "report_to"}
        settings = training_arguments(own, work, len(rows), False, seed, access=access)
        size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        some = rows.select(rng.permutation(len(rows))[: max(MOST_STEPS * size, _READ)])
        began = time.perf_counter()
        network, tokenizer = start(base_model, task, seed)
        loaded = time.perf_counter()
        data = trainer_inputs(network, tokenizer, task, some, None, class_weights, long_notes, None)
        tokenized = time.perf_counter()
        settings = training_arguments(own, work, len(rows), False, seed, windows=data.windows, access=access)
        size = settings.per_device_train_batch_size * settings.gradient_accumulation_steps
        watching = _stopwatch()
        optimise(with_lora(network, lora, [], task.kind) if lora else network, tokenizer, data, settings, watching)
        few = some.select(range(min(_READ if task.kind != "text2text" else 8, len(some))))
        reading = time.perf_counter()
        (predict_texts if task.kind == "text2text" else probabilities)(network, tokenizer, task, few)
        read = (time.perf_counter() - reading) / len(few)
    return Pace(
        loaded - began, (tokenized - loaded) / len(some), watching.step, read, watching.steps,
        device_text(str(settings.device)), size, time.perf_counter() - began, dict(args or {}), data.windows,
    )  # fmt: skip


def _stopwatch() -> Any:
    """Return a callback of Trainer that measures its steps, and ends the training when it knows enough."""
    from transformers import TrainerCallback

    class Stopwatch(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self._times: list[float] = []

        @property
        def steps(self) -> int:
            return max(1, len(self._times) - 1)

        @property
        def step(self) -> float:
            return (self._times[-1] - self._times[0]) / self.steps

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_: Any) -> None:
            self._times.append(time.perf_counter())
            if self.steps >= _FEWEST_STEPS and self._times[-1] - self._times[0] > ENOUGH:
                control.should_training_stop = True

    return Stopwatch()
