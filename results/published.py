"""The published numbers of the PML paper's tables, cell by cell, each with what other sources say.

`published.csv` beside this file has one row a cell of Tables 2 to 4 of the paper's slides (ICLR 2025), as printed:

- `table`, `method`, `network`, `dataset`, `split`, `metric`: the cell; `rmse` is what the slides call MSE.
- `slides`: the printed value; empty where the slides print a dash.
- `status`, `other`, `evidence`: `error`, the slides are wrong and `other` is what the named sources say; `conflict`,
  sources disagree and none could be settled on; `checked`, confirmed; `note`, a remark.
- `rank`: `best` or `second` of its column, as marked in (or computed from) the slides.
- `our_loss`, `our_backbone`, `our_dataset`, `our_localizer`: what this suite calls it; empty where it cannot train it.

A published number is one run, or the best of several, selected as its authors chose, in many cases on the test set.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

import pandas as pd

__all__ = ["TABLES", "published"]

TABLES = ("table2", "table3", "table4")
_TEXT = ("table", "method", "network", "dataset", "split", "metric", "status", "evidence", "rank")
_OURS = ("our_loss", "our_backbone", "our_dataset", "our_localizer")


def published(table: str | None = None) -> pd.DataFrame:
    """The published cells, with a column `value`: the corrected value where the slides are wrong, else the slides'.

    Args:
        table: `table2`, `table3` or `table4`; None for all.

    Returns:
        The columns of the file in its order; `slides`, `other` and `value` are numbers, NaN where nothing is printed.

    Raises:
        ValueError: If there is no such table.
    """
    if table is not None and table not in TABLES:
        raise ValueError(f"no published table {table!r}; known: {', '.join(TABLES)}")
    found = _read()
    return (found if table is None else found[found["table"] == table]).reset_index(drop=True)


@cache
def _read() -> pd.DataFrame:
    text = dict.fromkeys((*_TEXT, *_OURS), str)
    with (resources.files("results") / "published.csv").open(encoding="utf-8") as file:
        frame = pd.read_csv(file, dtype=text, keep_default_na=False, na_values={"slides": [""], "other": [""]})
    return frame.assign(value=frame["other"].where(frame["status"] == "error", frame["slides"]))
