"""Files that cannot be read: all named at once, or left out up to a limit, in every format of data."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import damage, read
from zoo.data.check import checked
from zoo.data.damage import Later, all_named, files_of, naming_all, readable, unreadable
from zoo.data.sound import Sound
from zoo.errors import ConfigError, DataError, LateError, UnreadableError
from zoo.training.data import training_pool

COUNT, SIDE = 24, 40


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "zoo-cache"))


def photo(file: Path, number: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(pixels).save(file, quality=90)


def mask(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((SIDE, SIDE), np.uint8)
    pixels[5:20, 5:25] = value
    Image.fromarray(pixels).save(file)


def classes(root: Path) -> None:
    for i in range(COUNT):
        photo(root / "ab"[i % 2] / f"{i}.jpg", i)


def table(root: Path) -> None:
    for i in range(COUNT):
        photo(root / f"{i}.jpg", i)
    (root / "labels.csv").write_text("\n".join(["image,label", *(f"{i}.jpg,{'ab'[i % 2]}" for i in range(COUNT))]))


def coco(root: Path) -> None:
    """Without the sizes of the images, which are then read from the files."""
    for i in range(COUNT):
        photo(root / f"{i}.jpg", i)
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(COUNT)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "bbox": [2, 3, 20, 20]} for i in range(COUNT)],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (root / "instances.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    (root / "labels").mkdir(parents=True)
    for i in range(COUNT):
        photo(root / "images" / f"{i}.jpg", i)
        (root / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.25 0.5\n")
    (root / "data.yaml").write_text("names: [cell]\n")


def voc(root: Path) -> None:
    """A VOC annotation as tools write it that do not open the image: with a size of 0."""
    (root / "Annotations").mkdir(parents=True)
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    for i in range(COUNT):
        photo(root / "JPEGImages" / f"{i}.jpg", i)
        size = "<size><width>0</width><height>0</height><depth>3</depth></size>"
        text = f"<annotation>{size}<object><name>cell</name>{box}</object></annotation>"
        (root / "Annotations" / f"{i}.xml").write_text(text)


def masks(root: Path) -> None:
    for i in range(COUNT):
        photo(root / "images" / f"{i}.jpg", i)
        mask(root / "masks" / f"{i}.png", 1)
    (root / "classes.txt").write_text("background\ncell\n")


def black_and_white(root: Path) -> None:
    masks(root)
    (root / "classes.txt").unlink()
    for i in range(COUNT):
        mask(root / "masks" / f"{i}.png", 255)


LAYOUTS: dict[Callable[[Path], None], tuple[str, str]] = {
    classes: ("a/2.jpg", "b/7.jpg"),
    table: ("2.jpg", "7.jpg"),
    coco: ("2.jpg", "7.jpg"),
    yolo: ("images/2.jpg", "images/7.jpg"),
    voc: ("JPEGImages/2.jpg", "JPEGImages/7.jpg"),
    masks: ("images/0.jpg", "masks/7.png"),
    black_and_white: ("images/2.jpg", "masks/0.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_all_damaged_files_are_named_or_left_out(layout: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "data"
    layout(root)
    whole = read(root)["all"]
    labels = {sample.id: whole.labels(sample) for sample in whole}
    assert readable({"all": whole}).splits == {"all": whole}
    cut, page = (root / name for name in LAYOUTS[layout])
    cut.write_bytes(cut.read_bytes()[:-60])
    page.write_text("<html>403</html>")
    splits = read(root)
    assert training_pool(splits) is splits["all"]  # what the command line asks for first reads no files
    with pytest.raises(DataError) as caught:
        readable(splits)
    lines = str(caught.value).splitlines()
    assert "2 of 24 images of data cannot be used" in lines[0] and "--on-corrupt skip" in lines[-1]
    assert {line.split()[0] for line in lines[1:-1]} == {str(cut), str(page)}
    left = readable(splits, "skip")
    lost = {sample.id for sample in whole} - {sample.id for sample in left.splits["all"]}
    assert len(lost) == 2 and left.left_out == {"all": [s.id for s in whole if s.id in lost]}
    stems = {Path(one).stem for one in LAYOUTS[layout]}
    assert {Path(one).stem for one in lost} == stems
    assert left.notes == (
        f"data: 2 of 24 images left out, because files cannot be read: {', '.join(left.left_out['all'])}.",
    )
    kept, _ = checked(left.splits)
    assert {sample.id: kept["all"].labels(sample) for sample in kept["all"]} == {
        id: one for id, one in labels.items() if id not in lost
    }
    resumed = readable({"all": whole}, "error", left.left_out)  # repaired meanwhile, but left out by the run before
    assert resumed.splits == left.splits and resumed.left_out == left.left_out and resumed.notes == left.notes


def test_limits_of_leaving_out(tmp_path: Path) -> None:
    classes(tmp_path)
    (tmp_path / "a" / "0.jpg").write_bytes(b"")
    (tmp_path / "a" / "2.jpg").unlink()
    os.mkfifo(tmp_path / "a" / "2.jpg")
    assert len(readable(read(tmp_path), "skip").splits["all"]) == COUNT - 2
    (tmp_path / "b" / "1.jpg").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"(?s)3 of 24 images.*0.jpg is empty.*2.jpg .*named pipe.*more than a tenth"):
        readable(read(tmp_path), "skip")
    with pytest.raises(ConfigError, match="on_corrupt is 'drop'; accepted: error, skip"):
        readable(read(tmp_path), "drop")
    whole = read(tmp_path)["all"]
    parts = {"train": whole.subset(range(12), "train"), "val": whole.subset(range(12, 24), "val")}
    with pytest.raises(DataError, match=r"2 of 12 images of train and 1 of 12 images of val cannot be used"):
        readable(parts)


def test_a_class_is_never_lost(tmp_path: Path) -> None:
    classes(tmp_path)
    photo(tmp_path / "rare" / "0.jpg", 99)
    assert readable(read(tmp_path), "skip").notes == ()
    (tmp_path / "rare" / "0.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match="no image of 'rare', so nothing is left out"):
        readable(read(tmp_path), "skip")


def test_of_many_files_all_names_are_said(tmp_path: Path) -> None:
    table(tmp_path)
    for i in range(COUNT):
        (tmp_path / f"{i}.jpg").write_bytes(b"%PDF")
    with pytest.raises(DataError) as caught:
        readable(read(tmp_path))
    assert all(f"{i}.jpg" in str(caught.value) for i in range(COUNT)) and "and 4 more files: " in str(caught.value)


def test_large_data_are_decoded_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers are read at once; what is damaged inside is found in the background, or when it is met."""
    monkeypatch.setattr(damage, "WHOLE", 1000)
    table(tmp_path)
    splits = read(tmp_path)
    for i in (3, 9):
        file = tmp_path / f"{i}.jpg"
        file.write_bytes(file.read_bytes()[:-60])
    found = readable(splits)
    assert not found.whole and found.splits == splits
    assert len(readable(splits, "skip").splits["all"]) == COUNT - 2  # leaving out means decoding all
    later = Later([splits["all"].subset(range(6), "val"), splits["all"].subset(range(6, COUNT), "test")])
    with pytest.raises(DataError, match=r"(?s)1 of 6 images of val and 1 of 18 images of test .*3.jpg.*9.jpg"):
        later.wait()
    with pytest.raises(DataError, match="9.jpg"):
        later.check()
    met = UnreadableError(str(tmp_path / "9.jpg"), "is a damaged JPEG.")
    assert "3.jpg" in str(all_named(met, [splits["all"]])) and "More may" not in str(all_named(met, [splits["all"]]))
    with pytest.raises(DataError, match="(?s)3.jpg.*9.jpg"), naming_all([splits["all"]]):
        raise met
    other = UnreadableError("style.jpg", "is empty.")
    assert all_named(other, [splits["all"]]) is other
    (tmp_path / "3.jpg").write_text("no image")  # a header
    with pytest.raises(DataError, match=r"1 of 24 images"):
        readable(splits)
    clean = Later([splits["all"].subset([0], "val")])
    clean.wait()
    clean.stop()


