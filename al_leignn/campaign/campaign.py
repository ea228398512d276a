"""A campaign from Python: where it stands, its history, its frames, the life of each of them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ase import Atoms

from al_leignn.campaign.history import History, IterationRecord, LabelCost
from al_leignn.campaign.item import model_file
from al_leignn.campaign.layout import Layout
from al_leignn.campaign.ledger import ledger
from al_leignn.campaign.lock import describe_holder, is_held
from al_leignn.campaign.state import IterationState, State, scan
from al_leignn.core import Decision, LabelledFrame, Purpose, Stage, StageRequest

if TYPE_CHECKING:
    import pandas as pd


class Campaign:
    """A campaign folder, read only. Every call reads the disk anew, so a running campaign may be watched.

    Examples
    --------
    >>> campaign = Campaign.open(Path("Si"))
    >>> campaign.status()["decision"]["reason"]
    >>> campaign.history().groupby("iteration")["q90"].max()
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """Open an existing campaign; raises `CampaignError` where there is none."""
        return cls(Layout.open(Path(folder)))

    def status(self) -> dict[str, Any]:
        """Where the campaign stands; JSON-safe.

        Returns
        -------
        dict
            name, folder; iteration (None before the first) and the items of its stages, done and expected (None while
            unknown); labels (asked = accepted + quarantined + rejected; computed, core_s), their ledger (`ledger.ledger`)
            and data (train, fresh frames); md (steps, and the share of them that needed no label); cpu_s by stage; the last
            decision (iteration, kind, reason, conditions); finished; running (the process that holds the campaign);
            damaged (what cannot be read).
        """
        state = scan(self.layout)
        history = History(self.layout)
        records = history.records()
        return {
            "name": self.layout.config().name,
            "folder": str(self.layout.root),
            "iteration": None if state.current is None else state.current.index,
            "stages": {} if state.current is None else _stages(state.current),
            "ledger": ledger(history),
            "labels": {name: sum(getattr(record.labels, name) for record in records) for name in LabelCost._fields},
            "data": {"train": _last(r.train_total for r in records), "fresh": _last(r.fresh_total for r in records)},
            "md": md_economy(records),
            "cpu_s": {stage.value: sum(r.costs[stage].cpu_s for r in records) for stage in Stage},
            "decision": _decision(state),
            "finished": state.finished,
            "running": describe_holder(self.layout.lock) if is_held(self.layout.lock) else None,
            "damaged": sorted({*state.damaged, *history.damaged}),
        }

    def committee_file(self) -> Path:
        """Checkpoint of the newest validated committee; raises `CheckpointError` where there is none yet."""
        return model_file(self.layout.root)

    def history(self) -> "pd.DataFrame":
        """The uncertainty history: one row per iteration and walker, columns as in `history.WalkerRow`."""
        import pandas as pd

        from al_leignn.campaign.history import WalkerRow

        return pd.DataFrame(History(self.layout).walker_rows(), columns=list(WalkerRow._fields))

    def coverage(self) -> "pd.DataFrame":
        """Nominal against empirical coverage: one row per iteration and calibrated quantity.

        Columns: iteration, quantity, nominal; covered, n, frames, share, low, high (95 % limits) and drift of the fresh labels
        under the bound of the iteration before (missing where there was none); factor, from_frames and valid of the new bound.
        """
        import pandas as pd

        rows = []
        for record in History(self.layout).records():
            for quantity, found in record.quantities.items():
                new = found["calibration"]
                row = {"iteration": record.iteration, "quantity": quantity, "nominal": new["nominal"]}
                row |= found["coverage"] or {}
                rows.append(row | {"factor": new["factor"], "from_frames": new["n"], "valid": new["valid"]})
        columns = ["iteration", "quantity", "nominal", "covered", "n", "frames", "share", "low", "high", "drift"]
        return pd.DataFrame(rows, columns=[*columns, "factor", "from_frames", "valid"])

    def frames(self, split: str | None = None) -> list[Atoms]:
        """The labelled frames, or those of one split, each with its labels as a calculator.

        `info` holds uid, split, and where the frame came from: origin, iteration, walker, md_step, temperature (K).

        Parameters
        ----------
        split
            "train", "fresh", or None for both.

        Raises
        ------
        ValueError
            If there is no such split.
        """
        from al_leignn.dataset import load_dataset

        wanted = list(Purpose) if split is None else [Purpose(split)]
        history = History(self.layout)
        collected = [i for i in range(history.iterations) if history.manifest(Stage.COLLECT, i)]
        data = load_dataset([self.layout.item(StageRequest(Stage.COLLECT, i, 0)) for i in collected])
        parts = {Purpose.TRAIN: data.train, Purpose.FRESH: data.fresh}
        return [_with_labels(labelled, purpose) for purpose in wanted for labelled in parts[purpose]]

    def explain(self, uid: str) -> dict[str, Any]:
        """The life of one frame, taken or refused; see `explain.explain`."""
        from al_leignn.campaign.explain import explain

        return explain(History(self.layout), uid)


def _with_labels(labelled: LabelledFrame, purpose: Purpose) -> Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    origin, labels = labelled.frame.origin, labelled.labels
    atoms: Atoms = labelled.frame.atoms.copy()
    atoms.info = {
        "uid": labelled.frame.uid,
        "split": purpose.value,
        "origin": origin.kind,
        "iteration": origin.iteration,
        "walker": origin.walker,
        "md_step": origin.step,
        "temperature": origin.temperature,
    }
    stress = {} if labels.stress is None else {"stress": labels.stress}
    atoms.calc = SinglePointCalculator(atoms, energy=labels.energy, free_energy=labels.energy, forces=labels.forces, **stress)
    return atoms


def md_economy(records: list[IterationRecord]) -> dict[str, float | None]:
    """MD steps driven by the committee, and the share of them that needed no label."""
    steps = sum(record.steps for record in records)
    labels = sum(record.labels.asked for record in records if record.iteration > 0)
    return {"steps": steps, "without_label": 1 - labels / steps if steps else None}


def _stages(iteration: IterationState) -> dict[str, dict[str, int | None]]:
    return {s.value: {"done": len(iteration.done[s]), "expected": iteration.expected[s]} for s in Stage}


def _last(totals: Iterable[int | None]) -> int:
    """The newest known total; totals only grow."""
    return max((total for total in totals if total is not None), default=0)


def _decision(state: State) -> dict[str, Any] | None:
    for iteration in reversed(state.iterations):
        decision: Decision | None = iteration.decision
        if decision is not None:
            return {
                "iteration": iteration.index,
                "kind": decision.kind.value,
                "reason": decision.reason,
                "conditions": decision.conditions,
            }
    return None
