"""Tests of several processes wait for what another one does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T], what: str, limit_s: float = 120.0, every_s: float = 0.02) -> T:
    """Ask again and again, and return the first answer that is true; fails after `limit_s` seconds."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(every_s)
    return found
