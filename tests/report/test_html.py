"""The report in a real browser: headless Chromium."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from al_leignn.campaign.campaign import Campaign
from al_leignn.campaign.history import History
from al_leignn.campaign.layout import Layout
from al_leignn.report.html import render, watch_report, write_report
from al_leignn.report.scenes import scenes
from al_leignn.report.series import deviation_curves, learning_curve

HOSTILE = '</script><script>console.error("run")</script><img src="http://example.org/x.png">&amp;{{ 7 * 7 }}'


class Page(HTMLParser):
    """Tables (rows of full numbers), elements by id, and how many shapes each chart has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[float | str]]] = {}
        self.values: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.shapes: dict[tuple[str, str], int] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._table = self._chart = self._id = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        self._id = found.get("id") or ""
        match tag:
            case "table":
                self._table = self._id
                self.tables[self._table] = []
            case "tr":
                self.tables[self._table].append([])
            case "td":
                value = found.get("data-value")
                self.tables[self._table][-1].append("" if not value else float(value))
            case "div" if "chart" in (found.get("class") or ""):
                self._chart = self._id
            case "path" | "circle":
                self.shapes[self._chart, tag] = self.shapes.get((self._chart, tag), 0) + 1
        if self._id and found.get("data-value"):
            self.values[self._id] = found["data-value"] or ""

    def handle_data(self, data: str) -> None:
        if self._id:
            self.texts.setdefault(self._id, data)


@dataclass
class Visit:
    page: Page
    console: list[str]
    requests: list[str]
    picture: Path


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here: install the package chromium to look at the report in a browser")
    return found


