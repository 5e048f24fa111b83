"""Checkpoints that tell whether they are whole: the name holds the epoch and the digest of the content.

The last two are kept. One that was torn by a fault of the disk is passed over, and the one before it used: crops and
order are drawn from (seed, epoch, index), so the run ends with the same bits, an epoch later.
"""

from __future__ import annotations

import logging
import re
import zipfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from results.atomic import digest, printable, publish

__all__ = ["load", "save"]

_NAME = re.compile(r"checkpoint-(\d{6})-([0-9a-f]{64})\.pth")
_KEPT = 2
_PARTS = {"model", "optimizer", "schedulers", "epoch", "iter", "selected", "history", "rng"}
"""What a checkpoint has at least, see `hooks.Checkpoint`."""


def save(folder: Path, epoch: int, state: dict[str, Any]) -> None:
    """Writes a checkpoint and removes all but the one before it.

    Args:
        folder: The run's working folder.
        epoch: Whole epochs done.
        state: Tensors, numbers, texts, and dictionaries and lists of them.

    Raises:
        OSError: If it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".checkpoint.{uuid4().hex[:8]}.tmp"
    try:
        _write(state, temporary)
        publish(temporary, folder / f"checkpoint-{epoch:06d}-{digest(temporary)}.pth")
    finally:
        temporary.unlink(missing_ok=True)
    for old in _files(folder)[:-_KEPT]:
        old.unlink(missing_ok=True)


def load(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, on the CPU; None if there is none."""
    for path in reversed(_files(folder)):
        name = _NAME.fullmatch(path.name)
        assert name is not None
        if digest(path) != name[2]:
            logging.getLogger(__name__).warning("%s is damaged: its content has another digest; passed over", path)
            continue
        try:
            return _read(path)
        except Exception as error:  # torch states no set of exceptions for a file that it did not write
            logging.getLogger(__name__).warning("%s is no checkpoint (%s); passed over", path, printable(str(error)))
    return None


def _read(path: Path) -> dict[str, Any]:
    """A checkpoint's content: tensors, numbers, texts and collections of them, as large as the file at most."""
    with zipfile.ZipFile(path) as archive:  # torch packs nothing: what is packed here is a bomb
        if sum(part.file_size for part in archive.infolist()) > path.stat().st_size:
            raise ValueError("it unpacks to more than it has")
    found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict):
        raise TypeError(f"it holds {type(found).__name__}")
    if not found.keys() >= _PARTS:
        raise ValueError(f"it lacks {', '.join(sorted(_PARTS - found.keys()))}")
    return found


def _write(state: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint; of a full disk torch tells the place in its own code, and nothing else."""
    try:
        torch.save(state, path)
    except RuntimeError as error:
        said = str(error).strip().splitlines()[0][:200]
        raise OSError(
            f"the checkpoint {path} cannot be written, most likely because the disk is full ({said})"
        ) from error


def _files(folder: Path) -> list[Path]:
    """All checkpoints, the oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*.pth") if _NAME.fullmatch(path.name))
