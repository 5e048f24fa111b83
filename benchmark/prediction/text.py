"""How predictions are written: a table, CSV, JSON, and the lines that NWPU-Crowd's evaluation reads."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from results.atomic import printable
from runners.metrics.point_files import guarded

if TYPE_CHECKING:
    from results.spec import RunSpec

__all__ = ["Counted", "Origin", "Spool", "rendered", "write", "write_points"]


class Counted(NamedTuple):
    """What is kept of an image or of a frame of a video.

    Attributes:
        id: Of the image; of a frame: the video's with the frame's number, clip_000120.
        path: Of the file; empty for an image that is made on the fly.
        people: How many were predicted.
        points: [m][2] as (x, y), pixels of the image file; None if there are no points.
        scores: [m], of the points; None if there are none.
        frame: Number of the frame, from 0; None for an image.
        seconds: Time of the frame; None for an image.
    """

    id: str
    path: str
    people: float
    points: list[list[float]] | None
    scores: list[float] | None = None
    frame: int | None = None
    seconds: float | None = None


class Spool:
    """Predictions in order, on disk where they are many: videos have no end.

    What is added can be read again and again; nothing is added while it is read.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=2**24, mode="w+", encoding="utf-8")  # noqa: SIM115
        self._number = 0

    def add(self, counted: Counted) -> None:
        """Adds one."""
        self._file.write(json.dumps(counted) + "\n")
        self._number += 1

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[Counted]:
        self._file.seek(0)
        for line in self._file:
            yield Counted(*json.loads(line))


@dataclass(frozen=True)
class Origin:
    """Where predictions come from.

    Attributes:
        run_id: The run.
        selection: Whose weights.
        spec: What was trained.
        localizer: What found the points, with its threshold; empty if none was asked for.
        failed: Why images could not be predicted, by path.
        timed: Whether videos are among them.
    """

    run_id: str
    selection: str
    spec: RunSpec
    localizer: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    timed: bool = False


def rendered(form: str, counted: Iterable[Counted], origin: Origin) -> str:
    """The predictions as text, see `write`."""
    text = io.StringIO()
    write(form, text, counted, origin)
    return text.getvalue()


def write(form: str, stream: TextIO, counted: Iterable[Counted], origin: Origin) -> None:
    """Writes the predictions one after the other.

    Args:
        form: `table`, 80 columns, a video being one line; `csv` with the columns id, count, path, and with videos frame
            and seconds, ids and paths guarded (`point_files.guarded`); `json` with points and scores too, if there are
            any; `nwpu`, lines of "id count"; or `nwpu-points`, lines of "id n x y x y ...". Counts have all their
            digits in `csv` and `json`, four decimals in `nwpu`; the coordinates of `nwpu-points` are rounded to
            integers.
        stream: Where to.
        counted: What was predicted.
        origin: By what.
    """
    if form == "nwpu":
        stream.writelines(f"{image.id} {image.people:.4f}\n" for image in counted)
    elif form == "nwpu-points":
        stream.writelines(map(_nwpu_line, counted))
    elif form == "csv":
        _write_csv(stream, counted, origin.timed)
    elif form == "json":
        _write_json(stream, counted, origin)
    else:
        _write_table(stream, counted, origin)


def write_points(form: str, stream: TextIO, counted: Iterable[Counted], origin: Origin) -> None:
    """Writes the points: `json` and `nwpu-points` as `write` does, `csv` with the columns image, x, y, score.

    In `csv` an image without people has one row with its id alone, so that it is known to have been predicted; ids are
    guarded (`point_files.guarded`), which `benchmark evaluate` undoes.
    """
    if form != "csv":
        write(form, stream, counted, origin)
        return
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("image", "x", "y", "score"))
    for image in counted:
        points = image.points or []
        scores: list[float] | list[str] = [""] * len(points) if image.scores is None else image.scores
        name = guarded(image.id)
        if not points:
            writer.writerow((name, "", "", ""))
        writer.writerows((name, x, y, score) for (x, y), score in zip(points, scores, strict=True))


# ---------------------------------------------------------------------------------------------------------------------
# Formats


def _nwpu_line(image: Counted) -> str:
    points = image.points or []
    return " ".join([image.id, str(len(points)), *(str(round(value)) for point in points for value in point)]) + "\n"


def _write_csv(stream: TextIO, counted: Iterable[Counted], timed: bool) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("id", "count", "path", *(("frame", "seconds") if timed else ())))
    for image in counted:
        when = ("" if image.frame is None else image.frame, "" if image.seconds is None else f"{image.seconds:.3f}")
        writer.writerow((guarded(image.id), repr(image.people), guarded(image.path), *(when if timed else ())))


def _write_json(stream: TextIO, counted: Iterable[Counted], origin: Origin) -> None:
    """One object; each image on a line of its own."""
    spec = origin.spec
    head = {"run_id": origin.run_id, "selection": origin.selection, "loss": spec.loss, "backbone": spec.backbone}
    head |= {"dataset": spec.dataset} | ({"localizer": origin.localizer} if origin.localizer else {})
    stream.write(json.dumps(head, indent=1).removesuffix("\n}") + ',\n "images": [')
    separator = "\n"
    for image in counted:
        stream.write(f"{separator}  {json.dumps(_fields(image))}")
        separator = ",\n"
    stream.write(f'\n ],\n "failed": {json.dumps(origin.failed)}\n}}\n')


def _fields(image: Counted) -> dict[str, Any]:
    """One image in `json`."""
    found = {"id": image.id, "path": image.path, "count": image.people}
    optional = {"points": image.points, "scores": image.scores, "frame": image.frame, "seconds": image.seconds}
    return found | {name: value for name, value in optional.items() if value is not None}


@dataclass
class _Line:
    """One line of the table: an image, or all frames of a video."""

    id: str
    clip: bool
    frames: int = 0
    sum: float = 0.0
    most: float = -1.0
    at: float = 0.0

    def add(self, image: Counted) -> None:
        self.frames += 1
        self.sum += image.people
        if image.people > self.most:
            self.most, self.at = image.people, image.seconds or 0.0

    def told(self) -> str:
        """The first column."""
        if not self.clip:
            return self.id
        return f"{self.id}: mean of {_count(self.frames, 'frame')}; most {self.most:.1f}, at {self.at:.1f} s"


def _write_table(stream: TextIO, counted: Iterable[Counted], origin: Origin) -> None:
    """Ids and counts for people to read."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    lines: list[_Line] = []
    path = ""
    for image in counted:
        clip = image.frame is not None
        if not (clip and lines and path == image.path):
            lines.append(_Line(image.path.rpartition("/")[2] if clip else image.id, clip))
            path = image.path
        lines[-1].add(image)
    table = Table(pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("people", justify="right", no_wrap=True)
    for line in lines:
        table.add_row(escape(printable(line.told())), f"{line.sum / line.frames:.1f}")
    spec = origin.spec
    title = [spec.loss, spec.backbone, spec.dataset, f"run {origin.run_id[:8]}", f"weights {origin.selection}"]
    console = Console(file=stream, width=80, highlight=False)
    console.print(escape(printable(" · ".join(title))))
    if origin.localizer:
        console.print(escape(f"points: {origin.localizer}"))
    console.print(table)
    images, clips = [line for line in lines if not line.clip], [line for line in lines if line.clip]
    parts = (
        [f"{_count(len(images), 'image')}, {sum(line.sum for line in images):.1f} people"]
        if images or not clips
        else []
    )
    if clips:
        parts.append(f"{_count(len(clips), 'video')}, {_count(sum(line.frames for line in clips), 'frame')}")
    console.print("; ".join(parts))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
