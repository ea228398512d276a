"""Full disks, read-only disks and clocks that go backwards: nothing half-written, one clear word, and the same end."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.stages import run_stage
from al_leignn.core import Stage, StageRequest
from al_leignn.errors import RunError
from al_leignn.store import read_manifest
from tests.flow.crash import LEDGER, Paid, environment, litter, make_campaign

AL = Path(sys.executable).with_name("al-leignn")
SIZE = 4 << 20
SEEDS = [StageRequest(stage, 0, 0) for stage in (Stage.EXPLORE, Stage.SELECT)]
LABEL = StageRequest(Stage.LABEL, 0, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs to be allowed to mount a tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def layout(small_disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Layout:
    """A campaign on that disk, its frames selected."""
    layout = make_campaign(small_disk / "campaign")
    monkeypatch.setenv(LEDGER, str(tmp_path / "ledger"))
    for request in SEEDS:
        run_stage(layout, request)
    return layout


def refusal(layout: Layout) -> RunError | None:
    try:
        run_stage(layout, LABEL)
    except RunError as error:
        return error
    return None


def test_disk_full_at_every_page(layout: Layout, small_disk: Path, tmp_path: Path) -> None:
    """Room for one page more with each try, until a label fits."""
    failures = 0
    ballast = small_disk / "ballast"
    for pages in count():
        free = os.statvfs(small_disk).f_bavail
        with ballast.open("wb") as file:
            file.write(bytes(max(free - pages, 0) * os.statvfs(small_disk).f_bsize))
        refused = refusal(layout)
        ballast.unlink()
        if refused is None:
            break
        failures += 1
        assert "No space left" in refused.what
        assert "run again" in refused.fix
        assert read_manifest(layout.item(LABEL)) is None
        assert litter(layout) == []
    assert failures >= 3, "there was always room: this proves nothing"
    paid = Paid(layout)
    paid.look()
    assert paid.labels == 1
    manifest = read_manifest(layout.item(LABEL))
    assert manifest is not None
    assert manifest.result["verdict"] == "accepted"


def test_read_only_disk(layout: Layout, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        with pytest.raises(RunError, match="Read-only"):
            run_stage(layout, LABEL)
        done = subprocess.run([str(AL), "run", str(layout.root)], capture_output=True, text=True, env=environment(layout))
        assert done.returncode == 2
        assert "read-only for you" in done.stderr
        assert "Traceback" not in done.stderr
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    run_stage(layout, LABEL)
    assert litter(layout) == []


def test_clock_that_goes_backwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEDGER, str(tmp_path / "ledger"))
    found = []
    for name, clock in (("forwards", time.time), ("backwards", lambda: 2e9 - time.monotonic())):
        layout = make_campaign(tmp_path / name)
        monkeypatch.setattr(time, "time", clock)
        for request in [*SEEDS, LABEL]:
            run_stage(layout, request)
        found.append([read_manifest(layout.item(request)).without_times() for request in [*SEEDS, LABEL]])  # type: ignore[union-attr]
    assert found[0] == found[1]
