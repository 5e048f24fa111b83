"""`benchmark report` and `reproduce` on the command line: what they write, refuse and leave alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmark.cli import main
from results.speed import Cost, Speed, SpeedRow, write
from results.store import Store
from tests.reports.fake_store import add_failure, add_run, fake_spec, fake_store


def fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() + str(path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return fake_store(tmp_path / "runs", ("pml", "bl"), [0, 1]).root


def run(*words: object) -> int:
    return main(["report", *map(str, words)])


def test_the_page_and_its_files(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(root)
    assert run("-o", root, "--to", tmp_path / "out", "--title", "A study") == 0
    assert fingerprint(root) == before
    assert "<h1>A study</h1>" in (tmp_path / "out/index.html").read_text(encoding="utf-8")
    names = {path.suffix for path in (tmp_path / "out/tables").iterdir()}
    assert names == {".md", ".csv", ".tex"}
    assert {path.suffix for path in (tmp_path / "out/figures").iterdir()} == {".png", ".pdf", ".csv"}
    captured = capsys.readouterr()
    assert "No sample images" in captured.err
    assert "--data-root" in captured.err
    assert "index.html" in captured.out


def test_the_report_is_never_written_into_the_store(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-o", root, "--to", root / "report") == 2
    assert "which is reported on" in capsys.readouterr().err
    assert run("comparison", "-o", root, "--format", "csv", "--out", root / "table.csv") == 2
    assert not (root / "table.csv").exists()


@pytest.mark.parametrize("table", ["comparison", "table2", "table3", "table4", "cost", "custom"])
def test_every_table_in_every_format(
    root: Path, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fingerprint(root)
    for name in ("terminal", "markdown", "csv", "latex", "html", "json"):
        assert run(table, "-o", root, "--format", name) == 0
        printed = capsys.readouterr().out
        assert len(printed) > 200
        assert run(table, "-o", root, "--format", name, "--out", tmp_path / "file") == 0
        capsys.readouterr()
        assert (tmp_path / "file").read_text(encoding="utf-8").strip() == printed.strip() or name == "terminal"
    assert fingerprint(root) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table5"], "Did you mean table"),
        (["comparison", "--metric", "mae"], "Did you mean --metrics"),
    ],
)
def test_misspelt_words(root: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(*words, "-o", root)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["custom", "--rows", "backbon"], "Did you mean backbone"),
        (["custom", "--metrics", "mse"], "unknown metric 'mse'"),
        (["comparison", "--where", "los=pml"], "Did you mean loss"),
        (["comparison", "--where", "loss=gl"], "no run has loss=gl; loss is one of: bl, pml"),
        (["noise"], "at least two noises"),
        (["table3", "--metrics", "mae"], "unknown metric 'mae'"),
        (["table4", "--metrics", "f1"], "unknown metric 'f1'"),
    ],
)
def test_mendable_errors_are_one_line(
    root: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "-o", root) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_no_store_and_an_empty_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("-o", tmp_path / "nowhere") == 2
    assert "is no folder" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert run("-o", tmp_path / "empty", "--to", tmp_path / "out") == 2
    assert "no runs in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    store = Store(tmp_path / "failed")
    add_failure(store, fake_spec("pml"))
    assert run("-o", store.root, "--to", tmp_path / "out") == 2
    assert "has a measurement yet (1 failed)" in capsys.readouterr().err


def test_broken_records_are_left_out_and_the_rest_is_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, newer, no_images, no_spec = (Store(root).run(fake_spec("l2", seed).run_id) for seed in range(4))
    for seed in range(4):
        add_run(Store(root), fake_spec("l2", seed))
    (half.path / "record.json").write_text((half.path / "record.json").read_text()[:200])
    record = json.loads((newer.path / "record.json").read_text()) | {"schema_version": 99}
    (newer.path / "record.json").write_text(json.dumps(record))
    (no_images.path / "eval/val-test-m1/images.parquet").write_bytes(b"PAR1 and nothing else")
    (no_spec.path / "spec.json").write_text('{"loss": 3}')
    before = fingerprint(root)
    assert run("-o", root, "--to", tmp_path / "out") == 1
    assert fingerprint(root) == before
    said = capsys.readouterr().err
    for folder, reason in (
        (half, "no whole JSON file"),
        (newer, "schema 99"),
        (no_images, "no readable parquet"),
        (no_spec, "no valid RunSpec"),
    ):
        assert folder.run_id in said
        assert reason in said
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.count("Left out:") == 4
    assert "<h2>" in page


def test_mixed_protocols_are_refused_by_a_table_and_kept_apart_on_the_page(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_run(Store(root), fake_spec("l2", 0, recipe={"epochs": 9}))
    assert run("table4", "-o", root) == 2
    said = capsys.readouterr().err
    assert "recipe_epochs is 5 (4 runs) or 9 (1 run)" in said or "recipe_epochs is 9 (1 run) or 5 (4 runs)" in said
    assert run("table4", "-o", root, "--where", "epochs=5") == 0
    assert run("-o", root, "--to", tmp_path / "out") == 0
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert "9 epochs" in page
    assert "No Table 4 on ucf_qnrf: the columns of vgg19 would mix" in page


def test_reproduce_trains_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "reproduce", "table4", "--losses", "pml", "--backbones", "tiny",
        "--datasets", "synthetic[train=8,val=2,test=4]",
        "--weights", "none", "--epochs", "1", "--crop", "64", "--seeds", "0", "1", "-o", str(tmp_path / "runs"),
    ]  # fmt: skip
    assert main([*words, "--json"]) == 0
    table = json.loads(capsys.readouterr().out)["table"]
    cells = dict(zip((c["label"] for c in table["columns"]), table["rows"][0]["cells"], strict=True))
    assert cells["seeds"]["text"] == "2"
    span = cells["95 % of a single run"]
    assert span["low"] < cells["measured"]["value"] < span["high"]
    assert cells["published"]["text"] == "–"
    assert main(words) == 0
    assert "Reproduction of Table 4" in capsys.readouterr().out


def test_reproduce_refuses_noise_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table4", "--noise", "uniform-px:8", "-o", str(tmp_path / "runs")]) == 2
    assert "clean labels" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_tables_of_two_datasets_have_files_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fake_store(tmp_path / "runs", ("pml", "bl"), [0, 1], datasets=("ucf_qnrf", "shanghaitech_b"))
    assert run("-o", store.root, "--to", tmp_path / "out", "--no-images") == 0
    names = sorted(path.name for path in (tmp_path / "out/tables").glob("table4*.csv"))
    assert names == ["table4_shanghaitech_b.csv", "table4_ucf_qnrf.csv"]
    count = int(capsys.readouterr().out.split(" tables")[0].split()[-1])
    assert count == len(list((tmp_path / "out/tables").glob("*.csv")))


def test_records_that_lack_what_a_table_needs_leave_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(tmp_path / "runs")
    add_run(store, fake_spec("pml"), record={"environment": {}})
    assert run("-o", store.root, "--to", tmp_path / "out", "--no-images") == 0
    assert "No cost of" in capsys.readouterr().err
    assert "<h2>" in (tmp_path / "out/index.html").read_text(encoding="utf-8")


def test_options_that_would_do_nothing_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("-o", root, "--format", "csv") == 2
    assert "are of one table" in capsys.readouterr().err
    assert run("comparison", "-o", root, "--out", tmp_path / "t.csv") == 0
    assert (tmp_path / "t.csv").read_text(encoding="utf-8").startswith("loss,seeds")


def test_a_study_without_the_combination_says_what_it_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "table2", "--backbones", "tiny", "--datasets", "synthetic"]) == 2
    assert "Its networks are" in capsys.readouterr().err


def test_sparse_and_dense_on_the_command_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = fingerprint(root)
    assert run("sparse_dense", "-o", root, "--window", 64, "--bins", "quantiles", "--to", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "Sparse and dense images" in printed.out
    assert "Sparse and dense 64 px windows" in printed.out
    assert "MAE − bl" in " ".join(printed.out.split())
    assert "figures in" in printed.err
    names = {path.name for path in (tmp_path / "out/figures").iterdir()}
    assert len(names) == 6 * 4
    assert all(name.startswith(("sparse_dense_quantiles_", "sparse_dense_windows64_quantiles_")) for name in names)
    words = ["sparse_dense", "-o", root, "--to", tmp_path / "out", "--baseline", "pml", "--out", tmp_path / "t.csv"]
    assert run(*words) == 0
    assert "MAE − pml" in (tmp_path / "t.csv").read_text(encoding="utf-8")
    capsys.readouterr()
    assert run("sparse_dense", "-o", root, "--to", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "A window of 512 px is a whole image" in said
    assert "by JHU-Crowd++'s ranges" in said
    assert fingerprint(root) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sparse_dense", "--baseline", "pm"], "unknown baseline 'pm'. Did you mean pml"),
        (["sparse_dense", "--window", "100"], "multiple of 64 px"),
        (["sparse_dense", "--bins", "spacing", "--data-root", "nowhere"], "bins of the spacing need the annotations"),
        (["comparison", "--window", "64"], "are of sparse_dense and of the page"),
        (["--baseline", "pm"], "unknown baseline 'pm'"),
    ],
)
def test_what_sparse_dense_refuses(
    root: Path, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words, "-o", root, "--to", tmp_path / "out") == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_sparse_and_dense_of_recorded_studies(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With its windows a study gives the table of its store; without them it says so, and whole images stay."""
    words = ["--window", "64", "--bins", "quantiles", "--to", tmp_path / "out", "--format", "json"]
    assert run("sparse_dense", "-o", root, *words) == 0
    of_store = capsys.readouterr().out
    for name, more in (("with", []), ("without", ["--without-windows"])):
        assert main(["results", "export", name, "-o", str(root), "--to", str(tmp_path), "--author", "us", *more]) == 0
    capsys.readouterr()
    assert run("sparse_dense", "--recorded", tmp_path / "with", *words) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(of_store)
    assert run("sparse_dense", "--recorded", tmp_path / "without", *words) == 0
    printed = capsys.readouterr()
    assert "no windows were kept with these runs" in printed.err
    assert "Sparse and dense images" in printed.out


