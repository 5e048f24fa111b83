"""Damaged and hostile files: each is read, or refused with an error that names it; nothing else, in bounded time.

`pytest tests/fuzz --fuzz-inputs 100000 -s` makes many more inputs than the suite's few and prints counts and seeds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.attack import attack, judged
from tests.fuzz.targets import TARGETS


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Images of a few million pixels are large here; what is logged of damaged checkpoints tells nobody anything."""
    monkeypatch.setenv("CROWD_MAX_PIXELS", "4000000")
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("name", TARGETS)
def test_what_the_inputs_are_made_of_is_sound(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "sound"
    folder.mkdir()
    for content in TARGETS[name].corpus(folder):
        assert judged(TARGETS[name], folder, content) is None


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_clear_errors(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    count = max(1, round(pytestconfig.getoption("--fuzz-inputs") * TARGETS[name].share))
    seed = pytestconfig.getoption("--fuzz-seed")
    folder = tmp_path / "under-attack"
    folder.mkdir()
    found = attack(name, folder, count, seed)
    print(
        f"\n{TARGETS[name].family}, {name}: {found.inputs} inputs of seed {seed}, {found.refused} refused, "
        f"{1000 * found.seconds / found.inputs:.2f} ms each, the slowest {1000 * found.slowest:.0f} ms"
    )
    print("\n".join(found.findings))
    assert not found.findings, "\n".join(found.findings)
    assert found.inputs == count
