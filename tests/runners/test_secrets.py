"""What a person types and what the environment holds: no secret of it is in any file of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.cli import main
from results.recorded import export
from results.redact import redacted
from results.store import Store
from tests.runners.crowd_folder import crowd_folder
from tests.runners.test_execute import arguments, job, train

PLANTED = {
    "WANDB_API_KEY": "w4ndb5ecret0123456789",
    "MLFLOW_TRACKING_TOKEN": "ml-fl0w.5ecret",
    "DB_PASSWORD": "p4ssw0rd!",
}
LOGIN = "hunter22"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run --data-root https://me:hunter22@host/x", "run --data-root https://***@host/x"),
        ("s3://key:a/b+c@host:9000/x y@z", "s3://***@host:9000/x y@z"),
        ("ftp://me:a@b@host", "ftp://***@host"),
        ("https:/me:hunter22@host/x: no such folder", "https:/***@host/x: no such folder"),
        ("git+ssh://me@host/x", "git+ssh://***@host/x"),
        ("https://host/x?token=abc&y=1", "https://host/x?token=***&y=1"),
        ("WANDB_API_KEY=abc benchmark run", "WANDB_API_KEY=*** benchmark run"),
        ("x --api-key abc --losses pml", "x --api-key *** --losses pml"),
        ("x --hf-token abc", "x --hf-token ***"),
        ("x --password=abc", "x --password=***"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "benchmark run --losses pml[tau=2] gl -o runs/a@b",
        "--data-root /data/me@host:x",
        "https://host/path",
        "unexpected token in line 3, the key tau is given twice",
        "timm:vgg19.tv_in1k --noise missing:0.1 --radii 1:100",
    ],
)
def test_innocent_words_stay(text: str) -> None:
    assert redacted(text) == text


def test_values_of_the_environment_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", PLANTED["WANDB_API_KEY"])
    monkeypatch.setenv("SHORT_KEY", "run")
    monkeypatch.setenv("PWD", "/home/somebody")
    text = f"run --note {PLANTED['WANDB_API_KEY']} in /home/somebody"
    assert redacted(text) == "run --note *** in /home/somebody"


def files_without_secrets(*roots: Path) -> int:
    """The number of files, none of which has a secret in it."""
    files = [path for root in roots for path in root.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        for secret in (LOGIN, *PLANTED.values()):
            assert secret.encode() not in content, path
    return len(files)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dataset whose folder is called as an address with a login is, in an environment full of secrets."""
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    return crowd_folder(tmp_path / f"https:/me:{LOGIN}@host/crowd")


def test_no_file_of_a_run_holds_a_secret(data: Path, tmp_path: Path) -> None:
    output = tmp_path / "runs"
    words = arguments(data, output, "--losses", "l2", "--noise", "none")
    assert main(words) == 0
    (run,) = Store(output).runs()
    assert "/***@host/crowd" in run.record().command
    assert "--losses l2 --noise none" in run.record().command
    export(Store(output), tmp_path / "study", name="study", command=redacted(" ".join(words)))
    assert files_without_secrets(output, tmp_path / "study") > 10


def test_no_file_of_a_failed_run_holds_a_secret(data: Path, tmp_path: Path) -> None:
    next((data / "train").glob("*.png")).write_bytes(b"\x89PNG\r\n\x1a\n")
    task = job(data, tmp_path / "runs", "l2").model_copy(update={"command": f"run --data-root {data}"})
    (failed,) = (event for event in train(task) if event["event"] == "failed")
    (run,) = Store(tmp_path / "runs").runs()
    assert "/***@host/crowd" in failed["reason"]
    assert failed["reason"] == run.failure().reason
    assert "/***@host/crowd" in run.failure().traceback
    assert files_without_secrets(tmp_path / "runs") > 1


def test_errors_on_the_terminal_hide_logins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--study", f"https://me:{LOGIN}@host/study.yaml"]) == 2
    said = capsys.readouterr().err
    assert "***@host/study.yaml" in said
    assert LOGIN not in said
