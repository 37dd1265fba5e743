"""Leases of questions in the journal, and the names by which processes are known to be alive.

Of several processes (or calls) that need one answer, one leases the key and asks; the others wait for the journal.
`Leases` runs in the event loop of a run. Keys that arrive during a transaction go together into the next one. A lease
is taken just before its question enters the queue to the endpoint. Waiting for a lease is therefore always waiting for
an answer on its way: there is no deadlock.

A process is named by the boot of the machine, the namespace of its id, the id, and its start time. On its own machine
its being alive decides, and not the clock, which jumps when a laptop wakes up or the time is set: leases of a dead
process end at once, those of a live one once it has not renewed them for their whole length, by a clock that only runs
forward. On another machine, and where /proc is missing, they end by the time of day.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from time import monotonic

from hf_synth.errors import JournalError
from hf_synth.llm.journal import Entry, Journal, Shared, select_by_key

_LOG = logging.getLogger(__name__)
_SECONDS = 60.0  # how long a lease lasts without renewal unless its process is known to have ended
_GATHER = 0.004  # seconds in which keys are collected for one transaction
_SOON, _LATE = 0.05, 0.5  # seconds between two checks of the leases of other processes
_MOST_WATCHED = 200_000
# Leases of live processes of this machine by (journal, key): owner, end, and since when they were not renewed.
_WATCHED: dict[tuple[Path, str], tuple[str, float, float]] = {}
_LEASE = (
    "INSERT INTO leases (key, owner, until) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until"
)


# Commits of leases do not wait for the disk (durable=False): after a power loss no owner is alive.
def claim(journal: Journal, keys: Iterable[str], owner: str, seconds: float) -> tuple[set[str], dict[str, Entry]]:
    """Lease the keys of questions in one transaction.

    Args:
        keys: of the questions to ask.
        owner: a name of `new_owner`.
        seconds: how long the leases last unless renewed.

    Returns:
        The keys that the owner now holds, and the answers that the journal has. Any other key is leased by a live
        owner: claim it again later.
    """
    distinct, now = list(dict.fromkeys(keys)), time.time()
    with journal.transaction(durable=False) as database:
        answers = journal.get_many(distinct)
        living: dict[str, bool | None] = {}
        busy = set()
        for key, other, until in select_by_key(database, "SELECT key, owner, until FROM leases", distinct):
            if other == owner:
                continue
            if other not in living:
                living[other] = is_alive(other.partition("#")[0])
            if living[other]:
                if not _is_silent((journal.path, key), other, until, seconds):
                    busy.add(key)
            # a lease that ends later than any can was written before the clock was set back
            elif living[other] is None and now < until <= now + 2 * seconds:
                busy.add(key)
        granted = [key for key in distinct if key not in answers and key not in busy]
        database.executemany(_LEASE, [(key, owner, now + seconds) for key in granted])
    for key in (*granted, *answers):
        _WATCHED.pop((journal.path, key), None)
    return set(granted), answers


def _is_silent(place: tuple[Path, str], owner: str, until: float, seconds: float) -> bool:
    """Check whether a live owner has not renewed a lease for so many seconds, as a stopped process does not."""
    now = monotonic()
    if _WATCHED.get(place, ("", 0.0, 0.0))[:2] != (owner, until):
        if len(_WATCHED) >= _MOST_WATCHED:  # forgetting makes a lease last longer, no more
            _WATCHED.clear()
        _WATCHED[place] = (owner, until, now)
    return now - _WATCHED[place][2] > seconds


def renew(journal: Journal, owner: str, seconds: float) -> None:
    """Extend the leases of an owner to so many seconds from now."""
    with journal.transaction(durable=False) as database:
        database.execute("UPDATE leases SET until = ? WHERE owner = ?", (time.time() + seconds, owner))


def release(journal: Journal, owner: str, keys: Iterable[str] | None = None) -> None:
    """End leases of an owner: those of some keys, or all of them together with all expired leases.

    Leases of a live process of this machine have not expired, whatever the time is.
    """
    with journal.transaction(durable=False) as database:
        if keys is None:
            database.execute("DELETE FROM leases WHERE owner = ?", (owner,))
            late = database.execute("SELECT DISTINCT owner FROM leases WHERE until <= ?", (time.time(),)).fetchall()
            ended = [(other, time.time()) for (other,) in late if not is_alive(other.partition("#")[0])]
            database.executemany("DELETE FROM leases WHERE owner = ? AND until <= ?", ended)
        else:
            database.executemany("DELETE FROM leases WHERE key = ? AND owner = ?", [(key, owner) for key in keys])


async def keep_renewing(journal: Journal, owner: str, seconds: float) -> None:
    """Renew the leases of an owner until cancelled."""
    while True:
        await asyncio.sleep(seconds / 4)
        with suppress(JournalError):
            await asyncio.to_thread(renew, journal, owner, seconds)


class Leases:
    """The leases of one run.

    Args:
        journal: the journal that keeps them.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._owner = new_owner()
        self._new_turns: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._waiting: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._failed: list[str] = []
        self._turns: asyncio.Task[None] | None = None
        self._heartbeat: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._closing = self._logged = self._grouped = False

    async def take(self, key: str) -> Entry | None:
        """Wait for the turn to ask a question.

        Returns:
            None when the question may be asked now; else its answer, which another owner asked for.

        Raises:
            JournalError: the journal cannot be written.
        """
        turn: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._new_turns.append((key, turn))
        self._wake_tasks()
        return await turn

    def give_back(self, key: str) -> None:
        """End the lease of a question that failed; writing an answer to the journal ends its lease by itself."""
        self._failed.append(key)
        self._wake_tasks()

    async def close(self) -> None:
        """End all leases; calls of `take` that still wait must have been cancelled."""
        self._closing = True
        self._wake.set()
        if self._turns is not None:
            await self._turns
        if self._heartbeat is not None:
            self._heartbeat.cancel()
            with suppress(JournalError):  # if the journal cannot be written, the end of this process ends them
                await asyncio.to_thread(release, self._journal, self._owner)

    # --- the two tasks ------------------------------------------------------------------------------------------

    def _wake_tasks(self) -> None:
        self._wake.set()
        if self._heartbeat is None:
            self._heartbeat = asyncio.create_task(keep_renewing(self._journal, self._owner, _SECONDS))
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())

    async def _take_turns(self) -> None:
        clock = asyncio.get_running_loop().time
        pause, check_at = _SOON, 0.0
        while not self._closing and (self._new_turns or self._waiting or self._failed):
            if self._grouped:
                await asyncio.sleep(_GATHER)  # unhurried: earlier questions are in flight meanwhile
            self._grouped = True
            self._wake.clear()
            turns, self._new_turns = self._new_turns, []
            if self._waiting and clock() >= check_at:
                before = len(self._waiting)
                turns, self._waiting = self._waiting + turns, []
                await self._claim(turns)
                pause = _SOON if len(self._waiting) < before else min(_LATE, 1.5 * pause)
                check_at = clock() + pause
            elif turns or self._failed:
                await self._claim(turns)
            elif self._waiting:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(0.001, check_at - clock()))

    async def _claim(self, turns: list[tuple[str, asyncio.Future[Entry | None]]]) -> None:
        """Claim a group of keys; those of other owners join the waiting ones."""
        failed, self._failed = self._failed, []
        try:
            if failed:
                await asyncio.to_thread(release, self._journal, self._owner, failed)
            turns = [(key, turn) for key, turn in turns if not turn.done()]
            if not turns:
                return
            granted, answers = await asyncio.to_thread(
                claim, self._journal, [key for key, _ in turns], self._owner, _SECONDS
            )
        except Exception as error:  # every waiting call gets the error once
            for _, turn in turns:
                if not turn.done():
                    turn.set_exception(error)
            return
        for key, turn in turns:
            if turn.done():
                continue
            if key in answers:
                turn.set_result(Shared(*astuple(answers[key])))
            elif key in granted:
                turn.set_result(None)
            else:
                self._waiting.append((key, turn))
        if self._waiting and not self._logged:
            self._logged = True
            _LOG.info("another process is asking the same questions; waiting for its answers")


