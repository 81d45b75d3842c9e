"""The segmenter from end to end: it learns, and every pixel's class comes back where it was."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from boxes_kit import FAST, SIDE, installed, pyramidnet  # noqa: F401  (fixtures)
from flax import nnx
from masks_kit import LABELS, create, drawn_masks, scene
from PIL import Image
from training_kit import optimised, own_cache  # noqa: F401  (fixture)

import zoo
import zoo.training.loop
from zoo.adapters.segmenter import Segmenter
from zoo.adapters.segmenter.pictures import colours, indexed, overlay
from zoo.adapters.segmenter.prediction import Look, _bands, _moved, profile, slide, starts
from zoo.cli.app import app
from zoo.data import Dataset, Sample, decode
from zoo.data.masks import IGNORE, Mask, Regions, read_mask
from zoo.data.transform import place
from zoo.dense.originals import labels_of_one
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.models.adapter import ForwardPass
from zoo.models.model import Model
from zoo.registry.spec import Preprocess
from zoo.targets.outlines import Runs
from zoo.training.evaluation import _evaluate
from zoo.training.run import Run

FRAMES = ((32, 64), (64, 32))
SIZES = ((45, 90), (90, 45))
"""Of photos, one for each of two frames; none is square."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return drawn_masks(tmp_path_factory.mktemp("drawn"), 6)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photos of two frames, of which a corner does not count."""
    return drawn_masks(tmp_path_factory.mktemp("mixed"), 4, sizes=SIZES, ignored=True)


