"""Proposals: nothing but the network's own scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from runners import localizers
from runners.counter import POINT_SCORE
from runners.localizers import Field

place = st.floats(-20, 120, width=32)
proposals = st.lists(st.tuples(place, place, st.floats(0, 1)), max_size=30)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(rows=proposals, threshold=st.floats(0, 1))
def test_those_inside_the_image_of_at_least_the_threshold(
    rows: list[tuple[float, float, float]], threshold: float
) -> None:
    table = np.array(rows).reshape(-1, 3)
    field = Field(8, (80, 100), points=table[:, :2], scores=table[:, 2])
    found = localizers.build("proposals", threshold=threshold)(field)
    kept = [row for row in rows if 0 <= row[0] <= 100 and 0 <= row[1] <= 80 and row[2] >= threshold]
    expected = sorted(kept, key=lambda row: (-row[2], row[1], row[0]))
    assert [(x, y, s) for (x, y), s in zip(found.points.tolist(), found.scores.tolist(), strict=True)] == expected


def test_the_published_threshold_is_that_of_counting() -> None:
    """Two classes, as P2PNet: at least 0.5 is no less likely a person than not."""
    assert localizers.load("proposals").published == POINT_SCORE
    logits = torch.tensor([[1.0, 0.9], [0.0, 0.0], [-1.0, 2.0]], dtype=torch.float64)
    scores = logits.softmax(-1)[:, 1].numpy()
    field = Field(8, (80, 100), points=np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]), scores=scores)
    assert localizers.build("proposals")(field).points.tolist() == [[3.0, 3.0], [2.0, 2.0]]


@pytest.mark.parametrize("wrong", [1.5, -0.5])
def test_scores_are_probabilities(wrong: float) -> None:
    field = Field(8, (80, 100), points=np.ones((2, 2)), scores=np.array([0.5, wrong]))
    with pytest.raises(ValueError, match=rf"from 0 to 1.*{wrong}"):
        localizers.build("proposals").candidates(field)


def test_duplicates_stay() -> None:
    """No suppression: the network was trained to give each person one."""
    field = Field(8, (80, 100), points=np.full((3, 2), 9.0), scores=np.full(3, 0.7))
    assert len(localizers.build("proposals")(field).points) == 3
