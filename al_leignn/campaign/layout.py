"""Where everything lies in a campaign folder. Paths only; nothing is read or made here but the config.

campaign.toml                     what the user wrote
structures/                       starting structures, extended XYZ
labels/                           the label store (may be shared: see label_store in campaign.toml)
iterations/000/campaign.toml      the config this iteration runs under
iterations/000/<stage>/0000/      one folder an item: manifest.json and what it describes
queue/                            the embedded queue server, if used
logs/                             tracebacks of failed items
lock                              held while a runner works here
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from al_leignn.config import CampaignConfig, Labeller, MailboxConfig, load_config
from al_leignn.core import Stage, StageRequest
from al_leignn.errors import CampaignError
from al_leignn.store import write_atomic

CONFIG = "campaign.toml"

# What the item folders hold beside their manifests.
FRAMES = "frames.extxyz"
SAMPLES = "samples.npz"
SELECTED = "selected.extxyz"
EXPECTED = "expected.npz"
POOL = "pool.npz"
PREDICTIONS = "predictions.npz"


@dataclass(frozen=True)
class Layout:
    root: Path

    @classmethod
    def open(cls, folder: Path) -> "Layout":
        """The layout of an existing campaign; raises `CampaignError` where there is none."""
        root = folder.resolve()
        if not (root / CONFIG).is_file():
            raise CampaignError(
                "no campaign here (there is no campaign.toml)",
                where=str(folder),
                fix="go to a campaign folder or name one; `al-leignn init STRUCTURE` makes one",
            )
        return cls(root)

    @property
    def config_file(self) -> Path:
        return self.root / CONFIG

    @property
    def iterations(self) -> Path:
        return self.root / "iterations"

    @property
    def queue(self) -> Path:
        return self.root / "queue"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    def iteration(self, index: int) -> Path:
        return self.iterations / f"{index:03d}"

    def stage(self, iteration: int, stage: Stage) -> Path:
        return self.iteration(iteration) / stage.value

    def item(self, request: StageRequest) -> Path:
        # In one step: `status` asks for ten thousand of them.
        return self.iterations / f"{request.iteration:03d}/{request.stage.value}/{request.item:04d}"

    def config(self) -> CampaignConfig:
        """The config as the user has it now."""
        return load_config(self.config_file)

    def config_of(self, iteration: int) -> CampaignConfig:
        """The config an iteration runs under: the copy made when it was opened."""
        return load_config(self.iteration(iteration) / CONFIG)

    def open_iteration(self, index: int) -> None:
        """Copy campaign.toml into the iteration unless it is there; later edits act from the next iteration."""
        copy = self.iteration(index) / CONFIG
        if not copy.exists():
            write_atomic(copy, self.config_file.read_bytes())

    def labeller(self, config: CampaignConfig) -> Labeller:
        """Settings of the labeller, with folders made absolute."""
        if isinstance(config.labeller, MailboxConfig):
            return config.labeller.model_copy(update={"folder": str(self.root / config.labeller.folder)})
        return config.labeller

    def label_store(self, config: CampaignConfig) -> Path:
        return self.root / config.label_store

    def inside(self, names: Sequence[str]) -> list[Path]:
        """Paths named in campaign.toml, relative to the campaign folder unless absolute."""
        return [self.root / name for name in names]