@pytest.fixture(scope="module")
def run(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A segmenter that has seen six images only, again and again."""
    out = tmp_path_factory.mktemp("trained") / "run"
    options = {**FAST, "plots": True, "epochs": 50, "lr": 3e-2, "weight_decay": 0.0}
    with optimised():
        return zoo.train(create(), {"train": data, "val": data}, plan="all", out=out, **options)


# Learning ----------------------------------------------------------------------------------------------------------


def test_six_images_are_learned_by_heart(run: Run, data: Dataset) -> None:
    assert run.metrics["miou"] > 0.95 and run.history[0]["miou"] < 0.6
    assert run.metrics["boundary_f1"] > 0.7 and run.metrics["pixel_accuracy"] > 0.98
    assert run.metrics["loss"] == pytest.approx(run.metrics["loss_ce"] + run.metrics["loss_dice"], rel=1e-4)
    for sample, found in zip(data, run.model.predict([s.image for s in data]), strict=True):
        true = read_mask(sample.target)
        assert found.file == str(sample.image) and found.size == true.shape == found.mask.shape
        assert (found.mask == true).mean() > 0.97
        shares = {one.label: one.share for one in found.segments}
        assert sum(shares.values()) == pytest.approx(1.0)
        assert shares["disc"] == pytest.approx((found.mask == 1).mean())


def test_the_run_tells_what_was_reached(run: Run) -> None:
    written = json.loads((run.folder / "metrics.json").read_text())
    assert set(written) >= {"miou", "dice", "pixel_accuracy", "boundary_f1", "loss", "per_class"}
    assert all(set(row) == {"iou", "dice", "boundary_f1", "pixels"} for row in written["per_class"].values())
    assert tuple(written["per_class"]) == LABELS
    names = {f"plots/{name}.png" for name in ("curves", "classes", "confusion", "worst", "best")}
    assert set(written["plots"]) == names and all((run.folder / name).is_file() for name in names)


def test_saved_and_loaded_sees_the_same(run: Run, data: Dataset) -> None:
    files = [sample.image for sample in data]
    assert zoo.load(run.folder).predict(files) == run.model.predict(files)
    evaluated = zoo.evaluate(run.folder, data, batch_size=8).metrics
    assert evaluated["miou"] == pytest.approx(run.metrics["miou"], abs=1e-6)


def test_nothing_is_compiled_after_the_first_step_of_each_frame(
    mixed: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs: list[Any] = []
    start = zoo.training.loop.start

    def watched(*args: Any, **kwargs: Any) -> Any:
        state, program = start(*args, **kwargs)
        programs.append(program)
        return state, program

    monkeypatch.setattr(zoo.training.loop, "start", watched)
    before = _evaluate._cache_size()
    model = create(frames=FRAMES, decoder="linear")
    options = {**FAST, "augment": "auto", "batch_size": 2}
    found = zoo.train(model, {"train": mixed, "val": mixed}, plan="all", epochs=2, out=tmp_path / "run", **options)
    (program,) = programs
    assert program.run._cache_size() == len(SIZES)
    # The learned model is evaluated by the programs that evaluated it after each epoch.
    assert _evaluate._cache_size() - before == len(SIZES)
    counted = sum(int((read_mask(sample.target) != IGNORE).sum()) for sample in mixed)
    assert sum(row["pixels"] for row in found.metrics["per_class"].values()) == counted
    assert np.isfinite([row["train_loss"] for row in found.history]).all()


def test_a_frozen_backbone_trains_from_the_cache_and_stays_the_same(mixed: Dataset, tmp_path: Path) -> None:
    learning = {"auxiliary": 0.4, "class_weights": "balanced", "loss": "focal+lovasz", "metric": "dice"}
    model = create(frames=FRAMES, decoder="fcn", width=16, **learning)
    before = [np.asarray(leaf) for leaf in jax.tree.leaves(nnx.state(model.backbone))]
    options = {**FAST, "augment": "auto", "batch_size": 2, "epochs": 2}
    found = zoo.train(model, {"train": mixed, "val": mixed}, plan="head", out=tmp_path / "run", **options)
    after = jax.tree.leaves(nnx.state(found.model.backbone))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert found.metrics["loss_auxiliary"] > 0
    assert found.metrics["dice"] == max(row["dice"] for row in found.history)
    weights = found.model.adapter.class_weights
    assert isinstance(weights, tuple) and weights[0] < 1 < min(weights[1:])
    shares = [row["pixels"] for row in found.metrics["per_class"].values()]
    assert np.dot(weights, shares) / sum(shares) == pytest.approx(1.0)
    # Cached features of the images and their mirror images tell what the photos do.
    assert model.adapter.tta_flip
    again = zoo.evaluate(found.folder, mixed).metrics
    assert [again[name] for name in ("dice", "boundary_f1")] == pytest.approx(
        [found.metrics[name] for name in ("dice", "boundary_f1")], abs=1e-6
    )


# Frames ------------------------------------------------------------------------------------------------------------


class Known:
    """A model whose logits are the classes of a mask, at the size of the prepared image."""

    def __init__(self, mask: np.ndarray, classes: int):
        self.logits = jax.nn.one_hot(np.where(mask == IGNORE, 0, mask), classes)[None]

    def outputs(self, reduced: Any) -> dict[str, Any]:
        return {"logits": self.logits}


@pytest.mark.parametrize("size", [(64, 64), (60, 90), (90, 60), (33, 130), (100, 41), (2, 2), (64, 85)], ids=str)
def test_what_is_learned_and_what_is_found_are_reverses(size: tuple[int, int]) -> None:
    """True classes as they are learned, given back as logits, are the true classes, but at their outlines."""
    _, drawn = scene(3, (max(size[0], 12), max(size[1], 12)))
    classes = np.asarray(drawn)[: size[0], : size[1]]
    runs = []
    for k in range(3):  # as COCO's runs, so that no file is needed
        flat = (classes == k).astype(np.uint8).ravel(order="F")
        edges = np.flatnonzero(np.diff(np.concatenate([[0], flat])))
        runs.append(tuple(np.diff([0, *edges, flat.size]).tolist()))
    target = Mask(size, Regions(tuple(map(Runs, runs)), (0, 1, 2), size))
    sample = Sample(Path("x.png"), target, "x.png")
    np.testing.assert_array_equal(read_mask(target), classes)
    adapter = Segmenter(labels=LABELS, room=(140, 140), tta_flip=False)
    preprocess = Preprocess(size=(64, 64), crop_mode="letterbox", crop_pct=1.0, frames=FRAMES)
    targets, truth = adapter.targets(sample, preprocess), adapter.truth(sample)
    batch = {"mask": targets["mask"][None], "frame": targets["frame"][None]}
    model: Any = Known(targets["mask"], 3)
    found = np.asarray(adapter.decode(ForwardPass(model, {}), batch)["mask"][0])
    assert found.shape == truth["true_mask"].shape == (140, 140) and found.dtype == np.uint8
    np.testing.assert_array_equal(truth["true_mask"][: size[0], : size[1]], classes)
    assert (truth["true_mask"][size[0] :] == IGNORE).all() and (truth["true_mask"][:, size[1] :] == IGNORE).all()
    shrunk = max(1.0, 1 / float(targets["frame"][0]))
    assert (found[: size[0], : size[1]] == classes).mean() > 1 - 0.06 * shrunk


# Predicting --------------------------------------------------------------------------------------------------------


def test_photos_of_other_shapes_have_their_classes_where_they_are(run: Run, data: Dataset) -> None:
    pixels, true = decode(data[1].image), read_mask(data[1].target)
    beside = ((0, 0), (0, 32), (0, 0))
    photos = {
        "wide": (np.pad(pixels, beside, constant_values=110), np.pad(true, beside[:2])),
        "large": (pixels.repeat(2, 0).repeat(2, 1), true.repeat(2, 0).repeat(2, 1)),
    }
    model = zoo.load(run.folder)
    model.card = replace(model.card, preprocess=replace(model.card.preprocess, frames=((SIDE, SIDE + 32),)))
    found = model.predict([photo for photo, _ in photos.values()])
    for (name, (_, expected)), one in zip(photos.items(), found, strict=True):
        assert one.size == expected.shape and (one.mask == expected).mean() > 0.93, name


def test_a_prediction_is_that_of_the_evaluation(run: Run, data: Dataset) -> None:
    evaluation = zoo.evaluate(run.model, data, batch_size=2)
    for file, decoded, _ in evaluation.worst(2):
        np.testing.assert_array_equal(run.model.predict(file).mask, decoded["mask"])
    once = run.model.adjusted(tta_flip=False)
    file, decoded, _ = zoo.evaluate(once, data, batch_size=2).worst(1)[0]
    np.testing.assert_array_equal(once.predict(file).mask, decoded["mask"])
    assert run.model.predict(file, tta_flip=False) == once.predict(file)


def test_mirror_images_and_further_sizes_are_looked_at_too(run: Run, data: Dataset) -> None:
    files, trues = [s.image for s in data], [read_mask(s.target) for s in data]
    for options in ({"tta_flip": False}, {"tta_scales": (0.75, 1.5)}, {"tta_flip": False, "tta_scales": (0.5,)}):
        found = run.model.predict(files, **options)
        assert np.mean([(one.mask == true).mean() for one, true in zip(found, trues, strict=True)]) > 0.9, options


def test_logits_of_another_size_lie_where_those_of_the_first_do() -> None:
    """Maps that tell where they are, of the same photo in two sizes, agree."""

    def ramp(rows: int, columns: int, size: tuple[int, int], frame: np.ndarray) -> np.ndarray:
        y = ((np.arange(rows) + 0.5) * size[0] / rows - frame[2]) / frame[0]
        x = ((np.arange(columns) + 0.5) * size[1] / columns - frame[3]) / frame[1]
        return np.stack(np.broadcast_arrays(y[:, None], x[None]), -1).astype(np.float32)

    small, large = np.array([0.5, 0.5, 0, 0, 50, 90]), np.array([0.9, 0.9, 0, 0, 50, 90])
    sizes = ((32, 64), (64, 96))
    one, other = ramp(16, 32, sizes[0], small), ramp(16, 24, sizes[1], large)
    as_batch = (np.float32(value)[None] for value in (other, large, small))
    moved, seen, frame = as_batch
    found = np.asarray(_moved(moved, seen, sizes[1], frame, sizes[0], (16, 32)))[0]
    np.testing.assert_allclose(found[1:11, 1:20], one[1:11, 1:20], atol=1e-3)


@pytest.mark.parametrize("length", [1, 64, 65, 96, 150, 1000, 6007])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.9])
def test_windows_cover_everything_and_weigh_something_everywhere(length: int, overlap: float) -> None:
    begins = starts(length, 64, overlap, 16)
    assert begins[0] == 0 and begins[-1] + 64 >= length and begins[-1] < max(length - 64, 0) + 16
    assert all(begin % 16 == 0 for begin in begins)
    assert all(1 <= b - a <= max(64 * (1 - overlap), 16) for a, b in zip(begins, begins[1:], strict=False))
    total = np.zeros(begins[-1] + 64)
    for i, begin in enumerate(begins):
        total[begin : begin + 64] += profile(begins, i, 64, overlap, np.arange(64) + 0.5)
    assert (total > 0.05).all()


FIELD = np.asarray(scene(5, (403, 591))[0])


@pytest.fixture(scope="module")
def near_sighted() -> tuple[Model, Model]:
    """One net for windows and for whole photos, whose logits depend on at most 31 pixels around each position."""
    windows, photos = (create("linear", image_size=size) for size in (256, (416, 608)))
    seen = Look(photos, False)(place(FIELD, photos.card.preprocess, (416, 608))[None])
    for model in (windows, photos):  # no class is everywhere the likeliest
        bias = model.head.decoder.classifier.bias
        bias.set_value(bias.get_value() - seen.mean((0, 1, 2)))
    return windows, photos


@pytest.mark.parametrize("flip", [False, True])
def test_windows_see_what_the_whole_photo_shows(near_sighted: tuple[Model, Model], flip: bool) -> None:
    """With windows of 256 that share half, nothing counts that is less than 32 pixels from where one is cut: logits are
    those of the photo in one piece, everywhere, and so are the classes."""
    model, in_one_piece = near_sighted
    image = FIELD
    whole_image = place(image, model.card.preprocess, (416, 608))
    expected = np.asarray(Look(in_one_piece, flip)(whole_image[None]))[0]
    bands = [*_bands(model, image, 0.5, Look(model, flip), 2)]
    found = np.concatenate([logits for _, _, logits, _ in bands])
    assert len(bands) == 3 and [first for first, *_ in bands] == [0, 2, 5] and [final for _, final, *_ in bands][-1]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    frame = np.array([1, 1, 0, 0, 403, 591], np.float32)
    labels = np.asarray(labels_of_one(expected, frame, (416, 608), (403, 591)))
    assert (slide(model, image, 0.5, 1.0, flip=flip) == labels).mean() > 0.9999 and len(np.unique(labels)) > 1


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_windows_at_a_scale_put_classes_where_they_are(run: Run, scale: float) -> None:
    """The learned net in windows of what it was trained on, over a photo of several scenes; its small ones enlarged."""
    tiles = [scene(i, (SIDE, SIDE)) for i in range(6)]
    photo = np.concatenate([np.concatenate([np.asarray(p) for p, _ in tiles[k : k + 3]], 1) for k in (0, 3)])
    true = np.concatenate([np.concatenate([np.asarray(m) for _, m in tiles[k : k + 3]], 1) for k in (0, 3)])
    side = round(1 / scale * SIDE)
    rows, columns = (np.arange(n * side) * SIDE // side for n in (2, 3))
    photo, true = photo[rows][:, columns], true[rows][:, columns]
    found = run.model.predict(photo, sliding_window=True, window_overlap=0.5, scale=SIDE / side)
    assert found.size == true.shape and (found.mask == true).mean() > 0.9


def test_windows_of_nets_that_do_not_pad_lie_side_by_side() -> None:
    """Their maps are short of positions, which the segmenter gives back."""
    model = zoo.create("squeezenet1_1", "segmenter", labels=LABELS, pretrained=False, image_size=64, width=8)
    photo = np.asarray(scene(2, (70, 150))[0])
    assert model.predict(photo, sliding_window=True).size == (70, 150)


def test_a_photo_smaller_than_a_window_is_seen(run: Run) -> None:
    photo = np.asarray(scene(2, (30, 20))[0])
    assert run.model.predict(photo, sliding_window=True).size == (30, 20)


# Results -----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_runs_are_those_of_cocos_tools(run: Run, data: Dataset) -> None:
    from pycocotools import mask as coco

    found = run.model.predict([sample.image for sample in data])
    results = run.model.adapter.results(found)
    assert [row["name"] for row in results["categories"]] == [*LABELS]
    by_name = {Path(one.file).name: one for one in found}
    for row in results["predictions"]:
        runs = {**row["segmentation"], "counts": row["segmentation"]["counts"].encode()}
        mask = by_name[row["image_id"]].mask
        np.testing.assert_array_equal(coco.decode(runs), mask == row["category_id"])
        assert coco.encode(np.asfortranarray(mask == row["category_id"], np.uint8)) == runs
    assert json.loads(json.dumps(results)) == results


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
def test_results_carry_the_numbers_of_the_data(tmp_path: Path) -> None:
    """Images of two sizes, one disc and one bar each, with outlines in COCO's format and numbers of its own."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    images, annotations = [], []
    for i, (height, width) in enumerate([(40, 64), (64, 40), (40, 64)]):
        Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(tmp_path / f"{i}.png")
        images.append({"id": 500 + i, "file_name": f"{i}.png", "height": height, "width": width})
        for category, (x, y) in ((9, (4 + i, 5)), (4, (20, 22))):
            row = {"id": len(annotations) + 1, "image_id": 500 + i, "category_id": category, "bbox": [x, y, 10, 12]}
            ring = [x, y, x + 10, y, x + 10, y + 12, x, y + 12]
            annotations.append({**row, "segmentation": [ring], "area": 120, "iscrowd": 0})
    categories = [{"id": 9, "name": "disc"}, {"id": 4, "name": "bar"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "annotations.json").write_text(json.dumps(content))

    part = zoo.data.read(tmp_path, kinds=("masks",))["all"]
    assert part.classes == ("background", "bar", "disc") and part.category_ids == (None, 4, 9)
    model = create("linear", labels=LABELS)
    perfect = [model.adapter.segmentation(read_mask(s.target.mapped((0, 2, 1))), str(s.image)) for s in part]
    results = model.adapter.results(perfect)
    assert results["categories"] == [{"id": i, "name": n} for i, n in zip((0, 9, 4), LABELS, strict=True)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "annotations.json"))
        evaluation = COCOeval(truth, truth.loadRes(results["predictions"]), "segm")
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)

    found = zoo.evaluate(model, part, batch_size=3, predictions=True)
    assert found.dataset.category_ids == (None, 9, 4)
    assert [one.size for one in found.predictions] == [(40, 64), (64, 40), (40, 64)]
    for one, sample in zip(found.predictions, part, strict=True):
        assert one.file == str(sample.image)
        np.testing.assert_array_equal(one.mask, model.predict(sample.image).mask)
    rows = model.adapter.results(found.predictions, found.dataset)["predictions"]
    assert {row["image_id"] for row in rows} == {500, 501, 502} and {row["category_id"] for row in rows} <= {0, 4, 9}


