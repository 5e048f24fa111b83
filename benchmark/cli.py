"""The command line. Only the standard library is imported here: `benchmark --help` answers at once."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from losses.discovery import suggestion

__all__ = ["main"]

_DESCRIPTION = "Compare crowd-counting losses on the same terms. `benchmark run` alone takes about five minutes."


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; errors that a user can mend are printed as one line, without a traceback.

    Returns:
        0 on success, 1 if runs failed or findings are errors, 2 if the command could not be carried out, 130 after
        Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    options = parser.parse_args(words)
    if options.version:
        from importlib.metadata import version

        print(version("crowd-loss-benchmark"))  # noqa: T201
        return 0
    if options.action is None:
        parser.print_help()
        return 0
    options.command_line = "benchmark " + " ".join(words)
    module, _, function = options.action.partition(":")
    try:
        action: Callable[[argparse.Namespace], int] = getattr(import_module(module), function)
        return action(options)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        return 0
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if options.debug:
            raise
        print(f"benchmark: {_said(error)}", file=sys.stderr)  # noqa: T201
        return 2


def _said(error: BaseException) -> str:
    """The message; of the system's own errors the path and what is wrong with it, without their number."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        other = "" if error.filename2 is None else f" -> {error.filename2}"
        return f"{error.filename}{other}: {error.strerror.lower()}"
    return str(error)


class _Parser(argparse.ArgumentParser):
    """Adds what was probably meant to the error of a misspelt command or value."""

    gathers: str | None = None
    """A list of words that may go on behind options; argparse before Python 3.13 refuses those."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Puts words behind options into the list that gathers them."""
        found, rest = super().parse_known_args(args, namespace)
        if rest and self.gathers is not None:
            words = next((place for place, word in enumerate(rest) if word.startswith("-")), len(rest))
            getattr(found, self.gathers).extend(rest[:words])
            rest = rest[words:]
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Prints the usage, the message and a suggestion."""
        wrong = re.search(r"invalid choice: '([^']*)' \(choose from ([^)]*)\)", message)
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        if wrong:
            message += suggestion(wrong[1], re.findall(r"[\w-]+", wrong[2]))
        elif unknown:
            message += suggestion(unknown[1], self._all_options())
        super().error(message)

    def _all_options(self) -> set[str]:
        """The options of this parser and of its commands: a command's own are checked by the parser above it."""
        found = {option for action in self._actions for option in action.option_strings}
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    found |= parser._all_options()
        return found


def _parser() -> _Parser:
    parser = _Parser(prog="benchmark", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="store_true", help="print the version and stop")
    parser.add_argument("--debug", action="store_true", help="show tracebacks of errors")
    parser.set_defaults(action=None)
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=_Parser)
    _add_run(commands)
    _add_store(commands)
    _add_report(commands)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_data(commands)
    _add_results(commands)
    _add_doctor(commands)
    return parser


def _command(
    commands: argparse._SubParsersAction[_Parser], name: str, action: str, text: str, epilog: str = ""
) -> _Parser:
    command = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(action=action)
    return command


_EXAMPLES = """examples:
  benchmark run
  benchmark run --losses pml bl dm_count --backbones mobilenetv2 --datasets shanghaitech_b \\
                --data-root ~/data --weights mobilenetv2_100.safetensors --seeds 0 1 2 -j 2
  benchmark run --losses 'pml[count_norm=l2,tau=2]' pml --noise none uniform-px:8
  benchmark run --study table4 --data-root ~/data --dry-run"""


