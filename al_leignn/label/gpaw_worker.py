"""Stand-alone script, run by any Python that has GPAW and ASE: one frame in, one result out.

    python gpaw_worker.py label     frame.extxyz + parameters.json -> result.json, in the current folder
    python gpaw_worker.py probe XC SYMBOL...                       -> JSON list: PAW data sets that are missing
    python gpaw_worker.py versions                                 -> JSON object: what is installed; does not start GPAW

parameters.json holds GPAW's keyword arguments ("gpaw"), starting magnetic moments ("moments", μB, or null), a dispersion
correction to add ("dispersion": "", "d3" or "d4") and whether stress is wanted ("stress"). result.json holds either "failure"
(a reason and a detail) or

    energy        free energy F = E - TS of the smeared electrons, eV: the quantity whose derivative the forces are
    energy_zero   GPAW's extrapolation to zero smearing, eV; for comparison, inconsistent with the forces
    forces        eV/Å
    stress        eV/Å^3, (1/V) dF/dε, Voigt xx yy zz yz xz xy; null where GPAW has none
    scf_steps, gpaw (its version)

It appears by rename, so that it is whole or absent. Under MPI only rank 0 writes.
"""

import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# Python puts a script's folder first on its path; there lies gpaw.py of al_leignn, which is not the GPAW that is meant.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]


def label() -> dict[str, Any]:
    """Run the SCF for the frame and parameters in the current folder."""
    import gpaw
    from ase.io import read
    from gpaw import GPAW, KohnShamConvergenceError

    parameters = json.loads(Path("parameters.json").read_text(encoding="utf-8"))
    atoms: Any = read("frame.extxyz", format="extxyz")
    missing = missing_datasets(parameters["gpaw"]["xc"], sorted(set(atoms.get_chemical_symbols())))
    if missing:
        return _failure("crashed", f"GPAW has no PAW data set {', '.join(missing)}")
    if parameters["moments"] is not None:
        atoms.set_initial_magnetic_moments(parameters["moments"])
    atoms.calc = GPAW(txt="gpaw.txt", **parameters["gpaw"])
    try:
        energy = atoms.get_potential_energy(force_consistent=True)
    except KohnShamConvergenceError:
        return _failure("unconverged", f"no self-consistency within {parameters['gpaw']['maxiter']} SCF steps")
    more_energy, more_forces, more_stress = dispersion(atoms, parameters["dispersion"], parameters["gpaw"]["xc"])
    return {
        "energy": float(energy) + more_energy,
        "energy_zero": float(atoms.get_potential_energy()) + more_energy,
        "forces": (atoms.get_forces() + more_forces).tolist(),
        "stress": (atoms.get_stress() + more_stress).tolist() if parameters["stress"] else None,
        "scf_steps": int(atoms.calc.get_number_of_iterations()),
        "gpaw": gpaw.__version__,
    }


def dispersion(atoms: Any, kind: str, xc: str) -> tuple[float, Any, Any]:
    """Energy, forces and stress of Grimme's corrections: "d3" with Becke-Johnson damping, "d4", or none."""
    if not kind:
        return 0.0, 0.0, 0.0
    if kind == "d3":
        from dftd3.ase import DFTD3

        calculator: Any = DFTD3(method=xc, damping="d3bj")
    else:
        from dftd4.ase import DFTD4

        calculator = DFTD4(method=xc)
    copy = atoms.copy()
    copy.calc = calculator
    stress = copy.get_stress() if copy.pbc.all() else 0.0
    return float(copy.get_potential_energy()), copy.get_forces(), stress


def versions() -> dict[str, str]:
    """Versions of GPAW and of its PAW data sets, and where else data sets are looked for."""
    found = {}
    for name in ("gpaw", "gpaw-data", "dftd3", "dftd4"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "GPAW_SETUP_PATH" in os.environ:
        found["data sets"] = os.environ["GPAW_SETUP_PATH"]
    return found


def missing_datasets(xc: str, symbols: list[str]) -> list[str]:
    """PAW data sets that functional `xc` needs for `symbols` and that are not there."""
    from gpaw.setup_data import search_for_file
    from gpaw.xc import XC

    functional: Any = XC(xc)
    missing = []
    for symbol in symbols:
        name = f"{symbol}.{functional.get_setup_name()}"
        try:
            search_for_file(name)
        except FileNotFoundError:
            missing.append(name)
    return missing


def _failure(reason: str, detail: str) -> dict[str, Any]:
    return {"failure": {"reason": reason, "detail": detail}}


def _publish(result: dict[str, Any]) -> None:
    from gpaw.mpi import world

    if world.rank == 0:
        partial = Path("result.json.partial")
        partial.write_text(json.dumps(result), encoding="utf-8")
        partial.replace("result.json")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["label"]:
            _publish(label())
        case ["probe", functional, *elements]:
            print(json.dumps(missing_datasets(functional, elements)))
        case ["versions"]:
            print(json.dumps(versions()))
        case _:
            sys.exit(__doc__)
