"""Codes on several MPI ranks for real: the label of one rank, and no rank that outlives a label, however it ends.

Quantum ESPRESSO of Debian is built with MPI. GPAW has to be: AL_LEIGNN_MPI_GPAW names a Python that has such a GPAW
(docs/labels.md says how to make one), and without it those tests are skipped.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from al_leignn.config import EspressoConfig, GpawConfig
from al_leignn.core import Frame, LabelFailure, Labels, Origin, Reason
from al_leignn.label.base import Labeller, make_labeller
from al_leignn.label.gpaw import GpawLabeller

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs mpirun: apt-get install openmpi-bin"),
]

TWO_RANKS = ["mpirun", "-n", "2"]


@pytest.fixture(autouse=True)
def _small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Open MPI start two ranks on one core, and as root, as in containers."""
    for name in ("OMPI_MCA_rmaps_base_oversubscribe", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")


@pytest.fixture(scope="session")
def mpi_python() -> str:
    """A Python whose GPAW was built with MPI."""
    python = os.environ.get("AL_LEIGNN_MPI_GPAW", sys.executable)
    asked = [python, "-c", "from gpaw.cgpaw import have_mpi; import sys; sys.exit(not have_mpi)"]
    if subprocess.run(asked, capture_output=True).returncode != 0:
        pytest.skip("needs a GPAW with MPI: set AL_LEIGNN_MPI_GPAW to a Python that has one")
    return python


def silicon() -> Frame:
    atoms: Atoms = bulk("Si")
    atoms.rattle(0.1, seed=5)
    return Frame.of(atoms, Origin("given"))


def labels(labeller: Labeller, folder: Path) -> Labels:
    folder.mkdir()
    result = labeller.label(silicon(), folder)
    assert isinstance(result, Labels), result
    return result


def assert_same(one: Labels, other: Labels, tolerance: float) -> None:
    """Forces to `tolerance`, eV/Å, and energy and stress to a tenth of that number."""
    assert other.energy == pytest.approx(one.energy, abs=tolerance / 10)
    np.testing.assert_allclose(other.forces, one.forces, atol=tolerance)
    assert one.stress is not None
    assert other.stress is not None
    np.testing.assert_allclose(other.stress, one.stress, atol=tolerance / 10)


@pytest.mark.skipif(shutil.which("pw.x") is None, reason="needs pw.x: apt-get install quantum-espresso")
def test_quantum_espresso_on_two_ranks(tmp_path: Path) -> None:
    keys = {"pseudopotentials": {"Si": "Si.pbe-rrkj.UPF"}, "ecut": 200.0, "density_factor": 4.0, "kpts": (2, 2, 2)}
    one, two = (make_labeller(EspressoConfig.model_validate(keys | {"command": [*w, "pw.x"]})) for w in ([], TWO_RANKS))
    assert two.check([14]) == []
    # pw.x starts from other random wavefunctions on two ranks: what is left is the SCF's tolerance.
    assert_same(labels(one, tmp_path / "one"), labels(two, tmp_path / "two"), tolerance=1e-3)
    assert "2 processors" in (tmp_path / "two" / "output.txt").read_text()
    assert one.level == two.level


def gpaw(python: str, launch: list[str], **keys: object) -> GpawLabeller:
    base = {"ecut": 150.0, "kpts": (2, 2, 2), "time_limit_s": 120.0, "python": python, "launch": launch}
    return GpawLabeller(GpawConfig.model_validate(base | keys))


def test_gpaw_on_two_ranks(mpi_python: str, tmp_path: Path) -> None:
    one, two = gpaw(mpi_python, []), gpaw(mpi_python, TWO_RANKS)
    assert one.level == two.level
    assert two.check([14]) == []
    # Without launcher, a GPAW that was built with MPI serves labels in forks, as any other.
    assert_same(labels(one, tmp_path / "one"), labels(two, tmp_path / "two"), tolerance=1e-6)
    for name, cores in (("one", 1), ("two", 2)):
        assert re.search(rf"cores: +{cores}\b", (tmp_path / name / "gpaw.txt").read_text())


def test_what_gpaw_refuses_on_two_ranks_is_a_failure_that_says_why(mpi_python: str, tmp_path: Path) -> None:
    result = gpaw(mpi_python, TWO_RANKS, xc="PEB").label(silicon(), tmp_path)
    assert isinstance(result, LabelFailure)
    assert result.reason is Reason.CRASHED
    assert "Unknown functional: PEB" in result.detail


def test_gpaw_is_alone_where_a_launcher_started_al_leignn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPAW refuses to start by itself with these variables set, as `srun al-leignn worker` sets them."""
    monkeypatch.setenv("PMIX_RANK", "0")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    own = tmp_path / "python"  # another name: it is started with these variables
    own.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    own.chmod(0o755)
    labels(gpaw(str(own), []), tmp_path / "alone")


def ranks_in(folder: Path) -> dict[int, str]:
    """Commands of the processes whose working folder is `folder`."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").readlink() == folder:
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def until_none(folder: Path) -> dict[int, str]:
    deadline = time.monotonic() + 15
    while ranks_in(folder) and time.monotonic() < deadline:
        time.sleep(0.05)
    return ranks_in(folder)


@pytest.mark.parametrize("victim", ["gpaw_worker.py label", "mpirun -n"])
def test_a_killed_rank_is_named_and_leaves_none_behind(mpi_python: str, tmp_path: Path, victim: str) -> None:
    labeller = gpaw(mpi_python, TWO_RANKS, ecut=500.0, kpts=(6, 6, 6))  # minutes, if let
    found: list[Labels | LabelFailure] = []
    thread = threading.Thread(target=lambda: found.append(labeller.label(silicon(), tmp_path)))
    thread.start()
    while thread.is_alive() and not (tmp_path / "gpaw.txt").exists():
        time.sleep(0.05)
    ranks = [pid for pid, command in ranks_in(tmp_path).items() if victim in command and "guard.py" not in command]
    os.kill(max(ranks), signal.SIGKILL)
    thread.join(60)
    assert isinstance(found[0], LabelFailure)
    assert found[0].reason is Reason.KILLED, found[0]
    assert until_none(tmp_path) == {}


def test_a_time_limit_ends_all_ranks(mpi_python: str, tmp_path: Path) -> None:
    result = gpaw(mpi_python, TWO_RANKS, ecut=500.0, kpts=(6, 6, 6), time_limit_s=8.0).label(silicon(), tmp_path)
    assert isinstance(result, LabelFailure)
    assert result.reason is Reason.TIMEOUT
    assert until_none(tmp_path) == {}
