"""Ray: how it is started, what its workers share, and blocks on it. No other module imports it.

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
    done = 0
    with contextlib.ExitStack() as stack:
        crew: _Crew | None = None
        while True:
            if missing := work.missing(range(len(work.places))):
                if crew is None:
                    ray = stack.enter_context(running(work.folder, address, workers or cores()))
                    most = workers or int(ray.cluster_resources().get("GPU" if gpus else "CPU", 1) / (gpus or 1))
                    crew = _Crew(ray, max(1, most), gpus, work)
                crew.compute(work, missing)
                done += len(missing)
            if not work.grow():
                break
    return done, len(work.places) - done


class Share:
    """What a worker shares with the others: the limits of the LLM, by one process that counts for all of them.

    Args:
        name: of the worker; that which is started in its place has it, too.
        permits: name of the process that counts; None where nothing is limited.
    """

    def __init__(self, name: str, permits: str | None) -> None:
        self.lock = threading.Lock()
        self._owner, self._permits = f"{name} {uuid.uuid4().hex}", None
        if permits is not None:  # what an earlier life of this worker held comes back
            import ray

            self._permits = ray.get_actor(permits)
            ray.get(self._permits.begin.remote(name, self._owner))

    def function(self, stored: Sequence[Any]) -> Any:
        """Return a function; its LLM, where it has one, keeps the limits.

        Args:
            stored: it, in Ray's store, alone in a list: what is in a list is fetched here and not for each call.
        """
        import ray

        function = ray.get(stored[0])
        if self._permits is None or not hasattr(function, "with_llm"):
            return function
        return function.with_llm(sharing(function.llm, self._call, self._owner))

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


class _Worker:
    """A process of Ray that keeps each function that it was given."""

    def __init__(self, name: str, permits: str | None) -> None:
        os.umask(0o077)
        self._share, self._blocks = Share(name, permits), dict[int, Any]()

    def compute(self, place: int, function: Sequence[Any], table: pa.Table) -> pa.Table | HfSynthError:
        """Return the result of a block, or the error of ours that it raised.

        Args:
            place: number of the function.
            function: as for `Share.function`.
        """
        return self._share.result(lambda: self._block(place, function)(table))

    def _block(self, place: int, function: Sequence[Any]) -> Any:
        if place not in self._blocks:
            self._blocks[place] = self._share.function(function)
        return self._blocks[place]


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
    """The workers of a run; they and what they hold stay from one round of blocks to the next.

    Args:
        ray: the module.
        most: workers.
        gpus: of each.
        work: of the first round.
    """

    def __init__(self, ray: Any, most: int, gpus: float, work: Work) -> None:
        self._ray, self._most = ray, most
        llms = [part.block.llm for part in work.parts if hasattr(part.block, "llm")]
        self._permits, self._name = permits_of(ray, llms)
        self._options = {"num_cpus": 0 if gpus else 1, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": -1}
        self._workers = list[Any]()
        self._functions = list[tuple[Any, Any]]()  # the function of a block, and its place in Ray's store

    def compute(self, work: Work, numbers: Sequence[int]) -> None:
        """Deal out blocks one at a time, and write what comes back.

        Raises:
            HfSynthError: a block failed; those that others had begun are done and kept.
        """
        ray, waiting, running = self._ray, list(reversed(numbers)), dict[Any, tuple[int, Any, Any]]()
        while len(self._workers) < min(self._most, len(numbers)):
            worker = ray.remote(_Worker).options(**self._options).remote(str(len(self._workers)), self._name)
            self._workers.append(worker)

        def give(worker: Any) -> None:
            if waiting:
                number = waiting.pop()
                table = work.table(number)
                place = self._place_of(work.places[number][0].block)
                running[worker.compute.remote(place, [self._functions[place][1]], table)] = number, table, worker

        for worker in self._workers:
            give(worker)
        failed: HfSynthError | None = None
        with stage(total=len(numbers), unit="blocks") as bar:
            while running:
                (ready, *_), _ = ray.wait(list(running), num_returns=1)
                number, table, worker = running.pop(ready)
                try:
                    result = ray.get(ready)
                except ray.exceptions.RayError as error:
                    reason = type(error).__name__
                    raise HfSynthError(f"Ray failed with {reason}; blocks that are done are kept") from None
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
        with tempfile.TemporaryDirectory(prefix="r") as short:  # 0700; it holds a link and nothing else
            link = Path(short) / "r"
            link.symlink_to(folder)
            yield link
    finally:
        shutil.rmtree(folder, ignore_errors=True)
