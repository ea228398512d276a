"""The whole of campaign.toml: one class a section, unknown keys refused, every default explained.

Field descriptions are the reference manual: `al-leignn schema` and the comments in a generated
campaign.toml are made from them.
"""

import difflib
import hashlib
import json
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from al_leignn.errors import ConfigError


class Section(BaseModel):
    # Validators are built for the sections that are read: some 50 ms less before any answer.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    def digest(self) -> str:
        """SHA-256 (hex) of the section's values: what a stage's manifest records of its settings."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]


class ModelConfig(Section):
    """The network (docs/model.md has the equations)."""

    preset: Literal["local", "paper"] = Field(
        "local",
        description="local: conservative, size-consistent, tensors up to rank 3; paper: published network with virtual nodes",
    )
    cutoff: Positive = Field(5.0, description="neighbour cutoff, Å")
    features: Count = Field(32, description="channels per atom")
    layers: Count = Field(2, description="message-passing layers")
    radial: Count = Field(8, description="radial functions")
    direct_forces: bool = Field(
        False, description="predict forces with a vector head (paper preset only; not conservative, for nvt only)"
    )

    @model_validator(mode="after")
    def _direct_forces_only_in_paper(self) -> "ModelConfig":
        if self.direct_forces and self.preset != "paper":
            raise ValueError("direct_forces is available in the paper preset only")
        return self


class TrainConfig(Section):
    """Fitting of the committee."""

    members: Annotated[int, Field(ge=2)] = Field(4, description="committee members")
    steps: Literal["auto"] | Count = Field(
        "auto", description="optimiser steps from scratch; auto: 2000, or 30 passes over the frames where that is more"
    )
    warm_steps: Literal["auto"] | Count = Field(
        "auto",
        description="optimiser steps when continuing from the previous iteration's weights; auto: a third of a fit from scratch",
    )
    refit_every: Annotated[int, Field(ge=0)] = Field(
        4, description="refit from scratch every n iterations so that old minima do not trap the committee; 0: never"
    )
    batch_atoms: Count = Field(32, description="atoms per batch, reached by adding whole frames")
    learning_rate: Positive = Field(2e-3, description="peak learning rate (warm-up, then cosine to 1 %)")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.1, description="decoupled weight decay")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.99, description="decay of the running average of the weights that is kept")
    clip: Positive = Field(10.0, description="gradient norm is clipped here")
    energy_weight: Annotated[float, Field(ge=0)] = Field(
        0.1, description="weight of the energy-per-atom loss; ten times as much at the end of a fit"
    )
    force_weight: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the force loss")
    stress_weight: Annotated[float, Field(ge=0)] = Field(0.2, description="weight of the stress loss, where labels have stress")
    holdout: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.0,
        description="share of the trajectory blocks each member leaves out (another share for each) to choose its best weights; "
        "0: it learns from all frames and keeps its last weights",
    )
    dtype: Literal["float32", "float64"] = Field("float32", description="precision of training and exploration")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")


class SeedConfig(Section):
    """Frames of iteration 0, made from the structures before any potential exists."""

    rattled: Annotated[int, Field(ge=0)] = Field(8, description="frames with Gaussian displacements, per structure")
    rattle_std: Positive = Field(0.10, description="standard deviation of the displacements, Å")
    strained: Annotated[int, Field(ge=0)] = Field(
        6, description="frames with random volume and shear strain, per periodic structure"
    )
    max_strain: Annotated[float, Field(gt=0, lt=0.3)] = Field(0.04, description="largest strain component")
    hot: Annotated[int, Field(ge=0)] = Field(
        10, description="frames from a short hot MD on an elastic network of the structure's own bonds, per structure"
    )
    hot_factor: Positive = Field(1.5, description="temperature of that MD relative to the highest exploration temperature")
    vibrations: Annotated[int, Field(ge=0)] = Field(
        0, description="frames displaced along the normal modes of that network at that temperature, per molecule"
    )
    vacancies: Annotated[int, Field(ge=0)] = Field(0, description="frames with an atom missing, per structure")
    interstitials: Annotated[int, Field(ge=0)] = Field(0, description="frames with an atom more in a void, per 3-D structure")
    antisites: Annotated[int, Field(ge=0)] = Field(
        0, description="frames with two unlike atoms exchanged, per structure of several elements"
    )
    surfaces: list[tuple[int, int, int]] = Field(
        default_factory=list, description="Miller indices of surfaces; each gives a slab between vacuum, per 3-D structure"
    )
    melts: Annotated[int, Field(ge=0)] = Field(
        0, description="frames with the atoms packed at random at 0.9 to 1.1 times the volume, per 3-D structure"
    )
    contacts: Annotated[int, Field(ge=0)] = Field(
        0, description="frames with two neighbours pressed together, for the repulsive wall, per structure"
    )
    dimers: Annotated[int, Field(ge=0)] = Field(0, description="frames of two atoms alone, per pair of elements")
    frames: list[str] = Field(
        default_factory=list, description="files of structures or trajectories without labels to take frames from"
    )
    frames_per_file: Count = Field(20, description="frames taken from each of them, evenly spread, at most")

    @model_validator(mode="after")
    def _surfaces_have_a_normal(self) -> "SeedConfig":
        if any(not any(miller) for miller in self.surfaces):
            raise ValueError("surfaces: (0, 0, 0) is no surface")
        return self


class Condition(Section):
    """Targets of a walker: values, or lists of values that are passed through at equal times, linearly in between."""

    temperature: Positive | Annotated[list[Positive], Field(min_length=1)] = Field(description="thermostat target, K")
    pressure: float | Annotated[list[float], Field(min_length=1)] = Field(0.0, description="target pressure for npt, GPa")

    @property
    def label(self) -> str:
        """In words, and its identity: a condition that is changed is a new one."""
        temperature, pressure = (
            " → ".join(f"{x:g}" for x in (value if isinstance(value, list) else [value]))
            for value in (self.temperature, self.pressure)
        )
        return f"{temperature} K" + ("" if pressure == "0" else f", {pressure} GPa")


class ExploreConfig(Section):
    """MD driven by the committee."""

    ensemble: Literal["nvt", "npt", "nve"] = Field("nvt", description="ensemble of the walkers")
    temperatures: Annotated[list[Positive], Field(min_length=1)] = Field([300.0, 600.0], description="thermostat targets, K")
    pressure: float = Field(0.0, description="target pressure for npt, GPa")
    schedule: list[Condition] = Field(
        default_factory=list,
        description="conditions from the safest to the boldest, as [[explore.schedule]] with temperature and pressure, each a "
        "value or a list of values that a walker passes through; empty: one for each of `temperatures`",
    )
    policy: Literal["all", "climb"] = Field(
        "all",
        description="all: every iteration explores all conditions; climb: the first that is not learned, while one walker per "
        "structure watches each learned one",
    )
    learned_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="a condition is learned when this share of its frames is accurate and no walker was stopped"
    )
    walkers: Count = Field(2, description="walkers per structure and condition")
    batch: Count = Field(4, description="walkers run together in one job")
    steps: Count = Field(1000, description="MD steps of each walker and iteration")
    timestep_fs: Annotated[float, Field(gt=0, le=10)] = Field(1.0, description="time step, fs")
    thermostat: Literal["langevin", "csvr"] = Field(
        "langevin",
        description="langevin: friction and noise on every atom; csvr: stochastic velocity rescaling, gentler on the motion",
    )
    friction_per_ps: Positive = Field(5.0, description="friction of the thermostat, 1/ps; it renews energies at twice this rate")
    cell: Literal["isotropic", "anisotropic", "full"] = Field(
        "isotropic", description="how npt changes the cell: its volume, its lengths along x, y and z, or lengths and angles"
    )
    stride: Count = Field(10, description="steps between frames that are looked at and may enter the pool")
    driver: Literal["mean", "member"] = Field(
        "member", description="mean: all members push; member: one member drives and the others look at every stride-th frame"
    )
    supercell: tuple[Count, Count, Count] = Field(
        (1, 1, 1), description="repetition of the structures for exploration and labelling"
    )
    bias_ev: Annotated[float, Field(ge=0)] = Field(
        0.0, description="energy by which walkers are drawn to where members disagree, eV per walker at most; 0: none"
    )
    bias_width_ev: Positive = Field(
        0.02,
        description="standard deviation of the energy over members, per square root of the atoms, that the bias grows up to, eV",
    )

    @property
    def conditions(self) -> list[Condition]:
        """What walkers are held at, from the safest to the boldest."""
        return self.schedule or [Condition(temperature=t, pressure=self.pressure) for t in self.temperatures]

    @property
    def hottest(self) -> float:
        """Highest target of all walkers, K."""
        given = [condition.temperature for condition in self.conditions]
        return max(max(t) if isinstance(t, list) else t for t in given)

    @model_validator(mode="after")
    def _conditions_differ(self) -> "ExploreConfig":
        labels = [condition.label for condition in self.conditions]
        twice = next((label for n, label in enumerate(labels) if label in labels[:n]), None)
        if twice is not None:
            raise ValueError(f"the condition {twice} is given twice: raise `walkers` for more walkers of a kind")
        return self

    @model_validator(mode="after")
    def _bias_asks_everyone(self) -> "ExploreConfig":
        if self.bias_ev and (self.driver != "mean" or self.ensemble == "nve"):
            raise ValueError('bias_ev needs driver = "mean", since all members are asked at every step, and a thermostat')
        return self

    @model_validator(mode="after")
    def _only_npt_feels_pressure(self) -> "ExploreConfig":
        pressures = [self.pressure, *(condition.pressure for condition in self.schedule)]
        if self.ensemble != "npt" and (self.cell != "isotropic" or any(pressure != 0.0 for pressure in pressures)):
            raise ValueError(
                f'pressure and cell mean nothing with ensemble = "{self.ensemble}": make it "npt", or leave them out'
            )
        return self


class SelectConfig(Section):
    """Which frames are labelled."""

    budget: Count = Field(12, description="labels for training per iteration, at most")
    fresh: Count = Field(
        6,
        description="labels per iteration drawn at random from the same pool, to measure the error; never trained on",
    )
    trust_lo: Literal["auto"] | Positive = Field(
        "auto", description="force deviation below which a frame counts as known, eV/Å; auto: from calibration"
    )
    trust_hi: Literal["auto"] | Positive = Field(
        "auto", description="force deviation above which a frame is dropped as unphysical, eV/Å; auto: from calibration"
    )
    min_distance_factor: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.6, description="frames with two atoms closer than this share of the sum of their covalent radii are not labelled"
    )
    force_scale: Positive | None = Field(
        None,
        description="relative criterion: deviations and errors of an atom with mean force F are divided by 1 + F / force_scale, "
        "eV/Å; absent: large forces are judged like small ones",
    )
    cut_out: Literal["off", "cluster", "cell"] = Field(
        "off",
        description="label only the surroundings of the worst atom of a frame chosen for training, where they are smaller: as a "
        "cluster in vacuum, or as a periodic cube",
    )
    cut_out_radius: Positive = Field(6.0, description="how far these surroundings reach, Å")
    cost_exponent: Annotated[float, Field(ge=0, le=3)] = Field(
        1.0,
        description="how the cost of a label grows with the number of atoms, beyond the forces that it gives, where frames of "
        "several sizes compete; 0: all labels cost the same",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "SelectConfig":
        lo, hi = self.trust_lo, self.trust_hi
        if not isinstance(lo, str) and not isinstance(hi, str) and lo >= hi:
            raise ValueError(f"trust_lo ({lo}) must be below trust_hi ({hi})")
        return self


TimeLimit = Annotated[float, Field(gt=0, description="seconds after which a label counts as failed")]
Vacuum = Annotated[float, Field(gt=0, description="least empty space on either side along directions that are not periodic, Å")]
Smearing = Annotated[float, Field(ge=0, description="Fermi-Dirac width, eV; 0: fixed occupations")]
Spin = Annotated[bool, Field(description="spin-polarised")]
Moments = Annotated[
    dict[str, float],
    Field(description="magnetic moments to start from, by element, μB (with spin; elements left out: 1)"),
]
HubbardU = Annotated[
    dict[str, float],
    Field(description="effective Hubbard U (Dudarev) by element, eV; on f electrons of f elements, else on d"),
]
D3 = Annotated[Literal["", "d3"], Field(description='"d3": Grimme\'s D3 with Becke-Johnson damping')]
MixerBeta = Annotated[
    float, Field(gt=0, le=1, description="share of the new density mixed in each SCF step; does not change the result")
]


class KpointsSection(Section):
    """Sampling of the Brillouin zone, the same for every code."""

    kpts: tuple[Count, Count, Count] = Field(
        (1, 1, 1), description="Monkhorst-Pack grid for the labelling cell; 1 is used along directions that are not periodic"
    )
    kpt_spacing: Positive | None = Field(
        None, description="largest distance between k-points, 1/Å (2π included); given, kpts is ignored"
    )
    gamma_centred: bool = Field(
        True,
        description="even grids contain Gamma, as oblique cells need; false: faster and more accurate in right-angled ones",
    )


class GpawConfig(KpointsSection):
    """GPAW, run by subprocess."""

    type: Literal["gpaw"] = "gpaw"
    mode: Literal["pw", "lcao", "fd"] = Field("pw", description="basis: plane waves, atomic orbitals or real-space grid")
    xc: str = Field("PBE", description="exchange-correlation functional")
    ecut: Positive = Field(300.0, description="plane-wave cutoff, eV (mode pw)")
    spacing: Positive = Field(0.2, description="grid spacing, Å (modes lcao and fd)")
    basis: str = Field("dzp", description="basis set (mode lcao)")
    dispersion: Literal["", "d3", "d4"] = Field(
        "", description='"d3" (Becke-Johnson damping) or "d4": Grimme\'s dispersion corrections (extra al-leignn[dispersion])'
    )
    hubbard_u: HubbardU = Field(default_factory=dict)
    datasets: dict[str, str] = Field(
        default_factory=dict,
        description='PAW data sets other than the usual ones, by element: {Na = "1"} is Na.1.PBE, with one valence electron',
    )
    vacuum: Positive = Field(
        6.0, description="least empty space on either side along directions that are not periodic, Å; added where missing"
    )
    smearing_ev: Smearing = 0.1
    spin: Spin = False
    initial_moments: Moments = Field(default_factory=dict)
    charge: float = Field(0.0, description="total charge, e")
    energy_convergence: Positive = Field(1e-5, description="SCF energy tolerance, eV per electron")
    density_convergence: Positive = Field(1e-4, description="SCF density tolerance, electrons per electron")
    eigenstates_convergence: Positive = Field(4e-8, description="SCF tolerance of the residuals, eV^2 per electron")
    max_scf: Count = Field(100, description="SCF steps before gentler settings are tried; unconverged when none is left")
    mixer_beta: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6, description="share of the new density mixed in each SCF step (Pulay mixing); does not change the result"
    )
    launch: list[str] = Field(default_factory=list, description='words put before the command, e.g. ["mpirun", "-np", "8"]')
    python: str = Field("", description="Python that has GPAW; empty: the one that runs al-leignn")
    time_limit_s: TimeLimit = 3600.0


class EspressoConfig(KpointsSection):
    """Quantum ESPRESSO (pw.x)."""

    type: Literal["quantum-espresso"] = "quantum-espresso"
    command: Annotated[list[str], Field(min_length=1)] = Field(
        ["pw.x"], description='words of the command, e.g. ["mpirun", "-np", "8", "pw.x"]; "-in FILE" is added'
    )
    pseudo_dir: str = Field("/usr/share/espresso/pseudo", description="folder of the pseudopotentials")
    pseudopotentials: dict[str, str] = Field(description="pseudopotential file in UPF format, by element")
    xc: str = Field("PBE", description="exchange-correlation functional; the pseudopotentials must be made for it")
    ecut: Positive = Field(600.0, description="plane-wave cutoff of the wavefunctions, eV")
    density_factor: Annotated[float, Field(ge=4)] = Field(
        8.0, description="cutoff of the density over that of the wavefunctions; 4 is enough for norm-conserving pseudopotentials"
    )
    dispersion: D3 = ""
    vacuum: Vacuum = 6.0
    smearing_ev: Smearing = 0.1
    spin: Spin = False
    initial_moments: Moments = Field(default_factory=dict)
    charge: float = Field(0.0, description="total charge, e")
    energy_convergence: Positive = Field(1e-6, description="SCF energy tolerance, eV per atom")
    max_scf: Count = Field(80, description="SCF steps before gentler settings are tried; unconverged when none is left")
    mixer_beta: MixerBeta = 0.6
    time_limit_s: TimeLimit = 3600.0


class Cp2kConfig(KpointsSection):
    """CP2K (Quickstep, Gaussian and plane waves)."""

    type: Literal["cp2k"] = "cp2k"
    command: Annotated[list[str], Field(min_length=1)] = Field(
        ["cp2k"], description='words of the command, e.g. ["mpirun", "-np", "8", "cp2k.psmp"]; "-i FILE -o FILE" is added'
    )
    data_dir: str = Field("/usr/share/cp2k", description="folder of CP2K's basis sets and potentials")
    basis_file: str = Field("BASIS_MOLOPT", description="file of the basis sets, in data_dir")
    basis: str = Field("DZVP-MOLOPT-SR-GTH", description="basis set of all elements")
    potential_file: str = Field("GTH_POTENTIALS", description="file of the pseudopotentials, in data_dir")
    xc: Literal["PBE", "PBESOL", "BLYP", "LDA"] = Field("PBE", description="exchange-correlation functional")
    dispersion: D3 = ""
    cutoff: Positive = Field(6800.0, description="cutoff of the finest density grid, eV (500 Ry)")
    rel_cutoff: Positive = Field(820.0, description="cutoff that a Gaussian of exponent 1 is mapped to, eV (60 Ry)")
    vacuum: Vacuum = 6.0
    smearing_ev: Smearing = 0.1
    spin: Spin = False
    initial_moments: Moments = Field(default_factory=dict)
    charge: int = Field(0, description="total charge, e")
    scf_convergence: Positive = Field(1e-6, description="SCF tolerance of the density matrix (EPS_SCF)")
    max_scf: Count = Field(80, description="SCF steps before gentler settings are tried; unconverged when none is left")
    mixer_beta: MixerBeta = 0.4
    time_limit_s: TimeLimit = 3600.0


class VaspConfig(KpointsSection):
    """VASP, with inputs from pymatgen's static set of the Materials Project."""

    type: Literal["vasp"] = "vasp"
    command: Annotated[list[str], Field(min_length=1)] = Field(
        ["vasp_std"], description='words of the command, e.g. ["mpirun", "-np", "8", "vasp_std"]'
    )
    version: str = Field("6", description="version of VASP: labels of another version are not reused")
    potcar_dir: str = Field("", description="folder of POTCAR files in pymatgen's layout; empty: its setting PMG_VASP_PSP_DIR")
    potcar: Literal["PBE", "PBE_52", "PBE_54", "PBE_64"] = Field(
        "PBE_54", description="family of POTCAR files, in pymatgen's words"
    )
    xc: Literal["PBE", "PBEsol", "r2SCAN"] = Field("PBE", description="exchange-correlation functional")
    dispersion: D3 = ""
    ecut: Positive = Field(520.0, description="plane-wave cutoff (ENCUT), eV")
    vacuum: Vacuum = 6.0
    smearing_ev: Positive = Field(0.1, description="Fermi-Dirac width, eV")
    spin: Spin = False
    initial_moments: Moments = Field(default_factory=dict)
    hubbard_u: HubbardU = Field(default_factory=dict)
    energy_convergence: Positive = Field(1e-6, description="SCF energy tolerance (EDIFF), eV")
    max_scf: Count = Field(100, description="SCF steps before gentler settings are tried; unconverged when none is left")
    incar: dict[str, Any] = Field(default_factory=dict, description="further INCAR tags; they are part of the level of theory")
    time_limit_s: TimeLimit = 3600.0


