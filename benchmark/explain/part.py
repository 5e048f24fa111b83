"""Figures and tables of what losses ask for, as a part of a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmark.explain.fields import STILL, Field, fields, nearest
from benchmark.explain.scenes import SCENES, Guess, Scene, guess, synthetic
from benchmark.explain.tables import READING, misprints, paper_table, seen, sentences
from benchmark.names import Choice
from reports.page import Part, noted
from reports.plots_fields import MOST_GROUPS, Asked, count_norms
from reports.plots_fields import fields as draw_fields
from reports.plots_maps import Shown
from reports.style import Plot

__all__ = ["DEFAULT_PREDICTIONS", "explain_part", "field_part", "figures", "shown", "theory_part"]

DEFAULT_PREDICTIONS = ("under", "right", "over")
_NORMS = ("pml", "pml[count_norm=l2]")


def explain_part(choices: Iterable[Choice]) -> Part:
    """What losses ask for on three heads, for the page of a store. About half a second a loss.

    Args:
        choices: Losses with their parameters. What cannot be built or drawn becomes a warning.
    """
    scene = synthetic("three-heads")
    guesses = [guess(scene, name) for name in DEFAULT_PREDICTIONS]
    found: list[Field] = []
    warnings: list[str] = []
    for choice in choices:
        with noted(warnings, f"fields of {choice}"):  # a store may hold losses of another version
            found += fields([choice], scene, guesses)
    part = field_part(scene, guesses, found) if found else Part("explained", "What each loss asks for")
    lead = [*part.lead, "`benchmark explain` draws other scenes, predictions and images."]
    details = [*part.details, (paper_table().title, paper_table())]
    return part._replace(lead=lead, warnings=warnings, details=details)


def field_part(scene: Scene, guesses: Sequence[Guess], found: Sequence[Field]) -> Part:
    """Figures of the fields, the numbers behind them and what one sees."""
    made = "; ".join(f"‘{one.name}’: {one.words}" for one in guesses)
    lead = [
        "A network gets from a loss only its gradient: where it wants more people and where fewer. Seen as a proximal "
        "step (Lin, Wan and Chan, ICLR 2025), it belongs to a target density p*: for PML it is tau (a - p*) on each "
        "head's cells. For losses whose target is fixed (L2, NoiseCC, ChfL) or a plan's (GL, DM-Count), p* is what "
        "they would have, and one gradient step need not lead straight there. Both are drawn for the same predictions.",
        f"Scene: {scene.title}; {len(scene.points)} heads on {scene.cells[1]} x {scene.cells[0]} cells of "
        f"{scene.stride} px{_part_of(scene)}. Predictions are made from the heads (ours): {made}.",
        f"The tables below the figures: {READING}",
    ]
    still = list(dict.fromkeys(f"{field.loss}, ‘{field.guess.name}’" for field in found if field.seen.still))
    if still:
        lead.append(f"Where the target is the prediction ({'; '.join(still)}): {STILL[0].lower()}{STILL[1:]}")
    without = len(scene.points) - len(set(nearest(scene)[0].ravel().tolist()))
    if without:
        lead.append(
            f"{without} of {len(scene.points)} heads own no cell, as others are nearer to every cell's centre: a "
            "target made of nearest cells (PML) has nobody for them."
        )
    tables = seen(found)
    details = [*((table.title, table) for table in tables), ("What one sees, in sentences", sentences(found))]
    return Part("explained", "What each loss asks for", lead, (), (), figures(scene, found), details)


def _part_of(scene: Scene) -> str:
    """What a scene is a part of, and at which scale."""
    whole = f"the shorter side of the whole image is {scene.short_side:.0f} px at this scale"
    if scene.name in SCENES and scene.title == SCENES[scene.name][0]:  # an image may be called ring.png
        return f", {scene.note}"  # it says the shorter side
    return f" ({scene.note}; {whole})" if scene.note else f" ({whole})"


def theory_part() -> Part:
    """The paper's table, corrected, and its misprints."""
    return Part("proximal", "The losses as proximal steps", (), (), [paper_table(), misprints()])


def figures(scene: Scene, found: Sequence[Field]) -> list[Plot]:
    """The fields of all losses, and PML's two count norms beside each other where both are there."""
    asked = [_asked(field) for field in found]
    plots = draw_fields(shown(scene), asked)
    guesses = list(dict.fromkeys(one.prediction for one in asked))[:MOST_GROUPS]
    norms = [one for one in asked if one.loss in _NORMS and one.prediction in guesses]
    if {one.loss for one in norms} == set(_NORMS):
        plots.append(count_norms(shown(scene), sorted(norms, key=lambda one: _NORMS.index(one.loss))))
    return plots


def shown(scene: Scene) -> Shown:
    """A scene as figures need it."""
    return Shown(scene.title, scene.image, scene.points, nearest(scene)[0], scene.stride)


def _asked(field: Field) -> Asked:
    return Asked(
        field.loss,
        field.guess.name,
        field.guess.words,
        field.read,
        field.gradient,
        field.target,
        field.value,
        field.short,
        field.seen.kinked,
        "logits" if field.reads == "points" else "density",
        0.0 if field.seen.up + field.seen.down else field.unit,
    )
