"""Damaged inputs of every reader: each ends with a result or with an error of zoo, soon and without a traceback.

A target writes a whole input into an empty folder, names the file that is damaged, and reads it as zoo does. Damage is
random, from a seed: bytes, words and lines are changed, and values in JSON are replaced by others that tools write.
"""

from __future__ import annotations

import json
import random
import signal
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.errors import ZooError

WORDS = (
    b"-1 0 1 1e999 -1e999 nan inf -0.0 10000000000 99999999999999999999999 null true [] {} \"\" '' 0x10 1_000 1,5 "
    b"\xff\xfe \xef\xbb\xbf \x00 \xf0\x9f\x90\x88 \xed\xb2\x80 \x1b[31m ../x /etc/passwd C:\\x "
    b"http://a/b ~ & * <!-- ]]> %00 %s "
    b"train val test \r \n\n \t , ; : | \" ' \\ / # = [ ] { } < >"
).split(b" ")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 2**31, 2**63, 10**30, 0.5, -0.0, float("inf"), float("nan"), 1e308, "", " ", "0"),
    *("-1", "nan", "\x00", "é", "\ud800", "../x", "a" * 5000, [], {}, [[]], [None], {"": None}, [1, 2, 3, 4], "train"),
)
SLOW = 20.0
"""Seconds after which an input counts as one that hangs."""


@dataclass(frozen=True)
class Target:
    """A reader to fuzz.

    Attributes:
        write: writes a whole input into a folder and returns the files of which one is damaged.
        read: reads the input from that folder.
    """

    write: Callable[[Path], list[Path]]
    read: Callable[[Path], object]


@dataclass(frozen=True)
class Fault:
    """An input that did not end as it must: its target and number, the damaged file, and what happened."""

    target: str
    number: int
    file: str
    content: bytes
    said: str


def damaged(content: bytes, rng: random.Random, is_json: bool) -> bytes:
    """Return `content` with one to three changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        content = _replaced(content, rng) if is_json and rng.random() < 0.6 else _changed(content, rng)
    return content


def _changed(content: bytes, rng: random.Random) -> bytes:
    size = len(content)
    at, length = rng.randrange(size + 1), rng.choice((1, 2, 8, 64))
    kind = rng.randrange(7)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + content[at + length :]
    if kind == 2:
        return content[:at] + content[at : at + length] * rng.choice((2, 50)) + content[at + length :]
    if kind == 3:
        return content[:at] + rng.choice(WORDS) + content[at:]
    if kind == 4:
        return content[:at] + rng.choice(WORDS) + content[at + length :]
    if kind == 5:
        lines = content.splitlines(keepends=True)
        rng.shuffle(lines)
        return b"".join(lines[: rng.randrange(len(lines) + 1)] if rng.random() < 0.5 else lines)
    return content[:at] + bytes(rng.randrange(256) for _ in range(length)) + content[at + length :]


def _replaced(content: bytes, rng: random.Random) -> bytes:
    """Return JSON with one value, or one key, replaced."""
    try:
        tree = json.loads(content)
    except ValueError:
        return content
    places = list(_places(tree))
    if not places:
        return json.dumps(rng.choice(VALUES)).encode()
    owner, key = rng.choice(places)
    if isinstance(owner, dict) and rng.random() < 0.2:
        owner[rng.choice(("", "x", "0", key * 2))] = owner.pop(key)
    elif rng.random() < 0.15:
        del owner[key]
    else:
        owner[key] = rng.choice(VALUES)
    return json.dumps(tree).encode("utf-8", "surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key, value in list(tree.items()) if isinstance(tree, dict) else list(enumerate(tree)):
        yield tree, key
        if isinstance(value, dict | list):
            yield from _places(value)


def fuzz(name: str, target: Target, folder: Path, count: int, seed: int = 0) -> list[Fault]:
    """Read `count` damaged inputs of a target; return those that did not end as they must."""
    faults = []
    folder.mkdir(parents=True)
    files = target.write(folder)
    target.read(folder)  # the whole input must be read
    for number in range(count):
        rng = random.Random(f"{seed} {name} {number}")
        file = rng.choice(files)
        whole = file.read_bytes()
        content = damaged(whole, rng, file.suffix == ".json")
        file.write_bytes(content)
        said = ""
        try:
            with _deadline(SLOW), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                target.read(folder)
        except ZooError:
            pass
        except Exception:
            said = traceback.format_exc()
        finally:
            file.write_bytes(whole)
        if said:
            faults.append(Fault(name, number, file.name, content, said))
    return faults


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in the body after some seconds, where the system has such a clock."""

    def end(*_: object) -> None:
        raise TimeoutError(f"not finished after {seconds:g} s")

    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def reproduced(name: str, number: int, folder: Path, seed: int = 0) -> bytes:
    """Return the damaged file of an input, by its number."""
    files = TARGETS[name].write(folder)
    rng = random.Random(f"{seed} {name} {number}")
    file = rng.choice(files)
    return damaged(file.read_bytes(), rng, file.suffix == ".json")


# -- targets ---------------------------------------------------------------------------------------------------------


def _images(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)


def _texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return [folder / name for name in texts]


