"""Which images `benchmark evaluate --images` draws, and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from reports.plots_localisation import Hits
from results.atomic import printable
from runners.data.reading import read_image
from runners.metrics.point_ids import image_file, image_files

__all__ = ["examples"]


def examples(rows: pd.DataFrame, folder: Path, radius_name: str) -> list[Hits]:
    """The images of the lowest, the median and the highest F1 among those with people and a file in the folder.

    Args:
        rows: One row of `localisation.image_points` an image, with pairs at the radius.
        folder: Of the image files; one is found by its name, with or without its ending.
        radius_name: `Radius.name`.

    Raises:
        DataError: If an image cannot be read.
        ValueError: If the folder holds none of the images.
    """
    files = image_files(folder)
    there = rows[(rows["true"] > 0) & rows["id"].map(lambda name: image_file(files, name) is not None)]
    if there.empty:
        shown = ", ".join(printable(str(name)) for name in rows.loc[rows["true"] > 0, "id"].head(3))
        raise ValueError(
            f"--images {folder} holds none of the images with people; looked for {shown or 'nothing'}; if the files "
            "number the images in the order of their names, say --ids lexicographic"
        )
    f1 = 2 * there[f"tp_{radius_name}"] / (there["true"] + there["predicted"])
    order = there.assign(f1=f1).sort_values(["f1", "id"])
    places = {"worst": 0, "median": (len(order) - 1) // 2, "best": len(order) - 1}
    first: dict[int, str] = {}
    for title, place in places.items():
        first.setdefault(place, title)
    return [_example(title, order.iloc[place], files, radius_name) for place, title in first.items()]


def _example(title: str, row: pd.Series, files: dict[str, Path], radius_name: str) -> Hits:
    path = image_file(files, row["id"])
    assert path is not None
    heads, points = (np.asarray(row[name], float).reshape(-1, 2) for name in ("heads", "points"))
    partner = np.asarray(row[f"match_{radius_name}"], int)
    false = np.ones(len(points), bool)
    false[partner[partner >= 0]] = False
    return Hits(
        title, str(row["id"]), read_image(path), heads[partner >= 0], heads[partner < 0], points[false], radius_name
    )
