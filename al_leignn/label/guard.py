"""Stand-alone script: run a command that cannot outlive whoever started it.

    python guard.py CPU_SECONDS COMMAND WORD...

The command runs in a process group of its own. When standard input closes - the caller is done with it, or was killed in any
way whatever - the whole group is ended: SIGTERM first, so that launchers such as mpirun can take their ranks along, SIGKILL
after a grace. Is this script itself killed, then the kernel kills the command. No process of it gets more than so many CPU
seconds (a whole number; -1: no limit). Exits as the command does; 127 if there is no such command.
"""

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

GRACE_S = 2.0
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(cpu_s: int, command: list[str]) -> int:
    if cpu_s >= 0:
        # One second for those that want to say something when they are told.
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    try:
        # Descriptors that the caller hands on are for the command; this script was given no others.
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=False,
            preexec_fn=_dying_with(os.getpid()),  # noqa: PLW1509 - there is one thread as yet
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    threading.Thread(target=_end_with_caller, args=(child.pid,), daemon=True).start()
    code = child.wait()
    _signal(child.pid, signal.SIGKILL)  # what the command may have left running in the background
    return code if code >= 0 else 128 - code


def _dying_with(guard: int) -> Callable[[], None]:
    """What has a new process killed as soon as the guard is dead."""
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork

    def tell_the_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # dead before the kernel knew
            os.kill(os.getpid(), signal.SIGKILL)

    return tell_the_kernel


def _end_with_caller(group: int) -> None:
    while os.read(0, 4096):
        pass
    deadline = time.monotonic() + GRACE_S
    alive = _signal(group, signal.SIGTERM)
    while alive and time.monotonic() < deadline:
        time.sleep(0.02)
        alive = _signal(group, 0)
    _signal(group, signal.SIGKILL)


def _signal(group: int, number: int) -> bool:
    """Signal the group; whether it was there."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
