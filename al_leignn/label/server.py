"""One prepared process that does the same work in one folder after another.

What a program pays for starting (GPAW: more than a second of imports) is paid once. The program's side is in gpaw_worker.py:
`serve` works in forks, so that nothing that happens in one folder can reach the next; `follow` hands a density on.
"""

import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from al_leignn.label.process import Finished, end_guarded, start_guarded, tail_of
from al_leignn.store import Stopwatch


class FolderServer:
    """Runs a program that answers requests: a folder in, exit status and CPU seconds out, each a line on a socket.

    It is started with the first request, and again with the next one after a time limit or somebody else has ended it. It and all
    that it started are gone when it is closed, after a time limit, and when this process ends in any way whatever.

    Parameters
    ----------
    command
        The program; the number of the socket's file descriptor is added as its last word. It says "ready" first.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._retired = False

    def run(self, folder: Path, time_limit_s: float) -> Finished | None:
        """Have the work done in `folder`; None if the program cannot serve, or is closed: nothing was begun then."""
        with self._lock:
            if self._retired:
                return None
            deadline = time.monotonic() + time_limit_s
            running = self._running or _Running(self._command)
            self._running = running
            try:
                if not running.greeted(deadline):
                    self._end(running)
                    self._retired = True
                    return None
                answer = running.ask(str(folder), deadline)
            except TimeoutError:
                self._end(running)
                return Finished(None, tail_of(folder))
            except BaseException:
                self._end(running)
                raise
            if not answer:
                return Finished(self._end(running), tail_of(folder))
            status, cpu_s = answer.split()
            running.count(float(cpu_s))
            return Finished(int(status), tail_of(folder))

    def close(self) -> None:
        """End the program and what it may be doing; it is not started again."""
        with self._lock:
            self._retired = True
            if self._running is not None:
                self._end(self._running)

    def _end(self, running: "_Running") -> int:
        self._running = None
        return running.end()


class _Running:
    """The program, started once, and the socket to it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._guard = start_guarded([*command, str(theirs.fileno())], inherit=[theirs.fileno()])
        self._reported = 0.0
        self._greeted = False

    def greeted(self, deadline: float) -> bool:
        """Whether it has said that it is ready; waits for that. Raises `TimeoutError`."""
        self._greeted = self._greeted or self._line(deadline) == "ready"
        return self._greeted

    def ask(self, folder: str, deadline: float) -> str:
        """Its answer to a request; empty where it is gone. Raises `TimeoutError`."""
        try:
            self._socket.sendall(f"{folder}\n".encode())
        except BrokenPipeError:
            return ""
        return self._line(deadline)

    def count(self, cpu_s: float) -> None:
        """Count CPU seconds that it has told of as spent by this process."""
        self._reported += cpu_s
        Stopwatch.elsewhere_s += cpu_s

    def end(self) -> int:
        """End it and all that it started. Returns its exit status."""
        self._socket.close()
        status = end_guarded(self._guard)
        # From here on its time is that of a child that has ended.
        Stopwatch.elsewhere_s -= self._reported
        return status

    def _line(self, deadline: float) -> str:
        """The next line, without its end; empty where the server is gone. Raises `TimeoutError`."""
        found = b""
        while not found.endswith(b"\n"):
            self._socket.settimeout(max(1e-3, deadline - time.monotonic()))
            try:
                more = self._socket.recv(4096)
            except ConnectionResetError:
                more = b""
            if not more:
                return ""
            found += more
        return found.decode().strip()
