"""What the README promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import losses
from runners import backbones, data, localizers

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_training_loop_works_as_printed() -> None:
    (code,) = [block for block in blocks("python") if "PML()" in block]
    weight = torch.zeros(1, requires_grad=True)
    names = {"images": torch.zeros(2, 3, 256, 256), "model": lambda images: weight + torch.full((2, 1, 32, 32), 0.01)}
    exec(code, names)
    assert torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("name", [*losses.names(), *backbones.names(), *data.names(), *localizers.names()])
def test_everything_has_its_place(name: str) -> None:
    assert f"`{name}`" in README


def test_the_functional_form_needs_one_import() -> None:
    code = "import losses, torch; print(losses.functional.pml(torch.ones(4, 4), torch.ones(1, 2), stride=8).item() > 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "True"


def test_the_command_that_ci_runs_is_there() -> None:
    (command,) = re.findall(r"<!-- test command -->\n```sh\n(.*?)\n```\n<!-- end -->", README)
    assert command.startswith("pip install -c constraints.txt -e ")
    assert "pytest" in command
