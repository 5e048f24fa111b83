"""What stands under a table: the terms of the comparison, how it is to be read, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from reports.measured import Compared, Comparisons, Measured
from reports.protocol import protocol_hash

__all__ = ["SPAN", "failures_caption", "nothing_measured", "reading", "recipe_words", "setting_title", "terms_caption"]

SPAN = "the 95 % interval over seeds and images"
"""What intervals are, for captions."""
_SELECTED = {
    "val": "Weights of the epoch with the least MAE on val",
    "last": "Weights of the last epoch",
    "test_oracle": "Weights of the best epoch ON THE TEST SET (test_oracle: not comparable with honest selection)",
}


def terms_caption(rows: pd.DataFrame, apart: Iterable[str] = ()) -> tuple[str, ...]:
    """What makes it a comparison: data, network, recipe, selection and seeds of the rows."""
    if rows.empty:
        return ()

    def of(name: str) -> str:
        return ", ".join(dict.fromkeys(str(value) for value in rows[name])) if name in rows else ""

    seeds = rows.groupby("label")["seed"].nunique()
    count = str(seeds.min()) if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
    heads = rows.groupby("head")["label"].unique()
    heads_text = "; ".join(f"{head}: {', '.join(labels)}" for head, labels in heads.items())
    releases = ", ".join(dict.fromkeys(f"{d} {h[:8]}" for d, h in zip(rows["data"], rows["dataset_hash"], strict=True)))
    recipes = "; ".join(dict.fromkeys(recipe_words(row) for _, row in rows.iterrows()))
    stated = [
        f"Data: {releases}, split {of('split')}."
        + ("" if of("noise") == "none" else f" Training noise: {of('noise')}."),
        f"Network: {of('backbone')} at stride {of('stride')}, start {of('weights')}; heads {heads_text}.",
        f"Recipe: {recipes}. {'; '.join(_SELECTED[s] for s in rows['selection'].unique())}.",
        f"{count} seed{'' if count == '1' else 's'}; protocol {', '.join(protocol_hash(rows, apart).unique())}.",
    ]
    if "nwpu" in set(rows["dataset"]):
        stated.append("NWPU-Crowd is measured on its official val: its test labels are hidden.")
    return tuple(stated)


def failures_caption(measured: Measured) -> tuple[str, ...]:
    """How many runs failed or are unfinished, of how many; and how many trials of a search were left out."""
    states = measured.runs.drop_duplicates("run_id")["state"].value_counts()
    missing = {name: int(number) for name, number in states.items() if name != "done"}
    done = set(measured.runs.loc[measured.runs["state"] == "done", "run_id"])
    unread = len(done - set(measured.evaluated["run_id"]))
    missing |= {"done without a readable measurement": unread} if unread else {}
    words = ", ".join(f"{number} {name}" for name, number in missing.items())
    trials = (f"{measured.trials} trials of a search are left out.",) if measured.trials else ()
    return ((f"Of {int(states.sum())} runs {words}.",) if missing else ()) + trials


def nothing_measured(runs: pd.DataFrame, place: str = "", unreadable: int = 0) -> str:
    """Why there is nothing to report, and what to do.

    Args:
        runs: `Measured.runs`, none of them with a measurement.
        place: Where they are.
        unreadable: Files that could not be read.
    """
    where = f" in {place}" if place else ""
    if runs.empty and unreadable:
        return f"no readable runs{where}: nothing to report; mend or remove what was left out ({unreadable})"
    if runs.empty:
        return f"no runs{where}: nothing to report; `benchmark run` makes some"
    states = runs.drop_duplicates("run_id")["state"].value_counts()
    told = ", ".join(f"{count} {state}" for state, count in states.items())
    return (
        f"no run{where} has a measurement yet ({told}): nothing to report; `benchmark status` has the reasons, and the "
        "same `benchmark run` again goes on where it was"
    )


def reading(samples: Mapping[str, Compared], comparisons: Comparisons) -> tuple[str, ...]:
    """How the numbers are to be read."""
    counts = [len(sample.seeds) for sample in samples.values()]
    if max(counts, default=0) < 2:
        return ("1 seed: no interval over seeds, and nothing is separated.",)
    few = " Fewer than five seeds: wide small-sample intervals." if min(counts) < 5 else ""
    pairs = f"{comparisons.pairs} pair{'' if comparisons.pairs == 1 else 's'}"
    tested = f"Separated: paired test on common seeds and images, 5 % after Holm's correction for {pairs} a metric."
    said = "± standard deviation over seeds; intervals over seeds and images."
    if "nae" in set(comparisons.table.get("metric", ())):
        said += " NAE over the images with people; the bias is not tested."
    return (said + few, *([tested] if comparisons.pairs else []))


def recipe_words(row: Any) -> str:
    """The recipe in a few words, from a row of `results.load()`."""
    of = f" of {row['loss']}" if row["recipe"] == "official" else ""
    return (
        f"{row['recipe']}{of}, {row['recipe_epochs']:.0f} epochs of {row['recipe_crop']:.0f} px crops, "
        f"batch {row['recipe_batch_size']:.0f}, {row['recipe_optimizer']}"
        + ("" if row["recipe"] == "tuned" else f" {row['recipe_lr']:g}")
        + (", network in bf16" if row.get("recipe_precision") == "bf16" else "")
    )


def setting_title(row: Mapping[str, Any]) -> str:
    """Data, noise, network and recipe in one line, and what `told` adds: terms that tell it from its neighbours."""
    words = "" if row["noise"] == "none" else f", training noise {row['noise']}"
    count = int(row["recipe_epochs"])
    epochs = "" if row["recipe"] == "official" else f", {count} epoch{'' if count == 1 else 's'}"
    chosen = "" if row["selection"] == "val" else f", selected by {row['selection']}"
    told = f", {row['told']}" if row.get("told") else ""
    return f"{row['data']} {row['split']}{words} · {row['backbone']} · {row['recipe']} recipe{epochs}{chosen}{told}"
