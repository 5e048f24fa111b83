"""`benchmark predict` and `evaluate`: a trained network at work, and the score of points."""

from __future__ import annotations

from pathlib import Path

from benchmark.options.parser import Commands, command

__all__ = ["add_evaluate", "add_predict"]

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


def add_predict(commands: Commands) -> None:
    """Adds `predict`."""
    text = "count and locate the people in images and videos with a finished run's weights"
    predict = command(commands, "predict", "benchmark.prediction.command:predict", text, _PREDICT)
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


def add_evaluate(commands: Commands) -> None:
    """Adds `evaluate`."""
    text = "score predicted points against annotated heads"
    evaluate = command(commands, "evaluate", "benchmark.evaluation.command:evaluate", text, _EVALUATE)
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
