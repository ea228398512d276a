"""The label store: what goes in comes out bit by bit; damage is found; writers do not disturb one another."""

import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from al_leignn.core import Doubt, Frame, LabelledFrame, Labels, Origin, Reason, structure_digest, structure_key
from al_leignn.errors import InputError
from al_leignn.labelstore import Entry, LabelStore
from al_leignn.store import digest_json

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


def key(item: LabelledFrame) -> str:
    return structure_key(item.frame.atoms)


def same(a: LabelledFrame, b: LabelledFrame) -> bool:
    stress = (a.labels.stress is None) == (b.labels.stress is None)
    if stress and a.labels.stress is not None and b.labels.stress is not None:
        stress = bool((a.labels.stress == b.labels.stress).all())
    labels = a.labels.energy == b.labels.energy and bool((a.labels.forces == b.labels.forces).all()) and stress
    return labels and a.frame == b.frame and a.frame.origin == b.frame.origin and a.level == b.level and digest(a) == digest(b)


def get(store: LabelStore, item: LabelledFrame, level: str = LEVEL) -> LabelledFrame | None:
    entry = store.find(item.frame, level)
    return None if entry is None else entry.labelled


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    return LabelStore(tmp_path / "labels")


@pytest.mark.parametrize("stress", [True, False])
def test_what_goes_in_comes_out_bit_by_bit(store: LabelStore, stress: bool) -> None:
    for seed in range(20):
        item = labelled(seed, stress=stress)
        store.put(item, {"wall_s": 1.0})
        found = get(store, item)
        assert found is not None
        assert same(found, item)
    assert len(store) == 20
    assert store.verify() == []


def test_other_structure_or_level_is_absent(store: LabelStore) -> None:
    item = labelled(0)
    store.put(item, {})
    assert get(store, labelled(1)) is None
    assert get(store, item, OTHER) is None
    assert get(store, item, LEVEL[:12] + OTHER[12:]) is None  # the folder's name is not the whole level


def test_iteration_has_every_label_once_in_a_fixed_order(store: LabelStore) -> None:
    items = [labelled(seed, level) for seed in range(5) for level in (LEVEL, OTHER)]
    for item in items:
        store.put(item, {})
        store.put(item, {"again": 1.0})
    found = [entry.labelled for entry in store]
    assert [(f.level, key(f)) for f in found] == sorted((i.level, key(i)) for i in items)


def test_an_empty_store_is_no_error(store: LabelStore) -> None:
    assert (list(store), len(store), store.verify(), store.descriptions()) == ([], 0, [], [])


def test_levels_are_described_once(store: LabelStore) -> None:
    store.describe_level(LEVEL, {"labeller": "first"})
    store.describe_level(LEVEL, {"labeller": "second"})
    store.describe_level(OTHER, {"labeller": "third"})
    assert [d["labeller"] for d in store.descriptions()] == ["first", "third"]
    assert len(store) == 0


# --- one structure, said in several ways ------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_order_of_atoms_and_lattice_translations_are_the_same_structure(store: LabelStore, seed: int) -> None:
    item = labelled(seed)
    store.put(item, {})
    rng = np.random.default_rng(seed)
    order = rng.permutation(3)
    atoms = item.frame.atoms[order]
    atoms.positions += (rng.integers(-2, 3, (3, 3)) * atoms.pbc) @ np.asarray(atoms.cell)
    found = get(store, LabelledFrame(Frame.of(atoms, item.frame.origin), item.labels, LEVEL))
    assert found is not None
    assert found.labels.energy == item.labels.energy
    np.testing.assert_array_equal(found.labels.forces, item.labels.forces[order])
    np.testing.assert_array_equal(found.frame.atoms.numbers, atoms.numbers)


def test_other_species_in_the_same_places_are_another_structure(store: LabelStore) -> None:
    item = labelled(0)
    store.put(item, {})
    atoms = item.frame.atoms.copy()
    atoms.numbers = atoms.numbers[::-1]
    assert get(store, LabelledFrame(Frame.of(atoms, item.frame.origin), item.labels, LEVEL)) is None


def test_a_store_of_the_first_format_is_not_paid_for_again(store: LabelStore) -> None:
    item = labelled(3)
    store.put(item, {"wall_s": 2.0})
    path = entry(store)
    body = json.loads(path.read_text()) | {"format": 1}
    for name in ("doubt", "released", "checksum"):
        del body[name]
    body["checksum"] = digest_json(body)
    path.unlink()
    old = path.parents[1] / digest(item)[:2] / f"{digest(item)}.json"
    old.parent.mkdir(exist_ok=True)
    old.write_text(json.dumps(body))
    found = get(store, item)
    assert found is not None
    assert same(found, item)
    assert store.verify() == []


# --- quarantine --------------------------------------------------------------------------------------------

ODD = Doubt(Reason.ENERGY, "0.3 eV/atom off")


def the(store: LabelStore) -> Entry:
    (found,) = store
    return found


def test_a_doubtful_label_is_quarantined_until_it_is_released(store: LabelStore) -> None:
    item = labelled(0)
    store.put(item, {}, ODD)
    assert (the(store).doubt, the(store).quarantined) == (ODD, True)
    (released,) = store.release(item.frame.uid[:6])
    assert same(released.labelled, item)
    assert (the(store).doubt, the(store).quarantined) == (ODD, False)
    store.doubt(item.frame, LEVEL, ODD)
    assert not the(store).quarantined, "what a person has released is not doubted again"


def test_a_doubt_may_come_later(store: LabelStore) -> None:
    item = labelled(0)
    store.put(item, {"wall_s": 3.0})
    store.doubt(item.frame, LEVEL, ODD)
    assert the(store).quarantined
    assert the(store).meta == {"wall_s": 3.0}
    assert same(the(store).labelled, item)


def test_release_wants_one_name(store: LabelStore) -> None:
    store.put(labelled(0), {})
    for uid in ("", labelled(0).frame.uid):
        with pytest.raises(InputError, match="no quarantined label"):
            store.release(uid)


def test_a_store_takes_in_another(store: LabelStore, tmp_path: Path) -> None:
    other = LabelStore(tmp_path / "other")
    for seed in range(4):
        other.put(labelled(seed), {}, ODD if seed == 3 else None)
    other.describe_level(LEVEL, {"labeller": "GPAW"})
    store.put(labelled(0), {"mine": 1.0})
    assert store.take_in(other) == 3
    assert store.take_in(other) == 0
    assert sorted(key(e.labelled) for e in store) == sorted(key(e.labelled) for e in other)
    assert sum(e.quarantined for e in store) == 1
    assert [d["labeller"] for d in store.descriptions()] == ["GPAW"]


# --- damage and concurrency --------------------------------------------------------------------------------


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
        assert get(store, item) is None
    (problem,) = store.verify()
    assert str(entry(store)) in str(problem)
    assert list(store) == []
    store.put(item, {})
    found = get(store, item)
    assert found is not None
    assert same(found, item)
    assert store.verify() == []


def write_many(root: Path, rounds: int) -> None:
    store = LabelStore(root)
    for _ in range(rounds):
        for seed in range(10):
            item = labelled(seed)
            store.put(item, {"wall_s": 0.1})
            found = get(store, item)  # a torn read would count as absent
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
