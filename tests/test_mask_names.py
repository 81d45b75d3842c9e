"""Masks find their images by the names of common tools, with the right class numbers and pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo.data import Dataset, read
from zoo.data.class_table import classes_of, colours_of, read_table, values_of
from zoo.data.masks import IGNORE, read_mask
from zoo.errors import DataError
from zoo.targets.check_masks import check_masks

SIZE = (10, 16)
CLASSES = ("sky", "tree", "road")


def truth(number: int) -> np.ndarray:
    """Return the class numbers of an image: other pixels for each, so that no mask can stand for another."""
    classes = np.zeros(SIZE, np.uint8)
    classes[1 + number : 4 + number, 2:9], classes[6:9, 10 : 13 + number] = 1, 2
    return classes


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def photo(path: Path, number: int = 0) -> Path:
    noise = np.random.default_rng(number).integers(60, 200, (*SIZE, 3))
    return save(path, noise)


def pairs(root: Path, image: str, mask: str, values: tuple[int, ...] = (0, 1, 2)) -> None:
    """Draw three images and their masks; `{}` stands for the number."""
    for number in range(3):
        photo(root / image.format(number), number)
        save(root / mask.format(number), np.array(values)[truth(number)])


def classes(root: Path) -> None:
    (root / "classes.txt").write_text("\n".join(CLASSES))


def correct(dataset: Dataset, expected: tuple[str, ...] = CLASSES, count: int = 3) -> None:
    """Assert that each image, which has its number as the only digit in its name, has its own mask."""
    checked, report = check_masks(dataset, "error")
    assert checked.classes == expected and len(checked) == count and not report.faults
    for sample in checked:
        number = int(next(letter for letter in sample.image.stem if letter in "012"))
        assert (read_mask(sample.target) == truth(number)).all(), sample.id


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("photo{}.jpg", "photo{}.jpg.png"),
        ("photo{}.jpg", "mask_photo{}.png"),
        ("photo{}.jpg", "photo{}_segmentation.png"),
        ("photo{}.jpg", "photo{}_mask.png"),
        ("photo{}.jpg", "photo{}_L.png"),
        ("photo{}.jpg", "photo{}_gt.png"),
        ("photo{}.jpg", "photo{}-labels.png"),
        ("photo{}.JPG", "Photo{}_GT.PNG"),
        ("photo{}.jpg", "gt-photo{}.jpg.png"),
        ("photo{}_image.jpg", "photo{}_mask.png"),
        ("image_{}.jpg", "label_{}.png"),
        ("photo{}_sat.jpg", "photo{}_mask.bmp"),
        ("photo{}_0000.png", "photo{}.png"),
        ("b/deep/photo{}.jpg", "b/deep/photo{}.png"),
        ("b/photo{}.jpg", "photo{}_mask.png"),
    ],
)
def test_names_of_masks_in_a_folder_of_their_own(tmp_path: Path, image: str, mask: str):
    pairs(tmp_path, f"images/{image}", f"masks/{mask}")
    classes(tmp_path)
    correct(read(tmp_path)["all"])


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("photo{}.jpg", "photo{}_mask.png"),
        ("p/photo{}.jpg", "p/photo{}.jpg_gt.png"),
        ("photo{}_sat.jpg", "photo{}_mask.png"),
    ],
)
def test_masks_beside_their_images(tmp_path: Path, image: str, mask: str):
    """As Roboflow and several public datasets have them; never classes of a classifier."""
    for split in ("train", "valid"):
        pairs(tmp_path, f"{split}/{image}", f"{split}/{mask}")
        (tmp_path / split / "_classes.csv").write_text("Pixel Value, Class\n0, sky\n1, tree\n2, road\n")
    found = read(tmp_path)
    assert list(found) == ["train", "val"]
    for part in found.values():
        correct(part)
    for kind in ("benign", "malignant"):
        pairs(tmp_path / "scans", f"{kind}/{image}", f"{kind}/{mask}")
    with pytest.raises(DataError, match=r"in benign/ images have masks beside them, e.g. .*photo0"):
        read(tmp_path / "scans", kinds=("class",))
    classes(tmp_path / "scans")
    correct(read(tmp_path / "scans", kinds=("masks",))["all"], count=6)


def test_lists_of_values_names_and_colours(tmp_path: Path):
    def rows(name: str, text: str):
        (tmp_path / name).write_text(text)
        table = read_table(tmp_path / name)
        return classes_of(table), values_of(table)

    values = ((0, 0), (2, 1), (7, 2), (255, IGNORE))
    for name, text in {
        "_classes.csv": "Pixel Value, Class\n7, road\n0, sky\n2, tree\n",
        "classes.csv": "name,id\nsky,0\ntree,2\nroad,7\n",
        "labels.txt": "0: sky\n2: tree\n7: road\n",
        "id2label.json": json.dumps({"0": "sky", "2": "tree", "7": "road"}),
        "classes.json": json.dumps({"tree": 2, "sky": 0, "road": 7}),
    }.items():
        assert rows(name, text) == (CLASSES, values), name
    plain = ((0, 0), (1, 1), (2, 2), (255, IGNORE))
    assert rows("classes.json", '["sky", "tree", "road"]') == (CLASSES, plain)
    assert rows("labels.txt", "0 sky\n1 tree\n2 road\n") == (CLASSES, plain)
    assert rows("labels.txt", "2 wheeler\n4 wheeler\n")[0] == ("2 wheeler", "4 wheeler")
    assert rows("labels.txt", "0 sky\n1 tree\n2 ignore\n") == (
        ("sky", "tree"),
        ((0, 0), (1, 1), (2, IGNORE), (255, IGNORE)),
    )
    (tmp_path / "classes.json").write_text('{"sky": [0, 0, 0], "tree": [1, 2, 3]}')
    assert colours_of(read_table(tmp_path / "classes.json")) == ((0, 0), (1 + 256 * 2 + 65536 * 3, 1))
    for text, said in (
        ('{"sky": 1, "tree": 1}', "value 1 occurs twice"),
        ('{"sky": "blue"}', "as a list of names, or"),
    ):
        (tmp_path / "classes.json").write_text(text)
        with pytest.raises(DataError, match=said):
            read_table(tmp_path / "classes.json")


def test_a_broken_list_of_classes_is_named(tmp_path: Path):
    """It is no reason to take the values for objects."""
    pairs(tmp_path, "images/{}.jpg", "masks/{}.png")
    (tmp_path / "classes.txt").write_text("sky\nsky\n")
    with pytest.raises(DataError, match="'sky' occurs twice"):
        read(tmp_path, kinds=("masks",))
    (tmp_path / "classes.txt").unlink()
    for folder, text in (("images", "a\nb\n"), ("masks", "b\na\n")):
        (tmp_path / folder / "classes.txt").write_text(text)
    with pytest.raises(DataError, match="differ, but all masks need one list"):
        read(tmp_path, kinds=("masks",))


def nnunet(root: Path, labels: object = None, end: str = "_0000.png") -> Path:
    pairs(root, f"imagesTr/case{{}}{end}", "labelsTr/case{}.png")
    labels = labels or {"background": 0, "tree": 1, "road": 2}
    (root / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": {"0": "R"}, "numTraining": 3}))
    return root


def test_nnunet(tmp_path: Path):
    expected = ("background", "tree", "road")
    correct(read(nnunet(tmp_path / "2"))["all"], expected)
    correct(read(nnunet(tmp_path / "1", {"0": "background", "1": "tree", "2": "road"}))["all"], expected)
    pairs(tmp_path / "1", "imagesTs/case{}_0000.png", "labelsTs/case{}.png")
    assert list(read(tmp_path / "1")) == ["train", "test"]
    correct(read(tmp_path / "1")["test"], expected)
    ignoring = read(nnunet(tmp_path / "3", {"background": 0, "tree": 1, "ignore": 2}))["all"]
    assert ignoring.classes == ("background", "tree")
    assert (read_mask(ignoring[1].target) == np.array([0, 1, IGNORE])[truth(1)]).all()


def test_faults_of_nnunet(tmp_path: Path):
    with pytest.raises(DataError, match="'whole' is a region of several values"):
        read(nnunet(tmp_path / "a", {"background": 0, "whole": [1, 2]}))
    photo(nnunet(tmp_path / "b") / "imagesTr/case0_0001.png")
    with pytest.raises(DataError, match="several files for the channels of an image, e.g. case0_0001.png"):
        read(tmp_path / "b")
    photo(nnunet(tmp_path / "c") / "imagesTr/more_0000.png")
    with pytest.raises(DataError, match=r"1 file has no mask in .*labelsTr, e.g. .*more_0000.png"):
        read(tmp_path / "c")
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / "d" / folder).mkdir(parents=True)
        (tmp_path / "d" / folder / "x.nii.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"holds 1 file \(1 .gz\), but zoo reads 2D images only"):
        read(tmp_path / "d")


def cityscapes(root: Path, kind: str, values: tuple[int, ...], split: str = "train", gt: str = "gtFine") -> None:
    image = f"leftImg8bit/{split}/aachen/aachen_{{}}_leftImg8bit.png"
    pairs(root, image, f"{gt}/{split}/aachen/aachen_{{}}_{gt}_{kind}.png", values)


def test_cityscapes(tmp_path: Path):
    table = np.array([IGNORE, 0, 13], np.uint8)
    for name, kind, values, gt in (
        ("ids", "labelIds", (4, 7, 26), "gtFine"),
        ("trained", "labelTrainIds", (255, 0, 13), "gtFine"),
        ("coarse", "labelIds", (0, 7, 26), "gtCoarse"),
    ):
        root = tmp_path / name
        for split in ("train", "val"):
            cityscapes(root, kind, values, split, gt)
            # What Cityscapes also holds.
            for other in ("color", "instanceIds"):
                photo(root / gt / split / "aachen" / f"aachen_0_{gt}_{other}.png")
        cityscapes(root, kind, (values[0],) * 3, "test", gt)
        found = read(root)
        assert list(found) == ["train", "val"] and "the masks hold only ignored pixels" in found["train"].notes[0]
        for part in found.values():
            data, report = check_masks(part, "error")
            assert len(data.classes) == 19 and data.classes[13] == "car" and len(data) == 3
            assert all((read_mask(s.target) == table[truth(number)]).all() for number, s in enumerate(data))
    (tmp_path / "ids/gtFine/val/aachen/aachen_1_gtFine_labelIds.png").unlink()
    with pytest.raises(DataError, match=r"val: 1 of 3 images in .* have no \*_labelIds.png in .*aachen_1_leftImg8bit"):
        read(tmp_path / "ids")


def test_cityscapes_as_it_is_unpacked(tmp_path: Path):
    cityscapes(tmp_path / "gtFine_trainvaltest", "labelIds", (4, 7, 26))
    (tmp_path / "gtFine_trainvaltest/leftImg8bit").rename(tmp_path / "leftImg8bit_trainvaltest")
    (tmp_path / "moved").mkdir()
    (tmp_path / "leftImg8bit_trainvaltest").rename(tmp_path / "moved/leftImg8bit")
    (tmp_path / "moved").rename(tmp_path / "leftImg8bit_trainvaltest")
    assert len(read(tmp_path)["train"]) == 3


def test_splits_of_images_alone(tmp_path: Path):
    """The masks lie in one folder, the images in those of their splits."""
    pairs(tmp_path, "images/train/{}.jpg", "masks/{}.png")
    (tmp_path / "images/val").mkdir()
    (tmp_path / "images/train/2.jpg").rename(tmp_path / "images/val/2.jpg")
    classes(tmp_path)
    found = read(tmp_path)
    assert list(found) == ["train", "val"]
    correct(found["train"], count=2)
    correct(found["val"], count=1)


def test_folders_of_other_names_by_their_content(tmp_path: Path):
    for split in ("train", "test"):
        pairs(tmp_path, f"{split}/Original/{{}}.jpg", f"{split}/Truth/{{}}.png")
    classes(tmp_path)
    found = read(tmp_path)
    assert list(found) == ["train", "test"]
    correct(found["test"])


def test_folders_of_cvats_camvid(tmp_path: Path):
    pairs(tmp_path, "default/{}.jpg", "defaultannot/{}.png")
    (tmp_path / "label_colors.txt").write_text("0 0 0 sky\n128 0 0 tree\n0 128 0 road\n")
    correct(read(tmp_path)["all"])


def test_lists_of_images_and_masks(tmp_path: Path):
    """CSV, JSON and text, of tools that keep both anywhere; also with the paths of another machine."""
    rows = [(f"a/scan{n}.jpg", f"b/truth_of_{n}.png") for n in range(3)]
    entries = [{"image": image, "mask": mask, "split": "train"} for image, mask in rows]
    contents = {
        "list.csv": "image,mask,split\n" + "".join(f"{i},{m},train\n" for i, m in rows),
        "monai.csv": "image;label;split\n" + "".join(f"{i};{m};train\n" for i, m in rows),
        "list.json": json.dumps(entries),
        "monai.json": json.dumps({"training": [{"image": i, "label": m} for i, m in rows]}),
        "list.tsv": "file_name\tmask_path\tsplit\n" + "".join(f"/data/set/{i}\t..\\x\\{m}\ttrain\n" for i, m in rows),
    }
    pairs(tmp_path, "a/scan{}.jpg", "b/truth_of_{}.png")
    classes(tmp_path)
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        for place in (tmp_path / name, tmp_path):
            found = read(place)
            assert list(found) == ["train"], name
            correct(found["train"])
            assert ("found below" in " ".join(found["train"].notes)) == (name == "list.tsv")
        (tmp_path / name).unlink()
    (tmp_path / "map.json").write_text(json.dumps(dict(rows)))
    correct(read(tmp_path / "map.json")["all"])
    (tmp_path / "map.json").unlink()
    for split, chosen in (("train", rows[:2]), ("val", rows[2:])):
        (tmp_path / f"{split}.txt").write_text("".join(f"{i} {m}\n" for i, m in chosen))
    found = read(tmp_path)
    correct(found["train"], count=2)
    correct(found["val"], count=1)


def test_faults_of_lists(tmp_path: Path):
    pairs(tmp_path, "a/{}.jpg", "b/{}.png")
    classes(tmp_path)
    for line, said in (
        ("a/9.jpg,b/1.png,val", "line 3: the image 'a/9.jpg' does not exist"),
        ("a/1.jpg,b/9.png,val", "line 3: the mask 'b/9.png' does not exist"),
        ("a/1.jpg,b/1.png,later", "line 3: the split 'later' is unknown"),
        ("a/0.jpg,b/1.png,train", "occurs twice with different targets: in .*line 2.* and in .*line 3"),
        ("else/a/0.jpg,b/1.png,train", "line 3: 'else/a/0.jpg' and 'a/0.jpg' are the same file"),
    ):
        (tmp_path / "list.csv").write_text(f"image,mask,split\na/0.jpg,b/0.png,train\n{line}\n")
        with pytest.raises(DataError, match=said):
            read(tmp_path / "list.csv")


def test_a_list_overrules_the_folders_and_lists_of_names_split_them(tmp_path: Path):
    pairs(tmp_path, "images/photo{}.jpg", "masks/photo{}.png")
    classes(tmp_path)
    (tmp_path / "train.txt").write_text("photo0\nphoto2\n")
    (tmp_path / "val.txt").write_text("images/photo1.jpg\n")
    found = read(tmp_path)
    assert {split: len(part) for split, part in found.items()} == {"train": 2, "val": 1}
    correct(found["train"], count=2)
    (tmp_path / "data.csv").write_text("image,mask,split\nimages/photo1.jpg,masks/photo1.png,test\n")
    found = read(tmp_path)
    assert list(found) == ["test"]
    correct(found["test"], count=1)
