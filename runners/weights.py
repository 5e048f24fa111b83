"""The weights that a run keeps, checked before they are used: each file carries the digest of its own content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from results.atomic import replacing
from results.frames import refuse_place
from results.spec import RunSpec
from results.store import RunFolder, StoreError

__all__ = ["MissingWeightsError", "epoch_of", "finished", "kept", "load", "read", "save"]

_ABOUT = "about"
"""The key of the file's metadata."""


class MissingWeightsError(StoreError):
    """A run has no weights of the selection rule that is asked for."""


def finished(folder: RunFolder) -> RunSpec:
    """The specification of a run that is done."""
    state = folder.state()
    if state == "new":
        raise StoreError(f"{folder.path} holds no run")
    if state == "failed":
        raise StoreError(f"run {folder.run_id} failed: {folder.failure().reason}; `--retry-failed` tries it again")
    if state != "done":
        raise StoreError(f"run {folder.run_id} is not finished ({state}); the same `benchmark run` goes on with it")
    return folder.spec()


def kept(folder: RunFolder, selection: str) -> Path:
    """The weight file of a selection rule."""
    file = folder.weights(selection)
    if file.is_file():
        return file
    others = sorted(path.stem.removeprefix("model_") for path in folder.path.glob("model_*.safetensors"))
    if others:
        raise MissingWeightsError(f"run {folder.run_id} kept no weights of {selection!r}, but of {', '.join(others)}")
    raise MissingWeightsError(
        f"{file} is missing: weights are not part of a recorded study, which keeps what was measured; "
        "train the run here with `benchmark run` to predict with it"
    )


def load(network: nn.Module, file: Path) -> None:
    """Loads weights that have exactly the network's names and shapes."""
    found = read(file)
    expected = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    differing = sorted(name for name in expected | shapes if expected.get(name) != shapes.get(name))
    if differing:
        name = differing[0]
        raise StoreError(
            f"{file} does not fit the run's network in {len(differing)} tensors; the first is {name}: found "
            f"{shapes.get(name, 'none')}, expected {expected.get(name, 'none')}. Are the weights another run's?"
        )
    network.load_state_dict(found)


def save(file: Path, state: Mapping[str, Tensor], epoch: int) -> None:
    """Writes weights as safetensors, with their epoch, the digest of their content, and which file of which run it is.

    All of it under one key: safetensors writes several in any order, and equal weights are to be equal files.

    Args:
        file: Replaced in one step.
        state: Tensors by name.
        epoch: Counted from 1.
    """
    whole = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    with replacing(file) as temporary:
        about = {"epoch": epoch, "place": _place(file), "sha256": _digest(whole)}
        save_file(whole, temporary, {_ABOUT: json.dumps(about)})


def _place(file: Path) -> str:
    """Which file of the store it is: `<run_id>/model_val.safetensors`."""
    return "/".join(file.absolute().parts[-2:])


def _about(opened: Any) -> dict[str, Any]:
    """What was written beside the tensors; older versions had a key for each."""
    said = opened.metadata() or {}
    found = json.loads(said[_ABOUT]) if _ABOUT in said else said
    if not isinstance(found, dict):
        raise ValueError(f"what it says of itself is {type(found).__name__}")
    return found


def epoch_of(file: Path) -> int | None:
    """The epoch that kept weights are of; None where the file does not say, or there is none.

    Raises:
        StoreError: If the file cannot be read.
    """
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            said = _about(opened).get("epoch")
            return None if said is None else int(said)
    except (SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"{file} is no whole safetensors file ({error}); copy it again, or train anew") from error


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU; a file without a digest (of an older version) is believed.

    Raises:
        StoreError: If the file cannot be read, is torn, its content has another digest, or it is another run's.
    """
    try:
        with safe_open(file, "pt") as opened:
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
            about = _about(opened)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{file} is no whole safetensors file ({error}); copy it again, or train anew") from error
    refuse_place(file, None if "place" not in about else str(about["place"]), _place(file))
    if about.get("sha256") not in (None, _digest(found)):
        raise StoreError(f"{file} is damaged: its content has another digest; copy it again, or train anew")
    return found


def _digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, hexadecimal."""
    total = hashlib.sha256()
    for name in sorted(state):
        value = state[name]
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy())
    return total.hexdigest()
