"""The AIMD that a campaign's committee must agree with. Free of torch, so that `check` may look at it."""

from dataclasses import replace

from al_leignn.campaign.layout import Layout
from al_leignn.campaign.structures import read_starts
from al_leignn.config import CampaignConfig
from al_leignn.errors import DataError
from al_leignn.label.base import make_labeller
from al_leignn.validate.trajectory import Trajectory, read_trajectory


def read_references(layout: Layout, config: CampaignConfig) -> list[Trajectory]:
    """The campaign's AIMD trajectories.

    Raises
    ------
    ConfigError, DataError
        If one cannot be read, does not tell its temperature, has elements that the campaign does not know, or is of another
        level of theory.
    """
    references, labeller = [], make_labeller(layout.labeller(config))
    known = {int(z) for atoms in read_starts(layout, config) for z in atoms.numbers}
    for name, path in zip(config.converge.references, layout.inside(config.converge.references), strict=True):
        found = read_trajectory(path)
        if found.temperature is None:
            raise DataError(
                "the reference does not tell its temperature", where=str(path), fix="add target_temperature (K) to its frames"
            )
        if not set(found.species) <= known:
            raise DataError(
                f"another composition: the reference is {found.formula}",
                where=str(path),
                fix="give a reference of the campaign's elements, or its structure to `structures`",
            )
        if found.level not in ("", labeller.level):
            raise DataError(
                f"the reference is of another level of theory ({found.level[:12]}, the campaign's is {labeller.level[:12]})",
                where=str(path),
                fix="make it anew with `al-leignn aimd`, or restore the labeller settings it was made with",
            )
        references.append(replace(found, name=name))
    return references
