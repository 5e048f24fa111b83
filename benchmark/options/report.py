"""`benchmark report`: tables and the page of a store."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_report"]

_REPORT = """examples:
  benchmark report -o runs                       the page: report/index.html
  benchmark report table4 -o runs --format latex --out table4.tex
  benchmark report comparison --where dataset=shanghaitech_b noise=none
  benchmark report custom --rows label --columns backbone --metrics mae nae
  benchmark report noise -o runs                 tables and findings, in the terminal alone
  benchmark report noise -o runs --to noise      and the figures in noise/figures, noise/findings.txt
  benchmark report sparse_dense -o runs --window 128 --bins quantiles jhu --baseline bl"""


def add_report(commands: Commands) -> None:
    """Adds `report`."""
    report = command(commands, "report", "benchmark.report:report", "make tables and a page of a store", _REPORT)
    names: tuple[str, ...] = ("comparison", "localisation", "table2", "table3", "table4", "noise", "sparse_dense")
    names += ("cost", "speed", "custom", "coverage")
    report.add_argument(
        "table", nargs="?", choices=names, metavar="TABLE",
        help=f"one table ({', '.join(names)}); without: the page, with all of them and the figures",
    )  # fmt: skip
    report.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
    report.add_argument(
        "--recorded", type=Path, nargs="+", metavar="FOLDER", help="recorded studies in place of a store"
    )
    report.add_argument(
        "--where", nargs="+", metavar="FIELD=VALUE", default=[],
        help="only these runs: loss=pml,bl dataset=ucf_qnrf epochs=20 ... (columns of results.load())",
    )  # fmt: skip
    one = report.add_argument_group("one table")
    formats = ("terminal", "markdown", "csv", "latex", "latex-table", "html", "json")
    one.add_argument(
        "--format", choices=formats,
        help="default: that of the ending of --out, else terminal; latex compiles as it is, latex-table is to be input",
    )  # fmt: skip
    one.add_argument(
        "--out", type=Path, metavar="FILE", help="write it there (.md, .csv, .tex, .json, .html or .txt; or --format)"
    )
    one.add_argument(
        "--metrics", nargs="+", metavar="METRIC", help="mae, rmse, nae, bias; of places: f1, precision, recall"
    )
    one.add_argument("--dataset", help="of table3 and table4 (default: the paper's, nwpu and ucf_qnrf)")
    one.add_argument("--rows", default="label", metavar="FIELD", help="of a custom table (default: label, the loss)")
    one.add_argument("--columns", default="dataset", metavar="FIELD", help="of a custom table (default: dataset)")
    density = report.add_argument_group("sparse_dense, and its part of the page")
    density.add_argument(
        "--bins", nargs="+", choices=("quantiles", "nwpu", "jhu", "spacing"), metavar="KIND",
        help="quantiles of the count, nwpu: scene levels, jhu: ranges (default: these three); spacing: quantiles of "
        "the mean distance to the nearest other head, from the datasets at --data-root",
    )  # fmt: skip
    density.add_argument(
        "--window", type=int, metavar="PX",
        help="side of windows, a multiple of 64 (default: 512)",
    )  # fmt: skip
    density.add_argument("--baseline", metavar="LOSS", help="compare with this one (default: l2, else the first)")
    page = report.add_argument_group("the page, and the figures of noise, sparse_dense and speed")
    page.add_argument(
        "--to", type=Path, metavar="FOLDER",
        help="the page goes there (default: report); of noise, sparse_dense and speed the figures and findings, which "
        "without it are not written",
    )  # fmt: skip
    page.add_argument("--title", default="Crowd-counting losses compared", help="of the page")
    page.add_argument("--data-root", type=Path, help="folder of the datasets: sample images, spacing")
    page.add_argument("--no-images", action="store_true", help="leave the sample images out")
    page.add_argument("--no-explain", action="store_true", help="leave out what each loss asks for (seconds)")
