"""CP2K's Quickstep: input from a nested dictionary, output by its documented lines, SCF convergence looked for in them."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.units import Bohr, Hartree, Ry, kB

from al_leignn.config import Cp2kConfig
from al_leignn.core import Frame, Labels, Reason
from al_leignn.label import kpoints
from al_leignn.label.box import in_box
from al_leignn.label.files import FileLabeller, absent_files, digest_in, printed_version, required_version, text_of
from al_leignn.label.output import NotALabelError, require_same
from al_leignn.label.rescue import LADDER, TIGHTER
from al_leignn.units import GPA, voigt

INPUT, OUTPUT = "cp2k.inp", "cp2k.out"

CELL_PRINTED = 6e-4
"""Å. CP2K prints its cell to three decimals."""

_XC: dict[str, dict[str, Any]] = {
    "PBE": {"XC_FUNCTIONAL PBE": {}},
    "PBESOL": {"XC_FUNCTIONAL": {"PBE": {"PARAMETRIZATION": "PBESOL"}}},
    "BLYP": {"XC_FUNCTIONAL BLYP": {}},
    "LDA": {"XC_FUNCTIONAL PADE": {}},
}
_POTENTIALS = {"PBE": "PBE", "PBESOL": "PBE", "BLYP": "BLYP", "LDA": "PADE"}

_NUMBER = r"[-+]?\d+\.\d+(?:E[-+]?\d+)?"
_THREE = rf"\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})"
_VERSION = r"CP2K version (\S+)"
_ENERGY = re.compile(rf"ENERGY\| Total FORCE_EVAL \( QS \) energy \S+\s+({_NUMBER})")
_FORCE = re.compile(rf"^\s+\d+\s+\d+\s+[A-Z][a-z]?{_THREE}\s*$", re.MULTILINE)
_PLACE = re.compile(rf"^\s+\d+\s+\d+\s+([A-Z][a-z]?)\s+\d+{_THREE}\s", re.MULTILINE)
_CELL = re.compile(rf"CELL\| Vector [abc] \[angstrom\]:?{_THREE}")
_STRESS = re.compile(rf"STRESS\|\s+[xyz]{_THREE}")
_ABORT = re.compile(r"\[ABORT\].*\n \*  \\___/\s+(\S.*?)\s+\*\n")
_FUNCTIONAL = re.compile(r"FUNCTIONAL\|\s+(\w+)")

Tree = Mapping[str, Any]


class Cp2kLabeller(FileLabeller[Cp2kConfig]):
    """Labels frames with CP2K."""

    code = "CP2K"
    signature = "CP2K| version string"

    @property
    def version(self) -> str:
        return required_version(self._found_version(), self._config.command, "cp2k")

    def _found_version(self) -> str | None:
        return printed_version((*self._config.command, "--version"), _VERSION)

    def words(self) -> list[str]:
        # Not every build knows where its data lie; `env` tells it without touching our own environment.
        return ["env", f"CP2K_DATA_DIR={self._config.data_dir}", *self._config.command, "-i", INPUT, "-o", OUTPUT]

    def theory(self) -> dict[str, Any]:
        """Settings, and what is in the files of basis sets and pseudopotentials."""
        values = self.settings()
        if not values["spin"]:
            del values["initial_moments"]  # they are not read then, and younger than some labels
        return values | {name: digest_in(self._config.data_dir, values[name]) for name in ("basis_file", "potential_file")}

    def summary(self) -> str:
        c = self._config
        theory = f"{c.xc}{'-D3(BJ)' * bool(c.dispersion)}, {c.basis}, GTH, grid {c.cutoff:g} eV, {kpoints.words(c)}, "
        return (
            theory
            + f"Fermi-Dirac {c.smearing_ev:g} eV"
            + ", spin-polarised" * c.spin
            + f", charge {c.charge:+d} e" * bool(c.charge)
        )

    def missing_command(self) -> list[str]:
        if self._found_version() is not None:
            return []
        return [f"a running {self._config.command[-1]}: apt-get install cp2k, or its path in labeller.command"]

    def missing_files(self, species: Iterable[int]) -> list[str]:
        config = self._config
        missing = absent_files(config.data_dir, [config.basis_file, config.potential_file], "labeller; apt-get install cp2k-data")
        if missing:
            return missing
        for symbol in (chemical_symbols[z] for z in sorted(set(species))):
            wanted = ((config.basis_file, config.basis), (config.potential_file, self._potential()))
            missing += [f"{name} of {symbol} in {file}" for file, name in wanted if not self._has(file, symbol, name)]
        return missing

    def write_input(self, frame: Frame, folder: Path, rung: int = 0, *, tight: bool = False) -> None:
        atoms = in_box(frame.atoms, self._config.vacuum)
        (folder / INPUT).write_text(render(self._tree(frame.atoms, atoms, rung, tight=tight)), encoding="utf-8")

    def read_output(self, frame: Frame, folder: Path) -> Labels:
        return read_cp2k(frame, in_box(frame.atoms, self._config.vacuum), folder / OUTPUT, self._config.xc)

    def complaint(self, folder: Path, tail: str) -> str:
        output = folder / OUTPUT
        said = _ABORT.search(output.read_text(encoding="utf-8", errors="replace")) if output.is_file() else None
        return super().complaint(folder, tail) if said is None else said[1]

    def structure_in(self, path: Path) -> Atoms:
        return _structure(text_of(path))

    def _tree(self, original: Atoms, atoms: Atoms, rung: int, *, tight: bool) -> Tree:
        config = self._config
        moments = {s: {"MAGNETIZATION": config.initial_moments.get(s, 1.0)} if config.spin else {} for s in set(atoms.symbols)}
        kinds = {f"KIND {s}": {"BASIS_SET": config.basis, "POTENTIAL": self._potential()} | moments[s] for s in sorted(moments)}
        cell = {name: " ".join(f"{x:.10f}" for x in row) for name, row in zip("ABC", np.asarray(atoms.cell), strict=True)}
        coord = [f"{s} " + " ".join(f"{x:.10f}" for x in p) for s, p in zip(atoms.symbols, atoms.positions, strict=True)]
        stress = bool(original.pbc.all())
        return {
            "GLOBAL": {"PROJECT": "frame", "RUN_TYPE": "ENERGY_FORCE", "PRINT_LEVEL": "MEDIUM"},
            "FORCE_EVAL": {
                "METHOD": "QS",
                "STRESS_TENSOR": "ANALYTICAL" if stress else "NONE",
                "DFT": self._dft(atoms, rung, tight=tight),
                "SUBSYS": {"CELL": cell | {"PERIODIC": "XYZ"}, "COORD": coord, **kinds},
                "PRINT": {"FORCES ON": {}, "STRESS_TENSOR ON": {}},
            },
        }

    def _dft(self, atoms: Atoms, rung: int, *, tight: bool) -> Tree:
        config, gentler = self._config, LADDER[rung]
        scf: dict[str, Any] = {
            "SCF_GUESS": "ATOMIC",
            "EPS_SCF": config.scf_convergence * (TIGHTER if tight else 1.0),
            "MAX_SCF": config.max_scf * gentler.steps_factor * (2 if tight else 1),
            "DIAGONALIZATION ON": {},
            "MIXING": {"METHOD": "BROYDEN_MIXING", "ALPHA": config.mixer_beta * gentler.beta_factor, "NBUFFER": 8},
            "PRINT": {"RESTART OFF": {}},
        }
        if config.smearing_ev > 0:
            # Bands beyond the occupied ones: about half as many again in an average crystal.
            scf["ADDED_MOS"] = max(8, len(atoms)) * (2 if gentler.bands else 1)
            scf["SMEAR ON"] = {"METHOD": "FERMI_DIRAC", "ELECTRONIC_TEMPERATURE": f"[K] {config.smearing_ev / kB:.6f}"}
        xc: dict[str, Any] = {**_XC[config.xc]}
        if config.dispersion:
            pair = {"TYPE": "DFTD3(BJ)", "PARAMETER_FILE_NAME": "dftd3.dat", "REFERENCE_FUNCTIONAL": config.xc, "R_CUTOFF": 25}
            xc["VDW_POTENTIAL"] = {"POTENTIAL_TYPE": "PAIR_POTENTIAL", "PAIR_POTENTIAL": pair}
        grid = kpoints.grid_of(config, atoms)
        dft: dict[str, Any] = {
            "BASIS_SET_FILE_NAME": config.basis_file,
            "POTENTIAL_FILE_NAME": config.potential_file,
            "CHARGE": config.charge,
            "UKS": config.spin,
            "MGRID": {"CUTOFF": config.cutoff / Ry, "REL_CUTOFF": config.rel_cutoff / Ry},
            "QS": {"EPS_DEFAULT": 1e-12},
            "SCF": scf,
            "XC": xc,
        }
        if grid != (1, 1, 1):
            # CP2K's own Monkhorst-Pack grids lie beside Gamma where a number is even; half a step brings them onto it.
            shift = [
                (1 - beside) * (n % 2 == 0) / (2 * n) for n, beside in zip(grid, kpoints.shift_of(config, grid), strict=True)
            ]
            dft["KPOINTS"] = {"SCHEME": " ".join(["MACDONALD", *map(str, grid), *(f"{x:g}" for x in shift)])}
        return dft

    def _potential(self) -> str:
        return f"GTH-{_POTENTIALS[self._config.xc]}"

    def _has(self, file: str, symbol: str, name: str) -> bool:
        text = (Path(self._config.data_dir) / file).read_text(encoding="utf-8", errors="replace")
        return (
            re.search(rf"^\s*{symbol}\s+(?:\S+\s+)*?{re.escape(name)}(?:-q\d+)?(?:\s|$)", text, re.MULTILINE | re.IGNORECASE)
            is not None
        )


def render(tree: Tree | list[str], indent: int = 0) -> str:
    """CP2K's input language: sections are dictionaries, keywords strings, numbers and flags; lists are lines."""
    pad = "  " * indent
    if isinstance(tree, list):
        return "".join(f"{pad}{line}\n" for line in tree)
    text = ""
    for key, value in tree.items():
        if isinstance(value, (Mapping, list)):
            text += f"{pad}&{key}\n{render(value, indent + 1)}{pad}&END {key.split()[0]}\n"
        else:
            text += f"{pad}{key} {str(value).upper() if isinstance(value, bool) else value}\n"
    return text


