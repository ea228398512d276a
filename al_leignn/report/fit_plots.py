"""Figures of a fit and of an evaluation: learning curves of the members, parity, distribution of errors."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from al_leignn.core import CommitteePrediction, LabelledFrame
from al_leignn.report.plots import BLUE, GREY, ORANGE, STYLE
from al_leignn.shapes import Float
from al_leignn.store import write_atomic
from al_leignn.units import GPA, MEV

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "pdf")
POINTS = 50_000
"""Dots in one panel: more only blacken it."""

CURVES = (
    ("energy_mae", "energy MAE (meV/atom)", MEV),
    ("force_mae", "force MAE (meV/Å)", MEV),
    ("stress_mae", "stress MAE (GPa)", GPA),
)


def plot_learning(histories: Sequence[Sequence[Mapping[str, float]]], folder: Path) -> list[Path]:
    """Errors of every member against optimiser steps (see `FitReport.history`), with their mean; writes learning.png and .pdf."""
    from matplotlib import colormaps

    held_out = any("valid_loss" in entry for history in histories for entry in history)
    part = "valid" if held_out else "train"
    shown = [curve for curve in CURVES if any(f"{part}_{curve[0]}" in entry for history in histories for entry in history)]
    figure = _figure(3.3 * max(1, len(shown)), 3.0)
    with _style():
        for axes, (key, label, unit) in zip(np.atleast_1d(figure.subplots(1, max(1, len(shown)))), shown, strict=False):
            colours = colormaps["viridis"](np.linspace(0.1, 0.8, len(histories)))
            for colour, (member, history) in zip(colours, enumerate(histories), strict=True):
                points = np.array([(e["step"], e[f"{part}_{key}"] / unit) for e in history if f"{part}_{key}" in e]).reshape(
                    -1, 2
                )
                axes.plot(*points.T, color=colour, lw=1.2, label=f"member {member}")
            mean = _mean_curve(histories, f"{part}_{key}", unit)
            if len(histories) > 1 and len(mean):
                axes.plot(*mean.T, color="black", lw=1.6, ls="--", label="mean of the members")
                axes.set_title(f"{mean[-1, 1]:.3g} {label.split('(')[1][:-1]} at the end", fontsize=9)
            axes.set(xlabel="optimiser step", ylabel=label, xlim=(0, None), yscale="log")
            _plain_log(axes)
        where = "left-out or validation frames" if held_out else "the batches trained on (nothing was held out)"
        figure.suptitle(f"errors on {where}", fontsize=10)
        if shown:
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
        return _write(figure, folder, "learning")


def _mean_curve(histories: Sequence[Sequence[Mapping[str, float]]], key: str, unit: float) -> Float[np.ndarray, "points 2"]:
    values: dict[float, list[float]] = {}
    for history in histories:
        for entry in history:
            if key in entry:
                values.setdefault(entry["step"], []).append(entry[key] / unit)
    everyone = [(step, float(np.mean(v))) for step, v in sorted(values.items()) if len(v) == len(histories)]
    return np.array(everyone).reshape(-1, 2)


def plot_errors(
    predictions: Sequence[CommitteePrediction], labelled: Sequence[LabelledFrame], folder: Path, title: str
) -> list[Path]:
    """Parity of energies, forces and stress of the members' mean, and the errors' distributions; writes parity and errors."""
    panels = _panels(predictions, labelled)
    written: list[Path] = []
    with _style():
        figure = _figure(3.2 * len(panels), 3.4)
        for axes, (name, unit, given, found) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            _parity(axes, name, unit, given, found)
        figure.suptitle(title, fontsize=10, parse_math=False)
        written += _write(figure, folder, "parity")
        figure = _figure(3.2 * len(panels), 2.8)
        for axes, (name, unit, given, found) in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            _histogram(axes, name, unit, found - given)
        figure.suptitle(title, fontsize=10, parse_math=False)
        return written + _write(figure, folder, "errors")


Unit = tuple[str, str, float]
"""Of the axes, of errors, and how many of the latter one of the former is."""

Panel = tuple[str, Unit, Float[np.ndarray, " n"], Float[np.ndarray, " n"]]


def _panels(predictions: Sequence[CommitteePrediction], labelled: Sequence[LabelledFrame]) -> list[Panel]:
    """Name, unit, reference and prediction of each quantity that there is."""
    pairs = [(p.mean(), item.labels, len(item.frame.atoms)) for p, item in zip(predictions, labelled, strict=True)]
    energy = np.array([(label.energy / n, mean.energy / n) for mean, label, n in pairs])
    panels: list[Panel] = [
        ("energy", ("eV/atom", "meV/atom", 1e3), *energy.T),
        (
            "force",
            ("eV/Å", "meV/Å", 1e3),
            np.concatenate([label.forces.ravel() for _, label, _ in pairs]),
            np.concatenate([mean.forces.ravel() for mean, _, _ in pairs]),
        ),
    ]
    stress = [(label.stress, mean.stress) for mean, label, _ in pairs if label.stress is not None and mean.stress is not None]
    if stress:
        given, found = np.array(stress).transpose(1, 0, 2).reshape(2, -1) / GPA
        panels.append(("stress", ("GPa", "GPa", 1.0), given, found))
    return panels


def _parity(axes: "Axes", name: str, unit: Unit, given: Float[np.ndarray, " n"], found: Float[np.ndarray, " n"]) -> None:
    shown, small, factor = unit
    error = (found - given) * factor
    dots = np.linspace(0, len(given) - 1, min(len(given), POINTS)).astype(int)
    label = f"MAE {np.abs(error).mean():.3g} {small}\nRMSE {np.sqrt((error**2).mean()):.3g} {small}"
    size, alpha = (6.0, 0.7) if len(dots) < 500 else (3.0, 0.35)
    axes.plot(given[dots], found[dots], ".", ms=size, color=BLUE, alpha=alpha, mec="none", rasterized=True, label=label)
    ends = np.array([min(given.min(), found.min()), max(given.max(), found.max())])
    ends += np.array([-0.04, 0.04]) * max(float(np.ptp(ends)), 1e-3)
    axes.plot(ends, ends, color="black", lw=0.8, ls="--", zorder=0)
    axes.set(xlim=ends, ylim=ends, aspect="equal", xlabel=f"reference {name} ({shown})", ylabel=f"predicted {name} ({shown})")
    axes.locator_params(nbins=5)
    axes.legend(loc="upper left", handlelength=0, handletextpad=0, markerscale=0, borderaxespad=0.2)


def _histogram(axes: "Axes", name: str, unit: Unit, error: Float[np.ndarray, " n"]) -> None:
    _, small, factor = unit
    error = error * factor
    reach = max(float(np.quantile(np.abs(error), 0.995)), 1e-9)
    bins = int(np.clip(np.sqrt(len(error)), 11, 81))
    axes.hist(np.clip(error, -reach, reach), bins=bins, range=(-reach, reach), color=BLUE, alpha=0.8)
    axes.axvline(0.0, color=GREY, lw=0.8)
    axes.axvline(float(error.mean()), color=ORANGE, lw=1.2, ls="--")
    axes.set(xlabel=f"error of {name} ({small})", ylabel="count", xlim=(-reach, reach))
    axes.set_title(f"mean {_rounded(error.mean(), error.std())}, std {error.std():.3g} {small}", fontsize=9)
    axes.locator_params(nbins=5)


def _rounded(mean: float, spread: float) -> str:
    """A mean with no more digits than a thousandth of the spread calls for."""
    digits = 0 if spread == 0.0 else max(0, 3 - math.floor(math.log10(spread)) - 1)
    return f"{mean:.{digits}f}"


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _style() -> "AbstractContextManager[None]":
    import matplotlib as mpl

    return mpl.rc_context(STYLE)


def _plain_log(axes: "Axes") -> None:
    """Plain numbers on a logarithmic axis, few enough not to touch."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def _write(figure: "Figure", folder: Path, name: str) -> list[Path]:
    paths = [folder / f"{name}.{kind}" for kind in FORMATS]
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        image = BytesIO()
        figure.savefig(image, format=path.suffix[1:], dpi=200)
        write_atomic(path, image.getvalue())
    return paths
