import csv
import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History, WalkerRow
from al_leignn.campaign.layout import Layout
from al_leignn.cli.app import app
from al_leignn.cli.summary import iteration_summary
from al_leignn.core import Stage

COMMANDS = ("status", "history", "explain", "report")


def call(*words: str | Path) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def main(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = "from al_leignn.cli.app import main; main()"
    return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    assert f"Example: al-leignn {command}" in call(command, "--help")


def test_status_says_where_it_stands(emt_campaign: Path) -> None:
    text = call("status", emt_campaign)
    found = Campaign.open(emt_campaign).status()
    for part in ("Cu3Al", "train 2/2", "budget spent", "2 of 2 iterations", f"{found['labels']['asked']} asked"):
        assert part in " ".join(text.split())


def test_status_json_is_one_document(emt_campaign: Path) -> None:
    assert json.loads(call("status", emt_campaign, "--json")) == Campaign.open(emt_campaign).status()


def test_history_table_has_every_walker(emt_campaign: Path) -> None:
    lines = call("history", emt_campaign).splitlines()
    assert max(len(line) for line in lines) <= 80
    rows = [line.split() for line in lines]
    for row in History(Layout.open(emt_campaign)).walker_rows():
        assert any(words[:3] == [str(row.iteration), str(row.walker), f"{row.temperature:g}"] for words in rows)


def test_history_json_and_csv_hold_the_stored_numbers(emt_campaign: Path, tmp_path: Path) -> None:
    rows = [row._asdict() for row in History(Layout.open(emt_campaign)).walker_rows()]
    assert json.loads(call("history", emt_campaign, "--json")) == rows
    call("history", emt_campaign, "--csv", tmp_path / "new" / "history.csv")
    with (tmp_path / "new" / "history.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(WalkerRow._fields)
    assert [float(line["q90"]) for line in table] == [row["q90"] for row in rows]


def test_history_plot(emt_campaign: Path, tmp_path: Path) -> None:
    call("history", emt_campaign, "--plot", tmp_path / "history.svg")
    assert (tmp_path / "history.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_history_before_any_md(emt_campaign: Path, tmp_path: Path) -> None:
    shutil.copy(emt_campaign / "campaign.toml", tmp_path)
    assert "no MD yet" in call("history", tmp_path)
    assert json.loads(call("history", tmp_path, "--json")) == []
    assert "not started" in call("status", tmp_path)


def test_explain_a_taken_and_a_refused_frame(emt_campaign: Path) -> None:
    pool = History(Layout.open(emt_campaign)).pool(1)
    assert pool is not None
    taken = str(pool["uid"][list(pool["fate"]).index("fresh")])
    refused = str(pool["uid"][np.isin(pool["fate"], ("correlated", "surplus", "accurate"))][0])
    text = " ".join(call("explain", taken, emt_campaign).split())
    assert "the fresh set, never trained on" in text
    assert "committee 2: force MAE" in text
    text = " ".join(call("explain", refused, emt_campaign).split())
    assert "refused" in text
    assert "trusted below" in text
    assert json.loads(call("explain", refused, emt_campaign, "--json"))["uid"] == refused


def test_report_goes_where_it_is_asked_to(emt_campaign: Path, tmp_path: Path) -> None:
    assert str(tmp_path / "page.html") in call("report", emt_campaign, "--out", tmp_path / "page.html")
    assert "Cu3Al" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_mistakes_are_explained_without_traceback(emt_campaign: Path, tmp_path: Path) -> None:
    mistakes: dict[tuple[str | Path, ...], str] = {
        ("status", tmp_path): "no campaign here",
        ("explain", "xyz", emt_campaign): "did you mean",
        ("history", emt_campaign, "--plot", tmp_path / "history.doc"): "kind of figure",
        ("report", emt_campaign, "--out", "/proc/report.html"): "cannot be written",
    }
    for words, message in mistakes.items():
        done = main(*words)
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_text_in_brackets_is_shown_as_it_is(emt_campaign: Path, tmp_path: Path) -> None:
    text = (emt_campaign / "campaign.toml").read_text().replace('"Cu3Al"', '"[red]Cu[/red][bold"')
    (tmp_path / "campaign.toml").write_text(text)
    assert "[red]Cu[/red][bold" in call("status", tmp_path)


def test_summary_of_an_iteration_has_the_stored_numbers(emt_campaign: Path) -> None:
    layout = Layout.open(emt_campaign)
    console = Console(width=100, record=True, file=StringIO())
    console.print(iteration_summary(layout, 2))
    text = " ".join(console.export_text().replace("│", " ").split())
    record = History(layout).record(2)
    assert record.fresh is not None
    assert record.decision is not None
    for part in (
        f"{record.steps} MD steps of 2 walkers",
        f"{record.verdicts['candidate']} candidate",
        f"{record.labels.asked} asked",
        f"force MAE {record.fresh['force_mae']:.3g}",
        "target 0.03",
        f"trusted below {record.trust['lo']:.3g}",
        record.decision.reason[:40],
    ):
        assert part in text


def test_summary_works_at_every_stage(emt_campaign: Path, tmp_path: Path) -> None:
    shutil.copytree(emt_campaign, tmp_path / "copy")
    layout = Layout.open(tmp_path / "copy")
    for stage in reversed(Stage):
        shutil.rmtree(layout.stage(2, stage))
        Console(quiet=True).print(iteration_summary(layout, 2))
        assert "Cu3Al" in call("status", layout.root)
