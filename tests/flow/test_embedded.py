"""The embedded queue server: real server processes, killed, refused, taken over."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
from fireworks import Firework, LaunchPad, ScriptTask
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from al_leignn.errors import CampaignLockedError, QueueError
from al_leignn.flow.embedded import connect, down, is_up, serving, up
from al_leignn.flow.launchpad import open_launchpad

OWNER = """
import sys, time
from pathlib import Path
from al_leignn.flow.embedded import serving
with serving(Path(sys.argv[1])) as address:
    print(address.port, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A queue folder; whatever still serves it afterwards is stopped."""
    folder = tmp_path / "queue"
    yield folder
    down(folder)


@pytest.fixture
def owner(folder: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start processes that serve the folder until they are killed."""
    started = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip().isdigit()
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def server_pid(folder: Path) -> int:
    return int(json.loads((folder / "server.lock").read_text())["pid"])


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def add_job(launchpad: LaunchPad) -> None:
    launchpad.add_wf(Firework([ScriptTask.from_str("true")]))


def test_serves_a_launchpad_and_stops(folder: Path) -> None:
    with serving(folder) as address:
        assert is_up(folder)
        launchpad = open_launchpad(address.file)
        launchpad.reset("", require_password=False)
        add_job(launchpad)
        assert launchpad.get_fw_ids() == [1]
        launchpad.connection.close()
        pid = server_pid(folder)
    assert not alive(pid)
    assert not is_up(folder)


def test_starts_again_with_its_data_and_its_address(folder: Path) -> None:
    with serving(folder) as first:
        launchpad = connect(folder)
        launchpad.reset("", require_password=False)
        add_job(launchpad)
        launchpad.connection.close()
    with serving(folder) as second:
        launchpad = connect(folder)
        assert launchpad.get_fw_ids() == [1]
        launchpad.connection.close()
    assert second == first


def test_secret_is_kept_from_others(folder: Path) -> None:
    with serving(folder) as address:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(address.file.stat().st_mode) == 0o600
        password = open_password(address.file)
        assert len(password) >= 24
        shown = Path(f"/proc/{server_pid(folder)}/cmdline").read_bytes().decode()
        assert password not in shown
        assert password not in (folder / "server.log").read_text()


def open_password(file: Path) -> str:
    launchpad = LaunchPad.from_file(str(file))
    launchpad.connection.close()
    assert isinstance(launchpad.password, str)
    return launchpad.password


def test_listens_on_the_loopback_interface_only(folder: Path) -> None:
    with serving(folder) as address:
        sockets = psutil.Process(server_pid(folder)).net_connections("inet")
        listening = {(s.laddr.ip, s.laddr.port) for s in sockets if s.status == psutil.CONN_LISTEN}
        assert listening == {("127.0.0.1", address.port)}


def test_strangers_are_refused(folder: Path, tmp_path: Path) -> None:
    with serving(folder) as address:
        stranger: MongoClient[dict[str, object]] = MongoClient("127.0.0.1", address.port)
        with stranger, pytest.raises(OperationFailure):
            stranger["fireworks"]["workflows"].find_one()
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text(address.file.read_text().replace(open_password(address.file), "guess"))
        with pytest.raises(QueueError, match="refuses the login"):
            open_launchpad(wrong)


def test_listens_on_loopback_only(folder: Path) -> None:
    with serving(folder) as address:
        listening = Path("/proc/net/tcp").read_text().splitlines()[1:]
        hosts = {line.split()[1].split(":")[0] for line in listening if line.split()[1].endswith(f":{address.port:04X}")}
        assert hosts == {"0100007F"}


def test_second_owner_is_refused(folder: Path, owner: Callable[[], subprocess.Popen[str]]) -> None:
    first = owner()
    with pytest.raises(CampaignLockedError, match=f"process {first.pid}"), serving(folder):
        pass
    assert is_up(folder)


def test_owner_killed_then_taken_over(folder: Path, owner: Callable[[], subprocess.Popen[str]]) -> None:
    first = owner()
    launchpad = connect(folder)
    launchpad.reset("", require_password=False)
    add_job(launchpad)
    launchpad.connection.close()
    pid = server_pid(folder)
    first.kill()
    first.wait()
    assert alive(pid)  # it outlived its owner, and is neither lost ...
    with serving(folder):
        assert server_pid(folder) == pid
        launchpad = connect(folder)
        assert launchpad.get_fw_ids() == [1]
        launchpad.connection.close()
    assert not alive(pid)  # ... nor left behind


def test_everything_killed_then_started_again(folder: Path, owner: Callable[[], subprocess.Popen[str]]) -> None:
    first = owner()
    launchpad = connect(folder)
    launchpad.reset("", require_password=False)
    for _ in range(20):
        add_job(launchpad)
    launchpad.connection.close()
    first.kill()
    os.kill(server_pid(folder), signal.SIGKILL)
    first.wait()
    with serving(folder):
        launchpad = connect(folder)
        assert len(launchpad.get_fw_ids()) == 20
        launchpad.connection.close()


def test_server_that_hangs_is_replaced(folder: Path, owner: Callable[[], subprocess.Popen[str]]) -> None:
    first = owner()
    stuck = server_pid(folder)
    first.kill()
    first.wait()
    (folder / "my_launchpad.yaml").unlink()  # as if its start had been cut off before the address was written
    with serving(folder):
        assert server_pid(folder) != stuck
        assert not alive(stuck)
        assert is_up(folder)


def test_port_clash_picks_another(folder: Path) -> None:
    with serving(folder) as first:
        pass
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", first.port))
        squatter.listen()
        with serving(folder) as second:
            assert second.port != first.port
            assert is_up(folder)


def test_up_lasts_until_down(folder: Path) -> None:
    code = "import sys; from pathlib import Path; from al_leignn.flow.embedded import up; print(up(Path(sys.argv[1])).port)"
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    pid = server_pid(folder)
    assert up(folder).file.exists()
    with serving(folder):
        assert server_pid(folder) == pid
    assert is_up(folder)
    assert down(folder)
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(pid)
    assert not down(folder)


def test_down_without_a_folder(tmp_path: Path) -> None:
    assert not down(tmp_path / "nowhere")
    assert not is_up(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_server_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", "/nowhere/bin/python")
    with pytest.raises(QueueError, match=r"al-leignn\[queue\]"), serving(folder):
        pass


def test_damaged_database_is_said(folder: Path) -> None:
    with serving(folder):
        pass
    for file in (folder / "data").iterdir():
        file.write_bytes(b"\0" * 100)
    with pytest.raises(QueueError, match="did not start"), serving(folder):
        pass


@pytest.mark.parametrize("text", ["", "host: [", "port: 3", "just words", "host: 127.0.0.1\nport: many"])
def test_bad_launchpad_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "my_launchpad.yaml"
    file.write_text(text)
    with pytest.raises(QueueError, match="not a usable launchpad file"):
        open_launchpad(file)


def test_missing_launchpad_file(tmp_path: Path) -> None:
    with pytest.raises(QueueError, match="no such launchpad file"):
        open_launchpad(tmp_path / "my_launchpad.yaml")


def test_nobody_answers(tmp_path: Path) -> None:
    file = tmp_path / "my_launchpad.yaml"
    with socket.socket() as unheard:  # bound, so that nobody else takes the port; not listening
        unheard.bind(("127.0.0.1", 0))
        file.write_text(f"host: 127.0.0.1\nport: {unheard.getsockname()[1]}\nname: fireworks\n")
        started = time.monotonic()
        with pytest.raises(QueueError, match="does not answer"):
            open_launchpad(file)
        assert time.monotonic() - started < 15
