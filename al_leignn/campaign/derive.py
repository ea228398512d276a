"""`init`: from structure files to a campaign folder whose settings follow from the structures."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms
from pydantic import TypeAdapter, ValidationError

from al_leignn.config import (
    LABELLERS,
    AseConfig,
    CampaignConfig,
    ExternalConfig,
    GpawConfig,
    Labeller,
    MailboxConfig,
    ModelConfig,
    checked_explore,
    config_error,
)
from al_leignn.errors import CampaignError
from al_leignn.geometry import neighbours

MIN_LENGTH = 5.0
"""Å. Shorter periodic cells are repeated: phonons that fit into less do not look like the material's."""

MIN_ATOMS, MAX_ATOMS = 8, 64
KPT_SPACING = 0.6
"""1/Å, 2π included. Loose, for a first campaign in minutes; tighten it for metals."""

CODES = ("quantum-espresso", "cp2k", "vasp")
"""Labellers that cannot be guessed from a structure: they need pseudopotentials or basis sets of the user's choice."""

VACUUM = 7.0
"""Å. A gap of this width along a periodic axis makes it non-periodic for the electrons (one k-point)."""

REACH = 1.9
"""Cutoff over the distance of the four nearest neighbours: third neighbours of bcc and fcc are within it. Of ten frames of liquid
sodium (3.5 Å), forces were learned to 61, 17, 11 and 9 meV/Å with cutoffs of 5, 6, 6.5 and 7 Å."""

DEFAULT_TEMPERATURES = (300.0, 600.0)

# Plane-wave cutoffs at which GPAW's PBE data sets give forces to about 10 meV/Å, eV.
CUTOFF_DEFAULT = 350.0
CUTOFF_BY_ELEMENT = {
    "H": 400.0,
    "B": 400.0,
    "C": 450.0,
    "N": 500.0,
    "O": 500.0,
    "F": 500.0,
    "Si": 300.0,
    "Al": 300.0,
    "Na": 300.0,
}


@dataclass
class Derived:
    """A config, and for each derived key why it has its value."""

    config: CampaignConfig
    reasons: dict[str, str] = field(default_factory=dict)


def derive(
    name: str,
    structures: Sequence[Atoms],
    files: Sequence[str],
    *,
    labeller: str = "gpaw",
    calculator: str = "",
    command: Sequence[str] = (),
    inputs: Mapping[str, Any] | None = None,
    temperatures: Sequence[float] = (),
    data: Sequence[str] = (),
    seed: int = 0,
) -> Derived:
    """Choose every setting that a structure can tell; leave trust levels to calibration.

    Parameters
    ----------
    inputs
        Settings of the labeller from a DFT parameter set; its k-points are replaced by those that the structure needs.

    Raises
    ------
    CampaignError
        If the labeller needs something that was not given.
    ConfigError
        If a temperature is none.
    """
    lightest = min(
        (float(mass), symbol) for atoms in structures for mass, symbol in zip(atoms.get_masses(), atoms.symbols, strict=True)
    )
    reasons = {"explore.timestep_fs": f"for the lightest element, {lightest[1]}"}
    repeat = _supercell(structures, reasons)
    cells = [atoms.repeat(repeat) if atoms.pbc.all() else atoms for atoms in structures]
    explore = checked_explore(
        supercell=repeat,
        temperatures=[float(t) for t in (temperatures or DEFAULT_TEMPERATURES)],
        timestep_fs=timestep(structures),
    )
    config = CampaignConfig(
        name=name,
        seed=seed,
        structures=list(files),
        data=list(data),
        labeller=_labeller(labeller, calculator, command, cells, reasons)
        if inputs is None
        else _from_set(inputs, cells, reasons),
        model=ModelConfig(cutoff=_cutoff(structures, reasons), features=_features(structures, reasons)),
        explore=explore,
    )
    return Derived(config, reasons)


def _supercell(structures: Sequence[Atoms], reasons: dict[str, str]) -> tuple[int, int, int]:
    """The smallest repetition that gives every 3-D structure MIN_LENGTH and MIN_ATOMS (one setting for all)."""
    bulk = [atoms for atoms in structures if atoms.pbc.all()]
    repeat = [1, 1, 1]
    for atoms in bulk:
        heights = _heights(atoms)
        gaps = [vacuum_gap(atoms, axis) >= VACUUM for axis in range(3)]
        for axis in range(3):
            if not gaps[axis]:
                repeat[axis] = max(repeat[axis], math.ceil(MIN_LENGTH / heights[axis] - 1e-6))
        while len(atoms) * math.prod(repeat) < MIN_ATOMS and not all(gaps):
            axis = min((a for a in range(3) if not gaps[a]), key=lambda a: heights[a] * repeat[a])
            repeat[axis] += 1
    if bulk and max(len(atoms) for atoms in bulk) * math.prod(repeat) > MAX_ATOMS:
        repeat = [1, 1, 1]
    a, b, c = repeat
    reasons["explore.supercell"] = (
        f"at least {MIN_LENGTH:g} Å and {MIN_ATOMS} atoms, at most {MAX_ATOMS} atoms" if bulk else "no 3-D cell to repeat"
    )
    return a, b, c


def _heights(atoms: Atoms) -> np.ndarray:
    """Distance between opposite faces of the cell along each axis, Å."""
    return np.asarray(1.0 / np.linalg.norm(atoms.cell.reciprocal(), axis=1))


