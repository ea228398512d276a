"""Command crystal: equation of state, elastic constants and phonons of a potential, beside those of DFT."""

from pathlib import Path
from typing import Annotated

import typer

from al_leignn.cli.options import Json, print_json
from al_leignn.cli.potential import ModelFile


def add_to(app: typer.Typer) -> None:
    app.command()(crystal)


def crystal(
    model: ModelFile,
    structure: Annotated[Path, typer.Argument(help="a crystal (CIF, POSCAR, extended XYZ, …)")],
    dft: Annotated[
        Path | None, typer.Option(help="campaign whose labeller does the same (some 60 labels, kept in its store)")
    ] = None,
    supercell: Annotated[tuple[int, int, int], typer.Option(help="repetition for phonons", min=1)] = (1, 1, 1),
    json: Json = False,
) -> None:
    """Equation of state, elastic constants and phonons of a crystal at rest.

    Example: al-leignn crystal Si Si/structures/Si.extxyz --supercell 2 2 2
    """
    from al_leignn.campaign.crystal import LabellerCalculator, crystal_of, phonon_difference, table_of
    from al_leignn.campaign.item import model_file
    from al_leignn.campaign.layout import Layout
    from al_leignn.model.committee import Committee
    from al_leignn.validate.crystal import crystal_properties

    committee = Committee.load(model_file(model)).calculator()
    atoms = crystal_of(structure)
    layout = None if dft is None else Layout.open(dft)
    found = crystal_properties(atoms, committee, supercell=supercell)
    if layout is None:
        print_json(found.to_dict()) if json else _print(table_of(found, found), None)
        return
    labeller = LabellerCalculator(layout)
    reference = crystal_properties(atoms, labeller, supercell=supercell)
    if json:
        rms = phonon_difference(found, reference)
        print_json(
            {"model": found.to_dict(), "dft": reference.to_dict(), "phonon_rms_thz": rms, "labels_computed": labeller.computed}
        )
        return
    _print(table_of(found, reference), table_of(reference, reference))
    rms = phonon_difference(found, reference)
    if rms is not None:
        print(f"phonon frequencies differ by {rms:.3g} THz (rms)")
    print(f"{labeller.computed} labels computed")


def _print(model: dict[str, float], dft: dict[str, float] | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "model", *(() if dft is None else ("DFT", "difference"))):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, value in model.items():
        if dft is None:
            table.add_row(name, f"{value:.4g}")
        else:
            share = f"{value / dft[name] - 1:+.1%}" if abs(dft[name]) > 1e-3 else ""
            table.add_row(name, f"{value:.4g}", f"{dft[name]:.4g}", share)
    Console(highlight=False).print(table)
