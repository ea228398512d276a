"""The embedded queue server: a MongoDB-compatible database that needs no setting up.

`secantusd-py` (package secantusdb) runs as a process of its own and listens on the loopback interface only:

    queue/my_launchpad.yaml   its address and password; `lpad -l`, `rlaunch -l` and `al-leignn worker` read it
    queue/data/               the database
    queue/server.lock         locked by the server for as long as it lives; holds its process number
    queue/server.toml, .log   its settings, its complaints
    queue/lock                held by the process that started it

The queue says what is to be done; results lie in the campaign folder. Whoever loses the queue loses no result.
"""

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pymongo
from fireworks import LaunchPad
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from al_leignn.campaign.lock import holding, is_held
from al_leignn.errors import QueueError
from al_leignn.flow.launchpad import open_launchpad, read_launchpad
from al_leignn.store import write_atomic

LAUNCHPAD = "my_launchpad.yaml"
_HOST = "127.0.0.1"
_DATABASE = "fireworks"
_USER = "al-leignn"
_SETTINGS = """\
[server]
host = "{host}"
auth = {auth}
standalone = true
log_level = "WARNING"

[storage]
cache_size = "64M"
sync_on_commit = true

[oplog]
retention_seconds = 60.0
max_entries = 1000
"""
_STARTS = 5
_START_S = 30.0
_STOP_S = 10.0


class LaunchpadAddress(NamedTuple):
    """Where a server listens, and the file that tells FireWorks so."""

    file: Path
    port: int


@contextmanager
def serving(folder: Path) -> Iterator[LaunchpadAddress]:
    """Run the server on `folder` (made if missing) for the time of the block.

    A server that outlived its owner is taken over; one that `up` started is used and left running.

    Raises
    ------
    QueueError
        If the server is not installed or does not start.
    CampaignLockedError
        If another process serves this folder.
    """
    with _owning(folder):
        lasting = bool(_server(folder).get("lasting")) and is_up(folder)
        process = _ensure_up(folder, lasting=lasting)
        try:
            yield _address(folder)
        finally:
            if not lasting:
                _stop(folder, process)


def up(folder: Path) -> LaunchpadAddress:
    """Start the server and leave it running until `down`; one that runs already is kept."""
    with _owning(folder):
        _ensure_up(folder, lasting=True)
        return _address(folder)


def down(folder: Path) -> bool:
    """Stop a server that `up` started or that outlived its owner; returns whether there was one."""
    if not folder.is_dir():
        return False
    with _owning(folder):
        running = is_held(_lock(folder))
        _stop(folder)
        return running


def connect(folder: Path) -> LaunchPad:
    """The LaunchPad served from `folder`; raises `QueueError` if it does not answer."""
    return open_launchpad(folder / LAUNCHPAD)


def is_up(folder: Path) -> bool:
    """Whether the server of this folder answers and takes the password kept here."""
    port, _ = _saved(folder)
    if port is None or _is_free(port):
        return False
    try:
        connect(folder).connection.close()
    except QueueError:
        return False
    return True


@contextmanager
def _owning(folder: Path) -> Iterator[None]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)  # it may be older than this rule
    with holding(folder / "lock", "queue server"):
        yield


# --- start and stop --------------------------------------------------------------------------------------


def _ensure_up(folder: Path, *, lasting: bool) -> subprocess.Popen[bytes] | None:
    """Have the server running; returns its process if it had to be started."""
    if is_up(folder):
        if lasting:
            _lock(folder).write_text(json.dumps(_server(folder) | {"lasting": True}), encoding="utf-8")
        return None
    _stop(folder)  # one that lives and yet does not answer: its start was cut off
    port, password = _saved(folder)
    if password is None:
        password = _set_password(folder)
    for _ in range(_STARTS):
        if port is None or not _is_free(port):
            port = _free_port()
        # The address is written before the server listens there: a server that outlives us can always be found.
        _write_launchpad(folder, port, password)
        process = _spawn(folder, port, auth=True, lasting=lasting)
        answers = False
        try:
            answers = _answers(process, lambda: is_up(folder))
        finally:
            if not answers:  # it failed, or we are being stopped while it starts
                _stop(folder, process)
        if answers:
            return process
    raise _did_not_start(folder)


