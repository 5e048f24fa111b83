"""Claims: one holder whatever dies, however many want it at once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from results import claims
from results.claims import LEASE, Claims

WAIT = "import sys; sys.path.insert(0, {root!r})\nfrom pathlib import Path\nfrom results.claims import Claims\n"
WAIT += "print(Claims(Path({folder!r})).take(), flush=True)\nsys.stdin.read()\n"


def start(folder: Path) -> subprocess.Popen[str]:
    """A process that takes the claim, says so, and lives until its input ends."""
    code = WAIT.format(root=str(Path(__file__).parents[2]), folder=str(folder))
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def write(folder: Path, number: int, age: float = 0.0, **changes: object) -> Path:
    """A claim of another process, last heard of `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    owner = claims._myself()._replace(**changes)
    path = folder / f"claim-{number:04d}.json"
    path.write_text(claims.document(owner))
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_held_released_taken_again(tmp_path: Path) -> None:
    one, other = Claims(tmp_path / "run"), Claims(tmp_path / "run")
    assert one.take()
    assert one.take()  # still its own
    assert not other.take()
    holder = other.holder()
    assert holder is not None
    assert holder.pid == os.getpid()
    assert str(os.getpid()) in str(holder)
    one.release()
    assert other.holder() is None
    assert other.take()
    assert other.mine()
    assert not one.mine()
    one.release()  # no longer its own: nothing happens
    assert other.mine()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_process_holds_nothing(tmp_path: Path, number: int) -> None:
    process = start(tmp_path)
    assert not Claims(tmp_path).take()
    process.send_signal(number)
    process.wait()
    assert Claims(tmp_path).take()


def test_a_stopped_process_still_holds(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.send_signal(signal.SIGSTOP)
    try:
        assert not Claims(tmp_path).take()
    finally:
        process.kill()
        process.wait()


def test_another_process_with_the_same_id_is_another(tmp_path: Path) -> None:
    write(tmp_path, 1, started=claims._myself().started - 1)
    assert Claims(tmp_path).take()


@pytest.mark.parametrize(("earlier", "free"), [(0, False), (1000, True)])
def test_claims_of_older_versions_are_understood(tmp_path: Path, earlier: float, free: bool) -> None:
    """They tell the start of their process by the clock."""
    started = psutil.Process().create_time() - earlier
    write(tmp_path, 1, machine=claims._machine(), started=started)
    assert Claims(tmp_path).take() == free


def test_setting_the_clock_kills_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The times that the system gives for starts of processes move along with its clock."""
    process = start(tmp_path)
    right = psutil.Process.create_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: right(self) + 3600)
    try:
        assert Claims(tmp_path).holder() is not None
        assert not Claims(tmp_path).take()
    finally:
        process.kill()
        process.wait()


def test_a_zombie_holds_nothing(tmp_path: Path) -> None:
    process = start(tmp_path)
    process.kill()
    deadline = time.monotonic() + 10
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline:
        time.sleep(0.02)
    assert Claims(tmp_path).take()
    process.wait()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_ticks_are_what_psutil_makes_a_time_of(tmp_path: Path) -> None:
    """Whatever the program is called."""
    program = tmp_path / ") Z 1 ("
    program.symlink_to(shutil.which("sleep") or "sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        ticks = claims._ticks(process.pid)
        assert ticks is not None
        seconds = psutil.boot_time() + ticks / os.sysconf("SC_CLK_TCK")
        assert seconds == pytest.approx(psutil.Process(process.pid).create_time(), abs=1.5)
    finally:
        process.kill()
        process.wait()
    assert claims._ticks(process.pid) is None


def test_another_machine_is_believed_while_its_heart_beats(tmp_path: Path) -> None:
    write(tmp_path, 1, age=LEASE - 30, machine="elsewhere", host="node7")
    assert not Claims(tmp_path).take()
    assert str(Claims(tmp_path).holder()) == f"process {os.getpid()} on node7"
    write(tmp_path, 1, age=LEASE + 30, machine="elsewhere")
    assert Claims(tmp_path).holder() is None
    assert Claims(tmp_path).take()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["claim-0001.json", "claim-0002.json"]


@pytest.mark.parametrize("alive", [False, True])
def test_a_time_far_ahead_is_no_sign_of_life(tmp_path: Path, alive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """But that it changes is one: the clock of a living owner may be days ahead."""
    monkeypatch.setattr(claims, "LEASE", 2.0)
    days = 86400.0
    path = write(tmp_path, 1, age=-10 * days, machine="elsewhere")
    assert Claims(tmp_path).holder() is None
    timer = threading.Timer(0.3, lambda: os.utime(path, (time.time() + 11 * days,) * 2) if alive else None)
    timer.start()
    assert Claims(tmp_path).take() == (not alive)
    timer.join()


def test_a_clock_that_is_a_little_ahead_is_believed(tmp_path: Path) -> None:
    write(tmp_path, 1, age=-600, machine="elsewhere")
    assert Claims(tmp_path).holder() is not None
    assert not Claims(tmp_path).take()


def within_seconds(ask: Callable[[], object]) -> object:
    """An answer that must not be waited for."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(ask()), daemon=True)
    thread.start()
    thread.join(20)
    assert found, "it hangs"
    return found[0]


def test_a_torn_claim_of_the_future_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "claim-0001.json"
    path.write_text("{")
    os.utime(path, (time.time() + 1e6,) * 2)
    assert within_seconds(Claims(tmp_path).take) is True


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_no_claim_and_nobody_waits_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "_WRITING", 0.4)
    os.mkfifo(tmp_path / "claim-0001.json")
    assert within_seconds(Claims(tmp_path).holder) is None
    assert within_seconds(Claims(tmp_path).take) is True
    assert (tmp_path / "claim-0002.json").is_file()


def test_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT", 0.05)
    mine = Claims(tmp_path)
    assert mine.take()
    (file,) = tmp_path.iterdir()
    os.utime(file, (0, 0))
    with mine.beating():
        deadline = time.monotonic() + 10
        while file.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
    assert time.time() - file.stat().st_mtime < 20


def test_an_owner_that_was_taken_over_knows(tmp_path: Path) -> None:
    one = Claims(tmp_path)
    assert one.take()
    write(tmp_path, 2, machine="elsewhere")
    assert not one.mine()
    assert not one.take()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}', "\x00\x00"])
def test_a_torn_claim_is_waited_for_and_then_holds_nothing(
    tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims, "_WRITING", 0.4)
    (tmp_path / "claim-0001.json").write_text(text)
    began = time.monotonic()
    assert Claims(tmp_path).take()
    assert time.monotonic() - began > 0.2


def test_a_claim_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "claim-0001.json"
    path.write_text("")
    timer = threading.Timer(0.3, lambda: write(tmp_path, 1, machine="elsewhere"))
    timer.start()
    assert not Claims(tmp_path).take()
    timer.join()


def test_old_claims_do_not_pile_up(tmp_path: Path) -> None:
    for _ in range(30):
        each = Claims(tmp_path)
        assert each.take()
        each.release()
    assert len(list(tmp_path.iterdir())) <= 10


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*paths: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    one = Claims(tmp_path)
    assert one.take()
    assert not Claims(tmp_path).take()
    assert [path.name for path in tmp_path.iterdir()] == ["claim-0001.json"]


def _contend(folder: Path, rounds: int, barrier: object, wins: object) -> None:
    """Takes part in every round; a winner dies without releasing."""
    for number in range(rounds):
        barrier.wait()  # type: ignore[attr-defined]
        if Claims(folder / str(number)).take():
            with wins[number].get_lock():  # type: ignore[index]
                wins[number].value += 1  # type: ignore[index]


def test_of_many_at_once_one_wins(tmp_path: Path) -> None:
    """Six processes race for fresh runs and for runs whose owner is dead."""
    context, rounds, racers = multiprocessing.get_context("fork"), 60, 6
    for number in range(0, rounds, 2):
        write(tmp_path / str(number), 1, started=0.0)
    barrier, wins = context.Barrier(racers), [context.Value("i", 0) for _ in range(rounds)]
    processes = [context.Process(target=_contend, args=(tmp_path, rounds, barrier, wins)) for _ in range(racers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [win.value for win in wins] == [1] * rounds


def test_a_flipped_bit_makes_no_claim_of_another_machine(tmp_path: Path) -> None:
    """Whichever character of it is another one: no such claim is believed."""
    whole = claims.document(claims._myself()._replace(machine="elsewhere"))
    path = tmp_path / "claim-0001.json"
    for place, character in enumerate(whole):
        path.write_text(whole[:place] + chr(ord(character) ^ 1) + whole[place + 1 :])
        assert claims._read(path) in (None, claims._read(write(tmp_path, 2, machine="elsewhere")))
