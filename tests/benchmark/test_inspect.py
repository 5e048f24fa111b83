"""`benchmark list` and `status`: what a store holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cli import main
from results.store import Store
from tests.reports.fake_store import add_run, fake_spec

STEERS = "\x1b[31m\x1b]0;title\x07\r\x9b2J"


def test_names_of_a_store_steer_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    params = {"tau": f"x{STEERS}", f"y{STEERS}": 1}
    spec = fake_spec(backbone=f"net{STEERS}", dataset=f"data{STEERS}", dataset_params=params, loss_params=params)
    add_run(Store(tmp_path), spec, images=3)
    assert main(["list", "-o", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "data [31m" in shown
    assert all(line.isprintable() for line in shown.split("\n"))
