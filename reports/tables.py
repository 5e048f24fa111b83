"""Tables from the store's data frame: pure functions, no files, no display."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

__all__ = ["CONSTANT", "GROUP", "comparison", "loss_name", "not_better_than_constant", "terms_of"]

GROUP = [
    "dataset",
    "dataset_params",
    "dataset_hash",
    "noise",
    "noise_seed",
    "backbone",
    "stride",
    "output",
    "weights_hash",
]
GROUP += ["recipe", "terms", "selection", "split", "eval_id", "protocol"]
"""What one table's rows share: everything but the loss, its head and the seed. See `terms_of`."""
CONSTANT = "(constant count)"
"""The row of the prediction that any network must beat: the mean count of the training labels."""

_METRICS = ("mae", "rmse", "nae", "bias", "game1", "game2", "game3")


def comparison(frame: pd.DataFrame, defaults: Mapping[str, Mapping[str, Any]] | None = None) -> pd.DataFrame:
    """One row for each loss under the same terms, mean and standard deviation over seeds, the constant count last.

    Args:
        frame: `results.load()`, or a part of it. Runs without an evaluation are left out.
        defaults: Each loss's default parameters; a loss's name then carries those that differ.

    Returns:
        The columns of `GROUP`, `loss`, `head`, `seeds`, for each metric `<m>` its mean and `<m>_sd` (NaN for one
        seed), `loss_ms`, sorted by MAE within each group. Empty if nothing was measured.
    """
    if frame.empty or "mae" not in frame:
        return pd.DataFrame()
    measured = frame[frame["mae"].notna()].copy()
    measured["loss"] = [
        loss_name(loss, params, (defaults or {}).get(loss))
        for loss, params in zip(measured["loss"], measured["loss_params"], strict=True)
    ]
    measured["settings"] = measured.filter(like="recipe_").apply(lambda row: json.dumps(row.to_dict()), axis=1)
    measured["terms"] = [
        terms_of(recipe, settings) for recipe, settings in zip(measured["recipe"], measured["settings"], strict=True)
    ]
    tables = []
    for key, group in measured.groupby(GROUP, sort=True, dropna=False):
        rows = [_row(runs) for _, runs in group.groupby(["loss", "head", "settings"])]
        rows.sort(key=lambda row: row["mae"])
        constant = {name: group[f"constant_{name}"].mean() for name in _METRICS if f"constant_{name}" in group}
        rows.append({"loss": CONSTANT, "head": "", "seeds": 0, **constant})
        terms = dict(zip(GROUP, key, strict=True))
        tables.append(pd.DataFrame([terms | row for row in rows]))
    return pd.concat(tables, ignore_index=True)


def not_better_than_constant(table: pd.DataFrame) -> list[str]:
    """Labels of the losses of `comparison` whose mean MAE is no lower than the constant count's."""
    found = []
    if not table.empty:
        for _, group in table.groupby(GROUP, sort=False, dropna=False):
            floor = group.loc[group["loss"] == CONSTANT, "mae"].iloc[0]
            worse = group[(group["loss"] != CONSTANT) & ~(group["mae"] < floor)]
            found += [f"{row.loss} ({row.backbone}, {row.dataset}, noise {row.noise})" for row in worse.itertuples()]
    return found


def loss_name(loss: str, params: str, defaults: Mapping[str, Any] | None) -> str:
    """`pml[tau=2]`: the loss with the parameters (JSON text) that differ from its defaults."""
    if defaults is None:
        return loss
    changed = {k: v for k, v in json.loads(params).items() if k not in defaults or defaults[k] != v}
    return f"{loss}[{','.join(f'{k}={v}' for k, v in sorted(changed.items()))}]" if changed else loss


def terms_of(recipe: str, settings: str) -> str:
    """What the runs of one table must have in common beside the recipe's name.

    Under the shared recipe every setting: runs of 10 and of 100 epochs are no comparison. Under the official and the
    tuned recipe the settings differ from loss to loss by design.
    """
    return settings if recipe == "shared" else recipe


def _row(runs: pd.DataFrame) -> dict[str, Any]:
    row: dict[str, Any] = {"loss": runs["loss"].iloc[0], "head": runs["head"].iloc[0], "seeds": runs["seed"].nunique()}
    for name in _METRICS:
        row[name], row[f"{name}_sd"] = runs[name].mean(), runs[name].std(ddof=1)
    return row | {name: runs[name].mean() for name in ("loss_ms", "step_ms", "train_seconds") if name in runs}