def test_spacing_is_measured_in_the_prepared_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of two images at half size, whose heads stand 10 and 30 px apart: 5 and 15 px."""
    from PIL import Image

    from benchmark.report_density import heads_of

    for name, step in (("a", 10), ("b", 30)):
        (tmp_path / "test").mkdir(exist_ok=True)
        Image.new("RGB", (200, 100)).save(tmp_path / "test" / f"{name}.png")
        points = [[20 + step * place, 50] for place in range(4)]
        (tmp_path / "test" / f"{name}.json").write_text(json.dumps(points))
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / split / f"{split}.png")
        (tmp_path / split / f"{split}.json").write_text("[]")
    find = heads_of(tmp_path)
    terms = {"dataset": "folder", "dataset_params": '{"scale": 0.5}', "split": "test"}
    apart = [np.diff(np.asarray(points)[:, 0]).tolist() for points in find(terms, ["b", "a"], [4.0, 4.0])]
    assert apart == [pytest.approx([15.0] * 3), pytest.approx([5.0] * 3)]
    with pytest.raises(ValueError, match="image a had 5 people, found 4 people"):
        find(terms, ["a"], [5.0])
    with pytest.raises(ValueError, match="no such image"):
        find(terms, ["c"], [5.0])


def speed_file(root: Path, losses: Mapping[str, float]) -> None:
    rows = [
        SpeedRow(loss=loss, workload="step", cells=32, people=300, images=8, stride=8, own=Cost(ms=ms), network_ms=90.0)
        for loss, ms in losses.items()
    ]
    rows += [
        SpeedRow(loss="pml", workload="scaling", cells=64, people=n, images=1, stride=8, own=Cost(ms=n, peak_mib=2.0))
        for n in (100, 300, 1000)
    ]
    machine = {"device": "cpu", "processor": "A CPU"}
    write(root, Speed(written="2026-11-26T00:00:00+00:00", backbone="mcnn", environment=machine, probe={}, rows=rows))


def test_the_report_reads_measurements_of_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fake_store(tmp_path / "runs", ("pml", "bl", "l2"), [0, 1]).root
    assert run("speed", "-o", root) == 2
    assert "has no measurement of speed" in capsys.readouterr().err
    speed_file(root, {"pml": 10.0, "bl": 30.0})
    assert run("speed", "-o", root, "--to", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert "10.0 %" in printed.out, "10 ms of 100 are the loss's"
    assert "How cost grows" in printed.out
    assert {path.stem for path in (tmp_path / "out/figures").iterdir()} >= {"speed_ms_by_people"}
    assert run("cost", "-o", root) == 0
    assert "alone: `benchmark speed`" in capsys.readouterr().out
    assert run("-o", root, "--to", tmp_path / "page", "--no-explain") == 0
    names = {path.stem for path in (tmp_path / "page/figures").glob("cost_error_alone_ms_*.csv")}
    assert len(names) == 1
    data = pd.read_csv(tmp_path / "page/figures" / f"{names.pop()}.csv").set_index("label")["alone_ms"]
    assert data.to_dict() == {"pml": 10.0, "bl": 30.0}
    (table,) = (tmp_path / "page/tables").glob("cost_*.csv")
    cost = pd.read_csv(table).set_index("loss")
    assert cost.filter(like="alone").loc["pml"].astype(float).dropna().tolist() == [10.0]
    assert "What a loss costs" in (tmp_path / "page/index.html").read_text(encoding="utf-8")
    (root / "speed" / "broken.json").write_text("{")
    assert run("speed", "-o", root) == 1
    assert "left out:" in capsys.readouterr().err


def noisy_root(tmp_path: Path, *noises: str) -> Path:
    store = fake_store(tmp_path / "runs", ("bl",), [0, 1], noises=("none", *noises))
    for seed in range(2):
        for level in ("none", *noises):
            for norm in ("l1", "l2"):
                spec = fake_spec("pml", seed, noise=level, loss_params={"count_norm": norm})
                add_run(store, spec, train_mae=True)
    return store.root


def test_noise_prints_tables_and_findings_and_writes_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = noisy_root(tmp_path, "uniform-height:0.02", "uniform-px:16", "gaussian-px:9.237604307", "missing:0.1")
    before = fingerprint(root)
    assert run("noise", "-o", root, "--to", tmp_path / "out") == 0
    assert fingerprint(root) == before
    said = capsys.readouterr()
    for title in ("Losses under noisy annotations", "Slopes of the error over the noise", "Ranking at every noise"):
        assert title in said.out
    assert "PML's count norm under uniform-height" in said.out
    assert "figures in" in said.err
    figures = ("noise_height", "noise_px", "noise_heads", "count_norms")
    names = {path.name for path in (tmp_path / "out/figures").iterdir()}
    assert names == {f"{name}.{kind}" for name in figures for kind in ("png", "pdf", "svg", "csv")}
    assert not (tmp_path / "out/index.html").exists()


def test_noise_in_files_and_some_noises_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, to = noisy_root(tmp_path, "missing:0.1", "duplicate:0.1"), ("--to", tmp_path / "out")
    words = ("--metrics", "nae", "mae", "--where", "noise=none,missing:0.1", "loss=pml,bl")
    assert run("noise", "-o", root, *to, *words, "--format", "json") == 0
    tables = json.loads(capsys.readouterr().out)
    assert [table["name"] for table in tables] == ["noise", "noise_slopes", "noise_ranks"]
    groups = {column["group"] for column in tables[1]["columns"]}
    assert groups == {"missing, MAE", "missing, NAE"}
    assert {path.stem for path in (tmp_path / "out/figures").iterdir()} == {"noise_heads", "count_norms"}
    words = ("--where", "noise=none,missing:0.1", "loss=pml,bl", "--out", tmp_path / "noise.csv")
    assert run("noise", "-o", root, *to, *words) == 0
    assert (tmp_path / "noise.csv").read_text(encoding="utf-8").count("pml[count_norm=l2]") >= 3


def test_noise_refuses_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fake_store(tmp_path / "runs", ("bl",), [0], noises=("none", "missing:0.1")).root
    assert run("noise", "-o", root, "--to", root / "below") == 2
    assert "which is reported on" in capsys.readouterr().err
    assert run("noise", "-o", root, "--to", tmp_path / "out", "--metrics", "f1") == 2
    assert "unknown metric 'f1'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_noise_of_several_settings_is_a_study_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = fake_store(tmp_path / "runs", ("bl", "l2"), [0, 1], noises=("none", "missing:0.1"))
    for seed in range(2):
        for noise in ("none", "missing:0.3"):
            add_run(store, fake_spec("bl", seed, noise=noise, recipe={"epochs": 9}))
    assert run("noise", "-o", store.root, "--to", tmp_path / "out", "--format", "json") == 0
    tables = json.loads(capsys.readouterr().out)
    assert len({table["name"] for table in tables}) == 6
    assert sum("9 epochs" in table["title"] for table in tables) == 3
    assert len(list((tmp_path / "out/figures").glob("noise_heads_*.png"))) == 2
