"""Stand-alone script, run by any Python that has GPAW and ASE: one frame in, one result out.

    python gpaw_worker.py label     frame.extxyz + parameters.json -> result.json, in the current folder
    python gpaw_worker.py serve FD                                 -> the same in one fork after another (`serve`)
    python gpaw_worker.py follow FD                                -> the same, each SCF going on from the last (`follow`)
    python gpaw_worker.py probe XC DATASET...                      -> JSON list: PAW data sets that are missing
    python gpaw_worker.py mpi                                      -> JSON: whether GPAW was built with MPI
    python gpaw_worker.py versions                                 -> JSON object: what is installed; does not start GPAW

parameters.json holds GPAW's keyword arguments ("gpaw"), starting magnetic moments ("moments", μB, or null), a dispersion
correction to add ("dispersion": "", "d3" or "d4") and the functional it is for ("xc"), whether stress is wanted ("stress"), for
`follow` whether the SCF starts afresh ("fresh"), and for `serve` how many CPU seconds the fork may take ("cpu_s", or null).
result.json holds either "failure" (a reason and a detail) or

    energy        free energy F = E - TS of the smeared electrons, eV: the quantity whose derivative the forces are
    energy_zero   GPAW's extrapolation to zero smearing, eV; for comparison, inconsistent with the forces
    forces        eV/Å
    stress        eV/Å^3, (1/V) dF/dε, Voigt xx yy zz yz xz xy; null where GPAW has none
    scf_steps, gpaw (its version)

It appears by rename, so that it is whole or absent. Under MPI rank 0 writes it, or the rank that fails.
"""

import ctypes
import importlib.util
import json
import os
import resource
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

# Python puts a script's folder first on its path; there lies gpaw.py of al_leignn, which is not the GPAW that is meant.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

_RANK_MARKS = ("PMIX_RANK", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "I_MPI_MPIRUN")
"""Variables by which GPAW tells that a launcher of MPI ranks started it."""

_NAMESAKES = {"LDA", "PBE", "revPBE", "RPBE"}
"""Functionals whose PAW data sets bear their names. For others GPAW must be asked, which it takes half a second to start for."""


def label(parameters: dict[str, Any], calculator: Any = None) -> dict[str, Any]:
    """Run the SCF for the frame in the current folder; with a calculator, from where that one is."""
    import gpaw
    from ase.io import read
    from gpaw import KohnShamConvergenceError

    atoms: Any = read("frame.extxyz", format="extxyz")
    wanted = datasets(sorted(set(atoms.get_chemical_symbols())), parameters["gpaw"].get("setups", {}))
    missing = missing_datasets(parameters["gpaw"]["xc"], wanted)
    if missing:
        return _failure("crashed", f"GPAW has no PAW data set {', '.join(missing)}")
    if parameters["moments"] is not None:
        atoms.set_initial_magnetic_moments(parameters["moments"])
    atoms.calc = calculator or new_calculator(parameters)
    try:
        energy = atoms.get_potential_energy(force_consistent=True)
    except KohnShamConvergenceError:
        return _failure("unconverged", f"no self-consistency within {parameters['gpaw']['maxiter']} SCF steps")
    more_energy, more_forces, more_stress = dispersion(atoms, parameters["dispersion"], parameters["xc"])
    return {
        "energy": float(energy) + more_energy,
        "energy_zero": float(atoms.get_potential_energy()) + more_energy,
        "forces": (atoms.get_forces() + more_forces).tolist(),
        "stress": (atoms.get_stress() + more_stress).tolist() if parameters["stress"] else None,
        "scf_steps": int(atoms.calc.get_number_of_iterations()),
        "gpaw": gpaw.__version__,
    }


def label_on_all_ranks() -> None:
    """Label in the current folder, with all ranks that a launcher started if GPAW was built with MPI.

    Raises whatever goes wrong, so that GPAW ends the other ranks: that they wait for this one may be why.
    """
    import gpaw
    from gpaw.cgpaw import have_mpi

    # Older GPAW takes part of itself; this one asks to be run as `gpaw python`, which does the same.
    if have_mpi and getattr(gpaw, "GPAW_MPI_BACKEND", "") is None:
        gpaw.GPAW_MPI_BACKEND = "cgpaw"
    try:
        result = label(read_parameters())
    except Exception as error:
        _publish(_failure("crashed", f"{type(error).__name__}: {' '.join(str(error).split())}"))
        raise
    from gpaw.mpi import world

    if world.rank == 0:
        _publish(result)


def new_calculator(parameters: dict[str, Any]) -> Any:
    from gpaw import GPAW

    return GPAW(txt="gpaw.txt", **parameters["gpaw"])


