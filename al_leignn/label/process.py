"""Commands with a time limit whose processes never survive us, not even our own `kill -9`."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from al_leignn.core import Reason

_GUARD = Path(__file__).with_name("guard.py")
OUTPUT = "output.txt"
_TAIL = 600

NO_SUCH_COMMAND = 127
"""Exit status where the command is not there, as a shell's."""

_BY_OTHERS = {status for number in (signal.SIGKILL, signal.SIGTERM) for status in (128 + number, -number)}
"""Programs that fail end themselves, or are ended by another signal than these."""


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    returncode: int | None
    """None where the time limit ended it; 127 where there is no such command; 128 and more where a signal did."""
    tail: str
    """The last lines of what it printed, free of the name of the folder it ran in."""

    @property
    def reason(self) -> Reason:
        """Why there is no label, where the status is not 0."""
        if self.returncode == 128 + signal.SIGXCPU:
            return Reason.BUDGET
        return Reason.KILLED if self.returncode in _BY_OTHERS else Reason.CRASHED


def run_bounded(command: Sequence[str], folder: Path, time_limit_s: float, cpu_s: int | None = None) -> Finished:
    """Run `command` in `folder`, without a shell, for `time_limit_s` seconds at most, and `cpu_s` CPU seconds of each process.

    The command and everything it started are gone on return, on an exception here, and when this process is killed.
    """
    with (folder / OUTPUT).open("wb") as output:
        guard = start_guarded(command, folder=folder, output=output, cpu_s=cpu_s)
    returncode: int | None = None
    try:
        returncode = guard.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        end_guarded(guard)
    return Finished(returncode, tail_of(folder))


def start_guarded(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    output: BinaryIO | int = subprocess.DEVNULL,
    inherit: Sequence[int] = (),
    cpu_s: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start `command` under a guard (see guard.py), in a session of its own, with the file descriptors `inherit`.

    Numerical threads are limited to one unless the user's environment says otherwise: labels fill the cores.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(_GUARD), str(-1 if cpu_s is None else cpu_s), *command],
        cwd=folder,
        env={"OMP_NUM_THREADS": "1", **os.environ},
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=inherit,
    )


def end_guarded(guard: subprocess.Popen[bytes]) -> int:
    """End the command and everything it started, if they are still there. Returns its exit status."""
    assert guard.stdin is not None
    guard.stdin.close()
    return guard.wait()


def whole_seconds(cpu_s: float) -> int:
    """What the system can limit CPU time to: one second at the least."""
    return max(1, int(cpu_s))


def tail_of(folder: Path) -> str:
    """The last lines of what a command printed in `folder`, if it came to that."""
    output = folder / OUTPUT
    text = output.read_bytes()[-4 * _TAIL :].decode(errors="replace") if output.is_file() else ""
    # A result that names its scratch folder would differ from one run to the next.
    return text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".").strip()[-_TAIL:]