def test_what_was_decoded_is_remembered_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(64):
        photo(tmp_path / "data" / f"{i}.png", i)
    files = [tmp_path / "data" / f"{i}.png" for i in range(64)]
    decoded: list[Path] = []
    real = damage.check_pixels
    monkeypatch.setattr(damage, "check_pixels", lambda file: (decoded.append(file), real(file))[1])
    assert unreadable(files) == {} and len(decoded) == 64
    assert unreadable(files) == {} and len(decoded) == 64
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[0].read_bytes())
    assert unreadable([copy]) == {} and len(decoded) == 64
    flipped = bytearray(files[5].read_bytes())
    flipped[len(flipped) // 2] ^= 1
    stamp = os.stat(files[5]).st_mtime_ns
    files[5].write_bytes(bytes(flipped))
    os.utime(files[5], ns=(stamp, stamp))
    assert list(unreadable(files)) == [files[5]] and len(decoded) == 65
    assert Sound().knows(files[6]) and not Sound().knows(files[5])
    for cache in (tmp_path / "a-file", Path("/proc/nowhere")):  # without a cache it is decoded again
        (tmp_path / "a-file").write_text("")
        monkeypatch.setenv("ZOO_CACHE", str(cache))
        assert list(unreadable(files)) == [files[5]]
    assert len(decoded) == 65 + 2 * 64


def test_a_drive_that_is_gone_is_not_waited_for_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(file: Path) -> None:
        time.sleep(0.01)
        raise LateError(str(file), "cannot be read: nothing came for 60 seconds.")

    monkeypatch.setattr(damage, "check_pixels", gone)
    found = unreadable([tmp_path / f"{i}.jpg" for i in range(500)])
    assert damage.LATE < len(found) <= damage.LATE + 4
    table(tmp_path)
    later = Later([read(tmp_path)["all"]])
    with pytest.raises(DataError, match="0.jpg cannot be read: nothing came"):
        later.wait()


def test_annotations_are_regular_files_too(tmp_path: Path) -> None:
    voc(tmp_path / "voc")
    (tmp_path / "voc" / "Annotations" / "3.xml").unlink()
    os.mkfifo(tmp_path / "voc" / "Annotations" / "3.xml")
    with pytest.raises(DataError, match="3.xml cannot be read: it is a named pipe"):
        read(tmp_path / "voc")
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(DataError, match="labels.csv is a named pipe. Give the folder or file of a dataset"):
        read(tmp_path / "labels.csv")


def test_files_of_a_dataset(tmp_path: Path) -> None:
    masks(tmp_path)
    assert {file.parent.name for file in files_of(read(tmp_path)["all"])} == {"images", "masks"}
