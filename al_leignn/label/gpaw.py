"""GPAW in processes of its own: what it is asked, and what its answer is worth. GPAW itself is met only in gpaw_worker.py."""

import atexit
import functools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from al_leignn.config import GpawConfig
from al_leignn.core import Frame, LabelFailure, Labels, Reason
from al_leignn.errors import LabellerError
from al_leignn.label import gpaw_worker, kpoints
from al_leignn.label.box import in_box
from al_leignn.label.files import last_line
from al_leignn.label.hubbard import shell_of
from al_leignn.label.process import Finished, run_bounded, whole_seconds
from al_leignn.label.rescue import LADDER, TIGHTER, Rung
from al_leignn.label.server import FolderServer
from al_leignn.store import digest_json

_WORKER = Path(__file__).with_name("gpaw_worker.py")
_INSTALL = (
    "pip install 'al-leignn[gpaw]' (compiled on this machine: needs a C++ compiler and the headers of libxc and BLAS, "
    "and those of MPI where there is an mpic++)"
)
_INSTALL_DATASETS = "pip install gpaw-data, or gpaw install-data FOLDER; else another element or labeller"
_PROBE_LIMIT_S = 120.0
_LIBXC = {"r2SCAN": "MGGA_X_R2SCAN+MGGA_C_R2SCAN"}
"""Functionals that GPAW knows by the names of libxc only."""
_MPI_LAUNCHERS = {"mpirun", "mpiexec", "orterun"}

# How the result is computed, not what it is: left out of the level of theory. So are keys that the mode does not read.
_ROUTE = {"launch", "python", "time_limit_s", "max_scf", "mixer_beta"}
_READ_BY = {"ecut": {"pw"}, "spacing": {"lcao", "fd"}, "basis": {"lcao"}, "eigenstates_convergence": {"pw", "fd"}}


