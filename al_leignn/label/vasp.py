"""VASP: inputs from pymatgen's static set of the Materials Project, outputs through pymatgen's Vasprun."""

import importlib.metadata
import shutil
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from al_leignn.config import VaspConfig
from al_leignn.core import Frame, Labels, Reason
from al_leignn.label import kpoints
from al_leignn.label.box import in_box
from al_leignn.label.files import FileLabeller, text_of
from al_leignn.label.hubbard import shell_of
from al_leignn.label.output import NotALabelError, require_same
from al_leignn.label.rescue import LADDER, TIGHTER
from al_leignn.shapes import Int
from al_leignn.units import GPA, voigt

if TYPE_CHECKING:
    from pymatgen.io.vasp.outputs import Vasprun
    from pymatgen.io.vasp.sets import MPStaticSet

OUTPUT = "vasprun.xml"

_XC: dict[str, dict[str, Any]] = {"PBE": {"GGA": "Pe"}, "PBEsol": {"GGA": "Ps"}, "r2SCAN": {"METAGGA": "R2scan", "GGA": None}}


class VaspLabeller(FileLabeller[VaspConfig]):
    """Labels frames with VASP."""

    code = "VASP"
    signature = "<modeling>"

    @property
    def version(self) -> str:
        # VASP tells its version only in outputs; there it is compared with what the user says.
        return self._config.version

    def words(self) -> list[str]:
        return list(self._config.command)

    def theory(self) -> dict[str, Any]:
        """Settings, and the version of pymatgen, whose set the other tags come from."""
        return self.settings() | {"input set": f"MPStaticSet of pymatgen {importlib.metadata.version('pymatgen-core')}"}

    def summary(self) -> str:
        c = self._config
        theory = (
            f"{c.xc}{'-D3(BJ)' * bool(c.dispersion)}{'+U' * bool(c.hubbard_u)}, {c.potcar} PAW, plane waves to {c.ecut:g} eV, "
        )
        return theory + f"{kpoints.words(c)}, Fermi-Dirac {c.smearing_ev:g} eV" + ", spin-polarised" * c.spin

    def missing_command(self) -> list[str]:
        if shutil.which(self._config.command[0]) is not None:
            return []
        return [f"the command {self._config.command[0]}: VASP needs a licence; name another labeller, or the mailbox"]

    def missing_files(self, species: Iterable[int]) -> list[str]:
        symbols = [chemical_symbols[z] for z in sorted(set(species))]
        try:
            probe = Atoms(
                symbols, positions=np.eye(3)[:1] * 3.0 * np.arange(len(symbols))[:, None], cell=[9.0 * len(symbols)] * 3, pbc=True
            )
            with _potcars(self._config.potcar_dir):
                _ = self._input_set(probe, 0, tight=False).potcar
        except Exception as error:  # noqa: BLE001 - pymatgen raises many things where it finds no POTCAR
            what = str(error).splitlines()[0] if str(error) else type(error).__name__
            return [f"POTCAR files ({self._config.potcar}) in labeller.potcar_dir, in pymatgen's layout: {what}"]
        return []

    def write_input(self, frame: Frame, folder: Path, rung: int = 0, *, tight: bool = False) -> None:
        """INCAR, KPOINTS, POSCAR and POTCAR; where there are no POTCAR files here, a list of those that belong there."""
        boxed = in_box(frame.atoms, self._config.vacuum)
        atoms = boxed[by_species(boxed)]
        atoms.pbc = True
        with _potcars(self._config.potcar_dir):
            inputs = self._input_set(atoms, rung, tight=tight)
            try:
                inputs.write_input(str(folder))
            except (ValueError, OSError, RuntimeError):
                inputs.write_input(str(folder), potcar_spec=True)

    def read_output(self, frame: Frame, folder: Path) -> Labels:
        return read_vasprun(frame, in_box(frame.atoms, self._config.vacuum), folder / OUTPUT, self._config)

    def structure_in(self, path: Path) -> Atoms:
        return _structure(_vasprun(path))

    def _input_set(self, atoms: Atoms, rung: int, *, tight: bool) -> "MPStaticSet":
        from pymatgen.io.ase import AseAtomsAdaptor
        from pymatgen.io.vasp.inputs import Kpoints
        from pymatgen.io.vasp.sets import MPStaticSet

        grid = kpoints.grid_of(self._config, atoms)
        make = Kpoints.monkhorst_automatic if any(kpoints.shift_of(self._config, grid)) else Kpoints.gamma_automatic
        return MPStaticSet(
            AseAtomsAdaptor.get_structure(atoms),
            user_incar_settings=self._incar(atoms, rung, tight=tight),
            user_kpoints_settings=make(grid),  # type: ignore[arg-type]  # its annotation forgets Kpoints
            user_potcar_functional=self._config.potcar,
            sort_structure=False,
            validate_magmom=False,
        )

    def _incar(self, atoms: Atoms, rung: int, *, tight: bool) -> dict[str, Any]:
        """Tags that differ from the set's; None removes one of them."""
        config, gentler = self._config, LADDER[rung]
        tags: dict[str, Any] = {
            "ENCUT": config.ecut,
            "ISMEAR": -1,
            "SIGMA": config.smearing_ev,
            "EDIFF": config.energy_convergence * (TIGHTER if tight else 1.0),
            "NELM": config.max_scf * gentler.steps_factor * (2 if tight else 1),
            "ISYM": 0,
            "LREAL": False,
            "LASPH": True,
            "ALGO": ("Normal", "All", "Damped")[rung],
            "ISPIN": 2 if config.spin else 1,
            "MAGMOM": {s: config.initial_moments.get(s, 1.0) for s in set(atoms.symbols)} if config.spin else None,
            "LDAU": bool(config.hubbard_u),
            **dict.fromkeys(("LWAVE", "LCHARG", "LAECHG", "LVHAR", "LELF"), False),
            **dict.fromkeys(("LORBIT", "LDAUU", "LDAUJ", "LDAUL", "LDAUTYPE", "LDAUPRINT", "LMAXMIX")),
        }
        if config.hubbard_u:
            # The set takes these by element and writes them in the order of POSCAR.
            shell = {s: "spdf".index(shell_of(s)) for s in config.hubbard_u}
            tags |= {"LDAUTYPE": 2, "LDAUU": config.hubbard_u, "LDAUL": shell, "LDAUJ": dict.fromkeys(shell, 0.0)}
            tags |= {"LMAXMIX": 2 * max(shell.values())}
        if config.dispersion:
            tags["IVDW"] = 12
        return tags | _XC[config.xc] | config.incar


