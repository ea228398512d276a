"""Commands with a time limit whose processes never survive us, not even our own `kill -9`."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_GUARD = Path(__file__).with_name("guard.py")
_OUTPUT = "output.txt"
_TAIL = 600

NO_SUCH_COMMAND = 127
"""Exit status where the command is not there, as a shell's."""


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    returncode: int | None
    """None where the time limit ended it; 127 where there is no such command."""
    tail: str
    """The last lines of what it printed, free of the name of the folder it ran in."""


def run_bounded(command: Sequence[str], folder: Path, time_limit_s: float) -> Finished:
    """Run `command` in `folder`, without a shell, for `time_limit_s` seconds at most.

    The command and everything it started are gone on return, on an exception here, and when this process is killed.
    Numerical threads are limited to one unless the user's environment says otherwise: labels fill the cores.
    """
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with (folder / _OUTPUT).open("wb") as output:
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", str(_GUARD), *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    returncode: int | None = None
    try:
        returncode = guard.wait(time_limit_s)
    except subprocess.TimeoutExpired:
        pass
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()
    return Finished(returncode, _tail(folder))


def _tail(folder: Path) -> str:
    text = (folder / _OUTPUT).read_bytes()[-4 * _TAIL :].decode(errors="replace")
    # A result that names its scratch folder would differ from one run to the next.
    return text.replace(f"{folder}{os.sep}", "").replace(str(folder), ".").strip()[-_TAIL:]