def visit(chromium: str, file: Path, folder: Path) -> Visit:
    log, picture = folder / "net.json", folder / "page.png"
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1240,3600"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", "--no-first-run", f"--user-data-dir={folder / 'profile'}"]
    command += ["--enable-logging=stderr", f"--log-net-log={log}"]
    command += ["--virtual-time-budget=3000", f"--screenshot={picture}", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    events = json.loads(log.read_text())["events"]
    # The browser has errands of its own; what a page asks for is kept under its own key.
    asked = [event["params"] for event in events if "network_isolation_key" in event.get("params", {})]
    urls = {params["url"] for params in asked if params["network_isolation_key"].startswith("file:")}
    return Visit(
        page=Page(done.stdout),
        console=[line for line in done.stderr.splitlines() if "CONSOLE" in line],
        requests=sorted(url for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss", "ftp")),
        picture=picture,
    )


@pytest.fixture(scope="module")
def visited(chromium: str, emt_campaign: Path, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    folder = tmp_path_factory.mktemp("report")
    write_report(Layout.open(emt_campaign), folder / "report.html")
    return visit(chromium, folder / "report.html", folder)


def test_page_opens_without_network_or_complaint(visited: Visit) -> None:
    assert visited.console == []
    assert visited.requests == []


def test_a_page_that_does_would_be_found_out(chromium: str, tmp_path: Path) -> None:
    bad = '<!doctype html><img src="http://example.org/x.png"><script>console.error("complaint")</script>'
    (tmp_path / "bad.html").write_text(bad, encoding="utf-8")
    found = visit(chromium, tmp_path / "bad.html", tmp_path)
    assert found.requests == ["http://example.org/x.png"]
    assert "complaint" in found.console[0]


def test_numbers_on_the_page_equal_the_stored_ones(visited: Visit, emt_campaign: Path) -> None:
    campaign = Campaign.open(emt_campaign)
    status, records = campaign.status(), History(campaign.layout).records()
    tables = {name: [row for row in rows if row] for name, rows in visited.page.tables.items()}
    values = visited.page.values
    assert visited.page.texts["decision"] == status["decision"]["kind"]
    assert visited.page.texts["reason"] == status["decision"]["reason"]
    assert float(values["labels"]) == status["labels"]["asked"]
    assert float(values["MD-steps"]) == status["md"]["steps"]
    assert records[-1].fresh is not None
    assert float(values["fresh-force-MAE"]) == records[-1].fresh["force_mae"]

    columns = ["iteration", "walker", "temperature", "steps", "stopped", "frames", "median", "q90", "max", "bound_90"]
    columns += ["accurate", "candidate", "failed", "trust_lo", "trust_hi"]
    for walker, row in zip(History(campaign.layout).walker_rows(), tables["walkers"], strict=True):
        assert row == ["" if name == "stopped" else getattr(walker, name) for name in columns]
    for record, row in zip(records, tables["funnel"], strict=True):
        assert row[:3] == [record.iteration, record.steps, record.pool]
        if record.walkers:
            assert row[4:7] == [record.verdicts[v] for v in ("accurate", "candidate", "failed")]
            novel = record.disagreements["accurate but novel"]
            assert row[7] == record.verdicts["candidate"] + record.verdicts["failed"] + novel
            assert sum(map(int, row[8:11])) <= record.pool
        assert row[11:13] == [record.labels.asked, record.labels.accepted]
    for record, row in zip(records[1:], tables["errors"][1:], strict=True):
        assert record.fresh is not None
        names = ("force_mae", "force_mae_low", "force_mae_high", "energy_mae", "n_frames")
        assert row[1:6] == [record.fresh[name] for name in names]
        assert record.chosen is not None
        assert row[6:10] == [record.chosen[name] for name in ("force_mae", "force_mae_low", "force_mae_high", "n_frames")]
    seen = [(r.iteration, found) for r in records for found in r.quantities.values()]
    for (iteration, found), row in zip(seen, tables["calibration"], strict=True):
        coverage, new = found["coverage"], found["calibration"]
        expected = [] if coverage is None else [coverage[name] for name in ("covered", "n", "share", "low", "high")]
        assert [value for value in row if value != ""] == [iteration, new["nominal"], *expected, new["factor"], new["n"]]
    for record, row in zip(records, tables["costs"], strict=False):
        assert row[1:8] == [cost.cpu_s for cost in record.costs.values()]


def test_charts_show_every_curve_and_point(visited: Visit, emt_campaign: Path) -> None:
    history = History(Layout.open(emt_campaign))
    shapes = visited.page.shapes
    curves, points = deviation_curves(history), learning_curve(history)
    levels, axes, ring = 2 * 2, 1, 1
    assert shapes["deviations", "path"] == len(curves) + levels + axes + sum(bool(curve.stopped) for curve in curves)
    assert shapes["learning", "circle"] == len(points) + ring
    predictions = history.predictions(2)
    assert predictions is not None
    assert shapes["calibration-chart", "circle"] == len(predictions["uid"]) + ring
    assert shapes["coverage-chart", "circle"] == 2 + ring


INTERACT = """<script>{
const send = (svg, kind, x, y) => svg.dispatchEvent(new PointerEvent(kind, { bubbles: true, clientX: x, clientY: y }));
const dot = document.querySelectorAll("#learning circle")[1], box = dot.getBoundingClientRect();
send(dot.ownerSVGElement, "pointermove", box.x + 2, box.y + 2);
const tip = document.querySelector("#learning .tip");
const plot = document.querySelector("#parity svg"), frame = plot.getBoundingClientRect();
send(plot, "pointerdown", frame.x + 100, frame.y + 60);
send(plot, "pointermove", frame.x + 200, frame.y + 160);
send(plot, "pointerup", frame.x + 200, frame.y + 160);
const select = document.getElementById("iteration");
select.value = "2";
select.dispatchEvent(new Event("change"));
const frames = [...document.querySelectorAll("#scene option")].filter((option) => !option.hidden);
const space = document.querySelector("#space canvas"), paint = () => space.toDataURL();
const still = paint(), place = space.getBoundingClientRect();
space.setPointerCapture = () => {};
send(space, "pointerdown", place.x + 100, place.y + 100);
send(space, "pointermove", place.x + 160, place.y + 130);
const rows = [...document.querySelectorAll("#walkers tbody tr")].filter((row) => !row.classList.contains("hidden"));
document.body.dataset.said = JSON.stringify({
  tip: tip.classList.contains("hidden") ? "" : tip.textContent,
  zoomed: document.querySelector("#parity svg") !== plot,
  frames: frames.map((option) => data.scenes[option.value].uid),
  facts: document.getElementById("scene-facts").textContent,
  turned: paint() !== still,
  iterations: rows.map((row) => row.dataset.iteration),
});
}</script></body>"""


def test_hover_zoom_and_filter(chromium: str, emt_campaign: Path, tmp_path: Path) -> None:
    layout = Layout.open(emt_campaign)
    (tmp_path / "page.html").write_text(render(layout).replace("</body>", INTERACT), encoding="utf-8")
    found = visit(chromium, tmp_path / "page.html", tmp_path)
    assert found.console == []
    said = json.loads(next(attributes["data-said"] or "" for tag, attributes in found.page.tags if tag == "body"))
    second = [point for point in learning_curve(History(layout)) if point.kind == "fresh"][1]
    assert said["tip"].startswith(f"fresh, iteration 2, {second.labels} labels\nforce MAE {second.force_mae:.4g} eV/Å")
    assert said["zoomed"]
    assert said["iterations"] == ["2", "2"]
    shown = [scene for scene in scenes(History(layout)) if scene.iteration == 2]
    assert said["frames"] == [scene.uid for scene in shown]
    assert said["facts"].startswith(f"frame {shown[0].uid}\niteration 2, walker {shown[0].walker}, step {shown[0].step}")
    assert said["turned"]


def test_picture_is_not_blank(visited: Visit) -> None:
    with Image.open(visited.picture) as image:
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_names_and_settings_cannot_run_or_load_anything(chromium: str, emt_campaign: Path, tmp_path: Path) -> None:
    shutil.copytree(emt_campaign, tmp_path / "copy")
    for file in [tmp_path / "copy" / "campaign.toml", *(tmp_path / "copy" / "iterations").glob("*/campaign.toml")]:
        file.write_text(file.read_text().replace('"Cu3Al"', json.dumps(HOSTILE)), encoding="utf-8")
    write_report(Layout.open(tmp_path / "copy"), tmp_path / "report.html")
    found = visit(chromium, tmp_path / "report.html", tmp_path)
    assert found.console == []
    assert found.requests == []
    assert not any(tag == "img" for tag, _ in found.page.tags)


def test_page_stands_alone_and_is_small(emt_campaign: Path) -> None:
    text = render(Layout.open(emt_campaign))
    assert len(text) < 1_000_000
    for tag, attributes in Page(text).tags:
        assert tag not in ("iframe", "img", "object", "embed")
        assert "src" not in attributes
        assert (attributes.get("href") or "data:").startswith("data:")


def test_a_watched_page_loads_itself_anew(emt_campaign: Path, tmp_path: Path) -> None:
    layout = Layout.open(emt_campaign)
    assert '<meta http-equiv="refresh" content="30">' in render(layout, 30)
    versions = []
    watch_report(layout, tmp_path / "page.html", 1, lambda: versions.append((tmp_path / "page.html").read_text()))
    assert len(versions) == 1  # a finished campaign is written once
    assert 'http-equiv="refresh"' not in versions[0]


def test_report_of_a_campaign_that_has_not_started(chromium: str, emt_campaign: Path, tmp_path: Path) -> None:
    shutil.copy(emt_campaign / "campaign.toml", tmp_path)
    write_report(Layout.open(tmp_path), tmp_path / "report.html")
    found = visit(chromium, tmp_path / "report.html", tmp_path)
    assert found.console == []
    assert found.page.texts["decision"] == "no decision yet"


def test_report_of_a_campaign_under_way(emt_campaign: Path, tmp_path: Path) -> None:
    """Whatever stage it is in, there is a page."""
    shutil.copytree(emt_campaign, tmp_path / "copy")
    layout = Layout.open(tmp_path / "copy")
    for stage in ("converge", "validate", "train", "collect", "label", "select", "explore"):
        shutil.rmtree(layout.iteration(2) / stage)
        assert "Cu3Al" in render(layout)