def follow(descriptor: int) -> None:
    """Label in the folders whose names come as lines on a socket, in this process, and answer as `serve` does.

    One calculator serves all frames until one asks for a fresh start, has other parameters, or fails.
    """
    with socket.socket(fileno=descriptor) as caller, caller.makefile("rw") as lines:
        print("ready", file=lines, flush=True)
        calculator, made_for = None, None
        for line in lines:
            before = time.process_time()
            _enter(line.rstrip("\n"))
            status = 0
            try:
                parameters = read_parameters()
                if parameters["fresh"] or parameters["gpaw"] != made_for:
                    calculator, made_for = new_calculator(parameters), parameters["gpaw"]
                result = label(parameters, calculator)
                _publish(result)
                if "failure" in result:
                    made_for = None
            except Exception:  # noqa: BLE001 - whatever it is, it is this label that failed
                traceback.print_exc()
                made_for, status = None, 1
            sys.stdout.flush()
            sys.stderr.flush()
            print(status, time.process_time() - before, file=lines, flush=True)


def read_parameters() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("parameters.json").read_text(encoding="utf-8"))
    return found


def serve(descriptor: int) -> None:
    """Label in the folders whose names come as lines on a socket, and answer with exit status and CPU seconds.

    Each label is made by a fork, as fresh as a new process but for what is imported already: here, and whatever earlier
    labels turned out to need. Serves nobody if GPAW has started MPI, which does not survive a fork.
    """
    import gpaw.mpi  # in older GPAW this starts it
    from gpaw.cgpaw import have_mpi

    if have_mpi and getattr(gpaw, "GPAW_MPI_BACKEND", None) != "serial":
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # is for the fork; this process ends when the socket is closed
    with socket.socket(fileno=descriptor) as caller, caller.makefile("rw") as lines:
        print("ready", file=lines, flush=True)
        for line in lines:
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                caller.detach()
                os.close(descriptor)
                _label_in_fork(line.rstrip("\n"), write_end)
            os.close(write_end)
            with os.fdopen(read_end, encoding="utf-8") as told:
                imported = told.read().split()
            _, status, usage = os.wait4(child, 0)
            code = os.waitstatus_to_exitcode(status)
            print(code if code >= 0 else 128 - code, usage.ru_utime + usage.ru_stime, file=lines, flush=True)
            for name in imported:
                with suppress(Exception):  # the next fork will say, if it matters
                    importlib.import_module(name)


def _label_in_fork(folder: str, write_end: int) -> None:
    """Label in `folder`, tell what had to be imported, and end the process."""
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _enter(folder)
        known = set(sys.modules)
        parameters = read_parameters()
        if parameters["cpu_s"] is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (parameters["cpu_s"], parameters["cpu_s"] + 1))
        _publish(label(parameters))
        with os.fdopen(write_end, "w", encoding="utf-8") as told:
            told.write("\n".join(sorted(set(sys.modules) - known)))
        status = 0
    except BaseException:  # noqa: BLE001 - there is nobody above to tell
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _enter(folder: str) -> None:
    """Work in `folder` from now on, and print into a file there."""
    os.chdir(folder)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)


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
    from importlib import metadata  # half the start-up of a probe, which does without

    found = {}
    for name in ("gpaw", "gpaw-data", "dftd3", "dftd4"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if "GPAW_SETUP_PATH" in os.environ:
        found["data sets"] = os.environ["GPAW_SETUP_PATH"]
    return found


def datasets(symbols: list[str], setups: dict[str, str]) -> list[str]:
    """PAW data sets of the elements, without the functional, as GPAW's `setups` choose them ("1:d,4": set 1, and a Hubbard U)."""
    chosen = {symbol: setups.get(symbol, "").split(":")[0] for symbol in symbols}
    return [f"{symbol}.{name}" if name else symbol for symbol, name in chosen.items()]


def missing_datasets(xc: str, names: list[str]) -> list[str]:
    """PAW data sets (`datasets`) that functional `xc` needs and that are not there."""
    import gpaw

    compiled = importlib.util.find_spec("_gpaw")
    if compiled is not None and compiled.origin is not None:
        ctypes.CDLL(compiled.origin)  # if its libraries are not there, it is to say so now
    if xc in _NAMESAKES:
        kind = xc
    else:
        from gpaw.xc import XC

        functional: Any = XC(xc)
        kind = functional.get_setup_name()
    names = [f"{name}.{kind}" for name in names]
    files = {name: [Path(folder, name + suffix) for folder in gpaw.setup_paths for suffix in ("", ".gz")] for name in names}
    return [name for name in names if not any(file.is_file() for file in files[name])]


def _failure(reason: str, detail: str) -> dict[str, Any]:
    return {"failure": {"reason": reason, "detail": detail}}


def _publish(result: dict[str, Any]) -> None:
    partial = Path(f"result.json.{os.getpid()}")
    partial.write_text(json.dumps(result), encoding="utf-8")
    partial.replace("result.json")


if __name__ == "__main__":
    if sys.argv[1:] != ["label"]:
        # Alone, even if a launcher started al-leignn itself.
        for mark in _RANK_MARKS:
            os.environ.pop(mark, None)
    match sys.argv[1:]:
        case ["label"]:
            label_on_all_ranks()
        case ["serve", number]:
            serve(int(number))
        case ["follow", number]:
            follow(int(number))
        case ["probe", functional, *names]:
            print(json.dumps(missing_datasets(functional, names)))
        case ["mpi"]:
            from gpaw.cgpaw import have_mpi

            print(json.dumps(bool(have_mpi)))
        case ["versions"]:
            print(json.dumps(versions()))
        case _:
            sys.exit(__doc__)
