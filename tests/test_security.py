"""What is read from disk never runs, never leads out of its folder, and never becomes markup.

(Pickles offered as models: model/test_bad_input.py. The embedded server and its password: flow/.)
"""

import ast
import json
import shutil
import socket
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk
from pydantic import ValidationError

from al_leignn.campaign.history import load_arrays
from al_leignn.campaign.layout import CONFIG, Layout
from al_leignn.config import CampaignConfig
from al_leignn.core import Frame, LabelledFrame, Labels, Origin, Stage, StageRequest
from al_leignn.errors import DamagedArtifactError
from al_leignn.label.process import run_bounded
from al_leignn.labelstore import LabelStore
from al_leignn.report.html import render
from al_leignn.store import MANIFEST, Manifest, digest_json, publishing, read_manifest, sweep_scratch, verify

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'{{ 7 * 7 }}"

NEVER_CALLED = {
    "eval",
    "exec",
    "compile",
    "pickle.load",
    "pickle.loads",
    "torch.load",
    "yaml.load",
    "marshal.loads",
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
}


def calls(source: Path) -> list[tuple[str, ast.Call]]:
    found = [node for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    return [(ast.unparse(node.func), node) for node in found]


def test_the_package_has_no_call_that_runs_what_it_reads(repository: Path) -> None:
    sources = sorted((repository / "al_leignn").rglob("*.py"))
    assert len(sources) > 100
    for source in sources:
        for name, call in calls(source):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            assert name not in NEVER_CALLED, f"{source}:{call.lineno}"
            assert "shell" not in given, f"{source}:{call.lineno}"
            assert name not in ("np.load", "numpy.load") or given.get("allow_pickle") == "False", f"{source}:{call.lineno}"


def test_arrays_with_pickled_objects_are_damaged_arrays(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.mkdir, (tmp_path / "executed",))

    np.savez(tmp_path / "samples.npz", step=np.array([Bomb()], dtype=object))
    with pytest.raises(DamagedArtifactError, match=r"samples\.npz"):
        load_arrays(tmp_path / "samples.npz")
    assert not (tmp_path / "executed").exists()
    with np.load(tmp_path / "samples.npz", allow_pickle=True) as data:
        _ = data["step"]
    assert (tmp_path / "executed").exists(), "the bomb would not have worked"


# --- commands --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labeller",
    [
        {"type": "external", "command": "dft {input} > {output}; rm -rf /"},
        {"type": "gpaw", "launch": "mpirun -np 8"},
        {"type": "ase", "calculator": "os:system", "arguments": {"command": "touch hacked"}},
        {"type": "ase", "calculator": "subprocess:getoutput", "arguments": {"cmd": "touch hacked"}},
        {"type": "ase", "calculator": "ase.calculators.dftb:Dftb", "arguments": {"command": "touch hacked"}},
    ],
)
def test_no_setting_is_a_line_for_a_shell(labeller: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        CampaignConfig.model_validate({"name": "x", "structures": ["x"], "labeller": labeller})


def test_words_of_a_command_mean_nothing_to_anybody_else(tmp_path: Path) -> None:
    words = ["$(touch hacked)", "`touch hacked`", ";", "touch", "hacked", "&&", "> hacked", "*"]
    done = run_bounded(["echo", *words], tmp_path, 30.0)
    assert (done.returncode, done.tail) == (0, " ".join(words))
    assert not (tmp_path / "hacked").exists()


# --- paths -----------------------------------------------------------------------------------------------


def labelled(level: str) -> LabelledFrame:
    atoms = bulk("Cu", cubic=True)
    return LabelledFrame(Frame.of(atoms, Origin("given")), Labels(-1.0, np.zeros((4, 3)), None), level)


@pytest.mark.parametrize("level", ["../../../../x", "a/../../../../x", "/tmp/evil", "a", "A" * 64])
def test_labels_from_elsewhere_stay_in_the_store(tmp_path: Path, level: str) -> None:
    foreign, mine = LabelStore(tmp_path / "foreign" / "deep" / "labels"), LabelStore(tmp_path / "deep" / "er" / "mine")
    foreign.put(labelled("a" * 64), {})
    foreign.describe_level("a" * 64, {"labeller": "x"})
    (entry,) = foreign.root.glob("*/??/*.json")
    body = json.loads(entry.read_bytes()) | {"level": level}
    del body["checksum"]
    planted = foreign.root / "a" / entry.parent.name / entry.name
    for place in (entry, planted):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(body | {"checksum": digest_json(body)}))
        (place.parents[1] / "level.json").write_text(json.dumps({"level": level, "labeller": "x"}))
    before = sorted(tmp_path.rglob("*"))
    assert mine.take_in(foreign) == 0
    assert len(foreign.verify()) == 2
    assert foreign.descriptions() == []
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link", "sub/../../secret"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("s")
    with publishing(tmp_path / "item") as scratch:
        Manifest(stage="label", iteration=0, item=0, inputs={}, config="", seed=[], result={}).seal(scratch)
    path = tmp_path / "item" / MANIFEST
    (tmp_path / "item" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "item" / "sub").mkdir()
    body = json.loads(path.read_bytes()) | {"outputs": {name: "0" * 64}}
    del body["checksum"]
    path.write_text(json.dumps(body))
    with pytest.raises(DamagedArtifactError, match="outside its folder"):
        verify(tmp_path / "item")


def test_sweeping_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis").write_text("x")
    campaign = tmp_path / "campaign"
    campaign.mkdir()
    dead = f".scratch-{socket.gethostname()}-99999999-0-x"
    (campaign / dead).symlink_to(tmp_path / "precious")
    (campaign / "way out").symlink_to(tmp_path / "precious")
    (tmp_path / "precious" / dead).mkdir()
    assert sweep_scratch(campaign) == 1
    assert not (campaign / dead).exists()
    assert (tmp_path / "precious" / "thesis").exists()
    assert (tmp_path / "precious" / dead).exists()


# --- the report ------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Elements and their attributes, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, int] = {}
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found[tag] = self.found.get(tag, 0) + 1
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def test_nothing_in_a_campaign_becomes_markup(emt_campaign: Path, tmp_path: Path) -> None:
    root = tmp_path / "campaign"
    shutil.copytree(emt_campaign, root)
    layout = Layout.open(root)
    clean = Tags(render(layout))
    for file in (layout.config_file, layout.iteration(2) / CONFIG):
        text = file.read_text().replace('name = "Cu3Al"', f"name = {json.dumps(HOSTILE)}")
        file.write_text(text.replace("[seeds]", f"# {HOSTILE}\n[seeds]"))
    for stage, key in ((Stage.CONVERGE, "reason"), (Stage.SELECT, "schedule")):
        path = layout.item(StageRequest(stage, 2, 0)) / MANIFEST
        body = json.loads(path.read_bytes())
        body["result"][key] = HOSTILE
        body["checksum"] = digest_json({name: value for name, value in body.items() if name != "checksum"})
        path.write_text(json.dumps(body))
        assert read_manifest(path.parent) is not None
    page = render(layout)
    assert "alert(1)" in page, "the campaign's words are not on the page: this proves nothing"
    assert "49" not in page.split("</title>")[0]
    dirty = Tags(page)
    assert dirty.found == clean.found
    assert dirty.handlers == clean.handlers
