"""Quantum ESPRESSO's pw.x: input and output through ASE, SCF convergence and functional read from the output itself."""

import re
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.data import chemical_symbols
from ase.units import Ry

from al_leignn.config import EspressoConfig
from al_leignn.core import Frame, Labels, Reason
from al_leignn.label import kpoints
from al_leignn.label.box import in_box
from al_leignn.label.files import FileLabeller, absent_files, digest_in, printed_version, required_version, text_of
from al_leignn.label.output import NotALabelError, labels_of, require_same
from al_leignn.label.rescue import LADDER, TIGHTER

INPUT, OUTPUT = "pw.in", "pw.out"

# What pw.x and UPF files call a functional: its short name, or the names of its four parts.
_FUNCTIONALS = {
    "PBE": ("PBE", "SLA PW PBE PBE", "SLA PW PBX PBC"),
    "PBESOL": ("PBESOL", "SLA PW PSX PSC"),
    "LDA": ("LDA", "PZ", "SLA PZ NOGX NOGC", "SLA PZ"),
    "BLYP": ("BLYP", "B88 LYP", "SLA LYP B88 BLYP"),
}
_VERSION = r"Program PWSCF v\.(\S+)"
_XC = re.compile(r"Exchange-correlation\s*=\s*(.+)")


class EspressoLabeller(FileLabeller[EspressoConfig]):
    """Labels frames with pw.x."""

    code = "Quantum ESPRESSO"
    signature = "Program PWSCF"

    @property
    def version(self) -> str:
        return required_version(self._found_version(), self._config.command, "quantum-espresso")

    def _found_version(self) -> str | None:
        return printed_version((*self._config.command, "-in", "/dev/null"), _VERSION)

    def words(self) -> list[str]:
        return [*self._config.command, "-in", INPUT]

    def theory(self) -> dict[str, Any]:
        """Settings, and what is in the pseudopotential files."""
        config = self._config
        files = {s: digest_in(config.pseudo_dir, name) for s, name in config.pseudopotentials.items()}
        return self.settings() | {"pseudopotentials": files}

    def summary(self) -> str:
        c = self._config
        theory = f"{c.xc}{'-D3(BJ)' * bool(c.dispersion)}, plane waves to {c.ecut:g} eV, {kpoints.words(c)}, "
        theory += f"Fermi-Dirac {c.smearing_ev:g} eV" + ", spin-polarised" * c.spin + f", charge {c.charge:+g} e" * bool(c.charge)
        return theory + "; " + ", ".join(f"{s}: {name}" for s, name in sorted(c.pseudopotentials.items()))

    def missing_command(self) -> list[str]:
        if self._found_version() is not None:
            return []
        return [f"a running {self._config.command[-1]}: apt-get install quantum-espresso, or its path in labeller.command"]

    def missing_files(self, species: Iterable[int]) -> list[str]:
        config = self._config
        symbols = [chemical_symbols[z] for z in sorted(set(species))]
        missing = [f"a pseudopotential of {s} in labeller.pseudopotentials" for s in symbols if s not in config.pseudopotentials]
        names = [config.pseudopotentials[s] for s in symbols if s in config.pseudopotentials]
        absent = absent_files(config.pseudo_dir, names, "labeller.pseudopotentials; put it there or mend pseudo_dir")
        for name in names if not absent else []:
            functional = _functional_of(Path(config.pseudo_dir) / name)
            if functional and not _same_functional(config.xc, functional):
                missing.append(f"a {config.xc} pseudopotential: {name} is for {functional}")
        return missing + absent

    def write_input(self, frame: Frame, folder: Path, rung: int = 0, *, tight: bool = False) -> None:
        from ase.io.espresso import write_espresso_in

        atoms = in_box(frame.atoms, self._config.vacuum)
        if self._config.spin:
            atoms.set_initial_magnetic_moments([self._config.initial_moments.get(s, 1.0) for s in atoms.symbols])
        grid = kpoints.grid_of(self._config, atoms)
        with (folder / INPUT).open("w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_espresso_in(
                file,
                atoms,
                input_data=self._namelists(frame.atoms, rung, tight=tight),
                pseudopotentials={s: self._config.pseudopotentials.get(s, f"{s}.UPF") for s in set(atoms.symbols)},
                kpts=grid,
                koffset=kpoints.shift_of(self._config, grid),
            )

    def read_output(self, frame: Frame, folder: Path) -> Labels:
        # Run here, standard output is in the file of run_bounded; elsewhere it is where people put it.
        found = next((path for path in (folder / OUTPUT, folder / "output.txt") if path.is_file()), folder / OUTPUT)
        return read_pw(frame, in_box(frame.atoms, self._config.vacuum), found, self._config.xc)

    def structure_in(self, path: Path) -> Atoms:
        return _structure(path)

    def _namelists(self, atoms: Atoms, rung: int, *, tight: bool) -> dict[str, dict[str, Any]]:
        config, gentler = self._config, LADDER[rung]
        electrons: dict[str, Any] = {
            "conv_thr": config.energy_convergence * len(atoms) / Ry * (TIGHTER if tight else 1.0),
            "electron_maxstep": config.max_scf * gentler.steps_factor * (2 if tight else 1),
            "mixing_beta": config.mixer_beta * gentler.beta_factor,
            "scf_must_converge": True,
        }
        if rung > 0:
            electrons |= {"mixing_mode": "local-TF", "diagonalization": "cg" if rung > 1 else "david"}
        # Forces and energy must depend smoothly on the positions, so only time reversal reduces the k-points.
        system: dict[str, Any] = {
            "ecutwfc": config.ecut / Ry,
            "ecutrho": config.ecut / Ry * config.density_factor,
            "nosym": True,
            "input_dft": config.xc.lower() if config.xc.upper() != "LDA" else "pz",
            "tot_charge": config.charge,
        }
        if config.smearing_ev > 0:
            system |= {"occupations": "smearing", "smearing": "fermi-dirac", "degauss": config.smearing_ev / Ry}
        if config.spin:
            system["nspin"] = 2
        if config.dispersion:
            system |= {"vdw_corr": "grimme-d3", "dftd3_version": 4, "dftd3_threebody": False}
        control = {
            "calculation": "scf",
            "tprnfor": True,
            "tstress": bool(atoms.pbc.all()),
            "disk_io": "none",
            "outdir": ".",
            "pseudo_dir": config.pseudo_dir,
        }
        return {"control": control, "system": system, "electrons": electrons}


