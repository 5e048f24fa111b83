"""`benchmark report`: where it writes, what it refuses to write to, and stores without measurements."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from benchmark import report_noise
from benchmark.cli import main
from benchmark.targets import check_file, check_folder
from reports.page import Page, html
from results.store import Store
from tests.reports.fake_store import add_failure, add_run, fake_spec, fake_store

PARTS = ("comparison", "localisation", "table2", "table3", "table4", "noise", "sparse_dense", "cost", "custom")
"""Every part that reads a store."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "runs"
    return fake_store(path, ("pml", "bl"), [0, 1], noises=("none", "missing:0.1"), images=20).root


def run(*words: object) -> int:
    return main(["report", *map(str, words)])


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line with which a command is refused."""
    assert run(*words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


# ---- nothing is written unasked


@pytest.mark.parametrize("part", ["noise", "sparse_dense"])
def test_figures_are_written_only_where_a_folder_is_named(
    root: Path, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (part, "-o", root, *(("--bins", "jhu", "--where", "noise=none") if part == "sparse_dense" else ()))
    assert run(*words) == 0
    assert list(tmp_path.iterdir()) == []
    assert "no figures written: --to FOLDER writes them" in capsys.readouterr().err
    assert run(*words, "--out", "table.json") == 0
    assert [path.name for path in tmp_path.iterdir()] == ["table.json"]
    assert run(*words, "--to", "there") == 0
    assert {path.name for path in (tmp_path / "there").iterdir()} == {"figures", "findings.txt"}
    assert {path.suffix for path in (tmp_path / "there/figures").iterdir()} == {".png", ".pdf", ".svg", ".csv"}
    assert "no figures" not in capsys.readouterr().err.partition("figures in")[2]


@pytest.mark.parametrize("part", [*(p for p in PARTS if p not in ("noise", "sparse_dense")), "coverage"])
def test_parts_without_figures_take_no_folder(
    root: Path, part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, part, "-o", root, "--to", tmp_path / "there")
    assert f"of the figures of noise, sparse_dense and speed; {part} has none: --out FILE" in said


def test_the_help_has_the_rule(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert "the page goes there (default: report)" in said
    assert "the page, and the figures of noise, sparse_dense and speed:" in said
    assert "of noise, sparse_dense and speed the figures and findings, which without it are not written" in said


def test_without_a_folder_nothing_is_drawn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from reports import overview_noise

    monkeypatch.setattr(overview_noise, "_figures", lambda *_: pytest.fail("drawn"))
    assert run("noise", "-o", root, "--format", "csv") == 0


# ---- findings reach the formats that programs and browsers read


def test_findings_are_in_json_html_and_markdown(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report_noise.noise(*_measured(root))
    said = [line for line in found.lead if line.startswith("MAE over missing")]
    assert len(said) == 1
    assert run("noise", "-o", root, "--format", "json") == 0
    tables = json.loads(capsys.readouterr().out)
    assert [table["name"] for table in tables if "findings" in table] == ["noise"]
    assert tables[0]["findings"] == list(found.lead[1:])
    assert run("noise", "-o", root, "--out", tmp_path / "noise.html") == 0
    written = (tmp_path / "noise.html").read_text(encoding="utf-8")
    listed = re.findall(r"<li>(.*?)</li>", written.partition("<table")[0])
    assert [line.replace("&#39;", "'") for line in listed] == list(found.lead[1:])
    assert run("noise", "-o", root, "--out", tmp_path / "noise.md") == 0
    above = (tmp_path / "noise.md").read_text(encoding="utf-8").partition("\n|")[0]
    assert above.count("\n- ") == len(found.lead) - 1


def test_each_study_has_its_findings_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fake_store(tmp_path, ("pml", "bl"), [0, 1], noises=("none", "missing:0.1"), images=20)
    for seed in range(2):
        for noise in ("none", "duplicate:0.3"):
            add_run(store, fake_spec("bl", seed, noise=noise, recipe={"epochs": 9}), images=20)
    assert run("noise", "-o", store.root, "--format", "json") == 0
    tables = {table["name"]: table for table in json.loads(capsys.readouterr().out)}
    found = {name: " ".join(table["findings"]) for name, table in tables.items() if "findings" in table}
    assert len(found) == 2
    assert sum("MAE over duplicate" in text for text in found.values()) == 1
    assert sum("MAE over missing" in text for text in found.values()) == 1


def test_the_page_says_findings_once(root: Path) -> None:
    page = html(Page("t", "", (), [report_noise.noise(*_measured(root), figures=False)]))
    assert page.count("MAE over missing (missing heads, levels ours)") == 1


def _measured(root: Path):  # type: ignore[no-untyped-def]
    from tests.reports.test_tables import measured

    store = Store(root)
    found = measured(store)
    return found, store.histories(found.runs["run_id"])


# ---- places that cannot be written


@pytest.mark.parametrize("words", [(), ("noise",), ("sparse_dense",)])
def test_a_folder_that_cannot_be_written(
    root: Path, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Each is refused before the store is read, says what was found and expected, and leaves nothing behind."""
    monkeypatch.setattr(Store, "load", lambda *_, **__: pytest.fail("the store was read"))
    (tmp_path / "file").write_text("kept")
    (tmp_path / "has").mkdir()
    (tmp_path / "has/figures").write_text("kept")
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    for target, message in (
        ("/proc/nowhere", "/proc/nowhere cannot be written ("),
        (tmp_path / "file", "file is a file; expected a folder"),
        (tmp_path / "file/below/it", "file is a file; expected a folder"),
        (tmp_path / "has", "figures is a file; expected a folder"),
        (tmp_path / "dangling", "is a link to nothing; expected a folder"),
        (tmp_path / ("long" * 100), "file name too long"),
    ):
        said = refused(capsys, *words, "-o", root, "--to", target)
        assert message in said
        assert f"--to {target}" in said
        assert "name another" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "has"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("part", [*PARTS, "coverage"])
