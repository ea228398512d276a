"""What runners tell whoever looks on."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from al_leignn.campaign.layout import Layout
from al_leignn.core import StageRequest


class Tick(NamedTuple):
    """How far a running item is."""

    request: StageRequest
    done: int
    total: int
    note: str


@runtime_checkable
class Watcher(Protocol):
    def begin(self, requests: Sequence[StageRequest]) -> None:
        """Independent items start."""

    def tick(self, tick: Tick) -> None: ...

    def finished(self, request: StageRequest) -> None:
        """An item is published."""

    def end(self) -> None:
        """All items that began are published or have failed."""

    def decided(self, layout: Layout, iteration: int) -> None:
        """An iteration has its decision."""


class Silence:
    """A watcher for scripts and tests: says nothing."""

    def begin(self, requests: Sequence[StageRequest]) -> None:
        pass

    def tick(self, tick: Tick) -> None:
        pass

    def finished(self, request: StageRequest) -> None:
        pass

    def end(self) -> None:
        pass

    def decided(self, layout: Layout, iteration: int) -> None:
        pass
