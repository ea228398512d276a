"""Two runners, also on two hosts, and one campaign: the second is refused at once, told who is there, and changes nothing."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.lock import is_held
from al_leignn.flow.embedded import LAUNCHPAD
from al_leignn.flow.fireworks import launch
from al_leignn.flow.local import run
from al_leignn.flow.watch import Silence
from tests.flow.crash import environment, fingerprint, make_campaign

AL = str(Path(sys.executable).with_name("al-leignn"))


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """A campaign that another runner works on."""
    layout = make_campaign(tmp_path_factory.mktemp("busy") / "campaign")
    words = environment(layout) | {"PAIR_CODE_PAUSE": "300"}
    first = subprocess.Popen([AL, "run", str(layout.root), "--workers", "1"], env=words, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not is_held(layout.lock) and time.monotonic() < deadline:
        time.sleep(0.05)
    yield layout
    first.kill()
    first.wait()


@pytest.mark.parametrize("runner", ["run", "launch"])
@pytest.mark.parametrize("host", ["the same host", "another host", "another path"])
def test_the_second_runner_is_refused(busy: Layout, tmp_path: Path, runner: str, host: str) -> None:
    command = [AL, runner, str(busy.root)]
    if host == "another host":
        if os.geteuid() != 0 or shutil.which("unshare") is None:
            pytest.skip("needs root and unshare")
        command = ["unshare", "--uts", "sh", "-c", f'hostname elsewhere && exec "{AL}" {runner} "{busy.root}"']
    if host == "another path":
        (tmp_path / "link").symlink_to(busy.root)
        command[-1] = str(tmp_path / "link")
    second = subprocess.run(command, env=environment(busy), capture_output=True, text=True, timeout=120)
    assert second.returncode == 2, second.stderr
    assert "this campaign is in use by process" in second.stderr
    assert f"on {os.uname().nodename} (al-leignn run, since " in second.stderr
    assert not (busy.queue / LAUNCHPAD).exists()
    assert is_held(busy.lock)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_any_number_of_workers_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for n, (runner, workers) in enumerate([("run", 1), ("run", 2), ("run", 8), ("launch", 1), ("launch", 8)]):
        layout = make_campaign(tmp_path / str(n))
        monkeypatch.setenv("PAIR_CODE_LEDGER", str(tmp_path / f"{n}.ledger"))
        if runner == "run":
            run(layout, workers=workers, max_iterations=None, watcher=Silence())
        else:
            launch(layout, launchpad_file=None, workers=workers, max_iterations=None, watcher=Silence())
        found.append(fingerprint(layout))
    assert found.count(found[0]) == len(found)
