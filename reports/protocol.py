"""What makes two measurements comparable, and the refusal to put those that are not into one column.

The *terms* of an evaluation are everything but the loss, its head and the seed: the data and their release, the split,
the network and where its features start, the recipe, the annotation noise, the selection rule, the versions of protocol
and metrics. Under the shared recipe every setting is a term: runs of 10 and of 100 epochs are no comparison. Under the
tuned recipe the learning rate is each loss's own. Under the official one the settings differ from loss to loss by
design; what was set by hand beside it is a term, as far as the official recipes are told (`with_terms`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from losses.discovery import check_known, suggestion

__all__ = [
    "TERMS",
    "MixedProtocolError",
    "check_comparable",
    "differences",
    "mismatches",
    "protocol_hash",
    "select",
    "with_terms",
]

TERMS: dict[str, str] = {
    "dataset": "dataset",
    "dataset_params": "dataset parameters",
    "dataset_hash": "dataset content",
    "split": "split",
    "selection": "selection rule",
    "eval_id": "evaluation",
    "protocol": "training protocol version",
    "noise": "training noise",
    "noise_seed": "noise seed",
    "backbone": "network",
    "stride": "stride",
    "output": "what ends the density",
    "weights_hash": "initial weights",
    "recipe": "recipe",
    "settings": "recipe settings",
}
"""The terms by column, in words. `settings` is made by `with_terms` from the recipe's fields."""

NETWORK = ("backbone", "stride", "output", "weights_hash")
"""The terms that describe the network: they differ by row in a table of whole methods."""

_COLUMN = ("dataset", "split", "selection", "backbone", "noise")
"""What names a column of a table: two rows that agree here would stand in one."""
_LISTED = 12
"""Values that a message lists."""
_BY_DESIGN = "set by each loss's recipe"


class MixedProtocolError(ValueError):
    """Measurements under different terms were to be put into one column; the message says which terms differ."""


Published = Callable[[str, str], Mapping[str, Any]]
"""The fields of a loss's official recipe on a dataset, without the prefix `recipe_`."""


def with_terms(frame: pd.DataFrame, without: Iterable[str] = (), official: Published | None = None) -> pd.DataFrame:
    """The frame with the column `settings`: the recipe's fields as JSON, or one text where they differ by design.

    Args:
        frame: Rows of `results.load()`.
        without: Columns `recipe_*` that are an axis of the table and so no term of it.
        official: Tells the official recipes: what was set by hand, and so departs from them, is a term.
    """
    fields = [str(name) for name in frame if str(name).startswith("recipe_") and name not in set(without)]

    def settings(row: Any) -> str:
        if row["recipe"] == "official":
            meant = official(row["loss"], row["dataset"]) if official is not None else {}
            typed = {name: _plain(row[f"recipe_{name}"]) for name in meant if f"recipe_{name}" in fields}
            typed = {name: value for name, value in typed.items() if value != _plain(meant[name])}
            return f"{_BY_DESIGN}; by hand {json.dumps(typed, sort_keys=True)}" if typed else _BY_DESIGN
        kept = [name for name in fields if not (row["recipe"] == "tuned" and name == "recipe_lr")]
        return json.dumps({name.removeprefix("recipe_"): _plain(row[name]) for name in kept}, sort_keys=True)

    return frame.assign(settings=[settings(row) for row in frame.to_dict("records")])


def protocol_hash(frame: pd.DataFrame, apart: Iterable[str] = ()) -> pd.Series:
    """Eight hexadecimal digits for each row's terms without those `apart`: equal digits, comparable numbers."""
    columns = [name for name in TERMS if name in frame and name not in set(apart)]
    rows = frame[columns].astype(str).to_numpy().tolist()
    digests = [hashlib.sha256("\x1f".join(row).encode()).hexdigest()[:8] for row in rows]
    return pd.Series(digests, index=frame.index, dtype=str)


def differences(frame: pd.DataFrame, apart: Iterable[str] = (), also: Iterable[str] = ()) -> list[str]:
    """For each term that is not the same in all rows, a sentence with its values; the shared recipe by its fields.

    Args:
        frame: Rows of `with_terms`.
        apart: Terms that may differ.
        also: Further columns that may not.
    """
    terms = {name: words for name, words in TERMS.items() if name not in set(apart)}
    terms |= {name: name for name in also}
    found = []
    for name, words in terms.items():
        if name in frame and _differs(frame[name]):
            found += _settings(frame) if name == "settings" else [_difference(frame[name], words, name)]
    return list(dict.fromkeys(found))


def check_comparable(frame: pd.DataFrame, place: str, apart: Iterable[str] = (), also: Iterable[str] = ()) -> None:
    """Refuses rows that differ in a term.

    Args:
        frame: Rows of `with_terms` that would stand in one place.
        place: A column or a cell, for the message.
        apart: Terms that may differ.
        also: Further columns that may not.

    Raises:
        MixedProtocolError: With every term that differs, its values, and how to choose one of them.
    """
    found = differences(frame, apart, also)
    if found:
        raise MixedProtocolError(
            f"{place} would mix measurements that are not comparable: {'; '.join(found)}. "
            "Choose with --where FIELD=VALUE, or make one report of each"
        )


