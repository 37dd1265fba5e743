"""Checkpoints of a training that may be killed: the same call goes on where they end, bit by bit as if not stopped.

They lie in `.hf_synth/training/` beside the model's folder (0700), in a folder named by everything that decides the
weights: another call never finds them. They hold weights, the optimizer's state and random numbers, no text of rows,
and are removed when the model is written.
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
from hf_synth.task.folders import private_folder, work_folder

STEPS = 500  # between checkpoints, where the caller names no number


def checkpoint_name(decides: Mapping[str, Any]) -> str:
    """Name a training by everything that decides its weights (16 hex digits)."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()[:16]


@contextlib.contextmanager
def checkpoint_folder(output: Path, name: str, *, chief: bool = True) -> Iterator[Path]:
    """Give the folder of a training's checkpoints; with the training done it is removed, after an error it stays.

    Args:
        output: the folder that the model will lie in.
        name: of the training.
        chief: False in all but one of several processes that train together.

    Raises:
        OutputError: it cannot be made, or another process trains the same model there.
    """
    corner = work_folder(output.parent) if output.parent.is_dir() else work_folder(private_folder(output.parent))
    home = private_folder(corner / "training")
    folder = private_folder(home / f"{output.name}-{name}")
    with _alone(folder, output) if chief else contextlib.nullcontext():
        try:
            yield folder
        except BaseException:
            if chief and last_checkpoint(folder) is None:  # there is nothing to go on from
                _clear([folder], home, corner)
            raise
        if chief:  # also what is left of calls that were given up
            _clear(home.glob(f"{output.name}-{'[0-9a-f]' * 16}"), home, corner)


def _clear(folders: Iterable[Path], *parents: Path) -> None:
    """Remove folders, and their parents where nothing else lies in them."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    for parent in parents:
        with contextlib.suppress(OSError):
            parent.rmdir()


@contextlib.contextmanager
def _alone(folder: Path, output: Path) -> Iterator[None]:
    """Hold the folder for this process; a lock of a killed process is none."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"{output}: another process is training this model; wait for it") from None
    try:
        yield
    finally:
        lock.release()


def last_checkpoint(folder: Path) -> Path | None:
    """Give the latest checkpoint that was written to its end; half-written ones are removed."""
    found = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    for path in reversed(found):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))  # written last
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
        else:
            return path
    return None


def checkpoint_callbacks(folder: Path, steps: int, patience: int | None) -> list[Any]:
    """Give the callbacks of a training that can be resumed.

    One saves every so many steps, and keeps the order of an epoch's rows for who goes on in it: the order is drawn from
    torch's random numbers when an epoch begins, and Trainer restores them only afterwards.

    Args:
        patience: evaluations without a better score before training stops; None where it does not stop early.
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
            # not at an epoch's end: what is saved there must hold the epoch's score
            if state.global_step % steps == 0 and not float(state.epoch).is_integer():
                control.should_save = True

    class Stopping(EarlyStoppingCallback):  # type: ignore[misc]
        def on_evaluate(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            super().on_evaluate(args, state, control, **more)
            if self.early_stopping_patience_counter >= self.early_stopping_patience:
                control.should_save = False  # who went on from here would train one epoch more

    return [Checkpoints(), *([] if patience is None else [Stopping(patience)])]
