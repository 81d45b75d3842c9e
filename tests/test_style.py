"""Style transfer as a task: which backbones serve, what each method does, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from training_kit import installed, own_cache, tinynet  # noqa: F401  (fixtures)
from typer.testing import CliRunner

import zoo
from zoo.adapters.style import Painted, Style, gatys, stylize
from zoo.adapters.style.colour import luminance_of, matched
from zoo.adapters.style.pictures import open_picture, style_crop
from zoo.cli.app import app
from zoo.errors import ConfigError, DataError, UnknownNameError, ZooError
from zoo.models.model import Model
from zoo.registry import registry


def drawing(kind: str, height: int = 40, width: int = 32) -> np.ndarray:
    """A drawn picture, uint8: `photo` is a disc on a slope, `stripes` and `dots` are styles."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    if kind == "photo":
        disc = ((y - height / 2) ** 2 + (x - width / 2) ** 2 < (width / 4) ** 2)[..., None]
        sky = np.stack([0.3 + 0.3 * y / height, 0.4 + 0.1 * x / width, 0.7 - 0.2 * y / height], -1)
        pixels = np.where(disc, [0.9, 0.6, 0.2], sky)
    elif kind == "stripes":
        pixels = np.where(((x + y) % 8 < 4)[..., None], [0.1, 0.2, 0.5], [0.9, 0.9, 0.8])
    else:
        pixels = np.where(((x % 6 < 2) & (y % 6 < 2))[..., None], [0.8, 0.1, 0.1], [0.2, 0.6, 0.3])
    return np.rint(pixels * 255).astype(np.uint8)


PHOTO, STRIPES, DOTS = drawing("photo"), drawing("stripes"), drawing("dots", 36, 36)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name, pixels in (("photo", PHOTO), ("stripes", STRIPES), ("dots", DOTS)):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "photos").mkdir()
    for i in range(6):
        Image.fromarray(np.roll(PHOTO, 5 * i, axis=1)).save(folder / "photos" / f"{i}.png")
    return folder


def create(method: str, **options: Any) -> Model:
    return zoo.create("tinynet", "style", pretrained=False, method=method, image_size=32, **options)


@pytest.fixture(scope="module")
def optimiser(installed: None) -> Model:  # noqa: F811
    return create("gatys", steps=12)


# Stages ------------------------------------------------------------------------------------------------------------


def test_the_classic_stages_follow_from_the_strides() -> None:
    vgg, squeezenet = registry().backbone("vgg19"), registry().backbone("squeezenet1_0")
    assert Style("").style_stages(vgg) == ("relu1_1", "relu2_1", "relu3_1", "relu4_1")
    slow = Style(method="gatys")
    assert slow.style_stages(vgg) == ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    assert slow.content_stage(vgg) == "relu4_2"
    assert Style(method="fast").content_stage(registry().backbone("vgg16")) == "relu3_3"
    assert slow.style_stages(squeezenet) == ("stem", "fire1", "fire2")
    assert Style(method="gatys", style_layers=("fire2", "stem")).style_stages(squeezenet) == ("stem", "fire2")


def test_a_backbone_without_maps_is_refused_with_those_that_have_them() -> None:
    for name in ("vit_tiny_patch16_224", "deit_tiny_patch16_224"):
        with pytest.raises(ConfigError, match=r"(?s)no activations.*SqueezeNet \(squeezenet1_0.*VGG \(vgg11"):
            zoo.create(name, "style", pretrained=False)


def test_stages_that_do_not_serve() -> None:
    with pytest.raises(ZooError, match="relu3_1"):
        zoo.create("vgg11", "style", pretrained=False, style_layers=("relu3_l",))
    with pytest.raises(ConfigError, match="gives vector"):
        zoo.create("vgg11", "style", pretrained=False, content_layer="head")


def test_a_task_without_classes_takes_no_labels() -> None:
    with pytest.raises(ConfigError, match="knows no classes"):
        zoo.create("tinynet", "style", pretrained=False, labels=["a", "b"])


# Gatys -------------------------------------------------------------------------------------------------------------