def mismatches(frame: pd.DataFrame) -> list[str]:
    """One sentence for each column of a table that would mix terms: same data, split, selection, network and noise.

    And for each loss in it that was measured in several versions of its mathematics.

    Args:
        frame: Rows of `results.load()`; runs without an evaluation are left out.
    """
    if "split" not in frame:
        return []
    measured = with_terms(frame[frame["split"].notna()])
    found = [
        f"{' · '.join(map(str, key))}: {sentence}"
        for key, rows in measured.groupby(list(_COLUMN), sort=True)
        for sentence in differences(rows, _COLUMN)
    ]
    return found + [
        f"{loss}: {_difference(rows['loss_version'], 'loss_version', 'loss_version')}"
        for loss, rows in measured.groupby("loss", sort=True)
        if _differs(rows["loss_version"])
    ]


def select(frame: pd.DataFrame, conditions: Sequence[str]) -> pd.DataFrame:
    """The rows that fulfil every condition `FIELD=VALUE`, or `FIELD=VALUE,VALUE` for one of several.

    A field is a column of `results.load()`; `recipe_` may be left out (`epochs=20`). Values are compared as text, and
    as numbers where both are; `loss=pml` finds a loss whatever its parameters, `label=pml[tau=2]` this very one.
    A failed run has no selection, split or metric: conditions on these do not drop it.

    Raises:
        ValueError: If a condition has another form or names no column, with the nearest names; if no row of the whole
            frame has one of the values listed; or if none of those that the conditions before it left has any.
    """
    whole = frame
    for condition in conditions:
        field, equals, text = condition.partition("=")
        field = field.strip()
        if not equals or not field or not text.strip():
            raise ValueError(f"cannot read {condition!r}; expected FIELD=VALUE or FIELD=VALUE,VALUE")
        if field not in frame and f"recipe_{field}" in frame:
            field = f"recipe_{field}"
        check_known("field", field, map(str, frame.columns))
        wanted = [part.strip() for part in re.split(r",(?![^\[]*\])", text)]
        for word in wanted:
            if not whole.empty and not any(_same(value, word) for value in whole[field]):
                raise ValueError(_no_run(f"{field}={word}", field, word, whole))
        found = [any(_same(value, word) for word in wanted) for value in frame[field]]
        unmeasured = frame[field].isna() & (frame["state"] != "done") if "state" in frame else False
        kept = frame[pd.Series(found, index=frame.index, dtype=bool) | unmeasured]
        if not any(found) and not frame.empty:
            raise ValueError(_no_run(condition, field, text.strip(), frame))
        frame = kept
    return frame


def _no_run(condition: str, field: str, word: str, frame: pd.DataFrame) -> str:
    """That no row fulfils a condition, what was probably meant, and what there is."""
    there = sorted({str(value) for value in frame[field].dropna()})
    more = f" and {len(there) - _LISTED} more" if len(there) > _LISTED else ""
    listed = ", ".join(there[:_LISTED]) + more or "nothing"
    return f"no run has {condition}; {field} is one of: {listed}.{suggestion(word, there)}"


def _same(value: Any, word: str) -> bool:
    if str(value) == word:
        return True
    try:
        return float(value) == float(word)
    except (TypeError, ValueError):
        return False


def _differs(values: pd.Series) -> bool:
    return len(set(values.astype(str))) > 1


def _difference(values: pd.Series, words: str, name: str) -> str:
    """`recipe epochs is 10 (3 runs) or 100 (2 runs)`, with the column's name where it has another."""
    counts = Counter(values.map(lambda value: str(_plain(value))))
    runs = (f"{_short(value)} ({count} run{'' if count == 1 else 's'})" for value, count in list(counts.items())[:4])
    more = f" or {len(counts) - 4} more" if len(counts) > 4 else ""
    return f"{words}{'' if words == name else f' ({name})'} is {' or '.join(runs)}{more}"


def _settings(frame: pd.DataFrame) -> list[str]:
    """Which settings of the recipe differ."""
    found = [
        _difference(frame[name], str(name), str(name))
        for name in frame
        if str(name).startswith("recipe_") and _differs(frame[name].map(_plain))
    ]
    return found or [_difference(frame["settings"], TERMS["settings"], "settings")]


def _short(value: str) -> str:
    return value if len(value) <= 24 else f"{value[:20]}…"


def _plain(value: Any) -> Any:
    """A cell as JSON writes it: pandas turns integers beside gaps into floats, None into NaN."""
    if isinstance(value, Mapping | list):
        return value
    if value is None or pd.isna(value):
        return None
    number = value.item() if hasattr(value, "item") else value
    return int(number) if isinstance(number, float) and number.is_integer() else number
