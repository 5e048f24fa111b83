"""Measuring: known work is timed, memory is that of the work, what cannot be measured is said, and it is kept."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from benchmark.cli import main
from benchmark.speed import command, measure
from benchmark.speed.command import part_of
from benchmark.speed.measure import Job, measured, timed
from benchmark.speed.probe import probe
from benchmark.speed.workloads import WORKLOADS, Workload
from reports import render
from reports.speed import exponent, exponents, scaling_frame
from results.frames import StoreError
from results.speed import Cost, Speed, SpeedRow, read_all, write

SMALL = Workload(8, 5)


def row(loss: str = "pml", workload: str = "step", cells: int = 64, people: int = 300, ms: float = 2.0, **more):  # type: ignore[no-untyped-def]
    own = Cost(ms=ms, low=ms, high=ms, calls=3, peak_mib=more.pop("peak_mib", 4.0))
    return SpeedRow(loss=loss, workload=workload, cells=cells, people=people, images=1, stride=8, own=own, **more)


def speed_of(*rows: SpeedRow) -> Speed:
    return Speed(
        written="2026-11-26T00:00:00+00:00", backbone="mcnn", environment={"processor": "A <b> CPU", "threads": 1},
        probe={"matmul_gflops": 100.0}, rows=list(rows),
    )  # fmt: skip


def test_calls_are_timed_and_the_first_is_left_out() -> None:
    calls: list[float] = []

    def call() -> None:
        time.sleep(0.05 if not calls else 0.002)
        calls.append(time.perf_counter())

    found = timed(call, 0.1)
    assert len(found) == len(calls) - 1
    assert all(2 <= ms < 50 for ms in found)
    slow = timed(lambda: time.sleep(0.05), 0.01)
    assert len(slow) == 1, "a call that takes all the time there is, is the one that counts"
    assert slow[0] >= 50


@pytest.mark.parametrize(("loss", "params"), [("pml", {}), ("p2p", {}), ("dm_count", {"variant": "official"})])
@pytest.mark.parametrize("dense", [False, True])
def test_a_loss_is_measured_in_a_process_of_its_own(loss: str, params: dict[str, str], dense: bool) -> None:
    found = measured(Job(loss, params, SMALL, dense, seconds=0.05))
    assert not found.problem
    assert found.ms is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low <= found.ms <= found.high
    assert found.calls >= 3


def test_memory_is_that_of_the_matrices() -> None:
    """The dense reference of PML holds several matrices of 500 points x 4096 cells; PML itself none."""
    work = Workload(64, 500)
    own, dense = (measured(Job("pml", {}, work, each, seconds=0.05)).peak_mib for each in (False, True))
    if own is None or dense is None:
        pytest.skip("this system does not tell a process's highest memory")
    matrix = 500 * 64**2 * 4 / 2**20
    assert dense > 2 * matrix
    assert own < matrix


def test_what_cannot_be_measured_says_why() -> None:
    assert "no reference" in measured(Job("pml", {"tau": 3.0}, SMALL, dense=True, seconds=0.05)).problem
    assert "tau must be above 0" in measured(Job("pml", {"tau": -1.0}, SMALL, seconds=0.05)).problem


def test_an_allocation_that_cannot_be_had_is_a_problem_and_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Job) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    class Answers(list):  # type: ignore[type-arg]
        put = list.append

    monkeypatch.setattr(measure, "_measure", fail)
    answers = Answers()
    measure._answer(Job("pml", {}, SMALL), answers)
    assert answers[0].problem == "out of memory"


def test_the_probe_is_of_the_order_of_a_machine() -> None:
    found = probe(seconds=0.05)
    assert set(found) == {"matmul_gflops", "copy_gbs", "exp_gs"}
    assert 0.1 < found["matmul_gflops"] < 1e5
    assert 0.1 < found["copy_gbs"] < 1e4
    assert 0.01 < found["exp_gs"] < 1e4


def test_the_command_prints_and_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(WORKLOADS, "step", Workload(8, 5, 2))
    words = ["speed", "--losses", "pml", "chfl[norm=sparse]", "--workloads", "step", "--seconds", "0.05"]
    assert main([*words, "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "chfl[norm=sparse]" in printed.out
    assert "5 people, batch 2" in printed.out
    assert "share of a training step of mcnn" in " ".join(printed.out.split())
    (kept,) = read_all(tmp_path)
    by_loss = {row.loss: row for row in kept.rows}
    pml, other = by_loss["pml"], by_loss["chfl[norm=sparse]"]
    assert pml.own.ms is not None
    assert pml.dense is not None
    assert pml.dense.ms is not None
    assert pml.ratio == pytest.approx(pml.dense.ms / pml.own.ms)
    assert pml.network_ms is not None
    assert pml.share == pytest.approx(pml.own.ms / (pml.own.ms + pml.network_ms))
    assert other.dense is None
    assert other.ratio is None
    assert main([*words, "-o", str(tmp_path), "--json", "--no-reference"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows"][0]["dense"] is None
    assert set(told["probe"]) == {"matmul_gflops", "copy_gbs", "exp_gs"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--losses", "pmll"], "Did you mean pml"),
        (["--losses", "pml[tua=1]"], "Did you mean tau"),
        (["--workloads", "lage"], "Did you mean large"),
        (["--seconds", "0"], "--seconds must be positive"),
        (["--device", "cuda:99"], "sees no GPU"),
        (["--backbone", "mcn"], "Did you mean mcnn"),
    ],
)
def test_what_the_command_refuses(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    if "cuda:99" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert main(["speed", *words, "-o", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert not list(tmp_path.iterdir())


# ---- what is kept


WORDS = ["speed", "--losses", "pml", "bl", "--workloads", "step", "dense", "--seconds", "0.02"]


def stopping(monkeypatch: pytest.MonkeyPatch, after: int, error: BaseException | None) -> list[tuple[str, str, bool]]:
    """Small workloads; after so many measurements an error. The measurements that are asked for."""
    asked: list[tuple[str, str, bool]] = []

    def once(job: Job) -> measure.Measured:
        if error is not None and len(asked) == after:
            raise error
        asked.append((job.loss, job.work.name, job.dense))
        return measure.Measured(1.0 + len(asked), 1.0, 99.0, 3)

    monkeypatch.setitem(WORKLOADS, "step", Workload(8, 5, 2))
    monkeypatch.setitem(WORKLOADS, "dense", Workload(8, 9))
    monkeypatch.setattr(command, "measured", once)
    monkeypatch.setattr(command, "network_ms", lambda *words: 10.0)
    monkeypatch.setattr(command, "probe", lambda device: {"matmul_gflops": 1.0 + after})
    return asked


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the machine is on fire")])
def test_what_was_measured_before_the_end_is_kept_and_gone_on_with(
    error: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven measurements: three rows with their references, and half of the fourth row, which is lost."""
    stopping(monkeypatch, 7, error)
    stopped = isinstance(error, KeyboardInterrupt)
    assert main([*WORDS, "-o", str(tmp_path)]) == (130 if stopped else 2)
    said = capsys.readouterr().err
    assert "3 rows are kept in" in said
    assert "the same command with --resume goes on" in said
    assert stopped or "on fire" in said
    (kept,) = read_all(tmp_path)
    assert [(row.loss, row.workload) for row in kept.rows] == [("pml", "step"), ("bl", "step"), ("pml", "dense")]
    assert main(["report", "speed", "-o", str(tmp_path)]) == 0

    asked = stopping(monkeypatch, 0, None)
    assert main([*WORDS, "-o", str(tmp_path), "--resume"]) == 0
    assert asked == [("bl", "8x8, 9 people", False), ("bl", "8x8, 9 people", True)]
    (whole,) = read_all(tmp_path)
    assert whole.rows[:3] == kept.rows
    assert (whole.written, whole.probe) == (kept.written, kept.probe)
    assert (whole.rows[3].loss, whole.rows[3].workload, whole.rows[3].own.ms) == ("bl", "dense", 2.0)


