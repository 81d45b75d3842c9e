"""The demonstration: its drawings, the packaged weights, and that transfer beats training from scratch."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.demo.compare import WEIGHTS, compare
from zoo.demo.draw import DEMO, PRETRAIN, SIDE, draw, draw_folder
from zoo.errors import RunError
from zoo.labels import names
from zoo.registry import registry


def digests(folder: Path) -> dict[str, str]:
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*.png"))
    }


def packaged() -> Path:
    row = registry().weights(WEIGHTS)
    return Path(zoo.__file__).parent / row.source.removeprefix("zoo://") / row.file


def test_drawings_depend_on_seed_class_and_number_alone(tmp_path):
    few = digests(draw_folder(tmp_path / "few", DEMO, 2, seed=5))
    more = digests(draw_folder(tmp_path / "more", {"key": DEMO["key"], **PRETRAIN}, 3, seed=5))
    other = digests(draw_folder(tmp_path / "other", DEMO, 2, seed=6))
    assert len(few) == 2 * len(DEMO) == len(set(few.values()))
    assert {name: more[name] for name in few if name.startswith("key/")}.items() <= few.items()
    assert not set(few.values()) & set(other.values())


def test_colours_say_nothing_about_the_class():
    means = {
        name: np.mean([draw(shape, np.random.default_rng((1, i))).mean((0, 1)) for i in range(40)], axis=0)
        for name, shape in DEMO.items()
    }
    spread = np.ptp(np.array(list(means.values())), axis=0)
    assert spread.max() < 20  # grey levels; single drawings differ by hundreds


def test_the_families_have_no_class_and_no_outline_in_common():
    assert not DEMO.keys() & PRETRAIN.keys()
    outlines = [repr(shape) for shape in (*PRETRAIN.values(), *DEMO.values())]
    assert len(set(outlines)) == len(outlines)


def test_the_weights_are_small_and_the_ones_the_catalogue_names():
    row = registry().weights(WEIGHTS)
    assert packaged().stat().st_size <= 1_000_000
    assert hashlib.sha256(packaged().read_bytes()).hexdigest() == row.sha256
    assert names(row.labels) == tuple(PRETRAIN) and row.num_classes == len(PRETRAIN)
    assert row.preprocess.size == (SIDE, SIDE)


def test_they_work_offline_and_know_their_own_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    model = zoo.create(WEIGHTS, "classifier")
    assert model.labels == tuple(PRETRAIN)
    data = draw_folder(tmp_path / "drawings", PRETRAIN, 4, seed=99)
    files = sorted(data.rglob("*.png"))
    right = [found.label == file.parent.name for file, found in zip(files, model.predict(files), strict=True)]
    assert np.mean(right) > ACCURACY
    assert zoo.create(WEIGHTS, "classifier", labels=["a", "b"]).labels == ("a", "b")


ACCURACY = 0.5
"""That the packaged weights surely reach on new drawings of their own 24 classes."""


def test_transfer_beats_scratch_and_leaves_a_picture(tmp_path):
    said: list[str] = []
    found = compare(tmp_path / "demo", seed=1, tests=10, epochs=8, say=said.append)
    accuracies = found.accuracies()
    assert accuracies["pretrained"] > accuracies["from scratch"] + 0.15
    assert {run.metrics["train_images"] for run in found.runs.values()} == {36}
    assert len({run.metrics["epochs"] for run in found.runs.values()}) == 1
    assert np.asarray(Image.open(found.picture)).shape[1] > 1000
    assert len(said) == 3
    assert zoo.load(found.runs["pretrained"].folder).labels == tuple(DEMO)


def test_it_replaces_a_demonstration_and_nothing_else(tmp_path):
    (tmp_path / "demo.txt").write_text("mine")
    with pytest.raises(RunError, match="is not an earlier demonstration"):
        compare(tmp_path)
    assert (tmp_path / "demo.txt").read_text() == "mine"
