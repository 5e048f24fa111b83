"""`--localizers` and `--radii`: what is measured of which run, what is refused, and the whole way through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmark import cli, localizing
from benchmark.plan import PlanError
from benchmark.study import load_study, validated
from results.store import Store
from tests.reports.fake_store import fake_spec
from tests.runners.crowd_folder import crowd_folder

AXES: dict[str, Any] = {"losses": ["pml"], "backbones": ["tiny"], "datasets": ["synthetic"]}


def study(**axes: Any) -> Any:
    return validated(AXES | axes, "test")


def test_each_loss_gets_the_localizers_that_read_what_it_gives() -> None:
    wide = study(localizers=["lm", "otm", "proposals", "lm[rule=fidtm]"])
    density = localizing.localisations(wide, fake_spec("pml"))
    assert [spec.localizer for spec in density] == ["lm", "otm", "lm"]
    assert len({spec.eval_id for spec in density}) == 3
    assert density[2].params["rule"] == "fidtm"
    assert density[2].params.keys() == density[0].params.keys()
    (points,) = localizing.localisations(wide, fake_spec("p2p"))
    assert points.localizer == "proposals"
    assert localizing.localisations(study(), fake_spec("pml")) == ()


@pytest.mark.parametrize(
    ("dataset", "radii", "main"),
    [
        ("shanghaitech_b", ("4px", "8px"), "8px"),
        ("nwpu", ("sigma_s", "sigma_l"), "sigma_l"),
        ("ucf_qnrf", ("1:100",), "8px"),
    ],
)
def test_radii_are_the_datasets_own(dataset: str, radii: tuple[str, ...], main: str) -> None:
    (spec,) = localizing.localisations(study(localizers=["lm"]), fake_spec("pml", dataset=dataset))
    assert (spec.radii, spec.main) == (radii, main)


def test_typed_radii_take_their_place() -> None:
    (spec,) = localizing.localisations(study(localizers=["lm"], radii=["16", "32px"]), fake_spec("pml"))
    assert (spec.radii, spec.main) == (("16px", "32px"), "32px")
    (both,) = localizing.localisations(study(localizers=["lm"], radii=["8", "4"]), fake_spec("pml"))
    assert both.main == "8px"


def test_every_selection_rule_is_measured() -> None:
    found = localizing.localisations(study(localizers=["lm"], selections=["val", "last"]), fake_spec("pml"))
    assert [spec.selection for spec in found] == ["val", "last"]


def test_what_fits_no_loss_is_said() -> None:
    runs = [fake_spec("pml"), fake_spec("p2p")]
    assert localizing.unfit(study(localizers=["lm", "proposals"]), runs) is None
    said = localizing.unfit(study(localizers=["otm"]), runs)
    assert said is not None
    assert "p2p: proposals are located by `proposals`" in said
    assert localizing.unfit(study(), runs) is None


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"localizers": ["otmm"]}, "Did you mean otm"),
        ({"localizers": ["lm[rul=gl]"]}, "Did you mean rule"),
        ({"localizers": ["otm[threshold=0.3]"]}, "no threshold"),
        ({"localizers": ["lm"], "radii": ["sigma_x"]}, "sigma_x"),
        ({"radii": ["4"]}, "--localizers"),
    ],
)
def test_what_does_not_exist_is_refused_before_planning(axes: dict[str, Any], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        localizing.check(study(**axes))


def test_table3_scores_its_systems() -> None:
    assert load_study("table3").localizers == ["lm", "otm", "proposals"]


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trains two losses, scores them, and reports; the second time nothing is done, with a new radius only scores."""
    root = crowd_folder(tmp_path / "crowd", images=8, size=64)
    common = ["run", "--datasets", "folder", "--data-root", str(root), "--cache-dir", str(tmp_path / "cache")]
    common += ["-o", str(tmp_path / "runs"), "--backbones", "tiny", "--weights", "none", "--losses", "l2", "p2p"]
    common += ["--epochs", "2", "--crop", "32", "--batch-size", "2", "--lr", "3e-3", "-j", "1", "--device", "cpu"]
    places = ["--localizers", "lm", "otm", "proposals"]
    assert cli.main([*common, *places]) == 0
    out = capsys.readouterr().out
    assert "Where people are" in out
    for system in ("l2 + lm", "l2 + otm", "p2p + proposals"):
        assert system in out
    store = Store(tmp_path / "runs")
    records = {run.run_id: (run.path / "record.json").read_bytes() for run in store.runs()}
    assert cli.main([*common, *places, "--radii", "4", "8", "16", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["radius"] for row in said["places"]} == {"4px", "8px", "16px"}
    assert {row["localizer_label"] for row in said["places"]} == {"lm", "otm", "proposals"}
    assert records == {run.run_id: (run.path / "record.json").read_bytes() for run in store.runs()}
    assert len(store.localisations()) == 3 * (2 + 3)
    report = ["-o", str(tmp_path / "runs"), "--format", "csv"]
    assert cli.main(["report", "localisation", *report, "--where", "localizer=otm", "scoring=8px of 4px 8px"]) == 0
    out = capsys.readouterr().out
    assert "l2 + otm" in out
    assert "l2 + lm" not in out
    assert cli.main(["report", "table3", "--dataset", "folder", *report]) == 2
    assert "scoring is" in capsys.readouterr().err
    assert cli.main(["report", "table3", "--dataset", "folder", *report, "--where", "scoring=8px of 4px 8px 16px"]) == 0
    assert "p2p · tiny + proposals" in capsys.readouterr().out


def test_radii_of_boxes_are_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = crowd_folder(tmp_path / "crowd", images=6, size=64)
    command = ["run", "--datasets", "folder", "--data-root", str(root), "-o", str(tmp_path / "runs"), "--losses", "l2"]
    assert cli.main([*command, "--backbones", "tiny", "--localizers", "lm", "--radii", "8", "sigma_l"]) == 2
    assert "sigma_l needs head boxes, and folder has none" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("*"))