def _add_run(commands: argparse._SubParsersAction[_Parser]) -> None:
    for name, text, action in (
        ("run", "train every combination of losses, networks, data, noise and seeds", "benchmark.run:run"),
        ("plan", "show what `run` would do, and do nothing", "benchmark.run:run"),
        (
            "reproduce",
            "train what is missing of a table of the paper, and hold the published numbers against it",
            "benchmark.reproduce:reproduce",
        ),
    ):
        run = _command(commands, name, action, text, _EXAMPLES if name == "run" else "")
        run.usage = f"benchmark {name} {'TABLE ' if name == 'reproduce' else ''}[options]"
        run.set_defaults(dry_run=name == "plan")
        axes = run.add_argument_group("what is compared (each replaces that axis of the study)")
        if name == "reproduce":
            run.add_argument("study", choices=("table2", "table4"), metavar="TABLE", help="table2 or table4")
        else:
            axes.add_argument("--study", default=None, help="a built-in study or a YAML file (default: quick)")
        axes.add_argument("--losses", nargs="+", metavar="LOSS", help="names, parameters in brackets: pml[tau=2]")
        axes.add_argument("--backbones", nargs="+", metavar="NET", help="names, or timm:NAME")
        axes.add_argument("--datasets", nargs="+", metavar="DATA", help="names, parameters in brackets")
        axes.add_argument(
            "--noise", nargs="+", metavar="NOISE", dest="noises", help="none, uniform-px:8, missing:0.1, ..."
        )
        axes.add_argument("--seeds", nargs="+", type=int, metavar="N", help="of initialisation, order and crops")
        axes.add_argument("--noise-seed", type=int, metavar="N", help="of the wrong labels, shared by all losses (0)")
        axes.add_argument("--head", help="counting head: bl, pml, points, native")
        axes.add_argument("--stride", type=int, help="pixels per density cell")
        axes.add_argument("--weights", help="imagenet, none, or a file of pretrained features")
        axes.add_argument(
            "--select", nargs="+", choices=("val", "last", "test_oracle"), dest="selections",
            help="which epoch's weights are measured (default: val)",
        )  # fmt: skip
        axes.add_argument(
            "--localizers", nargs="+", metavar="LOC", help="score where people are: lm, otm, proposals (default: none)"
        )
        axes.add_argument("--radii", nargs="+", metavar="R", help="distances that are a hit: 4 8 sigma_l 0.5head 1:100")
        recipe = run.add_argument_group("how it is trained")
        recipe.add_argument("--recipe", choices=("shared", "official", "tuned"), help="see `benchmark list recipes`")
        recipe.add_argument("--budget", type=int, metavar="N", help="trials of the tuned recipe, for every loss (9)")
        recipe.add_argument("--epochs", type=int, metavar="N", help="passes over the training images (shared: 100)")
        recipe.add_argument("--batch-size", type=int, metavar="N", help="crops a step (shared: 8)")
        recipe.add_argument("--crop", type=int, metavar="PX", help="side of a training crop (shared: 256)")
        recipe.add_argument(
            "--scale", type=float, nargs=2, metavar=("LOW", "HIGH"), help="random scale (shared: 0.75 1.33)"
        )
        recipe.add_argument("--lr", type=float, help="peak learning rate (shared: 1e-4)")
        recipe.add_argument("--backbone-lr", type=float, metavar="X", help="as a multiple of --lr")
        recipe.add_argument("--weight-decay", type=float, metavar="X", help="(shared: 1e-4)")
        recipe.add_argument("--optimizer", choices=("adam", "adamw"), help="(shared: adamw)")
        recipe.add_argument(
            "--schedule", choices=("constant", "cosine", "exponential"), help="after 5 %% of warm-up (shared: cosine)"
        )
        recipe.add_argument("--val-interval", type=int, metavar="N", help="epochs between validations")
        here = run.add_argument_group("where")
        here.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
        here.add_argument("--data-root", type=Path, help="folder of the datasets (default: $CROWD_DATA, ./data)")
        here.add_argument("--cache-dir", type=Path, help="folder of prepared images (default: $CROWD_CACHE, ~/.cache)")
        if name == "plan":
            run.add_argument("--json", action="store_true", help="for machines")
            continue
        here.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
        here.add_argument("-j", "--jobs", type=int, help="runs at once (default: one a core, or one a GPU)")
        here.add_argument("--threads", type=int, default=1, help="CPU threads of each run (default: 1)")
        here.add_argument("--workers", type=int, default=None, help="data-loading processes of each run")
        here.add_argument("--tracker", choices=("tensorboard", "wandb", "mlflow"), help="log there as well")
        run.add_argument("--dry-run", action="store_true", help="show the plan and stop")
        run.add_argument(
            "--resume", action=argparse.BooleanOptionalAction, default=True,
            help="go on with interrupted runs from their last checkpoint (default), or start them afresh",
        )  # fmt: skip
        run.add_argument("--retry-failed", action="store_true", help="try failed runs again")
        run.add_argument("--json", action="store_true", help="print the resulting table for machines")


def _add_store(commands: argparse._SubParsersAction[_Parser]) -> None:
    listing = _command(commands, "list", "benchmark.inspect:list_things", "list the runs of a store, or what there is")
    things = ("runs", "losses", "backbones", "datasets", "localizers", "noises", "studies", "recipes")
    listing.add_argument("what", nargs="?", default="runs", choices=things)
    status = _command(commands, "status", "benchmark.inspect:status", "how many runs are done, failed, unfinished")
    for command in (listing, status):
        command.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
        command.add_argument("--json", action="store_true", help="for machines")


