"""The figure of a convergence study: error of the forces and cost, against cutoff and k-points."""

from collections.abc import Sequence
from pathlib import Path

from al_leignn.campaign.convergence import Series
from al_leignn.report.plots import BLUE, GREY, ORANGE, STYLE, save_figure
from al_leignn.units import MEV


def plot_convergence(series: Sequence[Series], path: Path) -> None:
    """Draw one panel for each series into a PNG, SVG or PDF file.

    Raises
    ------
    InputError
        If the file name does not end in one of these.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(3.6 * len(series), 2.9), layout="constrained")
        for axes, one in zip(figure.subplots(1, len(series), squeeze=False)[0], series, strict=True):
            points = one.points[:-1]
            values = [point.value for point in points]
            axes.semilogy(
                values, [point.force_max / MEV for point in points], "o-", color=BLUE, ms=4, label="largest force error"
            )
            axes.semilogy(values, [point.energy / MEV for point in points], "s--", color=GREY, ms=3, label="energy per atom")
            axes.axhline(one.force_error / MEV, color=ORANGE, lw=1, label="wanted")
            found = one.recommended
            if found is not None:
                axes.plot([found.value], [found.force_max / MEV], "o", ms=10, mfc="none", mec=ORANGE)
                axes.annotate(found.setting, (found.value, found.force_max / MEV), (8, 2), textcoords="offset points")
            name = "number of k-points" if not one.unit else f"{one.name} ({one.unit})"
            axes.set(xlabel=name, ylabel="meV/Å, meV/atom", title=f"against {one.points[-1].setting}")
            if one.name == "spacing":
                axes.invert_xaxis()
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
        save_figure(figure, path, dpi=150)
