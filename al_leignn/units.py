"""Units. Inside the package everything is eV, Å, fs, K, amu and eV/Å^3; conversions happen at borders only.

Signs: stress σ = (1/V) dE/dε is positive under tension; pressure = -trace(σ)/3; virial = -V σ.
Voigt order of six-vectors: xx yy zz yz xz xy (ASE's).
"""

import numpy as np
from ase import units as _ase

from al_leignn.shapes import Float

FS: float = _ase.fs
"""One femtosecond in ASE's internal time unit (Å sqrt(amu/eV))."""

KB: float = _ase.kB
"""Boltzmann constant, eV/K."""

GPA: float = _ase.GPa
"""One gigapascal in eV/Å^3."""

MEV = 1e-3
"""One millielectronvolt in eV."""

G_CM3: float = 1.0 / (_ase._amu * 1e27)
"""One gram per cubic centimetre in amu/Å^3."""

CM2_S = 10.0
"""One square centimetre per second in Å^2/fs."""


def voigt(tensor: Float[np.ndarray, "*n 3 3"]) -> Float[np.ndarray, "*n 6"]:
    """Symmetric 3x3 tensors as six-vectors xx yy zz yz xz xy."""
    return tensor[..., [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
