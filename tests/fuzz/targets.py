"""What is fuzzed: for each reader of strangers' files, sound files to start from, and the errors that it may raise."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.io
import torch
from PIL import Image
from safetensors.torch import save

import losses
from benchmark.names import parse_choice
from benchmark.study import StudyError, built_in, load_study
from reports.protocol import select
from results import recorded
from results.claims import Claims
from results.store import RunFolder, Store, StoreError
from runners import checkpoints, weights
from runners.data import noise, reading
from runners.data.datasets._shanghaitech import ShanghaiTech
from runners.data.datasets.base import Entry
from runners.data.datasets.folder import Folder
from runners.data.datasets.jhu_crowd import JhuCrowd
from runners.data.datasets.nwpu import Nwpu
from runners.data.datasets.ucf_cc_50 import UcfCc50
from runners.data.datasets.ucf_qnrf import UcfQnrf
from runners.data.reading import DataError
from runners.metrics.point_files import read_predictions, read_truth
from runners.metrics.radii import parse_radii
from tests.reports.fake_store import fake_store
from tests.results.made_up import located, measure_places, rehash
from tests.results.unsealed import unseal
from tests.runners import fake_datasets as fake

__all__ = ["TARGETS", "Target"]

POINTS = [[3.5, 4.25], [10.0, 20.0], [0.0, 47.5]]
BOXES = [[1, 2, 6, 7], [8, 17, 12, 23], [0, 40, 4, 47]]


class Target(NamedTuple):
    """A reader under attack.

    Attributes:
        family: The kind of file, as the counts are given.
        kind: What the files are made of; see `mutate.TOKENS`.
        file: The name under which an input is written, or "" for words of a command line.
        allowed: The errors that a reader may raise.
        corpus: Sound files; it may put into the folder what must lie beside them.
        read: Reads the file, and uses what was read.
        share: Of the asked-for number of inputs: less where one takes long.
        repair: Makes checksums right, so that what lies behind them is reached.
    """

    family: str
    kind: str
    file: str
    allowed: tuple[type[Exception], ...]
    corpus: Callable[[Path], list[bytes]]
    read: Callable[[Path], object]
    share: float = 1.0
    repair: Callable[[bytes], bytes] | None = None


def _texts(*texts: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [text.encode() for text in texts]


def _jsons(*values: Any) -> Callable[[Path], list[bytes]]:
    return _texts(*map(json.dumps, values))


# ---------------------------------------------------------------------------------------------------------------------
# Studies


def _studies(folder: Path) -> list[bytes]:
    own = "title: a\nlosses: &z [l2, 'pml[tau=2]']\nbackbones: [mcnn]\ndatasets: [synthetic]\nradii: ['1:100']\n"
    own += "only:\n- {loss: l2}\n- {loss: pml, noise: none}\nexclude:\n- {loss: l2, reason: |\n  x}\n".replace(
        "|\n  x", "x"
    )
    return [built_in()["quick"].read_bytes(), *[own.encode()] * 3]


# ---------------------------------------------------------------------------------------------------------------------
# Annotations


def _mats(**variables: Any) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        found = []
        for packed in (False, False, False, True):
            sink = io.BytesIO()
            scipy.io.savemat(sink, variables, do_compression=packed)
            found.append(sink.getvalue())
        return found

    return make


def _annotation(kind: type[Any]) -> Callable[[Path], object]:
    def read(path: Path) -> object:
        dataset = kind.__new__(kind)
        dataset._tables = {}
        found = dataset.read_annotation(Entry("a", "train", None, path))
        assert np.isfinite(found.points).all()
        return found

    return read


def _table(path: Path) -> object:
    dataset = Folder.__new__(Folder)
    dataset._tables = {}
    return dataset._table(path)


def _list(path: Path) -> object:
    dataset = Nwpu.__new__(Nwpu)
    dataset.folder = path.parent
    return dataset._ids("train")


# ---------------------------------------------------------------------------------------------------------------------
# Images


def _images(form: str, *modes: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        found = []
        for mode in modes:
            sink = io.BytesIO()
            pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), np.uint8)
            image = Image.fromarray(pixels).convert(mode) if mode != "I;16" else Image.new("I;16", (5, 4))
            image.save(sink, form, **({"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\0"} if form != "BMP" else {}))
            found.append(sink.getvalue())
        return found

    return make


def _image(path: Path) -> object:
    height, width = reading.image_size(path)
    reading.orientation(path)
    pixels = reading.read_image(path)
    assert pixels.shape == (height, width, 3)
    return pixels


def _summed(content: bytes) -> bytes:
    """A PNG whose chunks have the sums that they should have."""
    parts, place = [content[:8]], 8
    while place + 12 <= len(content):
        (size,) = struct.unpack_from(">I", content, place)
        body = content[place + 4 : place + 8 + size]
        parts.append(content[place : place + 8 + size] + struct.pack(">I", zlib.crc32(body)))
        place += 12 + size
    return b"".join(parts)


# ---------------------------------------------------------------------------------------------------------------------
# Stores and recorded studies


def _store(name: str) -> Callable[[Path], list[bytes]]:
    """The folder becomes a store of one run; the sound versions of one of its files are given."""

    def make(folder: Path) -> list[bytes]:
        root = folder.parent / f"{folder.name}-made"
        store = fake_store(root, zoo=("pml", "l2"), seeds=(0,), images=3)
        run = store.runs()[0]
        measure_places(store, run.spec(), located(1, 3))
        if name == "failed.json":
            (run.path / "record.json").unlink()
            (run.path / name).write_text(
                json.dumps({"run_id": run.run_id, "spec": run.spec().model_dump(), "when": "w", "reason": "r"})
            )
        shutil.copytree(run.path, folder / run.run_id)
        sound = sorted((folder / run.run_id).rglob(name))[-1].read_bytes()
        # With its check sum hardly any damage gets beyond it.
        return [sound, unseal(sound)] if name.endswith(".json") else [sound]

    return make


def _run(path: Path) -> object:
    """Reads a run, one file of whose was changed, as tables and reports do."""
    (run,) = _put(path)
    return Store(path.parent).load([run.run_id])


def _frame(path: Path) -> object:
    (run,) = _put(path)
    (place,) = run.path.glob("eval/*-m1") if path.name == "images.parquet" else run.path.glob("eval/*-lm-*")
    frame = run._table(place.name, path.name, None)
    return frame, len(frame)


def _put(path: Path) -> list[RunFolder]:
    """Puts a file of the one run of a store into its places."""
    runs = [RunFolder(folder) for folder in path.parent.iterdir() if folder.is_dir()]
    for run in runs:
        for place in list(run.path.rglob(path.name)):
            shutil.copyfile(path, place)
    return runs


def _study(name: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        store = fake_store(folder.parent / f"{folder.name}-made", zoo=("pml", "l2"), seeds=(0,), images=3)
        for seed, run in enumerate(store.runs()):
            measure_places(store, run.spec(), located(seed, 3))
        recorded.export(store, folder, name="study", force=True)
        return [(folder / name).read_bytes()]

    return make


def _recorded(path: Path) -> object:
    if path.name != "study.json":
        rehash(path.parent)
    found = recorded.read(path.parent)
    return found.check(), found.frame(), found.images(), found.histories(), found.localisations(), found.curves()


# ---------------------------------------------------------------------------------------------------------------------
# Claims, weights, words


def _claim(path: Path) -> object:
    return str(Claims(path.parent).holder()), RunFolder(path.parent).state()


def _claims(folder: Path) -> list[bytes]:
    Claims(folder).take()
    return [next(folder.glob("claim-*.json")).read_bytes()]


def _safetensors(folder: Path) -> list[bytes]:
    state = {"a.weight": torch.randn(3, 4), "b": torch.arange(5), "c": torch.zeros(0, 2), "d": torch.tensor(1.0)}
    half = {"h": torch.zeros(3, dtype=torch.float16), "t": torch.zeros(2, dtype=torch.bool)}
    weights.save(folder / "model_val.safetensors", state, 3)  # it says where it lies
    return [(folder / "model_val.safetensors").read_bytes(), save(state), save(half)]


def _checkpoint_files(folder: Path) -> list[bytes]:
    sink = io.BytesIO()
    torch.save({"model": {"w": torch.randn(4)}, "epoch": 3, "text": "x", "more": [1.5, None]}, sink)
    return [sink.getvalue()]


def _checkpoint(path: Path) -> object:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.rename(path.parent / f"checkpoint-000001-{digest}.pth")
    try:
        found = checkpoints.load(path.parent)
    finally:
        for file in path.parent.glob("checkpoint-*.pth"):
            file.unlink()
    assert found is None or isinstance(found, dict)
    return found


def _words(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _loss(path: Path) -> object:
    choice = parse_choice(_words(path))
    return losses.build(choice.name, **choice.params) if choice.name in losses.names() else str(choice)


def _select(path: Path) -> object:
    frame = pd.DataFrame(
        {
            "loss": ["pml", "l2"],
            "state": ["done", "failed"],
            "recipe_epochs": [5.0, None],
            "label": ["pml[tau=2]", "l2"],
        }
    )
    return select(frame, _words(path).split("\n"))


def _of(family: str, allowed: type[Exception] | tuple[type[Exception], ...], *rows: Iterable[Any]) -> dict[str, Target]:
    errors = allowed if isinstance(allowed, tuple) else (allowed,)
    return {name: Target(family, kind, file, errors, *rest) for name, kind, file, *rest in rows}


_POINT = {"a.jpg": POINTS, "b.jpg": {"points": POINTS, "boxes": BOXES, "sigmas": [[1, 2]] * 3, "levels": [0, 1, 2]}}
_LISTED = {"images": [{"id": "a", "points": POINTS, "scores": [0.5, 1, 0]}, {"id": "b", "points": [], "scores": []}]}
_TRUTH_CSV = (
    "image,x,y,x1,y1,x2,y2,level,sigma_s,sigma_l\na.jpg,1,2,0,1,2,3,0,1,2\nb.jpg,,,,,,,,,\n'=c,1.5,2e1,,,,,,,\n"
)
_HEADS = np.array(POINTS)
_GROUNDS, _QNRF = {"image_info": fake.image_info(_HEADS)}, {"annPoints": _HEADS}
_NWPU_JSON = {"points": POINTS, "boxes": BOXES, "human_num": 3}
_NWPU_MAT = {"annPoints": _HEADS, "annBoxes": np.array(BOXES)}
_FOLDER_CSV = _texts("x,y\n1,2\n3,4\n", "x,y,x1,y1,x2,y2\n1,2,0,1,2,3\n")
_LOSSES = _texts("pml[tau=2,count_norm=l2]", "l2", "dm_count[reg=10.0]", "gl[tau=0.2,crop_size=none]")

TARGETS: dict[str, Target] = {
    **_of("study", StudyError, ("study", "yaml", "study.yaml", _studies, lambda path: load_study(str(path)))),
    **_of(
        "annotations", DataError,
        ("shanghaitech-mat", "binary", "GT_IMG_1.mat", _mats(**_GROUNDS), _annotation(ShanghaiTech)),
        ("qnrf-mat", "binary", "img_ann.mat", _mats(**_QNRF), _annotation(UcfQnrf)),
        ("ucf-mat", "binary", "1_ann.mat", _mats(annPoints=_HEADS.astype(np.uint16)), _annotation(UcfCc50)),
        ("nwpu-mat", "binary", "0001.mat", _mats(**_NWPU_MAT), _annotation(Nwpu)),
        ("nwpu-json", "json", "0001.json", _jsons(_NWPU_JSON), _annotation(Nwpu)),
        ("nwpu-list", "text", "train.txt", _texts("0001 1 2\n0002 0 1\n"), _list),
        ("jhu-text", "text", "0001.txt", _texts("5 7 4 6 1 0 \n6 8 4 6 1 0\n", ""), _annotation(JhuCrowd)),
        ("folder-json", "json", "a.json", _jsons(POINTS, {"points": POINTS, "boxes": BOXES}), _annotation(Folder)),
        ("folder-csv", "csv", "a.csv", _FOLDER_CSV, _annotation(Folder)),
        ("folder-points", "csv", "points.csv", _texts("image,x,y\na.png,1,2\nb.png,,\nc/d.png,3,4\n"), _table),
    ),
    **_of(
        "images", DataError,
        ("png", "binary", "a.png", _images("PNG", "RGB", "P", "LA", "1", "I;16"), _image, 1.0, _summed),
        ("jpeg", "binary", "a.jpg", _images("JPEG", "RGB", "L", "CMYK"), _image),
        ("webp", "binary", "a.webp", _images("WEBP", "RGB", "RGBA"), _image),
        ("bmp", "binary", "a.bmp", _images("BMP", "RGB", "P", "1"), _image),
    ),
    **_of(
        "predictions", DataError,
        ("truth-text", "text", "t.txt", _texts("1 2 3.5 4 1 2 0 7 8 1 2 5\n2 0\n", "1 1 3 4\n2 0\n"), read_truth),
        ("truth-csv", "csv", "t.csv", _texts(_TRUTH_CSV, "image,x,y\na,1,2\nb,,\n"), read_truth),
        ("truth-json", "json", "t.json", _jsons(_POINT, {"a": POINTS}), read_truth),
        ("predictions-text", "text", "p.txt", _texts("1 2 3.5 4 0.5 7 8 1\n2 0\n", "1 1 3 4\n"), read_predictions),
        ("predictions-csv", "csv", "p.csv", _texts("image,x,y,score\na,1,2,.5\nb,,,\n'=c,1,2,1\n"), read_predictions),
        ("predictions-json", "json", "p.json", _jsons(_LISTED, {"a": [[1, 2, 0.5]], "b": []}), read_predictions),
    ),
    **_of(
        "records", StoreError,
        *((f"store-{name.split('.')[0]}", "json", name, _store(name), _run, 0.5)
          for name in ("record.json", "spec.json", "failed.json", "metrics.json")),
        ("store-localisation", "json", "localisation.json", _store("localisation.json"),
         lambda path: Store(path.parent).localisations([run.run_id for run in _put(path)]), 0.5),
        ("store-history", "json", "history.jsonl", _store("history.jsonl"),
         lambda path: (RunFolder(path.parent).history(), [run.history() for run in _put(path)])),
        *((f"store-{name.split('.')[0]}-table", "binary", name, _store(name), _frame, 0.5)
          for name in ("images.parquet", "points.parquet", "curve.parquet")),
    ),
    **_of(
        "recorded studies", StoreError,
        *((f"recorded-{name.split('.')[0]}", "json" if "json" in name else "csv" if "csv" in name else "binary", name,
           _study(name), _recorded, 0.1) for name in ("study.json", *recorded.ALL_FILES)),
    ),
    **_of("claims", (), ("claim", "json", "claim-0001.json", _claims, _claim)),
    **_of(
        "weights", StoreError,
        ("safetensors", "binary", "model_val.safetensors", _safetensors, lambda path: weights.read(path)),
        ("checkpoint", "binary", "new.pth", _checkpoint_files, _checkpoint, 0.5),
    ),
    **_of(
        "words", (ValueError, TypeError),
        ("loss-name", "text", "", _LOSSES, _loss),
        ("noise-name", "text", "", _texts("uniform-px:8+missing:0.1", "none"), lambda path: noise.parse(_words(path))),
        ("radii", "text", "", _texts("4 8px sigma_l 0.5head 1:100"), lambda path: parse_radii(_words(path).split(" "))),
        ("where", "text", "", _texts("loss=pml", "epochs=5", "label=pml[tau=2],l2", "state=done\nloss=pml"), _select),
    ),
}  # fmt: skip
