"""The fused kernels: their numbers in Triton's interpreter, what they compile to, how many launches, when not used."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import losses
from losses import Target
from losses.transport import Potentials, choice, together
from tests.contracts import crowd as crowds
from tests.contracts.crowd import inputs, predict, scatter

triton = pytest.importorskip("triton", reason="Triton comes with torch on Linux only")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from losses.transport import fused, kernels  # noqa: E402

PLAIN = together._PLAIN
CPU = torch.device("cpu")


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["test_rounds", "test_floored", "test_annealed", "test_losses"])
def test_in_the_interpreter(part: str) -> None:
    """`interpreted.py`, in a process in which Triton interprets its kernels from the first import on."""
    file = Path(__file__).with_name("interpreted.py")
    command = [sys.executable, "-m", "pytest", str(file), "-k", part, "-p", "no:cacheprovider"]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTEST_ADDOPTS", "CROWD_FUSED")}
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment | {"TRITON_INTERPRET": "1"},
        cwd=file.parents[2],
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed, \d+ deselected in", done.stdout, re.M), done.stdout


# --- what is compiled ------------------------------------------------------------------------------------------------

INTEGERS = ("count", "others", "here_step", "there_step", "step")
NUMBERS = {"rate": "fp32", "reach": "fp32", "stopped": "*u8"} | dict.fromkeys(INTEGERS, "i32")
VARIANTS = [
    pytest.param(kernels.half_round, fused.TO_POINTS, {"LOG": True, "TEST": False}, id="rounds-points"),
    pytest.param(kernels.half_round, fused.TO_CELLS, {"LOG": True, "TEST": False}, id="rounds-cells"),
    pytest.param(kernels.half_round, fused.TO_CELLS, {"LOG": True, "TEST": True}, id="rounds-test"),
    pytest.param(kernels.half_round, fused.TO_POINTS, {"LOG": False, "TEST": False}, id="floored-points"),
    pytest.param(kernels.half_round, fused.TO_CELLS, {"LOG": False, "TEST": False}, id="floored-cells"),
    pytest.param(kernels.half_round, fused.TO_CELLS, {"LOG": False, "TEST": True}, id="floored-test"),
    pytest.param(kernels.half_step, fused.TO_POINTS, {"ROWS": True}, id="annealed-points"),
    pytest.param(kernels.half_step, fused.COLUMNS, {"ROWS": False}, id="annealed-cells"),
]


def resources(kernel: Any, tile: fused._Tile, constants: dict[str, Any], capability: int, **more: Any) -> str:
    """What cuobjdump says of the machine code: registers, stack, shared and local memory."""
    options = tile.options() | more
    constants = constants | {name: options.pop(name) for name in ("OUT", "LANES", "DEEP")}
    signature = {name: NUMBERS.get(name, "*fp32") for name in kernel.arg_names} | dict.fromkeys(constants, "constexpr")
    aligned = {
        (place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if kind.startswith("*")
    }
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    cubin = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
    cubin.write_bytes(made.asm["cubin"])
    done = subprocess.run([str(tool), "-res-usage", str(cubin)], capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("capability", [75, 80, 90])
@pytest.mark.parametrize(("kernel", "tile", "constants"), VARIANTS)
def test_kernels_compile_and_spill_no_registers(
    kernel: Any, tile: fused._Tile, constants: dict[str, Any], capability: int
) -> None:
    """Turing, Ampere and Hopper, as the launchers ask for them; no GPU is needed for it."""
    used = resources(kernel, tile, constants, capability)
    assert re.search(r"REG:\d+ STACK:0 .*LOCAL:0 ", used), used
    assert int(re.findall(r"REG:(\d+)", used)[0]) <= 128, "at least 512 threads a multiprocessor"


@pytest.mark.usefixtures("cache")
def test_spilled_registers_would_be_seen() -> None:
    used = resources(kernels.half_round, fused.TO_CELLS, {"LOG": True, "TEST": False}, 80, maxnreg=24)
    assert not re.search(r"STACK:0 ", used), used


# --- launches --------------------------------------------------------------------------------------------------------

_VIEWS = (
    "_reshape_alias", "_unsafe_view", "alias", "as_strided", "detach", "empty", "empty_like", "expand", "lift_fresh",
    "new_empty", "permute", "select", "slice", "split", "split_with_sizes", "squeeze", "t", "transpose", "unbind",
    "unflatten", "unsqueeze", "view",
)  # fmt: skip


class _Launches(TorchDispatchMode):
    """Counts what a GPU is asked to run: operations but views and allocations, and kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = self.kernels = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += function.__name__.split(".")[0] not in _VIEWS
        return function(*args, **(kwargs or {}))

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        assert all(size > 0 for size in grid)
        return self._launch

    def _launch(self, *args: Any, **options: Any) -> None:
        self.kernels += 1


