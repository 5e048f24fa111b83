"""Tables of `benchmark explain`: what was measured in the fields and descents, and the paper's own table, corrected."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark.explain.animation import CLOSE, Descent
from benchmark.explain.fields import NEAR, Field
from losses.proximal_table import MISPRINTS, TABLE
from reports.plots_maps import BELOW
from reports.table import Cell, Column, Row, Table, number

__all__ = ["READING", "descent_table", "misprints", "paper_table", "seen", "sentences"]


def seen(found: Sequence[Field]) -> list[Table]:
    """A table a prediction: what each loss asks of it, in numbers."""
    tables = []
    for name in dict.fromkeys(field.guess.name for field in found):
        rows = [field for field in found if field.guess.name == name]
        first = rows[0]
        columns = (
            Column("value", kind="derived"), Column("up near", kind="derived"), Column("up far", kind="derived"),
            Column("p* sum", kind="derived"), Column("p* near", kind="derived"), Column("p* neg.", kind="derived"),
            Column("note", kind="text"),
        )  # fmt: skip
        caption = (
            f"Prediction ‘{name}’: {first.guess.words}; {first.guess.density.sum():.2f} people for {first.seen.heads} "
            f"heads, {_percent(first.seen.near)} of them within {NEAR:g} px of a head.",
        )
        body = tuple(Row(field.loss, _cells(field)) for field in rows)
        tables.append(Table(f"seen_{name}", f"What each loss asks for: {name}", "loss", columns, body, caption))
    return tables


READING = (
    "value: the loss, in units of its own. up near, far: cells where more people are wanted, within "
    f"{NEAR:g} px of a head and elsewhere. p*: the target; its sum, the share of its positive mass within {NEAR:g} px, "
    f"and its mass below zero (people; up to {BELOW:g} is left out here, in words and in colours). = a: it is the "
    "prediction itself, but for the rounding of its masses. kink: a little less and a little more of the prediction "
    "are pushed apart. Point losses read a proposal in each cell, its probability the cell's mass."
)
"""How the tables of `seen` are to be read."""


_KINK = (
    "which side is rounding: up near and up far hang on less than a thousandth of the prediction, or on rounding "
    "alone where the count is right"
)


def _cells(field: Field) -> tuple[Cell, ...]:
    one = field.seen
    notes = [*(["= a"] if one.same else []), *(["kink"] if one.kinked else [])]
    return (
        Cell(_value(field.value), field.value),
        Cell(_percent(one.up_near), _known(one.up_near)),
        Cell(_percent(one.up_far), _known(one.up_far)),
        Cell(number(one.target_count, 2, empty="–"), _known(one.target_count)),
        Cell(_percent(one.target_near), _known(one.target_near)),
        Cell(number(one.negative if one.below else 0.0, 2), one.negative),
        Cell(", ".join(notes), notes=(_KINK,) if one.kinked else ()),
    )


def sentences(found: Sequence[Field]) -> Table:
    """What one sees in every field, in sentences computed from it."""
    rows = tuple(Row(f"{field.loss}, {field.guess.name}", (Cell(" ".join(field.sentences)),)) for field in found)
    return Table("sentences", "What one sees", "loss, prediction", (Column("measured", kind="text"),), rows)


def descent_table(done: Sequence[Descent], heads: int, how: str) -> Table:
    """Where each descent ended."""
    columns = tuple(
        Column(name, kind="derived")
        for name in ("first value", "last value", "count", "a head: least", "a head: most", f"within {CLOSE:g} px")
    )
    rows = []
    for one in done:
        notes = () if one.proposals is None else (f"{one.proposals} proposals above 0.5, which is what P2PNet counts",)
        rows.append(
            Row(
                one.loss,
                (
                    Cell(_value(float(one.values[0])), float(one.values[0])),
                    Cell(_value(float(one.values[-1])), float(one.values[-1])),
                    Cell(f"{one.counts[-1]:.2f}", float(one.counts[-1]), notes=notes),
                    Cell(f"{one.own.min():.2f}", float(one.own.min())),
                    Cell(f"{one.own.max():.2f}", float(one.own.max())),
                    Cell(_percent(float(one.close[-1])), float(one.close[-1])),
                ),
            )
        )
    caption = (
        how,
        f"count: for {heads} heads. a head: what the cells nearest to a head hold, the least and the most of all. "
        f"within {CLOSE:g} px: share of the map that close to a head.",
    )
    return Table("descent", "A free density map after its descent", "loss", columns, tuple(rows), caption)


def paper_table() -> Table:
    """The paper's table of losses as cases of the proximal mapping loss, corrected."""
    names = ("tau", "D(p, a)", "p in", "target p*", "gradient in a")
    columns = tuple(Column(name, kind="text") for name in names)
    rows = tuple(
        Row(row.loss, tuple(map(Cell, (row.tau, row.divergence, row.feasible, row.target, row.gradient))))
        for row in TABLE
    )
    caption = (
        "L(a) = min over p of c'p + tau D(p, a), on the n cells nearest to one head: a the density, s = 1'a its sum, c "
        "the cost of moving a person from each cell to the head, p* the minimiser; eta makes it sum to 1 (but for BL, "
        "whose row has no feasible set: its target sums to 1 - |s - 1| mean q).",
        "w: weight of the count; q: posterior of BL's background; y: the head. Functions: losses.proximal. The first "
        "four rows are those of the paper's table (Lin, Wan, Chan, ICLR 2025), corrected; PML's are from its text.",
    )
    return Table("proximal", "Losses as cases of the proximal mapping loss", "loss", columns, rows, caption)


def misprints() -> Table:
    """What the slides print that cannot be meant."""
    columns = tuple(Column(name, kind="text") for name in ("meant", "why"))
    rows = tuple(Row(one.printed, (Cell(one.meant), Cell(one.why))) for one in MISPRINTS)
    caption = ("Printed: in the slides of the paper. Meant: what is implemented here.",)
    return Table("misprints", "Misprints and gaps", "printed", columns, rows, caption)


def _value(value: float) -> str:
    """Three digits; what is nearly nothing has one."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.0e}"


def _percent(share: float) -> str:
    return "–" if share != share else f"{100 * share:.0f} %"


def _known(value: float) -> float | None:
    return None if value != value else value