class AseConfig(Section):
    """Any ASE calculator, by import path."""

    type: Literal["ase"] = "ase"
    calculator: str = Field(description='import path, e.g. "ase.calculators.emt:EMT"')
    arguments: dict[str, Any] = Field(default_factory=dict, description="keyword arguments of the calculator")
    time_limit_s: TimeLimit = 3600.0

    @model_validator(mode="after")
    def _runs_no_commands(self) -> "AseConfig":
        package = self.calculator.partition(":")[0].partition(".")[0]
        if package in sys.stdlib_module_names:
            raise ValueError(f"calculator is {self.calculator!r}: a part of Python, not an ASE calculator")
        if "command" in self.arguments:
            raise ValueError(
                'arguments has a command, which ASE would hand to a shell: use type "external", or ASE\'s own configuration file'
            )
        return self


class ExternalConfig(Section):
    """Any command that reads one extended XYZ frame and writes one with energy, forces and stress."""

    type: Literal["external"] = "external"
    command: Annotated[list[str], Field(min_length=1)] = Field(
        description="words of the command; {input} and {output} are replaced by file names, no shell is involved"
    )
    version: str = Field(
        "1", description="raise this when the command's results change: labels of another version are not reused"
    )
    time_limit_s: TimeLimit = 3600.0


