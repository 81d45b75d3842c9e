"""Which files are data: all that the decoder reads, nothing of the system's, and what is left out is counted."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from zoo.data import decode, list_images, read
from zoo.data.decode import suffixes
from zoo.data.files import is_image, subfolders, walk


def draw(path: Path, format: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (250, 20, 20)).save(path, format)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of three images."""
    for kind in ("a", "b"):
        for i in range(3):
            draw(tmp_path / "data" / kind / f"{kind}{i}.png")
    return tmp_path / "data"


def counts(folder: Path) -> dict[str, int]:
    return read(folder)["all"].counts()


@pytest.mark.parametrize(
    ("suffix", "format", "needs"),
    [
        (".jfif", "JPEG", None),
        (".JPE", "JPEG", None),
        (".jp2", "JPEG2000", "jpg_2000"),
        (".avif", "AVIF", "avif"),
        (".webp", "WEBP", "webp"),
        (".tga", "TGA", None),
        (".pbm", None, None),
        (".ico", "ICO", None),
    ],
)
def test_all_that_the_decoder_reads_is_taken(folder: Path, suffix: str, format: str | None, needs: str | None):
    if needs and not features.check(needs):
        pytest.skip(f"this Pillow has no {needs}")
    file = draw(folder / "a" / f"x{suffix}", format)
    assert counts(folder) == {"a": 4, "b": 3}
    assert np.abs(decode(file).mean((0, 1)) - (250, 20, 20)).max() < 12 or suffix == ".pbm"


def test_what_it_does_not_read_is_no_image():
    assert not {".pdf", ".mp4", ".mpg", ".h5", ".eps", ".txt", ".heic", ""} & suffixes()
    assert {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".mpo"} <= suffixes()


def test_what_is_left_out_is_counted_by_suffix_and_reason(folder: Path):
    for name in ("a/phone.heic", "b/phone.HEIC", "b/notes.txt", "README.md", "labels.txt"):
        (folder / name).write_bytes(b"x")
    draw(folder / "loose.png")
    for name in ("a/@eaDir/t.png", "b/.ipynb_checkpoints/b0.png", "a/._a0.png"):
        draw(folder / name)
    data = read(folder)["all"]
    assert data.counts() == {"a": 3, "b": 3}
    assert data.notes == (
        "data: 7 files left out: 1 .png without a sample; 2 .heic, 1 .txt not readable as images; "
        "3 .png hidden or in system folders (._a0.png, .ipynb_checkpoints/, @eaDir/).",
    )


@pytest.mark.parametrize(
    "name",
    ["@eaDir", "$RECYCLE.BIN", "lost+found", "LOST+FOUND", ".ipynb_checkpoints", "__MACOSX", ".Trashes", "#recycle"],
)
def test_folders_of_the_system_are_no_classes(folder: Path, name: str):
    draw(folder / name / "x.png")
    draw(folder / "a" / name / "x.png")
    (folder / "Thumbs.db").write_bytes(b"x")
    assert counts(folder) == {"a": 3, "b": 3} and not is_image(".x.png")
    assert len(list_images(folder)) == 6


def test_links_in_circles_are_not_data(folder: Path):
    outside = folder.parent / "outside"
    draw(outside / "c.png")
    (outside / "back").symlink_to(folder)
    for place, target in {"self": ".", "a/up": "..", "b/me": ".", "b/root": folder, "a/out": outside}.items():
        (folder / place).symlink_to(target)
    assert [file.relative_to(folder).as_posix() for file in walk(folder)] == [
        *(f"a/a{i}.png" for i in range(3)),
        "a/out/c.png",
        *(f"b/b{i}.png" for i in range(3)),
    ]
    assert [inner.name for inner in subfolders(folder)] == ["a", "b"]
    assert counts(folder) == {"a": 4, "b": 3}


def test_images_that_a_list_does_not_name_are_said(folder: Path):
    (folder / "data.csv").write_text("image,label\na/a0.png,a\nb/b0.png,b\n")
    data = read(folder, format="csv")["all"]
    assert len(data) == 2 and data.notes == ("data: 4 files left out: 4 .png without a sample.",)


def test_names_in_two_unicode_forms_are_one_class(tmp_path: Path):
    """macOS and its archives write `é` as two characters; on Linux that is another name."""
    composed, apart = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for split, name, number in (("train", composed, 0), ("val", apart, 1), ("train", apart, 2)):
        draw(tmp_path / split / name / f"{number}.png")
        draw(tmp_path / split / "tea" / f"{number}.png")
    found = read(tmp_path)
    assert {part.classes for part in found.values()} == {(composed, "tea")}
    assert {split: part.counts() for split, part in found.items()} == {
        "train": {composed: 2, "tea": 2},
        "val": {composed: 1, "tea": 1},
    }


def test_classes_that_differ_by_case_or_spaces_are_pointed_out(tmp_path: Path):
    for number, name in enumerate(("Cat", "cat", "hot dog", "hotdog")):
        draw(tmp_path / name / f"{number}.png")
    data = read(tmp_path)["all"]
    assert data.classes == ("Cat", "cat", "hot dog", "hotdog")
    assert [note.partition(" differ ")[0] for note in data.notes] == [
        f"{tmp_path.name}: the classes 'Cat' and 'cat'",
        f"{tmp_path.name}: the classes 'hot dog' and 'hotdog'",
    ]
