"""The weights that a finished run kept, checked before they are used."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from results.spec import RunSpec
from results.store import RunFolder, StoreError

__all__ = ["MissingWeightsError", "finished", "kept", "load"]


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
    try:
        found = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{file} is no whole safetensors file ({error}); copy it again, or train anew") from error
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
