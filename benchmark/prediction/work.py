"""The work of `benchmark predict`: image after image and frame after frame, with pictures beside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from benchmark.prediction.draw import Drawing, draw, per_area, top_of
from benchmark.prediction.inputs import Clip, Source
from benchmark.prediction.text import Counted, Spool
from benchmark.prediction.video import Film, Frame, Video
from benchmark.show import progress_console
from results.atomic import printable, replacing
from runners.data.reading import DataError
from runners.watch import DivergedError

if TYPE_CHECKING:
    from runners.localizers import Localizer
    from runners.predict import Predicted, Predictor

__all__ = ["Pictures", "Work"]

_HEARTBEAT = 60.0
"""Seconds between lines of progress where the output is no terminal."""


class Pictures:
    """Where pictures go, and how they are written.

    Args:
        folder: Where to; None: nowhere.
        form: `jpg` or `png`.
        longest: Longer side of a picture, pixels.
        media: What will be drawn; each item has a name of its own, its id, or `id_2` where ids come twice.

    Raises:
        ValueError: If a picture would replace a file that is to be predicted.
    """

    def __init__(self, folder: Path | None, form: str, longest: int, media: Sequence[Source | Clip]) -> None:
        self.folder = folder
        self.longest = longest
        self._form = form
        self._files: list[Path] = [] if folder is None else list(self._named(folder, media))
        inputs = {Path(item.path).resolve() for item in media if item.path}
        for file in self._files:
            if file.resolve() in inputs:
                raise ValueError(
                    f"--overlay {folder} would replace {file}, which is to be predicted; name another folder"
                )

    def _named(self, folder: Path, media: Sequence[Source | Clip]) -> Iterator[Path]:
        taken: set[str] = set()
        for item in media:
            plain = item.id.replace("/", "_").replace("\\", "_") or "image"
            ending = "mp4" if isinstance(item, Clip) else self._form
            name, number = plain, 1
            while f"{name}.{ending}" in taken:
                number += 1
                name = f"{plain}_{number}"
            taken.add(f"{name}.{ending}")
            yield folder / f"{name}.{ending}"

    def file(self, index: int) -> Path:
        """Where the picture of an item goes."""
        return self._files[index]

    def write(self, index: int, pixels: NDArray[np.uint8]) -> None:
        """Writes the picture of an image, whole or not at all."""
        with replacing(self.file(index)) as temporary:
            if self._form == "png":
                Image.fromarray(pixels).save(temporary, format="PNG", compress_level=4)
            else:
                Image.fromarray(pixels).save(temporary, format="JPEG", quality=92, subsampling=0)


class Work:
    """Predicts what is named, in order.

    Args:
        predictor: The network.
        localizer: What finds the points; None: those that a point loss gives by itself.
        label: The localizer as it is told.
        pictures: Where pictures go.
        every: Each how many-th frame of a video.
        fps: Instead: about as many frames a second.

    Attributes:
        failed: Why an image or the rest of a video could not be predicted, by path.
        done: Items that are through, well or not.
    """

    def __init__(
        self,
        predictor: Predictor,
        localizer: Localizer | None,
        label: str,
        pictures: Pictures,
        *,
        every: int = 1,
        fps: float | None = None,
    ) -> None:
        self.failed: dict[str, str] = {}
        self.done = 0
        self._predictor, self._localizer, self._label, self._pictures = predictor, localizer, label, pictures
        self._every, self._fps = every, fps
        self._top = 0.0

    def run(self, media: Sequence[Source | Clip], spool: Spool) -> bool:
        """Predicts everything and keeps it in the spool.

        Returns:
            Whether it was stopped by Ctrl-C before the end.
        """
        with _Progress(len(media)) as progress:
            try:
                for index, item in enumerate(media):
                    self._item(index, item, spool, progress)
                    self.done += 1
                    progress.item()
            except KeyboardInterrupt:
                return True
        return False

    def _item(self, index: int, item: Source | Clip, spool: Spool, progress: _Progress) -> None:
        """Predicts one image or video; keeps the reason if that cannot be done."""
        try:
            if isinstance(item, Clip):
                self._clip(index, item, spool, progress)
            else:
                self._image(index, item, spool)
        except (DataError, DivergedError) as error:
            self.failed[item.path or item.id] = str(error)
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError) or "memory" in str(error)):
                raise
            self.failed[item.path or item.id] = f"{item.path or item.id}: does not fit into memory; try --tile 1024"

    def _image(self, index: int, source: Source, spool: Spool) -> None:
        pixels = source.read()
        found = self._predictor.image(pixels, source.id)
        counted = self._counted(found, source.id, source.path)
        if self._pictures.folder is not None:
            self._pictures.write(index, self._drawn(pixels, found, counted))
        spool.add(counted)

    def _clip(self, index: int, clip: Clip, spool: Spool, progress: _Progress) -> None:
        """Counts the frames of a video, and writes them into a film with the density's colours of one scale."""
        video = Video(Path(clip.path))
        self._top = 0.0
        drawn = self._pictures.folder is not None
        film = Film(self._pictures.file(index), video.rate(self._every, self._fps)) if drawn else None
        try:
            progress.frames(clip.id, video.taken(self._every, self._fps))
            with nullcontext() if film is None else film:
                for frame in video.frames(self._every, self._fps):
                    counted, picture = self._frame(clip, frame)
                    spool.add(counted)
                    if film is not None and picture is not None:
                        film.add(picture)
                    progress.frame()
        finally:
            video.close()
            progress.frames_done()

    def _frame(self, clip: Clip, frame: Frame) -> tuple[Counted, NDArray[np.uint8] | None]:
        id = f"{clip.id}_{frame.number:06d}"
        found = self._predictor.image(frame.pixels, id)
        counted = self._counted(found, id, clip.path)._replace(frame=frame.number, seconds=frame.seconds)
        return counted, None if self._pictures.folder is None else self._drawn(frame.pixels, found, counted)

    def _counted(self, found: Predicted, id: str, path: str) -> Counted:
        """The count, and the points if there are any."""
        points, scores = found.stored_points, found.point_scores
        if self._localizer is not None:
            points, scores = found.located(self._localizer)
        if points is None:
            return Counted(id, path, found.count, None)
        return Counted(id, path, found.count, points.tolist(), None if scores is None else scores.tolist())

    def _drawn(self, pixels: NDArray[np.uint8], found: Predicted, counted: Counted) -> NDArray[np.uint8]:
        """The picture. In a video the colours' end only rises, so that they mean the same from frame to frame."""
        size = pixels.shape[0], pixels.shape[1]
        density = None if found.density is None else per_area(found.density, found.stride, found.scale, size)
        lines = [f"{counted.people:.{0 if density is None else 1}f} people"]
        points = None if counted.points is None else np.array(counted.points, np.float64).reshape(-1, 2)
        if points is not None and self._label:
            lines.append(f"{len(points)} points · {self._label}")
        top = None if density is None else top_of(density)
        if counted.seconds is not None:
            minutes, seconds = divmod(counted.seconds, 60)
            lines.append(f"{minutes:.0f}:{seconds:05.2f}")
            if top is not None:
                top = self._top = max(self._top, top)
        return draw(pixels, Drawing(tuple(lines), density, points), longest=self._pictures.longest, top=top)


