"""What happens beside the optimisation: keep the best weights, write the history, save, and say how far it is.

At the end of an epoch the hooks act in this order: `KeepWeights`, `History`, `Checkpoint`, `Progress`.
"""

from __future__ import annotations

import json
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import torch
from mmengine.hooks import Hook, RuntimeInfoHook
from mmengine.runner import BaseLoop, Runner
from torch import distributed

from results.atomic import flush, write_text
from results.spec import Recipe, Selection
from results.store import RunFolder, StoreError, read_history
from runners import checkpoints, weights
from runners.counter import evaluate
from runners.environment import device_memory
from runners.metrics.counting import summary
from runners.ranks import unwrapped
from runners.watch import DivergedError

__all__ = [
    "LOG_INTERVAL",
    "Checkpoint",
    "EpochEnd",
    "History",
    "KeepWeights",
    "Progress",
    "Resume",
    "StepInfo",
    "TakenOverError",
    "ValidationLoop",
    "hold",
    "tell_memory",
]


class TakenOverError(RuntimeError):
    """Another process trains this run now; nothing more is written by this one."""


def hold(folder: RunFolder) -> None:
    """Makes sure, before anything is written, that no other process believed this one dead and took the run over.

    Raises:
        TakenOverError: If one did: the files are its own now.
    """
    if not folder.claims.mine():
        raise TakenOverError(f"another process has taken run {folder.run_id} over; this one stops")


Report = Callable[[dict[str, Any]], None]


LARGEST = "loss_max"
"""Key of the largest absolute loss of a step, in a line of the history."""
LOG_INTERVAL = 50
"""Steps between two values that an experiment tracker gets (ours)."""


