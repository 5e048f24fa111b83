"""Points in files of others: every layout, every complaint, and which image is which."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runners.data.reading import DataError
from runners.metrics.point_files import Predicted, read_predictions, read_truth
from runners.metrics.point_ids import by_order, image_file, image_files, numbered, pair, read_names
from runners.metrics.radii import Heads


def written(folder: Path, text: str | bytes, name: str = "points") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def points_of(found: dict[str, Predicted] | dict[str, Heads]) -> dict[str, list]:
    return {name: one.points.tolist() for name, one in found.items()}


EXPECTED = {"b": [[1.0, 2.0], [3.5, 4.0]], "empty": [], "a": [[7.0, 8.0]]}

LAYOUTS = {
    "text": "b 2 1 2 3.5 4\nempty 0\n\na 1 7 8\n",
    "text with tabs and CRLF": "b\t2\t1 2  3.5 4\r\nempty 0\r\na 1 7 8",
    "csv": "image,x,y\nb,1,2\nempty,,\nb,3.5,4\na,7,8\n",
    "csv in another order": "\ufeffY,note,X,ID\n2,?,1,b\n4,,3.5,b\n,,,empty\n8,,7,a\n",
    "json": '{"b": [[1, 2], [3.5, 4]], "empty": [], "a": [[7, 8]]}',
    "json of objects": '{"b": {"points": [[1, 2], [3.5, 4]]}, "empty": {"points": []}, "a": {"points": [[7, 8]]}}',
    "json of predict": json.dumps(
        {"run_id": "1", "images": [{"id": k, "path": "x", "count": len(v), "points": v} for k, v in EXPECTED.items()]}
    ),
    "json list": json.dumps([{"name": k, "points": v} for k, v in EXPECTED.items()]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_says_the_same(tmp_path: Path, layout: str) -> None:
    path = written(tmp_path, LAYOUTS[layout])
    assert points_of(read_predictions(path)) == points_of(read_truth(path)) == EXPECTED
    assert all(one.scores is None for one in read_predictions(path).values())


SCORED = {
    "text": "b 2 1 2 .9 3 4 0.25\nempty 0\n",
    "csv": "image,x,y,score\nb,1,2,.9\nb,3,4,0.25\nempty,,,\n",
    "json": '{"b": {"points": [[1, 2], [3, 4]], "scores": [0.9, 0.25]}, "empty": {"points": [], "scores": []}}',
    "json of three": '{"b": [[1, 2, 0.9], [3, 4, 0.25]], "empty": []}',
}


@pytest.mark.parametrize("layout", SCORED)
def test_scores(tmp_path: Path, layout: str) -> None:
    found = read_predictions(written(tmp_path, SCORED[layout]))
    assert found["b"].scores.tolist() == [0.9, 0.25]
    assert found["b"].points.tolist() == [[1, 2], [3, 4]]
    assert found["empty"].scores.tolist() == []


ANNOTATED = {
    "text": "b 2 1 2 4 6 1 3 4 5 7 3\nempty 0\n",
    "csv": "image,x,y,sigma_s,sigma_l,level\nb,1,2,4,6,1\nb,3,4,5,7,3\nempty,,,,,\n",
    "json": '{"b": {"points": [[1, 2], [3, 4]], "sigmas": [[4, 6], [5, 7]], "levels": [1, 3]}, "empty": []}',
}


@pytest.mark.parametrize("layout", ANNOTATED)
def test_sigmas_and_levels(tmp_path: Path, layout: str) -> None:
    found = read_truth(written(tmp_path, ANNOTATED[layout]))
    assert found["b"].sigmas.tolist() == [[4, 6], [5, 7]]
    assert found["b"].levels.tolist() == [1, 3]
    empty = found["empty"]
    assert (empty.points.shape, empty.sigmas.shape, empty.levels.shape) == ((0, 2), (0, 2), (0,))


def test_boxes_may_be_unknown(tmp_path: Path) -> None:
    path = written(tmp_path, "image,x,y,x1,y1,x2,y2\na,5,5,1,2,9,10\na,7,7,,,,\n")
    boxes = read_truth(path)["a"].boxes
    assert boxes[0].tolist() == [1, 2, 9, 10]
    assert np.isnan(boxes[1]).all()
    path = written(tmp_path, '{"a": {"points": [[5, 5], [7, 7]], "boxes": [[1, 2, 9, 10], [null, null, null, null]]}}')
    assert np.isnan(read_truth(path)["a"].boxes[1]).all()


BAD = {
    "nothing": ("", "empty; expected predictions as text"),
    "blank": (" \n\n", "empty; expected"),
    "id alone": ("3110\n", "line 1 is '3110' alone; expected an id, the number of points n"),
    "a count that is none": ("a 2.5 1 2\n", "line 1 has '2.5' for the number of points"),
    "a negative count": ("a -1\n", "line 1 has '-1' for the number"),
    "too few numbers": ("a 1 1 2\nb 2 1 2 3\n", "line 2 states 2 points and has 3 numbers; expected 4 (x y each) or 6"),
    "annotation for prediction": ("a 1 1 2 3 4 5\n", "2 (x y each) or 3 (x y score each); is it an annotation?"),
    "a word": ("a 1 1 two\n", "line 1 holds something that is no number"),
    "not finite": ("a 1 1 inf\n", "line 1: y of point 1 is inf"),
    "nan": ("a 2 1 1 nan 2\n", "line 1: x of point 2 is nan"),
    "too far": ("a 1 1 1e9\n", "expected at most 10000000 pixels"),
    "mixed layouts": ("a 1 1 2\nb 1 1 2 .5\n", "line 2 has 3 numbers a point (x y score), line 1 has 2 (x y)"),
    "twice": ("a 1 1 2\nb 0\na 0\n", "image 'a' comes twice, line 1 and line 3"),
    "no header": ("a,1,2\n", "expected a header: image,x,y"),
    "fields missing": ("image,x,y\na,1\n", "line 2 has 2 fields; the header has 3"),
    "an empty number": ("image,x,y\na,1,\n", "line 2: y is ''; expected a number"),
    "a word in csv": ("image,x,y\na,1,2\na,1,b\n", "line 3: y is 'b'"),
    "no image": ("image,x,y\n,1,2\n", "line 2 names no image"),
    "column twice": ("image,x,y,x\na,1,2,3\n", "the column x twice"),
    "header alone": ("image,x,y\n", "holds no image"),
    "broken json": ('{"a": [[1, 2]', "not valid JSON"),
    "json with nan": ('{"a": [[1, NaN]]}', "NaN is not a number"),
    "json key twice": ('{"a": [], "a": [[1, 2]]}', "the key 'a' comes twice"),
    "json of another shape": ('{"a": [1, 2]}', "'[1, 2]'; expected a list of [x, y] or [x, y, score]"),
    "json of words": ('{"a": [["1", "2"]]}', 'expected a list of [x, y]'),
    "json of truths": ('{"a": [[true, false]]}', 'expected a list of [x, y]'),
    "json null": ('{"a": [[1, null]]}', "y of point 1 is nan"),
    "json huge": ('{"a": [[1, 1' + "0" * 400 + "]]}", "too large"),
    "json without points": ('{"images": [{"id": "a", "count": 3.5}]}', 'has no "points"; expected [[x, y], ...]; name'),
    "json without id": ('[{"points": []}]', 'image 1 has no "id"'),
    "json scores of another length": ('{"a": {"points": [[1, 2]], "scores": []}}', "has 1 points and 0 scores"),
    "json empty": ("{}", "holds no image"),
    "deep json": ("[" * 100_000, "not valid JSON"),
    "half scored": ('{"a": [[1, 2, 0.5]], "b": [[1, 2]]}', "image 'b' has points without scores"),
    "not text": (b"\xff\xfe\x00", "not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_complaints_name_the_file_and_the_place(tmp_path: Path, case: str) -> None:
    text, message = BAD[case]
    path = written(tmp_path, text)
    with pytest.raises(DataError) as error:
        read_predictions(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


BAD_TRUTH = {
    "a prediction": ("a 1 1 2 0.5\n", "is it a prediction?"),
    "a level": ("a 1 1 2 3 4 9\n", "line 1 has a box level that is not one of 0 to 5"),
    "half a level": ("a 1 1 2 3 4 1.5\n", "box level"),
    "a negative sigma": ("a 1 1 2 -3 4 1\n", "negative sigma, -3"),
    "half of sigma": ("image,x,y,sigma_s\na,1,2,3\n", "has sigma_s; it needs all of sigma_s, sigma_l, or none"),
}


@pytest.mark.parametrize("case", BAD_TRUTH)
def test_complaints_about_annotations(tmp_path: Path, case: str) -> None:
    text, message = BAD_TRUTH[case]
    with pytest.raises(DataError) as error:
        read_truth(written(tmp_path, text))
    assert message in str(error.value)


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_truth(tmp_path / "absent")
    monkeypatch.setenv("CROWD_MAX_POINTS", "2")
    with pytest.raises(DataError, match="3 points are absurd"):
        read_truth(written(tmp_path, "a 3 1 1 1 1 1 1\n"))
    monkeypatch.setenv("CROWD_MAX_ANNOTATION_BYTES", "4")
    with pytest.raises(DataError, match="larger than 4 bytes"):
        read_truth(written(tmp_path, "a 3 1 1 1 1 1 1\n"))


pieces = st.sampled_from(
    ["a", "b", " ", "\n", ",", "0", "1", "2", "7.5", "-3", "nan", "1e999", "image,x,y\n", "image,x,y,score\n", '"', "{",
     "}", "[", "]", ":", "[[1,2]]", '"a"', '{"a":', '"points":', '"images":', "null", "true", "\t", "\r", "\x00", "é"]
)  # fmt: skip
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["a", "points", "scores", "boxes", "levels", "sigmas", "images", "id"]), inner),
    ),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.lists(pieces, max_size=25).map(lambda parts: "".join(parts).encode()),
        st.binary(max_size=60),
        values.map(lambda value: json.dumps(value).encode()),
        st.lists(st.lists(st.integers(-2, 4).map(str), max_size=9).map(" ".join), max_size=4).map(
            lambda lines: "\n".join(lines).encode()
        ),
    )
)
def test_whatever_is_in_a_file_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    for read in (read_truth, read_predictions):
        try:
            found = read(path)
        except DataError as error:
            assert str(path) in str(error)
            assert len(str(error)) < 1000
            continue
        for one in found.values():
            assert one.points.shape[1] == 2
            assert np.isfinite(one.points).all()


# ---------------------------------------------------------------------------------------------------------------------
# Which image is which


def truth_of(*names: str) -> dict[str, Heads]:
    return {name: Heads(np.full((1, 2), float(place))) for place, name in enumerate(names)}


def predicted(*names: str) -> dict[str, Predicted]:
    return {name: Predicted(np.full((1, 2), float(place))) for place, name in enumerate(names)}


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (("a", "b"), ("b", "a")),
        (("IMG_1.jpg", "IMG_2.JPG"), ("x/IMG_2", "x/IMG_1")),
        (("0003", "0010"), ("10", "3")),
        (("0003.jpg", "0010.png"), ("10", "3")),
        (("data\\a.png",), ("a",)),
    ],
)
def test_names_are_found_in_other_spellings(theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
    found = pair(truth_of(*theirs), predicted(*ours))
    assert [one.id for one in found] == list(theirs)
    assert [ours[int(one.predicted.points[0, 0])] for one in found] == sorted(ours, key=lambda n: (len(n), n))


def test_exact_names_come_before_other_spellings() -> None:
    """`1` and `01` are two images here, and stay two."""
    found = pair(truth_of("1", "01"), predicted("01", "1"))
    assert [one.predicted.points[0, 0] for one in found] == [1.0, 0.0]


def test_numbers_within_names_are_not_guessed() -> None:
    with pytest.raises(DataError, match="--ids lexicographic") as error:
        pair(truth_of("IMG_1", "IMG_2", "IMG_10"), predicted("1", "2", "3"))
    assert "3 of 3 annotated images have no prediction: IMG_1, IMG_2, IMG_10" in str(error.value)
    assert "The predictions number the images" in str(error.value)


def test_what_is_missing_is_listed_and_may_be_allowed() -> None:
    truth, some = truth_of(*"abcdefgh"), predicted("a", "b")
    with pytest.raises(DataError, match="6 of 8 annotated images have no prediction: c, d, e, f, g, ...") as error:
        pair(truth, some)
    assert "--missing empty" in str(error.value)
    assert [len(one.predicted.points) for one in pair(truth, some, missing="empty")] == [1, 1] + [0] * 6
    assert [one.id for one in pair(truth, some, missing="skip")] == ["a", "b"]
    strange = predicted("a", "z")
    with pytest.raises(DataError, match="1 of 2 predicted images have no annotation: z"):
        pair(truth, strange, missing="empty")
    assert [one.id for one in pair(truth, strange, missing="skip")] == ["a"]
    with pytest.raises(DataError, match="No image is in both"):
        pair(truth, predicted("y", "z"), missing="skip")


def test_scores_of_missing_images_do_not_vanish() -> None:
    found = pair(truth_of("a", "b"), {"a": Predicted(np.ones((1, 2)), np.ones(1))}, missing="empty")
    assert found[1].predicted.scores.tolist() == []


def test_numbers_follow_the_order_of_names() -> None:
    names = ["IMG_2.jpg", "IMG_1.jpg", "IMG_10.jpg", "IMG_100.jpg"]
    found = numbered({"2": "b", "1": "a", "4": "d", "3": "c"}, names, "x")
    assert found == {"IMG_10.jpg": "b", "IMG_1.jpg": "a", "IMG_2.jpg": "d", "IMG_100.jpg": "c"}
    assert numbered({"0": "a", "1": "b"}, ["p", "q"], "x") == {"p": "a", "q": "b"}
    with pytest.raises(DataError, match="numbers 1 to n; found IMG_1"):
        numbered({"IMG_1": 1}, ["a"], "x")
    with pytest.raises(DataError, match="2 images are numbered, and 1 names are given"):
        numbered({"1": 1, "2": 2}, ["a"], "x")


def test_which_side_is_numbered() -> None:
    """Predictions always; the annotation where its numbers are no names."""
    found = predicted("1", "2")
    named, renamed = by_order(truth_of("IMG_2", "IMG_10"), found)
    assert list(named) == ["IMG_2", "IMG_10"]
    assert list(renamed) == ["IMG_10", "IMG_2"]
    both = by_order(truth_of("2", "1"), found, ["x.jpg", "a.jpg"])
    assert [list(side) for side in both] == [["x.jpg", "a.jpg"], ["a.jpg", "x.jpg"]]
    many = list(map(str, range(1, 12)))
    natural = by_order(truth_of(*many), predicted(*many), [f"{name}.jpg" for name in many])
    assert list(natural[0])[:3] == ["1", "2", "3"]
    assert list(natural[1])[:3] == ["1.jpg", "10.jpg", "11.jpg"]
    with pytest.raises(DataError, match="both files number the images"):
        by_order(truth_of("1", "2"), found)


names = st.dictionaries(
    st.sampled_from(["1", "01", "2", "a", "a.jpg", "x/a", "b.PNG", "", "/", ".jpg", "0"]), st.none()
)


@settings(max_examples=300, deadline=None)
@given(names, names, st.sampled_from(["error", "empty", "skip"]))
def test_pairs_hold_every_image_at_most_once(theirs: dict, ours: dict, missing: str) -> None:
    truth, found = truth_of(*theirs), predicted(*ours)
    try:
        pairs = pair(truth, found, missing=missing)
    except DataError:
        assert set(theirs) != set(ours)
        return
    assert len({one.id for one in pairs}) == len(pairs)
    if missing != "skip":
        assert [one.id for one in pairs] == list(truth)
    used = [float(one.predicted.points[0, 0]) for one in pairs if len(one.predicted.points)]
    assert len(set(used)) == len(used)
    if missing == "error":
        assert len(used) == len(found)


def test_names_of_a_folder_or_a_list(tmp_path: Path) -> None:
    for name in ("b.jpg", "a.PNG", "notes.txt"):
        (tmp_path / name).write_text("x")
    assert read_names(tmp_path) == ["a.PNG", "b.jpg"]
    assert read_names(written(tmp_path, "3110 1 2\n\n3111 2 2\n", "list")) == ["3110", "3111"]
    files = image_files(tmp_path)
    assert image_file(files, "b") == image_file(files, "x/b.jpg") == image_file(files, "b.png") == tmp_path / "b.jpg"
    assert image_file(files, "c") is None
    for text, message in (("\n", "holds no names"), ("a\na\n", "'a' comes twice")):
        with pytest.raises(DataError, match=message):
            read_names(written(tmp_path, text, "list"))


@pytest.mark.shared
def test_the_official_files_are_read_whole(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "localisation"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}: real annotations and predictions")
    found = pair(
        read_truth(folder / "nwpu_val" / "val_gt_loc.txt"),
        read_predictions(folder / "nwpu_val" / "Raz_loc_val_0.5.txt"),
    )
    assert (len(found), found[0].id, found[-1].id) == (500, "3110", "3609")
    assert sum(len(one.heads.points) for one in found) == 196_238
    assert sum(len(one.predicted.points) for one in found) == 161_159
    assert {one.id for one in found} == {str(n) for n in [*range(3110, 3610), 3098] if n != 3169}
