"""Figures of a campaign: uncertainty history, learning curve, force parity."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from al_leignn.campaign.history import History
from al_leignn.campaign.layout import Layout
from al_leignn.errors import InputError
from al_leignn.report.series import deviation_curves, learning_curve, parity, spans
from al_leignn.store import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#8a8a8a"
"""From the palette of Okabe and Ito, which colour-blind readers can tell apart."""

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text
}
FORMATS = (".png", ".svg", ".pdf")
PARITY_POINTS = 20_000


def figure_format(path: Path) -> str:
    """The kind of figure that a file name asks for.

    Raises
    ------
    InputError
        If it does not end in one of `FORMATS`.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise InputError("the file name does not say what kind of figure", where=str(path), fix=f"end it in {', '.join(FORMATS)}")
    return kind[1:]


def save_figure(figure: "Figure", path: Path, dpi: int) -> None:
    """Write a figure in the format of its file name; the file appears whole."""
    image = BytesIO()
    figure.savefig(image, format=figure_format(path), dpi=dpi)
    write_atomic(path, image.getvalue())


def plot_history(layout: Layout, path: Path) -> None:
    """Draw the three panels into a PNG, SVG or PDF file.

    Raises
    ------
    InputError
        If the file name does not end in one of these.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure_format(path)
    history = History(layout)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 6.4), layout="constrained")
        FigureCanvasAgg(figure)
        panels = figure.subplot_mosaic([["deviation", "deviation"], ["learning", "parity"]])
        draw_deviations(panels["deviation"], history)
        draw_learning(panels["learning"], history)
        draw_parity(panels["parity"], history)
        figure.suptitle(layout.config().name, parse_math=False)
        save_figure(figure, path, dpi=200)


def draw_deviations(axes: "Axes", history: History) -> None:
    """Model deviation of every walker against MD time, iterations side by side, with the trust levels in force."""
    from matplotlib import colormaps

    curves = deviation_curves(history)
    axes.set(ylabel="model deviation (eV/Å)", xlabel="MD time of each walker (ps), iterations side by side")
    if not curves:
        axes.text(0.5, 0.5, "no MD yet", ha="center", transform=axes.transAxes, color=GREY)
        return
    places = {span.iteration: span for span in spans(history)}
    temperatures = sorted({curve.temperature for curve in curves})
    colours = dict(zip(temperatures, colormaps["viridis"](np.linspace(0.0, 0.85, len(temperatures))), strict=True))
    for curve in curves:
        span = places[curve.iteration]
        time = span.start + curve.step * span.ps_per_step
        marker = "." if len(time) < 3 else ""
        axes.plot(time, curve.deviation, color=colours[curve.temperature], lw=0.7, marker=marker, alpha=0.8, rasterized=True)
        if curve.stopped and len(time):
            axes.plot(time[-1], curve.deviation[-1], "x", color=ORANGE, ms=6)
    for temperature in temperatures:
        axes.plot([], [], color=colours[temperature], label=f"{temperature:g} K")
    for span in places.values():
        axes.axvline(span.start, color=GREY, lw=0.5, alpha=0.5)
        axes.text(span.start, 1.0, f" {span.iteration}", transform=axes.get_xaxis_transform(), va="top", color=GREY)
        for level, style in ((span.trust_lo, "--"), (span.trust_hi, ":")):
            if level is not None:
                axes.plot([span.start, span.end], [level, level], color="black", lw=1.0, ls=style)
    axes.plot([], [], color="black", lw=1.0, ls="--", label="trusted below")
    axes.plot([], [], color="black", lw=1.0, ls=":", label="dropped from")
    if any(curve.stopped for curve in curves):
        axes.plot([], [], "x", color=ORANGE, label="walker stopped")
    _use_log(axes)
    axes.margins(x=0.01)
    axes.legend(ncols=6, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def draw_learning(axes: "Axes", history: History) -> None:
    """Force errors against the labels the committee was trained on, with the target."""
    axes.set(xlabel="labels trained on", ylabel="force MAE (eV/Å)")
    kinds = {"fresh": (ORANGE, "o", "fresh: frames of its own MD"), "test": (BLUE, "s", "test: all frames held back")}
    points = [point for point in learning_curve(history) if point.force_mae is not None]
    for kind, (colour, marker, label) in kinds.items():
        mine = [(p.labels, p.force_mae, p.force_mae_low, p.force_mae_high) for p in points if p.kind == kind]
        if not mine:
            continue
        labels, mae, low, high = np.array(mine, dtype=float).T
        spread = np.nan_to_num([mae - low, high - mae])
        axes.errorbar(labels, mae, spread, color=colour, marker=marker, ms=4, lw=1.2, capsize=2, label=label)
    target = history.layout.config().converge.target_force_error
    axes.axhline(target, color="black", lw=1.0, ls="--", label=f"target {target:g}")
    if points:
        _use_log(axes)
    axes.legend(frameon=True, edgecolor="none")


def draw_parity(axes: "Axes", history: History) -> None:
    """Predicted against reference force components of the frames held back."""
    axes.set(xlabel="reference force (eV/Å)", ylabel="predicted force (eV/Å)")
    found = parity(history, PARITY_POINTS)
    if found is None or found[0] == 0:
        axes.text(0.5, 0.5, "no fresh labels yet", ha="center", transform=axes.transAxes, color=GREY)
        return
    total, shown = found
    axes.plot(shown["reference"], shown["predicted"], ".", ms=2, color=BLUE, alpha=0.5, rasterized=True)
    ends = [min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])]
    axes.plot(ends, ends, color="black", lw=0.8, ls="--")
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    newest = [record.test for record in history.records() if record.test is not None][-1]
    mae = "not finite" if newest["force_mae"] is None else f"{newest['force_mae']:.3g} eV/Å"
    axes.text(0.04, 0.95, f"MAE {mae}\n{total} components, {newest['n_frames']} frames", va="top", transform=axes.transAxes)


def _use_log(axes: "Axes") -> None:
    """Logarithmic errors, with plain numbers on the axis."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