def test_the_objective_falls_at_every_step(optimiser: Model) -> None:
    options: Any = optimiser.adapter
    one = np.ones(1, np.float32)
    pixels = [p.astype(np.float32) / 255 for p in (PHOTO, STRIPES)]
    painted, (seen,) = gatys.optimise(options, optimiser, pixels[0], [pixels[1]], one, None, 1.0)
    assert len(seen) == 12 and (np.diff(seen) <= 1e-6).all() and seen[-1] < 0.7 * seen[0]
    assert painted.shape == PHOTO.shape and painted.min() >= 0 and painted.max() <= 1
    again, _ = gatys.optimise(options, optimiser, pixels[0], [pixels[1]], one, None, 1.0)
    assert (painted == again).all()


def test_previews_come_as_asked(optimiser: Model) -> None:
    seen: list[tuple[int, int]] = []

    def preview(step: int, steps: int, loss: float, pixels: np.ndarray) -> None:
        assert pixels.shape == PHOTO.shape
        seen.append((step, steps))

    stylize(optimiser, PHOTO, STRIPES, preview=preview, every=5)
    assert seen == [(5, 12), (10, 12), (12, 12)]


def test_large_pictures_are_painted_coarse_to_fine() -> None:
    assert gatys.sizes(Style(method="gatys"), (512, 384)) == [(256, 192), (512, 384)]
    assert gatys.sizes(Style(method="gatys"), (200, 300)) == [(200, 300)]
    assert gatys.sizes(Style(method="gatys", pyramid_levels=3), (200, 300)) == [(50, 75), (100, 150), (200, 300)]


def test_a_mask_leaves_the_rest_alone(optimiser: Model) -> None:
    mask = np.zeros((80, 64), np.uint8)  # twice the photo's size, which is as good
    mask[:, :32] = 255
    painted = stylize(optimiser, PHOTO, STRIPES, masks=[mask]).pixels
    change = np.abs(painted - PHOTO.astype(np.float32) / 255).mean((0, 2))
    assert change[:12].mean() > 2 * change[-12:].mean()


def test_strength_moves_from_the_photo_to_the_style(optimiser: Model) -> None:
    photo = PHOTO.astype(np.float32) / 255
    changes = [np.abs(stylize(optimiser, PHOTO, STRIPES, strength=s).pixels - photo).mean() for s in (0.0, 0.5, 1.0)]
    assert changes[0] < changes[1] < changes[2]


# Colours and files ---------------------------------------------------------------------------------------------------


def test_colours_are_kept() -> None:
    photo, stripes = PHOTO / np.float32(255), STRIPES / np.float32(255)
    same = matched(stripes * np.float32(0.5) + np.float32(0.2), photo * np.float32(0.3) + np.float32(0.3))
    wanted = (photo * 0.3 + 0.3).reshape(-1, 3)
    np.testing.assert_allclose(same.reshape(-1, 3).mean(0), wanted.mean(0), atol=0.02)
    grey = luminance_of(np.repeat(stripes.mean(-1, keepdims=True), 3, -1), photo)
    luma = np.array([0.299, 0.587, 0.114])
    middle = (grey > 0.02).all(-1) & (grey < 0.98).all(-1)  # nothing was cut off
    np.testing.assert_allclose((grey @ luma)[middle], stripes.mean(-1)[middle], atol=1e-3)