class MailboxConfig(Section):
    """DFT that runs elsewhere: inputs are left in a folder, and whoever runs them brings the outputs back."""

    type: Literal["mailbox"] = "mailbox"
    folder: str = Field("mailbox", description="where inputs are left and outputs are looked for, relative to this file")
    level: str = Field(
        "", description="level of theory, code and version in words; needed without code, to be changed when results do"
    )
    code: Annotated[EspressoConfig | Cp2kConfig | VaspConfig, Field(discriminator="type")] | None = Field(
        None, description="settings of the code whose inputs are written; absent: extended XYZ frames, answered in extended XYZ"
    )

    @model_validator(mode="after")
    def _names_its_level(self) -> "MailboxConfig":
        if not self.level and self.code is None:
            raise ValueError("give level (the level of theory in words) or code (settings of the code that is run)")
        return self


Labeller = Annotated[
    GpawConfig | EspressoConfig | Cp2kConfig | VaspConfig | AseConfig | ExternalConfig | MailboxConfig,
    Field(discriminator="type"),
]
LABELLERS: dict[str, type[Section]] = {
    "gpaw": GpawConfig,
    "quantum-espresso": EspressoConfig,
    "cp2k": Cp2kConfig,
    "vasp": VaspConfig,
    "ase": AseConfig,
    "external": ExternalConfig,
    "mailbox": MailboxConfig,
}
"""Every labeller by its type."""


