"""One job: train, keep the selected weights, measure them, write the record. Or keep the reason why not."""

from __future__ import annotations

import json
import logging
import os
import time
import traceback
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import uuid4

import torch
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner
from safetensors import SafetensorError
from safetensors.torch import save_file

from results.atomic import replacing
from results.redact import redacted
from results.schema import Evaluation, Failure, Record
from results.spec import EvaluationSpec, LocalisationSpec, Selection
from results.store import RunFolder, Store, read_history
from runners import build, memory, ranks, weights
from runners.counter import Counter, evaluate
from runners.environment import describe, git_state, peak_memory
from runners.hooks import (
    LOG_INTERVAL,
    Checkpoint,
    History,
    KeepWeights,
    Progress,
    Report,
    Resume,
    StepInfo,
    TakenOverError,
    ValidationLoop,
    hold,
    tell_memory,
)
from runners.job import TRACKERS, Job
from runners.metrics.counting import constant, summary
from runners.watch import DivergedError

__all__ = ["execute", "take_part"]


class _OptimWrapper(OptimWrapper):
    """The engine's, without its note of the gradient's norm after every clipping: an accelerator would have to wait."""

    def _clip_grad(self) -> None:
        """Clips the gradient of all parameters to the norm that the recipe says."""
        parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
        torch.nn.utils.clip_grad_norm_(parameters, **self.clip_grad_kwargs)


