"""A vasprun.xml as VASP 6 writes it, cut down to what readers look for, for any frame and result."""

from collections.abc import Sequence

import numpy as np
from ase import Atoms


def rows(values: np.ndarray) -> str:
    return "\n".join("   <v> " + " ".join(f"{x:16.8f}" for x in row) + " </v>" for row in values)


def structure(name: str, atoms: Atoms) -> str:
    cell = np.asarray(atoms.cell)
    return f"""<structure {f'name="{name}"' if name else ""}>
  <crystal>
   <varray name="basis" >
{rows(cell)}
   </varray>
   <i name="volume"> {atoms.get_volume():16.8f} </i>
   <varray name="rec_basis" >
{rows(np.linalg.inv(cell).T)}
   </varray>
  </crystal>
  <varray name="positions" >
{rows(atoms.get_scaled_positions(wrap=False))}
  </varray>
 </structure>"""


def energies(free: float, rest: float) -> str:
    return f"""<energy>
   <i name="e_fr_energy"> {free:16.8f} </i>
   <i name="e_wo_entrp"> {rest:16.8f} </i>
   <i name="e_0_energy"> {0.5 * (free + rest):16.8f} </i>
  </energy>"""


def vasprun(
    atoms: Atoms,
    free: Sequence[float],
    forces: np.ndarray,
    stress_kbar: np.ndarray,
    *,
    gga: str = "PE",
    ecut: float = 520.0,
    nelm: int = 100,
    version: str = "6.4.2",
) -> str:
    """The file of one static calculation whose SCF had the free energies `free` (eV), the last of them final."""
    order = list(dict.fromkeys(atoms.get_chemical_symbols()))
    each = "\n".join(f"    <rc><c>{s:2s}</c><c> {order.index(s) + 1:3d}</c></rc>" for s in atoms.get_chemical_symbols())
    kinds = "\n".join(
        f"    <rc><c>{sum(atoms.symbols == s):4d}</c><c>{s:2s}</c><c> 1.0</c><c> 4.0</c><c>  PAW_PBE {s} 05Jan2001  </c></rc>"
        for s in order
    )
    steps = "\n".join(f"  <scstep>\n  {energies(e, e + 0.02)}\n  </scstep>" for e in free)
    tags = f"""<i name="ENCUT"> {ecut:16.8f}</i>
  <i name="EDIFF">      0.00000100</i>
  <i type="int" name="NELM"> {nelm:6d}</i>
  <i type="int" name="ISMEAR">    -1</i>"""
    return f"""<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator>
  <i name="program" type="string">vasp </i>
  <i name="version" type="string">{version}  </i>
  <i name="subversion" type="string">18Jul23 (build Jan  1 2024) complex parallel </i>
  <i name="platform" type="string">LinuxGNU </i>
  <i name="date" type="string">2026 01 01 </i>
  <i name="time" type="string">12:00:00 </i>
 </generator>
 <incar>
  {tags}
 </incar>
 <kpoints>
  <generation param="Gamma">
   <v type="int" name="divisions">       2        2        2 </v>
   <v name="usershift">      0.00000000       0.00000000       0.00000000 </v>
   <v name="genvec1">      0.50000000       0.00000000       0.00000000 </v>
   <v name="genvec2">      0.00000000       0.50000000       0.00000000 </v>
   <v name="genvec3">      0.00000000       0.00000000       0.50000000 </v>
   <v name="shift">      0.00000000       0.00000000       0.00000000 </v>
  </generation>
  <varray name="kpointlist" >
   <v>       0.00000000       0.00000000       0.00000000 </v>
  </varray>
  <varray name="weights" >
   <v>       1.00000000 </v>
  </varray>
 </kpoints>
 <parameters>
  <separator name="electronic" >
   <i name="ENMAX"> {ecut:16.8f}</i>
   <i type="int" name="NELM"> {nelm:6d}</i>
   <i type="int" name="ISPIN">     1</i>
   <i type="int" name="NBANDS">     8</i>
  </separator>
  <separator name="ionic" >
   <i type="int" name="NSW">     0</i>
   <i type="int" name="IBRION">    -1</i>
   <i type="int" name="ISIF">     2</i>
  </separator>
  <separator name="electronic exchange-correlation" >
   <i type="logical" name="LASPH"> T  </i>
   <i type="logical" name="LMETAGGA"> F  </i>
  </separator>
  <separator name="symmetry" >
   <i type="int" name="ISYM">     0</i>
  </separator>
  <i type="string" name="GGA">{gga}</i>
  <i type="string" name="METAGGA">--</i>
 </parameters>
 <atominfo>
  <atoms> {len(atoms):6d} </atoms>
  <types> {len(order):6d} </types>
  <array name="atoms" >
   <dimension dim="1">ion</dimension>
   <field type="string">element</field>
   <field type="int">atomtype</field>
   <set>
{each}
   </set>
  </array>
  <array name="atomtypes" >
   <dimension dim="1">type</dimension>
   <field type="int">atomspertype</field>
   <field type="string">element</field>
   <field>mass</field>
   <field>valence</field>
   <field type="string">pseudopotential</field>
   <set>
{kinds}
   </set>
  </array>
 </atominfo>
 {structure("initialpos", atoms)}
 <calculation>
{steps}
  {structure("", atoms)}
  <varray name="forces" >
{rows(forces)}
  </varray>
  <varray name="stress" >
{rows(stress_kbar)}
  </varray>
  {energies(free[-1], free[-1] + 0.02)}
 </calculation>
 {structure("finalpos", atoms)}
</modeling>
"""