class CheckConfig(Section):
    """What a label must pass before it may enter the data set."""

    max_force: Positive = Field(100.0, description="labels with a larger force component are rejected, eV/Å")
    residual_factor: Positive = Field(
        3.0,
        description="labels farther from the committee than this many times its calibrated bound are computed once more, with "
        "tighter settings, and compared",
    )
    repeat_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.03,
        description="share of the labels, drawn at random, that an inverted, shifted and reordered structure must confirm",
    )
    max_refused: Annotated[float, Field(gt=0, le=1)] = Field(
        0.6,
        description="share of an iteration's labels that may be refused before the campaign stops and says why",
    )


ObservableKind = Literal["rdf", "adf", "coordination", "msd", "diffusion", "vdos", "energy", "pressure", "density", "forces"]


class ConvergeConfig(Section):
    """When to stop."""

    target_force_error: Positive = Field(0.03, description="force MAE (per component) to reach on fresh labels, eV/Å")
    target_energy_error: Positive = Field(0.005, description="energy MAE to reach on fresh labels, eV/atom")
    accurate_share: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="share of the explored frames that must be within the trust level"
    )
    references: list[str] = Field(
        default_factory=list,
        description="AIMD trajectories (`al-leignn aimd` makes them), relative to this file: MD of the committee must be "
        "equivalent to each; none: the weaker claim is made, without observables",
    )
    observables: list[ObservableKind] = Field(
        default_factory=list, description="kinds of observables to compare with the references; empty: all that both have"
    )
    tolerances: dict[ObservableKind, Positive] = Field(
        default_factory=dict,
        description="largest difference from the references that does not matter, by kind of observable "
        "(docs/validation.md has units and defaults)",
    )
    stability_ps: Annotated[float, Field(ge=0)] = Field(
        30.0,
        description="without references: length of MD (ps, at the highest temperature) whose observables must not differ from "
        "those of the committee before; 0: not asked for",
    )
    iterations: Count = Field(1, description="iterations in a row for which every condition must hold")
    stall_iterations: Annotated[int, Field(ge=2)] = Field(
        4, description="iterations without a lower fresh force error after which the campaign is stalled"
    )


