"""Turns at asking: of several processes (or calls) that need one answer, one asks and the others wait for the journal.

Lives in the event loop of a run. Keys that arrive while a transaction is under way go together into the next one. A
lease is taken just before its question gets its place in the queue to the endpoint and never rests in anybody's hands,
so that waiting for a lease is always waiting for an answer that is on its way: there is no deadlock.
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

from hf_synth.errors import JournalError
from hf_synth.llm.journal import Entry, Journal, Shared, select_by_key

_LOG = logging.getLogger(__name__)
_SECONDS = 60.0  # how long a lease outlives the last sign of a process whose death cannot be seen
_GATHER = 0.004  # seconds in which keys come together for one transaction
_SOON, _LATE = 0.05, 0.5  # seconds between two looks at what others are asking
_LEASE = (
    "INSERT INTO leases (key, owner, until) VALUES (?, ?, ?) "
    "ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, until = excluded.until"
)


# A lease that is lost with the power is no loss, since no process of that time is alive: no commit here waits for the
# disk (durable=False).
def claim(journal: Journal, keys: Iterable[str], owner: str, seconds: float) -> tuple[set[str], dict[str, Entry]]:
    """Lease keys for their asking, all in one transaction.

    Args:
        keys: what is about to be asked.
        owner: who asks: `machine.process_name()`, and after a "#" which part of the process.
        seconds: how long the leases last unless renewed.

    Returns:
        The keys that are now the owner's, and what has been answered meanwhile. Any other key is leased by somebody
        who is alive: ask again later.
    """
    wanted, now = list(dict.fromkeys(keys)), time.time()
    with journal.transaction(durable=False) as database:
        found = journal.get_many(wanted)
        gone: dict[str, bool] = {}
        taken = set()
        for key, other, until in select_by_key(database, "SELECT key, owner, until FROM leases", wanted):
            # what ends later than any lease may was written by a clock that has been set back since
            if other == owner or not now < until <= now + 2 * seconds:
                continue
            if other not in gone:
                gone[other] = is_gone(other.partition("#")[0])
            if not gone[other]:
                taken.add(key)
        granted = [key for key in wanted if key not in found and key not in taken]
        database.executemany(_LEASE, [(key, owner, now + seconds) for key in granted])
    return set(granted), found


def renew(journal: Journal, owner: str, seconds: float) -> None:
    """Let the leases of an owner last so many seconds from now."""
    with journal.transaction(durable=False) as database:
        database.execute("UPDATE leases SET until = ? WHERE owner = ?", (time.time() + seconds, owner))


def release(journal: Journal, owner: str, keys: Iterable[str] | None = None) -> None:
    """Give leases of an owner back: of some keys, or all of them, and with them what has run out."""
    with journal.transaction(durable=False) as database:
        if keys is None:
            database.execute("DELETE FROM leases WHERE owner = ? OR until <= ?", (owner, time.time()))
        else:
            database.executemany("DELETE FROM leases WHERE key = ? AND owner = ?", [(key, owner) for key in keys])


class Leases:
    """The leases of one run.

    Args:
        journal: where they are kept.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._owner = f"{process_name()}#{uuid.uuid4().hex[:12]}"
        self._new: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._waiting: list[tuple[str, asyncio.Future[Entry | None]]] = []
        self._failed: list[str] = []
        self._turns: asyncio.Task[None] | None = None
        self._beat: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._over = self._said = self._grouped = False

    async def take(self, key: str) -> Entry | None:
        """Wait for the turn to ask a question.

        Returns:
            None when it is to be asked now; else its answer, which somebody else has asked for.

        Raises:
            JournalError: the journal cannot be written.
        """
        turn: asyncio.Future[Entry | None] = asyncio.get_running_loop().create_future()
        self._new.append((key, turn))
        self._go()
        return await turn

    def give_back(self, key: str) -> None:
        """Let others ask a question that failed. (An answer that is put in the journal ends its lease by itself.)"""
        self._failed.append(key)
        self._go()

    async def close(self) -> None:
        """Give everything back; what still waits for its turn must have been cancelled."""
        self._over = True
        self._wake.set()
        if self._turns is not None:
            await self._turns
        if self._beat is not None:
            self._beat.cancel()
            with suppress(JournalError):  # if it cannot be written, the end of this process ends them
                await asyncio.to_thread(release, self._journal, self._owner)

    # --- the two tasks ------------------------------------------------------------------------------------------

    def _go(self) -> None:
        self._wake.set()
        if self._beat is None:
            self._beat = asyncio.create_task(self._stay_alive())
        if self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._take_turns())

    async def _stay_alive(self) -> None:
        while True:
            await asyncio.sleep(_SECONDS / 4)
            with suppress(JournalError):
                await asyncio.to_thread(renew, self._journal, self._owner, _SECONDS)

    async def _take_turns(self) -> None:
        clock = asyncio.get_running_loop().time
        pause, look_at = _SOON, 0.0
        while not self._over and (self._new or self._waiting or self._failed):
            if self._grouped:
                await asyncio.sleep(_GATHER)  # unhurried: a lease is taken while questions before it are under way
            self._grouped = True
            self._wake.clear()
            asked, self._new = self._new, []
            if self._waiting and clock() >= look_at:
                before = len(self._waiting)
                asked, self._waiting = self._waiting + asked, []
                await self._claim(asked)
                pause = _SOON if len(self._waiting) < before else min(_LATE, 1.5 * pause)
                look_at = clock() + pause
            elif asked or self._failed:
                await self._claim(asked)
            elif self._waiting:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), max(0.001, look_at - clock()))

    async def _claim(self, asked: list[tuple[str, asyncio.Future[Entry | None]]]) -> None:
        """Claim a group of keys; those that others hold are put with the waiting ones."""
        failed, self._failed = self._failed, []
        try:
            if failed:
                await asyncio.to_thread(release, self._journal, self._owner, failed)
            asked = [(key, turn) for key, turn in asked if not turn.done()]
            if not asked:
                return
            granted, found = await asyncio.to_thread(
                claim, self._journal, [key for key, _ in asked], self._owner, _SECONDS
            )
        except Exception as error:  # whoever waits is told, once
            for _, turn in asked:
                if not turn.done():
                    turn.set_exception(error)
            return
        for key, turn in asked:
            if turn.done():
                continue
            if key in found:
                turn.set_result(Shared(*astuple(found[key])))
            elif key in granted:
                turn.set_result(None)
            else:
                self._waiting.append((key, turn))
        if self._waiting and not self._said:
            self._said = True
            _LOG.info("another process is asking the same questions; its answers are waited for")


# --- processes ------------------------------------------------------------------------------------------------------
def process_name() -> str:
    """Name this process so that no other one, now or later, has the same name: start of machine, namespace, id, start.

    Where the machine does not tell, the name holds only the process id, and `is_gone` never claims anything of it.
    """
    pid = os.getpid()
    return f"{_system() or '-'}/{pid}/{_started(pid) or '-'}"


def is_gone(name: str) -> bool:
    """Tell whether a process that `process_name` named has certainly ended; False when that cannot be known."""
    system, _, rest = name.partition("/")
    pid, _, started = rest.partition("/")
    if not pid.isdecimal() or "-" in (system, started) or system != _system():
        return False
    return _started(int(pid)) != started


def _system() -> str | None:
    """Name this start of the machine and the namespace that process ids count in."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return None
    return f"{start}:{space}"


def _started(pid: int) -> str | None:
    """Give the moment a process started, in ticks since the machine's start; None once it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold spaces and brackets
    if fields[0] in (b"Z", b"X"):  # ended, though its parent has not looked yet
        return None
    return fields[19].decode("ascii")
