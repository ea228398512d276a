"""Commands are bounded: in time, and by the life of whoever started them. Real processes, really killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from al_leignn.label.process import end_guarded, run_bounded, start_guarded
from tests.waiting import wait_for

SLEEP = "import time; time.sleep(60)"


def python(code: str, *words: str) -> list[str]:
    return [sys.executable, "-c", code, *words]


def alive(marker: Path) -> list[str]:
    """Processes with the marker among their words: only those this test started have it. (Dead ones have no words.)"""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(marker) in words:
            found.append(path.parent.name)
    return found


def test_exit_status_and_output_come_back(tmp_path: Path) -> None:
    done = run_bounded(python("import sys, os; print('in', os.getcwd()); sys.exit(3)"), tmp_path, 30)
    assert done.returncode == 3
    assert done.tail == "in ."  # free of the folder's name: equal runs say equal things


def test_output_is_cut_to_its_end(tmp_path: Path) -> None:
    done = run_bounded(python("print('x' * 100_000); print('the end')"), tmp_path, 30)
    assert done.tail.endswith("the end")
    assert len(done.tail) < 1000


def test_a_signal_is_told(tmp_path: Path) -> None:
    done = run_bounded(python("import os; os.kill(os.getpid(), 11)"), tmp_path, 30)
    assert done.returncode == 128 + 11


def test_no_such_command(tmp_path: Path) -> None:
    assert run_bounded(["no-such-command-at-all"], tmp_path, 30).returncode == 127


def test_words_never_meet_a_shell(tmp_path: Path) -> None:
    words = ["$HOME", "; touch hacked", "a b", "*"]
    done = run_bounded(python("import sys; print(sys.argv[1:])", *words), tmp_path, 30)
    assert done.tail == repr(words)
    assert not (tmp_path / "hacked").exists()


def test_one_thread_unless_the_user_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = python("import os; print(os.environ['OMP_NUM_THREADS'])")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_bounded(show, tmp_path, 30).tail == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert run_bounded(show, tmp_path, 30).tail == "3"


STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w').close(); time.sleep(60)"
GRANDCHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}, sys.argv[1]]); time.sleep(60)"


@pytest.mark.parametrize("code", [SLEEP, STUBBORN, GRANDCHILD], ids=["sleeps", "ignores SIGTERM", "has children"])
def test_time_limit_leaves_nobody(tmp_path: Path, code: str) -> None:
    start = time.monotonic()
    assert run_bounded(python(code, str(tmp_path)), tmp_path, 0.5).returncode is None
    assert time.monotonic() - start < 8
    wait_for(lambda: not alive(tmp_path), "the end of all", 10)


def test_background_children_end_with_the_command(tmp_path: Path) -> None:
    leave = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}, sys.argv[1]])"
    assert run_bounded(python(leave, str(tmp_path)), tmp_path, 30).returncode == 0
    wait_for(lambda: not alive(tmp_path), "the end of all", 10)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nobody_survives_the_caller(tmp_path: Path, number: signal.Signals) -> None:
    call = (
        # Shells start background jobs deaf to SIGINT, which children inherit.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys; from pathlib import Path; from al_leignn.label.process import end_guarded, run_bounded, start_guarded; "
        f"run_bounded([sys.executable, '-c', {STUBBORN!r}, sys.argv[1]], Path(sys.argv[1]), 60)"
    )
    caller = subprocess.Popen(python(call, str(tmp_path)), cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL)
    try:
        wait_for((tmp_path / "ready").exists, "the command", 10)
        os.kill(caller.pid, number)
        caller.wait(10)
        wait_for(lambda: not alive(tmp_path), "the end of all", 10)
    finally:
        caller.kill()
        caller.wait()


@pytest.mark.parametrize("code", [SLEEP, STUBBORN], ids=["sleeps", "ignores SIGTERM"])
def test_nobody_survives_the_guard(tmp_path: Path, code: str) -> None:
    """A guard that is killed outright can end nothing itself; the caller learns that the command was killed."""
    guard = start_guarded(python(code, str(tmp_path)), folder=tmp_path)
    try:
        wait_for(lambda: len(alive(tmp_path)) == 2, "the command", 10)  # the guard has the command's words among its own
        guard.kill()
        guard.wait(10)
        wait_for(lambda: not alive(tmp_path), "the end of all", 10)
    finally:
        assert end_guarded(guard) == -signal.SIGKILL