_PREDICT = """CHECKPOINT is a run's id in the store (-o) or how it begins, or the path of a
run's folder, or of a weights file in it (model_val.safetensors).

Images are resized by the rule and scale of the run's own dataset, whatever
--dataset says, and padded and counted as when the run was measured. No
annotation is read. Photos are turned upright by their EXIF orientation (unless
--as-stored), images of a --split are not; coordinates are pixels of the image
as it was predicted. Images of more than 150 million pixels are refused
(CROWD_MAX_PIXELS raises that). Exit status: 1 if an image could not be read or
a video breaks off (the rest is done), 2 if the command could not be carried
out, 130 after Ctrl-C (what was done is written).

points: a point loss gives its own; a density gives them through --localizer.
Its threshold is the one in brackets, else the one chosen on the validation
split when the run was scored, else the published one. The count is the
network's own, however many points a localizer finds.

tiles: with --tile the network sees the prepared image in squares of PX pixels,
of which only the inner part is kept, --tile-margin pixels from each cut: its
memory then depends on PX alone. Networks look farther than any margin, so
counts differ slightly from one pass over the image.

formats: table; csv (id,count,path; of a video also frame,seconds) and json
(with points and scores), all digits; nwpu: lines of "id count", 4 decimals,
and nwpu-points: lines of "id n x y x y ...", rounded, for the evaluation
servers of NWPU-Crowd, as the authors' sample code prints them. The servers
could not be tested. --points writes .csv (image,x,y,score; an image without
people is a row with its id alone), .json as above, or .txt (nwpu-points).

examples:
  benchmark predict 3f2a photo.jpg more/ --format csv --out counts.csv
  benchmark predict 3f2a photos/ --localizer otm --overlay pictures --points points.csv
  benchmark predict runs/3f2a0c11d2e4b596/model_last.safetensors street.mp4 --fps 2 --overlay pictures
  benchmark predict 3f2a panorama.jpg --tile 1024
  benchmark predict 3f2a --dataset nwpu --split hidden --data-root ~/data --format nwpu --out submission.txt"""


_REPORT = """examples:
  benchmark report -o runs                       the page: report/index.html
  benchmark report table4 -o runs --format latex --out table4.tex
  benchmark report comparison --where dataset=shanghaitech_b noise=none
  benchmark report custom --rows label --columns backbone --metrics mae nae"""


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
    report = _command(commands, "report", "benchmark.report:report", "make tables and a page of a store", _REPORT)
    names = ("comparison", "localisation", "table2", "table3", "table4", "noise", "cost", "custom", "coverage")
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
    one.add_argument("--out", type=Path, metavar="FILE", help="write it there")
    one.add_argument(
        "--metrics", nargs="+", metavar="METRIC", help="mae, rmse, nae, bias; of places: f1, precision, recall"
    )
    one.add_argument("--dataset", help="of table3 and table4 (default: the paper's, nwpu and ucf_qnrf)")
    one.add_argument("--rows", default="label", metavar="FIELD", help="of a custom table (default: label, the loss)")
    one.add_argument("--columns", default="dataset", metavar="FIELD", help="of a custom table (default: dataset)")
    page = report.add_argument_group("the page")
    page.add_argument("--to", type=Path, default=Path("report"), metavar="FOLDER", help="where to (default: report)")
    page.add_argument("--title", default="Crowd-counting losses compared", help="of the page")
    page.add_argument("--data-root", type=Path, help="folder of the datasets, for sample images")
    page.add_argument("--no-images", action="store_true", help="leave the sample images out")