@pytest.mark.parametrize(
    ("name", "variant", "halves", "most"),
    [
        ("dm_count", "paper", 201, 450),
        ("dm_count", "official", 199, 420),
        ("gl", "paper", 26, 280),
        ("gl", "official", 26, 280),
    ],
)
def test_a_step_looks_at_no_value_and_launches_little(
    name: str, variant: str, halves: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors without values, at 64 x 64 cells, 300 people and batch 8: one kernel for each half round or step."""
    size, seen = (512, 512), _Launches()
    for kernel in ("half_round", "half_step"):
        monkeypatch.setattr(kernels, kernel, seen)
    ours = choice.Solver(fused.rounds, fused.floored_rounds, fused.annealed)
    prediction = predict(name, size, batch=8)
    moved = {key: value.detach().to("meta").requires_grad_() for key, value in inputs(prediction).items()}
    target = Target([scatter(300, size, seed=seed).to("meta") for seed in range(8)], size)
    counts = []
    for way in (PLAIN, ours):
        monkeypatch.setattr(together, "chosen", lambda like, plain, way=way: way)
        seen.operations = seen.kernels = 0
        with seen:
            losses.build(name, variant=variant)(prediction._replace(**moved), target)["loss"].backward()
        counts.append((seen.kernels, seen.operations))
    print(name, variant, counts)
    assert counts[0][0] == 0
    assert counts[1][0] == halves
    assert sum(counts[1]) < min(most, counts[0][1])


# --- which way -------------------------------------------------------------------------------------------------------


@pytest.fixture
def interpreting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU would take the kernels, which in this process were compiled for a GPU: they fail there."""
    monkeypatch.setattr(choice, "_TESTED", {})
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.delenv("CROWD_FUSED", raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def ask() -> Any:
    """A small problem, by whatever way is chosen."""
    points = [scatter(count, (64, 96), seed=count) for count in (4, 2)]
    mass = torch.full((2, 8, 12), 1 / 96)
    return crowds.rounds(points, mass, 8, reg=100.0, scale=1.0, iterations=3)


def same(found: Any, expected: Any) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.f, other.f, rtol=0, atol=0)
        torch.testing.assert_close(one.g, other.g, rtol=0, atol=0)


@pytest.mark.usefixtures("interpreting")
def test_kernels_that_fail_are_told_once_and_torch_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_FUSED", "0")
    expected = ask()
    monkeypatch.delenv("CROWD_FUSED")
    message = r"do not work on cpu, plain torch .*slower \(.+: .+\); CROWD_FUSED=0"
    with pytest.warns(RuntimeWarning, match=message) as told:
        found = ask()
    assert len(told) == 1
    same(found, expected)
    same(ask(), expected)
    assert choice._TESTED == {CPU: None}


@pytest.mark.usefixtures("interpreting")
@pytest.mark.parametrize("wrong", [1.01, torch.nan])
@pytest.mark.parametrize("solver", choice.Solver._fields)
def test_wrong_numbers_are_found_before_they_are_used(
    solver: str, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, way in PLAIN._asdict().items():
        monkeypatch.setattr(fused, name, way)

    def off(*args: Any, **kwargs: Any) -> Any:
        found = getattr(PLAIN, solver)(*args, **kwargs)
        return found * wrong if isinstance(found, Tensor) else Potentials(found.f, found.g * wrong)

    monkeypatch.setattr(fused, solver, off)
    with pytest.warns(RuntimeWarning, match=rf"ArithmeticError: {solver}: numbers of up to [\d.]+ are off by"):
        assert choice.chosen(torch.zeros(1), PLAIN) is PLAIN


@pytest.mark.usefixtures("interpreting")
def test_kernels_that_fail_later_are_told_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton compiles anew for other sizes. Memory that runs out is another matter, which the engine deals with."""
    for name, way in PLAIN._asdict().items():
        monkeypatch.setattr(fused, name, way)
    errors: list[Exception] = [torch.OutOfMemoryError("full"), RuntimeError("no such instruction")]

    def later(*args: Any, **kwargs: Any) -> Potentials:
        if choice._TESTED:
            raise errors.pop(0)
        return PLAIN.rounds(*args, **kwargs)

    monkeypatch.setattr(fused, "rounds", later)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        ask()
    with pytest.warns(RuntimeWarning, match="RuntimeError: no such instruction"):
        found = ask()
    same(ask(), found)
    assert not errors


@pytest.mark.usefixtures("interpreting")
def test_the_check_is_made_once_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    solved = []
    for name, way in PLAIN._asdict().items():
        monkeypatch.setattr(fused, name, way)
    monkeypatch.setattr(fused, "rounds", lambda *args, **kwargs: solved.append(1) or PLAIN.rounds(*args, **kwargs))
    assert [choice.chosen(torch.zeros(1), PLAIN) is PLAIN for _ in range(3)] == [False] * 3
    assert len(solved) == 1


@pytest.mark.usefixtures("interpreting")
@pytest.mark.parametrize("like", [torch.zeros(1, dtype=torch.float64), torch.zeros(1, device="meta")])
def test_other_dtypes_and_devices_stay_with_torch(like: Tensor) -> None:
    assert choice.chosen(like, PLAIN) is PLAIN
    assert not choice._TESTED, "not even tried"


@pytest.mark.usefixtures("interpreting")
def test_the_environment_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CROWD_FUSED", "0")
    assert choice.chosen(torch.zeros(1), PLAIN) is PLAIN
    assert not choice._TESTED
    monkeypatch.setenv("CROWD_FUSED", "no")
    with pytest.raises(ValueError, match="CROWD_FUSED must be 0 .* found 'no'"):
        choice.chosen(torch.zeros(1), PLAIN)
    monkeypatch.delenv("TRITON_INTERPRET")
    assert choice.chosen(torch.zeros(1), PLAIN) is PLAIN, "on a CPU nobody asks"


@pytest.mark.usefixtures("interpreting")
def test_without_triton_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice.importlib.util, "find_spec", lambda name: None)
    assert choice.chosen(torch.zeros(1), PLAIN) is PLAIN


@pytest.mark.parametrize("solver", range(3))
def test_the_small_problem_is_solvable_in_float32(solver: int) -> None:
    """What the kernels may be off by is far above rounding."""
    one, other = (choice._small_problem(PLAIN, CPU, dtype)[solver] for dtype in (torch.float32, torch.float64))
    assert torch.isfinite(one).all()
    assert float((one - other).abs().max()) < 0.1 * choice._ALIKE * float(other.abs().max())
