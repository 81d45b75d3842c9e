"""Names of images in predictions: short where that is clear, and never the same for two images."""

from __future__ import annotations

from pathlib import Path

import pytest

from zoo.cli.output import picture_files
from zoo.data import list_images
from zoo.data.image_names import as_images, names_of
from zoo.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (["d/a"], ["0.png", "1.png"]),
        (["d"], ["2.jpg", "2.png", "a/0.png", "a/1.png", "b/a/0.png"]),
        (["d/a/0.png"], ["0.png"]),
        (["d/a/0.png", "d/b/a/0.png"], ["a/0.png", "b/a/0.png"]),
        (["d/a", "d/b"], ["0.png", "1.png", "a/0.png"]),
        (["d/a", "d/b/a"], ["a/0.png", "a/1.png", "b/a/0.png"]),
        (["d/*/0.png"], ["a/0.png"]),
        (["d/**/0.png"], ["a/0.png", "b/a/0.png"]),
        (["d/a/0.png", "d/a/0.png"], ["0.png", "0.png"]),
        (["d/a", "d/a/0.png"], ["0.png", "1.png", "0.png"]),
    ],
)
def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], names: list[str]) -> None:
    for name in ("a/0.png", "a/1.png", "b/a/0.png", "2.jpg", "2.png"):
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).touch()
    for folder in (tmp_path, tmp_path / "d" / "b"):
        monkeypatch.chdir(folder)
        places = given if folder == tmp_path else [str(tmp_path / place) for place in given]
        files = list_images(places)
        assert names_of(files, places) == names
        assert [sample.image for sample in as_images(files, places)] == list(dict.fromkeys(files))


def test_pictures_have_a_file_each(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jpg", "a.png", "b/a.jpg")]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        file.touch()
    out = tmp_path / "out"
    names = [file.relative_to(out).as_posix() for file in picture_files(files, out, [str(tmp_path)])]
    assert names == ["a.jpg.png", "a.png.png", "b/a.jpg.png"]
    assert [file.name for file in picture_files(files[1:2], out, [str(files[1])])] == ["a.png"]
    with pytest.raises(ConfigError, match="would be overwritten"):
        picture_files(files[1:2], tmp_path, [str(files[1])])
