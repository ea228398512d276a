"""`al-leignn check`: is everything there that a run will need, and what will it cost?"""

import importlib.util
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ase import Atoms

from al_leignn.campaign.estimate import Estimate, estimate
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.structures import check_structure, read_starts
from al_leignn.config import CampaignConfig
from al_leignn.errors import CampaignError, ConfigError, StructureError
from al_leignn.label.base import make_labeller

LEAST_FREE_BYTES = 500e6

HARD = frozenset({6, 7, 8, 9, *range(21, 31)})
"""Elements whose PAW data sets in GPAW need many plane waves: C, N, O, F and 3d metals."""

HARD_ECUT = 400.0
"""eV. At 300, forces in CO2 change by 0.2 eV/Å when the molecule turns, which no potential can learn; at 500 by 0.03."""


@dataclass(frozen=True)
class Preflight:
    campaign: str
    structures: list[str]
    labeller: dict[str, str]
    machine: dict[str, str]
    missing: list[str]
    """What a run cannot do without, each with how to get it."""
    notes: list[str]
    """What only some commands need, and what may go wrong."""
    estimate: Estimate

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> str:
        lines = [f"campaign          {self.campaign}"]
        lines += [f"structure         {text}" for text in self.structures]
        lines += [f"{key:<17} {text}" for key, text in {**self.labeller, **self.machine}.items()]
        lines += [*self.estimate.lines()]
        lines += [f"note              {note}" for note in self.notes]
        lines += [f"MISSING           {what}" for what in self.missing] or ["ready"]
        return "\n".join(lines)


def preflight(folder: Path, workers: int | None) -> Preflight:
    """Check a campaign without starting anything.

    Raises
    ------
    CampaignError, ConfigError, DataError, StructureError
        If there is no campaign, or its config, structures or references cannot be used.
    """
    layout = Layout.open(folder)
    config = layout.config()
    cells = read_cells(layout, config)
    cores = workers or len(os.sched_getaffinity(0))
    with ThreadPoolExecutor(1) as beside:  # the labeller may have to ask another program
        missing = beside.submit(_missing, layout, config, cells)
        return Preflight(
            campaign=f"{config.name} ({layout.root})",
            structures=[f"{atoms.get_chemical_formula()}, {_shape(atoms)}" for atoms in cells],
            labeller=_labeller(config),
            machine=_machine(layout, cores),
            notes=_notes(config, cells),
            estimate=estimate(config, cells, cores),
            missing=missing.result(),
        )


def require_ready(layout: Layout) -> None:
    """Refuse to start what cannot succeed; raises `CampaignError` naming everything that is missing."""
    config = layout.config()
    missing = _missing(layout, config, read_cells(layout, config))
    if missing:
        raise CampaignError("this campaign cannot run here: " + "; ".join(missing), where=str(layout.root))


def read_cells(layout: Layout, config: CampaignConfig) -> list[Atoms]:
    """The cells that are explored and labelled; raises if a structure is missing or impossible."""
    for path in layout.inside([*config.structures, *config.data, *config.seeds.frames, *config.converge.references]):
        if not path.is_file():
            raise ConfigError("a file named in campaign.toml is not there", where=str(path))
    cells = read_starts(layout, config)
    for atoms in cells:
        check_structure(atoms, str(layout.root))
    if config.explore.ensemble == "npt" and any(not atoms.pbc.all() for atoms in cells):
        raise StructureError("constant pressure needs a structure that is periodic in three directions", where="explore.ensemble")
    return cells


def _labeller(config: CampaignConfig) -> dict[str, str]:
    """Level of theory in words; the full settings stand in campaign.toml."""
    return {key: text for key, text in make_labeller(config.labeller).describe().items() if key != "settings"}


def _shape(atoms: Atoms) -> str:
    if not atoms.pbc.any():
        return "isolated (no periodic direction)"
    lengths = " x ".join(f"{length:.2f}" for length in atoms.cell.lengths())
    return f"cell {lengths} Å" + (
        "" if atoms.pbc.all() else f", periodic along {''.join('abc'[i] for i in range(3) if atoms.pbc[i])}"
    )


def _machine(layout: Layout, cores: int) -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = "NVIDIA driver found" if shutil.which("nvidia-smi") else "none found"
    free = shutil.disk_usage(layout.root).free / 1e9
    return {"machine": f"{cores} core(s), {memory:.0f} GiB memory, {free:.0f} GB free disk, GPU: {gpu}"}


def _missing(layout: Layout, config: CampaignConfig, cells: list[Atoms]) -> list[str]:
    species = sorted({int(z) for atoms in cells for z in atoms.numbers})
    missing = list(make_labeller(layout.labeller(config)).check(species))
    if config.converge.references and not missing:
        from al_leignn.campaign.references import read_references  # a second, which campaigns without need not spend

        read_references(layout, config)
    if not os.access(layout.root, os.W_OK):
        missing.append(f"write permission: {layout.root} is read-only for you")
    elif shutil.disk_usage(layout.root).free < LEAST_FREE_BYTES:
        missing.append("disk space: less than 0.5 GB free; make room or move the campaign")
    return missing


def _notes(config: CampaignConfig, cells: list[Atoms]) -> list[str]:
    notes = []
    queue = [name for name in ("fireworks", "pymongo") if importlib.util.find_spec(name) is None]
    if queue:
        notes.append(f"`launch` and `worker` need {' and '.join(queue)}: pip install 'al-leignn[queue]'")
    labeller = config.labeller
    hard = sorted({str(symbol) for atoms in cells for symbol in atoms.symbols[[int(z) in HARD for z in atoms.numbers]]})
    if labeller.type == "gpaw" and labeller.mode == "pw" and labeller.ecut < HARD_ECUT and hard:
        notes.append(
            f"{labeller.ecut:g} eV are few plane waves for {', '.join(hard)}: forces may be wrong by tenths of eV/Å; set "
            "labeller.ecut to 500, or see what `al-leignn converge` recommends"
        )
    return notes
