"""The values that stages hand to one another. Plain, immutable, free of torch and of files."""

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from ase import Atoms

from al_leignn.errors import StructureError
from al_leignn.shapes import Float, Int

DECIMALS = 6
"""Positions and cells are rounded to 1e-6 Å when a frame is born, so that a frame read back from a file
(extended XYZ keeps 8 decimals) has the same identity as the frame that was written."""


class Stage(StrEnum):
    """The stages of one iteration, in order. Folder, config section, CLI and report use these names."""

    EXPLORE = "explore"
    SELECT = "select"
    LABEL = "label"
    COLLECT = "collect"
    TRAIN = "train"
    VALIDATE = "validate"
    CONVERGE = "converge"


class StageRequest(NamedTuple):
    """One unit of work: item `item` (walker batch, frame or member) of `stage` in `iteration`."""

    stage: Stage
    iteration: int
    item: int

    def __str__(self) -> str:
        return f"{self.stage} {self.iteration}/{self.item}"


class Verdict(StrEnum):
    """What the committee's force deviation says of a frame (half-open windows, see DESIGN names)."""

    ACCURATE = "accurate"
    CANDIDATE = "candidate"
    FAILED = "failed"


class Purpose(StrEnum):
    """What a selected frame's label is for. Fresh labels are a random sample and are never trained on."""

    TRAIN = "train"
    FRESH = "fresh"


class LabelVerdict(StrEnum):
    """What became of a label that was asked for; every one has exactly one, so counts always sum."""

    ACCEPTED = "accepted"
    QUARANTINED = "quarantined"
    """A complete label that something speaks against: kept out of the data set until a person releases it."""
    REJECTED = "rejected"


class Reason(StrEnum):
    """Why a label is not accepted."""

    GEOMETRY = "geometry"
    UNCONVERGED = "unconverged"
    CRASHED = "crashed"
    KILLED = "killed"
    """By somebody else, or for want of memory; twice in a row."""
    TIMEOUT = "timeout"
    NO_OUTPUT = "no output"
    BAD_OUTPUT = "bad output"
    """Cut off, garbled, or of the wrong shape."""
    INCOMPLETE = "incomplete output"
    """Whole, but without energy or forces."""
    NOT_FINITE = "not finite"
    WRONG_ATOMS = "wrong atoms"
    """Other species, or the same in another order."""
    WRONG_CELL = "wrong cell"
    WRONG_LEVEL = "wrong level of theory"
    OTHER_FRAME = "other frame"
    """Atoms stand elsewhere: a stale or mistaken file."""
    FORCES = "forces"
    """A force above the cap."""
    BUDGET = "budget"
    """Not paid for: it would have exceeded the core-hours of the campaign."""
    NET_FORCE = "net force"
    UNITS = "wrong units"
    ENERGY = "energy"
    """Does not follow from the energies and forces of its neighbours, or from the committee."""
    IRREPRODUCIBLE = "irreproducible"
    """Far from the committee, and another value with tighter settings."""
    ASYMMETRIC = "asymmetric"
    """Another value for an equivalent structure."""
    DUPLICATE = "duplicated result"
    """The very numbers of another structure."""

    @property
    def verdict(self) -> LabelVerdict:
        return LabelVerdict.QUARANTINED if self in _DOUBTS else LabelVerdict.REJECTED


_DOUBTS = frozenset({Reason.NET_FORCE, Reason.UNITS, Reason.ENERGY, Reason.IRREPRODUCIBLE, Reason.ASYMMETRIC, Reason.DUPLICATE})


class DecisionKind(StrEnum):
    CONTINUE = "continue"
    CONVERGED = "converged"
    STALLED = "stalled"
    BUDGET_SPENT = "budget spent"


@dataclass(frozen=True)
class Origin:
    """Where a frame came from.

    Attributes
    ----------
    kind
        "given" (user's structure), "data" (user's labelled frames), "md", or a kind of seed (`explore.seeds.make_seeds`).
    iteration, walker, step
        The iteration that made it, the walker (or seed series) and the MD step within it.
    temperature
        Thermostat target in K; 0 where there is none.
    """

    kind: str
    iteration: int = 0
    walker: int = 0
    step: int = 0
    temperature: float = 0.0

    @property
    def block(self) -> str:
        """Trajectory block: correlated frames share it, and no split may cut through it."""
        return f"{self.kind}-{self.iteration}-{self.walker}"


