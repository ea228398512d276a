"""Commands for potentials on their own: train, evaluate, md."""

from pathlib import Path
from typing import Annotated, Any

import typer

from al_leignn.cli.options import Json, Workers, default_workers, print_json

EnergyKey = Annotated[str, typer.Option(help="key of the energy (eV, whole cell)")]
ForcesKey = Annotated[str, typer.Option(help="key of the forces (eV/Å)")]
StressKey = Annotated[str, typer.Option(help="key of the stress (eV/Å^3, positive under tension)")]
ModelFile = Annotated[Path, typer.Argument(help="checkpoint (.safetensors), or a campaign folder", metavar="MODEL")]

READABLE = "labelled frames: extended XYZ (.xz, .gz too), ASE .db, OUTCAR, vasprun.xml, pw.x or CP2K output, DeePMD folder"


def add_to(app: typer.Typer) -> None:
    for command in (train, evaluate, md):
        app.command()(command)


def train(
    data: Annotated[list[Path], typer.Argument(help=READABLE)],
    out: Annotated[Path, typer.Option(help="checkpoint to write")],
    config: Annotated[Path | None, typer.Option(help="TOML with sections model and train, e.g. a campaign.toml")] = None,
    valid: Annotated[Path | None, typer.Option(help="frames for choosing the best weights [default: some of DATA]")] = None,
    test: Annotated[Path | None, typer.Option(help="frames to judge the result on; none may be in DATA")] = None,
    isolated_atoms: Annotated[Path | None, typer.Option(help="one frame per element, with its energy [default: fitted]")] = None,
    members: Annotated[int | None, typer.Option(min=2, help="committee members")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="optimiser steps")] = None,
    seed: Annotated[int, typer.Option(min=0, help="all random numbers derive from it")] = 0,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N")] = None,
    workers: Workers = None,
    log: Annotated[Path | None, typer.Option(help="JSON lines to write: each evaluation of each member")] = None,
    plot: Annotated[Path | None, typer.Option(help="folder for learning curves and parity plots (PNG and PDF)")] = None,
    check: Annotated[bool, typer.Option(help="refuse labels that contradict one another")] = True,
    energy_key: EnergyKey = "REF_energy",
    forces_key: ForcesKey = "REF_forces",
    stress_key: StressKey = "REF_stress",
    json: Json = False,
) -> None:
    """Fit a committee to labelled frames. Interrupted or killed, the same command goes on.

    Example: al-leignn train train.extxyz --test test.extxyz --out model.safetensors --log fit.jsonl --plot figures
    """
    from al_leignn.cli.fitting import FitBar
    from al_leignn.train.standalone import fit_files, read_fit_data, read_settings
    from al_leignn.userdata import DataKeys
    from al_leignn.validate.evaluate import evaluate as judge

    overrides = {key: value for key, value in (("members", members), ("steps", steps), ("device", device)) if value is not None}
    network, fitting = read_settings(config, overrides)
    keys = DataKeys(energy_key, forces_key, stress_key)
    with FitBar("read and check", 1) as bar:
        given = read_fit_data(data, valid=valid, test=test, isolated_atoms=isolated_atoms, keys=keys, check=check)
        bar.note(f"{len(given.train)} frames to train on")
    with FitBar("train", fitting.members) as bar:
        committee, reports, found = fit_files(
            given, out, model=network, train=fitting, seed=seed, workers=workers or default_workers(), log=log, told=bar.told
        )
    judged = given.test or given.valid or given.train
    if plot is not None or given.test:
        predictions = committee.predict([item.frame.atoms for item in judged])
        found["test"] = judge(predictions, judged).to_dict() if given.test else None
    if plot is not None:
        from al_leignn.report.fit_plots import plot_errors, plot_learning

        kind = "test" if given.test else "validation" if given.valid else "training"
        plot_learning([report.history for report in reports], plot)
        plot_errors(predictions, judged, plot, f"{out.name}: mean of {len(committee)} members on {len(judged)} {kind} frames")
    print_json(found) if json else _print_fit(found)


def evaluate(
    model: ModelFile,
    data: Annotated[Path, typer.Argument(help=READABLE)],
    out: Annotated[Path | None, typer.Option(help="write the result (JSON) here too")] = None,
    plot: Annotated[Path | None, typer.Option(help="folder for parity plots and error histograms (PNG and PDF)")] = None,
    energy_key: EnergyKey = "REF_energy",
    forces_key: ForcesKey = "REF_forces",
    stress_key: StressKey = "REF_stress",
    json: Json = False,
) -> None:
    """Errors of a potential on labelled frames, per element, with the calibration of its deviation.

    Example: al-leignn evaluate model.safetensors test.extxyz.xz --plot figures
    """
    from json import dumps

    from al_leignn.campaign.item import model_file
    from al_leignn.model.committee import Committee
    from al_leignn.store import write_atomic
    from al_leignn.train.screening import finite
    from al_leignn.userdata import DataKeys, read_user_data
    from al_leignn.validate.evaluate import evaluate as judge

    committee = Committee.load(model_file(model))
    labelled = finite(read_user_data(data, "as given", DataKeys(energy_key, forces_key, stress_key)))
    predictions = committee.predict([item.frame.atoms for item in labelled])
    found = judge(predictions, labelled).to_dict()
    if out is not None:
        write_atomic(out, dumps(found, indent=1))
    if plot is not None:
        from al_leignn.report.fit_plots import plot_errors

        plot_errors(predictions, labelled, plot, f"{model.name}: mean of {len(committee)} members on {data.name}")
    print_json(found) if json else _print_evaluation(found)