class GpawLabeller:
    """Labels frames with GPAW, one process a frame: no label can depend on the frames before it."""

    rungs = len(LADDER)

    def __init__(self, config: GpawConfig, cpu_s: int | None = None) -> None:
        self._config = config
        self._cpu_s = cpu_s
        self._python = config.python or sys.executable
        self._follower: FolderServer | None = None

    @functools.cached_property
    def level(self) -> str:
        """Digest of the level of theory, GPAW's version and its PAW data sets.

        Raises
        ------
        LabellerError
            If there is no GPAW to ask for its version.
        """
        version = _versions(self._python)
        if version is None:
            raise LabellerError(f"{self._python} has no GPAW", where="labeller.python", fix=_INSTALL)
        # Only what takes part counts: a correction that is installed and not used changes nothing.
        used = {k: v for k, v in version.items() if not k.startswith("dftd") or k == f"dft{self._config.dispersion}"}
        return digest_json({"code": "gpaw", "versions": used, "theory": self._theory()})

    def describe(self) -> dict[str, str]:
        config = self._config
        basis = {
            "pw": f"plane waves to {config.ecut:g} eV",
            "lcao": f"{config.basis} orbitals, grid {config.spacing:g} Å",
            "fd": f"real-space grid {config.spacing:g} Å",
        }[config.mode]
        xc = config.xc + f"-{config.dispersion.upper()}" * bool(config.dispersion) + "+U" * bool(config.hubbard_u)
        theory = f"{xc}, {basis}, {kpoints.words(config)}, Fermi-Dirac {config.smearing_ev:g} eV"
        theory += ", spin-polarised" * config.spin + f", charge {config.charge:+g} e" * bool(config.charge)
        versions = _versions(self._python)
        code = "not installed" if versions is None else ", ".join(f"{name} {text}" for name, text in versions.items())
        return {
            "labeller": "GPAW",
            "level of theory": theory,
            "code": code,
            "settings": json.dumps(self._theory(), sort_keys=True),
        }

    def check(self, species: Iterable[int]) -> list[str]:
        versions = _versions(self._python)
        if versions is None:
            return [f"GPAW in {self._python}: {_INSTALL}"]
        kind = self._config.dispersion
        if kind and f"dft{kind}" not in versions:
            return [f"the Python package dft{kind} for labeller.dispersion: pip install 'al-leignn[dispersion]'"]
        names = gpaw_worker.datasets([chemical_symbols[z] for z in sorted(set(species))], _setups(self._config))
        try:
            missing = [
                f"PAW data set {name}: {_INSTALL_DATASETS}"
                for name in self._probe("probe", _LIBXC.get(self._config.xc, self._config.xc), *names)
            ]
            launch = self._config.launch
            if launch and Path(launch[0]).name in _MPI_LAUNCHERS and not self._probe("mpi"):
                missing.append(
                    "a GPAW with MPI for labeller.launch: this one has none, "
                    f"{' '.join(launch)} would compute every label several times"
                )
        except subprocess.TimeoutExpired as error:
            return [f"a GPAW that answers within {_PROBE_LIMIT_S:g} s: {' '.join(error.cmd)}"]
        except subprocess.CalledProcessError as error:
            return [f"a working GPAW in {self._python}: {last_line(error.stderr)}"]
        return missing

    def _probe(self, *words: str) -> Any:
        """What the worker script says of its GPAW."""
        command = [self._python, str(_WORKER), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_LIMIT_S, check=True)
        return json.loads(done.stdout)

    def within(self, cpu_s: float) -> "GpawLabeller":
        return GpawLabeller(self._config, whole_seconds(cpu_s))

    def label(self, frame: Frame, scratch: Path, rung: int = 0, *, tight: bool = False) -> Labels | LabelFailure:
        """One attempt in `scratch`, an empty folder, with the settings of a rung of the rescue ladder."""
        self._ask(frame, scratch, LADDER[rung], tight=tight, fresh=True)
        return self._answer(frame, scratch, self._run(scratch))

    def follow(self, frame: Frame, scratch: Path, *, fresh: bool) -> Labels | LabelFailure:
        """A label whose SCF starts from wavefunctions and density of the frame before, unless a fresh start is asked for.

        All frames are computed by one process. Under MPI (`launch`) each starts afresh.
        """
        if self._config.launch:
            return self.label(frame, scratch)
        self._ask(frame, scratch, LADDER[0], tight=False, fresh=fresh)
        if self._follower is None:
            self._follower = _new_server(self._python, "follow")
        done = self._follower.run(scratch, self._config.time_limit_s)
        # A GPAW that cannot start tells why when it is run alone.
        return self.label(frame, scratch) if done is None else self._answer(frame, scratch, done)

    def _ask(self, frame: Frame, scratch: Path, rung: Rung, *, tight: bool, fresh: bool) -> None:
        atoms = in_box(frame.atoms, self._config.vacuum)
        atoms.write(scratch / "frame.extxyz", format="extxyz")
        request = {
            "gpaw": gpaw_parameters(self._config, atoms, rung, tight=tight),
            "moments": [self._config.initial_moments.get(s, 1.0) for s in atoms.symbols] if self._config.spin else None,
            "dispersion": self._config.dispersion,
            "xc": self._config.xc,
            "stress": self._config.mode == "pw" and bool(frame.atoms.pbc.all()),
            "fresh": fresh,
            "cpu_s": self._cpu_s,
        }
        (scratch / "parameters.json").write_text(json.dumps(request, allow_nan=False), encoding="utf-8")

    def _answer(self, frame: Frame, scratch: Path, done: Finished) -> Labels | LabelFailure:
        if done.returncode is None:
            return LabelFailure(frame.uid, Reason.TIMEOUT, f"no result within {self._config.time_limit_s:g} s")
        result = _read_result(frame, scratch / "result.json")
        if done.returncode == 0:
            return result
        # What launchers of ranks print last is not what happened.
        complaint = last_line(done.tail)
        if isinstance(result, LabelFailure) and result.reason is Reason.CRASHED:
            complaint = result.detail
        return LabelFailure(frame.uid, done.reason, f"exit {done.returncode}: {complaint}")

    def _run(self, scratch: Path) -> Finished:
        limit = self._config.time_limit_s
        done = None if self._config.launch else shared_server(self._python).run(scratch, limit)
        # MPI, or a GPAW that cannot serve: a process of its own, which also tells what is wrong with it.
        return done or run_bounded([*self._config.launch, self._python, str(_WORKER), "label"], scratch, limit, self._cpu_s)

    def _theory(self) -> dict[str, Any]:
        mode = self._config.mode
        values = self._config.model_dump(mode="json")
        unused: dict[str, Any] = {
            "dispersion": "",
            "hubbard_u": {},
            "datasets": {},
            "kpt_spacing": None,
        }  # keys younger than labels that were made without them
        kept = {k: v for k, v in values.items() if k not in unused or v != unused[k]}
        return {k: v for k, v in kept.items() if k not in _ROUTE and mode in _READ_BY.get(k, {mode})}


