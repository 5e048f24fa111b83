"""Runs as tasks of a Ray cluster: an existing one, or one that is started on this machine.

One task a run. It starts the same process as the local engine does, and tells its events to a desk, an actor on the
node of the command; see `runners.engines.ray_node`. A run whose node dies is taken up by another node.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from runners.engines import EngineError, needs
from runners.engines.process import (
    GRACE,
    ROOT,
    OnEvent,
    afresh,
    cannot_start,
    cores,
    interruptible,
    keep_failure,
    placed,
    reserved,
)
from runners.engines.ray_node import Desk, carry, code_digest
from runners.job import Job

__all__ = ["Options", "check", "run_jobs"]

_RETRIES = 5
"""How often a run is taken up again after the death of its node (ours)."""


class Options(BaseModel):
    """What this engine wants to know.

    Attributes:
        ray_address: `local` starts a cluster of this machine; `auto` finds the one that this machine belongs to; or the
            host and port of one.
        device: `cpu`; `auto`: a GPU for each run where the cluster has any; `cuda`: a GPU or nothing.
        runs_per_gpu: How many runs share a GPU.
        cpus_per_run: Cores that a run is counted as; None for its threads and data-loading processes.
        jobs: Runs at once; None for as many as there is room for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ray_address: str = "local"
    device: str = "auto"
    runs_per_gpu: PositiveInt = 1
    cpus_per_run: PositiveInt | None = None
    jobs: PositiveInt | None = Field(default=None)


def check(options: Options) -> None:
    """Checks that Ray is installed and that the words make sense here.

    Raises:
        EngineError: If not.
    """
    needs("ray", "ray")
    if options.device not in ("auto", "cpu", "cuda"):
        raise EngineError(f"--engine ray chooses the GPUs itself: --device auto, cpu or cuda; found {options.device!r}")
    if options.ray_address.startswith("ray://"):
        raise EngineError("--ray-address: start the command on a node of the cluster, with auto or HOST:PORT")


def run_jobs(jobs: Sequence[Job], options: Options, on_event: OnEvent) -> None:
    """Runs all jobs on the cluster; otherwise as `runners.engines.local.run_jobs`.

    Args:
        jobs: What to run. Data, prepared images and weights are searched on each node below the same paths.
        options: The cluster, and what a run needs of it.
        on_event: As there; also `again`, when a run is taken up after the death of its node, and `said`, a remark.

    Raises:
        EngineError: If the cluster cannot be reached, has no node with what a run needs, or was lost.
        KeyboardInterrupt: After all processes were stopped and what nodes had in folders of their own was brought back.
    """
    _connect(options)
    needed = _needed(jobs, options)
    with _token(jobs[0].output) as token, _desk(jobs) as desk:
        _Study(jobs, options, on_event, desk, token, needed).carry_out()


class _Study:
    """The jobs of one command while they are on the cluster."""

    def __init__(
        self, jobs: Sequence[Job], options: Options, on_event: OnEvent, desk: Any, token: str, needed: dict[str, float]
    ) -> None:
        self.jobs, self.on_event, self.desk, self.token, self.needed = list(jobs), on_event, desk, token, needed
        self.limit = options.jobs or len(jobs)
        self.code = code_digest()
        self.waiting = list(range(len(jobs)))
        self.running: dict[Any, int] = {}
        self.started: set[int] = set()
        self.ended: set[int] = set()

    def carry_out(self) -> None:
        """Hands the jobs out and passes events on, until all have ended."""
        import ray

        with interruptible(), self._called_back():
            while self.waiting or self.running:
                while self.waiting and len(self.running) < self.limit:
                    self._hand_out(self.waiting.pop(0))
                ready, _ = ray.wait(list(self.running), num_returns=1, timeout=0.5)
                self._pass_on()
                for task in ready:
                    self._end(task)
                self.on_event(-1, {"event": "idle"})

    def _hand_out(self, index: int) -> None:
        import ray

        try:
            self.jobs[index] = afresh(self.jobs[index])
        except OSError as error:
            self.ended.add(index)
            self.on_event(index, cannot_start(error))
            return
        task = ray.remote(carry).options(**self.needed, max_retries=_RETRIES, name=self.jobs[index].spec.run_id[:8])
        self.running[task.remote(self.jobs[index].model_dump_json(), index, self.desk, self.token, self.code)] = index

    def _pass_on(self) -> None:
        """The events that came in; a second start means that the first attempt died."""
        for index, event in _ask(self.desk.take.remote()):
            if index in self.ended:
                continue
            if event["event"] == "start" and index in self.started:
                self.on_event(index, {"event": "again", "reason": f"on {event['node']}; its node or process died"})
            if event["event"] == "held":
                self.started.discard(index)
            if event["event"] == "start":
                self.started.add(index)
            self.on_event(index, event)

    def _end(self, task: Any) -> None:
        """The last event of a task that has ended."""
        import ray

        index = self.running.pop(task)
        self.ended.add(index)
        try:
            last = ray.get(task)
        except ray.exceptions.RayError as error:
            last = {"event": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[-300:]}"}
            _ask(self.desk.give_up.remote(index))  # it may have been lent to the node that is gone
            keep_failure(self.jobs[index], last["reason"])
        if last["event"] == "stopped":
            last = {"event": "failed", "reason": "stopped by a signal from outside; the same command goes on with it"}
        self.on_event(index, last)

    @contextmanager
    def _called_back(self) -> Iterator[None]:
        """Stops what still runs when the block is left: what has not begun at once, the rest in good order."""
        import ray

        try:
            yield
        finally:
            with suppress(ray.exceptions.RayError):
                if self.running:
                    ray.get(self.desk.stop.remote(), timeout=GRACE)
                    for task, index in self.running.items():
                        if index not in self.started:
                            ray.cancel(task)
                    ray.wait(list(self.running), num_returns=len(self.running), timeout=2 * GRACE)


