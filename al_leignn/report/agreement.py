"""Figures of MD against AIMD: every observable with its error band, and the verdicts side by side."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from al_leignn.errors import InputError
from al_leignn.report.plots import BLUE, GREY, ORANGE, STYLE
from al_leignn.store import write_atomic
from al_leignn.validate.agreement import Agreement
from al_leignn.validate.equivalence import Comparison, Outcome

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "rdf": "pair functions",
    "adf": "angles in the first shell",
    "msd": "mean squared displacements",
    "vdos": "vibrations",
    "forces": "forces",
}
"""Kinds that are functions, each with a figure of its own."""

COLOURS = {Outcome.EQUIVALENT: "#009E73", Outcome.DIFFERENT: ORANGE, Outcome.UNDECIDED: "#E69F00"}
"""From the palette of Okabe and Ito, which colour-blind readers can tell apart."""

PALE = "#d9d9d9"

COLUMNS = 3
FARTHEST = 6.0
"""Differences of more tolerances are drawn as arrows at the edge."""

BAND = 1.96
"""Standard errors on either side: 95 %."""

LEAST_SHARE = 2e-3
"""Of the highest value; spectra are drawn up to the last, pair functions from the first that is larger."""


def figure_folder(folder: Path) -> None:
    """Make a folder for figures if need be; raises `InputError` if it is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError("figures need a folder, and this is a file", where=str(folder), fix="choose another name") from None


def plot_agreement(found: Agreement, folder: Path) -> list[Path]:
    """Draw `verdict.png` and one figure for each kind of function into a folder; errors as `figure_folder`."""
    figure_folder(folder)
    drawn = [_save(folder / "verdict.png", found.comparisons, _draw_verdicts, size=(7.5, 1.1 + 0.26 * len(found.comparisons)))]
    for kind, title in TITLES.items():
        chosen = [c for c in found.comparisons if c.kind == kind]
        if chosen:
            rows = -(-len(chosen) // COLUMNS)
            size = (3.1 * min(COLUMNS, len(chosen)) + 0.3, 2.5 * rows + 0.6)
            drawn.append(
                _save(folder / f"{kind}.png", chosen, lambda figure, these, t=title: _draw_curves(figure, these, t), size)
            )
    return drawn


def _save(path: Path, comparisons: Sequence[Comparison], draw: Any, size: tuple[float, float]) -> Path:
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure, comparisons)
        image = BytesIO()
        figure.savefig(image, format="png", dpi=200)
    write_atomic(path, image.getvalue())
    return path


def _draw_verdicts(figure: "Figure", comparisons: Sequence[Comparison]) -> None:
    """Each difference in units of its tolerance, with what noise alone would give."""
    axes = figure.subplots()
    for row, c in enumerate(comparisons):
        colour = COLOURS[c.outcome]
        if np.isfinite(c.noise):
            axes.barh(row, c.noise / c.tolerance, color=PALE, height=0.62)
        ratio = c.difference / c.tolerance
        marker = "o" if ratio < FARTHEST else ">"
        axes.plot(min(ratio, FARTHEST), row, marker, color=colour, ms=6, mec="white", mew=0.8, clip_on=False, zorder=3)
        axes.text(1.02, row, c.verdict, color=colour, va="center", transform=axes.get_yaxis_transform(), fontsize=8)
    axes.axvline(1.0, color="black", lw=1.0, ls="--")
    axes.text(1.0, -0.9, "tolerance", ha="center", va="bottom", fontsize=8)
    axes.plot([], [], "s", color=PALE, ms=8, label="noise alone")
    axes.plot([], [], "o", color=GREY, ms=6, mec="white", label="measured")
    axes.set_yticks(range(len(comparisons)), [c.name for c in comparisons])
    highest = max([1.6, *(c.difference / c.tolerance for c in comparisons)])
    axes.set(xlim=(0, min(1.08 * highest, FARTHEST)), ylim=(len(comparisons) - 0.4, -1.0), xlabel="difference / tolerance")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=1.4)  # above "tolerance"


def _draw_curves(figure: "Figure", comparisons: Sequence[Comparison], title: str) -> None:
    columns = min(COLUMNS, len(comparisons))
    panels = figure.subplots(-(-len(comparisons) // columns), columns, squeeze=False).ravel()
    for axes, comparison in zip(panels, comparisons, strict=False):
        _draw_curve(axes, comparison)
    for axes in panels[len(comparisons) :]:
        axes.set_axis_off()
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside upper right")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def _draw_curve(axes: "Axes", c: Comparison) -> None:
    """Both means: AIMD as a band of 95 % with a line, MD as a line on top."""
    x, ours, theirs = c.grid, c.reference, c.md
    loud = np.flatnonzero(np.maximum(ours.mean, theirs.mean) > LEAST_SHARE * ours.mean.max())
    first = max(0, int(loud[0]) - 2) if c.kind == "rdf" and len(loud) else 0
    last = int(loud[-1]) + 2 if c.kind in ("vdos", "forces") and len(loud) else len(x)
    shown = slice(first, last)
    error = np.nan_to_num(BAND * ours.error[shown])
    axes.fill_between(x[shown], ours.mean[shown] - error, ours.mean[shown] + error, color=BLUE, alpha=0.25, lw=0)
    axes.plot(x[shown], ours.mean[shown], color=BLUE, lw=2.2, label="AIMD (band: 95 %)", solid_capstyle="round")
    axes.plot(x[shown], theirs.mean[shown], color=ORANGE, lw=1.0, label="MD")
    name = c.name.split(" ", 1)[1] if c.kind in ("rdf", "msd", "vdos") else c.name
    axes.set_title(name, loc="left", fontsize=9)
    axes.set_title(c.outcome.value, loc="right", fontsize=8, color=COLOURS[c.outcome])
    letter = c.name.split(" ")[0]
    label = letter + (f" ({c.unit})" if c.unit else "") if c.kind in ("rdf", "msd") else f"density ({c.unit})"
    if c.kind == "forces":
        label = "share that is larger"
    axes.set(xlabel=c.axis, ylabel=label, ylim=(0, None))
    axes.margins(x=0)
    if c.kind == "rdf" and letter.startswith("g"):
        axes.axhline(1.0, color=GREY, lw=0.6, ls=":")
    if c.kind == "adf":
        axes.set_xticks(range(0, 181, 45))
