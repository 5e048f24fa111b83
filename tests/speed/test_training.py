"""Whether the network waits for its data: `pytest tests/speed/test_training.py --benchmark-only`.

What the engine adds to a step is measured in `test_engine.py`.
"""

from __future__ import annotations

from pathlib import Path

from benchmark.plan import Planned, plan
from benchmark.study import validated
from results.store import Store
from runners.execute import execute
from runners.job import Job, Place

EPOCHS = 6
RECIPE = {"epochs": EPOCHS, "batch_size": 8, "crop": 256, "val_interval": EPOCHS}
AXES = {"losses": ["pml"], "datasets": ["synthetic[train=32,val=1,test=1]"], "weights": "none", "overrides": RECIPE}


def spec_of(backbone: str):  # type: ignore[no-untyped-def]
    (run,) = plan(validated(AXES | {"backbones": [backbone]}, "test"))
    assert isinstance(run, Planned), run.reason
    return run.spec


def engine(backbone: str, place: Place, output: Path) -> dict[str, float]:
    """Milliseconds a step as the record has them."""
    spec = spec_of(backbone)
    execute(Job(spec=spec, output=output, place=place, evaluations=(), resume=False), lambda event: None)
    return Store(output).run(spec.run_id).record().timings


def test_two_workers_keep_a_light_network_busy(benchmark, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = []

    def once() -> None:
        found.append(engine("mobilenetv2", Place(workers=2), tmp_path))

    benchmark.pedantic(once, rounds=2, iterations=1)
    shares = [one["data_ms"] / one["step_ms"] for one in found]
    benchmark.extra_info["data_share"] = min(shares)
    print(f"waiting for data: {100 * min(shares):.1f} % of a step")
    assert all(0 <= share < 1 for share in shares)
