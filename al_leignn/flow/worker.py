"""Workers of a FireWorks queue: they take items one after another until they are told to stop.

`rlaunch rapidfire` does the same work; this loop looks for new items five times a second (workers elsewhere less often the
longer there is nothing), prints nothing, leaves no folders behind, and when it is told to stop puts the item it is at back
into the queue at once.
"""

import multiprocessing
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import FrameType
from typing import Any

import fireworks.core.rocket
from fireworks import FWorker
from fireworks.core.rocket import Rocket

from al_leignn.campaign.layout import Layout
from al_leignn.errors import QueueError
from al_leignn.flow.launchpad import open_launchpad

STAGE_TASK = "{{al_leignn.flow.fireworks.StageTask}}"
"""The only task these workers take, by the path under which it is stored in every queue."""

LOCAL = "local"
REMOTE = "al-leignn"
"""First words of workers' names: those that end together with `launch`, and others of this package."""

PING_S = 60
"""Seconds between two signs of life of a worker at work."""

_POLL_S = 0.2
_POLL_LONGEST_S = 5.0
_PATIENCE_S = 60.0
_GRACE_S = 20.0
_LAST_PING_S = 2.0


class Stopped(BaseException):
    """Told to stop in the middle of an item."""


class StopSignal:
    """Remembers that the process was told to stop; inside `interruptible` it raises `Stopped` there and then.

    Bookkeeping in the database must not be cut in half, an item may be: the same seed gives it again.
    """

    def __init__(self) -> None:
        self.requested = False
        self._interruptible = False

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        self._interruptible = True
        try:
            if self.requested:
                raise Stopped
            yield
        finally:
            self._interruptible = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Listen to SIGTERM and Ctrl-C for the time of the block."""
        self.requested = False
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self._interruptible:
            self._interruptible = False
            raise Stopped


STOP = StopSignal()
"""One a process, as signals are."""


def worker(
    launchpad_file: Path,
    *,
    category: str | None = None,
    until_idle_s: float | None = None,
    campaign: Path | None = None,
    name: str | None = None,
    scratch: Path | None = None,
) -> None:
    """Work in this process until told to stop (SIGTERM, Ctrl-C), or until there was nothing to do for `until_idle_s`.

    Parameters
    ----------
    launchpad_file
        The queue, as a my_launchpad.yaml.
    category
        Take only items of this category (explore, label, train or glue); None: any.
    campaign
        Take only items of the campaign in this folder; None: any.
    name
        What the queue calls this worker, unlike any other; None: made from host and process number.
    scratch
        Where the folder to work in is made, and removed at the end; None: where the system keeps temporary files.

    Raises
    ------
    QueueError
        If the queue does not answer, at the start or for a minute.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # items run side by side; threads inside each would fight over the cores
    fireworks.core.rocket.PING_TIME_SECS = PING_S
    query: dict[str, Any] = {"spec._tasks._fw_name": STAGE_TASK}
    if campaign is not None:
        query["spec.campaign"] = str(campaign)
    me = FWorker(name=name or f"{REMOTE} {socket.gethostname()} {os.getpid()}", category=category or "", query=query)
    launchpad = open_launchpad(launchpad_file)
    try:
        with STOP.listening(), _working_folder(scratch), Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            last_work = time.monotonic()
            silent_since: float | None = None
            while not STOP.requested:
                try:
                    worked = Rocket(launchpad, me, None).run(err_file=nowhere)
                    silent_since = None
                except Exception as error:  # noqa: BLE001 - a queue that goes away or is cleared meanwhile can break anything
                    silent_since = silent_since or time.monotonic()
                    if time.monotonic() - silent_since > _PATIENCE_S:
                        what = f"the queue does not answer ({type(error).__name__})"
                        raise QueueError(what, where=str(launchpad_file), fix="start it, then the worker again") from None
                    worked = False
                if worked:
                    last_work = time.monotonic()
                elif until_idle_s is not None and time.monotonic() - last_work > until_idle_s:
                    break
                else:
                    # Local ones are few, and waited for. A thousand on a cluster must not ask a database five times a second.
                    idle_s = time.monotonic() - last_work
                    time.sleep(_POLL_S if name is not None else min(max(_POLL_S, idle_s / 10), _POLL_LONGEST_S))
            _let_pings_end()
    finally:
        launchpad.connection.close()


def _let_pings_end() -> None:
    """FireWorks' threads give one more sign of life when their item has ended, and fail on a closed connection."""
    for thread in threading.enumerate():
        if thread.name.endswith("(ping_launch)"):
            thread.join(_LAST_PING_S)


@contextmanager
def _working_folder(parent: Path | None) -> Iterator[None]:
    """Work in a folder that is removed afterwards: FireWorks writes the job it runs into the current one."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="al-leignn-worker-", dir=parent, ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


class LocalWorkers:
    """Worker processes on this machine, which do not outlive the process that started them, however it ends."""

    def __init__(self, launchpad_file: Path, layout: Layout, count: int) -> None:
        self._arguments = (launchpad_file, layout.root, layout.logs / "workers.log", layout.queue / "launchers")
        self._count = count
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[str, SpawnProcess] = {}
        self._started = 0

    def start(self) -> None:
        """Start as many as are missing."""
        _, _, log, scratch = self._arguments
        for folder in (log.parent, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        while len(self._processes) < self._count:
            self._started += 1
            name = f"{LOCAL} {socket.gethostname()} {os.getpid()} {self._started}"
            process = self._context.Process(target=_local_worker, args=(name, *self._arguments), name=name)
            process.start()
            self._processes[name] = process

    def bury(self) -> list[str]:
        """Names of those that died since the last call, with whatever they had started."""
        names = {process.sentinel: name for name, process in self._processes.items()}
        dead = [names[sentinel] for sentinel in wait(list(names), timeout=0) if isinstance(sentinel, int)]
        for name in dead:
            self._end(self._processes.pop(name))
        return dead

    def stop(self, grace_s: float = _GRACE_S) -> None:
        """Tell all to stop, and end those that do not within `grace_s`."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + grace_s
        for process in self._processes.values():
            wait([process.sentinel], timeout=max(0.0, deadline - time.monotonic()))
            self._end(process)
        self._processes.clear()
        shutil.rmtree(self._arguments[-1], ignore_errors=True)  # those that were killed left theirs

    @staticmethod
    def _end(process: SpawnProcess) -> None:
        # The whole group: a labeller that it started would go on by itself. (Not yet joined, its number is still its own.)
        if process.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        process.close()


def _local_worker(name: str, launchpad_file: Path, campaign: Path, log: Path, scratch: Path) -> None:
    os.setsid()  # Ctrl-C is for the process that started this one
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(QueueError):  # the parent knows
        worker(launchpad_file, campaign=campaign, name=name, scratch=scratch)
    os._exit(0)  # all is written and closed; taking down an interpreter that has loaded torch costs seconds


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.killpg(0, signal.SIGKILL)
