from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import losses
from benchmark.names import Choice, parse_choice, parse_scalar, split_choices
from losses.discovery import UnknownNameError, check_known, check_params, parameters, suggestion

values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.from_regex(r"[a-z]{3}_[a-z]{3}", fullmatch=True),
)  # fmt: skip
params = st.dictionaries(st.from_regex(r"[a-z]{1,8}", fullmatch=True), values, max_size=4)


@given(params)
def test_spelling_is_read_back(table: dict[str, object]) -> None:
    choice = Choice("pml", table)
    assert parse_choice(str(choice)) == choice


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert parse_choice(text).name
    except ValueError as error:
        assert str(error)


def test_values() -> None:
    assert [parse_scalar(t) for t in ("2", "2.5", "1e-3", "true", "None", "l2")] == [2, 2.5, 1e-3, True, None, "l2"]


def test_commas_inside_brackets_do_not_split() -> None:
    found = split_choices(["pml[count_norm=l2,tau=2],bl", "l2"])
    assert [str(choice) for choice in found] == ["pml[count_norm=l2,tau=2]", "bl", "l2"]


def test_a_number_that_no_parameter_takes() -> None:
    """Found by fuzzing: losses compare it with floats, which is an OverflowError."""
    with pytest.raises(ValueError, match="tau in 'pml.*is a number of 400 digits"):
        parse_choice(f"pml[tau={'9' * 400}]")
    assert parse_choice(f"pml[tau=-{10**308}]").params == {"tau": -(10**308)}


@pytest.mark.parametrize("text", ["pml[", "pml[tau]", "pml[tau=1,tau=2]", "", "a b", "pml[a=b][c=d]"])
def test_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected|twice"):
        parse_choice(text)


def test_suggestions() -> None:
    assert suggestion("dm_cout", ["pml", "dm_count"]) == " Did you mean dm_count?"
    with pytest.raises(UnknownNameError, match="unknown recipe 'offical'. Did you mean official"):
        check_known("recipe", "offical", ["shared", "official"])


def test_parameters_that_are_passed_on_are_known() -> None:
    class Base:
        def __init__(self, root: str, *, scale: float = 1.0, hidden: int = 0) -> None: ...

    class Child(Base):
        def __init__(self, root: str, *, fold: int = 0, **params: int) -> None: ...

    assert list(parameters(Child)) == ["root", "fold", "scale", "hidden"]
    check_params("it", Child, ["fold", "scale"], hidden=("root",))
    with pytest.raises(TypeError, match="it has no parameter 'scal'. Did you mean scale. Known: fold, scale, hidden"):
        check_params("it", Child, ["scal"], hidden=("root",))


@pytest.mark.parametrize(
    "text", ["1" * 9000 + "[", "pml[" + "a" * 9000 + "]", "pml[" + "a" * 9000 + "=1," + "a" * 9000 + "=2]"]
)
def test_an_error_does_not_repeat_what_is_absurdly_long(text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        parse_choice(text)
    assert len(str(caught.value)) < 400
    with pytest.raises((TypeError, ValueError)) as caught:
        losses.build("pml", **{"a" * 9000: 1})
    assert len(str(caught.value)) < 400
    with pytest.raises(ValueError, match="characters") as caught:
        losses.build("pml", count_norm="l" * 9000)
    assert len(str(caught.value)) < 400
