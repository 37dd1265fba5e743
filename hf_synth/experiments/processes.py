"""Parallel calls of one function in single-threaded processes; a failed call or a killed process stops no other."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from typing import Any, TypeVar

from hf_synth.reports.progress import forward_progress, is_shown, show_after_stage
from hf_synth.task.environment import environment

Job = TypeVar("Job")
Result = TypeVar("Result")

_READY = "ready"  # what a process sends before it takes its first job
_MOST_FAILED_STARTS = 3  # processes in a row that end before they are ready
_MOST_REPEATED = 3  # jobs in a row that end their process again: the others are not tried a second time
_PATIENCE = 5.0  # seconds for an idle process to end


def run_all(
    call: Callable[[Job], Result], jobs: Sequence[Job], processes: int, devices: Sequence[str] = ()
) -> Iterator[tuple[Job, Result | BaseException]]:
    """Call a function for each job; yield each job with its result or error, as they end.

    A process that dies, killed for its memory perhaps, is replaced, and the other jobs go on as they were. Its own job
    is tried once more, alone after all others; where that process dies too, the job has failed with a
    BrokenProcessPool.

    Args:
        call: is pickled, as are jobs and results.
        processes: number of new processes at the same time; 0 for this one.
        devices: CUDA devices as `cuda_devices` names them. Each process sees one of them; processes share devices where
            there are more of them. Without devices each process sees what this one sees.
    """
    if processes < 1:
        for job in jobs:
            try:
                result: Result | BaseException = call(job)
            except Exception as error:
                result = error
            yield job, result
        return
    workers = _Workers(call, devices)
    try:
        crashed: deque[Job] = deque()
        for job, result in workers.run(deque(jobs), processes):
            if isinstance(result, BrokenProcessPool) and not workers.broken:
                crashed.append(job)
            else:
                yield job, result
        repeated = 0
        while crashed:
            job = crashed.popleft()
            if workers.broken or repeated >= _MOST_REPEATED:
                yield job, BrokenProcessPool("the process of this job died")
                continue
            workers.stop()  # nothing else may hold memory
            for _, result in workers.run(deque([job]), 1):
                repeated = repeated + 1 if isinstance(result, BrokenProcessPool) else 0
                yield job, result
    except BaseException:  # Ctrl-C: do not wait for what runs
        workers.kill()
        raise
    workers.stop()


class _Worker:
    """A process, the pipe to it, its device or "", and the job that it works on."""

    def __init__(self, call: Callable[[Any], Any], device: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_answer_jobs, args=(call, theirs, is_shown()))
        with _environment(device), _ignore_ctrl_c():
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the pipe
        self.device = device
        self.job: list[Any] = []  # none or one
        self.ready = False


class _Workers:
    """Processes that take jobs one by one.

    Args:
        call: what they call.
        devices: CUDA devices, one for each process.
    """

    def __init__(self, call: Callable[[Any], Any], devices: Sequence[str]) -> None:
        self._call, self._devices = call, list(devices)
        self._workers: list[_Worker] = []
        self._failed_starts = 0

    @property
    def broken(self) -> bool:
        """Whether no process can be started."""
        return self._failed_starts >= _MOST_FAILED_STARTS

    def run(self, waiting: deque[Any], processes: int) -> Iterator[tuple[Any, Any]]:
        """Yield each job with its result, its error, or a BrokenProcessPool where its process died."""
        while True:
            yield from self._hand_out(waiting, processes)
            busy = {worker.pipe: worker for worker in self._workers if worker.job}
            if not busy:
                break
            for pipe in wait(list(busy)):
                yield from self._hear(busy[pipe], waiting)  # type: ignore[index]
        while waiting:
            yield waiting.popleft(), BrokenProcessPool("no process can be started")

    def _hand_out(self, waiting: deque[Any], processes: int) -> Iterator[tuple[Any, Any]]:
        """Assign waiting jobs to idle processes; start processes as far as needed."""
        while waiting and not self.broken:
            worker = next((w for w in self._workers if not w.job), None)
            if worker is None:
                if len(self._workers) >= processes:
                    return
                worker = _Worker(self._call, self._free_device())
                self._workers.append(worker)
            job = waiting.popleft()
            try:
                worker.job = [job]
                worker.pipe.send((job,))
            except OSError:  # it has ended: seen when it is heard
                continue
            except Exception as error:  # the job cannot be pickled
                worker.job = []
                yield job, error

    def _free_device(self) -> str:
        """Return the device that the fewest processes use, the first of them; "" without devices."""
        used = [worker.device for worker in self._workers]
        return min(self._devices, key=used.count, default="")

    def _hear(self, worker: _Worker, waiting: deque[Any]) -> Iterator[tuple[Any, Any]]:
        """Read what a process says, or note that it has ended."""
        try:
            said = worker.pipe.recv()
        except (EOFError, OSError):
            [job], worker.job = worker.job, []
            self._remove(worker)
            if worker.ready:
                yield job, BrokenProcessPool("the process of this job died")
            else:  # the job is not to blame
                self._failed_starts += 1
                waiting.appendleft(job)
            return
        except Exception as error:  # the result cannot be read here
            said = error
        if isinstance(said, _ProgressLine):
            show_after_stage(said.line)
            return
        if not worker.ready:  # its first word
            worker.ready, self._failed_starts = True, 0
            return
        [job], worker.job = worker.job, []
        show_after_stage("")
        yield job, said

    def _remove(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.pipe.close()
        worker.process.join(_PATIENCE)
        if worker.process.is_alive():
            worker.process.kill()

    def stop(self) -> None:
        """End the processes, which are idle."""
        for worker in self._workers:
            with suppress(OSError):
                worker.pipe.send(None)
        while self._workers:
            self._remove(self._workers[-1])

    def kill(self) -> None:
        """End the processes at once."""
        for worker in self._workers:
            worker.process.terminate()
        while self._workers:
            self._remove(self._workers[-1])


@dataclass(frozen=True)
class _ProgressLine:
    """A line of progress of a process."""

    line: str


class _Pipe:
    """A pipe to which several threads send: the job's, and that of the progress."""

    def __init__(self, pipe: Connection) -> None:
        self.recv, self._pipe, self._lock = pipe.recv, pipe, threading.Lock()

    def send(self, said: Any) -> None:
        data = ForkingPickler.dumps(said)  # before the lock: what cannot be pickled sends nothing
        with self._lock:
            self._pipe.send_bytes(data)