def _coco(folder: Path) -> list[Path]:
    _images(folder, "a.png", "b.png")
    outline = [[2, 2, 20, 2, 20, 20, 2, 20]]
    content = {
        "info": {},
        "images": [{"id": i, "file_name": f"{'ab'[i - 1]}.png", "width": 32, "height": 24} for i in (1, 2)],
        "categories": [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [2, 2, 18, 18], "area": 324, "iscrowd": 0},
            {"id": 2, "image_id": 2, "category_id": 7, "bbox": [1, 1, 5, 5], "segmentation": outline, "iscrowd": 0},
            {"id": 3, "image_id": 2, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 1}
            | {"segmentation": {"counts": [0, 96, 672], "size": [24, 32]}},
        ],
    }
    return _texts(folder, {"_annotations.coco.json": json.dumps(content)})


def _yolo(folder: Path) -> list[Path]:
    _images(folder, "images/train/a.png", "images/val/b.png")
    yaml = "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n"
    boxes = {
        "labels/train/a.txt": "0 0.5 0.5 0.2 0.2\n1 0.2 0.2 0.1 0.1\n",
        "labels/val/b.txt": "1 0.5 0.5 0.25 0.25\n",
    }
    return _texts(folder, {"data.yaml": yaml, **boxes})


def _voc(folder: Path) -> list[Path]:
    _images(folder, "JPEGImages/a.png", "JPEGImages/b.png")
    box = "<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>20</xmax><ymax>18</ymax></bndbox>"
    note = (
        "<annotation><filename>{}.png</filename><size><width>32</width><height>24</height><depth>3</depth></size>\n"
        f"<object><name>cat</name><difficult>0</difficult>{box}</object>\n</annotation>\n"
    )
    lists = {"ImageSets/Main/train.txt": "a\n", "ImageSets/Main/val.txt": "b\n"}
    return _texts(folder, {f"Annotations/{name}.xml": note.format(name) for name in "ab"} | lists)


def _darknet(folder: Path) -> list[Path]:
    _images(folder, "obj_train_data/a.png", "obj_train_data/b.png")
    fields = "classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
    lists = {"train.txt": "data/obj_train_data/a.png\ndata/obj_train_data/b.png\n", "obj.names": "cat\ndog\n"}
    boxes = {f"obj_train_data/{name}.txt": "1 0.5 0.5 0.25 0.25 0.9\n" for name in "ab"}
    return _texts(folder, {"obj.data": fields, **lists, **boxes})


def _cvat(folder: Path) -> list[Path]:
    _images(folder, "images/a.png")
    text = (
        "<annotations><meta><task><labels><label><name>cat</name></label></labels></task></meta>\n"
        '<image id="0" name="a.png" subset="Train" width="32" height="24">\n'
        '<box label="cat" xtl="2" ytl="2.5" xbr="20" ybr="18" rotation="30"/>\n'
        '<polygon label="cat" points="1,2;20,2;20,15"/>\n'
        '<mask label="cat" rle="0, 50" left="1" top="2" width="10" height="5"/></image></annotations>\n'
    )
    return _texts(folder, {"annotations.xml": text})


def _label_studio(folder: Path) -> list[Path]:
    _images(folder, "images/a.png")
    sides = {"original_width": 32, "original_height": 24}
    box = {"x": 10, "y": 10.5, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}
    ring = {"points": [[1, 2], [60, 2], [60, 80]], "polygonlabels": ["cat"]}
    task = {
        "id": 1,
        "data": {"image": "/data/upload/3/5f2c91ab-a.png"},
        "annotations": [{"was_cancelled": False, "result": [{**sides, "value": value} for value in (box, ring)]}],
    }
    return _texts(folder, {"export.json": json.dumps([task])})


def _csv(folder: Path) -> list[Path]:
    _images(folder, "images/a.png", "images/b.png", "images/c.png")
    text = 'image,label,split\nimages/a.png,cat|dog,train\nimages/b.png,"dog",train\nimages/c.png,cat,val\n'
    return _texts(folder, {"labels.csv": text})


def _labels(folder: Path) -> list[Path]:
    _images(folder, "images/a.png", "images/b.png")
    return _texts(folder, {"labels.json": '{"a.png": 0, "b.png": 1}', "class_names.json": '["cat", "dog"]'})


def _masks(folder: Path) -> list[Path]:
    _images(folder, "images/a.png", "images/b.png")
    (folder / "masks").mkdir()
    for name in "ab":
        values = np.zeros((24, 32), np.uint8)
        values[4:12, 4:20] = 1
        Image.fromarray(values).save(folder / "masks" / f"{name}.png")
    return [*_texts(folder, {"classes.txt": "background\ncat\n"}), folder / "masks" / "a.png"]


def _nnunet(folder: Path) -> list[Path]:
    _images(folder, "imagesTr/x_0000.png", "imagesTr/y_0000.png")
    (folder / "labelsTr").mkdir()
    for name in "xy":
        Image.fromarray(np.eye(24, 32, dtype=np.uint8)).save(folder / "labelsTr" / f"{name}.png")
    content = {
        "labels": {"background": 0, "cell": 1},
        "channel_names": {"0": "R"},
        "file_ending": ".png",
        "numTraining": 2,
    }
    return _texts(folder, {"dataset.json": json.dumps(content)})