class _Progress:
    """Bars on a terminal: all items, and the frames of the video at hand. A line a minute elsewhere."""

    def __init__(self, items: int) -> None:
        shown = progress_console.is_terminal
        columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn()
        self._bars = Progress(
            *columns, TimeRemainingColumn(compact=True), console=progress_console, transient=True, disable=not shown
        )
        self._quiet = shown
        self._items = items
        self._done = self._frames = 0
        self._spoke = time.monotonic()
        self._all = self._bars.add_task("predicting", total=items)
        self._clip = self._bars.add_task("", total=None, visible=False)

    def __enter__(self) -> _Progress:
        self._bars.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def item(self) -> None:
        """One more item is through."""
        self._done += 1
        self._bars.advance(self._all)
        self._say()

    def frames(self, name: str, total: int | None) -> None:
        """A video begins."""
        self._frames = 0
        self._bars.reset(self._clip, description=escape(printable(name[:30])), total=total, visible=True)

    def frame(self) -> None:
        """One more frame of it is through."""
        self._frames += 1
        self._bars.advance(self._clip)
        self._say()

    def frames_done(self) -> None:
        """The video is through."""
        self._frames = 0
        self._bars.update(self._clip, visible=False)

    def _say(self) -> None:
        if not self._quiet and time.monotonic() - self._spoke > _HEARTBEAT:
            self._spoke = time.monotonic()
            frames = f", {self._frames} frames of the next" if self._frames else ""
            progress_console.print(f"{self._done} of {self._items} done{frames}")
