"""The report: one HTML page that opens offline and holds everything it shows."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from al_leignn import __version__
from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History, IterationRecord
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.state import scan
from al_leignn.report.numbers import number, percent, seconds
from al_leignn.report.scenes import scenes
from al_leignn.report.series import deviation_curves, learning_curve, parity, spans
from al_leignn.select.fate import TRAINED, Fate
from al_leignn.store import write_atomic

PARITY_POINTS = 3000
"""Of the parity plot: more would only be ink, and a slow page."""


def write_report(layout: Layout, path: Path, refresh_s: int | None = None) -> None:
    """Write the page, whole or not at all; `refresh_s` as in `render`."""
    write_atomic(path, render(layout, refresh_s))


def watch_report(layout: Layout, path: Path, every_s: int, written: Callable[[], None]) -> None:
    """Write the page again and again until the campaign is finished; `written` is called after each time."""
    while not scan(layout).finished:
        write_report(layout, path, every_s)
        written()
        time.sleep(every_s)
    write_report(layout, path)
    written()


def render(layout: Layout, refresh_s: int | None = None) -> str:
    """The page as text. Tables carry every stored number in full in `data-value`; curves are thinned.

    Parameters
    ----------
    refresh_s
        The page asks the browser to load it anew after so many seconds; None: it stays as it is.
    """
    history = History(layout)
    records = history.records()
    state = scan(layout)
    config = layout.config() if not records else layout.config_of(len(records) - 1)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": number, "percent": percent, "seconds": seconds}
    return environment.get_template("report.html.j2").render(
        status=Campaign(layout).status(),
        decision=state.decision,
        records=records,
        rows=history.walker_rows(),
        config=config,
        config_text=_config_text(layout, len(records)),
        series=_series(history, records),
        written=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        refresh_s=refresh_s,
        taken=[str(fate) for fate in TRAINED],
        filtered=[str(fate) for fate in (Fate.UNPHYSICAL, Fate.UNPREDICTED, Fate.DUPLICATE, Fate.KNOWN, Fate.CORRELATED)],
    )


def _config_text(layout: Layout, iterations: int) -> str:
    file = layout.config_file if not iterations else layout.iteration(iterations - 1) / layout.config_file.name
    return file.read_text(encoding="utf-8")


def _series(history: History, records: list[IterationRecord]) -> dict[str, Any]:
    """What the charts draw, JSON-safe."""
    found = parity(history, PARITY_POINTS)
    newest = history.last_predictions()
    labels = {} if newest is None else {k: newest[1][k].tolist() for k in ("uid", "max_deviation", "max_error")}
    series = {
        "curves": [asdict(curve) for curve in deviation_curves(history)],
        "spans": [asdict(span) for span in spans(history)],
        "learning": [asdict(point) for point in learning_curve(history)],
        "target": history.layout.config().converge.target_force_error,
        "labels": labels,
        "calibration": [{"iteration": r.iteration, "quantities": r.quantities} for r in records],
        "gain": [{"iteration": r.iteration, "chosen": r.chosen, "fresh": r.fresh} for r in records if r.chosen and r.fresh],
        "scenes": [asdict(scene) for scene in scenes(history)],
        "parity": None if found is None else {"total": found[0], **found[1]},
    }
    return json.loads(json.dumps(series, default=_plain), parse_constant=lambda _: None)  # type: ignore[no-any-return]


def _plain(value: Any) -> Any:
    """Arrays as lists, with six digits: more than a screen can show."""
    if np.issubdtype(value.dtype, np.floating) and value.ndim > 1:
        return [_plain(row) for row in value]
    if np.issubdtype(value.dtype, np.floating):
        return [float(f"{x:.6g}") for x in value.tolist()]
    return value.tolist()
