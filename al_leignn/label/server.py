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

    The server and all it started are gone when it is closed, after a time limit, and when this process ends in any way whatever.

    Parameters
    ----------
    command
        The program; the number of the socket's file descriptor is added as its last word. It says "ready" first.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._guard = start_guarded([*command, str(theirs.fileno())], inherit=[theirs.fileno()])
        self._reported = 0.0
        self._greeted = False
        self.closed = False
        """Whether it has ended, in whatever way, and serves no more."""

    def run(self, folder: Path, time_limit_s: float) -> Finished | None:
        """Have the work done in `folder`; None if there is no server (any more) and nothing was begun."""
        with self._lock:
            if self.closed:
                return None
            deadline = time.monotonic() + time_limit_s
            try:
                if not self._greeted:
                    self._greeted = self._line(deadline) == "ready"
                    if not self._greeted:
                        self._close()
                        return None
                self._socket.sendall(f"{folder}\n".encode())
                answer = self._line(deadline)
            except TimeoutError:
                self._close()
                return Finished(None, tail_of(folder) if self._greeted else "")
            except BaseException:
                self._close()
                raise
            if not answer:
                return Finished(self._close(), tail_of(folder))
            status, cpu_s = answer.split()
            self._reported += float(cpu_s)
            Stopwatch.elsewhere_s += float(cpu_s)
            return Finished(int(status), tail_of(folder))

    def close(self) -> None:
        """End the server and what it may be doing."""
        with self._lock:
            self._close()

    def _close(self) -> int:
        """Exit status of the server."""
        self.closed = True
        self._socket.close()
        status = end_guarded(self._guard)
        # From here on its time is that of a child that has ended.
        Stopwatch.elsewhere_s -= self._reported
        self._reported = 0.0
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