def test_orientation_and_profile_are_kept(optimiser: Model, tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    Image.fromarray(PHOTO).save(tmp_path / "turned.jpg", exif=exif, icc_profile=profile, quality=95)
    made = stylize(optimiser, tmp_path / "turned.jpg", STRIPES).save(tmp_path / "out.jpg")
    with Image.open(made) as image:
        assert image.size == (40, 32)  # PHOTO is 32 wide and 40 high, and was taken on its side
        assert image.info["icc_profile"] == profile
        assert image.getexif()[0x010F] == "maker" and image.getexif().get(0x0112, 1) == 1


def test_transparency_is_kept_and_what_it_hides_is_not_painted(optimiser: Model, tmp_path: Path) -> None:
    opacity = np.zeros((40, 32), np.uint8)
    opacity[20:] = 255
    for name, hidden in (("magenta", (255, 0, 255)), ("green", (0, 255, 0))):
        pixels = np.where(opacity[..., None] > 0, PHOTO, np.uint8(hidden))
        Image.fromarray(np.dstack([pixels, opacity])).save(tmp_path / f"{name}.png")
    for colour, background in (((255, 255, 255), None), ((0, 0, 0), (0, 0, 0)), ((255, 0, 255), ())):
        picture = open_picture(tmp_path / "magenta.png", *([] if background is None else [background]))
        assert (picture.uint8()[:20] == colour).all() and (picture.uint8()[20:] == PHOTO[20:]).all()
    made = [stylize(optimiser, tmp_path / f"{name}.png", STRIPES) for name in ("magenta", "green")]
    np.testing.assert_array_equal(made[0].pixels, made[1].pixels)
    with Image.open(made[0].save(tmp_path / "out.png")) as image:
        assert image.mode == "RGBA" and (np.asarray(image)[..., 3] == opacity).all()
        assert (np.asarray(image)[..., :3] == made[0].uint8()).all()
    with Image.open(made[0].save(tmp_path / "out.jpg")) as image:
        assert image.mode == "RGB"
    (predicted,) = optimiser.adapter.predictions({"picture": [made[0].with_opacity()], "icc": [np.array([])]}, ["a"])
    assert predicted.picture.mode == "RGBA" and len(predicted.mean) == 3


def test_one_style_picture_gives_many_textures(pictures: Path) -> None:
    file = pictures / "dots.png"
    crops = [style_crop(file, 20, number) for number in range(6)]
    assert all(crop.shape == (20, 20, 3) for crop in crops)
    assert all((a != b).any() for i, a in enumerate(crops) for b in crops[:i])
    assert (style_crop(file, 20, 3) == crops[3]).all()


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"style": "nowhere.png"}, "nowhere.png"),
        ({"style": []}, "needs a style"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"masks": [np.zeros((40, 90), np.uint8)]}, "proportions"),
        ({"masks": [np.zeros((40, 32), np.uint8)] * 3}, "3 masks for 1 styles"),
        ({"mix": [1.0, 2.0]}, "2 shares for 1 styles"),
        ({"style": [STRIPES, DOTS], "mix": [0.0, 0.0]}, "not all 0"),
        ({"colours": "none"}, "accepted: style, luminance, match"),
        ({"tile": 100}, "at least 384"),
        ({"size": 12}, "at least 16"),
        ({"every": 70}, "every is 70"),
        ({"style": np.zeros((4, 4), np.uint8)}, "height, width, 3"),
    ],
)
def test_what_cannot_be_painted(optimiser: Model, how: dict[str, Any], words: str) -> None:
    given = {"style": STRIPES, **how}
    with pytest.raises(ZooError, match=words):
        stylize(optimiser, PHOTO, given.pop("style"), **given)


def test_what_no_style_is_learnt_from(pictures: Path, tmp_path: Path) -> None:
    rows: list[tuple[Model, str, dict[str, Any]]] = [
        (create("gatys"), "nothing to train", {}),
        (create("fast"), "needs style images", {}),
        (create("fast", style=str(pictures / "missing.png")), "missing.png", {}),
        (create("fast", style=str(pictures / "photos")), "holds 6 images", {}),
        (create("adain", style=str(pictures / "dots.png")), "trains the backbone", {"plan": "all"}),
    ]
    for model, words, how in rows:
        with pytest.raises(ZooError, match=words):
            zoo.train(model, pictures / "photos", epochs=2, out=tmp_path / "run", **how)
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="no image"):
        (tmp_path / "empty").mkdir()
        zoo.train(create("adain", style=str(pictures / "dots.png")), tmp_path / "empty", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="untrained"):
        stylize(create("adain"), PHOTO, STRIPES)
    for options in ({"steps": 0}, {"style_weight": -2.0}, {"blocks": 0}, {"style_size": 9}):
        with pytest.raises(ConfigError):
            zoo.create("tinynet", "style", pretrained=False, **options)
    with pytest.raises(UnknownNameError, match="unknown style method 'cyclegan'"):
        zoo.create("tinynet", "style", pretrained=False, method="cyclegan")


# Predicting -----------------------------------------------------------------------------------------------------------


