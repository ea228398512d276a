"""The committee as an ASE calculator."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from al_leignn.core import CommitteePrediction
from al_leignn.deviation import deviation
from al_leignn.errors import ConfigError
from al_leignn.model.committee import Committee
from al_leignn.model.verlet import VerletList


class LeignnCalculator(Calculator):
    """Energy, forces, stress and their uncertainty.

    Beside ASE's properties (eV, eV/Å, eV/Å^3; stress in ASE's Voigt order, for cells periodic in three dimensions only),
    `results` holds what the members disagree by (population standard deviations): `forces_std` (n_atoms, 3),
    `force_deviation` (n_atoms,), its maximum `max_force_deviation`, all eV/Å, and `energy_std` of the total energy, eV.

    Parameters
    ----------
    committee
        The members; also made by `Committee.calculator()`.
    driver
        "mean": results are the mean of all members, deviations come with every evaluation. A member's index: results are
        that member's alone, at a fraction of the cost.
    deviation_every
        With one member driving, the others look at every n-th evaluation only; in between, deviations are absent from
        `results`.
    skin
        Neighbour lists reach this far beyond the cutoff (Å) and are reused meanwhile; 0 searches at every evaluation.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012  # ASE's interface
    # Charges and magnetic moments are nothing to the model, so their change leaves results valid.
    ignored_changes = {"initial_charges", "initial_magmoms"}  # noqa: RUF012

    def __init__(
        self, committee: Committee, *, driver: Literal["mean"] | int = "mean", deviation_every: int = 1, skin: float = 0.5
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if driver != "mean" and not 0 <= driver < len(committee):
            raise ConfigError(f"driver is {driver!r}", fix=f'allowed: "mean" or a member from 0 to {len(committee) - 1}')
        if deviation_every < 1 or (driver == "mean" and deviation_every != 1):
            raise ConfigError(
                f"deviation_every is {deviation_every} with driver {driver!r}",
                fix="with the mean driving, all members are evaluated every time: leave it at 1, or let one member drive",
            )
        if not skin >= 0:
            raise ConfigError(f"skin is {skin}", fix="give a length in Å, or 0")
        self.committee = committee
        self.driver = driver
        self.deviation_every = deviation_every
        self.evaluations = 0
        """Evaluations so far; cached results are not counted."""
        self._lists = VerletList(committee.cutoff, committee.species, skin=skin)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Fill `results`; called by ASE when the structure has changed.

        Raises
        ------
        StructureError
            The structure cannot be simulated or has an element the committee does not know.
        """
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        assert self.atoms is not None
        graph = self._lists.graph(self.atoms, trimmed=not self.committee.compiled)
        look = self.evaluations % self.deviation_every == 0
        members = None if self.driver == "mean" or look else [self.driver]
        prediction = self.committee.predict_graphs([graph], members)[0]
        self.evaluations += 1
        self.results = self._driving(prediction)
        if members is None and len(self.committee) > 1:
            self.results |= _deviations(prediction)

    def _driving(self, prediction: CommitteePrediction) -> dict[str, Any]:
        chosen = slice(None)
        if self.driver != "mean" and len(prediction.energy) > 1:
            chosen = slice(self.driver, self.driver + 1)
        energy = float(prediction.energy[chosen].mean())
        results: dict[str, Any] = {
            "energy": energy,
            "free_energy": energy,
            "energies": prediction.node_energy[chosen].mean(axis=0),
            "forces": prediction.forces[chosen].mean(axis=0),
        }
        if prediction.stress is not None:
            results["stress"] = prediction.stress[chosen].mean(axis=0)
        return results


def _deviations(prediction: CommitteePrediction) -> dict[str, Any]:
    disagreement = deviation(prediction)
    return {
        "forces_std": prediction.forces.std(axis=0),
        "force_deviation": disagreement.per_atom,
        "max_force_deviation": disagreement.max,
        "energy_std": float(np.std(prediction.energy)),
    }
