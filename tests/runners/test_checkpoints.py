"""Checkpoints: whole, or passed over."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from runners import checkpoints


def state(epoch: int) -> dict[str, object]:
    return dict.fromkeys(checkpoints._PARTS) | {
        "epoch": epoch, "weights": torch.full((50,), float(epoch)), "history": "{}\n" * epoch,
    }  # fmt: skip


def test_the_newest_is_loaded_and_two_are_kept(tmp_path: Path) -> None:
    assert checkpoints.load(tmp_path) is None
    for epoch in range(1, 5):
        checkpoints.save(tmp_path, epoch, state(epoch))
        found = checkpoints.load(tmp_path)
        assert found is not None
        assert found["epoch"] == epoch
        assert torch.equal(found["weights"], torch.full((50,), float(epoch)))
    assert sorted(path.name[:17] for path in tmp_path.iterdir()) == ["checkpoint-000003", "checkpoint-000004"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "swapped"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    for epoch in (1, 2):
        checkpoints.save(tmp_path, epoch, state(epoch))
    old, new = sorted(tmp_path.iterdir())
    data = bytearray(new.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
    elif damage == "emptied":
        data = bytearray()
    else:
        data = bytearray(old.read_bytes())
    new.write_bytes(data)
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load(tmp_path)
    assert found is not None
    assert found["epoch"] == 1
    assert new.name in caplog.text
    old.unlink()
    assert checkpoints.load(tmp_path) is None


def test_one_that_is_of_no_run_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its name is right, and torch reads it."""
    checkpoints.save(tmp_path, 1, state(1))
    checkpoints.save(tmp_path, 2, {"a": 1})
    with caplog.at_level(logging.WARNING):
        found = checkpoints.load(tmp_path)
    assert found is not None
    assert found["epoch"] == 1
    assert "it lacks epoch, history" in caplog.text


def test_a_full_disk_is_told_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which torch says: unexpected pos 1970752 vs 1970644."""

    def full(*args: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 1970752 vs 1970644\nframe #0")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"cannot be written, most likely because the disk is full \(.*1970644\)"):
        checkpoints.save(tmp_path, 2, state(2))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, 1, state(1))

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(tmp_path, 2, state(2))
    monkeypatch.undo()
    found = checkpoints.load(tmp_path)
    assert found is not None
    assert found["epoch"] == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_strangers_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-9.pth").write_text("mine")
    checkpoints.save(tmp_path, 1, state(1))
    found = checkpoints.load(tmp_path)
    assert found is not None
    assert found["epoch"] == 1
    assert (tmp_path / "checkpoint-9.pth").read_text() == "mine"
