"""The label store: what goes in comes out bit by bit; damage is found; writers do not disturb one another."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from al_leignn.core import Frame, LabelledFrame, Labels, Origin, structure_digest
from al_leignn.labelstore import LabelStore

LEVEL = "a" * 64
OTHER = "b" * 64


def labelled(seed: int, level: str = LEVEL, *, stress: bool = True) -> LabelledFrame:
    rng = np.random.default_rng(seed)
    atoms = Atoms("SiGeC", positions=rng.uniform(0, 5, (3, 3)), cell=np.eye(3) * 5 + rng.uniform(0, 0.3, (3, 3)), pbc=[1, 1, 0])
    frame = Frame.of(atoms, Origin("md", iteration=2, walker=1, step=40, temperature=300.0))
    values = Labels(float(rng.normal() * 1e3), rng.normal(size=(3, 3)), rng.normal(size=6) if stress else None)
    return LabelledFrame(frame, values, level)


def digest(item: LabelledFrame) -> str:
    return structure_digest(item.frame.atoms)


def same(a: LabelledFrame, b: LabelledFrame) -> bool:
    stress = (a.labels.stress is None) == (b.labels.stress is None)
    if stress and a.labels.stress is not None and b.labels.stress is not None:
        stress = bool((a.labels.stress == b.labels.stress).all())
    labels = a.labels.energy == b.labels.energy and bool((a.labels.forces == b.labels.forces).all()) and stress
    return labels and a.frame == b.frame and a.frame.origin == b.frame.origin and a.level == b.level and digest(a) == digest(b)


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels")


@pytest.mark.parametrize("stress", [True, False])
def test_what_goes_in_comes_out_bit_by_bit(store: LabelStore, stress: bool) -> None:
    for seed in range(20):
        item = labelled(seed, stress=stress)
        store.put(item, {"wall_s": 1.0})
        found = store.get(digest(item), LEVEL)
        assert found is not None
        assert same(found, item)
    assert len(store) == 20
    assert store.verify() == []


def test_other_structure_or_level_is_absent(store: LabelStore) -> None:
    item = labelled(0)
    store.put(item, {})
    assert store.get(digest(labelled(1)), LEVEL) is None
    assert store.get(digest(item), OTHER) is None
    assert store.get(digest(item), LEVEL[:12] + OTHER[12:]) is None  # the folder's name is not the whole level


def test_iteration_has_every_label_once_in_a_fixed_order(store: LabelStore) -> None:
    items = [labelled(seed, level) for seed in range(5) for level in (LEVEL, OTHER)]
    for item in items:
        store.put(item, {})
        store.put(item, {"again": 1.0})
    found = list(store)
    assert [(f.level, digest(f)) for f in found] == sorted((i.level, digest(i)) for i in items)


def test_an_empty_store_is_no_error(store: LabelStore) -> None:
    assert (list(store), len(store), store.verify(), store.descriptions()) == ([], 0, [], [])


def test_levels_are_described_once(store: LabelStore) -> None:
    store.describe_level(LEVEL, {"labeller": "first"})
    store.describe_level(LEVEL, {"labeller": "second"})
    store.describe_level(OTHER, {"labeller": "third"})
    assert [d["labeller"] for d in store.descriptions()] == ["first", "third"]
    assert len(store) == 0


def entry(store: LabelStore) -> Path:
    (path,) = store.root.glob("*/??/*.json")
    return path


def flip(path: Path) -> None:
    body = json.loads(path.read_text())
    body["energy"] += 1e-9
    path.write_text(json.dumps(body))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garble(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def other_json(path: Path) -> None:
    path.write_text("[1, 2]")


def of_another_structure(path: Path) -> None:
    LabelStore(path.parents[3] / "other").put(labelled(7), {})
    path.write_bytes(entry(LabelStore(path.parents[3] / "other")).read_bytes())


@pytest.mark.parametrize("damage", [flip, truncate, empty, garble, other_json, of_another_structure])
def test_damage_is_found_and_paid_for_again(store: LabelStore, damage: object) -> None:
    item = labelled(0)
    store.put(item, {})
    assert callable(damage)
    damage(entry(store))
    with pytest.warns(UserWarning, match="damaged label"):
        assert store.get(digest(item), LEVEL) is None
    (problem,) = store.verify()
    assert str(entry(store)) in str(problem)
    assert list(store) == []
    store.put(item, {})
    found = store.get(digest(item), LEVEL)
    assert found is not None
    assert same(found, item)
    assert store.verify() == []


def write_many(root: Path, rounds: int) -> None:
    store = LabelStore(root)
    for _ in range(rounds):
        for seed in range(10):
            item = labelled(seed)
            store.put(item, {"wall_s": 0.1})
            found = store.get(digest(item), LEVEL)  # a torn read would count as absent
            assert found is not None
            assert same(found, item)


def test_concurrent_writers_and_readers_see_whole_entries(store: LabelStore) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_many, args=(store.root, 10)) for _ in range(2)]
    for writer in writers:
        writer.start()
    write_many(store.root, 5)
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(store) == 10
    assert store.verify() == []
    assert not [path for path in store.root.rglob("*") if path.is_file() and path.name.startswith(".")]