def test_a_row_without_its_reference_is_measured_again_where_one_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = stopping(monkeypatch, 0, None)
    assert main([*WORDS, "-o", str(tmp_path), "--no-reference"]) == 0
    assert len(asked) == 4
    asked = stopping(monkeypatch, 0, None)
    assert main([*WORDS, "-o", str(tmp_path), "--resume", "--losses", "pml", "chfl[norm=sparse]"]) == 0
    assert [job[0] for job in asked] == ["pml", "pml", "chfl"] * 2, "of chfl with that norm there is no reference"
    asked = stopping(monkeypatch, 0, None)
    assert main([*WORDS, "-o", str(tmp_path), "--resume", "--losses", "pml", "chfl[norm=sparse]"]) == 0
    assert asked == []
    (kept,) = read_all(tmp_path)
    assert len({(row.loss, row.workload) for row in kept.rows}) == len(kept.rows) == 6


def test_stopped_before_the_first_row_nothing_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, 0, KeyboardInterrupt())
    assert main([*WORDS, "-o", str(tmp_path)]) == 130
    assert "nothing new was measured" in capsys.readouterr().err
    assert read_all(tmp_path) == []


def test_only_what_this_machine_measured_is_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping(monkeypatch, 0, None)
    write(tmp_path, speed_of(row()))
    assert main([*WORDS, "-o", str(tmp_path), "--resume"]) == 2
    assert "nothing to resume: none of the store's 1 measurements is of this machine" in capsys.readouterr().err
    assert len(read_all(tmp_path)) == 1


