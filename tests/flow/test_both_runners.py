"""The local runner and the queue do the same work, whatever befalls them: all they publish is identical, times aside."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from al_leignn.campaign.layout import Layout
from al_leignn.core import DecisionKind, Stage, StageRequest
from al_leignn.errors import LabellerError
from al_leignn.flow.embedded import LAUNCHPAD
from al_leignn.flow.fireworks import launch
from al_leignn.flow.launchpad import read_launchpad
from al_leignn.flow.local import run
from al_leignn.flow.watch import Silence
from al_leignn.report.html import write_report
from al_leignn.store import MANIFEST, read_manifest, verify
from tests.waiting import wait_for

LAUNCH = """
import sys
from pathlib import Path
from al_leignn.campaign.layout import Layout
from al_leignn.flow.fireworks import launch
from al_leignn.flow.watch import Silence
if __name__ == "__main__":
    launch(Layout.open(Path(sys.argv[1])), launchpad_file=None, workers=2, max_iterations=2, watcher=Silence())
"""

Maker = Callable[..., Layout]
Fingerprint = dict[Path, dict[str, Any]]


def fingerprint(layout: Layout) -> Fingerprint:
    """All manifests, with the digests of all published files in them; times aside."""
    found = {}
    for path in layout.iterations.rglob(MANIFEST):
        verify(path.parent)
        manifest = read_manifest(path.parent)
        assert manifest is not None
        found[path.parent.relative_to(layout.root)] = manifest.without_times()
    return found


def assert_same(found: Fingerprint, expected: Fingerprint) -> None:
    assert found.keys() == expected.keys()
    for item, manifest in expected.items():
        assert found[item] == manifest, item


@pytest.fixture(scope="module")
def expected(make_campaign: Maker, tmp_path_factory: pytest.TempPathFactory) -> Fingerprint:
    """Two iterations of the local runner with one worker."""
    layout = make_campaign(tmp_path_factory.mktemp("local") / "campaign")
    decision = run(layout, workers=1, max_iterations=2, watcher=Silence())
    assert decision is not None
    assert decision.kind is DecisionKind.CONTINUE
    return fingerprint(layout)


def test_queue_does_what_the_local_runner_does(campaign: Layout, expected: Fingerprint) -> None:
    decision = launch(campaign, launchpad_file=None, workers=2, max_iterations=2, watcher=Silence())
    assert_same(fingerprint(campaign), expected)
    assert decision is not None
    assert decision.reason == expected[Path("iterations/001/converge/0000")]["result"]["reason"]
    assert not list(campaign.root.rglob(".scratch-*"))
    assert not (campaign.queue / "launchers").exists()
    write_report(campaign, campaign.root / "report.html")
    assert files_with(password_of(campaign), campaign.root) == [campaign.queue / LAUNCHPAD]


def password_of(layout: Layout) -> bytes:
    launchpad = read_launchpad(layout.queue / LAUNCHPAD)
    launchpad.connection.close()
    return str(launchpad.password).encode()


def files_with(secret: bytes, folder: Path) -> list[Path]:
    assert len(secret) >= 24
    return [path for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_eventful_campaign_ends_like_a_quiet_one(make_campaign: Maker, expected: Fingerprint, tmp_path: Path) -> None:
    """A labeller that cannot work, a launch killed in mid-training, then its server killed."""
    layout = make_campaign(tmp_path / "campaign", ("emt:EMT", "emt:Nonsense"))
    with pytest.raises(LabellerError, match="Nonsense"):
        launch(layout, launchpad_file=None, workers=1, max_iterations=2, watcher=Silence())
    for file in (layout.config_file, layout.iteration(0) / "campaign.toml"):
        file.write_text(file.read_text().replace("Nonsense", "EMT"))

    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    mark = f"AL_LEIGNN_TEST={tmp_path}"
    process = subprocess.Popen([sys.executable, script, layout.root], env=os.environ | dict([mark.split("=")]))
    wait_for(lambda: published(layout, Stage.COLLECT, 0), "the data set")
    process.kill()
    process.wait()
    wait_for(lambda: not [command for command in marked(mark) if "secantusd" not in command], "the workers to end with it")

    killer = threading.Thread(target=kill_server, args=(layout,))
    killer.start()
    launch(layout, launchpad_file=None, workers=2, max_iterations=2, watcher=Silence())
    killer.join()
    assert_same(fingerprint(layout), expected)
    assert not marked(mark)
    assert not list(layout.root.rglob(".scratch-*"))
    assert not (layout.queue / "launchers").exists()


def published(layout: Layout, stage: Stage, iteration: int) -> bool:
    return read_manifest(layout.item(StageRequest(stage, iteration, 0))) is not None


def kill_server(layout: Layout) -> None:
    wait_for(lambda: published(layout, Stage.VALIDATE, 0), "the first models")
    os.kill(json.loads((layout.queue / "server.lock").read_text())["pid"], signal.SIGKILL)


def marked(mark: str) -> list[str]:
    """Command lines of the processes that have this in their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append((folder / "cmdline").read_bytes().decode())
            except OSError:
                continue
    return found
