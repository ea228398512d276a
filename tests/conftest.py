"""Fixtures and switches for the whole suite.

Annotated array shapes and argument types of the package are checked at run time, in every test: the import hook below
must come before the first import of al_leignn. (Processes that a test starts run without it, as users do.)
"""

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Self

import pytest
from beartype import BeartypeConf, FrozenDict, beartype
from filelock import FileLock
from jaxtyping import install_import_hook

# The numeric tower lets an int stand where a float is asked for, as type checkers do. `Self` is passed over: the hook
# decorates one function at a time, and beartype can tell what `Self` is only when it sees the whole class.
CHECKED = BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({Self: object}))
sys.modules["checked_types"] = types = ModuleType("checked_types")
types.__dict__["check"] = beartype(conf=CHECKED)
install_import_hook("al_leignn", "checked_types.check")

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def reference_data() -> Path:
    """Folder of published DFT data sets, one folder each; skips where it is not there.

    They are too large (and some too restricted in licence) for the repository: AL_LEIGNN_DATA says where they are.
    """
    folder = Path(os.environ.get("AL_LEIGNN_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no reference data at {folder}; set AL_LEIGNN_DATA to the folder that has them")
    return folder


EMT_CAMPAIGN = """
name = "Cu3Al"
seed = 7
structures = ["structures/Cu3Al.extxyz"]
data = ["given.extxyz"]
[labeller]
type = "ase"
calculator = "ase.calculators.emt:EMT"
[model]
cutoff = 4.0
features = 4
layers = 1
radial = 4
[train]
members = 2
steps = 100
warm_steps = 50
[seeds]
rattled = 4
strained = 3
hot = 3
[explore]
temperatures = [300.0, 600.0]
walkers = 1
batch = 1
steps = 100
stride = 2
[select]
budget = 4
fresh = 3
trust_hi = 3.0
[converge]
stability_ps = 0.3
[budget]
iterations = 2
"""


@pytest.fixture(scope="session")
def emt_campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign on Cu3Al with EMT labels: seeds, two iterations with MD, and six frames that the user gave.

    Made once by the real runner, shared by all test processes. Do not change it: copy it first.
    """
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = shared / "emt-campaign"
    with FileLock(shared / "emt-campaign.lock"):
        if not (folder / "finished").exists():
            _run_emt_campaign(folder)
            (folder / "finished").touch()
    return folder


def _run_emt_campaign(folder: Path) -> None:
    from ase.build import bulk
    from ase.calculators.emt import EMT
    from ase.io import write

    from al_leignn.campaign.layout import Layout
    from al_leignn.core import Frame, Origin
    from al_leignn.flow.local import run
    from al_leignn.flow.watch import Silence
    from al_leignn.store import write_frames

    (folder / "structures").mkdir(parents=True)
    crystal = bulk("Cu", "fcc", a=3.7, cubic=True)
    crystal.symbols[0] = "Al"
    write_frames(folder / "structures" / "Cu3Al.extxyz", [Frame.of(crystal, Origin("given"))])
    given = []
    for seed in range(6):
        atoms = crystal.copy()
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_forces()
        given.append(atoms)
    write(folder / "given.extxyz", given)
    (folder / "campaign.toml").write_text(EMT_CAMPAIGN, encoding="utf-8")
    run(Layout(folder), workers=1, max_iterations=None, watcher=Silence())
