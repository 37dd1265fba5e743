"""Checkpoints to resume a training: after a kill, the same call continues from the last one to the same weights.

They lie in `.hf_synth/training/` beside the model's folder (0700), in a folder named by everything that decides the
weights, so that another call never uses them. They hold weights, the optimizer's state and random numbers, no text of
rows, and are removed when the model is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hf_synth.errors import OutputError
from hf_synth.task.folders import WORK, private_folder, work_folder

STEPS = 500  # between checkpoints, by default


def checkpoint_name(inputs: Mapping[str, Any]) -> str:
    """Return the name of a training, from everything that decides its weights (16 hex digits)."""
    return hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextlib.contextmanager
def checkpoint_folder(output: Path, name: str, *, chief: bool = True) -> Iterator[Path]:
    """Yield the folder of a training's checkpoints; it is removed after the training, and kept after an error.

    Args:
        output: the folder of the model.
        name: the training's `checkpoint_name`.
        chief: True in one of the processes that train together.

    Raises:
        OutputError: it cannot be created, or another process trains the same model there.
    """
    work = work_folder(private_folder(output.parent))
    home = private_folder(work / "training")
    folder = private_folder(home / f"{output.name}-{name}")
    with _lock(folder, output) if chief else contextlib.nullcontext():
        try:
            yield folder
        except BaseException:
            if chief and last_checkpoint(folder) is None:
                _remove([folder], home, work)
            raise
        if chief:  # with the checkpoints of earlier calls that never ended
            _remove(home.glob(f"{output.name}-{'[0-9a-f]' * 16}"), home, work)


def _remove(folders: Iterable[Path], *parents: Path) -> None:
    """Remove folders, and those parents that are empty then."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for parent in parents:
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def _lock(folder: Path, output: Path) -> Iterator[None]:
    """Lock the folder for this process; the system frees the lock of a killed process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"{output}: another process is training this model; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest complete checkpoint; remove incomplete ones after it."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # written last
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        else:
            return path
    return None


def kept_step(output: Path) -> int | None:
    """Return the step of the latest checkpoint that is kept of trainings of a model; None where there is none.

    Args:
        output: the folder of the model.
    """
    home = output.parent / WORK / "training"
    files = home.glob(f"{output.name}-{'[0-9a-f]' * 16}/checkpoint-*/trainer_state.json")
    newest = max(files, key=lambda file: file.stat().st_mtime, default=None)
    return None if newest is None else int(newest.parent.name.rpartition("-")[2])


def checkpoint_callbacks(folder: Path, steps: int, patience: int | None) -> list[Any]:
    """Return the callbacks of a training that can be resumed.

    One saves every `steps` steps, and stores the random state at the start of each epoch: the order of the rows is
    drawn from it, and Trainer restores it too late for an epoch that is resumed in the middle.

    Args:
        patience: evaluations without a better score before training stops; None without early stopping.
    """
    import torch
    from transformers import EarlyStoppingCallback, TrainerCallback

    class Checkpoints(TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            file = folder / f"order-{int(state.epoch or 0)}-{args.process_index}.pt"
            if file.is_file():
                torch.set_rng_state(torch.load(file, weights_only=True))
                return
            draft = file.with_suffix(".new")
            torch.save(torch.get_rng_state(), draft)
            draft.replace(file)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            # Trainer itself saves at an epoch's end, after the evaluation: that checkpoint must hold the score
            if state.global_step % steps == 0 and not float(state.epoch).is_integer():
                control.should_save = True

    class Stopping(EarlyStoppingCallback):  # type: ignore[misc]
        def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_evaluate(args, state, control, **more)
            if self.early_stopping_patience_counter >= self.early_stopping_patience:
                control.should_save = False  # a training resumed from here would run one epoch more

    return [Checkpoints(), *([] if patience is None else [Stopping(patience)])]
