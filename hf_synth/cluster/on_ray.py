"""Blocks on Ray: the only module that knows it.

Each worker holds the model or the index of gold, and gets one block at a time as an Arrow table. What it returns is
written by this process. A worker that dies is started again, and computes its block again. On this machine Ray listens
on 127.0.0.1, its files lie in the work folder (0700), and usage statistics and dashboard are off.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cluster.work import Work
from hf_synth.errors import HfSynthError, MissingExtraError
from hf_synth.llm.permits import Permits, limits_of, sharing
from hf_synth.models.loading import cores
from hf_synth.reports.progress import stage
from hf_synth.task.folders import private_folder

if TYPE_CHECKING:
    import pyarrow as pa

_LONGEST = 40  # characters of a folder in which Ray makes its sockets: their paths have at most 107
_WAITING = 10_000  # calls that may wait for a permit
_STORE = 200 << 20  # bytes of Ray's store on this machine: blocks pass through it one at a time
# Travels to every worker: where texts and models may come from and go to, and how many threads compute, which decides
# rounding. Keys and tokens do not: Ray writes down what travels. A worker finds them in the environment of its machine.
_PASSED_ON = (
    "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_ENDPOINT", "OPENAI_BASE_URL", "NO_PROXY", "no_proxy",
    "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", "HF_DATASETS_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_PROGRESS_BARS",
    "TRANSFORMERS_VERBOSITY",
)  # fmt: skip


def run_on_ray(
    work: Work, *, workers: int | None = None, address: str | None = None, gpus: float = 0
) -> tuple[int, int]:
    """Compute all blocks on Ray; return how many were computed and how many stood already.

    Args:
        workers: processes at a time; one for each core (or for each GPU) when None.
        address: of a running cluster, as for `ray.init`, e.g. "auto"; Ray is started on this machine when None.
        gpus: of each worker.

    Raises:
        HfSynthError: Ray is not installed or cannot be started, or a block fails.
    """
    done = 0
    with contextlib.ExitStack() as stack:
        ray: Any = None
        permits: Any = None
        while True:
            if missing := work.missing(range(len(work.places))):
                if ray is None:
                    ray = stack.enter_context(_running(work.folder, address, workers or cores()))
                    permits = _permits_of(ray, work)
                count = workers or max(1, int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1) / (gpus or 1)))
                _compute(ray, work, missing, min(count, len(missing)), gpus, permits)
                done += len(missing)
            if not work.grow():
                break
    return done, len(work.places) - done


class _Worker:
    """A process of Ray that keeps the function of each part that it was given."""

    def __init__(self, name: str, permits: Any) -> None:
        os.umask(0o077)
        self._blocks: dict[int, Any] = {}
        self._permits, self._owner = permits, f"{name} {uuid.uuid4().hex}"
        if permits is not None:  # what an earlier life of this worker held comes back
            import ray

            ray.get(permits.begin.remote(name, self._owner))

    def compute(self, part: int, function: Sequence[Any], table: pa.Table) -> pa.Table | HfSynthError:
        """Return the result of a block, or the error of ours that it raised.

        Args:
            part: number of the part.
            function: its function in Ray's store, alone in a list, so that it is fetched once and not for each block.
        """
        import ray

        try:
            if part not in self._blocks:
                block = ray.get(function[0])
                if self._permits is not None and hasattr(block, "with_llm"):
                    block = block.with_llm(sharing(block.llm, self._call, self._owner))
                self._blocks[part] = block
            result: pa.Table = self._blocks[part](table)
            return result
        except HfSynthError as error:
            return error
        except Exception as error:  # its message could show text of a note
            return HfSynthError(f"a worker failed with {type(error).__name__}; run one shard with --shard to see where")

    def _call(self, name: str, *given: Any) -> Any:
        """Call a method of the permits; return its future."""
        return getattr(self._permits, name).remote(*given).future()


def _permits_of(ray: Any, work: Work) -> Any:
    """Start the one process that counts calls, tokens and dollars of all workers; None where nothing is limited."""
    llms = [part.block.llm for part in work.parts if hasattr(part.block, "llm")]
    limits = next(filter(None, map(limits_of, llms)), None)
    if limits is None:
        return None
    return ray.remote(Permits).options(num_cpus=0, max_concurrency=_WAITING).remote(limits)


def _compute(ray: Any, work: Work, numbers: Sequence[int], count: int, gpus: float, permits: Any) -> None:
    """Deal out blocks one at a time, and write what comes back."""
    places, parts = work.places, list(work.parts)
    functions = [ray.put(part.block) for part in parts]  # once a machine: the index of gold is large
    options = {"num_cpus": 0 if gpus else 1, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": -1}
    workers = [ray.remote(_Worker).options(**options).remote(str(i), permits) for i in range(count)]
    waiting, running = list(reversed(numbers)), dict[Any, tuple[int, Any, Any]]()

    def give(worker: Any) -> None:
        if waiting:
            number = waiting.pop()
            table = work.table(number)
            place = next(i for i, part in enumerate(parts) if part is places[number][0])
            running[worker.compute.remote(place, [functions[place]], table)] = number, table, worker

    for worker in workers:
        give(worker)
    with stage(total=len(numbers), unit="blocks") as bar:
        while running:
            (ready, *_), _ = ray.wait(list(running), num_returns=1)
            number, table, worker = running.pop(ready)
            try:
                result = ray.get(ready)
            except ray.exceptions.RayError as error:
                raise HfSynthError(f"Ray failed with {type(error).__name__}; blocks that are done are kept") from None
            if isinstance(result, HfSynthError):
                raise result
            work.write(number, table, result)
            bar.advance(1)
            give(worker)
    for worker in workers:
        ray.kill(worker)


@contextlib.contextmanager
def _running(folder: Path, address: str | None, cpus: int) -> Iterator[Any]:
    """Start Ray on this machine, or connect to a running cluster; stop or leave it in the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None:  # a token of this process alone: Ray would write one into the home folder, and reads it once
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if address is None:  # other machines have paths of their own
        passed["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    options: dict[str, Any] = {"runtime_env": {"env_vars": passed}, "log_to_driver": False, "configure_logging": False}
    with contextlib.ExitStack() as stack:
        if address is None:
            place = stack.enter_context(_short_folder(folder))
            options |= {"_temp_dir": str(place), "num_cpus": cpus, "include_dashboard": False}
            options |= {"_node_ip_address": "127.0.0.1", "object_store_memory": _STORE}
            options["object_spilling_directory"] = str(private_folder(folder / "ray-spilled"))
            stack.callback(shutil.rmtree, folder / "ray-spilled", ignore_errors=True)
        else:
            options["address"] = address
        try:
            ray.init(**options)
        except Exception as error:
            where = f"at {address}" if address else "on this machine"
            raise HfSynthError(f"Ray cannot be used {where} ({type(error).__name__})") from None
        stack.callback(ray.shutdown)
        yield ray


@contextlib.contextmanager
def _short_folder(beside: Path) -> Iterator[Path]:
    """Make a private folder for Ray beside the blocks, and a short way to it where its path is too long for sockets."""
    folder = private_folder(beside.absolute() / "ray")
    try:
        if len(str(folder)) <= _LONGEST:
            yield folder
            return
        with tempfile.TemporaryDirectory(prefix="r") as short:  # 0700; it holds a link and nothing else
            link = Path(short) / "r"
            link.symlink_to(folder)
            yield link
    finally:
        shutil.rmtree(folder, ignore_errors=True)
