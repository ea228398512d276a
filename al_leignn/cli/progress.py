"""Progress bars with time to go; silent when the output is no terminal."""

import time
from collections import defaultdict
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from al_leignn.campaign.layout import Layout
from al_leignn.cli.summary import iteration_summary
from al_leignn.core import Stage, StageRequest
from al_leignn.flow.watch import Tick

VERBS = {
    Stage.EXPLORE: "explore: committee MD",
    Stage.SELECT: "select: frames worth a label",
    Stage.LABEL: "label: reference calculations",
    Stage.COLLECT: "collect: data set",
    Stage.TRAIN: "train: committee",
    Stage.VALIDATE: "validate: fresh labels, physics",
    Stage.CONVERGE: "converge: decide",
}


class Bars:
    """Shows each stage as a bar (terminal) or as one line when it is done (pipe). Implements `flow.watch.Watcher`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._started = 0.0
        self._requests: Sequence[StageRequest] = ()
        self._parts: dict[StageRequest, float] = defaultdict(float)

    def begin(self, requests: Sequence[StageRequest]) -> None:
        self._requests = requests
        self._parts.clear()
        self._started = time.monotonic()
        if not self._live:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("[dim]{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]to go"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._progress.start()
        first = requests[0]
        self._task = self._progress.add_task(
            f"{first.iteration:>3}  {VERBS[first.stage]}", total=len(requests), note=self._note()
        )

    def tick(self, tick: Tick) -> None:
        self._parts[tick.request] = tick.done / max(tick.total, 1)
        self._show()

    def finished(self, request: StageRequest) -> None:
        self._parts[request] = 1.0
        self._show()

    def end(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        seconds = time.monotonic() - self._started
        first = self._requests[0]
        self._console.print(
            f"{first.iteration:>3}  {VERBS[first.stage]:<34} {self._note():>12}  {seconds:7.1f} s", highlight=False
        )

    def decided(self, layout: Layout, iteration: int) -> None:
        self._console.print(iteration_summary(layout, iteration))

    def _show(self) -> None:
        if self._progress is not None:
            self._progress.update(self._task, completed=sum(self._parts.values()), note=self._note())

    def _note(self) -> str:
        done = sum(part >= 1.0 for part in self._parts.values())
        return f"{done} of {len(self._requests)}"


def bar() -> Progress:
    """A bar with time to go on standard error; nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("to go"), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
