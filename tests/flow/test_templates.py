"""The FireWorks templates in workflows/, read by FireWorks' own loaders."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fireworks import FWorker, LaunchPad

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.preflight import read_cells
from al_leignn.flow.fireworks import CATEGORIES

LOAD = """
import sys
from fireworks.utilities.fw_serializers import load_object_from_file
print(load_object_from_file(sys.argv[1]).get_script_str("/scratch/block"))
"""


def test_launchpad(repository: Path) -> None:
    launchpad = LaunchPad.from_file(str(repository / "workflows" / "my_launchpad.yaml"))
    launchpad.connection.close()
    assert (launchpad.host, launchpad.port, launchpad.name) == ("mongo.example.org", 27017, "fireworks")
    assert launchpad.mongoclient_kwargs["tls"] is True


def test_fworker(repository: Path) -> None:
    worker = FWorker.from_file(str(repository / "workflows" / "my_fworker.yaml"))
    assert worker.query["spec._category"] == "label"


def test_fworker_names_every_category(repository: Path) -> None:
    text = (repository / "workflows" / "my_fworker.yaml").read_text()
    assert all(category in text for category in CATEGORIES.values())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "slurm",
            ["#SBATCH --ntasks=32", "#SBATCH --time=24:00:00", "#SBATCH --signal=B:TERM@120", "#SBATCH --partition=compute"],
        ),
        ("pbs", ["#PBS -l nodes=1:ppn=32", "#PBS -l walltime=24:00:00", "#PBS -q batch", "#PBS -N al-leignn"]),
    ],
)
def test_queue_adapter_writes_a_job(repository: Path, name: str, expected: list[str]) -> None:
    template = repository / "workflows" / f"my_qadapter_{name}.yaml"
    # As qlaunch does; in a process of its own, because FireWorks searches all its modules, its tests among them.
    loaded = subprocess.run([sys.executable, "-c", LOAD, template], capture_output=True, text=True, check=True)
    script = loaded.stdout.splitlines()
    assert script[0].startswith("#!/bin/bash")
    assert set(expected) <= set(script)
    assert "cd /scratch/block" in script
    assert not [line for line in script if "$$" in line]
    (launch,) = [line for line in script if "al-leignn worker" in line]
    words = shlex.split(launch)
    assert words[:3] == ["exec", "al-leignn", "worker"]
    program = Path(sys.executable).with_name("al-leignn")
    known = subprocess.run([program, "worker", "--help"], capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    assert all(word in known.stdout for word in words if word.startswith("--"))
    assert script.index("export OMP_NUM_THREADS=1") < script.index(launch)


@pytest.mark.parametrize("name", ["silicon_cluster", "copper_emt"])
def test_ready_campaigns_can_start(repository: Path, name: str) -> None:
    assert {p.parent.name for p in (repository / "workflows").glob("*/campaign.toml")} == {"silicon_cluster", "copper_emt"}
    layout = Layout.open(repository / "workflows" / name)
    config = layout.config()
    assert read_cells(layout, config)
    assert (config.labeller.type == "gpaw") == (name == "silicon_cluster")
