"""A prepared process that works in forks, with a program that is quick to start in the place of GPAW."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from al_leignn.core import Reason
from al_leignn.label.server import FolderServer
from al_leignn.store import Stopwatch

PROGRAM = """
import os, signal, socket, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
lines = socket.socket(fileno=int(sys.argv[1])).makefile("rw")
print("ready", file=lines, flush=True)
for line in lines:
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(line.strip())
        output = os.open("output.txt", os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1)
        exec(open("work.py").read())
        sys.stdout.flush()
        os._exit(0)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(code if code >= 0 else 128 - code, usage.ru_utime + usage.ru_stime, file=lines, flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FolderServer]:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    server = FolderServer([sys.executable, "-S", str(program)])
    yield server
    server.close()


def work(tmp_path: Path, code: str) -> Path:
    folder = tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    (folder / "work.py").write_text(code)
    return folder


def printed(server: FolderServer, folder: Path) -> str:
    done = server.run(folder, 20)
    assert done is not None
    assert done.returncode == 0, done
    return done.tail


def test_one_process_serves_all_and_nothing_is_passed_on(server: FolderServer, tmp_path: Path) -> None:
    code = "print(os.getppid(), os.getpid(), 'mark' in globals()); mark = 1"
    first, second = (printed(server, work(tmp_path, code)).split() for _ in range(2))
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[2] == second[2] == "False"


@pytest.mark.parametrize(("code", "status"), [("os._exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)])
def test_a_bad_end_is_told_and_the_next_is_served(server: FolderServer, tmp_path: Path, code: str, status: int) -> None:
    done = server.run(work(tmp_path, code), 20)
    assert done is not None
    assert done.returncode == status
    assert printed(server, work(tmp_path, "print('well')")) == "well"


def test_time_limit_ends_server_and_fork(server: FolderServer, tmp_path: Path) -> None:
    folder = work(tmp_path, "open('pid', 'w').write(f'{os.getpid()} {os.getppid()}'); time.sleep(600)")
    start = time.monotonic()
    done = server.run(folder, 2.0)
    assert done is not None
    assert done.returncode is None
    assert time.monotonic() - start < 10
    for number in (folder / "pid").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(number), 0)
    first, second = (printed(server, work(tmp_path, "print(os.getppid())")) for _ in range(2))
    assert first == second, "one new server for all that follow"
    assert first not in (folder / "pid").read_text().split()


def test_a_server_that_dies_at_work_is_told(server: FolderServer, tmp_path: Path) -> None:
    done = server.run(work(tmp_path, f"os.kill(os.getppid(), {signal.SIGKILL:d}); time.sleep(600)"), 20)
    assert done is not None
    assert done.returncode == 137
    assert printed(server, work(tmp_path, "print('well')")) == "well"


def test_a_server_that_was_killed_while_idle_is_told_and_started_again(server: FolderServer, tmp_path: Path) -> None:
    pid = int(printed(server, work(tmp_path, "print(os.getppid())")))
    os.kill(pid, signal.SIGKILL)
    done = server.run(work(tmp_path, "print('lost')"), 20)
    assert done is not None
    assert done.reason is Reason.KILLED
    assert printed(server, work(tmp_path, "print('well')")) == "well"


def test_a_program_that_cannot_serve_begins_nothing_and_is_not_tried_again(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    server = FolderServer(["sh", "-c", f"echo once >> {starts}; exit 3"])
    assert [server.run(work(tmp_path, ""), 20) for _ in range(3)] == [None, None, None]
    assert starts.read_text().split() == ["once"]
    server.close()


def test_a_closed_server_serves_no_more(server: FolderServer, tmp_path: Path) -> None:
    printed(server, work(tmp_path, ""))
    server.close()
    assert server.run(work(tmp_path, ""), 20) is None


def test_cpu_time_of_forks_is_counted_once(server: FolderServer, tmp_path: Path) -> None:
    watch = Stopwatch()
    printed(server, work(tmp_path, "start = time.process_time()\nwhile time.process_time() - start < 0.5: pass"))
    at_work = watch.times()["cpu_s"]
    assert 0.5 <= at_work < 1.0
    server.close()
    assert at_work <= watch.times()["cpu_s"] < 1.0