def vacuum_gap(atoms: Atoms, axis: int) -> float:
    """Widest empty slice along an axis, Å (infinite where there is no cell vector)."""
    if not atoms.cell[axis].any():
        return math.inf
    scaled = np.sort(atoms.get_scaled_positions(wrap=True)[:, axis]) if atoms.cell.rank == 3 else np.zeros(1)
    gaps = np.diff(np.append(scaled, scaled[0] + 1.0))
    return float(gaps.max() * _heights(atoms)[axis]) if atoms.cell.rank == 3 else math.inf


def _kpts(cells: Sequence[Atoms], reasons: dict[str, str]) -> tuple[int, int, int]:
    counts = [1, 1, 1]
    for atoms in cells:
        for axis in range(3):
            if atoms.pbc[axis] and vacuum_gap(atoms, axis) < VACUUM:
                length = 2 * math.pi * np.linalg.norm(atoms.cell.reciprocal()[axis])
                counts[axis] = max(counts[axis], math.ceil(length / KPT_SPACING - 0.05))
    reasons["labeller.kpts"] = f"spacing of {KPT_SPACING:g} 1/Å or less in the labelling cell; one along vacuum"
    return counts[0], counts[1], counts[2]


def _gamma_centred(cells: Sequence[Atoms], reasons: dict[str, str]) -> bool:
    """Whether any cell is oblique: there, even grids that avoid Gamma lack the symmetry of the lattice."""
    lattices = [np.asarray(atoms.cell)[atoms.pbc] for atoms in cells]
    products = [lattice @ lattice.T for lattice in lattices]
    oblique = any(np.abs(product - np.diag(np.diag(product))).max(initial=0.0) > 1e-6 for product in products)
    reasons["labeller.gamma_centred"] = "keeps the symmetry of the oblique cell" if oblique else "right-angled cell"
    return oblique


def timestep(structures: Sequence[Atoms]) -> float:
    """MD time step in fs. Vibrations scale with 1/sqrt(mass); 0.5 fs is safe for hydrogen, and 2 fs is enough for anybody."""
    lightest = min(float(atoms.get_masses().min()) for atoms in structures)
    return math.floor(4 * min(max(0.5 * math.sqrt(lightest / 1.008), 0.5), 2.0)) / 4


def _cutoff(structures: Sequence[Atoms], reasons: dict[str, str]) -> float:
    """The usual one, and more for large atoms: it is to count neighbours, not Å."""
    usual = ModelConfig().cutoff
    farthest = max(_four_nearest(atoms, within=2 * usual) for atoms in structures)
    if REACH * farthest <= usual:
        return usual
    reasons["model.cutoff"] = f"{REACH:g} times the distance of the four nearest neighbours, {farthest:.2f} Å"
    return math.ceil(10 * REACH * farthest - 1e-6) / 10


def _four_nearest(atoms: Atoms, within: float) -> float:
    """Mean distance of an atom's four nearest neighbours, Å; 0 where there are none `within` so many Å."""
    atom, _, distance = neighbours(atoms, within)
    order = np.lexsort((distance, atom))
    atom, distance = atom[order], distance[order]
    rank = np.arange(len(atom)) - np.searchsorted(atom, atom)
    return float(distance[rank < 4].mean()) if len(atom) else 0.0


def _features(structures: Sequence[Atoms], reasons: dict[str, str]) -> int:
    species = {int(z) for atoms in structures for z in atoms.numbers}
    reasons["model.features"] = f"for {len(species)} element(s)"
    return 32 if len(species) <= 3 else 48


def _from_set(inputs: Mapping[str, Any], cells: Sequence[Atoms], reasons: dict[str, str]) -> Labeller:
    """The labeller that a parameter set describes, with k-points for these cells unless they are isolated."""
    kind = str(inputs.get("type", ""))
    if kind not in LABELLERS:
        raise CampaignError(f"the parameter set has no labeller type ({kind!r})", fix=f"type is one of {', '.join(LABELLERS)}")
    values = dict(inputs)
    if "kpts" in values:
        values |= {"kpts": _kpts(cells, reasons), "gamma_centred": _gamma_centred(cells, reasons)}
    try:
        found: Labeller = TypeAdapter(Labeller).validate_python(values)
    except ValidationError as error:
        raise config_error(error, LABELLERS[kind], "parameter set") from None
    return found


def _labeller(kind: str, calculator: str, command: Sequence[str], cells: Sequence[Atoms], reasons: dict[str, str]) -> Labeller:
    match kind:
        case "gpaw":
            symbols = sorted({s for atoms in cells for s in atoms.get_chemical_symbols()})
            ecut = max(CUTOFF_BY_ELEMENT.get(s, CUTOFF_DEFAULT) for s in symbols)
            hardest = max(symbols, key=lambda s: CUTOFF_BY_ELEMENT.get(s, CUTOFF_DEFAULT))
            reasons["labeller.ecut"] = f"for {hardest}; check it with a convergence study"
            return GpawConfig(ecut=ecut, kpts=_kpts(cells, reasons), gamma_centred=_gamma_centred(cells, reasons))
        case "ase":
            if not calculator:
                raise CampaignError("the ase labeller needs a calculator", fix='add --calculator "ase.calculators.emt:EMT"')
            return AseConfig(calculator=calculator)
        case "external":
            if not command:
                raise CampaignError("the external labeller needs a command", fix='add --command "my-dft {input} {output}"')
            return ExternalConfig(command=list(command))
        case "mailbox":
            return MailboxConfig(level="write the level of theory, code and version here")
    fix = f"choose gpaw, ase, external or mailbox; {', '.join(CODES)} with --inputs, a parameter set of dft_inputs/ or your own"
    raise CampaignError(f"there is no labeller {kind!r} without a parameter set", fix=fix)