def _add_predict(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "count and locate the people in images and videos with a finished run's weights"
    predict = _command(commands, "predict", "benchmark.prediction.command:predict", text, _PREDICT)
    predict.usage = "benchmark predict CHECKPOINT [IMAGE|FOLDER|VIDEO ...] [options]"
    predict.gathers = "images"
    predict.add_argument("run", metavar="CHECKPOINT", help="a run, see below; `benchmark list` shows them")
    predict.add_argument(
        "images", nargs="*", metavar="IMAGE|FOLDER|VIDEO",
        help="image files (JPEG, PNG, BMP, WebP), folders of them, or videos (MP4, AVI, MOV, MKV, WebM, ...)",
    )  # fmt: skip
    predict.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
    predict.add_argument("--select", choices=("val", "last"), help="which epoch's weights are used (default: val)")
    predict.add_argument("--split", help="instead of images: this split of the dataset (train, val, test, hidden)")
    predict.add_argument("--dataset", metavar="DATA", help="of the split, parameters in brackets (default: the run's)")
    predict.add_argument("--data-root", type=Path, help="folder of the datasets (default: $CROWD_DATA, ./data)")
    predict.add_argument("--as-stored", action="store_true", help="leave photos as stored, whatever their EXIF says")
    what = predict.add_argument_group("what is given")
    what.add_argument(
        "--localizer", metavar="NAME", help="how points are found: lm, otm, proposals, 'lm[rule=fidtm,threshold=0.4]'"
    )
    forms = ("table", "csv", "json", "nwpu", "nwpu-points")
    what.add_argument("--format", choices=forms, default="table", help="of the counts (default: table)")
    what.add_argument("--out", type=Path, metavar="FILE", help="write them there instead of printing")
    what.add_argument("--points", type=Path, metavar="FILE", help="write the points there: .csv, .json or .txt")
    what.add_argument(
        "--overlay", type=Path, metavar="FOLDER", help="draw density and points on each image (videos: an MP4)"
    )
    what.add_argument(
        "--overlay-size", type=int, default=2000, metavar="PX", help="longer side of the pictures at most (2000)"
    )
    what.add_argument("--overlay-format", choices=("jpg", "png"), default="jpg", help="of the pictures (default: jpg)")
    how = predict.add_argument_group("how it is predicted")
    how.add_argument("--every", type=int, metavar="N", help="of a video: each N-th frame (default: 1, all)")
    how.add_argument("--fps", type=float, metavar="F", help="of a video: about F frames a second")
    how.add_argument("--tile", type=int, metavar="PX", help="predict large images in tiles of this side")
    how.add_argument("--tile-margin", type=int, metavar="PX", help="context around a tile (default: 128)")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    how.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1, as runs have)")


_EVALUATE = """files, told apart by what is in them; (x, y) in pixels of the stored images:
  text   id n, then n times: x y sigma_s sigma_l level (annotation, or x y), or
         x y [score] (prediction); one line an image, as NWPU-Crowd and FIDTM
  CSV    image,x,y[,score]; annotation: image,x,y[,sigma_s,sigma_l][,level]
         [,x1,y1,x2,y2]; an image without people: empty.jpg,,
  JSON   {"id": [[x, y], ...]}, or what `benchmark predict --format json` writes

--out FOLDER writes the tables, figures (precision and recall, F1 of sparse and
dense images) and images.csv; with --images the worst, the median and the best
image with false alarms and misses. --out FILE writes the tables alone.

examples:
  benchmark evaluate --pred points.txt --gt val_gt_loc.txt
  benchmark evaluate --pred points.csv --gt heads.csv --thresholds 4 8 1:100 --out scored
  benchmark evaluate --pred B_pred.txt --gt heads.json --ids lexicographic --out scored --images test/images"""


