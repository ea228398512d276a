"""A campaign of seconds: four copper atoms, labels by effective medium theory."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write
from fireworks import LaunchPad

from al_leignn.campaign.layout import Layout
from al_leignn.flow.embedded import LaunchpadAddress, serving
from al_leignn.flow.launchpad import open_launchpad

CAMPAIGN = """
name = "2026-01-31"  # a name that looks like a date must survive the database
structures = ["structures/Cu.extxyz"]

[labeller]
type = "ase"
calculator = "ase.calculators.emt:EMT"

[model]
cutoff = 4.0
features = 8
layers = 1
radial = 6

[train]
members = 2
steps = 60
warm_steps = 20
batch_atoms = 16
device = "cpu"

[seeds]
rattled = 5
strained = 3
hot = 2

[explore]
temperatures = [100.0, 200.0]
walkers = 1
batch = 1
steps = 40
stride = 5

[select]
budget = 3
fresh = 2

[converge]
target_force_error = 1e-6
stability_ps = 0.25
"""


Maker = Callable[..., Layout]


@pytest.fixture(scope="session")
def make_campaign() -> Maker:
    """Make a campaign in this folder, with pieces of its config replaced: `make_campaign(root, (old, new), …)`."""

    def make(root: Path, *replaced: tuple[str, str]) -> Layout:
        (root / "structures").mkdir(parents=True)
        write(root / "structures" / "Cu.extxyz", bulk("Cu", "fcc", a=3.6, cubic=True))
        text = CAMPAIGN
        for old, new in replaced:
            assert text.count(old) == 1
            text = text.replace(old, new)
        (root / "campaign.toml").write_text(text)
        return Layout.open(root)

    return make


@pytest.fixture
def campaign(make_campaign: Maker, tmp_path: Path) -> Layout:
    return make_campaign(tmp_path / "campaign")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LaunchpadAddress]:
    """One embedded server for all tests that only need a queue."""
    with serving(tmp_path_factory.mktemp("served") / "queue") as address:
        yield address


@pytest.fixture
def launchpad(server: LaunchpadAddress) -> Iterator[LaunchPad]:
    """An empty queue on that server."""
    launchpad = open_launchpad(server.file)
    launchpad.reset("", require_password=False, max_reset_wo_password=10**6)
    yield launchpad
    launchpad.connection.close()