def test_a_file_that_cannot_be_written(
    root: Path, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Store, "load", lambda *_, **__: pytest.fail("the store was read"))
    (tmp_path / "file").write_text("kept")
    for target, message in (
        ("/proc/table.csv", "--out /proc/table.csv: /proc cannot be written ("),
        (tmp_path, f"is a folder; expected a file: name one in it, as {tmp_path / 'table.csv'}"),
        (tmp_path / "file/table.csv", "file is a file; expected a file in a folder that exists or can be made"),
        (tmp_path / "a.xyz", "has the ending .xyz; expected one of .md, .csv, .tex, .json, .html, .txt"),
        (tmp_path / "a", "has no ending; expected one of .md"),
    ):
        assert message in refused(capsys, part, "-o", root, "--out", target)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_endings_and_formats(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("comparison", "-o", root, "--out", tmp_path / "new/T.CSV", "--where", "noise=none") == 0
    assert (tmp_path / "new/T.CSV").read_text(encoding="utf-8").startswith("loss,seeds")
    assert run("comparison", "-o", root, "--out", tmp_path / "t.xyz", "--format", "json", "--where", "noise=none") == 0
    json.loads((tmp_path / "t.xyz").read_text(encoding="utf-8"))
    capsys.readouterr()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "shut").mkdir(mode=0o500)
    with pytest.raises(ValueError, match="permission denied"):
        check_folder(tmp_path / "shut" / "below")


def test_what_is_checked_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    check_folder(tmp_path / "there/a/b/c", inside=("figures",))
    check_folder(tmp_path / "there", inside=("figures", "tables"))
    check_file(tmp_path / "there/x/y.csv")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_preview_of_noise_is_refused_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from runners import data

    monkeypatch.setattr(data, "build", lambda *_, **__: pytest.fail("the data was read"))
    (tmp_path / "file").write_text("kept")
    assert main(["data", "noise", "synthetic", "--to", str(tmp_path / "file")]) == 2
    assert "is a file; expected a folder" in capsys.readouterr().err


# ---- nothing to report


@pytest.mark.parametrize("part", [None, *PARTS])
def test_stores_without_measurements_say_so_alike(
    part: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [] if part is None else [part]
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("no store")
    store = Store(tmp_path / "failed")
    add_failure(store, fake_spec("pml"))
    add_run(store, fake_spec("bl"), images=4)
    shutil.rmtree(store.run(fake_spec("bl").run_id).path / "eval")
    said = refused(capsys, *words, "-o", "empty")
    assert said == "benchmark: no runs in empty: nothing to report; `benchmark run` makes some\n"
    said = refused(capsys, *words, "-o", "failed")
    assert said.startswith("benchmark: no run in failed has a measurement yet (")
    assert "1 failed" in said
    assert "1 done" in said
    assert "nothing to report; `benchmark status` has the reasons" in said
    for folder in ("nowhere", "file"):
        assert refused(capsys, *words, "-o", folder) == (
            f"benchmark: {folder} is no folder; name the --output of `benchmark run`\n"
        )
    assert not (tmp_path / "report").exists()


def test_runs_that_cannot_be_read_are_no_empty_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store(tmp_path)
    add_run(store, fake_spec("bl"), images=4)
    (store.run(fake_spec("bl").run_id).path / "spec.json").write_text("{")
    assert run("comparison", "-o", tmp_path) == 2
    said = capsys.readouterr().err
    assert "left out:" in said
    assert f"no readable runs in {tmp_path}: nothing to report; mend or remove what was left out (1)" in said
