"""The command that compares MD of a committee with AIMD."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from al_leignn.cli.options import Json, print_json
from al_leignn.report.numbers import number, percent

if TYPE_CHECKING:
    from al_leignn.campaign.validation import Conditions
    from al_leignn.validate.agreement import Agreement
    from al_leignn.validate.equivalence import Comparison
    from al_leignn.validate.trajectory import Trajectory

WIDTH = 150
"""Columns of the table where the output is no terminal."""

COLOURS = {"equivalent": "green", "different": "red", "undecided": "yellow"}


def add_to(app: typer.Typer) -> None:
    app.command()(validate)


def validate(
    reference: Annotated[Path, typer.Option(help="AIMD trajectory (extended XYZ, XDATCAR, vasprun.xml, QE, CP2K, …)")],
    model: Annotated[
        Path | None, typer.Argument(help="checkpoint (.safetensors), or a campaign folder", metavar="[MODEL]", show_default=False)
    ] = None,
    calculator: Annotated[str, typer.Option(help='any ASE calculator in place of MODEL, e.g. "ase.calculators.emt:EMT"')] = "",
    trajectory: Annotated[Path | None, typer.Option(help="MD made earlier, instead of running it now")] = None,
    interval_fs: Annotated[float | None, typer.Option(help="time between frames, for files that do not say it")] = None,
    temperature: Annotated[float | None, typer.Option(help="of the reference, K [default: from the file]")] = None,
    skip_ps: Annotated[float, typer.Option(min=0, help="leave out at the start of the reference")] = 0.0,
    ps: Annotated[float | None, typer.Option(help="length of the MD [default: four times the reference]")] = None,
    ensemble: Annotated[str | None, typer.Option(help="nve, nvt or npt [default: nvt, or npt if the cell changes]")] = None,
    pressure: Annotated[float, typer.Option(help="GPa, for npt")] = 0.0,
    tolerance: Annotated[list[str] | None, typer.Option(help="kind=value, e.g. rdf=0.05; repeat for several")] = None,
    error_rate: Annotated[float, typer.Option(min=0.0001, max=0.5, help="chance of one or more wrong claims")] = 0.05,
    out: Annotated[Path, typer.Option(help="where the MD is written (extended XYZ)")] = Path("validate.extxyz"),
    plot: Annotated[Path | None, typer.Option(help="folder to draw figures into (PNG)")] = None,
    seed: Annotated[int, typer.Option(min=0, help="all random numbers derive from it")] = 0,
    json: Json = False,
) -> None:
    """Compare MD with AIMD, observable by observable: equivalent, different, or so much more data is needed.

    Exit code 0: all are equivalent; 1: one is not, or is undecided; 2: the input is no good.

    Example: al-leignn validate model.safetensors --reference aimd.extxyz --plot figures
    """
    import numpy as np

    from al_leignn.campaign.validation import Conditions
    from al_leignn.report.agreement import figure_folder, plot_agreement
    from al_leignn.validate.agreement import agree, tolerances_of
    from al_leignn.validate.equivalence import Outcome
    from al_leignn.validate.trajectory import read_trajectory

    tolerances = tolerances_of(tolerance or [])
    if plot is not None:
        figure_folder(plot)  # before hours of MD, not after
    aimd = read_trajectory(reference, interval_fs=interval_fs, temperature=temperature, skip_ps=skip_ps)
    made = None if trajectory is None else read_trajectory(trajectory, interval_fs=interval_fs)
    md = _md(aimd, made, calculator or model, out, Conditions(ps, ensemble, pressure), seed)
    found = agree(aimd, md, tolerances=tolerances, error_rate=error_rate, seed=np.random.SeedSequence(seed))
    if plot is not None:
        plot_agreement(found, plot)
    print_json(found.to_dict()) if json else _print(found)
    if found.outcome is not Outcome.EQUIVALENT:
        raise typer.Exit(1)


def _md(
    reference: "Trajectory",
    made: "Trajectory | None",
    model: Path | str | None,
    out: Path,
    conditions: "Conditions",
    seed: int,
) -> "Trajectory":
    """The MD to compare: as given, or run now; with the committee's forces, where there is one and the reference has them.

    `model` is a checkpoint, or the import path of a calculator.
    """
    from al_leignn.errors import InputError
    from al_leignn.validate.trajectory import check_comparable

    if made is not None:
        check_comparable(reference, made)
    if model is None or (isinstance(model, str) and made is not None):
        if made is None:
            raise InputError(
                "nothing to compare with the reference",
                fix="give MODEL, an ASE calculator with --calculator, or MD made earlier with --trajectory",
            )
        return made
    from al_leignn.campaign.item import model_file
    from al_leignn.campaign.validation import calculator_at, md_by_calculator, md_like, with_predictions
    from al_leignn.cli.progress import bar
    from al_leignn.model.committee import Committee

    with bar() as progress:
        task = progress.add_task("validate: MD steps", total=None)

        def told(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        if isinstance(model, str):
            return md_by_calculator(reference, calculator_at(model), out, conditions, seed=seed, progress=told)
        committee, drove = Committee.load(model_file(model)), made is None
        if made is None:
            made = md_like(reference, committee, out, conditions, seed=seed, progress=told)
    asked = reference.forces is not None or reference.stresses is not None
    return with_predictions(made, committee, drove=drove) if asked else made


def _print(found: "Agreement") -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDTH)
    both = f"{found.reference.length_ps:.3g} ps of AIMD and {found.md.length_ps:.3g} ps of MD, {found.reference.formula}"
    table = Table(title=both, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("observable", no_wrap=True)
    for name in ("AIMD", "MD", "difference", "noise", "tolerance"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict")
    for comparison in found.comparisons:
        colour = COLOURS[comparison.outcome.value]
        table.add_row(comparison.name, *_numbers(comparison), f"[{colour}]{comparison.verdict}[/{colour}]")
    console.print(table)
    for name, reason in found.skipped.items():
        console.print(f"not compared: {name} ({reason})", markup=False)
    if late := found.reference.relaxation_ps:
        what = f"the energy of {found.reference.name} was not in equilibrium at the start"
        console.print(f"warning: {what}\n  to do: leave it out with --skip-ps {late:.2g}", markup=False, soft_wrap=True)
    if found.doubt:
        fix = "state the temperature with --temperature; leave out a start with --skip-ps; use forces of the code that ran the MD"
        console.print(f"warning: in {found.reference.name} {found.doubt}\n  to do: {fix}", markup=False, soft_wrap=True)
    colour = COLOURS[found.outcome.value]
    rate = percent(found.error_rate)
    console.print(f"\n[bold {colour}]{found.outcome.value}[/bold {colour}] (chance of one or more wrong claims: {rate} at most)")


def _numbers(c: "Comparison") -> list[str]:
    """AIMD, MD, difference, noise and tolerance: of functions where they peak and shares in percent, else in their unit."""
    curves = (c.reference, c.md)
    if c.axis:
        unit = c.axis.split("(")[1].rstrip(")")
        shown = [f"peak at {c.grid[curve.mean.argmax()]:.3g} {unit}" for curve in curves]
        if c.kind == "msd":
            shown = [f"at last {curve.mean[-1]:.3g} {c.unit}" for curve in curves]
        elif c.kind == "forces":
            shown = [f"mean {curve.mean.sum() * (c.grid[1] - c.grid[0]):.3g} {unit}" for curve in curves]
        return shown + [percent(value) for value in (c.difference, _known(c.noise), c.tolerance)]
    shown = [f"{curve.mean[0]:.4g}" + (f" ± {curve.error[0]:.1g}" if isfinite(curve.error[0]) else "") for curve in curves]
    scale = abs(float(c.reference.mean[0])) if c.measure.value == "relative" else 1.0
    sizes = [number(value * scale, 2) for value in (c.difference, c.noise)]
    return [*shown, *sizes, f"{c.tolerance * scale:.2g} {c.unit}".rstrip()]


def _known(value: float) -> float | None:
    return value if isfinite(value) else None
