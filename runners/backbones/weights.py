"""Where initial weights come from, and that they really arrive."""

from __future__ import annotations

import hashlib
import logging
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

__all__ = ["WeightsError", "check_loaded", "fetch", "file_hash", "read"]

_log = logging.getLogger(__name__)
FILE = "model.safetensors"


class WeightsError(ValueError):
    """Weights that cannot be had or do not fit; the message says which file to put where."""


def file_hash(path: Path) -> str:
    """`sha256:<hex>` of a weight file.

    Raises:
        WeightsError: If there is no such file.
    """
    _check_exists(path)
    with path.open("rb") as stream:
        return f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"


def _check_exists(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"no weight file {path}; --weights takes imagenet, none or the path of a file")


def fetch(model: str) -> Path:
    """The ImageNet weights of a timm model with tag: from the hub's cache, else downloaded.

    Raises:
        WeightsError: If they cannot be downloaded; the message says which file to get and how to use it.
    """
    import timm
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache

    config = timm.get_pretrained_cfg(model)
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"timm has no pretrained weights for {model}; use --weights none or --weights PATH")
    repository, _, revision = config.hf_hub_id.partition("@")
    name = config.hf_hub_filename or FILE
    cached = try_to_load_from_cache(repository, name, revision=revision or None)
    if isinstance(cached, str):
        return Path(cached)
    address = f"{constants.ENDPOINT}/{repository}/resolve/{revision or 'main'}/{name}"
    try:
        _reach(constants.ENDPOINT)
        return Path(hf_hub_download(repository, name, revision=revision or None))
    except Exception as error:  # the hub's client raises errors of several HTTP libraries
        raise WeightsError(
            f"the ImageNet weights of {model} are not on this machine and cannot be downloaded "
            f"({type(error).__name__}: {error}). Get {address} where there is a network, put the file anywhere, and "
            f"pass --weights /path/to/{name}; or train from scratch with --weights none"
        ) from error


def _reach(endpoint: str, seconds: float = 5.0) -> None:
    """Raises OSError at once where the hub cannot be reached; its client would retry for a minute, and say so.

    A proxy may reach what we cannot, so behind one nothing is tried.
    """
    if urllib.request.getproxies():
        return
    parts = urlsplit(endpoint)
    assert parts.hostname is not None
    socket.create_connection((parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)), seconds).close()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a weight file in timm's key names: `.safetensors`, or a `.pth` that holds nothing but tensors.

    Raises:
        WeightsError: If the file is missing, unreadable, or holds anything that could run code.
    """
    _check_exists(path)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except SafetensorError as error:
            raise WeightsError(f"{path} is no readable safetensors file: {error}") from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of several kinds, by what it met in the file
        reason = str(error).splitlines()[0]
        raise WeightsError(f"{path} is no file of plain tensors ({reason}); convert it to safetensors") from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no dictionary of tensors; found {type(state).__name__}")
    return {key.removeprefix("module."): value for key, value in state.items()}


def check_loaded(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Checks that every weight of `network` came from `state`; timm itself leaves missing ones random, in silence.

    Tensors are compared by size and sum, not by name: timm renames its modules for feature extraction.

    Raises:
        WeightsError: If a weight kept its random start.
    """
    given = {_fingerprint(tensor) for tensor in state.values()}
    weights = {key: tensor for key, tensor in network.state_dict().items() if tensor.dim() > 1}
    missing = [key for key, tensor in weights.items() if _fingerprint(tensor) not in given]
    if missing:
        raise WeightsError(
            f"{source} does not fit: {len(missing)} of {len(weights)} weights of the backbone are not in it, the first "
            f"{missing[0]} {tuple(weights[missing[0]].shape)}. It must hold this very model in timm's key names"
        )
    _log.info("%s: %d of %d tensors used", source, len(network.state_dict()), len(state))


def _fingerprint(tensor: Tensor) -> tuple[int, float]:
    return tensor.numel(), float(tensor.float().double().sum())