class BudgetConfig(Section):
    """What the campaign may spend."""

    iterations: Count = Field(10, description="iterations, at most")
    labels: Count = Field(500, description="labels, at most")
    core_hours: Positive | None = Field(None, description="core-hours of labelling, at most; absent: no limit")


class CampaignConfig(Section):
    """campaign.toml."""

    name: str = Field(description="name of the campaign")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="all random numbers derive from it")
    structures: Annotated[list[str], Field(min_length=1)] = Field(description="starting structures, relative to this file")
    data: list[str] = Field(
        default_factory=list, description="labelled frames to start from (extended XYZ), relative to this file"
    )
    label_store: str = Field("labels", description="folder of the label store; campaigns may share one")
    labeller: Labeller
    checks: CheckConfig = Field(default_factory=lambda: CheckConfig())
    model: ModelConfig = Field(default_factory=lambda: ModelConfig())
    train: TrainConfig = Field(default_factory=lambda: TrainConfig())
    seeds: SeedConfig = Field(default_factory=lambda: SeedConfig())
    explore: ExploreConfig = Field(default_factory=lambda: ExploreConfig())
    select: SelectConfig = Field(default_factory=lambda: SelectConfig())
    converge: ConvergeConfig = Field(default_factory=lambda: ConvergeConfig())
    budget: BudgetConfig = Field(default_factory=lambda: BudgetConfig())

    @model_validator(mode="after")
    def _only_local_in_other_ensembles(self) -> "CampaignConfig":
        if self.model.preset == "paper" and self.explore.ensemble != "nvt":
            raise ValueError(
                f'explore.ensemble = "{self.explore.ensemble}" needs model.preset = "local": the paper preset is not '
                "size-consistent, and direct forces heat a run without thermostat"
            )
        return self


