"""A run on a node of a Ray cluster, and the desk that its task reports to.

A node that sees the command's store works in it. Any other works in a folder of its own: the desk claims the run in the
store and lends what is there; the node brings the run back when it has ended or was stopped, and now and then between.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from results.store import RunFolder, Store
from runners.engines import parcels
from runners.engines.process import PATIENCE, ROOT, Carrier
from runners.job import Job

__all__ = ["Desk", "carry", "code_digest"]

_BETWEEN = 300.0
"""Seconds between two parcels of a node that does not see the store (ours): what its death costs at most."""
_OWN_FOLDER = "CROWD_NODE_STORE"
"""A node's environment variable: its own folder for runs, used even where the store can be seen."""


class Desk:
    """Where tasks report, and where nodes that do not see the store borrow runs and bring them back.

    Args:
        stores: The root of the store of each job.
        runs: The id of each job's run.
    """

    def __init__(self, stores: Sequence[str], runs: Sequence[str]) -> None:
        self.folders = [Store(store).run(run) for store, run in zip(stores, runs, strict=True)]
        self.events: list[tuple[int, dict[str, Any]]] = []
        self.stopping = False
        self.claims: dict[int, ExitStack] = defaultdict(ExitStack)

    def tell(self, index: int, event: dict[str, Any] | None) -> bool:
        """Takes an event; says whether the task shall stop."""
        if event is not None:
            self.events.append((index, event))
        return self.stopping

    def take(self) -> list[tuple[int, dict[str, Any]]]:
        """The events since the last call."""
        taken, self.events = self.events, []
        return taken

    def stop(self) -> None:
        """Tells all tasks to stop."""
        self.stopping = True

    def lend(self, index: int) -> parcels.Parcel | str:
        """Claims a run for a node that does not see the store and gives its files, or says who has it."""
        folder = self.folders[index]
        if not folder.claims.take():
            return str(folder.claims.holder() or "another process")
        if index not in self.claims:
            self.claims[index].callback(folder.claims.release)
            self.claims[index].enter_context(folder.claims.beating())
        return parcels.pack(folder)

    def give_up(self, index: int) -> None:
        """Gives a run back that was lent to a node: it died, and one that sees the store takes the run up."""
        if index in self.claims:
            self.claims.pop(index).close()

    def bring(self, index: int, parcel: parcels.Parcel, last: bool) -> bool:
        """Puts a run into the store; False if another process took it over meanwhile, and nothing was put there."""
        folder = self.folders[index]
        if not folder.claims.mine():
            return False
        parcels.unpack(parcel, folder)
        if last:
            self.give_up(index)
        return True

    def close(self) -> None:
        """Gives back what is still claimed."""
        for claim in self.claims.values():
            claim.close()
        self.claims.clear()


def carry(content: str, index: int, desk: Any, token: str, code: str) -> dict[str, Any]:
    """The task: carries a job to its end on this node; its last event."""
    import ray

    job = Job.model_validate_json(content)
    if code != code_digest():
        reason = f"node {platform.node()} has another version of this package than the command was started with"
        return {"event": "failed", "reason": f"{reason}; install the same on all nodes"}
    device = "cuda:0" if ray.get_gpu_ids() else "cpu"  # Ray shows the process no other GPU
    own = os.environ.get(_OWN_FOLDER)
    shared = own is None and (job.output / token).is_file()
    return _Visit(job, device, index, desk).there() if shared else _Visit(job, device, index, desk).elsewhere(own)


class _Visit:
    """One job on one node.

    Args:
        job: The job.
        device: Its device.
        index: Its number in the study.
        desk: Where it reports.
    """

    def __init__(self, job: Job, device: str, index: int, desk: Any) -> None:
        self.job, self.device, self.index, self.desk = job, device, index, desk
        self._asked = 0.0

    def there(self) -> dict[str, Any]:
        """Works in the store itself."""
        import ray

        ray.get(self.desk.give_up.remote(self.index))
        carrier = Carrier(self.job, self.device, lambda event: self._tell(event, carrier.stop))
        return carrier.run()

    def elsewhere(self, own: str | None) -> dict[str, Any]:
        """Works in a folder of this node, and brings the run to the store."""
        digest = hashlib.sha256(str(self.job.output).encode()).hexdigest()[:12]
        root = Path(own or Path(tempfile.gettempdir()) / f"crowd-loss-benchmark-{getpass.getuser()}") / digest
        folder = Store(root).run(self.job.spec.run_id)
        lent = self._borrow(folder)
        if lent is None:
            return {"event": "stopped"}
        parcels.unpack(lent, folder)
        brought = time.monotonic()

        def report(event: dict[str, Any]) -> None:
            nonlocal brought
            if event["event"] == "epoch" and time.monotonic() - brought > _BETWEEN:
                self._bring(folder, last=False)
                brought = time.monotonic()
            self._tell(event, carrier.stop)

        carrier = Carrier(self.job.model_copy(update={"output": root}), self.device, report)
        last = carrier.run()
        if not self._bring(folder, last=True):
            return {"event": "failed", "reason": "another process took the run over in the store meanwhile"}
        if last["event"] == "done":
            shutil.rmtree(folder.path, ignore_errors=True)
        return last

    def _borrow(self, folder: RunFolder) -> parcels.Parcel | None:
        """What the store has of the run, once nobody else has it, there or here; None if the study was stopped."""
        import ray

        while True:
            holder = folder.claims.holder()
            found = str(holder) if holder is not None else ray.get(self.desk.lend.remote(self.index))
            if not isinstance(found, str):
                return found
            self._tell({"event": "held", "holder": found}, lambda: None)
            again = time.monotonic() + PATIENCE
            while time.monotonic() < again:
                time.sleep(0.5)
                if ray.get(self.desk.tell.remote(self.index, None)):
                    return None

    def _bring(self, folder: RunFolder, last: bool) -> bool:
        import ray

        return bool(ray.get(self.desk.bring.remote(self.index, parcels.pack(folder), last)))

    def _tell(self, event: dict[str, Any], stop: Callable[[], None]) -> None:
        """Tells the desk, and stops if it says so; an idle event only asks, at most once a second."""
        import ray

        idle = event["event"] == "idle"
        if idle and time.monotonic() - self._asked < 1:
            return
        self._asked = time.monotonic()
        if event["event"] == "start":
            event = event | {"node": platform.node()}
        if ray.get(self.desk.tell.remote(self.index, None if idle else event)):
            stop()


def code_digest() -> str:
    """Digest of the code that trains: nodes with another version would mix results."""
    found = hashlib.sha256()
    for path in sorted(path for room in ("losses", "results", "runners") for path in (ROOT / room).rglob("*.py")):
        found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:16]