def read_pw(frame: Frame, boxed: Atoms, path: Path, xc: str) -> Labels:
    """The label in the output of pw.x for `frame`, which was computed as `boxed`.

    Raises
    ------
    NotALabelError
        If it is not converged, not whole, of another frame or of another functional.
    """
    text = text_of(path)
    if "convergence NOT achieved" in text:
        raise NotALabelError(Reason.UNCONVERGED, "pw.x says: convergence NOT achieved")
    if "JOB DONE" not in text or "convergence has been achieved" not in text:
        raise NotALabelError(Reason.BAD_OUTPUT, "the output is cut off: it has no JOB DONE")
    used = _XC.search(text)
    if used is None or not _same_functional(xc, used[1]):
        raise NotALabelError(Reason.WRONG_LEVEL, f"the functional is {'unknown' if used is None else used[1].strip()}, not {xc}")
    try:
        given = _structure(path)
    except Exception as error:  # noqa: BLE001 - the reader raises anything on damaged text
        raise NotALabelError(Reason.BAD_OUTPUT, f"ASE cannot read it: {error}") from None
    given.pbc = boxed.pbc
    require_same(boxed, given)
    labels = labels_of(given)
    return Labels(labels.energy, labels.forces, labels.stress if frame.atoms.pbc.all() else None)


def _structure(path: Path) -> Atoms:
    from ase.io import read  # slow to load, and `al-leignn check` gets along without

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = read(path, format="espresso-out")
    assert isinstance(given, Atoms)  # the last frame
    return given


def _same_functional(asked: str, found: str) -> bool:
    names = _FUNCTIONALS.get(asked.upper(), (asked.upper(),))
    return " ".join(found.upper().replace("-", " ").split()) in names


def _functional_of(path: Path) -> str:
    """Functional of a UPF file, as its header says; empty where it does not."""
    head = path.read_text(encoding="utf-8", errors="replace")[:20_000]
    found = re.search(r'functional="\s*([^"]+?)\s*"', head) or re.search(
        r"^\s*(.+?)\s+Exchange-Correlation functional", head, re.MULTILINE
    )
    return "" if found is None else found[1]
