"""What a person types and what the environment holds: no secret of it is in any file of a run."""

from __future__ import annotations

import re
import string
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmark.cli import main
from results.recorded import export
from results.redact import redacted, redacted_words
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
        ("-o 'a?password=\"my secret pass\"&key=abc' --losses 'l2'", "-o 'a?password=***&key=***' --losses 'l2'"),
        (
            "WANDB_KEY=abc key=abc private_key=abc MYSQL_PWD=abc run",
            "WANDB_KEY=*** key=*** private_key=*** MYSQL_PWD=*** run",
        ),
        ('MLFLOW_TRACKING_PASSWORD="my secret pass" run', "MLFLOW_TRACKING_PASSWORD=*** run"),
        ("'--password=my secret pass' run", "'--password=***' run"),
        ("--wandb-key 'it'\"'\"'s mine' run", "--wandb-key *** run"),
        ("password=abc,def x", "password=*** x"),
        ("f(token=abc, other=2)", "f(token=***, other=2)"),
        ("curl -H 'Authorization: Bearer a.b-c' x", "curl -H 'Authorization: ***' x"),
        ("X-Api-Key: abc, Bearer abcdef12, Basic dXNlcjpwYXNz", "X-Api-Key: ***, Bearer ***, Basic ***"),
        ("{'api_key': 'a b', 'x': 1}", "{'api_key': ***, 'x': 1}"),
        ('{"apiKey": "a\\"b c", "x": 1}', '{"apiKey": ***, "x": 1}'),
        (r"{\"token\": \"a b\", \"x\": 1}", r"{\"token\": ***, \"x\": 1}"),
        (
            "clientSecret=a privateKeyFile=b GITHUB_TOKEN_2=c credentials = d",
            "clientSecret=*** privateKeyFile=*** GITHUB_TOKEN_2=*** credentials = ***",
        ),
        ("Uid=me;Pwd=abc;Db=x", "Uid=me;Pwd=***;Db=x"),
    ],
)
def test_secrets_are_hidden(text: str, expected: str) -> None:
    assert redacted(text) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "-o", "s?password='my secret pass'"], "run -o 's?password=***'"),
        (["run", "-o", "s?password=my secret pass"], "run -o 's?password=***'"),
        (["run", "--slurm-setup", "export TOKEN='a secret c'; x"], "run --slurm-setup 'export TOKEN=***'"),
        (["run", "--slurm-setup", "mysql --password 'my secret' x"], "run --slurm-setup 'mysql --password ***'"),
        (
            ["run", "--slurm-setup", "curl -H 'X-Api-Key: my secret' x"],
            "run --slurm-setup 'curl -H '\"'\"'X-Api-Key: ***'",
        ),
        (["run", "--data-root", "https://u:my secret@h/x y"], "run --data-root 'https://***@h/x y'"),
        (["run", "--password", "my secret", "-j", "1"], "run --password *** -j 1"),
        (["run", "--api-key", "secret", "--losses", "pml[tau=2]"], "run --api-key *** --losses 'pml[tau=2]'"),
        (["run", "--title", "two words", "--losses", "l2"], "run --title 'two words' --losses l2"),
    ],
)
def test_secrets_in_the_words_of_a_command(words: list[str], expected: str) -> None:
    assert redacted_words(words) == expected
    assert redacted(expected) == expected, "it is redacted once more on its way"


@pytest.mark.parametrize(
    "text",
    [
        "benchmark run --losses pml[tau=2] gl -o runs/a@b",
        "--data-root /data/me@host:x",
        "https://host/path",
        "unexpected token in line 3, the key tau is given twice",
        "timm:vgg19.tv_in1k --noise missing:0.1 --radii 1:100",
        "--keys-of gl keyboard.txt KEYBOARD=us TOKENIZERS_PARALLELISM=false PWD=/home/x",
        "KeyError: 'nosuch', server.key: no such file, study.yaml:3: overrides.token: not permitted",
        "basic documentation of a bearer",
    ],
)
def test_innocent_words_stay(text: str) -> None:
    assert redacted(text) == text


NAMES = st.sampled_from(["key", "token", "password", "passwd", "pwd", "secret", "credential"])
VALUES = st.text(string.ascii_letters + string.digits + " ,;&:/+.", min_size=1, max_size=20).map(
    lambda text: f"Q{text}Q"
)


FORMS = st.sampled_from(["{}='{}'", '{}="{}"', "--{} '{}'", "{{'{}': '{}'}}", '{{"{}": "{}"}}', "'{}={}'"])


@given(
    NAMES, st.sampled_from([str.lower, str.upper, str.title]), st.sampled_from(["", "my_", "MY-", "my"]), VALUES, FORMS
)
def test_quoted_values_go_whole(name: str, case: Callable[[str], str], prefix: str, value: str, form: str) -> None:
    found = redacted(f"run {form.format(prefix + case(name), value)} end")
    assert value not in found
    assert re.fullmatch(r"run .*\*\*\*['}]? end", found)


def test_long_texts_take_no_longer_than_their_length() -> None:
    """Each of these would take hours if a pattern went back over what it had read."""
    pieces = ["a", "-", "'", "\\", "key", "key_", "key=", "key='", "key=\\'", "key=)", "'key=a", "token ", "--token "]
    pieces += ["a:/", "a@", "key=bearer ", "basic a", "'\"'\"'", "a,", "key\\", "\\'key=\\'"]
    for piece in pieces:
        assert redacted("key=" + piece * 50_000 + "\n" + piece * 50_000)


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
