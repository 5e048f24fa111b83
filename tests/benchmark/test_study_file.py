"""Studies of strangers: every mistake is an error with file, line and suggestion, and nothing is absurdly large."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmark.names import split_choices
from benchmark.plan import PlanError, plan
from benchmark.study import StudyError, built_in, load_study, validated
from benchmark.study_file import read
from losses.discovery import UnknownNameError
from tests.benchmark.test_study import AXES

AXIS = {"losses": ["pml"], "backbones": ["mcnn"], "datasets": ["synthetic"]}


def refusal(folder: Path, text: str | bytes) -> list[str]:
    """The lines of the error, without the path."""
    path = folder / "study.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(StudyError) as caught:
        load_study(str(path))
    lines = str(caught.value).split("\n")
    assert all(line.startswith(f"{path}:") and line.isprintable() for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


@pytest.mark.parametrize("path", built_in().values(), ids=str)
def test_values_are_those_of_yaml(path: Path) -> None:
    assert read(path).values == yaml.safe_load(path.read_text(encoding="utf-8"))


def test_values_of_every_kind_are_those_of_yaml(tmp_path: Path) -> None:
    text = "a: &x [1, 0x1F, 1:40, -1.5e3, .inf, true, no, ~, 'no', \"\\u00e9\"]\nb: {c: *x, d: |\n  two\n  lines\n  }\n"
    text = text.replace("d: |\n  two\n  lines\n  }", "d: x}")
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    assert read(tmp_path / "a.yaml").values == yaml.safe_load(text)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
TABLES = st.dictionaries(WORDS, st.recursive(SCALARS, lambda x: st.lists(x) | st.dictionaries(WORDS, x), max_leaves=8))


@given(TABLES, st.booleans())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_table_is_read_as_yaml_reads_it(table: dict[str, Any], flow: bool) -> None:
    text = yaml.safe_dump(table, default_flow_style=flow, allow_unicode=True)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(text, encoding="utf-8", newline="")
        assert read(path).values == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (AXES + "title: a\nloses: [bl]", "5: loses: Extra inputs are not permitted. Did you mean losses"),
        (AXES + "epoch: 3", "4: epoch: Extra inputs are not permitted. Did you mean epochs, under overrides?"),
        (AXES + "overrides:\n  lr: 0.1\n  epoch: 3", "6: overrides.epoch: no field of a recipe. Did you mean epochs"),
        (AXES + "overrides:\n  lr: 0.1\n  flip: 3", "6: overrides.flip: Input should be less than or equal to 1."),
        (AXES + "overrides: [lr]", "4: overrides: Input should be a valid dictionary."),
        (AXES + "seeds:\n- 0\n- -1", "6: seeds.1: Input should be greater than or equal to 0."),
        (AXES + "seeds: 3", "4: seeds: Input should be a valid list. Did you mean [3]?"),
        (AXES + "radii: [1:40]", '4: radii.0: Input should be a valid string. Did you mean "1:40", in quotes?'),
        (AXES + "exclude:\n- {loss: pml}", "5: exclude.0.reason: Field required."),
        (
            AXES + "exclude:\n- {los: pml, reason: x}",
            "5: exclude.0.los: Extra inputs are not permitted. Did you mean loss",
        ),
        ("losses: [pml, pmll]\nbackbones: [mcnn]\ndatasets: [synthetic]", "1: losses.1: unknown loss 'pmll'. Did you"),
        (
            "losses: [pml]\nbackbones: [mcn]\ndatasets: [synthetic]",
            "2: backbones.0: unknown backbone 'mcn'. Did you mean",
        ),
        (
            "losses: [pml]\nbackbones: [mcnn]\ndatasets:\n- synth",
            "4: datasets.0: unknown dataset 'synth'. Did you mean",
        ),
        (AXES + "noises: [none, mising:0.1]", "4: noises.1: unknown noise 'mising'. Did you mean missing"),
        (AXES + "recipe: shard", "4: recipe: unknown recipe 'shard'. Did you mean shared"),
        (AXES + "localizers: [otn]", "4: localizers.0: unknown localizer 'otn'. Did you mean otm"),
        (AXES + "radii: [sigma]", "4: radii.0: 'sigma' is no radius. Did you mean sigma_s"),
        (AXES + "losses: [l2]", "4: losses: given twice, on line 1 and on line 4; keep one"),
        (
            AXES + "overrides: {lr: 1, flip: 0,\n lr: 2}",
            "5: overrides.lr: given twice, on line 4 and on line 5; keep one",
        ),
        (AXES + "on: 3", "4: the key on is no word."),
        (AXES + "[a, b]: 3", "4: the key a list or table is no word."),
        (AXES + "overrides: {1: 2}", "4: overrides: the key 1 is no word."),
        ("a: &a {b: 1}\n" + AXES + "overrides: {<<: *a}", "5: overrides: the key << is no word. Write the fields out."),
        (AXES + "seeds: [2001-99-99]", "4: seeds.0: a value of kind 'timestamp'"),
        (AXES + "seeds: [2001-01-01]", "4: seeds.0: a value of kind 'timestamp'"),
        (AXES + "title: !!binary x", "4: title: a value of kind 'binary'"),
        (AXES + "seeds: [!!int '']", "4: seeds.0: '' cannot be read as int; put it in quotes"),
        (AXES + f"seeds: [{'9' * 5000}]", "4: seeds.0: '999"),
        (AXES + f"seeds: [{2**63}]", "4: seeds.0: Input should be less than"),
        (AXES + 'title: "a\\x1b[2J"', "4: title: a character that cannot be printed in 'a [2J'"),
        (AXES + 'title: "\\ud800"', "4: title: a character that cannot be printed"),
        (AXES + "title: a\0b", "4: no valid YAML: a character that YAML does not have"),
        (b"losses: [pml]\ntitle: \xff", "2: no valid YAML: not UTF-8 text"),
        (AXES + "title: 'a", "4: no valid YAML: while scanning a quoted scalar"),
        (AXES + "title: a: b", "4: no valid YAML: mapping values are not allowed here"),
        ("- pml", "1: must hold a table of axes (losses: [...], ...); found a list"),
        ("", "1: must hold a table of axes (losses: [...], ...); found nothing"),
        ("[" * 100_000, "1: no valid YAML: nested more than 20 levels deep"),
        ("{a: " * 5000, "1: no valid YAML: nested more than 20 levels deep"),
        ("losses: &a [*a]", "1: an alias stands for something that holds itself"),
    ],
)
def test_the_line_of_a_mistake(tmp_path: Path, text: str | bytes, first: str) -> None:
    assert refusal(tmp_path, text)[0].startswith(first)


def test_every_mistake_is_told_in_order(tmp_path: Path) -> None:
    found = refusal(tmp_path, "datasets: [synthetic]\nseeds: [-1]\nloses: [pml]\nbackbones: []\n")
    assert [line.split(": ")[:2] for line in found] == [
        ["1", "losses"], ["2", "seeds.0"], ["3", "loses"], ["4", "backbones"]
    ]  # fmt: skip


def test_parameters_and_heads_are_told_with_all_others(tmp_path: Path) -> None:
    """Six mistakes of parameters, which were told one a run, without file, line or entry."""
    text = (
        "losses: ['pml[tau=-1]', 'bl[sigma=abc]',\n 'chfl[nosuch=1,nois_std=2]']\nbackbones: ['tiny[output=nosuch]',\n"
    )
    text += " 'tiny[haed=bl]', 'timm:vgg19_bn[stride=x]']\n"
    text += "datasets: ['synthetic[scale=100]',\n 'synthetic[trian=1,scale=x]']\n"
    text += "head: natve\nlocalizers: ['lm[rule=x]']\n"
    expected = [
        ("1: losses.0", "pml: tau must be above 0; found -1"),
        ("1: losses.1", "bl: sigma must be a number; found 'abc'"),
        ("2: losses.2", "unknown parameter of chfl 'nosuch'. Known: norm,"),
        ("2: losses.2", "unknown parameter of chfl 'nois_std'. Did you mean noise_std"),
        ("3: backbones.0", "tiny: unknown output 'nosuch'. Known: abs, relu"),
        ("4: backbones.1", "unknown parameter of tiny 'haed'. Did you mean head?"),
        ("4: backbones.2", "timm:vgg19_bn: stride must be an integer"),
        ("5: datasets.0", "synthetic: scale must lie in (0, 8]; found 100"),
        ("6: datasets.1", "unknown parameter of synthetic 'trian'. Did you mean train"),
        ("6: datasets.1", "synthetic: a parameter is of the wrong kind among scale='x'"),
        ("7: head", "unknown head 'natve'. Did you mean native?"),
        ("8: localizers.0", "lm: rule must be one of gl, steerer, fidtm"),
    ]
    found = refusal(tmp_path, text)
    assert len(found) == len(expected)
    for line, (place, said) in zip(found, expected, strict=True):
        assert line.startswith(f"{place}: {said}")


def test_parameters_that_may_be_are_no_mistakes(tmp_path: Path) -> None:
    """Also of a dataset that is not here, and of a network of timm, which is not asked."""
    (tmp_path / "a.yaml").write_text(
        "losses: ['pml[tau=2,count_norm=l2],bl']\nbackbones: ['vgg19[head=pml,stride=2]', 'timm:nosuch[output=relu]']\n"
        "datasets: ['nwpu[scale=0.5]', 'synthetic[train=8,size=64x96,most=9]']\nhead: bl\nlocalizers: ['lm[rule=gl]']\n"
    )
    assert load_study(str(tmp_path / "a.yaml")).head == "bl"


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("1:40", "YAML takes '1:40' for 100, in sixties; write 100, or every number of a range: 1, 2, 3"),
        ("010", "YAML takes '010' for 8, in base eight; write 10 or 8"),
    ],
)
def test_numbers_that_yaml_takes_for_others_are_refused(tmp_path: Path, word: str, said: str) -> None:
    assert refusal(tmp_path, AXES + f"seeds: [3, {word}]") == [f"4: seeds.1: {said}"]
    assert refusal(tmp_path, AXES + f"overrides:\n  epochs: {word}") == [f"5: overrides.epochs: {said}"]


@pytest.mark.parametrize(("word", "seed"), [("0", 0), ("10", 10), ("0x1F", 31), ("1_000", 1000)])
def test_numbers_that_are_meant_as_yaml_reads_them(tmp_path: Path, word: str, seed: int) -> None:
    (tmp_path / "a.yaml").write_text(AXES + f"seeds: [{word}]")
    assert load_study(str(tmp_path / "a.yaml")).seeds == [seed]


def test_mistakes_of_a_long_file_are_not_all_listed(tmp_path: Path) -> None:
    found = refusal(tmp_path, AXES + "seeds: [" + "-1," * 500 + "]")
    assert len(found) == 51
    assert found[-1] == " and 450 more problems"


def test_a_long_word_is_cut(tmp_path: Path) -> None:
    """Found by fuzzing: an error of 20,000 characters."""
    (line,) = refusal(tmp_path, AXES + f"noises: ['{'missing:0.1+' * 80}']")
    assert len(line) < 450


def test_aliases_are_counted_as_what_they_stand_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 15))
    (line,) = refusal(tmp_path, laughs)
    assert "more than 100000 values with all aliases written out" in line
    assert "raise CROWD_MAX_STUDY_VALUES" in line
    (tmp_path / "small.yaml").write_text("losses: &a [pml]\nbackbones: [mcnn]\ndatasets: [synthetic]\nlocalizers: []\n")
    load_study(str(tmp_path / "small.yaml"))
    monkeypatch.setenv("CROWD_MAX_STUDY_VALUES", "5")
    with pytest.raises(StudyError, match="more than 5 values"):
        load_study(str(tmp_path / "small.yaml"))


def test_an_alias_is_read_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(AXES + "noises: &n [none]\nradii: *n\n")
    with pytest.raises(StudyError, match=r"a.yaml:5: radii.0: 'none' is no radius|a.yaml:4: radii.0"):
        load_study(str(tmp_path / "a.yaml"))


def test_a_large_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(AXES + "#" * 1_000_000)
    with pytest.raises(StudyError, match="a.yaml has more than 1000000 bytes.* raise CROWD_MAX_STUDY_BYTES"):
        load_study(str(path))
    monkeypatch.setenv("CROWD_MAX_STUDY_BYTES", "2000000")
    assert load_study(str(path)).losses == ["pml"]


def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (str(tmp_path), "a\0b", "x" * 5000, "/dev/zero", str(tmp_path / "absent.yaml"), "\ud800"):
        with pytest.raises(UnknownNameError, match="no study or file"):
            load_study(name)
    path = tmp_path / "a.yaml"
    path.write_text(AXES)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(StudyError, match="a.yaml cannot be read: Permission denied"):
        load_study(str(path))


def test_the_number_of_runs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    many = {
        "seeds": list(range(1000)),
        "noises": [f"missing:0.{n:03d}" for n in range(1, 1000)],
        "datasets": ["folder"],
    }
    many |= {"losses": ["pml"] * 1000, "backbones": ["mcnn"] * 1000}
    began = time.monotonic()
    with pytest.raises(PlanError, match=r"1000 losses x 1000 backbones x 1 datasets x 999 noises x 1000 seeds are"):
        plan(validated(AXIS | many, "test"))
    assert time.monotonic() - began < 60  # and not the age of the universe
    monkeypatch.setenv("CROWD_MAX_RUNS", "3")
    assert len(plan(validated(AXIS | {"seeds": [0, 1, 2]}, "test"))) == 3
    with pytest.raises(PlanError, match="4 seeds are 4 runs, more than the limit of 3; .*CROWD_MAX_RUNS"):
        plan(validated(AXIS | {"seeds": [0, 1, 2, 3]}, "test"))
    with pytest.raises(PlanError, match="1 seeds, and 9 trials are 10 runs"):
        plan(validated(AXIS | {"recipe": "tuned"}, "test"))
    monkeypatch.setenv("CROWD_MAX_RUNS", "many")
    with pytest.raises(PlanError, match="CROWD_MAX_RUNS must be a positive integer; found 'many'"):
        plan(validated(AXIS, "test"))


def test_very_many_commas_are_parted_in_one_pass() -> None:
    """As a pattern with a look ahead this took the square of the length: hours for this text."""
    assert len(split_choices(["l2[a=1,b=2]," * 20_000 + "," * 500_000])) == 20_000
