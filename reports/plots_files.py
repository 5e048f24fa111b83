"""Figures as files, and as inline SVG for a page. See `reports.plots`."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from PIL import Image

from reports import style
from reports.style import DPI, INK, Plot
from results.atomic import replacing, write_text

__all__ = ["save", "svg"]

_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
}


def save(plot: Plot, folder: str | Path, formats: Sequence[str] = ("png", "pdf")) -> list[Path]:
    """Writes `<name>.<format>` on white for every format, and `<name>.csv`, the data. Same plot, same bytes.

    Args:
        plot: What to write.
        folder: Made if it does not exist.
        formats: Of png (200 dpi), pdf, svg.

    Returns:
        The files, the CSV last.

    Raises:
        ValueError: For a format that is none of these, or a name that is no file's name.
    """
    _check_name(plot.name)
    if unknown := sorted(set(formats) - set(_METADATA)):
        raise ValueError(f"formats {unknown} are unknown; expected some of {sorted(_METADATA)}")
    paths = [Path(folder) / f"{plot.name}.{kind}" for kind in (*formats, "csv")]
    for kind, path in zip(formats, paths, strict=False):
        if kind == "svg":
            write_text(path, svg(plot))
            continue
        with style.context(), replacing(path) as temporary:
            plot.figure.savefig(temporary, format=kind, dpi=DPI, facecolor="white", metadata=_METADATA[kind])
    write_text(paths[-1], plot.data.map(_no_formula).to_csv(index=False, lineterminator="\n"))
    return paths


def _no_formula(value: Any) -> Any:
    """A text so that no spreadsheet takes it for a formula: image names are strangers'."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@")) else value


def svg(plot: Plot) -> str:
    """The figure as an `<svg>` element for an HTML page.

    Text stays text in the page's sans-serif, ink becomes `currentColor`, nothing refers outside, and all ids begin
    with the plot's name, so that figures of different names share a page.

    Raises:
        ValueError: If the name is no id.
    """
    _check_name(plot.name)
    stream = io.StringIO()
    with style.context(), matplotlib.rc_context({"svg.hashsalt": plot.name}):
        plot.figure.savefig(stream, format="svg", dpi=150, metadata=_METADATA["svg"])
    text = stream.getvalue()
    text = re.sub(r"<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
    text = re.sub(r"<[^<>]*>", lambda tag: _tag(tag.group(), plot.name, used), text)  # in what is written, < is escaped
    text = text.replace("*{", f"#{plot.name} *{{", 1)  # matplotlib's style, which would be the whole page's
    label = html.escape(plot.caption)
    start = f'<svg id="{plot.name}" role="img" aria-label="{label}" style="max-width: 100%; height: auto" '
    return re.sub(r"\s*\n\s*", "\n", text.replace("<svg ", start, 1)).strip() + "\n"


def _tag(tag: str, name: str, used: set[str]) -> str:
    """One tag with no id but those in use, the page's foreground and font, short numbers and small pictures."""
    tag = re.sub(r' id="([^"]*)"', lambda found: found.group() if found.group(1) in used else "", tag)
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", tag)
    tag = tag.replace(INK, "currentColor").replace("'DejaVu Sans', ", "")
    tag = re.sub(r'(?<= )(?:d|x|y|transform)="[^"]*', _shorter, tag)
    return re.sub(r"data:image/png;base64,([^\"]*)", _smaller, tag)


def _shorter(match: re.Match[str]) -> str:
    """Numbers with two decimals, one in long paths; of lines, only the first step says that it is one."""
    text = match.group()
    decimals = 1 if len(text) > 800 else 2
    text = re.sub(r"\d+\.\d{2,}", lambda found: f"{float(found.group()):.{decimals}f}".rstrip("0").rstrip("."), text)
    if text.startswith("d=") and set(re.findall(r"[A-Za-z]", text[2:])) <= {"M", "L"}:
        text = text.replace("\nL ", "\n")  # after a move, pairs of numbers are lines
    return text


def _smaller(match: re.Match[str]) -> str:
    """A picture in fewer bytes: opaque ones as JPEG where that halves them, others with a palette."""
    data = base64.b64decode(match.group(1))
    with Image.open(io.BytesIO(data)) as picture:
        rgba = picture.convert("RGBA")
    opaque = rgba.getchannel("A").getextrema() == (255, 255)
    small = io.BytesIO()
    if opaque:
        rgba.convert("RGB").save(small, "JPEG", quality=75, optimize=True)
    else:
        rgba.quantize(64, method=Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    if len(small.getvalue()) * (1 + opaque) < len(data):
        kind, data = "jpeg" if opaque else "png", small.getvalue()
        return f"data:image/{kind};base64," + base64.b64encode(data).decode()
    return match.group()


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise ValueError(
            f"{name!r} names no file and no id; expected letters, digits, _ and -: plot._replace(name=...)"
        )
