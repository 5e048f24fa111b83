"""The page: whole, self-contained, escaped; and in a real browser it renders, sorts and stays silent."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reports.measured import Measured
from reports.overview import Overview, overview
from reports.page import html
from results.store import Store
from tests.reports.fake_store import add_failure, add_run, defaults, fake_spec, fake_store

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NASTY = "<img src=x onerror=alert(1)>"


def read(store: Store) -> tuple[Measured, Any]:
    frame = store.load()
    return Measured.of(store, frame, defaults(frame)), store.histories(frame["run_id"].unique())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Overview:
    store = fake_store(tmp_path_factory.mktemp("store"), ("pml", "bl", "l2"), range(3), noises=("none", "uniform-px:8"))
    add_failure(store, fake_spec("gl"), f"the loss is not finite: {NASTY}")
    add_run(store, fake_spec("chfl"), record={"command": f"benchmark run --title '{NASTY}'"})
    measured, history = read(store)
    return overview(measured, history, title=NASTY, problems=[f"{NASTY} cannot be read"])


@pytest.fixture(scope="module")
def text(made: Overview) -> str:
    return html(made.page)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        known = dict(attrs)
        self.links += [str(known[name]) for name in ("href", "src", "srcset", "action", "xlink:href") if name in known]
        self.ids += [str(known["id"])] if "id" in known else []
        assert not [name for name in known if name.startswith("on")]


def test_it_needs_no_network_and_runs_nothing_of_strangers(text: str) -> None:
    reader = _Reader()
    reader.feed(text)
    assert reader.tags.count("script") == 1
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in reader.links)
    assert len(set(reader.ids)) == len(reader.ids)
    assert re.findall(r"url\((?!#|'#|\"#)", text) == []
    assert NASTY not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert "default-src &#39;none&#39;" in text or "default-src 'none'" in text


def test_every_anchor_leads_somewhere(text: str) -> None:
    reader = _Reader()
    reader.feed(text)
    assert {link[1:] for link in reader.links if link.startswith("#") and link[1:]} <= set(reader.ids)


def test_failures_and_unread_files_are_on_it(text: str) -> None:
    assert "the loss is not finite" in text
    assert "Left out: &lt;img" in text
    assert "1 failed" in text


def test_it_says_what_is_separated(made: Overview) -> None:
    sentences = [line for part in made.page.parts for line in part.lead]
    assert any(line.startswith(("Separated after correction", "No pair of losses is separated")) for line in sentences)


def test_tables_and_figures_have_names_of_their_own(made: Overview) -> None:
    for things in (made.tables, made.plots):
        names = [thing.name for thing in things]
        assert len(set(names)) == len(names)
        assert len(names) > 4


PROBE = """
<script>
addEventListener("load", () => {
  const report = {errors: 0, tables: document.querySelectorAll("table.sortable").length};
  const table = [...document.querySelectorAll("table.sortable")].find((t) => t.caption.textContent.includes("vgg19"));
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const column = heads.findIndex((h) => h.textContent === "MAE");
  const values = () => [...table.tBodies[0].rows].map((r) => [r.cells[column].dataset.value ?? null, r.className]);
  report.before = values();
  heads[column].querySelector("button").click();
  report.up = values();
  heads[column].querySelector("button").click();
  report.down = values();
  report.sort = heads[column].getAttribute("aria-sort");
  report.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  report.width = document.documentElement.clientWidth;
  parent.postMessage(JSON.stringify(report), "*");
});
</script>
"""
FRAME = """<!doctype html>
<script>
addEventListener("message", (event) => {
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = event.data;
  document.body.append(out);
});
</script>
<body><iframe src="index.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe></body>
"""
"""A window is never narrower than 500 px; a frame in it is."""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium (Debian: chromium)")
@pytest.mark.parametrize("width", [400, 1200])
def test_in_a_browser_it_renders_silently_and_sorts(text: str, tmp_path: Path, width: int) -> None:
    page = tmp_path / "index.html"
    page.write_text(text.replace("</body>", PROBE + "</body>"), encoding="utf-8")
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0",
            "--window-size=1400,1000", f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=4000",
            "--dump-dom", (tmp_path / "frame.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr, done.stderr[-2000:]
    (found,) = re.findall(r'<pre id="probe">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    report = json.loads(found)
    up = [float(value) for value, kind in report["up"] if value is not None and kind != "reference"]
    down = [float(value) for value, kind in report["down"] if value is not None and kind != "reference"]
    assert len(up) > 2
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)
    assert report["up"][-1][1] == report["down"][-1][1] == "reference"
    assert report["sort"] == "descending"
    assert report["width"] <= width
    assert report["overflow"] <= 0
