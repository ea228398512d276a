"""Which cutoff and k-points a structure needs: its forces with ever finer settings, against the finest."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.preflight import read_cells
from al_leignn.config import CampaignConfig, Cp2kConfig, EspressoConfig, GpawConfig, KpointsSection, Labeller, VaspConfig
from al_leignn.core import Frame, Labels, Origin
from al_leignn.errors import InputError
from al_leignn.label.base import label_frame, make_labeller
from al_leignn.label.kpoints import grid_of
from al_leignn.labelstore import LabelStore
from al_leignn.store import Stopwatch
from al_leignn.units import GPA

RATTLE = 0.05
"""Å. Forces of a structure at rest vanish by symmetry and would converge at once."""

CUTOFFS = (0.5, 0.65, 0.8, 1.0, 1.25, 1.6)
"""Steps of the cutoff, relative to the configured one."""

SPACINGS = (2.0, 1.4, 1.0, 0.7, 0.5)
"""Steps of the distance between k-points, likewise."""


@dataclass(frozen=True)
class Point:
    """One label of a series, held against the finest of it."""

    setting: str
    """As it would stand in campaign.toml."""
    value: float
    """Cutoff in eV, grid spacing in Å, or number of k-points."""
    force_max: float
    """Largest error of a force component, eV/Å."""
    force_rms: float
    energy: float
    """Error of the energy, eV/atom. It converges more slowly than forces do, and largely cancels between frames."""
    stress: float | None
    """Largest error of a component, GPa."""
    core_s: float
    """What the label cost, core-seconds."""


@dataclass(frozen=True)
class Series:
    """Labels with ever finer settings of one kind, the last being the reference."""

    name: str
    unit: str
    points: list[Point]
    force_error: float
    """Wanted, eV/Å."""

    @property
    def recommended(self) -> Point | None:
        """The coarsest setting that is good enough, as are all finer ones; None if only the reference is."""
        good: Point | None = None
        for point in reversed(self.points[:-1]):
            if point.force_max > self.force_error:
                break
            good = point
        return good

    def to_dict(self) -> dict[str, Any]:
        found = self.recommended
        return asdict(self) | {"recommended": None if found is None else found.setting}


def study(
    layout: Layout, force_error: float, cutoffs: Sequence[float], spacings: Sequence[float], told: Callable[[str], None]
) -> list[Series]:
    """Label a rattled copy of the campaign's first structure with a series of cutoffs, then of k-point grids.

    Every label goes through the campaign's label store: an interrupted study goes on where it stopped.

    Parameters
    ----------
    force_error
        Largest error of a force component that is accepted, eV/Å.
    cutoffs, spacings
        Cutoffs in eV (or grid spacings in Å) and distances between k-points in 1/Å; empty: around the configured ones.
    told
        Called with a line for each label.

    Raises
    ------
    InputError
        If the labeller has neither cutoff nor k-points.
    RunError
        If a label fails.
    """
    config = layout.config()
    settings = config.labeller
    if not isinstance(settings, GpawConfig | EspressoConfig | Cp2kConfig | VaspConfig):
        what = f"a labeller of type {settings.type!r} has no cutoff and no k-points to converge"
        raise InputError(what, where=str(layout.config_file), fix="converge it with the tools of that code")
    atoms = read_cells(layout, config)[0].copy()
    atoms.rattle(RATTLE, seed=config.seed)
    frame = Frame.of(atoms, Origin("rattle"))
    store = LabelStore(layout.label_store(config))
    series = [_cutoffs(settings, cutoffs)]
    grids = _grids(settings, frame.atoms, spacings)
    if len(grids) > 1:
        series.append(("k-points", "", grids))
    return [_run(name, unit, steps, frame, store, config, layout, force_error, told) for name, unit, steps in series]


_Steps = list[tuple[str, float, Labeller]]


def _cutoffs(settings: GpawConfig | EspressoConfig | Cp2kConfig | VaspConfig, values: Sequence[float]) -> tuple[str, str, _Steps]:
    key, unit = "cutoff" if isinstance(settings, Cp2kConfig) else "ecut", "eV"
    if isinstance(settings, GpawConfig) and settings.mode != "pw":
        key, unit = "spacing", "Å"
    middle = float(getattr(settings, key))
    if key == "spacing":
        chosen = sorted(values or [round(middle / step, 3) for step in CUTOFFS], reverse=True)
    else:
        chosen = sorted(values or [10.0 * round(middle * step / 10) for step in CUTOFFS])
    return key, unit, [(f"{key} = {value:g}", value, settings.model_copy(update={key: float(value)})) for value in chosen]


def _grids(settings: KpointsSection, atoms: Atoms, spacings: Sequence[float]) -> _Steps:
    """Distinct grids, coarse to fine."""
    lengths = 2 * math.pi * np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    now = max(float(n) for n in lengths / np.array(grid_of(settings, atoms)))
    chosen = spacings or [now * step for step in SPACINGS]
    grids = {grid_of(settings.model_copy(update={"kpt_spacing": spacing}), atoms) for spacing in chosen}
    steps: _Steps = []
    for grid in sorted(grids, key=math.prod):
        config: Any = settings.model_copy(update={"kpts": grid, "kpt_spacing": None})
        steps.append((f"kpts = {list(grid)}", float(math.prod(grid)), config))
    return steps


def _run(
    name: str,
    unit: str,
    steps: _Steps,
    frame: Frame,
    store: LabelStore,
    config: CampaignConfig,
    layout: Layout,
    force_error: float,
    told: Callable[[str], None],
) -> Series:
    made: list[tuple[str, float, Labels, float]] = []
    for setting, value, settings in steps:
        watch, labeller = Stopwatch(), make_labeller(settings)
        outcome = label_frame(labeller, frame, store, layout.root / ".converge", checks=config.checks)
        labels = outcome.numbers(f"with {setting}", str(layout.root))
        entry = store.find(frame, labeller.level)
        cost = outcome.cpu_s if entry is None else entry.meta.get("cpu_s", outcome.cpu_s)
        told(f"{setting}: {cost:.1f} core-seconds" + " (from the label store)" * outcome.from_store)
        made.append((setting, value, labels, cost or watch.times()["cpu_s"]))
    finest = made[-1][2]
    return Series(name, unit, [_point(*one, finest) for one in made], force_error)


def _point(setting: str, value: float, labels: Labels, core_s: float, finest: Labels) -> Point:
    off = labels.forces - finest.forces
    both = labels.stress is not None and finest.stress is not None
    stress = float(np.abs(labels.stress - finest.stress).max() / GPA) if both else None  # type: ignore[operator]
    energy = abs(labels.energy - finest.energy) / len(off)
    return Point(setting, value, float(np.abs(off).max()), float(np.sqrt(np.mean(off**2))), energy, stress, core_s)
