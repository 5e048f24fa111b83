"""How fast synthetic crowds are made: `pytest tests/speed --benchmark-only`. The aim is 10 ms with 100 people."""

from __future__ import annotations

import itertools

import pytest

from runners.data.datasets.synthetic import Synthetic


@pytest.mark.parametrize("people", [10, 100, 300])
def test_image_and_annotation_of_256_pixels(benchmark, people):
    crowds = Synthetic(train=50, fewest=people, most=people)
    entries = crowds.entries("train")
    for entry in entries:  # sprites are drawn when first needed
        crowds.read_image(entry)
    turn = itertools.cycle(entries)

    def make():
        entry = next(turn)
        crowds.read_annotation(entry)
        return crowds.read_image(entry)

    benchmark(make)


def test_annotation_alone(benchmark):
    crowds = Synthetic(train=50, fewest=100, most=100)
    turn = itertools.cycle(crowds.entries("train"))
    benchmark(lambda: crowds.read_annotation(next(turn)))