def _spawn(folder: Path, port: int, *, auth: bool, lasting: bool = False) -> subprocess.Popen[bytes]:
    # A file of its own: without one, the server would take the settings of any other that this user runs.
    settings = folder / "server.toml"
    settings.write_text(_SETTINGS.format(host=_HOST, auth=str(auth).lower()), encoding="utf-8")
    command = [_program(), "--config", str(settings), "--port", str(port), "--storage-path", str(folder / "data")]
    lock = os.open(_lock(folder), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with (folder / "server.log").open("wb") as log:
            # It inherits the lock, and has a session of its own that no Ctrl-C reaches.
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=[lock], start_new_session=True
            )
        os.ftruncate(lock, 0)
        os.pwrite(lock, json.dumps({"pid": process.pid, "port": port, "lasting": lasting}).encode(), 0)
    finally:
        os.close(lock)
    return process


def _answers(process: subprocess.Popen[bytes], asks: Callable[[], bool]) -> bool:
    """Ask until the answer is yes; no if the process dies or takes too long."""
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(PyMongoError), pymongo.timeout(1.0):
            if asks():
                return True
        time.sleep(0.05)
    return False


def _stop(folder: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    """End the server of this folder, if there is one: politely, then not."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        server = _server(folder)
        if not server or not is_held(_lock(folder)):
            break
        with suppress(ProcessLookupError):
            os.kill(server["pid"], sign)
        deadline = time.monotonic() + _STOP_S
        while is_held(_lock(folder)) and time.monotonic() < deadline:
            time.sleep(0.02)
            _is_free(server["port"])  # asked to stop, it waits 2 s for one more connection; here it is
    if is_held(_lock(folder)):
        raise QueueError("a queue server does not stop", where=str(folder), fix="end the process secantusd-py of this folder")
    if process is not None:
        process.wait()


def _set_password(folder: Path) -> str:
    """Make the one user, or give it a new password, on a server that for a moment asks for none."""
    password = secrets.token_urlsafe(24)
    port = _free_port()
    process = _spawn(folder, port, auth=False)
    client: MongoClient[dict[str, Any]] = MongoClient(_HOST, port, directConnection=True)
    try:
        # It must be ours that answers: another server may have taken the port meanwhile.
        if not _answers(process, lambda: bool(client.admin.command("serverStatus")["pid"] == process.pid)):
            raise _did_not_start(folder)
        database = client[_DATABASE]
        known = database.command("usersInfo", _USER)["users"]
        database.command("updateUser" if known else "createUser", _USER, pwd=password, roles=["readWrite"])
    finally:
        client.close()
        _stop(folder, process)
    return password


def _program() -> str:
    beside = Path(sys.executable).parent  # an environment need not be activated
    program = shutil.which("secantusd-py", path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if program is None:
        raise QueueError(
            "the embedded queue server (secantusd-py) is not installed",
            fix="pip install 'al-leignn[queue]', or name your own MongoDB with --launchpad my_launchpad.yaml",
        )
    return program


def _did_not_start(folder: Path) -> QueueError:
    log = folder / "server.log"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "it gave no reason")
    return QueueError(
        f"the embedded queue server did not start: {last}",
        where=str(log),
        fix="if its database is damaged, delete this folder: no result is in it, and the queue is built again",
    )


# --- what the folder remembers ---------------------------------------------------------------------------


def _lock(folder: Path) -> Path:
    return folder / "server.lock"


def _server(folder: Path) -> dict[str, Any]:
    """Process number and port of the server, and whether it lasts longer than the block or command that started it."""
    try:
        server = json.loads(_lock(folder).read_bytes())
    except (OSError, ValueError):
        return {}
    return server if isinstance(server, dict) else {}


def _address(folder: Path) -> LaunchpadAddress:
    launchpad = read_launchpad(folder / LAUNCHPAD)
    launchpad.connection.close()
    return LaunchpadAddress(folder / LAUNCHPAD, launchpad.port)


def _saved(folder: Path) -> tuple[int | None, str | None]:
    """Port and password of the last start; the password is None where the database does not know it."""
    try:
        launchpad = read_launchpad(folder / LAUNCHPAD)
    except QueueError:
        return None, None
    launchpad.connection.close()
    return launchpad.port, launchpad.password if (folder / "data").is_dir() else None


def _write_launchpad(folder: Path, port: int, password: str) -> None:
    text = f"""\
# The embedded queue of this campaign. Written anew at each start. The password is a secret: this file is yours alone.
host: {_HOST}
port: {port}
name: {_DATABASE}
username: {_USER}
password: "{password}"
authsource: {_DATABASE}
strm_lvl: ERROR
mongoclient_kwargs: {{serverSelectionTimeoutMS: 5000}}
"""
    write_atomic(folder / LAUNCHPAD, text)
    (folder / LAUNCHPAD).chmod(0o600)


def _is_free(port: int) -> bool:
    """Whether nobody listens there."""
    try:
        socket.create_connection((_HOST, port), timeout=1.0).close()
    except OSError:
        return True
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