def by_species(atoms: Atoms) -> Int[np.ndarray, " n_atoms"]:
    """Order in which atoms of one species stand together, as VASP wants them."""
    return np.argsort(atoms.numbers, kind="stable")


def read_vasprun(frame: Frame, boxed: Atoms, path: Path, config: VaspConfig) -> Labels:
    """The label in a vasprun.xml for `frame`, which was computed as `boxed` with its atoms in the order of `by_species`.

    The energy is VASP's free energy, which the forces are derivatives of. Its stress is positive under pressure.

    Raises
    ------
    NotALabelError
        If it is not converged, not whole, of another frame, or of another level of theory or version.
    """
    text_of(path)
    try:
        run = _vasprun(path)
        step = run.ionic_steps[-1]
        given = _structure(run)
    except Exception as error:  # noqa: BLE001 - the reader raises anything on damaged text
        raise NotALabelError(Reason.BAD_OUTPUT, f"pymatgen cannot read it: {error}") from None
    if not run.converged_electronic:
        raise NotALabelError(Reason.UNCONVERGED, f"no self-consistency within {len(step['electronic_steps'])} SCF steps")
    _require_level(run, config)
    if "forces" not in step:
        raise NotALabelError(Reason.INCOMPLETE, "it has no forces")
    order = by_species(boxed)
    sorted_box = boxed[order]
    given.pbc = sorted_box.pbc
    require_same(sorted_box, given)
    forces = np.empty((len(order), 3))
    forces[order] = np.array(step["forces"], dtype=float)
    bulk = bool(frame.atoms.pbc.all()) and "stress" in step
    stress = voigt(-0.1 * GPA * np.array(step["stress"], dtype=float)) if bulk else None
    return Labels(float(step["e_fr_energy"]), forces, stress)


def _vasprun(path: Path) -> "Vasprun":
    from pymatgen.io.vasp.outputs import Vasprun

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Vasprun(path, parse_dos=False, parse_eigen=False, parse_potcar_file=False, exception_on_bad_xml=True)


def _structure(run: "Vasprun") -> Atoms:
    from pymatgen.io.ase import AseAtomsAdaptor

    return AseAtomsAdaptor.get_atoms(run.structures[-1], msonable=False)


def _require_level(run: "Vasprun", config: VaspConfig) -> None:
    """Raise `NotALabelError` if the run has another functional, cutoff or version than asked for."""
    found = str(run.parameters.get("METAGGA") or "").strip().upper()
    if found in ("", "NONE", "--"):
        found = str(run.parameters.get("GGA") or "").strip().upper()
    wanted = {"PBE": ("PE", "91"), "PBEsol": ("PS",), "r2SCAN": ("R2SCA", "R2SCAN")}[config.xc]
    if found not in wanted:
        raise NotALabelError(Reason.WRONG_LEVEL, f"the functional is {found or 'unknown'}, not {config.xc}")
    cutoff = float(run.parameters.get("ENMAX") or run.incar.get("ENCUT") or 0.0)
    if abs(cutoff - config.ecut) > 1e-3:
        raise NotALabelError(Reason.WRONG_LEVEL, f"the cutoff is {cutoff:g} eV, not {config.ecut:g}")
    if not str(run.vasp_version).startswith(config.version):
        raise NotALabelError(Reason.WRONG_LEVEL, f"it is of VASP {run.vasp_version}, not {config.version}")


@contextmanager
def _potcars(potcar_dir: str) -> Iterator[None]:
    """Pymatgen looks for POTCAR files in `potcar_dir`, and does not warn of those that it does not know by checksum."""
    from pymatgen.core import SETTINGS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if potcar_dir:
            SETTINGS["PMG_VASP_PSP_DIR"] = potcar_dir
        yield
