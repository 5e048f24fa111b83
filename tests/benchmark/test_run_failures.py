"""What a command says of runs that failed, where the store could not keep why."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmark import engines
from benchmark.cli import main
from runners.engines.process import OnEvent
from runners.job import Job

REASON = "No space left on device: [work/log.txt]"


@pytest.fixture(autouse=True)
def _full(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine whose workers tell why they fail, and can write nothing."""

    def run_jobs(jobs: Sequence[Job], options: Any, on_event: OnEvent) -> None:
        for index in range(len(jobs)):
            on_event(index, {"event": "start"})
            on_event(index, {"event": "failed", "reason": REASON})

    monkeypatch.setattr(
        engines, "chosen", lambda options: (SimpleNamespace(run_jobs=run_jobs, check=lambda terms: None), None)
    )


def words(folder: Path, *more: str) -> list[str]:
    return ["run", "--losses", "l2", "--seeds", "0", "-o", str(folder / "runs"), *more]


def test_the_end_of_a_command_names_the_reason_that_was_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tmp_path)) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert line.endswith(f": {REASON}")


def test_so_does_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--json")) == 1
    assert list(json.loads(capsys.readouterr().out)["failed"].values()) == [REASON]


def test_so_does_a_search_whose_trials_all_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(tmp_path, "--recipe", "tuned", "--budget", "2")) == 2
    assert f"failed ({REASON})" in " ".join(capsys.readouterr().err.split())
