"""MD against AIMD: all observables that both trajectories have, and one verdict with a stated error rate."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase.data import atomic_masses, chemical_symbols

from al_leignn.errors import ConfigError, InputError
from al_leignn.validate.dynamics import at_rest, diffusion, highest_frequency, mean_squared_displacement, vibrations
from al_leignn.validate.equivalence import Comparison, Measure, Observable, Outcome, Tolerance, holm_level, weigh
from al_leignn.validate.hypervirials import Hypervirials, configurational_temperature, hypervirials, looked_at
from al_leignn.validate.statistics import cautious, inefficiency, unexplained
from al_leignn.validate.structure import first_minimum, neighbourhood, pair_functions
from al_leignn.validate.thermodynamics import force_sizes, thermodynamics
from al_leignn.validate.trajectory import Trajectory, check_comparable

TOLERANCES: dict[str, Tolerance] = {
    "rdf": Tolerance(Measure.OVERLAP, 0.03),
    "adf": Tolerance(Measure.OVERLAP, 0.04),
    "coordination": Tolerance(Measure.RELATIVE, 0.02, floor=0.02),
    "msd": Tolerance(Measure.RELATIVE, 0.10, floor=0.005),
    "diffusion": Tolerance(Measure.RELATIVE, 0.20, floor=0.1),
    "vdos": Tolerance(Measure.OVERLAP, 0.05),
    "energy": Tolerance(Measure.ABSOLUTE, 0.005),
    "pressure": Tolerance(Measure.ABSOLUTE, 0.2),
    "density": Tolerance(Measure.RELATIVE, 0.01),
    "forces": Tolerance(Measure.RELATIVE, 0.03),
}
"""What does not matter by default, by kind of observable; docs/validation.md defines them. Relative ones have a floor in the unit
of the observable (neighbours, Å^2, 1e-5 cm²/s); absolute ones are in eV/atom and GPa."""

ERROR_RATE = 0.05
"""Chance of one or more wrong claims among all observables."""

LONGEST_LAG = 1 / 25
"""Of the shorter trajectory: what comes later happens too seldom to have an error bar."""

LAGS = 24

WINDOW = 1 / 50
"""Of the shorter trajectory, for spectra: enough windows for an error bar."""

WINDOWS_PS = (0.2, 2.0)
"""Shortest and longest window; resolutions of 10 and 1 THz."""

COARSEST_FS = ((1.5, 4.0), (20.0, 7.0), (math.inf, 15.0))
"""Up to which mass of the lightest atom (amu) frames may be how far apart (fs) if vibrations are to be seen: O-H stretches at
110 THz, C=O and N≡N up to 71, oxides of heavier elements at 30."""


def tolerances_of(settings: Sequence[str]) -> dict[str, Tolerance]:
    """The default tolerances with some changed, each given as `kind=value`; raises `ConfigError` naming what may be given."""
    found = dict(TOLERANCES)
    for setting in settings:
        kind, _, text = setting.partition("=")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if kind not in found or not 0 < value < math.inf:
            raise ConfigError(
                f"{setting!r} is no tolerance", where="--tolerance", fix=f"give kind=value; kinds are {', '.join(found)}"
            )
        found[kind] = replace(found[kind], value=value)
    return found


DOUBTFUL = 4.0
"""Standard errors by which the temperature that a reference tells may be off by chance."""

SHOWN = 3
"""Observables named in a sentence; the others are counted."""

SPARSE = 0.005
"""Pair functions with a lower mean over all distances than this (g, or h in 1/Å) rest on too few pairs to have a shape."""


@dataclass(frozen=True)
class Agreement:
    """How MD compares with its reference."""

    reference: Trajectory
    md: Trajectory
    comparisons: list[Comparison]
    skipped: dict[str, str]
    """What was not compared, and why."""
    error_rate: float
    """Of one or more wrong claims among all comparisons."""
    told_temperature: tuple[float, float] | None = None
    """What positions and forces of the reference say, and its standard error, K; None where they do not."""

    @property
    def doubt(self) -> str:
        """What is wrong with the reference, in words; empty if nothing can be seen."""
        stated = self.reference.temperature
        if self.told_temperature is None or stated is None:
            return ""
        told, error = self.told_temperature
        if abs(told - stated) <= DOUBTFUL * math.hypot(error, self.reference.temperature_error):
            return ""
        return f"positions and forces are those of {told:.0f} ± {error:.0f} K, not of {stated:.0f} K"

    @property
    def outcome(self) -> Outcome:
        """Equivalent if every observable is; different if any is."""
        found = {comparison.outcome for comparison in self.comparisons}
        return next(o for o in (Outcome.DIFFERENT, Outcome.UNDECIDED, Outcome.EQUIVALENT) if o in found)

    @property
    def words(self) -> str:
        """The outcome, and the observables that it is due to."""
        if self.outcome is Outcome.EQUIVALENT:
            return f"{len(self.comparisons)} observables equivalent to {self.reference.name}"
        found = [c for c in self.comparisons if c.outcome is self.outcome]
        shown = ", ".join(f"{c.name} ({_why(c)})" for c in found[:SHOWN])
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return f"beside {self.reference.name}, {self.outcome.value}: {shown}{more}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return {
            "outcome": self.outcome.value,
            "error_rate": self.error_rate,
            "reference": _about(self.reference) | {"told_temperature": self.told_temperature, "doubt": self.doubt},
            "md": _about(self.md),
            "observables": [comparison.to_dict() for comparison in self.comparisons],
            "not_compared": self.skipped,
        }


def agree(
    reference: Trajectory,
    md: Trajectory,
    *,
    tolerances: Mapping[str, Tolerance] = TOLERANCES,
    only: Sequence[str] = (),
    error_rate: float = ERROR_RATE,
    seed: np.random.SeedSequence,
) -> Agreement:
    """Compare MD with its reference in every observable that both have.

    Half of the error rate goes to claims of equivalence, half to claims of a difference; either half is shared out among the
    observables by Holm's procedure. All claims are then right together, with that error rate.

    Parameters
    ----------
    only
        Kinds of observables to compare; empty: all.

    Raises
    ------
    ConfigError
        If the error rate is none, or no observable is left.
    DataError
        If the trajectories are not of one system under the same conditions.
    """
    if not 0 < error_rate < 1:
        raise ConfigError(
            f"the error rate is {error_rate:g}", where="--error-rate", fix="give a share between 0 and 1, like 0.05"
        )
    check_comparable(reference, md)
    pairs, skipped = _observables(reference, md)
    pairs = [pair for pair in pairs if not only or pair[0].kind in only]
    if not pairs:
        raise ConfigError(
            f"there is nothing to compare: both have no {', '.join(only)}",
            where=reference.name,
            fix="; ".join(f"{name}: {why}" for name, why in skipped.items()) or "choose other observables",
        )
    known = hypervirials(reference)
    controls = _controls((reference, md), known)
    memories = memories_ps((reference, md), controls)
    evidence = [
        weigh(one, other, tolerances[one.kind], rng=np.random.default_rng(child), memories_ps=memories, controls=controls)
        for (one, other), child in zip(pairs, seed.spawn(len(pairs)), strict=True)
    ]
    equivalent = holm_level((e.p_equivalent for e in evidence), error_rate / 2)
    different = holm_level((e.p_different for e in evidence), error_rate / 2)
    told = None if known is None else configurational_temperature(known)
    return Agreement(reference, md, [e.decide(equivalent, different) for e in evidence], skipped, error_rate, told)


def memories_ps(both: tuple[Trajectory, Trajectory], controls: tuple[np.ndarray, np.ndarray] | None) -> tuple[float, float]:
    """Time for which energies are remembered; 0 where it is not known.

    Everything depends on the energy, which only the thermostat changes: under weak friction, more slowly than anything else,
    and too little to be seen in a noisy observable. This is the statistical inefficiency of the total energy, and the error of
    that, as a time. Where controls explain the total energy, what they leave of it counts, and that the energy of each
    vibration decays with the friction γ, so that its inefficiency is 2/γ.
    """
    totals = [t.total_energies for t in both]
    if controls is not None and totals[0] is not None and totals[1] is not None and all(_friction(t) for t in both):
        totals = [rest[:, 0] for rest in unexplained((totals[0][:, None], totals[1][:, None]), controls)]
        least = [2.0 / _friction(t) for t in both]
    else:
        least = [0.0, 0.0]
    remembered = [0.0 if one is None else cautious(inefficiency(one[:, None]), len(one)) for one in totals]
    times = [max(n * t.interval_fs / 1000.0, bound) for n, t, bound in zip(remembered, both, least, strict=True)]
    return times[0], times[1]


def _friction(trajectory: Trajectory) -> float:
    """Of a Langevin thermostat, 1/ps; 0 where there is none that the frames name."""
    return float(trajectory.friction_per_ps or 0.0) if trajectory.thermostat == "langevin" else 0.0


def _controls(both: tuple[Trajectory, Trajectory], known: Hypervirials | None) -> tuple[np.ndarray, np.ndarray] | None:
    """What has one expectation in both if both were in one bath, whatever their potentials: kinetic energy, hypervirials.

    `known` are the hypervirials of the reference; those of the MD are worked out only where they can be compared.
    """
    bath = both[0].bath
    if bath is None or bath != both[1].bath:
        return None
    series: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    theirs = None if known is None else hypervirials(both[1])
    if known is not None and theirs is not None:
        series = ([known.at(bath[0])], [theirs.at(bath[0])])
    if both[0].kinetic is not None and both[1].kinetic is not None:
        kinetic = both[0].kinetic / both[0].freedom, both[1].kinetic / both[1].freedom
        for of, t, values in zip(series, both, kinetic, strict=True):
            of.append(values[looked_at(t)][:, None])
    return (np.hstack(series[0]), np.hstack(series[1])) if series[0] else None


def _why(comparison: Comparison) -> str:
    """What is behind a verdict that is not equivalence."""
    if comparison.need is not None:
        return comparison.verdict.removeprefix(f"{comparison.outcome.value}: ")
    return f"{comparison.difference / comparison.tolerance:.2g} x its tolerance"


Both = list[tuple[Observable, Observable]]


def _observables(reference: Trajectory, md: Trajectory) -> tuple[Both, dict[str, str]]:
    """What both have, of reference and MD; and what was left out, with the reason."""
    skipped: dict[str, str] = {}
    pairs = []
    for ours, theirs in _structure(reference, md):
        if ours.kind == "rdf" and max(ours.series.mean(), theirs.series.mean()) < SPARSE:
            skipped[ours.name] = "hardly ever so near to one another"
        else:
            pairs.append((ours, theirs))
    for name, measure in (("mean squared displacement, diffusion", _motion), ("vibrations", _vibrations)):
        try:
            pairs += measure(reference, md)
        except InputError as reason:
            skipped[name] = reason.what
    still = {f"diffusion {chemical_symbols[z]}" for z in at_rest(reference) & at_rest(md)}
    skipped |= {one.name: "no atom leaves its site" for one, _ in pairs if one.name in still}
    pairs = [pair for pair in pairs if pair[0].name not in still]
    for name, values in (("energy", "energies"), ("pressure", "stresses"), ("forces", "forces")):
        without = [of for of, t in (("reference", reference), ("MD", md)) if getattr(t, values) is None]
        if without:
            skipped[name] = f"no {values} in the {' and the '.join(without)}"
    pairs += _thermodynamics(reference, md)
    return pairs, skipped


def _structure(reference: Trajectory, md: Trajectory) -> Both:
    ours, theirs = pair_functions(reference), pair_functions(md)
    radii = {pair: radius for pair, g in ours.items() if (radius := first_minimum(g)) is not None}
    local = {o.name: o for o in neighbourhood(md, radii)}
    # Angles that the MD never has are compared with zero: then they are different.
    near = [(o, local.get(o.name, o._replace(series=np.zeros_like(o.series)))) for o in neighbourhood(reference, radii)]
    return [(ours[pair], theirs[pair]) for pair in ours] + near


def _motion(reference: Trajectory, md: Trajectory) -> Both:
    step = max(reference.interval_fs, md.interval_fs) / 1000.0
    longest = int(LONGEST_LAG * min(reference.length_ps, md.length_ps) / step)
    if longest < 3 or len(reference.numbers) < 2:
        raise InputError(f"{LONGEST_LAG:.0%} of the shorter trajectory is less than three frames")
    lags = step * np.unique(np.linspace(1, longest, LAGS).round())
    ours, theirs = mean_squared_displacement(reference, lags), mean_squared_displacement(md, lags)
    late = len(lags) // 2
    found = [(ours[z], theirs[z]) for z in reference.species]
    return found + [(_slope(a, late), _slope(b, late)) for a, b in found]


def _slope(msd: Observable, start: int) -> Observable:
    return diffusion(msd._replace(series=msd.series[:, start:], grid=msd.grid[start:]))


def _vibrations(reference: Trajectory, md: Trajectory) -> Both:
    lightest = float(atomic_masses[reference.species].min())
    finest = next(fs for mass, fs in COARSEST_FS if lightest < mass)
    coarsest = max(reference.interval_fs, md.interval_fs)
    if coarsest > finest:
        raise InputError(f"frames are {coarsest:g} fs apart; {finest:g} fs would show the vibrations")
    shorter = min(reference.length_ps, md.length_ps)
    window = min(max(WINDOW * shorter, WINDOWS_PS[0]), WINDOWS_PS[1])
    grid = np.arange(0.25 / window, highest_frequency([reference, md]), 0.25 / window)
    both = reference.velocities is not None and md.velocities is not None
    ours, theirs = (vibrations(t, grid, window, from_velocities=both) for t in (reference, md))
    return [(ours[z], theirs[z]) for z in reference.species]


def _thermodynamics(reference: Trajectory, md: Trajectory) -> Both:
    ours, theirs = ({o.name: o for o in (*thermodynamics(t), *force_sizes(t, like=reference))} for t in (reference, md))
    return [(o, theirs[name]) for name, o in ours.items() if name in theirs]


def _about(trajectory: Trajectory) -> dict[str, Any]:
    return {
        "file": trajectory.name,
        "formula": trajectory.formula,
        "frames": len(trajectory),
        "interval_fs": trajectory.interval_fs,
        "length_ps": trajectory.length_ps,
        "temperature": trajectory.temperature,
        "relaxation_ps": trajectory.relaxation_ps,
    }
