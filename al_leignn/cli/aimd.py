"""Command aimd: reference MD with the campaign's labeller."""

from pathlib import Path
from typing import Annotated

import typer

from al_leignn.cli.options import CampaignDir, Json, print_json
from al_leignn.cli.potential import print_values


def add_to(app: typer.Typer) -> None:
    app.command()(aimd)


def aimd(
    temperature: Annotated[float, typer.Option(help="K")],
    ps: Annotated[float, typer.Option(help="length of the trajectory; a longer one goes on from a shorter one")],
    folder: CampaignDir = Path(),
    structure: Annotated[Path | None, typer.Option(help="where to start [default: the campaign's first structure]")] = None,
    settle_ps: Annotated[float, typer.Option(help="time before the trajectory begins, under strong friction")] = 0.2,
    ensemble: Annotated[str, typer.Option(help="nvt or nve")] = "nvt",
    thermostat: Annotated[str, typer.Option(help="langevin or csvr (stochastic velocity rescaling)")] = "langevin",
    friction_per_ps: Annotated[
        float | None, typer.Option(help="of the thermostat, which MD held against it will share [default: the campaign's]")
    ] = None,
    timestep_fs: Annotated[float | None, typer.Option(help="fs [default: the campaign's]")] = None,
    stride: Annotated[int, typer.Option(min=1, help="steps between written frames")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="all random numbers derive from it")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="trajectory (extended XYZ) [default: aimd-<temperature>K.extxyz in the campaign]")
    ] = None,
    json: Json = False,
) -> None:
    """Run ab initio MD with the campaign's labeller, for `validate` and [converge] references. Always resumes.

    Example: al-leignn aimd Si --temperature 300 --ps 5
    """
    from al_leignn.campaign.aimd import AimdOptions, run_aimd
    from al_leignn.campaign.layout import Layout
    from al_leignn.cli.progress import bar

    layout = Layout.open(folder)
    options = AimdOptions(temperature, ps, settle_ps, ensemble, thermostat, friction_per_ps, timestep_fs, stride, seed)
    with bar() as progress:
        task = progress.add_task("aimd: steps", total=None)
        found = run_aimd(
            layout,
            structure,
            out or layout.root / f"aimd-{temperature:g}K.extxyz",
            options,
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    print_json(found) if json else print_values({k: v for k, v in found.items() if k != "settings"})
