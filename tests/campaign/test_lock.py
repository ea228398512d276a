"""The lock: one holder, named to the others, gone with its process."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from al_leignn.campaign.lock import holding, is_held
from al_leignn.errors import CampaignLockedError


def _hold(path: Path) -> None:
    with holding(path, "test"):
        time.sleep(60)


def test_the_second_is_refused_and_told_who_and_the_dead_hold_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = multiprocessing.get_context("spawn").Process(target=_hold, args=(path,))
    holder.start()
    deadline = time.monotonic() + 20
    while not is_held(path) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.05)
    assert holder.pid is not None
    with pytest.raises(CampaignLockedError, match=f"process {holder.pid} on .*test"), holding(path, "second"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with holding(path, "third"):
        assert is_held(path)
    assert not is_held(path)
