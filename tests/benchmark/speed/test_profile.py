"""A training step taken apart: all of it is there, and a function that takes time is found."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.cli import main
from benchmark.names import Choice
from benchmark.speed import command
from benchmark.speed.profile import PARTS, Profile, _name, profiled
from benchmark.speed.workloads import WORKLOADS, Workload
from losses.pml import PML
from results.speed import read_all


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORKLOADS, "step", Workload(4, 5, 2))


@pytest.mark.parametrize("loss", ["pml", "p2p"])
def test_the_parts_are_those_of_a_step(loss: str) -> None:
    """A network without a head of points stands in for P2P with its head of densities."""
    threads = torch.get_num_threads()
    found = profiled(Choice(loss, {}), "mcnn", 0.1)
    assert tuple(found.parts) == PARTS
    assert all(ms > 0 for ms in found.parts.values())
    assert 0 < sum(found.functions.values()) <= 1
    assert list(found.functions.values()) == sorted(found.functions.values(), reverse=True)
    assert torch.get_num_threads() == threads


def test_a_slow_function_is_found_in_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = PML.image_terms

    def slow(self: PML, sample: Any) -> Any:
        time.sleep(0.02)
        return terms(self, sample)

    monkeypatch.setattr(PML, "image_terms", slow)
    found = profiled(Choice("pml", {}), "mcnn", 0.1)
    assert found.parts["loss forward"] >= 2 * 20
    assert found.parts["loss backward"] < 20
    assert max(found.functions, key=lambda name: found.functions[name]) == "sleep"
    assert found.functions["sleep"] > 0.5


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (("/somewhere/losses/transport.py", 7, "softmin"), "transport.softmin"),
        (("~", 0, "<method 'exp_' of 'torch._C.TensorBase' objects>"), "Tensor.exp_"),
        (("~", 0, "<method 'query' of 'scipy.spatial._ckdtree.cKDTree' objects>"), "cKDTree.query"),
        (("~", 0, "<built-in method scipy.sparse._sparsetools.csr_matvec>"), "csr_matvec"),
        (("~", 0, "<built-in method torch._special.erf>"), "erf"),
    ],
)
def test_functions_have_names_that_can_be_read(place: tuple[str, int, str], expected: str) -> None:
    assert _name(*place) == expected


def test_the_command_prints_keeps_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def once(choice: Choice, backbone: str, seconds: float) -> Profile:
        if len(asked) == 1:
            raise KeyboardInterrupt
        asked.append(str(choice))
        return Profile(dict(zip(PARTS, (50.0, 8.0, 2.0, 39.0, 1.0), strict=True)), {"geometry.tree": 0.75, "erf": 0.1})

    monkeypatch.setattr(command, "profiled", once)
    words = ["speed", "--losses", "pml", "bl", "--workloads", "step", "--seconds", "0.02", "--no-reference"]
    words += ["--profile", "-o", str(tmp_path)]
    assert main(words) == 130
    (kept,) = read_all(tmp_path)
    assert [one.loss for one in kept.profiles] == ["pml"]
    monkeypatch.setattr(command, "profiled", lambda choice, *_: Profile(dict.fromkeys(PARTS, 1.0), {choice.name: 1.0}))
    assert main([*words, "--resume", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["loss"] for one in told["profiles"]] == ["pml", "bl"]
    assert told["profiles"][1]["functions"] == {"bl": 1.0}
    assert main(["report", "speed", "-o", str(tmp_path)]) == 0
    said = re.sub(r"[^\w.%:,]+", " ", capsys.readouterr().out)
    assert "A training step, part by part" in said
    assert "pml 50.0 8.00 2.00 39.0 1.00 10.0 %" in said
    assert "pml: geometry.tree 75 %, erf 10 %." in said


def test_on_a_gpu_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speed", "--profile", "--device", "cuda", "-o", str(tmp_path)]) == 2
    assert "--profile takes a step of the CPU apart; found --device cuda" in capsys.readouterr().err