def _add_evaluate(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "score predicted points against annotated heads"
    evaluate = _command(commands, "evaluate", "benchmark.evaluation.command:evaluate", text, _EVALUATE)
    evaluate.add_argument("--pred", type=Path, required=True, metavar="FILE", help="the predictions")
    evaluate.add_argument("--gt", type=Path, required=True, metavar="FILE", help="the annotation")
    evaluate.add_argument(
        "--thresholds", nargs="+", metavar="RADIUS",
        help="pixels (8), sigma_s, sigma_l, a share of the head's size (0.5head), a range to average over (1:100); "
        "default: sigma_s sigma_l where the annotation has them, else 4 8",
    )  # fmt: skip
    evaluate.add_argument(
        "--ids", choices=("own", "lexicographic"), default="own",
        help="lexicographic: the predictions number the images in the order of their names (IMG_1, IMG_10, IMG_2)",
    )  # fmt: skip
    evaluate.add_argument("--names", type=Path, metavar="FOLDER|LIST", help="of these images (default: the annotation)")
    evaluate.add_argument(
        "--missing", choices=("error", "empty", "skip"), default="error",
        help="annotated images without prediction: refuse (default), nobody was found there, or leave them out",
    )  # fmt: skip
    formats = ("terminal", "markdown", "csv", "latex", "latex-table", "html", "json")
    evaluate.add_argument("--format", choices=formats, help="default: that of the ending of --out, else terminal")
    evaluate.add_argument("--out", type=Path, metavar="FOLDER|FILE", help="write there")
    evaluate.add_argument("--images", type=Path, metavar="FOLDER", help="of the images, to draw on")
    evaluate.add_argument("--json", action="store_true", help="print all numbers for machines")


def _add_data(commands: argparse._SubParsersAction[_Parser]) -> None:
    data = commands.add_parser("data", help="look at datasets", description="Look at datasets.")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    listing = _command(actions, "list", "benchmark.datasets:list_datasets", "where to get each dataset, what is found")
    check = _command(actions, "check", "benchmark.datasets:check", "verify a dataset's files, and draw its points")
    check.add_argument("dataset", help="name, parameters in brackets")
    check.add_argument("--overlay", type=Path, help="where to draw images with their points (default: check_NAME.png)")
    export = _command(actions, "export", "benchmark.datasets:export", "write synthetic crowds as image and JSON files")
    export.add_argument("dataset", help="synthetic, parameters in brackets")
    export.add_argument("folder", type=Path, help="where to")
    export.set_defaults(data_root=None)
    for command in (listing, check):
        command.add_argument("--data-root", "--root", type=Path, dest="data_root", help="folder of the datasets")
        command.add_argument("--json", action="store_true", help="for machines")


_RESULTS = """A recorded study is a folder of small files for git: study.json, runs.jsonl, history.parquet,
images.parquet and summary.csv. Weights are no part of it.

examples:
  benchmark results export noise -o runs --where dataset=shanghaitech_b --author "Our lab"
  benchmark results check results/studies/noise
  benchmark results merge ours/noise theirs/noise --into results/studies/noise-both
  benchmark results import results/studies/noise-both -o runs"""


def _add_results(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "record studies under version control, and put those of several labs together"
    results = commands.add_parser(
        "results", help=text, description=text[0].upper() + text[1:] + ".", epilog=_RESULTS,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    actions = results.add_subparsers(metavar="ACTION", required=True, parser_class=_Parser)
    place = Path("results/studies")
    export = _command(actions, "export", "benchmark.recorded:export", "write runs of a store as a recorded study")
    export.add_argument("name", metavar="NAME", help="of the study, and of its folder")
    export.add_argument("--to", type=Path, default=place, metavar="FOLDER", help=f"it goes to FOLDER/NAME ({place})")
    export.add_argument(
        "--where", action="extend", nargs="+", default=[], metavar="FIELD=VALUE",
        help="only runs with a row like this; they are recorded whole, with all their evaluations",
    )  # fmt: skip
    export.add_argument("--skip-unreadable", action="store_true", help="leave out runs that cannot be read")
    take = _command(actions, "import", "benchmark.recorded:import_study", "write the runs of a study into a store")
    take.add_argument("folder", type=Path, metavar="FOLDER", help="the study")
    merge = _command(actions, "merge", "benchmark.recorded:merge", "put studies together that are comparable")
    merge.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="the studies")
    merge.add_argument("--into", type=Path, required=True, metavar="FOLDER", help="folder of the new study")
    merge.add_argument("--name", help="of the new study (default: the name of its folder)")
    merge.add_argument("--allow-identical", action="store_true", help="take a run that is the same in several once")
    listing = _command(actions, "list", "benchmark.recorded:list_studies", "list the recorded studies below a folder")
    listing.add_argument("folder", type=Path, nargs="?", default=place, metavar="FOLDER", help=f"default: {place}")
    check = _command(actions, "check", "benchmark.recorded:check", "recompute a study's numbers from its images")
    check.add_argument("folder", type=Path, metavar="FOLDER", help="the study")
    for command in (export, merge):
        command.add_argument("--title", default="", help="what it is about")
        command.add_argument("--author", default="", help="by whom")
        command.add_argument("--without-windows", action="store_false", dest="windows", help="drop the 64-px windows")
        command.add_argument("--force", action="store_true", help="replace the study that lies there")
    for command in (export, take):
        command.add_argument("-o", "--output", type=Path, default=Path("runs"), help="the store (default: runs)")
    for command in (export, take, merge, listing, check):
        command.add_argument("--json", action="store_true", help="for machines")


def _add_doctor(commands: argparse._SubParsersAction[_Parser]) -> None:
    doctor = _command(commands, "doctor", "benchmark.inspect:doctor", "check this machine: versions, devices, data")
    doctor.add_argument("--data-root", type=Path, help="folder of the datasets")
    doctor.add_argument("--json", action="store_true", help="for machines")


if __name__ == "__main__":
    sys.exit(main())
