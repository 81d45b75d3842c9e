"""The detector from end to end: it learns, on every kind of backbone, and boxes come back where they were."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import parity_kit
import pytest
import seeded
from boxes_kit import FAST, LABELS, SIDE, create, drawn, installed, pyramidnet, write_coco  # noqa: F401  (fixtures)
from flax import nnx
from PIL import Image
from training_kit import draw_folder, optimised, own_cache, same, values  # noqa: F401  (fixture)

import zoo
import zoo.cli
import zoo.training.loop
from zoo.adapters.detector import Box, Detection, Detector
from zoo.adapters.detector.heads import METHODS, stages_for
from zoo.data import Dataset, Sample, decode
from zoo.data.boxes import Boxes
from zoo.dense.boxes import pairwise_iou
from zoo.errors import ConfigError, DataError, UnknownNameError
from zoo.labels import category_numbers, names
from zoo.layers.initialisers import shapes_only
from zoo.models.adapter import ForwardPass, HeadInputs
from zoo.models.backbone import feature_shapes
from zoo.models.task.objective import total_loss
from zoo.registry.spec import Preprocess
from zoo.training.evaluation import _evaluate
from zoo.training.run import Run

FRAMES = ((32, 64), (64, 32))
SIZES = ((45, 90), (90, 45))
"""Of photos, one for each of two frames; none is square."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return drawn(tmp_path_factory.mktemp("drawn"), 8)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Photos of two frames."""
    return drawn(tmp_path_factory.mktemp("mixed"), 6, sizes=SIZES)


# Learning ----------------------------------------------------------------------------------------------------------

RECIPES = {"fcos": (25, 5e-3), "yolox": (85, 1e-2), "rcnn": (44, 5e-3)}
"""Epochs, of one step each, and learning rate."""


# The default head daily: what the others compute and learn from is compared with the references by values.
HEADS = [pytest.param(head, marks=[pytest.mark.exhaustive] * (head != "fcos")) for head in sorted(METHODS)]


