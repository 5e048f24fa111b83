from __future__ import annotations

from pathlib import Path

import pytest

from benchmark.names import split_choices
from benchmark.study import StudyError, built_in, load_study
from losses.discovery import UnknownNameError
from results.spec import Recipe


@pytest.mark.parametrize("name", built_in())
def test_built_in_studies_name_things_that_exist(name: str) -> None:
    import losses
    from runners import backbones, data
    from runners.data import noise

    study = load_study(name)
    for choice in split_choices(study.losses):
        losses.build(choice.name, **choice.params)
    for choice in split_choices(study.backbones):
        backbones.load(choice.name)
    for choice in split_choices(study.datasets):
        data.check_params(choice.name, choice.params)
    assert all(noise.parse(text) is not None for text in study.noises)
    assert study.title
    Recipe(**study.overrides)


def write(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(text)
    return str(path)


AXES = "losses: [pml]\nbackbones: [mcnn]\ndatasets: [synthetic]\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (AXES + "loses: [bl]", "loses: .*Did you mean losses"),
        (AXES + "overrides: {epoch: 3}", r"overrides.epoch: no field of a recipe. Did you mean epochs"),
        (AXES + "epochs: 3", "epochs: .*It belongs under overrides"),
        (AXES + "seeds: [-1]", "seeds.0: .*greater than or equal to 0"),
        (AXES + "seeds: []", "seeds: .*at least 1 item"),
        (AXES + "selections: [best]", "selections.0"),
        ("- pml", "must hold a table"),
        ("losses: [pml", "no valid YAML"),
        ("losses: !!python/object/apply:os.system ['true']", "study.yaml:1: losses: a value of kind 'python/object"),
        ("losses: [pml]", r"yaml:1: backbones: Field required\.\n.*yaml:1: datasets: Field required"),
    ],
)
def test_bad_files_are_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        load_study(write(tmp_path, text))


def test_unknown_study_is_suggested() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean quick"):
        load_study("quik")