def md(
    model: ModelFile,
    structure: Annotated[Path, typer.Argument(help="CIF, POSCAR, extended XYZ, …")],
    temperature: Annotated[float, typer.Option(help="K")],
    steps: Annotated[int, typer.Option(min=1, help="MD steps")],
    ensemble: Annotated[str, typer.Option(help="nve, nvt or npt")] = "nvt",
    thermostat: Annotated[str, typer.Option(help="langevin or csvr (stochastic velocity rescaling)")] = "langevin",
    cell: Annotated[str, typer.Option(help="what npt may change: isotropic, anisotropic or full")] = "isotropic",
    pressure: Annotated[float, typer.Option(help="GPa, for npt")] = 0.0,
    timestep_fs: Annotated[float | None, typer.Option(help="fs [default: from the lightest element]")] = None,
    stride: Annotated[int, typer.Option(min=1, help="steps between written frames")] = 10,
    driver: Annotated[str, typer.Option(help="mean: all members push; member: the first one, the others look on")] = "mean",
    seed: Annotated[int, typer.Option(min=0, help="all random numbers derive from it")] = 0,
    out: Annotated[Path, typer.Option(help="trajectory to write (extended XYZ; compressed if it ends in .xz or .gz)")] = Path(
        "md.extxyz"
    ),
    resume: Annotated[bool, typer.Option("--resume", help="go on where OUT ends: after an interrupt, or for more steps")] = False,
    json: Json = False,
) -> None:
    """Run MD; every written frame carries the committee's deviation on each atom.

    Example: al-leignn md model.safetensors system.cif --temperature 300 --steps 10000
    """
    from al_leignn.campaign.derive import timestep
    from al_leignn.campaign.item import model_file
    from al_leignn.campaign.structures import read_structures
    from al_leignn.cli.progress import bar
    from al_leignn.config import checked_explore
    from al_leignn.explore.production import write_trajectory
    from al_leignn.model.committee import Committee
    from al_leignn.store import digest_file

    checkpoint = model_file(model)
    atoms = read_structures(structure)[0]
    settings = checked_explore(
        ensemble=ensemble,
        thermostat=thermostat,
        cell=cell,
        temperatures=[temperature],
        pressure=pressure,
        steps=steps,
        stride=stride,
        driver=driver,
        timestep_fs=timestep_fs or timestep([atoms]),
    )
    with bar() as progress:
        task = progress.add_task("md: steps", total=steps)
        found = write_trajectory(
            Committee.load(checkpoint),
            atoms,
            settings,
            out,
            seed=seed,
            progress=lambda done, _: progress.update(task, completed=done),
            resume=resume,
            model=digest_file(checkpoint),
        )
    print_json(found) if json else print_values(found)


def _print_fit(fit: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from al_leignn.units import GPA, MEV

    table = Table(title=f"{fit['model']}: {len(fit['members'])} members on {fit['frames']} frames")
    for name in ("member", "best step", "energy, meV/atom", "force, meV/Å", "stress, GPa"):
        table.add_column(name, justify="right")
    for n, member in enumerate(fit["members"]):
        errors = (_scaled(member["energy_mae"], MEV), _scaled(member["force_mae"], MEV), _scaled(member["stress_mae"], GPA))
        table.add_row(str(n), str(member["best_step"]), *errors)
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print("mean absolute errors on the blocks that each member left out, or on the validation frames")
    for reason, names in fit["set_aside_names"].items():
        console.print(f"set aside: {len(names)} frame(s), {reason}: {', '.join(names[:3])}{', …' if len(names) > 3 else ''}")
    if fit.get("test"):
        _print_evaluation(fit["test"])


def _print_evaluation(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from al_leignn.units import GPA, MEV

    table = Table(title=f"{found['committee']['n_frames']} frames, {found['committee']['n_atoms']} atoms")
    for name in ("", "energy MAE, meV/atom", "RMSE", "force MAE, meV/Å", "RMSE", "stress MAE, GPa"):
        table.add_column(name, justify="right")
    rows = [("committee", found["committee"]), *((f"member {n}", m) for n, m in enumerate(found["members"]))]
    for name, row in rows:
        values = [_scaled(row[key], MEV) for key in ("energy_mae", "energy_rmse", "force_mae", "force_rmse")]
        table.add_row(name, *values, _scaled(row["stress_mae"], GPA))
    console = Console(highlight=False, markup=False)
    console.print(table)
    by_element = found["committee"]["force_mae_by_element"]
    console.print("force MAE by element, meV/Å: " + ", ".join(f"{s} {_scaled(v, MEV)}" for s, v in by_element.items()))
    if found["calibration"] is not None:
        c = found["calibration"]
        text = "none" if c["factor"] is None else f"{c['factor']:.2f}"
        console.print(f"a frame's largest force error stays below {text} x its deviation for {c['nominal']:.0%} of such frames")


def print_values(found: dict[str, Any]) -> None:
    for name, value in found.items():
        text = f"{value:.5g}" if isinstance(value, float) else str(value)
        print(f"{name.replace('_', ' '):<18} {text}")


def _scaled(value: float | None, unit: float) -> str:
    return "-" if value is None else f"{value / unit:.3g}"