@pytest.fixture(scope="module", params=HEADS)
def run(request: pytest.FixtureRequest, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A detector that has seen eight images only, again and again."""
    epochs, rate = RECIPES[request.param]
    out = tmp_path_factory.mktemp(request.param) / "run"
    parts = {"train": data, "val": data}
    options = {**FAST, "plots": True}
    with optimised():
        return zoo.train(
            create(request.param), parts, plan="all", epochs=epochs, lr=rate, weight_decay=0.0, out=out, **options
        )


def test_eight_images_are_learned_by_heart(run: Run, data: Dataset) -> None:
    assert run.metrics["AP50"] > 0.95 and run.metrics["train_images"] == 8
    assert run.history[0]["AP50"] < 0.5
    for sample, found in zip(data, run.model.predict([s.image for s in data]), strict=True):
        assert found.boxes[0].label in {LABELS[i] for i in sample.target.labels} and found.file == str(sample.image)
        scores = [box.score for box in found.boxes]
        assert scores == sorted(scores, reverse=True)


def test_the_run_tells_what_was_reached(run: Run) -> None:
    written = json.loads((run.folder / "metrics.json").read_text())
    assert set(written) >= {"AP", "AP50", "AP75", "AR100", "loss", "per_class"} and "curves" not in written
    assert set(written["per_class"]) == set(LABELS)
    names = {"plots/" + f"{name}.png" for name in ("curves", "precision_recall", "average_precision", "worst", "best")}
    assert set(written["plots"]) == names and all((run.folder / name).is_file() for name in names)


def test_saved_and_loaded_detects_the_same(run: Run, data: Dataset) -> None:
    files = [sample.image for sample in data]
    assert zoo.load(run.folder).predict(files) == run.model.predict(files)
    evaluated = zoo.evaluate(run.folder, data, batch_size=8).metrics
    assert evaluated["AP"] == pytest.approx(run.metrics["AP"], abs=1e-6)


def test_photos_of_other_shapes_give_the_boxes_where_they_are(run: Run, data: Dataset) -> None:
    """Grey beside a photo moves it to another frame, and twice the pixels the coordinates, not what is in it."""
    model, target, pixels = zoo.load(run.folder), data[1].target, decode(data[1].image)
    frames = ((SIDE, SIDE + 32), (SIDE + 32, SIDE))
    model.card = replace(model.card, preprocess=replace(model.card.preprocess, frames=frames))
    beside = ((0, 0), (0, 32), (0, 0))
    photos = {
        "itself": (pixels, 1),
        "wide": (np.pad(pixels, beside, constant_values=110), 1),
        "tall": (np.pad(pixels.transpose(1, 0, 2), beside, constant_values=110).transpose(1, 0, 2), 1),
        "large": (pixels.repeat(2, 0).repeat(2, 1), 2),
    }
    assert photos["wide"][0].shape == (64, 96, 3) and photos["tall"][0].shape == (96, 64, 3)
    for (name, (_, scale)), found in zip(
        photos.items(), model.predict([photo for photo, _ in photos.values()]), strict=True
    ):
        boxes = jnp.array([box.box for box in found.boxes]) / scale
        best = np.asarray(pairwise_iou(boxes, jnp.array(target.boxes))).max(0)
        assert (best > 0.5).all(), (name, best)


# Results -----------------------------------------------------------------------------------------------------------


def average_precisions(annotations: Path, results: list[Any], kind: str = "bbox") -> list[float]:
    """AP, AP50 and AP75 of results by pycocotools, with the data's own file."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    return [float(value) for value in evaluation.stats[:3]]


def test_pycocotools_gets_the_figures_that_zoo_gets(run: Run, tmp_path: Path) -> None:
    """The categories' numbers are neither from 1 nor in the order of the labels, those of the images from 700."""
    folder = write_coco(drawn(tmp_path / "photos", 8, start=100), tmp_path / "photos", 700, (7, 90, 3))
    found = zoo.evaluate(run.model, folder, batch_size=8, predictions=True)
    with pytest.raises(ConfigError, match="`width` cannot be changed on a trained model"):
        zoo.evaluate(run.model, folder, width=8)
    results = run.model.adapter.results(found.predictions, found.dataset)
    assert results["categories"] == [{"id": id, "name": name} for id, name in zip((7, 90, 3), LABELS, strict=True)]
    rows = results["predictions"]
    assert {row["image_id"] for row in rows} <= set(range(700, 708)) and len(rows) == found.metrics["detections"]
    assert 0.05 < found.metrics["AP"] < 1
    figures = [found.metrics[name] for name in ("AP", "AP50", "AP75")]
    assert average_precisions(folder / "annotations.json", rows) == pytest.approx(figures, abs=5e-4)
    # Only what is shown otherwise: fewer detections, another average precision.
    shown = run.model.predict([sample.image for sample in found.dataset])
    fewer = run.model.adapter.results(shown)["predictions"]
    assert 0 < len(fewer) < len(rows)
    assert len(run.model.predict([found.dataset[0].image], score_threshold=0.0)[0].boxes) == len(
        found.predictions[0].boxes
    )


def test_pycocotools_takes_ids_that_are_text(tmp_path: Path) -> None:
    """The ids are those of the file as they are written: `7` in it and `"7"` in results would match nothing."""
    folder = write_coco(drawn(tmp_path / "photos", 4), tmp_path / "photos")
    file = folder / "annotations.json"
    content = json.loads(file.read_text())
    categories = {k["id"]: id for k, id in zip(content["categories"], ("7", "x/y", "30"), strict=True)}
    for key, name, ids in (
        ("images", "id", {i["id"]: f"0{i['id']}" for i in content["images"]}),
        ("annotations", "image_id", {i["id"]: f"0{i['id']}" for i in content["images"]}),
        ("categories", "id", categories),
        ("annotations", "category_id", categories),
    ):
        for entry in content[key]:
            entry[name] = ids[entry[name]]
    file.write_text(json.dumps(content))
    data = zoo.data.read(folder)["all"]
    every = [
        (str(s.image), data.classes[k], box)
        for s in data
        for k, box in zip(s.target.labels, s.target.boxes, strict=True)
    ]
    for part in (every, every[1:]):
        found = [Detection(image, [Box(name, 0.9, box)]) for image, name, box in part]
        for known in (data, None):
            rows = Detector(labels=data.classes).results(found, known)["predictions"]
            assert {type(row["image_id"]) for row in rows} == {str}
            assert average_precisions(file, rows)[0] == pytest.approx(1, abs=1e-6) or part is not every
            assert average_precisions(file, rows)[0] > 0.4


def detection(file: Path | str, *labels: str) -> Detection:
    return Detection(str(file), [Box(label, 0.123456789, (1.0, 2.0, 4.0, 8.0)) for label in labels])


def test_what_results_call_images_and_classes(tmp_path: Path) -> None:
    whole = drawn(tmp_path / "photos", 2)
    adapter = Detector(labels=("blue", "lamp", "red"))

    def numbers(adapter: Detector, file: Path, *labels: str) -> list[Any]:
        rows = adapter.results([detection(file, *labels)])["predictions"]
        return [(row["image_id"], row["category_id"]) for row in rows]

    photo = whole[1].image
    assert numbers(adapter, photo, "blue", "red") == [("1.png", 1), ("1.png", 3)]
    learned = replace(adapter, category_ids=(30, 20, 10))
    assert numbers(learned, photo, "blue", "red") == [("1.png", 30), ("1.png", 10)]
    # Beside its own file an image and its classes are called as there; what the file does not name is called otherwise.
    write_coco(whole, tmp_path / "photos", 40, (7, 9, 3))
    assert numbers(learned, photo, "blue", "lamp", "red") == [(41, 3), (41, 10), (41, 7)]
    (tmp_path / "photos" / "annotations.json").rename(tmp_path / "photos" / "train.json")
    assert numbers(learned, photo, "red") == [(41, 7)]
    write_coco(whole, tmp_path / "photos", 50, (7, 9, 2))  # two files of which nobody knows which one is meant
    assert numbers(learned, photo, "red", "blue") == [("1.png", 7), ("1.png", 10)]
    with pytest.raises(ConfigError, match="1 category_ids for 3 labels"):
        numbers(replace(adapter, category_ids=(1,)), tmp_path / "else.png", "red")
    score = adapter.results([detection("x.png", "red")])["predictions"][0]["score"]
    assert np.float32(score) == np.float32(0.123456789) and score == 0.12345679


@pytest.mark.parametrize(("label_set", "background"), [("coco-80", False), ("coco-90", False), ("coco-91", True)])
def test_published_detectors_name_categories_by_cocos_numbers(label_set: str, background: bool) -> None:
    labels = names(label_set)
    rows = Detector(labels=labels).results([detection("x.png", "bowl", "person", "toothbrush", "broccoli")])
    assert [row["category_id"] for row in rows["predictions"]] == [51, 1, 90, 56]
    known = {row["id"]: row["name"] for row in rows["categories"]}
    assert known[13] == "stop sign" and (0 in known) == background and len(known) == len(labels)
    assert category_numbers(labels[:79]) == category_numbers(("person", "bowl")) == ()


def test_a_model_keeps_the_numbers_of_the_data_that_it_learned_from(data: Dataset, tmp_path: Path) -> None:
    numbered = replace(data, category_ids=(5, None, 4))
    adapter = create().adapter.fitted(numbered)
    assert adapter.category_ids == (5, None, 4)
    rows = adapter.results([detection("elsewhere.png", *LABELS)])
    assert [row["category_id"] for row in rows["predictions"]] == [5, 6, 4]
    model = create()
    model.adapter = adapter
    zoo.save(model, tmp_path / "model")
    assert zoo.load(tmp_path / "model").adapter.category_ids == (5, None, 4)


# Frames ------------------------------------------------------------------------------------------------------------


class Known:
    """A head that knows the answer, in pixels of the prepared images."""

    def __init__(self, boxes: np.ndarray, valid: np.ndarray) -> None:
        self.boxes, self.valid = jnp.asarray(boxes)[None], jnp.asarray(valid)[None]
        self.seen: Any = None

    def detections(self, reduced: Any, seen: Any, **options: Any) -> dict[str, Any]:
        self.seen = np.asarray(seen)[0]
        flat = jnp.zeros(self.valid.shape)
        return {"boxes": self.boxes, "valid": self.valid, "scores": flat, "labels": flat.astype(int)}


@pytest.mark.parametrize(
    "size", [(64, 64), (60, 90), (90, 60), (33, 200), (500, 41), (1, 1), (64, 85), (7, 5000)], ids=str
)
def test_what_is_learned_and_what_is_found_are_reverses(size: tuple[int, int]) -> None:
    """True boxes as they are learned, given back as detections, are the true boxes."""
    height, width = size
    boxes = ((0.0, 0.0, float(width), float(height)), (width / 4, height / 3, width / 2, height / 1.5))
    sample = Sample(Path("x.png"), Boxes(boxes, (0, 1), (False, False), size), "x.png")
    adapter = Detector(labels=LABELS)
    preprocess = Preprocess(size=(64, 64), crop_mode="letterbox", crop_pct=1.0, frames=FRAMES)
    targets = adapter.targets(sample, preprocess)
    head = Known(targets["boxes"], targets["box_valid"])
    frame = targets["frame"][None]
    model: Any = SimpleNamespace(head=head)
    found = adapter.decode(ForwardPass(model, {}), {"frame": frame})
    assert targets["box_valid"].tolist() == [True, True] + [False] * 6
    np.testing.assert_allclose(found["boxes"][0, :2], boxes, atol=1e-4 * max(size))
    assert not np.asarray(found["boxes"][0, 2:]).any()
    # What is seen of the image ends where its last pixel does, inside the frame it is prepared in.
    assert (head.seen <= np.array(preprocess.frame(size)) + 1e-4).all()
    np.testing.assert_allclose(targets["boxes"][0, 2:], head.seen[::-1], atol=1e-3)


def test_crowds_are_evaluated_and_not_learned_from() -> None:
    target = Boxes(((0.0, 0.0, 30.0, 30.0), (5.0, 5.0, 20.0, 20.0)), (0, 1), (True, False), (64, 64))
    adapter = Detector(labels=LABELS, max_boxes=3)
    preprocess = Preprocess(size=(64, 64), crop_mode="letterbox", crop_pct=1.0)
    found = adapter.targets(Sample(Path("x.png"), target, "x.png"), preprocess)
    assert found["box_valid"].tolist() == [False, True, False] and not found["boxes"][0].any()
    assert found["true_valid"].tolist() == [True, True, False] and found["crowd"].tolist() == [True, False, False]
    np.testing.assert_array_equal(found["true_boxes"][0], target.boxes[0])


@pytest.mark.exhaustive  # by default for the segmenter alone, whose loop is the same
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
    model = create(frames=FRAMES)
    options = {**FAST, "augment": "auto", "batch_size": 2}
    run = zoo.train(model, {"train": mixed, "val": mixed}, plan="all", epochs=2, out=tmp_path / "run", **options)
    (program,) = programs
    assert program.run._cache_size() == len(SIZES)
    # The learned model is evaluated by the programs that evaluated it after each epoch.
    assert _evaluate._cache_size() - before == len(SIZES)
    assert run.metrics["images"] == len(mixed) and len(run.history) == 2
    assert np.isfinite([row["train_loss"] for row in run.history]).all()


# Frozen backbones --------------------------------------------------------------------------------------------------


@pytest.mark.exhaustive  # by default for the segmenter and the classifier, whose loop and cache are the same
def test_a_frozen_backbone_stays_the_same_to_the_bit_and_the_cache_changes_nothing(
    data: Dataset, tmp_path: Path
) -> None:
    histories = []
    for cached in (True, False):
        model = create()
        before = {path: value.copy() for path, value in values(model.backbone).items()}
        parts, out = {"train": data, "val": data}, tmp_path / str(cached)
        histories.append(zoo.train(model, parts, plan="head", epochs=3, out=out, cache=cached, **FAST).history)
        after = values(model.backbone)
        assert all(np.array_equal(before[path], after[path]) for path in before)
    for one, other in zip(*histories, strict=True):
        for name in ("train_loss", "val_loss", "grad_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-3), name


@pytest.mark.exhaustive  # the next test has mirror images too, in one frame
def test_mirror_images_are_learned_from_cached_features(mixed: Dataset, tmp_path: Path) -> None:
    """Augmentation reaches a frozen backbone as mirror images, in every frame."""
    losses = {}
    for augment in ("auto", "none"):
        model, options = create(frames=FRAMES), {**FAST, "augment": augment, "batch_size": 3}
        parts, out = {"train": mixed, "val": mixed}, tmp_path / augment
        run = zoo.train(model, parts, plan="head", epochs=2, out=out, **options)
        losses[augment] = [row["train_loss"] for row in run.history]
        assert same(create(frames=FRAMES).backbone, model.backbone)
    assert all(a != b for a, b in zip(*losses.values(), strict=True))


@pytest.mark.exhaustive  # by default for the segmenter; `test_views.py` shows what a view is
def test_random_views_are_learned_from_cached_features(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each further view of an image is another input, the same in every run."""
    histories = []
    for number, views in enumerate((2, 2, 0)):
        monkeypatch.setenv("ZOO_CACHE", str(tmp_path / f"cache{number}"))
        training = replace(Detector().training, cached_views=views)
        monkeypatch.setattr(Detector, "training", training)
        options = {**FAST, "augment": "auto", "epochs": 3, "out": tmp_path / str(number)}
        histories.append(zoo.train(create(), {"train": data, "val": data}, plan="head", **options).history)
        kept = [folder for folder in (tmp_path / f"cache{number}" / "activations").iterdir() if folder.is_dir()]
        assert len(kept) == 2 + views  # the images, their mirror images and the views
    losses = [[row["train_loss"] for row in history] for history in histories]
    assert losses[0] == losses[1] != losses[2]


# Any backbone ------------------------------------------------------------------------------------------------------


@cache
def one_with_a_pyramid() -> list[str]:
    """The smallest of every family with maps or tokens that serve."""
    found = []
    for name in parity_kit.one_per_family():
        try:
            stages_for(parity_kit.backbones()[name], "fcos")
        except ConfigError:
            continue
        found.append(name)
    return found


def test_the_families_are_those_that_they_should_be() -> None:
    families = {parity_kit.backbones()[name].family for name in one_with_a_pyramid()}
    assert families >= parity_kit.NEEDED and len(families) > 20


@pytest.mark.parametrize("name", parity_kit.due(one_with_a_pyramid(), large=True))
def test_every_head_fits_every_family(name: str) -> None:
    """By shapes alone: a loss for each image, and detections with classes. All heads on the families that are asked for
    most, the default one on the others."""
    spec = parity_kit.backbones()[name]
    size = seeded.image_size(spec.preprocess.size[0], max(64, spec.min_size), spec.size_multiple)
    images, rows = 2, 3
    targets = {
        "boxes": jax.ShapeDtypeStruct((images, rows, 4), jnp.float32),
        "labels": jax.ShapeDtypeStruct((images, rows), jnp.int32),
        "box_valid": jax.ShapeDtypeStruct((images, rows), bool),
        "valid": jax.ShapeDtypeStruct((images,), bool),
    }
    heads = METHODS if spec.family in parity_kit.NEEDED else ("fcos",)
    adapters = {m: Detector(labels=LABELS, head=m, width=32, convs=1) for m in heads}  # type: ignore[arg-type]
    first = stages_for(spec, "fcos")[0]
    if first.kind == "tokens":
        size = tuple(-(-side // first.stride) * first.stride for side in size)
    every = feature_shapes(spec, size, sorted({name for adapter in adapters.values() for name in adapter.taps(spec)}))
    for adapter in adapters.values():
        shapes = {n: jax.ShapeDtypeStruct((images, *every[n].shape[1:]), every[n].dtype) for n in adapter.taps(spec)}

        def both(shapes: Any, targets: Any, adapter: Any = adapter) -> tuple[Any, Any]:
            head: Any = adapter.build(HeadInputs(spec, shapes, size), rngs=nnx.Rngs(0))
            reduced = head.reduce(shapes)
            return head.losses(reduced, targets), head.detections(
                reduced, size, pre_nms_threshold=None, nms_iou=None, max_detections=5
            )

        with shapes_only():
            losses, found = jax.eval_shape(both, shapes, targets)
        assert len(losses) > 1 and all(v.shape == (images,) and v.dtype == jnp.float32 for v in losses.values())
        assert {key: value.shape for key, value in found.items()} == {
            "boxes": (images, 5, 4), "scores": (images, 5), "labels": (images, 5), "valid": (images, 5),
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "head", "plan"),
    [
        pytest.param("squeezenet1_1", "fcos", "all", marks=pytest.mark.exhaustive),
        pytest.param("vit_tiny_patch16_224", "fcos", "head", marks=pytest.mark.exhaustive),
        pytest.param("mobilenetv2_035", "yolox", "head", marks=pytest.mark.exhaustive),
    ],
)
def test_a_step_and_a_prediction_on_real_architectures(
    name: str, head: str, plan: str, data: Dataset, tmp_path: Path
) -> None:
    options = {"labels": LABELS, "pretrained": False, "image_size": SIDE, "frames": (), "width": 32, "convs": 1}
    model = zoo.create(name, "detector", head=head, **options)
    before = {path: value.copy() for path, value in values(model).items()}
    part = data.subset(range(2), "two")
    given = {**FAST, "batch_size": 2}
    run = zoo.train(model, {"train": part, "val": part}, plan=plan, epochs=1, out=tmp_path / "run", **given)
    moved = {path[0] for path, value in values(run.model).items() if not np.array_equal(before[path], value)}
    assert run.metrics["steps"] == 1 and moved == ({"backbone", "head"} if plan == "all" else {"head"})
    found = run.model.predict([sample.image for sample in part])
    assert [one.file for one in found] == [str(sample.image) for sample in part]


# What cannot work, and what may look odd ---------------------------------------------------------------------------


def test_a_detector_needs_classes_and_a_pyramid() -> None:
    with pytest.raises(ConfigError, match=r"a detector needs classes\. Give labels= or num_classes="):
        create(labels=None, num_classes=0)
    with pytest.raises(ConfigError, match=r"resnet20 cannot feed a feature pyramid, which needs maps at strides"):
        zoo.create("resnet20", "detector", labels=LABELS, pretrained=False)
    with pytest.raises(ConfigError, match="33 channels"):
        create(width=33)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 0}, "width is 0"),
        ({"convs": -1}, "convs is -1"),
        ({"pre_nms_threshold": 1.0}, "pre_nms_threshold is 1.0"),
        ({"nms_iou": -0.1}, "nms_iou is -0.1"),
        ({"score_threshold": 2}, "score_threshold is 2"),
        ({"max_detections": 0}, "max_detections is 0"),
        ({"frames": [64, 96]}, r"frames=\[64, 96\] must be a list of \[height, width\]"),
        ({"frames": [[16, 64]]}, "cannot process images of 16x64"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create(**{"head": "fcos", **options})


def test_an_unknown_head_is_told_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="unknown detector head 'ssd'. Accepted: fcos, rcnn, yolox"):
        create(head="ssd")


def test_targets_of_another_kind_are_refused(tmp_path: Path) -> None:
    folder = draw_folder(tmp_path / "classes", count=4)
    classes = zoo.data.read(folder)["all"]
    with pytest.raises(ConfigError, match="detector learns from boxes targets; .* has class"):
        zoo.train(create(), {"all": classes}, out=tmp_path / "run")


def test_faulty_annotations_follow_the_policy(data: Dataset, tmp_path: Path) -> None:
    sample = data[0]
    faulty = Boxes(((5.0, 5.0, 200.0, 30.0), (60.0, 60.0, 40.0, 40.0)), (0, 1), (False, False), (SIDE, SIDE))
    part = Dataset((Sample(sample.image, faulty, sample.id), data[1]), LABELS, "boxes", "faulty", data.root)
    model = create()
    with pytest.raises(DataError, match="left and right or top and bottom swapped.*1 partly outside the image"):
        zoo.evaluate(model, part, annotations="error")
    fixed, dropped = (zoo.evaluate(model, part, annotations=policy) for policy in ("fix", "drop"))
    good = len(data[1].target)
    assert (fixed.metrics["truths"], dropped.metrics["truths"]) == (2 + good, good)
    assert "(fixed)" in fixed.notes[0] and "(dropped)" in dropped.notes[0]
    assert zoo.evaluate(model, data.subset([0], "one")).notes == ()


def test_images_without_boxes_have_a_loss_figures_and_pictures(data: Dataset, tmp_path: Path) -> None:
    """That a step on them is finite, too, the tests of each head show."""
    nothing = Boxes((), (), (), (SIDE, SIDE))
    samples = tuple(Sample(s.image, nothing, s.id) for s in data)
    model, empty = create(), Dataset(samples, LABELS, "boxes", "empty", data.root)
    found = zoo.evaluate(model, empty, batch_size=8)
    assert np.isfinite(found.metrics["loss"]) and (found.metrics["AP"], found.metrics["truths"]) == (0.0, 0)
    assert len(model.adapter.plots(found, tmp_path)) == 4


@pytest.mark.parametrize("head", sorted(METHODS))
def test_batches_of_padding_alone_have_a_finite_loss(head: str, data: Dataset) -> None:
    model = create(head)
    targets = [model.adapter.targets(sample, model.card.preprocess) for sample in data.subset(range(2), "two")]
    batch = {name: np.stack([one[name] for one in targets]) for name in targets[0]}
    sizes = {4: 16, 8: 24, 16: 32, 32: 32}
    reduced = {f"s{stride}": jnp.ones((2, SIDE // stride, SIDE // stride, width)) for stride, width in sizes.items()}

    @jax.jit
    def losses(reduced: Any, batch: Any) -> Any:
        return total_loss(model.adapter, model.adapter.loss_terms(ForwardPass(model, reduced), batch))

    both, none = (losses(reduced, {**batch, "valid": np.full(2, valid)}) for valid in (True, False))
    assert np.isfinite(both).all() and (np.asarray(both) > 0).all()
    assert np.isfinite(none).all() and float(jnp.abs(none).max()) < float(jnp.abs(both).max())


# On the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs the command line in this process: exit code, standard output and error."""

    def go(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["zoo", *map(str, args)])
        capsys.readouterr()
        try:
            zoo.cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        return code, *capsys.readouterr()

    yield go


def test_from_annotated_photos_to_pictures(command: Any, tmp_path: Path) -> None:
    folder = write_coco(drawn(tmp_path / "photos", 10), tmp_path / "photos")
    small = (
        "--image-size",
        SIDE,
        "--set",
        "width=32",
        "--set",
        "convs=1",
        "--set",
        "frames=[]",
        "--set",
        "score_threshold=0",
    )
    train = ("train", folder, "--backbone", "pyramidnet", "--scratch", "--plan", "all", "--epochs", 2, *small)
    rest = ("--batch-size", 8, "--augment", "none", "--annotations", "error")
    code, out, err = command(*train, *rest, "--out", tmp_path / "run")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert ["class", "AP", "AP50", "AR100", "truths"] in lines and "None" not in out and "curves" not in out
    assert f"zoo predict {tmp_path / 'run'} IMAGE --out FOLDER" in out and "export" not in out
    every = tmp_path / "every"
    code, out, err = command("evaluate", tmp_path / "run", folder, "--batch-size", 8, "--json", "--out", every)
    assert code == 0 and set(json.loads(out)) >= {"AP", "AP50", "AP75", "per_class"}, err
    rows = json.loads((every / "predictions.json").read_text())
    assert len(rows) == json.loads(out)["detections"] and {row["image_id"] for row in rows} == set(range(1, 11))
    assert json.loads((every / "categories.json").read_text())[0] == {"id": 1, "name": LABELS[0]}

    photos = [tmp_path / "photos" / f"{i}.png" for i in (0, 1)]
    seen = tmp_path / "seen"
    code, out, err = command("predict", tmp_path / "run", *photos, "--out", seen, "--json")
    assert code == 0, err
    typed = json.loads(out)
    assert [one["file"] for one in typed] == [str(photo) for photo in photos]
    count = sum(len(one["boxes"]) for one in typed)
    results, categories = (json.loads((seen / f"{name}.json").read_text()) for name in ("predictions", "categories"))
    assert categories == [{"id": i, "name": label} for i, label in enumerate(LABELS, 1)]
    assert len(results) == count > 0
    first, box = results[0], typed[0]["boxes"][0]
    assert (first["image_id"], categories[first["category_id"] - 1]["name"]) == (1, box["label"])
    x1, y1, x2, y2 = box["box"]
    assert first["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1], abs=2e-3)
    assert first["score"] == pytest.approx(box["score"], abs=1e-5)
    for photo in photos:
        before, after = (np.asarray(Image.open(f).convert("RGB")) for f in (photo, seen / photo.name))
        assert before.shape == after.shape and (before != after).any()
    code, out, err = command("predict", tmp_path / "run", *photos)
    assert code == 0 and out.splitlines()[0].split() == ["file", "objects", "top", "score", "classes"]


def test_pictures_that_cannot_be_written(command: Any, tmp_path: Path) -> None:
    drawn(tmp_path / "a", 1)
    zoo.save(create(), tmp_path / "model")
    model, photo = tmp_path / "model", tmp_path / "a" / "0.png"
    for given, words in {
        (photo, "--out", tmp_path / "a"): "is one of the input images and would be overwritten",
        (photo, "--out", photo): "cannot be written",
    }.items():
        code, out, err = command("predict", model, *given)
        assert (code, out) == (2, "") and words in err, err
    assert not (tmp_path / "c").exists()


def test_images_of_equal_names_keep_their_paths(command: Any, tmp_path: Path) -> None:
    for folder in ("photos/cam1", "photos/cam2/night"):
        drawn(tmp_path / folder, 1)
    zoo.save(create(), tmp_path / "model")
    photos, every = tmp_path / "photos", ("--score-threshold=0", "--max-detections", 3)
    code, _, err = command("predict", tmp_path / "model", photos, *every, "--out", tmp_path / "out")
    assert code == 0 and str(tmp_path / "out" / "**" / "*.png") in err, err
    written = {file.relative_to(tmp_path / "out").as_posix() for file in (tmp_path / "out").rglob("*.png")}
    assert written == {"cam1/0.png", "cam2/night/0.png"}
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [row["image_id"] for row in rows] == 3 * ["cam1/0.png"] + 3 * ["cam2/night/0.png"]
    code, _, err = command("predict", tmp_path / "model", photos, "--score-threshold", 2)
    assert code == 2 and "score_threshold" in err and "below 1" in err
    code, _, err = command("predict", tmp_path / "model", photos, "--tta-flip")
    assert code == 2 and "`tta_flip` cannot be changed on a trained model. Options that can: pre_nms" in err


def test_data_with_boxes_choose_the_detector(command: Any, tmp_path: Path) -> None:
    folder = write_coco(drawn(tmp_path / "photos", 4), tmp_path / "photos")
    code, _, err = command("train", folder, "--backbone", "resnet20", "--scratch", "--out", tmp_path / "run")
    assert code == 2 and "resnet20 cannot feed a feature pyramid" in err
    code, _, err = command(
        "train", folder, "--backbone", "pyramidnet", "--scratch", "--out", tmp_path / "run", "--annotations", "mend"
    )
    assert code == 2 and "the policy for annotations is 'mend'; accepted: error, fix, drop" in err
    assert not (tmp_path / "run").exists()
