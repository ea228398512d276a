"""Commands that look at a campaign and change nothing: status, history, explain, report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from al_leignn.cli.options import CampaignDir, Json, answer_at_once, print_json
from al_leignn.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from al_leignn.campaign.layout import Layout
    from al_leignn.core import Decision

Uid = Annotated[str, typer.Argument(help="identity of the frame, or its beginning", metavar="FRAME")]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (status, history, explain, report):
        app.command()(command)


def status(folder: CampaignDir = Path(), json: Json = False) -> None:
    """Say where a campaign stands: stage, counts, cost, last decision and why.

    Example: al-leignn status Si
    """
    answer_at_once()
    from al_leignn.campaign.campaign import Campaign
    from al_leignn.cli.views import status_view

    campaign = Campaign.open(folder)
    found = campaign.status()
    if json:
        print_json(found)
    else:
        _print(status_view(campaign, found))


def history(
    folder: CampaignDir = Path(),
    json: Json = False,
    csv: Annotated[Path | None, typer.Option(help="write the table to this CSV file")] = None,
    plot: Annotated[Path | None, typer.Option(help="write a figure to this PNG or SVG file")] = None,
) -> None:
    """Show the uncertainty history, iteration by iteration and walker by walker.

    Example: al-leignn history Si --plot history.png
    """
    answer_at_once()
    from al_leignn.campaign.campaign import Campaign
    from al_leignn.campaign.history import History
    from al_leignn.cli.views import history_view
    from al_leignn.store import write_atomic

    campaign = Campaign.open(folder)
    if csv is not None:
        with _writing(csv):
            write_atomic(csv, campaign.history().to_csv(index=False))
    if plot is not None:
        from al_leignn.report.plots import plot_history

        with _writing(plot):
            plot_history(campaign.layout, plot)
    rows = History(campaign.layout).walker_rows()
    if json:
        print_json([row._asdict() for row in rows])
    elif csv is None and plot is None:
        _print(history_view(rows))


def explain(frame: Uid, folder: CampaignDir = Path(), json: Json = False) -> None:
    """Tell the life of one frame: where from, every number and threshold, why it was labelled or not.

    Example: al-leignn explain 3fa9 Si
    """
    answer_at_once()
    from al_leignn.campaign.campaign import Campaign
    from al_leignn.cli.views import life_view

    found = Campaign.open(folder).explain(frame)
    if json:
        print_json(found)
    else:
        _print(life_view(found))


def report(
    folder: CampaignDir = Path(),
    out: Annotated[Path | None, typer.Option(help="file to write [default: report.html in the campaign folder]")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="write it again and again until the campaign is finished")] = False,
    every: Annotated[int, typer.Option(help="seconds between two versions, for --watch", min=1)] = 30,
) -> None:
    """Write one self-contained HTML page about a campaign.

    Example: al-leignn report Si --out si.html
    """
    from al_leignn.campaign.layout import Layout
    from al_leignn.report.html import watch_report, write_report

    layout = Layout.open(folder)
    page = out or layout.root / "report.html"
    with _writing(page):
        if watch:
            watch_report(layout, page, every, lambda: print(f"wrote {page}", flush=True))
        else:
            write_report(layout, page)
            print(f"wrote {page}")


def print_decision(layout: "Layout", decision: "Decision | None") -> None:
    """The last words of a run."""
    from al_leignn.cli.views import decision_view

    _print(decision_view(layout, decision))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", where=str(path)) from None


def _print(what: "RenderableType") -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(what)
