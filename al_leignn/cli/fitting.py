"""How a fit looks on the terminal: a bar with time to go and errors in physical units; one line when piped."""

import time
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from al_leignn.units import GPA, MEV

if TYPE_CHECKING:
    from al_leignn.train.committee import FitEvent

SHOWN = (("energy_mae", "meV/atom", MEV), ("force_mae", "meV/Å", MEV), ("stress_mae", "GPa", GPA))


class FitBar:
    """One stage on standard error: a bar where that is a terminal, one line at its end where it is not."""

    def __init__(self, stage: str, members: int) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"))
        times = (TimeElapsedColumn(), TextColumn("to go"), TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
        self._progress = Progress(*columns, *times, console=self._console, transient=True, disable=not self._console.is_terminal)
        self._stage = stage
        self._task = self._progress.add_task(stage, total=members, note="")
        self._parts: dict[int, float] = defaultdict(float)
        self._note = ""
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._progress.stop()
        if kind is None:
            self._console.print(f"{self._stage:<16} {time.monotonic() - self._started:7.1f} s  {self._note}")

    def note(self, text: str) -> None:
        """What to say beside the bar, and in the line at its end."""
        self._note = text
        self._progress.update(self._task, note=text)

    def told(self, event: "FitEvent") -> None:
        """Show news of a member: progress, and the errors of its latest batch or, better, of its evaluation."""
        self._parts[event.member] = event.step / max(event.steps, 1)
        self._progress.update(self._task, completed=sum(self._parts.values()))
        part = "valid_" if any(key.startswith("valid_") for key in event.errors) else "train_"
        if event.evaluated:
            errors = {name: event.errors[part + name] for name, *_ in SHOWN if part + name in event.errors}
            kind = "held out" if part == "valid_" else "training"
            self.note(f"member {event.member}, {kind}: {in_units(errors)}")
        elif not self._note:
            self.note(f"member {event.member}, batch: {in_units(event.errors)}")


def in_units(errors: Mapping[str, float]) -> str:
    """Errors in meV/atom, meV/Å and GPa, those there are."""
    return ", ".join(f"{errors[name] / size:.3g} {unit}" for name, unit, size in SHOWN if name in errors)
