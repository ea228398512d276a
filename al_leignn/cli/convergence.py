"""Command converge: which cutoff and k-points the user's structure needs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from al_leignn.cli.options import CampaignDir, Json, print_json

if TYPE_CHECKING:
    from al_leignn.campaign.convergence import Series


def add_to(app: typer.Typer) -> None:
    app.command()(converge)


def converge(
    folder: CampaignDir = Path(),
    force_error: Annotated[
        float, typer.Option(help="largest error of a force component that is accepted, eV/Å", min=1e-5)
    ] = 0.01,
    cutoff: Annotated[list[float] | None, typer.Option(help="eV (or grid spacing, Å); repeat for several [default: six]")] = None,
    kpt_spacing: Annotated[list[float] | None, typer.Option(help="1/Å; repeat for several [default: up to five grids]")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a figure to this PNG, SVG or PDF file")] = None,
    json: Json = False,
) -> None:
    """Find the cutoff and k-points that the campaign's first structure needs; labels are kept, nothing is changed.

    Example: al-leignn converge Si --force-error 0.005 --plot convergence.png
    """
    from rich.console import Console

    from al_leignn.campaign.convergence import study
    from al_leignn.campaign.layout import Layout

    if plot is not None:
        from al_leignn.report.plots import figure_format

        figure_format(plot)  # before anything is computed
    told = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    series = study(Layout.open(folder), force_error, cutoff or [], kpt_spacing or [], told.print)
    if plot is not None:
        from al_leignn.report.convergence import plot_convergence

        plot_convergence(series, plot)
    if json:
        print_json([one.to_dict() for one in series])
    else:
        _print(series, force_error)


def _print(series: "Sequence[Series]", force_error: float) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False, soft_wrap=True)
    for one in series:
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"against {one.points[-1].setting}", title_justify="left")
        for name in ("setting", "force max", "force rms", "meV/atom", "stress", "core-s"):
            table.add_column(name, no_wrap=True, justify="left" if name == "setting" else "right")
        for point in one.points[:-1]:
            stress = "-" if point.stress is None else f"{point.stress:.3f}"
            errors = (f"{1e3 * point.force_max:.2f}", f"{1e3 * point.force_rms:.2f}", f"{1e3 * point.energy:.2f}", stress)
            table.add_row(point.setting, *errors, f"{point.core_s:.1f}")
        console.print(table)
    console.print("errors: meV/Å, meV/atom, GPa")
    console.print(f"for forces within {1e3 * force_error:g} meV/Å, in [labeller] of campaign.toml:")
    for one in series:
        found = one.recommended
        worse = f"# {one.name}: nothing coarser than {one.points[-1].setting} is good enough; try finer settings"
        console.print(found.setting if found is not None else worse)