def new_owner() -> str:
    """Return a new name of an owner of leases in this process."""
    return f"{process_name()}#{uuid.uuid4().hex[:12]}"


def process_name() -> str:
    """Return a name of this process that no other one ever has: boot of the machine, namespace, id, start time.

    Without /proc the name contains the process id alone, and `is_gone` is always False for it.
    """
    pid = os.getpid()
    return f"{_system() or '-'}/{pid}/{_started(pid) or '-'}"


def is_alive(name: str) -> bool | None:
    """Check whether a process that `process_name` named is alive; None when that is unknown, as on another machine."""
    system, _, rest = name.partition("/")
    pid, _, started = rest.partition("/")
    if not pid.isdecimal() or "-" in (system, started) or system != _system():
        return None
    return _started(int(pid)) == started


def is_gone(name: str) -> bool:
    """Check whether a process that `process_name` named has certainly ended; False when that is unknown."""
    return is_alive(name) is False


def _system() -> str | None:
    """Return the id of this boot of the machine and of the namespace of process ids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return None
    return f"{boot}:{namespace}"


def _started(pid: int) -> str | None:
    """Return the start time of a process in ticks since boot; None once it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may contain spaces and brackets
    if fields[0] in (b"Z", b"X"):  # ended, though its parent has not waited for it yet
        return None
    return fields[19].decode("ascii")
