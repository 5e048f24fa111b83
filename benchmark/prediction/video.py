"""Videos through OpenCV: read frame by frame and written frame by frame, so that memory does not grow with length."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from runners.data.reading import DataError, limit, refuse_special

__all__ = ["Film", "Frame", "Video", "silent_opencv"]

_TOLERANCE = 0.02
"""Containers may only estimate how many frames there are; up to this share may be missing at the end (ours)."""
_CODECS = ("avc1", "mp4v")
"""H.264 where this OpenCV has an encoder for it: browsers play it. Else MPEG-4 part 2, which OpenCV's wheels have."""
_FPS = 25.0


class Frame(NamedTuple):
    """A frame: its number from 0, its time in seconds, and RGB, uint8 [H, W, 3]."""

    number: int
    seconds: float
    pixels: NDArray[np.uint8]


class Video:
    """A video file, upright as its container says.

    Args:
        path: The file.

    Attributes:
        fps: Frames a second as the container says; 0 where it does not.
        length: Frames as the container says, or estimates; 0 where it does not.

    Raises:
        DataError: If there is no video that OpenCV can read, or its frames are larger than `CROWD_MAX_PIXELS`.
        ImportError: If OpenCV is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        refuse_special(path)
        if not path.is_file():
            raise DataError(f"{path}: no such video")
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty; fetch the video again")
        self._cv2 = silent_opencv()
        self._capture = self._cv2.VideoCapture(str(path.resolve()))
        if not self._capture.isOpened():
            raise DataError(f"{path}: OpenCV cannot read this as a video; it is damaged, or of an unknown format")
        self.fps = self._number("FPS")
        self.length = round(self._number("FRAME_COUNT"))
        pixels = self._number("FRAME_WIDTH") * self._number("FRAME_HEIGHT")
        if pixels > limit("CROWD_MAX_PIXELS"):
            self.close()
            raise DataError(f"{path}: frames of {pixels:.0f} pixels are more than the limit; raise CROWD_MAX_PIXELS")

    def frames(self, every: int = 1, fps: float | None = None) -> Iterator[Frame]:
        """The frames one after the other, once.

        Args:
            every: Each how many-th frame.
            fps: Instead: about as many frames a second; all, if the video has fewer.

        Raises:
            DataError: Behind the last frame, if there is none or the video breaks off before its end.
            ValueError: If frames a second are asked for and the video does not say how many it has.
        """
        if fps is not None and not self.fps > 0:
            raise ValueError(f"{self.path} does not say how many frames a second it has; use --every in place of --fps")
        number = 0
        while self._capture.grab():
            if _is_due(number, every, None if fps is None else fps / self.fps):
                seconds = self._number("POS_MSEC") / 1000
                if not seconds and self.fps > 0:
                    seconds = number / self.fps
                whole, pixels = self._capture.retrieve()
                if not whole:
                    break
                yield Frame(number, seconds, self._cv2.cvtColor(pixels, self._cv2.COLOR_BGR2RGB))
            number += 1
        self._check_whole(number)

    def taken(self, every: int = 1, fps: float | None = None) -> int | None:
        """About how many frames `frames` will give; None if the container does not say."""
        if self.length <= 0:
            return None
        return max(1, round(self.length * (1 / every if fps is None else min(1.0, fps / max(self.fps, fps)))))

    def rate(self, every: int = 1, fps: float | None = None) -> float:
        """Frames a second of a film of these frames; 25 where the video does not say."""
        own = self.fps if self.fps > 0 else _FPS
        return own / every if fps is None else min(own, fps)

    def close(self) -> None:
        """Gives the file back."""
        self._capture.release()

    def _check_whole(self, seen: int) -> None:
        if not seen:
            raise DataError(f"{self.path}: no frame of this video can be decoded; it is damaged or empty")
        if seen < self.length - max(2.0, _TOLERANCE * self.length):
            raise DataError(f"{self.path}: the video breaks off after frame {seen} of {self.length}")

    def _number(self, name: str) -> float:
        """A property of the video; 0 where it is unknown."""
        value = float(self._capture.get(getattr(self._cv2, f"CAP_PROP_{name}")))
        return value if np.isfinite(value) and value > 0 else 0.0


def _is_due(number: int, every: int, share: float | None) -> bool:
    """Whether a frame is taken: each `every`-th, or so many that they are `share` of all, evenly."""
    if share is None:
        return number % every == 0
    if share >= 1:
        return True
    return number == 0 or int(number * share + 1e-9) > int((number - 1) * share + 1e-9)


class Film:
    """An MP4 that is written frame by frame; it takes its name when the block ends, even by an error, if it has frames.

    Args:
        path: The file to write, ending in .mp4.
        rate: Frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self._rate = rate
        self._temporary = path.with_name(f".{path.stem}.{uuid4().hex[:8]}.mp4")
        self._writer: Any = None
        self._size = 0, 0

    def __enter__(self) -> Film:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.release()
            self._temporary.replace(self.path)

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Adds a frame, RGB, uint8 [H, W, 3]; all have the first one's size, and odd sides lose a pixel.

        Raises:
            RuntimeError: If OpenCV cannot write MP4 here.
            ValueError: If the size differs.
        """
        if self._writer is None:
            self._size = pixels.shape[0] // 2 * 2, pixels.shape[1] // 2 * 2
            self._writer = self._opened()
        even = np.ascontiguousarray(pixels[: self._size[0], : self._size[1], ::-1])
        if even.shape[:2] != self._size:
            raise ValueError(f"{self.path}: a frame of {pixels.shape[:2]} pixels in a film of {self._size}")
        self._writer.write(even)

    def _opened(self) -> Any:
        cv2 = silent_opencv()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        for codec in _CODECS:
            writer = cv2.VideoWriter(
                str(self._temporary.resolve()), cv2.VideoWriter.fourcc(*codec), self._rate, self._size[::-1]
            )
            if writer.isOpened():
                return writer
            writer.release()
            self._temporary.unlink(missing_ok=True)
        raise RuntimeError(f"{self.path}: this OpenCV cannot write MP4; leave --overlay out, or install opencv-python")


def silent_opencv() -> Any:
    """The module cv2, told to be silent: what it would print has no path, our own errors have.

    Raises:
        ImportError: If OpenCV is not there.
    """
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    try:
        import cv2
    except ImportError as error:
        raise ImportError("videos need OpenCV: install it with `pip install opencv-python-headless`") from error
    with contextlib.suppress(AttributeError):  # its place differs between versions
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2
