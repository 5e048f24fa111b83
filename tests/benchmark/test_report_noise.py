"""The file of findings and captions beside the figures of noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.report_files import write_findings
from benchmark.report_noise import noise
from tests.reports.fake_store import fake_store
from tests.reports.test_tables import measured


@pytest.mark.parametrize(("metrics", "others"), [(["mae"], False), (["mae", "rmse"], True)])
def test_findings_and_captions_reach_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metrics: list[str], others: bool
) -> None:
    store = fake_store(tmp_path / "runs", ("pml", "bl"), [0, 1], noises=("none", "missing:0.1"))
    found = measured(store)
    part = noise(found, store.histories(found.runs["run_id"]), metrics)
    path = write_findings(part, tmp_path / "out")
    assert path == tmp_path / "out/findings.txt"
    text = path.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    assert all(" ".join(line.split()) in words for line in part.lead)
    assert part.plots
    assert all(f"{plot.name}: {' '.join(plot.caption.split())}" in words for plot in part.plots)
    assert ("Other metrics: see the tables." in words) == others
    assert "findings.txt" in capsys.readouterr().err
