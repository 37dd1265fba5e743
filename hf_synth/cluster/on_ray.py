"""Ray: how it and its workers are started, what workers share, and blocks on it. No other module imports it.

Each worker holds the model or the index of gold, and gets one block at a time as an Arrow table. What it returns is
written by this process. A worker that dies is started again, and computes its block again. On this machine Ray listens
on 127.0.0.1, its files lie in the work folder (0700), usage statistics and dashboard are off, and Ray's own processes
have another home folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import site
import socket
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from hf_synth.cluster.work import Work
from hf_synth.errors import HfSynthError, MissingExtraError
from hf_synth.llm.permits import Permits, limits_of, sharing
from hf_synth.models.loading import cores
from hf_synth.reports.progress import stage
from hf_synth.task.environment import environment
from hf_synth.task.folders import private_folder

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
_LONGEST = 40  # characters of a folder in which Ray makes its sockets: their paths have at most 107
_REACHED = 10  # seconds in which the head of a cluster takes a connection
_WAITING = 10_000  # calls that may wait for a permit
_STORE = 200 << 20  # bytes of Ray's store on this machine: blocks pass through it one at a time
# Ray reads them when it is imported. By the second one it takes 127.0.0.1 as the address of this machine, and listens
# there alone: it listens on all addresses otherwise, also where it is given 127.0.0.1.
_SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
_CLOUD_FILE = "ray_bootstrap_config.yaml"  # Ray asks addresses of cloud providers where it runs, unless home has it
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
    if missing := work.missing(range(len(work.places))):
        with running(work.folder, address, workers or cores()) as ray:
            most = places_of(ray, workers, gpus, address)
            _Crew(ray, min(most, len(missing)), gpus, work).compute(missing)
    return len(missing), len(work.places) - len(missing)


def places_of(ray: Any, workers: int | None, gpus: float, address: str | None) -> int:
    """Return the number of workers: one for each core of the cluster, or for each GPU, unless it is given.

    Raises:
        HfSynthError: this machine has too few GPUs for them. A cluster may get more of them when they are asked for.
    """
    there = float(ray.cluster_resources().get("GPU" if gpus else "CPU", 0))
    most = workers or max(1, int(there / (gpus or 1)))
    if gpus and address is None and most * gpus > there:
        raise HfSynthError(f"{most} workers with {gpus:g} GPUs each need more than the {there:g} GPUs of this machine")
    return most


class Share:
    """What a worker shares with the others: the limits of the LLM, by one process that counts for all of them.

    Args:
        name: of the worker; that which is started in its place has it, too.
        permits: name of the process that counts; None where nothing is limited.
    """

    def __init__(self, name: str, permits: str | None) -> None:
        self._lock, self._functions = threading.Lock(), dict[int, Any]()
        self._owner, self._permits = f"{name} {uuid.uuid4().hex}", None
        if permits is not None:  # what an earlier life of this worker held comes back
            import ray

            self._permits = ray.get_actor(permits)
            ray.get(self._permits.begin.remote(name, self._owner))

    def function(self, place: int, stored: Sequence[Any]) -> Any:
        """Return a function, which is fetched once; its LLM keeps the limits.

        Args:
            place: number of the function.
            stored: it in Ray's store, alone in a list: Ray would fetch it for each call otherwise.
        """
        import ray

        with self._lock:
            if place not in self._functions:
                found = ray.get(stored[0])
                limited = self._permits is not None and hasattr(found, "with_llm")
                self._functions[place] = (
                    found.with_llm(sharing(found.llm, self._call, self._owner)) if limited else found
                )
            return self._functions[place]

    def functions(self) -> list[Any]:
        """Return the functions that were fetched."""
        with self._lock:
            return list(self._functions.values())

    def result(self, compute: Callable[[], T]) -> T | HfSynthError:
        """Return what a function computes, or the error of ours that it raises."""
        try:
            return compute()
        except HfSynthError as error:
            return error
        except Exception as error:  # its message could show text of a note
            return HfSynthError(f"a worker failed with {type(error).__name__}; run one shard with --shard to see where")
        finally:
            if self._permits is not None:  # calls arrive in order: what was spent is counted before this returns
                import ray

                ray.get(self._permits.counts.remote())

    def _call(self, name: str, *given: Any) -> Any:
        """Call a method of the permits; return its future."""
        return getattr(self._permits, name).remote(*given).future()


class Worker:
    """A process of Ray.

    Args:
        name, permits: as for `Share`.
    """

    def __init__(self, name: str, permits: str | None) -> None:
        os.umask(0o077)
        self.share = Share(name, permits)

    def begin(self) -> None:
        """Return once the worker has begun: Ray starts no more workers than there is room for."""


class _Worker(Worker):
    """A process of Ray that computes blocks."""

    def compute(self, place: int, function: Sequence[Any], table: pa.Table) -> pa.Table | HfSynthError:
        """Return the result of a block, or the error of ours that it raised; arguments as for `Share.function`."""
        return self.share.result(lambda: self.share.function(place, function)(table))


def permits_of(ray: Any, llms: Iterable[Any]) -> tuple[Any, str | None]:
    """Start the one process that counts calls, tokens and dollars of all workers.

    Returns:
        The process, which ends when nobody holds it, and the name by which workers find it; None twice where nothing is
        limited.
    """
    limits = next(filter(None, map(limits_of, llms)), None)
    if limits is None:
        return None, None
    name = f"hf_synth {uuid.uuid4().hex}"
    return ray.remote(Permits).options(name=name, num_cpus=0, max_concurrency=_WAITING).remote(limits), name


class _Crew:
    """The workers of a run.

    Args:
        ray: the module.
        most: workers.
        gpus: of each.
        work: its blocks.
    """

    def __init__(self, ray: Any, most: int, gpus: float, work: Work) -> None:
        self._ray, self._work = ray, work
        llms = [part.block.llm for part in work.parts if hasattr(part.block, "llm")]
        self._permits, name = permits_of(ray, llms)
        self._workers = workers_of(ray, _Worker, most, gpus, name)
        self._functions = list[tuple[Any, Any]]()  # the function of a block, and its place in Ray's store

    def compute(self, numbers: Sequence[int]) -> None:
        """Deal out blocks one at a time, and write what comes back.

        Raises:
            HfSynthError: a block failed; those that others had begun are done and kept.
        """
        ray, work, waiting, running = self._ray, self._work, list(reversed(numbers)), dict[Any, tuple[int, Any, Any]]()
        beginning = {worker.begin.remote(): worker for worker in self._workers}

        def give(worker: Any) -> None:
            if waiting:
                number = waiting.pop()
                table = work.table(number)
                place = self._place_of(work.places[number][0].block)
                running[worker.compute.remote(place, [self._functions[place][1]], table)] = number, table, worker

        failed: HfSynthError | None = None
        with stage(total=len(numbers), unit="blocks") as bar:
            while waiting or running:
                (ready, *_), _ = ray.wait([*running, *beginning], num_returns=1)
                try:
                    result = ray.get(ready)
                except ray.exceptions.RayError as error:
                    raise HfSynthError(
                        f"Ray failed with {type(error).__name__}; blocks that are done are kept"
                    ) from None
                if (begun := beginning.pop(ready, None)) is not None:
                    give(begun)
                    continue
                number, table, worker = running.pop(ready)
                if isinstance(result, HfSynthError):  # the blocks of other workers end: what they asked is paid for
                    failed = failed or result
                    waiting.clear()
                    continue
                work.write(number, table, result)
                bar.advance(1)
                give(worker)
        if failed is not None:
            raise failed

    def _place_of(self, function: Any) -> int:
        """Return the number of a function; it is stored once a machine, since the index of gold is large."""
        for place, (known, _) in enumerate(self._functions):
            if known is function:
                return place
        self._functions.append((function, self._ray.put(function)))
        return len(self._functions) - 1


def workers_of(ray: Any, kind: Any, most: int, gpus: float, permits: str | None, *, at_once: int = 1) -> list[Any]:
    """Start workers; one that dies is started again, and does again what it had not done.

    Args:
        kind: class of a `Worker`.
        permits: name of the process that counts; None where nothing is limited.
        at_once: calls of a worker that run at the same time.
    """
    options: dict[str, Any] = {"num_cpus": 0 if gpus else 1, "num_gpus": gpus, "max_concurrency": at_once}
    actor = ray.remote(kind).options(**options, max_restarts=-1, max_task_retries=-1)
    return [actor.remote(str(number), permits) for number in range(most)]


@contextlib.contextmanager
def running(folder: Path, address: str | None, cpus: int) -> Iterator[Any]:
    """Start Ray on this machine, or connect to a running cluster; stop or leave it in the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's workers wait for every other program otherwise
    if address is None:  # a token of this process alone: Ray would write one into the home folder, and reads it once
        if sys.modules.get("ray") is not None and any(
            os.environ.get(name) != value for name, value in _SETTINGS.items()
        ):
            raise HfSynthError(
                "Ray was imported before its settings were made: call hf_synth.cluster before `import ray`, or name a "
                "running cluster as its address"
            )
        os.environ.update(_SETTINGS)
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    try:
        import ray
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if address is None:  # other machines have paths of their own
        passed["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        passed |= {"HOME": os.environ["HOME"]} if "HOME" in os.environ else {}
    options: dict[str, Any] = {"runtime_env": {"env_vars": passed}, "log_to_driver": False, "configure_logging": False}
    with contextlib.ExitStack() as stack:
        if address is None:
            place = stack.enter_context(_short_folder(folder))
            options |= {"_temp_dir": str(place), "num_cpus": cpus, "include_dashboard": False}
            options |= {"_node_ip_address": "127.0.0.1", "object_store_memory": _STORE}
            options["object_spilling_directory"] = str(private_folder(folder / "ray-spilled"))
            stack.callback(shutil.rmtree, folder / "ray-spilled", ignore_errors=True)
        else:
            _check_reachable(address)
            options["address"] = address
        try:
            with contextlib.nullcontext() if address else _another_home(place):
                ray.init(**options)
        except Exception as error:
            where = f"at {address}" if address else "on this machine"
            raise HfSynthError(f"Ray cannot be used {where} ({type(error).__name__})") from None
        stack.callback(ray.shutdown)
        yield ray


def _check_reachable(address: str) -> None:
    """Check that something listens at HOST:PORT, since Ray tries for minutes; names such as "auto" are left to Ray.

    Raises:
        HfSynthError: nothing does.
    """
    place = urlsplit(address if "//" in address else f"//{address}")
    try:
        if place.hostname is not None and place.port is not None:
            socket.create_connection((place.hostname, place.port), timeout=_REACHED).close()
    except (OSError, ValueError):
        raise HfSynthError(
            f"nothing answers at {address}: name the head of a running cluster as HOST:PORT, or auto on the head itself"
        ) from None


@contextlib.contextmanager
def _another_home(folder: Path) -> Iterator[None]:
    """Set another home folder for the processes that are started; Python still finds the packages of the user."""
    (folder / _CLOUD_FILE).write_text("{}\n", encoding="ascii")
    own = {"HOME": str(folder), "PYTHONUSERBASE": site.getuserbase()}
    with environment(own):
        yield


@contextlib.contextmanager
def _short_folder(beside: Path) -> Iterator[Path]:
    """Make a private folder for Ray beside the blocks, and a short way to it where its path is too long for sockets."""
    folder = private_folder(beside.absolute() / "ray")
    try:
        if len(str(folder)) <= _LONGEST:
            yield folder
            return
        for left in Path(tempfile.gettempdir()).glob("r????????/r"):  # of an earlier run of this folder that was killed
            with contextlib.suppress(OSError):
                if os.readlink(left) == str(folder):
                    left.unlink()
                    left.parent.rmdir()
        with tempfile.TemporaryDirectory(prefix="r") as short:  # 0700; it holds a link and nothing else
            link = Path(short) / "r"
            link.symlink_to(folder)
            yield link
    finally:
        shutil.rmtree(folder, ignore_errors=True)
