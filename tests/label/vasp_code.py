"""A VASP that is not one: effective medium theory, read from POSCAR and INCAR and told in vasprun.xml, with the fault asked for.

python vasp_code.py FAULT
"""

import sys
import time
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.io import read
from ase.units import GPa

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.label.vasprun import vasprun


def tags() -> dict[str, str]:
    lines = (line.partition("=") for line in Path("INCAR").read_text().splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def main(fault: str) -> None:
    incar = tags()
    if fault == "crash":
        sys.exit("VERY BAD NEWS! internal error in subroutine SGRCON")
    if fault == "hang":
        time.sleep(600)
    if fault == "no output":
        return
    atoms = read("POSCAR")
    assert isinstance(atoms, Atoms)
    atoms.calc = EMT()
    energy = atoms.get_potential_energy(force_consistent=True)
    forces, stress = atoms.get_forces(), -atoms.get_stress(voigt=False) / (0.1 * GPa)
    order = np.arange(len(atoms))
    if fault == "wrong order":
        order = order[::-1]  # as if somebody had sorted POSCAR anew
    if fault == "two exchanged":
        order[:2] = order[1::-1]
    if fault == "other frame":
        atoms.positions[0, 0] += 0.02
    if fault == "wrong cell":
        atoms.set_cell(np.asarray(atoms.cell) * 1.01, scale_atoms=True)
    nelm = int(incar["NELM"])
    converged = fault != "unconverged" and not (fault == "hard" and incar["ALGO"] != "Damped")
    text = vasprun(
        atoms[order],
        np.linspace(energy + 1, energy, 12 if converged else nelm).tolist(),
        forces[order],
        stress,
        gga="PS" if fault == "other functional" else incar["GGA"].upper(),
        ecut=float(incar["ENCUT"]),
        nelm=nelm,
    )
    start, end = text.index('<varray name="forces"'), text.index('<varray name="stress"')
    text = {
        "empty": "",
        "truncated": text[: len(text) * 2 // 3],
        "no forces": text[:start] + text[end:],
        "stars": text[:start] + text[start:end].replace("0.", "*.", 1).replace("*.", "********", 1) + text[end:],
    }.get(fault, text)
    Path("vasprun.xml").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
