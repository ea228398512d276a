"""Commands for the queue: launch, worker, queue up|down|status."""

from pathlib import Path
from typing import Annotated

import typer

from al_leignn.cli import look
from al_leignn.cli.options import CampaignDir, Json, default_workers, exit_code, print_json

LaunchpadFile = Annotated[
    Path | None,
    typer.Option("--launchpad", help="my_launchpad.yaml of your MongoDB [default: the campaign's own embedded server]"),
]

queue = typer.Typer(help="The campaign's own embedded queue server.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.command()(launch)
    app.command()(worker)
    app.add_typer(queue, name="queue")


def launch(
    folder: CampaignDir = Path(),
    launchpad: LaunchpadFile = None,
    max_iterations: Annotated[int | None, typer.Option(help="stop after so many more iterations", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="worker processes here; 0: all elsewhere [default: one per core]", min=0)
    ] = None,
) -> None:
    """Run a campaign as FireWorks workflows. Always resumes; workers elsewhere may join.

    Example: al-leignn launch Si --launchpad my_launchpad.yaml --workers 0
    """
    from rich.console import Console

    from al_leignn.campaign.layout import Layout
    from al_leignn.campaign.preflight import require_ready
    from al_leignn.cli.progress import Bars
    from al_leignn.flow.extra import require_queue

    layout = Layout.open(folder)
    require_ready(layout)
    require_queue()
    from al_leignn.flow.fireworks import launch as run_queue

    decision = run_queue(
        layout,
        launchpad_file=launchpad,
        workers=default_workers() if workers is None else workers,
        max_iterations=max_iterations,
        watcher=Bars(Console()),
    )
    look.print_decision(layout, decision)
    raise typer.Exit(exit_code(decision))


def worker(
    folder: CampaignDir = Path(),
    launchpad: LaunchpadFile = None,
    category: Annotated[str | None, typer.Option(help="take only explore, label, train or glue items")] = None,
    until_idle: Annotated[float | None, typer.Option(help="end after so many seconds without work")] = None,
) -> None:
    """Take work from a launched campaign's queue, from any terminal that sees its folder.

    Example: al-leignn worker Si --category label
    """
    from al_leignn.campaign.layout import Layout
    from al_leignn.flow.extra import require_queue

    layout = Layout.open(folder)
    require_queue()
    from al_leignn.flow.embedded import LAUNCHPAD
    from al_leignn.flow.worker import worker as work

    work(launchpad or layout.queue / LAUNCHPAD, category=category, until_idle_s=until_idle, campaign=layout.root)


@queue.command()
def up(folder: CampaignDir = Path()) -> None:
    """Start the campaign's embedded server and leave it running.

    Example: al-leignn queue up Si
    """
    from al_leignn.campaign.layout import Layout
    from al_leignn.flow.extra import require_queue

    layout = Layout.open(folder)
    require_queue()
    from al_leignn.flow.embedded import up as start

    address = start(layout.queue)
    print(f"listening on 127.0.0.1:{address.port}\nfor FireWorks' own commands: lpad -l {address.file} get_wflows")


@queue.command()
def down(folder: CampaignDir = Path()) -> None:
    """Stop the campaign's embedded server; its data stay.

    Example: al-leignn queue down Si
    """
    from al_leignn.campaign.layout import Layout
    from al_leignn.flow.extra import require_queue

    layout = Layout.open(folder)
    require_queue()
    from al_leignn.flow.embedded import down as stop

    print("stopped" if stop(layout.queue) else "was not running")


@queue.command(name="status")
def queue_counts(folder: CampaignDir = Path(), launchpad: LaunchpadFile = None, json: Json = False) -> None:
    """Count the items in the queue by state.

    Example: al-leignn queue status Si
    """
    from al_leignn.campaign.layout import Layout
    from al_leignn.flow.extra import require_queue

    layout = Layout.open(folder)
    require_queue()
    from al_leignn.flow.embedded import LAUNCHPAD
    from al_leignn.flow.launchpad import queue_status

    counts = queue_status(launchpad or layout.queue / LAUNCHPAD)
    print_json(counts) if json else print("\n".join(f"{state:<12} {n}" for state, n in counts.items()) or "empty")
