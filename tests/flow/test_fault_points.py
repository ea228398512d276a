"""Killed before each write, before and after each fsync and rename of publishing: nothing is lost, nothing is paid twice."""

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.plan import next_requests
from al_leignn.campaign.stages import run_stage
from al_leignn.campaign.state import scan
from al_leignn.core import Stage, StageRequest
from al_leignn.store import read_manifest, sweep_scratch, verify
from tests.flow.crash import LEDGER, Paid, environment, litter, make_campaign


class Faults:
    """Counts the points that this process passes, and kills it at one of them. Cannot be taken back: for forks only."""

    def __init__(self, root: Path, fatal: int | None) -> None:
        self.passed: list[str] = []
        self._root = str(root)
        self._fatal = fatal
        sys.addaudithook(self._heard)
        for name in ("fsync", "rename", "replace"):
            setattr(os, name, self._around(name, getattr(os, name)))

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | Path) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self._point(f"before write {arguments[0]}", str(arguments[0]))

    def _around(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def faulty(*arguments: Any) -> None:
            what = str(Path(f"/proc/self/fd/{arguments[0]}").readlink()) if name == "fsync" else str(arguments[0])
            self._point(f"before {name} {what}", what)
            real(*arguments)
            self._point(f"after {name} {what}", what)

        return faulty

    def _point(self, name: str, path: str) -> None:
        if not path.startswith(self._root):
            return
        if len(self.passed) == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed.append(name)


def in_fork(layout: Layout, work: Callable[[], None], fatal: int | None) -> list[str] | None:
    """Do the work in a fork that is killed at point number `fatal`; the points it passed, None if it was killed."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faults = Faults(layout.root, fatal)
            work()
            os.write(write_end, "\n".join(faults.passed).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end) as told:
        passed = told.read().split("\n")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return passed if status == 0 else None


def advance(layout: Layout, to: StageRequest) -> None:
    """Do all that comes before an item."""
    while to not in (requests := next_requests(scan(layout))):
        layout.open_iteration(requests[0].iteration)
        for request in requests:
            run_stage(layout, request)


def survive_every_point(layout: Layout, request: StageRequest, spare: Path) -> int:
    """Kill the work on an item at each of its points, and finish it each time; how many points there are."""
    shutil.copytree(layout.root, spare)
    ledger = Path(os.environ[LEDGER])
    before = ledger.read_bytes() if ledger.exists() else b""

    def again() -> None:
        shutil.rmtree(layout.root)
        shutil.copytree(spare, layout.root)
        ledger.write_bytes(before)

    def work() -> None:
        run_stage(layout, request)

    def outcome() -> dict[str, Any]:
        verify(layout.item(request))
        manifest = read_manifest(layout.item(request))
        assert manifest is not None
        return manifest.without_times()

    points = in_fork(layout, work, None)
    assert points is not None
    expected = outcome()
    for number in range(len(points)):
        again()
        paid = Paid(layout)
        assert in_fork(layout, work, number) is None, points[number]
        paid.look()
        sweep_scratch(layout.root)
        assert in_fork(layout, work, None) is not None
        paid.look()
        assert outcome() == expected, points[number]
        assert litter(layout) == [], points[number]
    return len(points)


@pytest.mark.timeout(7200)
@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([StageRequest(Stage.LABEL, 0, 0)], id="a label"),
        pytest.param([StageRequest(stage, 1, 0) for stage in Stage], id="all stages", marks=pytest.mark.slow),
    ],
)
def test_killed_at_every_point_of_publishing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: list[StageRequest]
) -> None:
    layout = make_campaign(tmp_path / "campaign")
    monkeypatch.setenv(LEDGER, environment(layout)[LEDGER])
    counts = {}
    for request in requests:
        advance(layout, request)
        counts[request.stage.value] = survive_every_point(layout, request, tmp_path / f"before {request.stage}")
        sys.stdout.write(f"\nkilled at {sum(counts.values())} points: {counts}\n")
    assert min(counts.values()) >= 8