def test_predicting_paints(pictures: Path, tmp_path: Path) -> None:
    """As `stylize` does, in the first picture of the style; the colour profile is kept, and JSON has no pixels."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(PHOTO[:, :28]).save(tmp_path / "narrow.png", icc_profile=profile)
    style = tmp_path / "styles"
    style.mkdir()
    for name, pixels in (("a", DOTS), ("b", STRIPES)):
        Image.fromarray(pixels).save(style / f"{name}.png")
    model = create("gatys", steps=2, style=str(style))
    first, second = model.predict([tmp_path / "narrow.png", PHOTO])
    assert first.file == str(tmp_path / "narrow.png") and first.picture.size == (28, 40)
    assert first.picture.info["icc_profile"] == profile
    for prediction, image in ((first, tmp_path / "narrow.png"), (second, PHOTO)):
        painted = stylize(model, image, style / "a.png").uint8()
        np.testing.assert_array_equal(np.asarray(prediction.picture), painted)
        np.testing.assert_allclose(prediction.mean, painted.mean((0, 1)) / 255)
    assert (stylize(model, PHOTO, style / "b.png").uint8() != np.asarray(second.picture)).any()
    # In JSON and tables, as everywhere that values are plain.
    (row,) = model.adapter.results([first])["predictions"]
    assert row == {"file": first.file, "mean": first.mean}
    assert model.adapter.table([first]).columns == ("file", "mean")
    # Evaluations have the mean colours alone.
    (evaluated,) = model.adapter.predictions({"mean": np.array([[0.25, 0.5, 0.75]])}, ["a.png"])
    assert evaluated == Painted("a.png", (0.25, 0.5, 0.75))
    assert model.adapter.results([evaluated]) == {"predictions": [{"file": "a.png", "mean": (0.25, 0.5, 0.75)}]}
    first.picture.save(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as image:
        assert image.info["icc_profile"] == profile


def test_predicting_writes_the_pictures(pictures: Path, tmp_path: Path) -> None:
    out, files = tmp_path / "out", [pictures / "photo.png", pictures / "photos" / "3.png"]
    how = ("--set", "method=gatys", "--set", "steps=2", "--set", f"style={pictures / 'dots.png'}", "--image-size", 32)
    weights = ("--backbone", "squeezenet1_1", "--weights", _weights(tmp_path), "--task", "style")
    result = CliRunner().invoke(
        app, [str(word) for word in ("predict", *files, *weights, *how, "--out", out, "--json")]
    )
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    written = [out / "painted" / "photo.png", out / "painted" / "3.png"]
    assert [row["written"] for row in rows] == [{"painted": str(file)} for file in written]
    assert [row.keys() for row in rows] == [{"file", "mean", "written"}] * 2
    assert [row.keys() for row in json.loads((out / "predictions.json").read_text())] == [{"file", "mean"}] * 2
    assert f"written: {out / 'painted' / '*.png'}" in result.stderr
    model = zoo.create(
        "squeezenet1_1",
        "style",
        weights=str(tmp_path / "weights.safetensors"),
        method="gatys",
        steps=2,
        style=str(pictures / "dots.png"),
        image_size=32,
    )
    for file, target in zip(files, written, strict=True):
        with Image.open(target) as image:
            assert (np.asarray(image) == np.asarray(model.predict(file).picture)).all()


def test_a_network_of_one_style_needs_no_picture_to_predict(pictures: Path) -> None:
    model = create("fast", width=8, blocks=1)
    model.card = replace(model.card, new_head=False)  # as if it were trained
    predicted = np.asarray(model.predict(pictures / "photo.png").picture)
    assert (predicted == stylize(model, PHOTO).uint8()).all()


def test_predicting_without_a_style(pictures: Path) -> None:
    for model, words in (
        (create("gatys"), "the option style is empty: name one with `zoo stylize RUN IMAGE --style PICTURE`"),
        (
            create("gatys", style=str(pictures / "moved.png")),
            "(?s)is gone: .*moved.png does not exist.*zoo stylize RUN",
        ),
        (create("adain", style=str(pictures / "dots.png")), "untrained"),
    ):
        with pytest.raises(ConfigError, match=words):
            model.predict(pictures / "photo.png")


# From the command line -----------------------------------------------------------------------------------------------


def run(*words: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.output if not code else result.stdout


def backbone_bits(model: Model) -> list[bytes]:
    return [
        np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(nnx.state(model.backbone, (nnx.Param, nnx.BatchStat)))
    ]


# Daily the one with more to it; what the other learns `test_style_nets.py` shows.
@pytest.mark.parametrize("method", ["adain", pytest.param("fast", marks=pytest.mark.exhaustive)])
def test_training_and_painting(method: str, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    style = pictures / "stripes.png"
    small = ["--set", "width=8", "--set", "blocks=1"] if method == "fast" else []
    said = run(
        *("train", pictures / "photos", "--task", "style", "--backbone", "tinynet", "--scratch", "--image-size", 32),
        *("--set", f"method={method}", "--set", f"style={style}", *small),
        *("--epochs", 12, "--batch-size", 3, "--lr", 0.005, "--out", out),
    )
    assert f"zoo stylize {out} IMAGE" in said
    trained = zoo.training.Run.open(out)
    first, last = trained.history[0], trained.history[-1]
    assert last["train_loss"] < 0.9 * first["train_loss"] and {"content_loss", "style_loss"} <= last.keys()
    assert (out / "previews" / "epoch0012.png").is_file()
    start = create(method, style=str(style), **({"width": 8, "blocks": 1} if method == "fast" else {}))
    assert backbone_bits(start) == backbone_bits(trained.model), "the backbone must stay as it was, to the bit"
    # Any folder of photos, as in training; in batches of the same size, for which the program is there.
    evaluated = json.loads(run("evaluate", out, pictures / "photos", "--batch-size", 3, "--json"))
    assert evaluated["images"] == 6 and evaluated["style_loss"] > 0

    small = pictures / "small.png"
    Image.new("RGB", (8, 8)).save(small)  # which only the task refuses
    run("predict", out, pictures / "photo.png", small, "--out", tmp_path, code=3)
    assert [row["file"] for row in json.loads((tmp_path / "failed.json").read_text())] == [str(small)]
    with Image.open(tmp_path / "painted" / "photo.png") as image:
        styles = () if method == "fast" else style
        assert (np.asarray(image) == stylize(trained.model, pictures / "photo.png", styles).uint8()).all()

    target = tmp_path / "painted.png"
    given = [] if method == "fast" else ["--style", style, "--style", pictures / "dots.png", "--mix", 1, "--mix", 3]
    run("stylize", out, pictures / "photo.png", *given, "--strength", 0.7, "--out", target)
    painted = np.asarray(Image.open(target))
    assert painted.shape == PHOTO.shape and np.abs(painted.astype(int) - PHOTO).mean() > 2
    if method == "fast":
        with pytest.raises(ConfigError, match="one style of its own"):
            run("stylize", out, pictures / "photo.png", "--style", style, "--out", target)
        return
    model = trained.model
    everything, nothing = np.full((40, 32), 255, np.uint8), np.zeros((40, 32), np.uint8)
    plain = stylize(model, PHOTO, STRIPES)
    np.testing.assert_allclose(stylize(model, PHOTO, [STRIPES, DOTS], mix=[1, 0]).pixels, plain.pixels, atol=1e-5)
    both = stylize(model, PHOTO, [STRIPES, DOTS], masks=[everything, nothing])
    np.testing.assert_allclose(both.pixels, plain.pixels, atol=1e-5)
    rest = stylize(model, PHOTO, STRIPES, strength=0.0)
    np.testing.assert_allclose(stylize(model, PHOTO, STRIPES, masks=[nothing]).pixels, rest.pixels, atol=1e-5)


def test_painting_without_training(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "painted"
    bad, small = tmp_path / "bad.png", tmp_path / "small.png"
    bad.write_bytes(b"none")
    Image.new("RGB", (8, 8)).save(small)
    said = run(
        *("stylize", "--backbone", "squeezenet1_1", "--set", "method=gatys", "--set", "steps=3", "--set", "width=0"),
        *("--weights", _weights(tmp_path), pictures / "photos" / "0.png", bad, small, pictures / "photos" / "1.png"),
        *("--style", pictures / "dots.png", "--preview-every", 2, "--out", out, "--json"),
        code=3,
    )
    assert ["error" in row for row in json.loads(said)] == [False, True, True, False]
    assert sorted(p.name for p in out.iterdir()) == ["0-step0002.png", "0.png", "1-step0002.png", "1.png"]
    assert open_picture(out / "0.png").size == (40, 32)
    for wrong, words in (
        (["--out", tmp_path / "one.png"], "give a folder"),
        (["--out", pictures / "photos"], "would be overwritten"),
    ):
        with pytest.raises(ConfigError, match=words):
            run("stylize", "--backbone", "tinynet", pictures / "photos", "--style", pictures / "dots.png", *wrong)


def _weights(folder: Path) -> Path:
    import seeded

    from zoo.models.backbone import abstract
    from zoo.weights.file import write
    from zoo.weights.mapping import slots

    found = {slot.name: slot.native_shape for slot in slots(abstract(registry().backbone("squeezenet1_1")))}
    write(folder / "weights.safetensors", seeded.tensors(found))
    return folder / "weights.safetensors"
