"""The command line: parse, call, print. Heavy imports happen inside the commands that need them."""

import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from al_leignn.cli import aimd, convergence, crystal, labels, look, potential, queue, validate
from al_leignn.cli.options import CampaignDir, Json, Workers, answer_at_once, default_workers, exit_code, print_json
from al_leignn.errors import AlLeignnError

app = typer.Typer(
    name="al-leignn",
    help="Molecular dynamics at ab initio quality: committees of LEIGNN potentials grown by active learning.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point: deliberate errors become a message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    warnings.showwarning = lambda message, *_: _say("warning:", "bold yellow", str(message))
    try:
        app()
    except AlLeignnError as error:
        _say("error:", "bold red", str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _say("stopped.", "", "What was finished is safe; the same command continues.")
        sys.exit(130)


def _say(word: str, style: str, message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)  # messages may hold [brackets]
    errors.print(Text.assemble((word, style), f" {message}"))


@app.command()
def init(
    structures: Annotated[list[Path], typer.Argument(help="CIF, POSCAR, extended XYZ, …; several phases may be given")],
    folder: Annotated[Path | None, typer.Option("--dir", help="folder to make [default: the structure's name]")] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="labelled frames to start from (extended XYZ)")] = None,
    labeller: Annotated[str, typer.Option(help="gpaw, ase, external or mailbox; other codes with --inputs")] = "gpaw",
    inputs: Annotated[str, typer.Option(help="DFT parameter set, e.g. cp2k_pbe, or a file of your own; says the labeller")] = "",
    calculator: Annotated[str, typer.Option(help='import path of an ASE calculator, e.g. "ase.calculators.emt:EMT"')] = "",
    command: Annotated[str, typer.Option(help='external command, e.g. "my-dft {input} {output}"')] = "",
    temperature: Annotated[list[float] | None, typer.Option(help="MD temperature, K; repeat for several")] = None,
    seed: Annotated[int, typer.Option(help="all random numbers derive from it", min=0)] = 0,
) -> None:
    """Make a campaign folder whose settings follow from the structure.

    Example: al-leignn init system.cif --temperature 300 --temperature 900
    """
    from al_leignn.campaign.create import start_campaign

    made = start_campaign(
        structures,
        folder,
        data=data or [],
        labeller=labeller,
        calculator=calculator,
        command=command,
        inputs=inputs,
        temperatures=temperature or [],
        seed=seed,
    )
    shown = made.relative_to(Path.cwd()) if made.is_relative_to(Path.cwd()) else made
    print(f"made {shown}\nnext: al-leignn check {shown}\n      al-leignn run {shown}")


@app.command()
def check(folder: CampaignDir = Path(), workers: Workers = None, json: Json = False) -> None:
    """Check config, structures, labeller and machine; say what is missing; estimate the cost.

    Example: al-leignn check Si
    """
    answer_at_once()
    from al_leignn.campaign.preflight import preflight

    found = preflight(folder, workers)
    if json:
        print_json(found.to_dict())
    else:
        print(found.render())
    if found.missing:
        raise typer.Exit(2)


@app.command()
def run(
    folder: CampaignDir = Path(),
    max_iterations: Annotated[int | None, typer.Option(help="stop after so many more iterations", min=1)] = None,
    workers: Workers = None,
) -> None:
    """Run a campaign on this machine until it decides to stop. Always resumes.

    Example: al-leignn run Si --workers 4
    """
    from rich.console import Console

    from al_leignn.campaign.layout import Layout
    from al_leignn.campaign.preflight import require_ready
    from al_leignn.cli.progress import Bars
    from al_leignn.flow.local import run as run_locally

    layout = Layout.open(folder)
    require_ready(layout)
    decision = run_locally(layout, workers=workers or default_workers(), max_iterations=max_iterations, watcher=Bars(Console()))
    look.print_decision(layout, decision)
    raise typer.Exit(exit_code(decision))


@app.command()
def schema() -> None:
    """Print the JSON Schema of campaign.toml.

    Example: al-leignn schema > campaign.schema.json
    """
    from al_leignn.config import CampaignConfig

    print_json(CampaignConfig.model_json_schema())


look.add_to(app)
potential.add_to(app)
validate.add_to(app)
aimd.add_to(app)
crystal.add_to(app)
queue.add_to(app)
labels.add_to(app)
convergence.add_to(app)
