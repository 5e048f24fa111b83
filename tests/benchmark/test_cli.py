from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark.cli import main


def test_help_and_listing_load_no_torch() -> None:
    code = "import sys, benchmark.cli, losses, runners.data, runners.backbones; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rn"], "Did you mean run"),
        (["run", "--loses", "pml"], "Did you mean --losses"),
        (["list", "studys"], "Did you mean studies"),
    ],
)
def test_misspelt_commands_are_suggested(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--losses", "pmll"], "Did you mean pml"),
        (["run", "--study", "nothing.yaml"], "no study or file"),
        (["run", "--losses", "l2", "--device", "tpu"], "--device must be"),
        (["run", "--losses", "l2", "--device", "tpu", "--dry-run"], "--device must be"),
        (["run", "--losses", "l2", "--datasets", "synthetic[train=-1]"], "train must be"),
        (["run", "--losses", "l2", "--epochs", "0"], "epochs"),
        (["data", "check", "shanghaitech_c"], "Did you mean shanghaitech"),
    ],
)
def test_mendable_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


@pytest.mark.parametrize("what", ["losses", "backbones", "datasets", "noises", "studies", "recipes"])
def test_lists_are_readable_by_machines(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", what, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["name"] and row["about"] for row in rows)


def test_the_official_recipe_is_not_quick(capsys: pytest.CaptureFixture[str]) -> None:
    """The settings of a study are made for the shared recipe; what is typed still wins."""
    assert main(["plan", "--losses", "bl", "--recipe", "official", "--crop", "256", "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)["runs"]
    recipe = run["spec"]["recipe"]
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"], recipe["crop"]) == (1000, 1, 1e-5, 256)


def test_dry_run_changes_nothing(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--losses", "pml", "l2", "--seeds", "0", "1", "-o", str(tmp_path / "runs"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in printed["runs"]] == ["new"] * 4
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_system_is_a_path_and_a_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "p.json").write_text('{"a": [[1, 1]]}')
    place = str(tmp_path / "file" / "inside.md")
    assert main(["evaluate", "--pred", str(tmp_path / "p.json"), "--gt", str(tmp_path / "p.json"), "--out", place]) == 2
    said = capsys.readouterr().err
    assert said.rstrip().endswith(("not a directory", "file exists"))
    assert "[Errno" not in said
    assert str(tmp_path / "file") in said