class _Runner(Runner):
    """The engine without its own survey of the machine: the record has one, and it costs seconds of every run."""

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Nothing to log."""

    def build_logger(self, log_level: int | str = "INFO", log_file: str | None = None, **_: Any) -> MMLogger:
        """What is logged goes to the log of the worker alone, not to a second file as well."""
        return MMLogger.get_instance(self._experiment_name, log_level=log_level)

    def dump_config(self) -> None:
        """Nothing to write: there is no configuration file, `spec.json` says it all."""


def execute(job: Job, report: Report) -> bool:
    """Executes a job. Errors end in `failed.json`, never in the caller.

    Args:
        job: What to do. A finished run is only measured where an evaluation is missing.
        report: Receives the progress as small dictionaries with a key `event`: held (by another process: nothing was
            done), step, epoch, evaluate, memory, done, failed (with `out_of_memory`, if it was that).

    Returns:
        Whether the run and all its evaluations are there at the end.
    """
    folder = Store(job.output).run(job.spec.run_id)
    try:
        taken = folder.claims.take()
    except OSError as error:
        report({"event": "failed", "reason": f"the store cannot be written: {error}"})
        return False
    if not taken:
        report({"event": "held", "holder": str(folder.claims.holder() or "another process")})
        return False
    try:
        with folder.claims.beating():
            _seed(job)
            data = None if _trained(folder, job) else _train(job, folder, report)
            _measure(job, folder, report, data)
            hold(folder)
            folder.succeed()
    except TakenOverError:  # the files are the other process's now
        report({"event": "held", "holder": str(folder.claims.holder() or "another process")})
        return False
    except Exception as error:  # a run may fail for any reason; the others must go on
        reason = redacted(_reason(error))
        if not folder.claims.mine():  # it may have failed because its files are another's now
            report({"event": "held", "holder": str(folder.claims.holder() or "another process")})
            return False
        with suppress(OSError):  # a full disk: the reason is told, and the run stays interrupted
            folder.fail(
                Failure(
                    run_id=folder.run_id,
                    spec=job.spec,
                    when=_now(),
                    reason=reason,
                    traceback=redacted(traceback.format_exc()),
                    epoch=max((row["epoch"] for row in read_history(folder.history_file)), default=0),
                )
            )
        report({"event": "failed", "reason": reason, "out_of_memory": _out_of_memory(error)})
        return False
    finally:
        folder.claims.release()
    report({"event": "done"})
    return True


def _trained(folder: RunFolder, job: Job) -> bool:
    """Whether the run is done and kept the weights of every selection rule that is asked for."""
    if folder.state() != "done":
        return False
    lacking = {rule for rule in _selections(job) if not folder.weights(rule).is_file()}
    gone = sorted(lacking & set(folder.record().selected))
    missing = [m for m in (*job.evaluations, *job.localisations) if not _has(folder, m) and m.selection in gone]
    if missing:
        raise ValueError(
            f"{folder.weights(gone[0]).name} is missing: the run was imported, or its weights were removed, and "
            "nothing can be measured without them; remove its folder to train it again"
        )
    return not lacking - set(gone)


def _has(folder: RunFolder, measured: EvaluationSpec | LocalisationSpec) -> bool:
    """Whether a measurement was made."""
    if isinstance(measured, EvaluationSpec):
        return folder.has_evaluation(measured)
    return folder.has_localisation(measured)


def _selections(job: Job) -> set[Selection]:
    """The selection rules whose weights are measured."""
    return {measured.selection for measured in (*job.evaluations, *job.localisations)}


def _seed(job: Job) -> None:
    """Seeds torch and asks for deterministic kernels. Crops and order have seeds of their own, per sample."""
    if job.place.device == "cpu":
        memory.keep_freed()
    torch.set_num_threads(job.place.threads)
    torch.manual_seed(job.spec.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def _train(job: Job, folder: RunFolder, report: Report) -> build.Loaders:
    """Trains with the engine and writes the record; gives the data on, which took seconds to prepare."""
    if not job.resume:
        folder.discard()
    started, clock = _now(), time.perf_counter()
    folder.begin(job.spec)
    recipe, place = job.spec.recipe, job.place
    device = ranks.device_of(job, 0)
    network = build.network(job.spec, place)
    model = Counter(network, build.loss(job.spec), bf16=job.spec.recipe.precision == "bf16").to(device)
    data = build.loaders(job.spec, place, network.multiple)
    selections = tuple(sorted(_selections(job) | {"val", "last"}))
    keeper = KeepWeights(recipe, folder, selections)
    resume = Resume(folder, keeper)
    report({"event": "step", "step": 0, "steps": recipe.epochs * len(data.train)})
    progress = Progress(recipe, report, device)
    hooks = [resume, keeper, History(recipe, folder), Checkpoint(recipe, folder, keeper), progress]
    validation = {
        "val_dataloader": data.val,
        "val_cfg": {"type": ValidationLoop, "oracle": data.test if "test_oracle" in selections else None},
        "val_evaluator": [],
    }
    with ranks.together(job, report):
        runner = _runner(job, folder, model, data, hooks, device, **validation)
        try:
            runner.train()
        except DivergedError as error:
            raise _kept(error, folder, runner) from error
    seconds = time.perf_counter() - clock
    record = Record(
        run_id=folder.run_id,
        spec=job.spec,
        started=started,
        finished=_now(),
        selected=keeper.selected,
        train_count_mean=data.train_count_mean,
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        environment=describe(device) | {"ranks": place.ranks},
        git=git_state(),
        timings=_timings(runner, model, seconds, resume.epoch),
        memory=peak_memory(device),
        search=list(job.search),
        command=redacted(job.command),
    )
    _check_kept(folder, keeper)
    hold(folder)
    folder.finish(record)
    return data


def _check_kept(folder: RunFolder, keeper: KeepWeights) -> None:
    """Refuses to finish a run whose kept weights are not of the epochs that were selected.

    That happens where a process was killed between its weights and its checkpoint, and the one that went on, on another
    kind of processor, came to other last digits and so to another best epoch.
    """
    for rule, chosen in keeper.selected.items():
        found = weights.epoch_of(folder.weights(rule))
        if found != chosen["epoch"]:
            raise ValueError(
                f"the kept weights of {rule!r} are of epoch {found}, selected was epoch {chosen['epoch']}: the run was "
                "interrupted, and went on where numbers round otherwise; --retry-failed --no-resume trains it afresh"
            )


def take_part(job: Job, rank: int) -> None:
    """Trains along as one of several processes that share the batches of a job; see `runners.ranks`.

    Writes nothing but the batch that its part of the loss diverged on.
    """
    _seed(job)
    folder = Store(job.output).run(job.spec.run_id)
    device = ranks.device_of(job, rank)
    network = build.network(job.spec, job.place)
    model = Counter(network, build.loss(job.spec), bf16=job.spec.recipe.precision == "bf16").to(device)
    data = build.loaders(job.spec, job.place, network.multiple, rank)
    recipe = job.spec.recipe
    resume = Resume(folder, KeepWeights(recipe, folder, ()), leads=False)
    runner = _runner(job, folder, model, data, [resume, History(recipe, folder, leads=False)], device)
    try:
        runner.train()
    except DivergedError as error:
        raise _kept(error, folder, runner) from error


def _runner(
    job: Job,
    folder: RunFolder,
    model: Counter,
    data: build.Loaders,
    hooks: Sequence[Hook],
    device: torch.device,
    **validation: Any,
) -> Runner:
    """The engine, ready to train."""
    recipe, tracked = job.spec.recipe, job.place.tracker is not None
    return _Runner(
        model=ranks.wrapped(model, device),
        work_dir=str(folder.work),
        train_dataloader=data.train,
        train_cfg={"type": EpochBasedTrainLoop, "max_epochs": recipe.epochs, "val_interval": recipe.val_interval},
        optim_wrapper=_OptimWrapper(
            build.optimizer(recipe, model),
            clip_grad=None if recipe.clip_grad is None else {"max_norm": recipe.clip_grad},
        ),
        param_scheduler=build.schedules(recipe, recipe.epochs * len(data.train)),
        default_hooks={
            "checkpoint": None,
            "runtime_info": StepInfo(tracked),
            "logger": {"type": "LoggerHook", "interval": LOG_INTERVAL} if tracked else None,
        },
        log_processor={"type": "LogProcessor", "window_size": 1},
        custom_hooks=list(hooks),
        visualizer={"type": "Visualizer", "vis_backends": _trackers(job.place.tracker)},
        randomness={"seed": job.spec.seed},
        experiment_name=f"{folder.run_id}-{uuid4().hex[:6]}",  # the engine keeps its loggers by name
        default_scope="mmengine",
        log_level="INFO" if tracked else "WARNING",
        **validation,
    )


def _kept(error: DivergedError, folder: RunFolder, runner: Runner) -> DivergedError:
    """The error with where it happened, and where the batch lies that it happened on."""
    where = f"epoch {runner.epoch + 1}, step {runner.iter + 1 - error.behind}"
    if error.batch is None:
        return DivergedError(f"{error} ({where})")
    path = folder.work / "diverged.safetensors"
    try:
        with replacing(path) as temporary:
            save_file(error.batch, temporary, {"ids": json.dumps(error.ids), "where": where, "error": str(error)})
    except (OSError, SafetensorError) as failed:  # the disk may be full: why the run ended is not lost with it
        return DivergedError(f"{error} ({where}; the batch could not be kept: {failed})")
    return DivergedError(f"{error} ({where}; the batch is kept in {path})")


def _measure(job: Job, folder: RunFolder, report: Report, data: build.Loaders | None) -> None:
    """Makes the evaluations that are missing, from the kept weights."""
    missing = [e for e in job.evaluations if not folder.has_evaluation(e)]
    places = [spec for spec in job.localisations if not folder.has_localisation(spec)]
    if not missing and not places:
        return
    record = folder.record()
    place = job.place
    network = build.network(job.spec, place, pretrained=False)
    model = Counter(network, build.loss(job.spec), bf16=job.spec.recipe.precision == "bf16").to(place.device)
    data = data or build.loaders(job.spec, place, network.multiple)
    for evaluation in missing:
        started = time.perf_counter()
        weights.load(network, folder.weights(evaluation.selection))
        loader = data.test if evaluation.split == "test" else data.val
        images = evaluate(model, loader, partial(_tell, report))
        measured = Evaluation(
            run_id=folder.run_id,
            evaluation=evaluation,
            epoch=int(record.selected[evaluation.selection]["epoch"]),
            images=len(images),
            metrics=summary(images),
            constant=constant(record.train_count_mean, images["true"]),
            seconds=round(time.perf_counter() - started, 3),
        )
        hold(folder)
        folder.add_evaluation(measured, images)
    tell_memory(report, torch.device(place.device), settled=True)
    if places:
        _localise(folder, model, record, data, places, report)


def _localise(
    folder: RunFolder,
    model: Counter,
    record: Record,
    data: build.Loaders,
    places: Sequence[LocalisationSpec],
    report: Report,
) -> None:
    """Makes the measurements of places that are missing, from the kept weights."""
    from runners.localise import Failed, localise, stored_heads

    truth = {split: stored_heads(data.dataset, split) for split in ("val", "test")}
    loaders = {"val": data.val, "test": data.test}
    for selection in sorted({spec.selection for spec in places}):
        weights.load(model.network, folder.weights(selection))
        specs, failed = [spec for spec in places if spec.selection == selection], []
        epoch = int(record.selected[selection]["epoch"])
        seen = partial(_tell, report)
        for found in localise(model, specs, loaders, truth, run_id=folder.run_id, epoch=epoch, seen=seen):
            if isinstance(found, Failed):
                failed.append(f"{found.spec.localizer}: {found.reason}")
            else:
                hold(folder)
                folder.add_localisation(found.localisation, found.points, found.curve)
        if failed:
            raise ValueError(f"trained and counted, but not localised by {'; '.join(failed)}")


def _tell(report: Report, done: int) -> None:
    report({"event": "evaluate", "image": done})


def _timings(runner: Runner, model: Counter, seconds: float, resumed: int) -> dict[str, float | None]:
    """Seconds of this process's training, and milliseconds a step: all, waiting for data, and the loss alone."""
    scalars = runner.message_hub.log_scalars

    def mean_ms(name: str) -> float | None:
        return 1e3 * float(scalars[name].mean()) if name in scalars else None

    return {
        "train_seconds": round(seconds, 3),
        "resumed_from_epoch": resumed,
        "step_ms": mean_ms("train/time"),
        "data_ms": mean_ms("train/data_time"),
        "loss_ms": model.timer.milliseconds,
    }


def _trackers(name: str | None) -> list[dict[str, str]]:
    """The visualizer's backends; without a tracker nothing is written, the history has it all."""
    return [] if name is None else [{"type": TRACKERS[name]}]


def _reason(error: BaseException) -> str:
    """One line for people; the exception's name where its text alone would not tell."""
    text = str(error)
    if text.startswith("Caught ") and "Original Traceback" in text:  # torch's, of a data-loading process
        text = text.strip().rpartition("\n")[2]
    text = " ".join(text.split()) or "no message"
    if "Bus error" in text:
        text += " (or prepared images were cut short under it: start again, with --retry-failed)"
    if _out_of_memory(error):
        return f"out of memory: {text}; lower --batch-size or --crop"
    return text if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {text}"


def _out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: torch has an exception for its own allocator, CUDA's libraries only say so."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    said = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in said or "alloc_failed" in said)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


logging.getLogger("timm").setLevel(logging.WARNING)
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA
