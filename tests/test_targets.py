"""Kinds of target and natures of arrays: those that come with zoo, and those that somebody adds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from points_kit import MOVES, POINTS, ROWS, SIDE, assert_marks_fit, marked

from zoo import targets
from zoo.data import Dataset, Sample, kfold, split, suited
from zoo.data.augment import Augment, augment, identity, unmoved
from zoo.data.check import checked
from zoo.data.dataset import Kind
from zoo.data.unique import listed
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.targets.base import Opaque, TargetKind
from zoo.targets.faults import Report
from zoo.targets.spatial.base import Geometry, Shown, Spatial
from zoo.training.sources import mirrored_targets


@pytest.fixture(autouse=True)
def own_tables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds is gone after it."""
    monkeypatch.setattr(targets, "_ADDED", {point: dict(added) for point, added in targets._ADDED.items()})
    yield


class Ranked(TargetKind):
    """Classes in the order of preference."""

    name = "ranked"
    labelled = True
    made_from = ("class",)

    def labels(self, target: Any) -> tuple[int, ...]:
        return tuple(target)

    def mapped(self, target: Any, mapping: Any) -> Any:
        return tuple(mapping[i] for i in target)

    def checked(self, dataset: Dataset, policy: Any) -> tuple[Dataset, Report]:
        rows = [i for i, sample in enumerate(dataset) if len(set(sample.target)) == len(sample.target)]
        return dataset.subset(rows, dataset.name), Report(dataset.name, len(dataset), ())

    def files(self, target: Any) -> tuple[Path, ...]:
        return (Path(__file__),)

    def merged(self, one: Any, other: Any) -> Any:
        return one + other

    def made(self, dataset: Dataset) -> Dataset:
        samples = tuple(Sample(s.image, (s.target,), s.id) for s in dataset)
        return Dataset(samples, dataset.classes, self.name, dataset.name, dataset.root)


def data(folder: Path, kind: Kind, *rows: Any) -> Dataset:
    samples = []
    for i, row in enumerate(rows):
        (folder / f"{i}.png").write_bytes(b"x" * i)
        samples.append(Sample(folder / f"{i}.png", row, f"{i}.png"))
    return Dataset(tuple(samples), ("a", "b", "c"), kind, "toy", folder)


def test_every_kind_says_what_it_is_called():
    assert set(targets.names()) == {"class", "classes", "boxes", "masks", "images"}
    for name in targets.names():
        assert targets.kind(name).name == name and targets.kind(name) is targets.kind(name)
    assert targets.natures() == ("boxes", "mask", "points")
    assert [targets.nature(name).name for name in targets.natures()] == ["boxes", "mask", "points"]
    with pytest.raises(UnknownNameError, match="point"):
        targets.nature("point")


def test_an_added_kind_is_asked_for_everything(tmp_path: Path):
    targets.add(Ranked())
    targets.add(Ranked())  # once more is the same
    rows = [(i % 3, (i + 1) % 3) for i in range(12)]
    ranked = data(tmp_path, "ranked", *rows, (0, 0))
    assert ranked.counts() == {"a": 10, "b": 8, "c": 8} and "ranked" in targets.names()
    kept, notes = checked({"": ranked})
    assert len(kept[""]) == 12 and not notes
    train, val = split(ranked, 0.25)
    assert all(part.counts()[name] for part in (train, val) for name in "abc") and len(kfold(ranked, 3)) == 3
    again = [*ranked, Sample(ranked[0].image, (2,), "again")]
    assert listed(again, ranked.classes, "ranked", "toy", tmp_path)[0].target == (0, 1, 2)
    with pytest.raises(DataError, match="class index 3"):
        data(tmp_path, "ranked", (0, 3))
    assert ranked.fingerprint() != data(tmp_path, "classes", *rows, (0, 0)).fingerprint()


def test_a_kind_can_be_made_from_another(tmp_path: Path):
    targets.add(Ranked())
    single = data(tmp_path, "class", 0, 1)
    assert suited({"all": single}, ("ranked",))["all"].kind == "ranked"
    assert suited({"all": single}, ("ranked", "class"))["all"] is single
    with pytest.raises(DataError, match="kind ranked, which cannot be converted to masks"):
        targets.converted(data(tmp_path, "ranked", (0,)), "masks")


def test_names_are_taken_once():
    class Other(TargetKind):
        name = "class"

    for wrong, said in ((Other(), "already"), (TargetKind(), "no name")):
        with pytest.raises(ConfigError, match=said):
            targets.add(wrong)


def test_of_a_kind_that_nobody_added_nothing_is_known(tmp_path: Path):
    opaque = data(tmp_path, "place", 0.5, 0.25, 1.0, 0.0)
    assert isinstance(opaque.targets, Opaque) and opaque.counts() == {"a": 0, "b": 0, "c": 0}
    assert checked({"": opaque})[0][""] is opaque and len(split(opaque, 0.5)[0]) == 2
    with pytest.raises(ConfigError, match="place.*zoo.targets.add"):
        opaque.targets.mapped(0.5, (0,))


def test_points_move_with_the_pixels():
    seen = gone = 0
    batch = {name: jnp.asarray(value) for name, value in marked().items()}
    for config, size in (
        (Augment(scale=(0.3, 0.9), color=0), (40, 56)),
        (Augment(scale=(0.5, 3.0), color=0, fill=0), 48),
    ):
        for seed in range(8):
            here, lost = assert_marks_fit(augment(config, jax.random.key(seed), batch, size, MOVES))
            seen, gone = seen + here, gone + lost
    assert seen > 120 and gone > 40
    assert_marks_fit(identity(batch, (SIDE, SIDE), MOVES))
    assert assert_marks_fit(identity(batch, (32, 36), MOVES))[1] > 0


def test_mirrored_points_fit_the_mirrored_image():
    batch = marked(1)
    flip = np.arange(ROWS) % 2 == 0
    image = np.where(flip[:, None, None, None], batch["image"][:, :, ::-1], batch["image"])
    places = {name: batch[name] for name in ("points", "point_valid")}
    found = mirrored_targets(places, flip, SIDE, MOVES)
    assert assert_marks_fit({"image": image / 255, **found}) == (3 * ROWS, 0)
    np.testing.assert_array_equal(mirrored_targets(found, flip, SIDE, MOVES)["points"], batch["points"])
    assert mirrored_targets(places, flip, SIDE)["points"] is batch["points"], "nobody said that these are places"


def test_points_in_a_mosaic():
    """Four images, each with its points: as many as in the pictures together."""
    batch = {name: jnp.asarray(value) for name, value in marked(2).items()}
    config = Augment(hflip=False, scale=(1, 1), ratio=(1, 1), color=0, mosaic=1.0)
    out = augment(config, jax.random.key(0), batch, 2 * SIDE, MOVES)
    assert out["points"].shape == (ROWS, 4 * POINTS, 2) and int(out["point_valid"].sum()) == 4 * 3 * ROWS
    for row, valid, image in zip(*(np.asarray(out[name]) for name in ("points", "point_valid", "image")), strict=True):
        for n, (x, y) in enumerate(row):
            assert not valid[n] or image[int(y), int(x), n % POINTS] == 1


def test_what_is_called_otherwise_moves_as_well():
    batch = {name.replace("point", "eye"): value for name, value in marked().items()}
    assert set(batch) == {"image", "eyes", "eye_valid"}
    moves = {"eyes": "points"}
    with pytest.raises(ConfigError, match="eyes, which moves as points and requires eyes_valid"):
        augment(Augment(), jax.random.key(0), batch, SIDE, moves)
    batch["eyes_valid"] = batch.pop("eye_valid")
    out = augment(Augment(scale=(0.5, 1.0), color=0), jax.random.key(0), batch, SIDE, moves)
    assert_marks_fit({"image": out["image"], "points": out["eyes"], "point_valid": out["eyes_valid"]})
    assert unmoved(batch, moves) == [] and unmoved(batch) == ["eyes", "eyes_valid"]


class Bar(Spatial):
    """Where a vertical bar is, as a share of the width, (b, 1)."""

    name = "bar"

    def moved(self, name: str, batch: Any, at: Geometry, shown: Shown) -> dict[str, jax.Array]:
        x = (batch[name] * SIDE - at.left[:, None]) / at.width[:, None]
        return {name: jnp.where(at.flip[:, None], 1 - x, x)}

    def mirrored(self, name: str, batch: Any, flip: np.ndarray, width: int) -> dict[str, np.ndarray]:
        return {name: np.where(flip[:, None], 1 - batch[name], batch[name])}


def test_an_added_nature_moves():
    targets.add_nature(Bar())
    image = np.zeros((4, SIDE, SIDE, 3), np.uint8)
    image[:, :, 20:24] = 255
    batch = {"image": image, "x": np.full((4, 1), 22 / SIDE, np.float32)}
    out = augment(Augment(scale=(0.6, 1.0), color=0), jax.random.key(1), batch, SIDE, {"x": "bar"})
    for pixels, x in zip(np.asarray(out["image"]), np.asarray(out["x"]), strict=True):
        bright = np.flatnonzero(pixels[SIDE // 2, :, 0] > 0.5)
        if len(bright):
            assert abs((bright.mean() + 0.5) / SIDE - x) < 0.02
    assert identity(batch, (SIDE, 32), {"x": "bar"})["x"][0] == pytest.approx(14 / 32)
    flip = np.array([True, False, True, False])
    np.testing.assert_allclose(mirrored_targets(batch, flip, SIDE, {"x": "bar"})["x"][:2, 0], [26 / 48, 22 / 48])
    with pytest.raises(ConfigError, match="x cannot be combined in a mosaic"):
        augment(Augment(mosaic=1.0), jax.random.key(0), batch, SIDE, {"x": "bar"})
    with pytest.raises(ConfigError, match="already"):
        targets.add_nature(type("Mine", (Bar,), {"name": "points"})())