def load_config(path: Path) -> CampaignConfig:
    """Read and check a campaign.toml.

    Raises
    ------
    ConfigError
        Naming the key, what it may be, and the nearest known key where one is misspelt.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("there is no campaign.toml", where=str(path), fix="run `al-leignn init STRUCTURE` first") from None
    except OSError as error:
        raise ConfigError(f"campaign.toml cannot be read: {error.strerror}", where=str(path)) from None
    except UnicodeDecodeError:
        raise ConfigError("campaign.toml is not a text file (UTF-8)", where=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}", where=str(path)) from None
    try:
        return CampaignConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(error, CampaignConfig, str(path)) from None


def checked_explore(**values: Any) -> ExploreConfig:
    """An ExploreConfig from command-line options; raises `ConfigError` naming the option."""
    try:
        return ExploreConfig(**values)
    except ValidationError as error:
        raise config_error(error, ExploreConfig, "command line") from None


def config_error(error: ValidationError, schema: type[Section], where: str) -> ConfigError:
    """Say in the user's words what pydantic found (first problem in full, the number of others)."""
    problems = error.errors()
    first = problems[0]
    # A discriminated union puts its tag into the location; the user did not write it.
    keys = [str(part) for part in first["loc"]]
    shown = ".".join(key for i, key in enumerate(keys) if not (i == 1 and keys[0] == "labeller" and key in LABELLERS))
    fix = ""
    match first["type"]:
        case "extra_forbidden":
            known = _known_keys(schema, keys[:-1])
            near = difflib.get_close_matches(keys[-1], known, n=1)
            what = f"unknown key {shown!r}"
            fix = (f"did you mean {near[0]!r}? " if near else "") + "allowed here: " + ", ".join(known)
        case "missing":
            what = f"key {shown!r} is missing"
        case "literal_error":
            given = first["input"]
            what = f"{shown!r} is {given!r}"
            fix = f"allowed: {first.get('ctx', {}).get('expected', '')}"
        case "value_error":  # from the validators here, which say themselves what was found
            what = (f"{shown!r}: " if shown else "") + first["msg"].removeprefix("Value error, ")
        case _:
            what = f"{shown!r}: {first['msg']} (found {first['input']!r})"
    if len(problems) > 1:
        fix = (fix + "\n         " if fix else "") + f"and {len(problems) - 1} more problem(s) in this file"
    return ConfigError(what, where=where, fix=fix)


def _known_keys(schema: type[Section], path: list[str]) -> list[str]:
    """Keys allowed at a place in the file; empty where there is no section."""
    here = schema
    for key in path:
        if key == "labeller":
            continue
        if key in LABELLERS:
            here = LABELLERS[key]
            continue
        if key.isdigit():  # an entry of a list of sections
            continue
        annotation = here.model_fields[key].annotation
        annotation = get_args(annotation)[0] if get_origin(annotation) is list else annotation
        if not (isinstance(annotation, type) and issubclass(annotation, Section)):
            return []
        here = annotation
    return list(here.model_fields)