@dataclass(frozen=True)
class Frame:
    """A structure as sampled, with its identity and its origin. Make one with `Frame.of`."""

    uid: str
    atoms: Atoms = field(compare=False)
    origin: Origin = field(compare=False)

    @classmethod
    def of(cls, atoms: Atoms, origin: Origin) -> "Frame":
        """Round `atoms` to the identity grid, strip calculator and constraints, and name the result.

        Atoms keep their order; periodic images are folded into the cell, so moving an atom by a lattice
        vector does not change the identity.

        Raises
        ------
        StructureError
            If a position or the cell is not a finite number.
        """
        if not (np.isfinite(atoms.positions).all() and np.isfinite(np.asarray(atoms.cell)).all()):
            raise StructureError("positions or cell are not finite numbers", where=f"{origin.block}, step {origin.step}")
        cell = np.round(np.asarray(atoms.cell), DECIMALS)
        clean = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=cell, pbc=atoms.pbc)
        if clean.cell.rank == 3 and clean.pbc.any():
            clean.wrap(eps=10.0**-DECIMALS)
        clean.positions = np.round(clean.positions, DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0
        return cls(uid=structure_digest(clean)[:16], atoms=clean, origin=origin)


def structure_digest(atoms: Atoms) -> str:
    """SHA-256 (hex) of species, periodicity, cell and positions on the 1e-6 Å grid, in the order of the atoms."""
    h = hashlib.sha256()
    scale = 10**DECIMALS
    h.update(np.asarray(atoms.numbers, dtype="<i4").tobytes())
    h.update(np.asarray(atoms.pbc, dtype="u1").tobytes())
    h.update(np.rint(np.asarray(atoms.cell) * scale).astype("<i8").tobytes())
    h.update(np.rint(atoms.positions * scale).astype("<i8").tobytes())
    return h.hexdigest()


def structure_key(atoms: Atoms) -> str:
    """As `structure_digest`, whatever the order of the atoms: what labels are found by."""
    return structure_digest(atoms[canonical_order(atoms)])


def canonical_order(atoms: Atoms) -> Int[np.ndarray, " n_atoms"]:
    """Indices that sort atoms by species, then position on the 1e-6 Å grid."""
    x, y, z = np.rint(atoms.positions * 10**DECIMALS).astype(np.int64).T
    return np.lexsort((z, y, x, atoms.numbers))


@dataclass(frozen=True)
class Labels:
    """DFT results of one frame: energy (eV, force-consistent), forces (eV/Å), stress (eV/Å^3, Voigt) or None."""

    energy: float
    forces: Float[np.ndarray, "n_atoms 3"]
    stress: Float[np.ndarray, "6"] | None = None


@dataclass(frozen=True)
class LabelledFrame:
    frame: Frame
    labels: Labels
    level: str
    """Digest of the level of theory; frames of different levels never share a data set."""


@dataclass(frozen=True)
class LabelFailure:
    """A label that could not be had. A value, not an exception: the loop counts it and goes on."""

    uid: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True)
class Allowance:
    """What a label may cost, all attempts together."""

    core_s: float
    cores: float
    """How many cores its attempts keep busy at most: what is limited is the CPU time of each process."""


@dataclass(frozen=True)
class Doubt:
    """What speaks against a label."""

    reason: Reason
    detail: str


@dataclass(frozen=True)
class DoubtfulLabels:
    """A complete label that is kept out of the data set until a person has looked at it."""

    labels: Labels
    doubt: Doubt


@dataclass(frozen=True)
class CommitteePrediction:
    """What K members say of one frame. eV, eV/Å, eV/Å^3 (Voigt); stress is None without a 3-D cell."""

    energy: Float[np.ndarray, " members"]
    forces: Float[np.ndarray, "members n_atoms 3"]
    stress: Float[np.ndarray, "members 6"] | None
    node_energy: Float[np.ndarray, "members n_atoms"]

    def mean(self) -> Labels:
        stress = None if self.stress is None else self.stress.mean(axis=0)
        return Labels(float(self.energy.mean()), self.forces.mean(axis=0), stress)

    def member(self, k: int) -> Labels:
        return Labels(float(self.energy[k]), self.forces[k], None if self.stress is None else self.stress[k])


@dataclass(frozen=True)
class Deviation:
    """Committee disagreement on one frame (population standard deviations, ddof 0)."""

    per_atom: Float[np.ndarray, " n_atoms"]
    """Norm of the standard deviation of the force vector, eV/Å."""
    energy: float
    """Standard deviation of the energy per atom, eV/atom."""
    mean_force: Float[np.ndarray, " n_atoms"]
    """Norm of the mean force vector, eV/Å: what a relative criterion compares with."""

    @property
    def max(self) -> float:
        """The frame's model deviation: largest per-atom value, eV/Å."""
        return float(self.per_atom.max())


@dataclass(frozen=True)
class Decision:
    kind: DecisionKind
    reason: str
    """One sentence with the numbers in it."""
    conditions: dict[str, bool] = field(default_factory=dict)
    """Each condition for convergence by name, and whether it holds."""