def _dataset(folder: Path) -> object:
    from zoo.data import read
    from zoo.data.check import checked

    splits, notes = checked(read(folder))
    return [(split.counts(), split.fingerprint(), split.notes) for split in splits.values()], notes


def _image(format: str) -> Callable[[Path], list[Path]]:
    def write(folder: Path) -> list[Path]:
        _images(folder, f"a.{format}")
        return [folder / f"a.{format}"]

    return write


def _decoded(folder: Path) -> object:
    from zoo.data import decode
    from zoo.image_header import size_if_readable

    file = next(folder.iterdir())
    return size_if_readable(file), decode(file)


def _overlay(folder: Path) -> list[Path]:
    text = (
        '[weights."resnet20.mine"]\nsource = "hf://org/mine"\nnum_classes = 3\nlicense = "mit"\n\n'
        '[prefer]\nmynet = "some-distribution"\n\n[plugins]\ndisable = []\n\n'
        f'[pins."resnet20.cifar10"]\nrevision = "{"a" * 40}"\nsha256 = "{"b" * 64}"\n'
    )
    return _texts(folder, {"registry.toml": text})


def _overlaid(folder: Path) -> object:
    from zoo.registry.catalogue import read_overlay, weight_spec

    with _variable("ZOO_CONFIG", str(folder)):
        overlay = read_overlay()
    return [weight_spec(row) for row in overlay.weights.values()], overlay


def _catalogue(folder: Path) -> list[Path]:
    text = (
        '[plugin."mine".backbones]\nmynet = { family = "Test", stages = 4 }\n\n[plugin."mine".weights]\n'
        '"mynet.a" = { source = "hf://org/{name}", num_classes = 10 }\n'
    )
    return _texts(folder, {"registry.toml": text.replace(", stages = 4", "")})


def _catalogued(folder: Path) -> object:
    from zoo.registry.catalogue import read_catalogue, weight_spec

    rows = read_catalogue(folder / "registry.toml", "mine")
    return [weight_spec(row) for found in rows.values() for row in found if row.kind == "weights"]


def _tensors(folder: Path) -> list[Path]:
    from zoo.weights.file import write

    write(folder / "model.safetensors", {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64)}, {"note": "x"})
    return [folder / "model.safetensors"]


def _read_tensors(folder: Path) -> object:
    from zoo.weights.file import read

    return read(folder / "model.safetensors").load()


def _lock(folder: Path) -> list[Path]:
    from zoo.weights import lock

    with _variable("ZOO_CACHE", str(folder)):
        lock.record(lock.Pin("hf://org/net", "main", "model.safetensors", "a" * 40, "b" * 64))
    return [folder / "zoo.lock"]


def _pins(folder: Path) -> object:
    from zoo.weights import lock

    with _variable("ZOO_CACHE", str(folder)):
        return lock.pins()


FOREIGN = {
    "timm": {
        "architecture": "resnet18",
        "num_classes": 10,
        "pretrained_cfg": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "input_size": [3, 224, 224]}
        | {"interpolation": "bicubic", "crop_pct": 0.95, "crop_mode": "center", "pool_size": [7, 7]},
    },
    "transformers": {
        "architectures": ["ResNetForImageClassification"],
        "model_type": "resnet",
        "id2label": {"0": "cat", "1": "dog"},
        "hidden_act": "relu",
    },
    "torchvision": {"resize_size": [256], "crop_size": [224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    | {"interpolation": "InterpolationMode.BILINEAR"},
}


def _foreign(kind: str) -> Callable[[Path], list[Path]]:
    return lambda folder: _texts(folder, {"config.json": json.dumps(FOREIGN[kind])})


def _origin(folder: Path) -> object:
    from zoo.models.origin import origin_of
    from zoo.registry import registry
    from zoo.weights.fetch import fetch_config

    config = fetch_config(str(folder))
    return origin_of(registry().backbone("resnet18"), None, config, None, {})


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    import os

    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


TARGETS: Mapping[str, Target] = {
    "coco": Target(_coco, _dataset),
    "yolo": Target(_yolo, _dataset),
    "voc": Target(_voc, _dataset),
    "darknet": Target(_darknet, _dataset),
    "cvat": Target(_cvat, _dataset),
    "label_studio": Target(_label_studio, _dataset),
    "csv": Target(_csv, _dataset),
    "labels": Target(_labels, _dataset),
    "masks": Target(_masks, _dataset),
    "nnunet": Target(_nnunet, _dataset),
    "png": Target(_image("png"), _decoded),
    "jpg": Target(_image("jpg"), _decoded),
    "webp": Target(_image("webp"), _decoded),
    "tif": Target(_image("tif"), _decoded),
    "overlay": Target(_overlay, _overlaid),
    "catalogue": Target(_catalogue, _catalogued),
    "tensors": Target(_tensors, _read_tensors),
    "lock": Target(_lock, _pins),
    **{kind: Target(_foreign(kind), _origin) for kind in FOREIGN},
}