def test_masks_are_written_as_indexed_images_and_read_back(run: Run, tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    indexed(mask, LABELS).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.asarray(image), mask)
        assert np.asarray(image.convert("RGB"))[0, 0].tolist() == [0, 0, 0]
    assert len({tuple(row) for row in colours([str(i) for i in range(255)]).tolist()}) > 200


def test_an_overlay_colours_all_but_the_background() -> None:
    pixels = np.full((4, 6, 3), 100, np.uint8)
    mask = np.zeros((4, 6), np.uint8)
    mask[1:3, 2:4] = 1
    mask[0, 0] = IGNORE
    painted = overlay(pixels, mask, LABELS)
    assert (painted != pixels).any(-1).sum() == 4 and (painted != pixels).any(-1)[1:3, 2:4].all()
    assert (pixels == 100).all()
    assert overlay(pixels[..., :1], mask, LABELS).shape == (4, 6, 3)


def test_the_command_line_trains_predicts_and_evaluates(
    run: Run, data: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = str(data[0].image), tmp_path / "out"
    app(["predict", str(run.folder), photo, "--out", str(out), "--set", "tta_flip=false"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "disc" in printed and f"{SIDE}x{SIDE}" in printed
    assert {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()} == {
        "predictions.json", "categories.json", "0.png", "masks/0.png"
    }  # fmt: skip
    expected = run.model.predict(data[0].image, tta_flip=False)
    np.testing.assert_array_equal(np.asarray(Image.open(out / "masks" / "0.png")), expected.mask)
    with pytest.raises(ConfigError, match="`width` cannot be changed"):
        app(["predict", str(run.folder), photo, "--set", "width=8"], standalone_mode=False)
    with pytest.raises(ConfigError, match="would be overwritten"):
        app(["predict", str(run.folder), str(out / "masks" / "0.png"), "--out", str(out)], standalone_mode=False)


# Options -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"width": -1}, "width is -1"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"auxiliary": -0.4}, "auxiliary"),
        ({"tversky": (0.0, 0.0)}, "tversky"),
        ({"gamma": -1.0}, "gamma"),
        ({"window_overlap": 1.0}, "window_overlap"),
        ({"scale": 0.0}, "scale"),
        ({"tta_scales": (1.0, -1.0)}, "tta_scales"),
        ({"sliding_window": True, "tta_scales": (0.5,)}, "sliding_window uses one scale"),
        ({"class_weights": (1.0, 2.0)}, "2 class_weights for 3 classes"),
        ({"class_weights": (0.0, 0.0, 0.0)}, "class_weights"),
        ({"loss": "ce+0*dice"}, "not a number above 0"),
        ({"metric": "foreground_dice"}, "two classes of which the first"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        create(**options)


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="dice"):
        create(loss="ce+dise")
    with pytest.raises(UnknownNameError, match="unet"):
        create(decoder="unett")


@pytest.mark.parametrize("labels", [("one",), tuple(map(str, range(256)))], ids=len)
def test_too_few_and_too_many_classes_are_refused(labels: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="two classes|256 classes"):
        create(labels=labels)


def test_balanced_weights_need_every_class(data: Dataset) -> None:
    lacking = replace(data, classes=(*LABELS, "absent"))
    with pytest.raises(DataError, match=r"none of \['absent'\]"):
        Segmenter(labels=(*LABELS, "absent"), class_weights="balanced").fitted(lacking)
