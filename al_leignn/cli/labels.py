"""Commands for the label store: labels list|verify|release|retry|atoms|export|import."""

from pathlib import Path
from typing import Annotated

import typer

from al_leignn.cli.options import CampaignDir, Json, print_json

labels = typer.Typer(help="The label store: what has been paid for, and what is believed of it.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(labels, name="labels")


@labels.command("list")
def show(
    folder: CampaignDir = Path(),
    quarantined: Annotated[
        bool, typer.Option("--quarantined", help="only labels in quarantine, with what speaks against them")
    ] = False,
    json: Json = False,
) -> None:
    """List labels with their cost and verdict, or only those that wait for a person to release them.

    Example: al-leignn labels list Si --quarantined
    """
    from al_leignn.campaign.labels import rows, store_of, summary
    from al_leignn.campaign.layout import Layout
    from al_leignn.report.numbers import seconds

    store = store_of(Layout.open(folder))
    found = rows(store, quarantined=quarantined)
    told = summary(found, store)
    if json:
        print_json(told | {"rows": [row._asdict() for row in found]})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("frame", "formula", "level", "eV/atom", "max eV/Å", "cost", "rung", "verdict"):
        table.add_column(name, no_wrap=True)
    for row in found:
        numbers = (f"{row.energy:.4f}", f"{row.max_force:.3f}", seconds(row.core_s), str(row.rung))
        table.add_row(row.uid, row.formula, row.level[:12], *numbers, row.verdict)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    for row in found:
        if row.reason:
            console.print(f"{row.uid} {row.verdict}: {row.reason}, {row.detail}")
    for level in told["levels"]:
        console.print(f"level {level['level'][:12]}: {level.get('level of theory', '?')}; {level.get('code', '?')}")
    console.print(f"{told['labels']} labels, {told['quarantined']} in quarantine, {seconds(told['core_s'])} of one core")


@labels.command()
def verify(folder: CampaignDir = Path(), json: Json = False) -> None:
    """Read every label and compare it with its checksum; exit code 1 if one is damaged.

    Example: al-leignn labels verify Si
    """
    from al_leignn.campaign.labels import store_of
    from al_leignn.campaign.layout import Layout

    store = store_of(Layout.open(folder))
    problems = store.verify()
    if json:
        print_json({"labels": len(store), "damaged": [{"what": p.what, "where": p.where} for p in problems]})
    else:
        for problem in problems:
            print(problem)
        print(f"{len(store) - len(problems)} of {len(store)} labels are whole")
    if problems:
        raise typer.Exit(1)


@labels.command()
def release(
    frame: Annotated[str, typer.Argument(help="identity of the frame, or its beginning", metavar="FRAME")],
    folder: CampaignDir = Path(),
) -> None:
    """Take a label out of quarantine: it joins the training set with the next collection.

    Example: al-leignn labels release 3fa9 Si
    """
    from al_leignn.campaign.labels import store_of
    from al_leignn.campaign.layout import Layout

    for entry in store_of(Layout.open(folder)).release(frame):
        assert entry.doubt is not None
        print(f"released {entry.labelled.frame.uid} ({entry.doubt.reason}: {entry.doubt.detail})")


@labels.command()
def retry(folder: CampaignDir = Path()) -> None:
    """Ask again for the rejected labels of the current iteration, after the labeller has been mended.

    Example: al-leignn labels retry Si
    """
    from al_leignn.campaign.labels import retry as ask_again
    from al_leignn.campaign.layout import Layout

    print(f"{ask_again(Layout.open(folder))} label(s) will be asked for again with the next run")


@labels.command()
def atoms(
    folder: CampaignDir = Path(),
    out: Annotated[Path, typer.Option(help="extended XYZ file to write")] = Path("atoms.extxyz"),
    json: Json = False,
) -> None:
    """Label isolated atoms of the campaign's elements, once, for `al-leignn train --isolated-atoms`.

    Example: al-leignn labels atoms Si --out atoms.extxyz
    """
    from al_leignn.campaign.isolated import label_atoms
    from al_leignn.campaign.layout import Layout

    energies = label_atoms(Layout.open(folder), out)
    if json:
        print_json(energies)
    else:
        for symbol, energy in energies.items():
            print(f"{symbol:<2} {energy:.4f} eV")
        print(f"wrote {out}")


@labels.command()
def export(
    folder: CampaignDir = Path(),
    out: Annotated[Path, typer.Option(help="extended XYZ file to write")] = Path("labels.extxyz"),
    level: Annotated[str, typer.Option(help="beginning of the level's digest [default: the campaign's own]")] = "",
) -> None:
    """Write the accepted labels of one level of theory to a file.

    Example: al-leignn labels export Si --out si.extxyz
    """
    from al_leignn.campaign.labels import export as write
    from al_leignn.campaign.layout import Layout
    from al_leignn.errors import InputError

    try:
        count = write(Layout.open(folder), out, level)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=str(out)) from None
    print(f"wrote {count} labels to {out}")


@labels.command("import")
def take_in(
    sources: Annotated[
        list[Path], typer.Argument(help="label stores, campaigns, or files of labelled frames", metavar="SOURCE…")
    ],
    folder: Annotated[Path, typer.Option("--dir", help="campaign folder [default: here]", show_default=False)] = Path(),
    same_level: Annotated[
        bool, typer.Option("--same-level", help="the files are of this campaign's code, version and settings")
    ] = False,
) -> None:
    """Take labels from elsewhere into the store: what is there is never paid for again.

    Example: al-leignn labels import ../other-campaign --dir Si
    """
    from al_leignn.campaign.labels import take_in as take
    from al_leignn.campaign.layout import Layout

    for source, count in take(Layout.open(folder), sources, same_level=same_level).items():
        print(f"{count} new label(s) from {source}")
