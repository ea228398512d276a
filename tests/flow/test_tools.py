"""The queue is an ordinary FireWorks queue: its own tools work on it, and it may lie behind a password and TLS."""

import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import pytest
from fireworks import LaunchPad

from al_leignn.campaign.layout import Layout
from al_leignn.errors import QueueError
from al_leignn.flow.embedded import LaunchpadAddress
from al_leignn.flow.fireworks import add_workflow
from al_leignn.flow.launchpad import open_launchpad, queue_status
from al_leignn.flow.worker import worker

LPAD = str(Path(sys.executable).with_name("lpad"))


def lpad(server: LaunchpadAddress, *words: str) -> str:
    done = subprocess.run([LPAD, "-l", str(server.file), *words], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lpad_shows_the_workflow_and_holds_it(campaign: Layout, launchpad: LaunchPad, server: LaunchpadAddress) -> None:
    add_workflow(launchpad, campaign, 0)
    assert '"name": "2026-01-31 000' in lpad(server, "get_wflows")
    lpad(server, "pause_fws", "-n", "explore 0/0")
    worker(server.file, until_idle_s=0.0)
    assert queue_status(server.file)["PAUSED"] == 1
    assert not (campaign.iteration(0) / "explore").exists()


def test_web_page_shows_the_workflow(campaign: Layout, launchpad: LaunchPad, server: LaunchpadAddress) -> None:
    add_workflow(launchpad, campaign, 0)
    (first, *_) = launchpad.get_fw_ids({"name": "explore 0/0"})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [LPAD, "-l", str(server.file), "webgui", "--server_mode", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert "2026-01-31 000" in page(f"http://127.0.0.1:{port}/")
        assert "explore 0/0" in page(f"http://127.0.0.1:{port}/fw/{first}/details")
        assert str(campaign.root) in page(f"http://127.0.0.1:{port}/fw/{first}")
    finally:
        process.terminate()
        process.wait(30)


def page(url: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return str(answer.read().decode())
        except URLError:
            assert time.monotonic() < deadline, "the page does not come"
            time.sleep(0.2)


# --- a password and TLS ----------------------------------------------------------------------------------


@pytest.fixture
def tunnel(server: LaunchpadAddress, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A port that speaks TLS and passes on to the server, and the certificate it shows."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate), *subject]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, args=(listening, context, server.port), daemon=True).start()
        yield listening.getsockname()[1], certificate
        listening.shutdown(socket.SHUT_RDWR)


def accept(listening: socket.socket, context: ssl.SSLContext, port: int) -> None:
    while True:
        try:
            plain, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=serve, args=(plain, context, port), daemon=True).start()


def serve(plain: socket.socket, context: ssl.SSLContext, port: int) -> None:
    try:
        with context.wrap_socket(plain, server_side=True) as near, socket.create_connection(("127.0.0.1", port)) as far:
            back = threading.Thread(target=pass_on, args=(far, near), daemon=True)
            back.start()
            pass_on(near, far)
            far.shutdown(socket.SHUT_RDWR)
            back.join()
    except OSError:
        plain.close()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            target.sendall(data)
    except OSError:
        return


def launchpad_file(folder: Path, port: int, password: str, tls: str) -> Path:
    file = folder / "my_launchpad.yaml"
    lines = ["host: 127.0.0.1", f"port: {port}", "name: fireworks", "username: al-leignn", f"password: {password}"]
    lines += ["authsource: fireworks", "mongoclient_kwargs:", "  serverSelectionTimeoutMS: 3000", tls]
    file.write_text("\n".join([*lines, ""]))
    return file


def test_queue_behind_a_password_and_tls(
    campaign: Layout, launchpad: LaunchPad, tunnel: tuple[int, Path], tmp_path: Path
) -> None:
    add_workflow(launchpad, campaign, 0)
    port, certificate = tunnel
    tls = f"  tls: true\n  tlsCAFile: {certificate}"
    worker(launchpad_file(tmp_path, port, launchpad.password, tls), category="explore", until_idle_s=0.0)
    assert launchpad.fireworks.find_one({"name": "explore 0/0"})["state"] == "COMPLETED"
    for password, how, message in [
        ("mistaken", tls, "refuses the login"),
        (launchpad.password, "  tls: true", "does not answer"),  # nobody vouches for the certificate
        (launchpad.password, "  tls: false", "does not answer"),
    ]:
        with pytest.raises(QueueError, match=message) as caught:
            open_launchpad(launchpad_file(tmp_path, port, password, how))
        assert password not in str(caught.value)