def gpaw_parameters(config: GpawConfig, atoms: Atoms, rung: Rung, *, tight: bool = False) -> dict[str, Any]:
    """GPAW's keyword arguments for these atoms.

    Forces and energy must be derivatives of each other and depend smoothly on the positions, so symmetry is not looked for;
    only k and -k, equivalent whatever the structure, are counted once.
    """
    kpts = list(kpoints.grid_of(config, atoms))
    convergence = {"energy": config.energy_convergence, "density": config.density_convergence}
    if config.mode != "lcao":
        convergence["eigenstates"] = config.eigenstates_convergence
    if tight:
        convergence = {name: value * TIGHTER for name, value in convergence.items()}
    parameters: dict[str, Any] = {
        "mode": {"name": "pw", "ecut": config.ecut} if config.mode == "pw" else {"name": config.mode},
        "xc": _LIBXC.get(config.xc, config.xc),
        "kpts": {"size": kpts, "gamma": True} if config.gamma_centred else {"size": kpts},
        "symmetry": {"point_group": False},
        "occupations": {"name": "fermi-dirac", "width": config.smearing_ev},
        "convergence": convergence,
        "maxiter": config.max_scf * rung.steps_factor * (2 if tight else 1),
        "mixer": {"backend": "pulay", "beta": config.mixer_beta * rung.beta_factor, "nmaxold": 8, "weight": rung.weight},
        "charge": config.charge,
        "spinpol": config.spin,
    }
    if config.mode != "pw":
        parameters["h"] = config.spacing
    if config.mode == "lcao":
        parameters["basis"] = config.basis
    if setups := _setups(config):
        parameters["setups"] = setups
    if rung.bands is not None:
        parameters["nbands"] = rung.bands
    return parameters


def _setups(config: GpawConfig) -> dict[str, str]:
    """As GPAW wants them: by element the data set, empty for the usual one, and what a Hubbard U is added to."""
    extra = {s: f":{shell_of(s)},{u:g}" for s, u in config.hubbard_u.items()}
    return {s: config.datasets.get(s, "") + extra.get(s, "") for s in sorted({*config.datasets, *extra})}


def _read_result(frame: Frame, path: Path) -> Labels | LabelFailure:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        if "failure" in result:
            return LabelFailure(frame.uid, Reason(result["failure"]["reason"]), result["failure"]["detail"])
        stress = None if result["stress"] is None else np.array(result["stress"], dtype=float)
        return Labels(float(result["energy"]), np.array(result["forces"], dtype=float).reshape(-1, 3), stress)
    except FileNotFoundError:
        return LabelFailure(frame.uid, Reason.NO_OUTPUT, "GPAW ended without a result")
    except (ValueError, KeyError, TypeError) as error:
        return LabelFailure(frame.uid, Reason.BAD_OUTPUT, f"result.json cannot be read: {error}")


@functools.cache
def shared_server(python: str) -> FolderServer:
    """One for all labels that this process will make."""
    return _new_server(python, "serve")


def _new_server(python: str, kind: str) -> FolderServer:
    server = FolderServer([python, str(_WORKER), kind])
    atexit.register(server.close)
    return server


@functools.cache
def _versions(python: str) -> dict[str, str] | None:
    """Version of GPAW as `python` has it, and what tells its PAW data sets apart; None without GPAW."""
    if python == sys.executable:
        found = gpaw_worker.versions()  # without a process, so that `check` answers at once
        return found if "gpaw" in found else None
    try:
        done = subprocess.run([python, _WORKER, "versions"], capture_output=True, text=True, timeout=_PROBE_LIMIT_S, check=True)
        found = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return found if "gpaw" in found else None