# ---------------------------------------------------------------------------------------------------------------------
# The cluster


def _connect(options: Options) -> None:
    """Joins the cluster, or starts one of this machine; once for all studies of this process.

    Raises:
        EngineError: If there is none.
    """
    import ray

    if ray.is_initialized():
        return
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if options.ray_address == "local":
            path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
            os.environ["PYTHONPATH"] = path  # nodes that are started here import this very checkout
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
            ray.init(address="local", num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            ray.init(address=options.ray_address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise EngineError(
            f"--ray-address {options.ray_address}: no Ray cluster was reached ({error}); start one with `ray start "
            "--head`, or leave the option out to start one here"
        ) from error


def _needed(jobs: Sequence[Job], options: Options) -> dict[str, float]:
    """What a task reserves.

    Raises:
        EngineError: If no node has it.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpu = options.device != "cpu" and any(node.get("GPU", 0) > 0 for node in nodes)
    if options.device == "cuda" and not gpu:
        raise EngineError("--device cuda: no node of the Ray cluster has a GPU; use --device cpu")
    ranks = jobs[0].place.ranks
    if ranks > 1 and options.runs_per_gpu > 1:
        raise EngineError(f"--ranks {ranks} takes whole GPUs: leave --runs-per-gpu {options.runs_per_gpu} out")
    cpus = options.cpus_per_run or reserved(placed(jobs[0], "cuda" if gpu else "cpu"))
    gpus = ranks / options.runs_per_gpu if gpu else 0
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise EngineError(
            f"a run needs {cpus} cores and {gpus:g} GPUs, and no node of the Ray cluster has both; lower --ranks, "
            "--threads, --workers or --cpus-per-run"
        )
    return {"num_cpus": cpus, "num_gpus": gpus}


@contextmanager
def _token(store: Path) -> Iterator[str]:
    """The name of a file in the store, by which a node knows that it sees the same."""
    store.mkdir(parents=True, exist_ok=True)
    token = store / f".seen-{uuid4().hex}"
    token.touch()
    try:
        yield token.name
    finally:
        token.unlink(missing_ok=True)


@contextmanager
def _desk(jobs: Sequence[Job]) -> Iterator[Any]:
    """The actor on this node to which tasks report."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = ray.remote(Desk).options(num_cpus=0, scheduling_strategy=here)
    desk = desk.remote([str(job.output) for job in jobs], [job.spec.run_id for job in jobs])
    try:
        yield desk
    finally:
        with suppress(ray.exceptions.RayError):
            ray.get(desk.close.remote(), timeout=GRACE)
            ray.kill(desk)


def _ask(answer: Any) -> Any:
    """An answer of the desk.

    Raises:
        EngineError: If the cluster is gone.
    """
    import ray

    try:
        return ray.get(answer)
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"the Ray cluster was lost ({type(error).__name__}); what was saved is kept: start the same command again"
        ) from error
