"""Runs on a Ray cluster of several nodes on this machine: the bits of local processes, whatever dies meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from results.store import Store
from runners.engines import EngineError, local
from runners.engines import ray as engine
from runners.job import Job
from tests.engines.study import Told, checkpoints, jobs, left_halfway, resumed_from, same_runs

pytest.importorskip("ray", reason="needs Ray: pip install 'crowd-loss-benchmark[ray]'")
pytestmark = pytest.mark.cluster

LONG = 16
"""Epochs of a run that something happens to."""


class Nodes:
    """A head without cores, a node that works in the store, and one that works in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        from ray.cluster_utils import Cluster

        self.own = folder / "own"
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        self.terms: dict[str, dict[str, Any]] = {"sharing": {}, "lonely": {"CROWD_NODE_STORE": str(self.own)}}
        self.nodes = {name: self.cluster.add_node(num_cpus=1, env_vars=terms) for name, terms in self.terms.items()}
        self.options = engine.Options(ray_address=self.cluster.address, device="cpu")

    def kill(self, name: str) -> str:
        """Kills a node without warning and starts another like it; the dead one's id."""
        dead = self.nodes[name]
        self.cluster.remove_node(dead, allow_graceful=False)
        self.nodes[name] = self.cluster.add_node(num_cpus=1, env_vars=self.terms[name])
        return str(dead.node_id)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[Nodes]:
    import ray

    found = Nodes(folder)
    yield found
    ray.shutdown()
    found.cluster.shutdown()


@pytest.fixture(scope="module")
def long(folder: Path) -> list[Job]:
    """What local processes make of the runs that something happens to."""
    tasks = jobs(folder, "local", LONG, ("pml", "l2"))
    local.run_jobs(tasks, local.Options(), Told())
    return tasks


def test_the_bits_of_local_processes_in_the_store_and_out_of_it(nodes: Nodes, folder: Path) -> None:
    ours, theirs, told = jobs(folder, "short"), jobs(folder, "short-local"), Told()
    engine.run_jobs(ours, nodes.options, told)
    local.run_jobs(theirs, local.Options(), Told())
    same_runs(ours, theirs)
    assert sorted(told.of("done")) == [0, 1, 2]
    assert len(list(nodes.own.iterdir())) == 1, "no run was in a folder of the node's own"
    assert not list(nodes.own.glob("*/*")), "finished runs stay on the node"
    assert {path.name for path in ours[0].output.iterdir()} == {job.spec.run_id for job in ours}


def test_ctrl_c_brings_back_what_nodes_have_and_the_same_command_goes_on(
    nodes: Nodes, folder: Path, long: list[Job]
) -> None:
    ours = jobs(folder, "stopped", LONG, ("pml", "l2"))
    reached: dict[int, int] = {}

    def interrupt(index: int, event: dict[str, Any]) -> None:
        reached[index] = max(reached.get(index, 0), event.get("epoch", 0))
        if len(reached) > 2 and min(reached[0], reached[1]) >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.run_jobs(ours, nodes.options, Told(interrupt))
    for job in ours:
        run = Store(job.output).run(job.spec.run_id)
        assert run.state() == "interrupted"
        assert checkpoints(job)
    told = Told()
    engine.run_jobs(ours, nodes.options, told)
    assert sorted(told.of("done")) == [0, 1]
    assert all(resumed_from(job) >= 2 for job in ours)
    same_runs(ours, long)


def test_runs_that_shall_start_afresh_do_so(nodes: Nodes, folder: Path, long: list[Job]) -> None:
    ours = jobs(folder, "afresh", LONG, ("pml", "l2"))
    left = left_halfway(ours)
    told = Told()
    engine.run_jobs([job.model_copy(update={"resume": False}) for job in ours], nodes.options, told)
    assert sorted(told.of("done")) == [0, 1]
    assert not any(path.exists() for path in left)
    assert [resumed_from(job) for job in ours] == [0, 0]
    same_runs(ours, long)


@pytest.mark.parametrize("victim", ["sharing", "lonely"])
def test_a_node_that_dies_costs_no_run(nodes: Nodes, folder: Path, long: list[Job], victim: str) -> None:
    """Its raylet is killed as a machine that loses power; the other, or one that joins later, takes the run up."""
    ours = jobs(folder, f"killed-{victim}", LONG, ("pml", "l2"))
    reached: dict[int, int] = {}
    dead: list[str] = []

    def kill(index: int, event: dict[str, Any]) -> None:
        reached[index] = max(reached.get(index, 0), event.get("epoch", 0))
        if not dead and min(reached.get(0, 0), reached.get(1, 0)) >= 3:
            dead.append(nodes.kill(victim))
            print("killed the raylet of node", dead)

    told = Told(kill)
    engine.run_jobs(ours, nodes.options, told)
    assert dead
    assert len(set(told.of("again"))) == 1, "the other node had the other run"
    assert sorted(told.of("done")) == [0, 1]
    assert not told.of("failed")
    assert (resumed_from(ours[told.of("again")[0]]) > 0) == (victim == "sharing")
    same_runs(ours, long)


def test_what_no_node_has_is_refused(nodes: Nodes, folder: Path) -> None:
    tasks = jobs(folder, "refused")
    with pytest.raises(EngineError, match="99 cores"):
        engine.run_jobs(tasks, nodes.options.model_copy(update={"cpus_per_run": 99}), Told())
    with pytest.raises(EngineError, match="no node of the Ray cluster has a GPU"):
        engine.run_jobs(tasks, nodes.options.model_copy(update={"device": "cuda"}), Told())
    assert not tasks[0].output.exists()
