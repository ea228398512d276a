"""The rescue ladder for hard SCF: what may be changed so that it converges, and nothing that changes the result.

Mixing, more bands and more steps lead to the same self-consistent density by a slower path. Functional, basis, cutoff, grid,
k-points and smearing are the level of theory and stay.
"""

from dataclasses import dataclass

TIGHTER = 0.1
"""Factor on SCF tolerances where a label is computed again to see whether it stays."""


@dataclass(frozen=True)
class Rung:
    """Settings of one attempt at self-consistency."""

    beta_factor: float
    """Multiplies the share of new density that is mixed in."""
    weight: float
    """How much more long-wave density changes count in mixing: damps charge sloshing in large or metallic cells."""
    steps_factor: int
    """Multiplies the number of SCF steps."""
    bands: str | None
    """Number of bands relative to occupied ones; None: GPAW's choice (120 % and 4 more)."""


LADDER = (
    Rung(beta_factor=1.0, weight=50.0, steps_factor=1, bands=None),
    Rung(beta_factor=0.2, weight=100.0, steps_factor=2, bands=None),
    Rung(beta_factor=0.05, weight=100.0, steps_factor=4, bands="160%"),
)
