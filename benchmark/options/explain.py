"""`benchmark explain`: what losses ask for."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_explain"]

_EXPLAIN = """Losses: names, parameters in brackets; default: all, and pml[count_norm=l2].

scenes (128 x 128 px):   three-heads, row, ring, overlap
predictions, made from the heads:
  under    0.5 times the right one      blurred  one person a head, wide
  right    one person a head            shifted  the right one, moved
  over     1.6 times the right one

The folder of --to gets index.html, and every figure as PNG, PDF, SVG and CSV.

examples:
  benchmark explain
  benchmark explain pml bl 'dm_count[solver=exact]' --scene overlap
  benchmark explain pml 'pml[count_norm=l2]' --prediction blurred shifted
  benchmark explain --image street.jpg --points heads.csv --crop 300 200 256 256
  benchmark explain --scene row --animate --format mp4
  benchmark explain --table
  benchmark explain --check 200"""


def add_explain(commands: Commands) -> None:
    """Adds `explain`."""
    text = "show what each loss asks of a prediction: gradients, targets, descents"
    explain = command(commands, "explain", "benchmark.explain.command:explain", text, _EXPLAIN)
    explain.usage = "benchmark explain [LOSS ...] [options]"
    explain.gathers = "losses"
    explain.add_argument("losses", nargs="*", metavar="LOSS", help="such as pml, bl, 'pml[count_norm=l2]'")
    explain.add_argument("--to", type=Path, default=Path("explain"), metavar="FOLDER", help="where to (explain)")
    explain.add_argument("--json", action="store_true", help="print all numbers for machines")
    explain.add_argument("--table", action="store_true", help="only print the paper's table, corrected")
    explain.add_argument(
        "--check", type=int, nargs="?", const=25, metavar="N",
        help="only check the proximal view's propositions on N random cases each (25); status 1 if one fails",
    )  # fmt: skip
    scene = explain.add_argument_group("on what")
    scene.add_argument("--scene", metavar="SCENE", help="a synthetic scene (default: three-heads)")
    scene.add_argument("--image", type=Path, metavar="PATH", help="instead: a real image, with --points")
    scene.add_argument("--points", type=Path, metavar="FILE", help="its heads: CSV x,y or JSON [[x, y], ...], pixels")
    scene.add_argument(
        "--crop", type=int, nargs=4, metavar=("X", "Y", "W", "H"),
        help="a part of the image, pixels; what is longer than 512 px is reduced to that",
    )  # fmt: skip
    scene.add_argument("--prediction", nargs="+", metavar="NAME", help="see above (default: under right over)")
    scene.add_argument("--stride", type=int, default=4, metavar="PX", help="pixels per density cell (4)")
    moving = explain.add_argument_group("a free density map descends each loss")
    moving.add_argument("--animate", action="store_true", help="compute and draw that too")
    moving.add_argument("--format", metavar="FORM", help="gif (default), mp4 (needs OpenCV) or frames (PNG files)")
    moving.add_argument("--start", metavar="MAP", help="uniform (default) or blurred")
    moving.add_argument("--steps", type=int, metavar="N", help="of Adam (300)")
    moving.add_argument("--frames", type=int, metavar="N", help="of the animation, at most one more than --steps (40)")