def read_cp2k(frame: Frame, boxed: Atoms, path: Path, xc: str) -> Labels:
    """The label in an output of CP2K for `frame`, which was computed as `boxed`.

    The energy is the free energy of the smeared electrons. CP2K's stress is positive under pressure; ours under tension.

    Raises
    ------
    NotALabelError
        If it is not converged, not whole, of another frame or of another functional.
    """
    text = text_of(path)
    if "SCF run NOT converged" in text or "SCF run converged" not in text:
        reason = Reason.UNCONVERGED if "SCF run NOT" in text else Reason.BAD_OUTPUT
        raise NotALabelError(reason, "CP2K does not say: SCF run converged")
    if "PROGRAM ENDED AT" not in text:
        raise NotALabelError(Reason.BAD_OUTPUT, "the output is cut off: it has no PROGRAM ENDED AT")
    used = _FUNCTIONAL.search(text)
    if used is None or used[1].upper() not in (xc, {"LDA": "PADE", "PBESOL": "PBE"}.get(xc, xc)):
        raise NotALabelError(Reason.WRONG_LEVEL, f"the functional is {'unknown' if used is None else used[1]}, not {xc}")
    given = _structure(text)
    energy, forces = _ENERGY.search(text), _FORCE.findall(text.partition("ATOMIC FORCES")[2].partition("SUM OF")[0])
    if energy is None or len(forces) != len(given):
        raise NotALabelError(Reason.INCOMPLETE, "energy or forces are missing")
    given.pbc = boxed.pbc
    if np.abs(np.asarray(given.cell) - np.asarray(boxed.cell)).max() <= CELL_PRINTED:
        given.cell[:] = boxed.cell
    require_same(boxed, given)
    stress = _STRESS.findall(text)
    return Labels(
        float(energy[1]) * Hartree,
        np.array(forces, dtype=float) * (Hartree / Bohr),
        voigt(-GPA * np.array(stress[:3], dtype=float)) if frame.atoms.pbc.all() and len(stress) >= 3 else None,
    )


def _structure(text: str) -> Atoms:
    """Raises `NotALabelError` where there is none."""
    places, cell = _PLACE.findall(text), _CELL.findall(text)
    if not places or len(cell) < 3:
        raise NotALabelError(Reason.INCOMPLETE, "coordinates or cell are missing")
    return Atoms([p[0] for p in places], np.array([p[1:] for p in places], dtype=float), cell=np.array(cell[:3], dtype=float))
