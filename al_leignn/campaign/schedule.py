"""The schedule of a campaign's walkers, iteration by iteration: it follows from what earlier selections have published."""

from typing import NamedTuple

from al_leignn.campaign.layout import Layout
from al_leignn.config import CampaignConfig
from al_leignn.core import Stage, StageRequest
from al_leignn.errors import DamagedArtifactError
from al_leignn.explore.schedule import Plan, Standing, make_plan
from al_leignn.store import read_manifest


class Post(NamedTuple):
    """What one walker is to do."""

    structure: int
    """Index of its structure."""
    condition: int
    """Index of its condition."""


def plan_of(layout: Layout, config: CampaignConfig, iteration: int) -> Plan:
    """What iteration explores, by the standings before it."""
    explore = config.explore
    return make_plan(
        [condition.label for condition in explore.conditions],
        standings_before(layout, iteration) if explore.policy == "climb" else {},
        climb=explore.policy == "climb",
        walkers=explore.walkers,
        share=explore.learned_share,
    )


def posts(plan: Plan, structures: int) -> list[Post]:
    """Walkers in their order: by structure, then by condition."""
    return [Post(s, c) for s in range(structures) for c, count in enumerate(plan.walkers) for _ in range(count)]


def explore_items(layout: Layout, config: CampaignConfig, iteration: int) -> int:
    """Walker batches of an iteration; iteration 0 has one item, the seeds."""
    if iteration == 0:
        return 1
    walkers = sum(plan_of(layout, config, iteration).walkers) * len(config.structures)
    return -(-walkers // config.explore.batch)


def standings_before(layout: Layout, iteration: int) -> dict[str, Standing]:
    """Last visits of all conditions before an iteration; empty where nothing readable is published."""
    if iteration < 2:
        return {}
    try:
        manifest = read_manifest(layout.item(StageRequest(Stage.SELECT, iteration - 1, 0)))
    except DamagedArtifactError:
        return {}
    found = {} if manifest is None else manifest.result.get("conditions", {})
    return {label: Standing(**values) for label, values in found.items()}
