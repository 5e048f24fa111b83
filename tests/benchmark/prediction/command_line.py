"""`benchmark predict` as the tests of its parts type it."""

from __future__ import annotations

from pathlib import Path

from benchmark.cli import main
from tests.runners.trained import Trained


def predict(trained: Trained, *words: str | Path, loss: str = "pml", store: Path | None = None) -> int:
    """The exit status of the command with the run of a loss."""
    fixed = [trained.ids[loss][:6], *map(str, words), "-o", str(store or trained.store.root), "--device", "cpu"]
    return main(["predict", *fixed])