def test_broken_files_are_named_and_the_others_stay(tmp_path: Path) -> None:
    assert read_all(tmp_path) == []
    path = write(tmp_path, speed_of(row()))
    assert read_all(tmp_path)[0] == speed_of(row())
    for text in ("{", '{"format": 1}', path.read_text().replace('"ms": 2.0', '"ms": -2.0'), "NaN"):
        (tmp_path / "speed" / "broken.json").write_text(text)
        with pytest.raises(StoreError, match=r"broken\.json is no measurement of speed"):
            read_all(tmp_path)
        problems: list[str] = []
        assert len(read_all(tmp_path, problems)) == 1
        assert len(problems) == 1


def test_exponents_are_those_of_a_power_law() -> None:
    sizes = np.array([100.0, 300, 1000, 3000])
    assert exponent(sizes.tolist(), (0.01 * sizes**1.7).tolist()) == pytest.approx(1.7)
    noisy = 0.01 * sizes**1.7 * np.array([1.1, 0.9, 1.2, 0.8])
    expected = np.polyfit(np.log(sizes), np.log(noisy), 1)[0]
    assert exponent(sizes.tolist(), noisy.tolist()) == pytest.approx(expected)
    assert exponent([10.0], [1.0]) is None
    assert exponent([10.0, 20.0], [0.0, 1.0]) is None


def test_scaling_has_people_at_one_size_and_cells_at_one_number(tmp_path: Path) -> None:
    rows = [row("pml", "scaling", 64, n, ms=0.1 * n) for n in (100, 300, 1000, 3000)]
    rows += [row("pml", "scaling", cells, 1000, ms=cells**4 / 1e3) for cells in (32, 128, 192)]
    speed = speed_of(*rows, row("pml", "step", 64, 300))
    frame = scaling_frame(speed)
    assert sorted(frame.loc[frame["axis"] == "people", "people"]) == [100, 300, 1000, 3000]
    assert sorted(frame.loc[frame["axis"] == "cells", "cells"]) == [32**2, 64**2, 128**2, 192**2]
    table = exponents(speed)
    assert table.rows[0].cells[0].value == pytest.approx(1.0)
    assert table.rows[0].cells[2].value == pytest.approx(0.0)
    part = part_of([speed])
    assert [plot.name for plot in part.plots] == [
        f"speed_{measure}_by_{axis}" for measure in ("ms", "peak_mib") for axis in ("people", "cells")
    ]
    plot = part.plots[0]
    np.testing.assert_allclose(plot.data["ms"], [10, 30, 100, 300])
    assert plot.figure.axes[0].get_xscale() == plot.figure.axes[0].get_yscale() == "log"


def test_tables_say_what_failed_and_escape_what_they_did_not_write() -> None:
    failed = SpeedRow(
        loss="gl", workload="large", cells=256, people=5000, images=1, stride=8, own=Cost(ms=3000.0),
        dense=Cost(ms=None, problem="out of memory"),
    )  # fmt: skip
    (table,) = part_of([speed_of(failed, row("pml", "large", 256, 5000, dense=Cost(ms=900.0)))]).tables
    by_loss = {each.label: [cell.text for cell in each.cells] for each in table.rows}
    assert by_loss["gl"][:2] == ["3,000", "–"]
    assert by_loss["pml"][:2] == ["2.00", "450x"]
    assert "gl, 256x256, 5000 people: the dense reference has no time, out of memory." in table.caption
    assert "<b>" not in render.html(table)
    for name, form in render.FORMATS.items():
        text = form(table)
        if name == "terminal":
            assert max(map(len, text.splitlines())) <= 80
