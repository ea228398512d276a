"""The local runner: killed at any instant and run again, it ends with the same campaign and pays for no label twice."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from al_leignn.core import Stage
from al_leignn.store import MANIFEST, read_manifest

AL = Path(sys.executable).with_name("al-leignn")

# Labels come from a command that notes each of its runs, so that paying twice shows.
LABELLER = """
import sys
from ase.calculators.emt import EMT
from ase.io import read, write
with open(sys.argv[3], "a") as ledger:
    ledger.write("run\\n")
atoms = read(sys.argv[1])
atoms.calc = EMT()
atoms.info["REF_energy"] = atoms.get_potential_energy()
atoms.arrays["REF_forces"] = atoms.get_forces()
atoms.info["REF_stress"] = atoms.get_stress()
atoms.calc = None
write(sys.argv[2], atoms)
with open(sys.argv[3], "a") as ledger:
    ledger.write("done\\n")
"""


def make_campaign(source: Path, folder: Path) -> Path:
    """A fresh campaign with the settings of `source` and the counting labeller."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("iterations", "labels", "lock", "finished", "logs", "*.html"))
    (folder / "label.py").write_text(LABELLER)
    text = (folder / "campaign.toml").read_text()
    command = [sys.executable, str(folder / "label.py"), "{input}", "{output}", str(folder / "ledger")]
    labeller = f'[labeller]\ntype = "external"\ncommand = {command!r}\n'.replace("'", '"')
    head, tail = text.split("[labeller]", 1)
    once = "[checks]\nresidual_factor = 1e9\nrepeat_share = 0.0\n"  # no label is computed a second time to confirm it
    (folder / "campaign.toml").write_text(head + labeller + once + "[" + tail.split("\n[", 1)[1])
    return folder


def fingerprint(folder: Path) -> dict[str, object]:
    """Everything a campaign has published, times aside."""
    found: dict[str, object] = {}
    for path in sorted(folder.glob(f"iterations/*/*/*/{MANIFEST}")):
        manifest = read_manifest(path.parent)
        assert manifest is not None
        values = manifest.without_times()
        # The command, and so the level of theory, has the folder's name in it.
        values["config"] = values["inputs"] = None
        values["result"] = {k: v for k, v in values["result"].items() if k != "level"}
        values["outputs"] = {k: v for k, v in values["outputs"].items() if not k.endswith(".extxyz") or k == "frames.extxyz"}
        found[str(path.parent.relative_to(folder))] = values
    return found


def run_to_the_end(folder: Path) -> None:
    done = subprocess.run([AL, "run", folder, "--workers", "2"], capture_output=True, text=True, timeout=280)
    assert done.returncode in (0, 3), done.stderr


def kill_once(folder: Path, after_s: float) -> bool:
    """Start a runner and kill it; whether it was still running."""
    runner = subprocess.Popen([AL, "run", folder, "--workers", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        runner.wait(timeout=after_s)
    except subprocess.TimeoutExpired:
        os.kill(runner.pid, signal.SIGKILL)
        runner.wait()
        return True
    return False


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_kill_anywhere_and_resume_equals_uninterrupted(emt_campaign: Path, tmp_path: Path, kills: int) -> None:
    whole = make_campaign(emt_campaign, tmp_path / "whole")
    begun = time.monotonic()
    run_to_the_end(whole)
    length = time.monotonic() - begun
    cut = make_campaign(emt_campaign, tmp_path / "cut")
    instants = random.Random(kills)
    # Each run before a kill gets a share of the work done; later ones have less left, so they are given less time.
    struck = sum(kill_once(cut, instants.uniform(0.1, 1.0) * 2 * length / (kills + 2)) for _ in range(kills))
    assert struck, "no kill came before the end"
    time.sleep(1.5)  # workers of the dead runner notice within a second
    run_to_the_end(cut)

    assert fingerprint(cut) == fingerprint(whole)
    assert not [p for p in cut.rglob(".scratch-*") if "labels" not in p.parts]
    labels = len([key for key in fingerprint(cut) if f"/{Stage.LABEL}/" in key])
    ledger = (cut / "ledger").read_text().split()
    assert (whole / "ledger").read_text().split().count("done") == labels
    # A label may be cut off under way, never computed again once it was done and stored.
    assert ledger.count("done") <= labels + struck