class StepInfo(RuntimeInfoHook):
    """The engine's notes of a step's terms, taken only where an experiment tracker gets them.

    The engine takes them after every step, and each is a number taken from a tensor: an accelerator would have to end
    the step before the next could be queued. What the history needs is summed on the device, see `History`.

    Args:
        tracked: Whether there is a tracker.
    """

    def __init__(self, tracked: bool) -> None:
        super().__init__()
        self.tracked = tracked

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Notes the terms of a step that is logged."""
        logged = self.every_n_inner_iters(batch_idx, LOG_INTERVAL) or self.end_of_epoch(
            runner.train_dataloader, batch_idx
        )
        if self.tracked and logged:
            super().after_train_iter(runner, batch_idx, data_batch, outputs)


class ValidationLoop(BaseLoop):
    """Evaluates whole images of `val` (and of the test set, where `test_oracle` was asked for).

    Args:
        runner: The training engine.
        dataloader: Whole images of the validation split.
        evaluator: The engine's own, unused: the metrics need whole rows, which are kept as well.
        oracle: Whole images of the test split, or None.
    """

    def __init__(self, runner: Runner, dataloader: Any, evaluator: Any = None, oracle: Any = None) -> None:
        super().__init__(runner, dataloader)
        self.oracle = oracle

    def run(self) -> dict[str, float | None]:
        """Calls the hooks with `val_mae`, `val_rmse`, ... and, with an oracle, `test_oracle_mae`, ..."""
        self.runner.call_hook("before_val")
        self.runner.call_hook("before_val_epoch")
        model = unwrapped(self.runner.model)
        metrics = _named("val", evaluate(model, self.dataloader))
        if self.oracle is not None:
            metrics |= _named("test_oracle", evaluate(model, self.oracle))
        self.runner.call_hook("after_val_epoch", metrics=metrics)
        self.runner.call_hook("after_val")
        return metrics


def _named(split: str, images: pd.DataFrame) -> dict[str, float | None]:
    return {f"{split}_{name}": value for name, value in summary(images).items()}


class EpochEnd(Hook, ABC):
    """Calls `finish(runner, metrics)` once an epoch: after its validation, or after its last step where it has none.

    Args:
        recipe: For the epochs and their validations.
        leads: Whether this process is the one that validates and writes.
    """

    def __init__(self, recipe: Recipe, leads: bool = True) -> None:
        self.recipe = recipe
        self.leads = leads

    def validates(self, epoch: int) -> bool:
        """Whether the epoch, counted from 1, ends with a validation here."""
        return self.leads and self._due(epoch)

    def _due(self, epoch: int) -> bool:
        return epoch % self.recipe.val_interval == 0 or epoch == self.recipe.epochs

    def after_train_epoch(self, runner: Runner) -> None:
        """The engine counts this epoch as done only afterwards."""
        if not self.validates(runner.epoch + 1):
            self.finish(runner, runner.epoch + 1, {})

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """The epoch was counted before its validation."""
        self.finish(runner, runner.epoch, metrics or {})

    @abstractmethod
    def finish(self, runner: Runner, epoch: int, metrics: dict[str, float]) -> None:
        """What to do at the end of epoch `epoch`, counted from 1."""


class KeepWeights(EpochEnd):
    """Keeps the network's weights of each selection rule as safetensors.

    Args:
        recipe: For the epochs and the first that may be selected.
        folder: The run's folder.
        selections: Rules: `val` and `test_oracle` keep the least MAE (the earliest on a tie), `last` the last epoch.

    Attributes:
        selected: For each rule the epoch and its MAE; restored from a checkpoint.
    """

    priority = "HIGH"

    def __init__(self, recipe: Recipe, folder: RunFolder, selections: tuple[Selection, ...]) -> None:
        super().__init__(recipe)
        self.folder = folder
        self.selections = selections
        self.selected: dict[str, dict[str, float]] = {}

    def finish(self, runner: Runner, epoch: int, metrics: dict[str, float]) -> None:
        """Saves where this epoch is the best so far, or the last."""
        for rule in self.selections:
            mae = metrics.get(f"{rule}_mae", metrics.get("val_mae", math.inf))
            if rule == "last":
                chosen = epoch == self.recipe.epochs
            else:
                eligible = epoch >= self.recipe.val_start or epoch == self.recipe.epochs
                chosen = bool(metrics) and eligible and mae < self.selected.get(rule, {}).get("mae", math.inf)
            if chosen:
                hold(self.folder)
                weights.save(self.folder.weights(rule), unwrapped(runner.model).network.state_dict(), epoch)
                self.selected[rule] = {"epoch": epoch, "mae": mae}


class History(EpochEnd):
    """Writes one JSON line an epoch: mean training terms, largest loss, learning rate, seconds, validation metrics.

    Where several processes share the batches, the means are over all of them, and one writes. What the first epoch
    wrote tells the model's watch how large a loss may become.
    """

    priority = "NORMAL"

    def __init__(self, recipe: Recipe, folder: RunFolder, leads: bool = True) -> None:
        super().__init__(recipe, leads)
        self.folder = folder
        self._sums: dict[str, torch.Tensor] = {}
        self._largest: torch.Tensor | None = None
        self._steps = 0
        self._started = 0.0
        self._first: float | None = None

    def before_train_epoch(self, runner: Runner) -> None:
        """Starts the epoch's sums."""
        self._sums, self._largest, self._steps, self._started = {}, None, 0, time.perf_counter()
        if self._first is None and runner.epoch > 0:  # an earlier process trained the first epoch
            first = next(iter(read_history(self.folder.history_file)), {})
            self._first = first.get(LARGEST)
        unwrapped(runner.model).watch.allow(self._first)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Adds up on the device, without waiting for it."""
        for name, value in outputs.items():
            self._sums[name] = self._sums.get(name, 0) + value.detach()
        size = outputs["loss"].detach().abs()
        self._largest = size if self._largest is None else torch.maximum(self._largest, size)
        self._steps += 1

    def after_train_epoch(self, runner: Runner) -> None:
        """Looks at the losses that are still on their way, before the epoch is validated."""
        unwrapped(runner.model).watch.settle()
        super().after_train_epoch(runner)

    def finish(self, runner: Runner, epoch: int, metrics: dict[str, float]) -> None:
        """Appends the line; an epoch whose mean loss is not finite ends the run before it is saved."""
        means = {name: float(_over_processes(value)) / max(self._steps, 1) for name, value in self._sums.items()}
        if not math.isfinite(means.get("loss", 0.0)):
            raise DivergedError(f"the mean loss of epoch {epoch} is not finite: {means}")
        if self._largest is not None:
            means[LARGEST] = float(_over_processes(self._largest, largest=True))
            self._first = means[LARGEST] if epoch == 1 else self._first
        if not self.leads:
            return
        row = {"epoch": epoch, "lr": runner.optim_wrapper.get_lr()["lr"][-1], **means, **metrics}
        row["seconds"] = round(time.perf_counter() - self._started, 3)
        hold(self.folder)
        with self.folder.history_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        flush(self.folder.history_file)


def _over_processes(value: torch.Tensor, *, largest: bool = False) -> torch.Tensor:
    """The mean, or the largest, of a value over the processes that share the batches."""
    if not distributed.is_initialized():
        return value
    total = value.clone()
    if largest:
        distributed.all_reduce(total, distributed.ReduceOp.MAX)
        return total
    distributed.all_reduce(total)
    return total / distributed.get_world_size()


class Checkpoint(EpochEnd):
    """Saves everything a later process needs to go on after this epoch.

    A file of our own rather than the engine's: plain tensors and numbers that `torch.load` reads with `weights_only`,
    renamed in whole, with the random state that the engine leaves out and the history so far. Crops and order need
    none: they are drawn from (seed, epoch, index). The last two are kept; see `runners.checkpoints`.
    """

    priority = "LOW"

    def __init__(self, recipe: Recipe, folder: RunFolder, keeper: KeepWeights) -> None:
        super().__init__(recipe)
        self.folder = folder
        self.keeper = keeper

    def finish(self, runner: Runner, epoch: int, metrics: dict[str, float]) -> None:
        """Saves, except after the last epoch, when the record follows at once.

        Raises:
            TakenOverError: If another process believed this one dead, and trains the run now.
        """
        hold(self.folder)
        if epoch == self.recipe.epochs:
            return
        state = {
            "run": self.folder.run_id,
            "model": unwrapped(runner.model).state_dict(),
            "optimizer": runner.optim_wrapper.state_dict(),
            "schedulers": [scheduler.state_dict() for scheduler in runner.param_schedulers],
            "epoch": epoch,
            "iter": epoch * len(runner.train_dataloader),
            "selected": self.keeper.selected,
            "history": self.folder.history_file.read_text(encoding="utf-8"),
            "rng": torch.get_rng_state(),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda_rng"] = torch.cuda.get_rng_state()
        checkpoints.save(self.folder.work, epoch, state)


class Resume(Hook):
    """Restores what `Checkpoint` saved last, before any other hook looks at the epoch.

    Args:
        folder: The run's folder.
        keeper: Gets the selected epochs back.
        leads: Whether this process writes; the others that share the batches restore the same.

    Attributes:
        epoch: The epochs that were already done; 0 for a fresh run.
    """

    priority = "VERY_HIGH"

    def __init__(self, folder: RunFolder, keeper: KeepWeights, leads: bool = True) -> None:
        self.folder = folder
        self.keeper = keeper
        self.leads = leads
        self.epoch = 0

    def before_train(self, runner: Runner) -> None:
        """Goes back to the last epoch of which checkpoint and kept weights are undamaged, else to the start."""
        state = checkpoints.load(self.folder.work)
        if state is not None and state.get("run", self.folder.run_id) != self.folder.run_id:
            raise StoreError(
                f"the checkpoint in {self.folder.work} is not of this run but of {str(state['run'])[:99]}; "
                "--no-resume starts it afresh"
            )
        if state is not None and not self._kept(state["selected"]):
            state = None
        if self.leads:
            hold(self.folder)
            write_text(self.folder.history_file, "" if state is None else state["history"])
        if state is None:
            return
        try:
            unwrapped(runner.model).load_state_dict(state["model"])
            runner.optim_wrapper.load_state_dict(state["optimizer"])
            for scheduler, saved in zip(runner.param_schedulers, state["schedulers"], strict=True):
                scheduler.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            said = str(error).strip().splitlines()[0][:200]
            raise StoreError(
                f"the checkpoint in {self.folder.work} is not of this run ({said}); --no-resume starts it afresh"
            ) from error
        runner.train_loop._epoch, runner.train_loop._iter = state["epoch"], state["iter"]
        self.keeper.selected = state["selected"]
        self.epoch = state["epoch"]
        torch.set_rng_state(state["rng"])
        if "cuda_rng" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(state["cuda_rng"])

    def _kept(self, selected: Iterable[str]) -> bool:
        """Whether the weights that were selected so far are there and whole; newer ones will be written again."""
        try:
            for rule in selected:
                weights.read(self.folder.weights(rule))
        except StoreError as error:
            logging.getLogger(__name__).warning("%s: training starts afresh", error)
            return False
        return True


def tell_memory(report: Report, device: torch.device, *, settled: bool) -> None:
    """Reports the memory of an accelerator as event `memory`, by which an engine knows how many runs fit.

    Args:
        report: Receives the event.
        device: The accelerator; nothing is reported of a CPU.
        settled: Whether training and evaluation have had their highest.
    """
    memory = device_memory(device)
    if memory is not None:
        report({"event": "memory", "settled": settled} | memory)


class Progress(EpochEnd):
    """Says how far the run is, a few times a second, and after each epoch what memory it takes on an accelerator."""

    priority = "LOWEST"
    interval = 0.25

    def __init__(self, recipe: Recipe, report: Report, device: torch.device) -> None:
        super().__init__(recipe)
        self.report = report
        self.device = device
        self._last = 0.0

    def before_train(self, runner: Runner) -> None:
        """Reports the memory before the first step."""
        tell_memory(self.report, self.device, settled=False)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Reports the share of all steps done."""
        now = time.monotonic()
        if now - self._last >= self.interval:
            self._last = now
            self.report({"event": "step", "step": runner.iter + 1, "steps": runner.max_iters})

    def finish(self, runner: Runner, epoch: int, metrics: dict[str, float]) -> None:
        """Reports the epoch's validation, and the memory: training and validation have had their highest."""
        if metrics:
            tell_memory(self.report, self.device, settled=True)
        shown = {name: metrics[name] for name in ("val_mae", "val_rmse") if name in metrics}
        step = epoch * len(runner.train_dataloader)
        self.report(
            {"event": "epoch", "epoch": epoch, "epochs": self.recipe.epochs, "step": step, "steps": runner.max_iters}
            | shown
        )