def _answer_jobs(call: Callable[[Any], Any], connection: Connection, shown: bool) -> None:
    """Answer jobs until the parent says or does no more.

    Args:
        shown: whether the parent shows the progress.
    """
    _watch_parent()
    signal.signal(signal.SIGTERM, _exit_in_order)
    pipe = _Pipe(connection)
    telling = forward_progress(lambda line: pipe.send(_ProgressLine(line))) if shown else nullcontext()
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError), telling:
        pipe.send(_READY)
        while True:
            try:
                said = pipe.recv()
                if said is None:
                    return
                result = call(*said)
            except (EOFError, BrokenPipeError):
                raise
            except Exception as error:
                result = _sendable(error)
            try:
                pipe.send(result)
            except BrokenPipeError:
                raise
            except Exception as error:  # the result cannot be pickled
                pipe.send(_sendable(error))


def _exit_in_order(*_: object) -> None:
    """End this process in order where its parent terminates it: drafts and semaphores are removed."""
    raise SystemExit(1)


def _sendable(error: Exception) -> Exception:
    """Return an error, or in its place a plain one where it would not survive pickling."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}, which cannot be sent to another process")
    return error


@contextmanager
def _environment(device: str) -> Iterator[None]:
    """Limit numpy and torch to one thread, and CUDA to one device, in each process that starts in this block."""
    own = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if device:
        own["CUDA_VISIBLE_DEVICES"] = device  # read by CUDA when it starts: the process has not begun yet
    with environment(own):
        yield


@contextmanager
def _ignore_ctrl_c() -> Iterator[None]:
    """Let each process that starts in this block not hear Ctrl-C, which a terminal sends to all: its parent ends it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _watch_parent() -> None:
    """End this process when its parent is killed: it would wait for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
