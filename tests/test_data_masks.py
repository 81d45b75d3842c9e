"""Masks as targets: read, framed with their image, relabelled, split, checked by policy."""

from __future__ import annotations

import pickle
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from pycocotools import mask as coco_masks

from zoo.data import Dataset, Sample, kfold, prepare, split
from zoo.data.boxes import UNKNOWN, Boxes, InstanceMasks
from zoo.data.check import checked
from zoo.data.decode import upright
from zoo.data.masks import (
    IGNORE,
    Mask,
    MaskFile,
    Regions,
    as_masks,
    pixel_counts,
    prepare_mask,
    read_mask,
)
from zoo.data.transform import frame_of
from zoo.errors import ConfigError, DataError
from zoo.registry.spec import Preprocess
from zoo.targets.check_masks import MASK_FAULTS, check_masks
from zoo.targets.mask_file import mask_values
from zoo.targets.outlines import Outlines, Polygons, Runs, inside, shape_of

SIZE = (12, 20)
TABLE = ((0, 0), (1, 1), (2, 2), (255, IGNORE))
CLASSES = ("background", "cat", "dog")


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)
    return path


def blank(size=SIZE, value=0):
    return np.full(size, value, np.uint8)


def drawn(size=SIZE, **boxes):
    """A mask with rectangles: `c1=(y1, y2, x1, x2)` is of class 1."""
    pixels = blank(size)
    for name, (y1, y2, x1, x2) in boxes.items():
        pixels[y1:y2, x1:x2] = int(name[1:])
    return pixels


def data(folder, *masks, image_size=SIZE, table=TABLE, orientation=1):
    exif = Image.Exif()
    exif[0x0112] = orientation
    samples = []
    for i, pixels in enumerate(masks):
        image = folder / f"{i}.jpg"
        Image.fromarray(np.zeros((*image_size, 3), np.uint8)).save(image, exif=exif.tobytes())
        file = write(folder / "masks" / f"{i}.png", pixels)
        samples.append(Sample(image, Mask(pixels.shape, MaskFile(file, table)), image.name))
    return Dataset(tuple(samples), CLASSES, "masks", "toy", folder)


# The values in a file -------------------------------------------------------------------------------------------------
NUMBERS = drawn(c1=(0, 5, 2, 9), c2=(6, 9, 12, 18))


def opaque_where(shape, colour, hidden=None):
    """RGBA (or LA, of one number), opaque in a shape; what is hidden has the colour too, or another."""
    colour = np.atleast_1d(colour)
    pixels = np.broadcast_to(colour, (*SIZE, len(colour))).copy()
    if hidden is not None:
        pixels[~shape] = hidden
    return np.concatenate([pixels, np.where(shape, 255, 0)[..., None]], -1).astype(np.uint8)


def png(path, rows, bits, kind):
    """A PNG of packed rows, of numbers of bits that Pillow does not write; kind: 0 for grey, 2 for colours."""
    header = struct.pack(">IIBBBBB", SIZE[1], SIZE[0], bits, kind, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    with path.open("wb") as stream:
        stream.write(b"\x89PNG\r\n\x1a\n")
        for name, body in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")):
            stream.write(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)))
    return path


def of_few_bits(pixels, bits):
    """Rows of numbers of a few bits, packed into bytes."""
    return [np.packbits(np.unpackbits(row[:, None], axis=1)[:, 8 - bits :].reshape(-1)) for row in pixels]


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("three equal channels.png", np.repeat(NUMBERS[..., None], 3, 2)),
        ("four, opaque.png", np.dstack([NUMBERS] * 3 + [blank(value=255)])),
        ("grey and opaque.png", np.dstack([NUMBERS, blank(value=255)])),
        ("half seen.png", np.dstack([NUMBERS, blank(value=128)])),
        ("background unseen.png", np.dstack([NUMBERS, np.where(NUMBERS > 0, 255, 0).astype(np.uint8)])),
        ("floats.tif", NUMBERS.astype(np.float32)),
        ("integers.tif", NUMBERS.astype(np.int32)),
        ("16 bits.tif", NUMBERS.astype(np.uint16)),
        ("16 bits, big endian.tif", NUMBERS.astype(">u2")),
        ("16 bits.png", NUMBERS.astype(np.uint16)),
    ],
)
def test_numbers_are_read_whatever_channel_holds_them(tmp_path, name, pixels):
    assert mask_values(write(tmp_path / name, pixels)).tolist() == NUMBERS.tolist()


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_is_not_spread(tmp_path, bits):
    assert mask_values(png(tmp_path / "m.png", of_few_bits(NUMBERS, bits), bits, 0)).tolist() == NUMBERS.tolist()
    filled = (NUMBERS > 0).astype(np.uint8) * (2**bits - 1)
    white = png(tmp_path / "w.png", of_few_bits(filled, bits), bits, 0)
    assert mask_values(white).tolist() == ((NUMBERS > 0) * 255).tolist()


@pytest.mark.parametrize(
    ("colour", "value", "in_colours"),
    [((255, 255, 255), 255, 0xFFFFFF), ((0, 0, 0), 255, 0xFFFFFF), (255, 255, 0xFFFFFF), ((9, 0, 1), 65545, 65545)],
)
def test_a_shape_in_the_alpha_channel_is_the_shape(tmp_path, colour, value, in_colours):
    shape = NUMBERS == 1
    file = write(tmp_path / "m.png", opaque_where(shape, colour))
    assert mask_values(file).tolist() == np.where(shape, value, 0).tolist()
    assert mask_values(file, colours=True).tolist() == np.where(shape, in_colours, 0).tolist()
    nothing = write(tmp_path / "n.png", opaque_where(NUMBERS > 9, colour))
    assert not mask_values(nothing).any()


def test_what_transparency_leaves_open_is_asked_about(tmp_path):
    shape = NUMBERS == 1
    file = write(tmp_path / "m.png", opaque_where(shape, (0, 0, 255), hidden=(255, 255, 255)))
    for colours in (False, True):
        with pytest.raises(DataError, match="m.png has both transparency and colours .* without transparency"):
            mask_values(file, colours)
    file = write(tmp_path / "m.png", opaque_where(shape, (0, 0, 255), hidden=(0, 0, 0)))
    assert mask_values(file).tolist() == np.where(shape, 255 * 65536, 0).tolist()


def test_numbers_that_would_be_cut_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"f.tif holds fractions .*from 0 to 0.5"):
        mask_values(write(tmp_path / "f.tif", np.float32(NUMBERS) / 4))
    with pytest.raises(DataError, match="n.tif holds fractions .or NaN"):
        mask_values(write(tmp_path / "n.tif", np.where(NUMBERS > 0, np.nan, 0).astype(np.float32)))
    wide = png(tmp_path / "w.png", [np.repeat(row.astype(">u2")[:, None], 3, 1) for row in NUMBERS], 16, 2)
    with pytest.raises(DataError, match="w.png has several channels of 16 bits"):
        mask_values(wide)


# Reading --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_values_are_looked_up_and_others_are_ignored(tmp_path, dtype):
    values = np.array([[0, 7, 9], [200, 7, 0]], dtype)
    file = write(tmp_path / "m.tif", values)
    mask = Mask((2, 3), MaskFile(file, ((0, 0), (7, 2), (9, IGNORE))))
    assert read_mask(mask).tolist() == [[0, 2, IGNORE], [IGNORE, 2, 0]] and read_mask(mask).dtype == np.uint8


def test_colours_and_palettes(tmp_path):
    indexes = np.array([[0, 1], [2, 1]], np.uint8)
    picture = Image.fromarray(indexes)
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 9])
    picture.save(tmp_path / "p.png")
    table = ((0, 0), (255, 1), (9 * 65536, 2))
    for file in (tmp_path / "p.png", tmp_path / "rgb.png", tmp_path / "rgba.png"):
        if not file.exists():
            picture.convert(file.stem.upper()).save(file)
        assert (read_mask(Mask((2, 2), MaskFile(file, table, colours=True))) == indexes).all()
    by_index = Mask((2, 2), MaskFile(tmp_path / "p.png", ((0, 0), (1, 1), (2, 2))))
    assert (read_mask(by_index) == indexes).all()


def test_regions_are_painted_in_order():
    square, runs = Polygons(((1, 1, 5, 1, 5, 5, 1, 5),)), Runs((0, 12, 228))
    mask = Mask(SIZE, Regions((runs, square), (1, 2), SIZE, background=0))
    found = read_mask(mask)
    assert (found == drawn(c1=(0, 12, 0, 1), c2=(1, 5, 1, 5))).all()
    assert mask.classes() == {0, 1, 2} and mask.present() == (0, 1, 2)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools'
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_outlines_are_pycocotools(data):
    height, width = data.draw(st.integers(3, 40)), data.draw(st.integers(3, 40))
    points = st.lists(st.floats(-5, 45, width=32), min_size=6, max_size=12).filter(lambda p: len(p) % 2 == 0)
    rings = data.draw(st.lists(points, min_size=1, max_size=3))
    shape = shape_of(rings, (height, width))
    wanted = coco_masks.decode(coco_masks.merge(coco_masks.frPyObjects(rings, height, width))).astype(bool)
    assert (inside(shape, (height, width)) == wanted).all()
    found = coco_masks.encode(np.asfortranarray(wanted.astype(np.uint8)))
    for counts in (found["counts"].decode(), _lengths(wanted)):
        shape = shape_of({"size": [height, width], "counts": counts}, (height, width))
        assert (inside(shape, (height, width)) == wanted).all()


def _lengths(pixels):
    """Runs outside and inside in turn, column by column, counted one by one."""
    lengths, now = [0], False
    for value in pixels.T.reshape(-1):
        if value != now:
            lengths.append(0)
            now = value
        lengths[-1] += 1
    return lengths


def test_polygons_are_close_to_what_they_enclose():
    disc = np.array([(30 + 20 * np.cos(a), 25 + 20 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 90)]).reshape(-1)
    y, x = np.mgrid[:50, :60] + 0.5
    wanted = (x - 30) ** 2 + (y - 25) ** 2 < 400
    found = inside(Polygons((tuple(disc),)), (50, 60))
    assert (found & wanted).sum() / (found | wanted).sum() > 0.97


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        [],
        [[]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, float("nan")]],
        [[1, 2, 3, 4, 5, "6"]],
        {"counts": [1, 2]},
        {"counts": [-1, 241]},
        {"counts": [240], "size": [20, 12]},
        {"counts": None},
        "x",
    ],
)
def test_what_draws_nothing_is_no_outline(segmentation):
    assert shape_of(segmentation, SIZE) is None


def test_runs_that_make_no_sense_are_named():
    with pytest.raises(DataError, match="cannot be drawn"):
        inside(shape_of({"counts": "é"}, SIZE), SIZE)


@pytest.mark.parametrize("name", ["m.jpg", "broken.png", "missing.png"])
def test_files_that_are_no_masks(tmp_path, name):
    if name == "m.jpg":
        write(tmp_path / name, blank())
    elif name == "broken.png":
        (tmp_path / name).write_bytes(b"\x89PNG broken")
    with pytest.raises(DataError, match=name):
        read_mask(Mask(SIZE, MaskFile(tmp_path / name, TABLE)))


# In the image's frame -------------------------------------------------------------------------------------------------
def reference_mask(classes, preprocess):
    """Pixel by pixel: the value where the centre of each prepared pixel lies in the original."""
    frame, (h, w) = frame_of(classes.shape, preprocess), preprocess.frame(classes.shape)
    found = np.full((h, w), IGNORE, np.uint8)
    for i in range(h):
        for j in range(w):
            y, x = (i + 0.5 - frame.top) / frame.scale_y, (j + 0.5 - frame.left) / frame.scale_x
            if 0 <= y < classes.shape[0] and 0 <= x < classes.shape[1]:
                found[i, j] = classes[int(y), int(x)]
    return found


MODES = ("center", "squash", "letterbox")


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 50), st.integers(1, 50)),
    side=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    mode=st.sampled_from(MODES),
    crop=st.sampled_from([1.0, 0.8]),
    seed=st.integers(0, 9),
)
def test_a_mask_is_framed_as_its_image(size, side, mode, crop, seed):
    frames = ((side[1], side[0]),) if mode == "letterbox" else ()
    preprocess = Preprocess(size=side, crop_mode=mode, crop_pct=1.0 if mode == "letterbox" else crop, frames=frames)
    classes = np.random.default_rng(seed).integers(0, 4, size, dtype=np.uint8)
    found = prepare_mask(classes, preprocess)
    assert found.dtype == np.uint8 and found.shape == preprocess.frame(size)
    wanted = reference_mask(classes, preprocess)
    # On the border of two pixels either is the nearest.
    assert (found == wanted).mean() > 0.9 or (found != wanted).sum() <= found.shape[0] + found.shape[1]
    assert ((found == IGNORE) == (wanted == IGNORE)).mean() > 0.9


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(90, 140), (140, 90), (31, 33)])
def test_a_shape_is_where_its_image_shows_it(mode, size):
    """A white ellipse and its mask, prepared: they differ on the outline at most."""
    picture = Image.new("L", size[::-1])
    ImageDraw.Draw(picture).ellipse([size[1] * 0.3, size[0] * 0.2, size[1] * 0.7, size[0] * 0.9], fill=255)
    classes = (np.asarray(picture) > 0).astype(np.uint8)
    preprocess = Preprocess(size=(48, 64), crop_mode=mode, crop_pct=1.0, fill=0)
    image = prepare(np.repeat(np.asarray(picture)[..., None], 3, 2), preprocess)[..., 0]
    found = prepare_mask(classes, preprocess)
    inner = (image > 128) == (found == 1)
    surely = (image < 5) | (image > 250)
    assert inner[surely].all() and surely.mean() > 0.75
    assert (found == IGNORE).any() == (mode == "letterbox")


# As the targets of a data set -----------------------------------------------------------------------------------------
def test_a_data_set_of_masks_counts_them_and_knows_its_classes(tmp_path):
    masks = data(tmp_path, drawn(c1=(0, 2, 0, 3)), blank(), drawn(c2=(0, 1, 0, 1), c255=(5, 6, 0, 20)))
    assert masks.counts() == {"background": 3, "cat": 1, "dog": 1} and masks.labels(masks[2]) == (0, 2)
    assert pixel_counts(masks).tolist() == [240 * 3 - 6 - 1 - 20, 6, 1]
    checked, _ = check_masks(masks)
    assert checked.counts() == masks.counts() and (pixel_counts(checked) == pixel_counts(masks)).all()
    assert pickle.loads(pickle.dumps(masks)) == masks
    with pytest.raises(DataError, match=r"mask of 0.jpg has class index 2, but there are 2 classes"):
        replace(masks, classes=("a", "b"))
    with pytest.raises(DataError, match="256 classes; masks have at most 255"):
        replace(masks, classes=tuple(map(str, range(256))))


def test_the_fingerprint_follows_masks_and_not_the_place(tmp_path):
    places = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        places.append(data(tmp_path / name, drawn(c1=(0, 2, 0, 3))))
    one, two = places
    assert one.fingerprint() == two.fingerprint()
    relabelled = replace(two, samples=tuple(replace(s, target=s.target.mapped((0, 2, 1))) for s in two))
    assert relabelled.fingerprint() != two.fingerprint()
    mask = tmp_path / "two" / "masks" / "0.png"
    mask.write_bytes(mask.read_bytes() + b" ")
    assert one.fingerprint() != two.fingerprint()
    mask.unlink()
    with pytest.raises(DataError, match="0.png cannot be read"):
        two.fingerprint()


def test_classes_are_mapped_and_what_is_ignored_stays_so(tmp_path):
    masks, _ = check_masks(data(tmp_path, drawn(c1=(0, 2, 0, 3), c2=(3, 4, 0, 2), c255=(5, 6, 0, 1))))
    mapping = (4, 0, 1)
    mapped = masks[0].target.mapped(mapping)
    wanted = np.array([*mapping, *[IGNORE] * 253], np.uint8)[read_mask(masks[0].target)]
    assert (read_mask(mapped) == wanted).all()
    assert mapped.pixels == tuple(np.bincount(wanted.reshape(-1))[:5].tolist())
    square = Polygons(((1, 1, 5, 1, 5, 5, 1, 5),))
    regions = Mask(SIZE, Regions((square, square), (1, IGNORE), SIZE)).mapped(mapping)
    assert regions.source.labels == (0, IGNORE) and regions.source.background == 4


def test_every_class_is_on_both_sides_of_a_split(tmp_path):
    rare = [drawn(c2=(0, 3, 0, 3)) if i in (3, 7) else drawn(c1=(0, 3, 0, 3)) for i in range(12)]
    masks = data(tmp_path, *rare)
    for seed in range(3):
        train, val = split(masks, 0.25, seed)
        assert train.counts()["dog"] == val.counts()["dog"] == 1 and len(val) in (3, 4)
    assert [val.counts()["dog"] for _, val in kfold(masks, 2)] == [1, 1]


# From boxes -----------------------------------------------------------------------------------------------------------
def boxes(folder, *targets, classes=("cat", "dog")):
    samples = [Sample(folder / f"{i}.jpg", target, f"{i}.jpg") for i, target in enumerate(targets)]
    return Dataset(tuple(samples), classes, "boxes", "toy", folder)


ONE = ((1.0, 1.0, 5.0, 5.0), (8.0, 2.0, 12.0, 6.0), (14.0, 2.0, 16.0, 4.0))


def test_masks_of_objects_become_classes(tmp_path):
    values = drawn(c4=(1, 5, 1, 5), c9=(2, 6, 8, 12), c7=(2, 4, 14, 16))
    file = write(tmp_path / "m.tif", values)
    target = Boxes(ONE, (1, 0, UNKNOWN), (False,) * 3, SIZE, InstanceMasks(file, (4, 9, 7)))
    found = as_masks(boxes(tmp_path, target, Boxes((), (), (), SIZE)))
    assert found.kind == "masks" and found.classes == CLASSES and as_masks(found) is found
    assert (read_mask(found[0].target) == drawn(c2=(1, 5, 1, 5), c1=(2, 6, 8, 12), c255=(2, 4, 14, 16))).all()
    assert not read_mask(found[1].target).any()


def test_outlines_of_objects_become_classes(tmp_path):
    shapes = tuple(Polygons(((x1, y1, x2, y1, x2, y2, x1, y2),)) for x1, y1, x2, y2 in ONE)
    target = Boxes(ONE, (1, 0, 0), (False,) * 3, SIZE, Outlines((shapes[0], None, shapes[2])))
    found = as_masks(boxes(tmp_path, target, Boxes(ONE, (0,) * 3, (True,) * 3, SIZE)))
    assert (read_mask(found[0].target) == drawn(c2=(1, 5, 1, 5), c255=(2, 6, 8, 12), c1=(2, 4, 14, 16))).all()
    assert set(np.unique(read_mask(found[1].target))) == {0, IGNORE}
    named = as_masks(boxes(tmp_path, target, classes=("background", "dog")))
    assert named.classes == ("background", "dog")
    assert (read_mask(named[0].target) == drawn(c1=(1, 5, 1, 5), c255=(2, 6, 8, 12))).all()


def test_taken_boxes_keep_their_outlines():
    shapes = tuple(Polygons(((x1, y1, x2, y1, x2, y2, x1, y2),)) for x1, y1, x2, y2 in ONE)
    target = Boxes(ONE, (1, 0, 0), (False,) * 3, SIZE, Outlines(shapes))
    assert target.take([2, 0]).masks == Outlines((shapes[2], shapes[0]))
    with pytest.raises(DataError, match="crowd flags, 2 masks"):
        replace(target, masks=Outlines(shapes[:2]))


def test_mere_boxes_are_no_masks(tmp_path):
    with pytest.raises(DataError, match="boxes without masks"):
        as_masks(boxes(tmp_path, Boxes(ONE, (1, 0, 0), (False,) * 3, SIZE)))
    with pytest.raises(DataError, match="kind class, which cannot be converted to masks"):
        as_masks(Dataset((), ("a",), "class", "toy", tmp_path))


# Checked --------------------------------------------------------------------------------------------------------------
def counted(report):
    assert report.kinds == MASK_FAULTS
    return report.counts()


def test_masks_in_order_are_only_counted(tmp_path):
    masks = data(tmp_path, drawn(c1=(0, 2, 0, 3)), drawn(c2=(0, 1, 0, 1), c255=(1, 2, 0, 5)))
    for policy in ("fix", "drop", "error"):
        found, report = check_masks(masks, policy)
        assert not report.faults and report.text() == "" and report.merged == ""
        assert [s.target.pixels for s in found] == [(234, 6, 0), (234, 0, 1)]


def test_strange_values(tmp_path):
    masks = data(tmp_path, drawn(c1=(0, 2, 0, 3), c7=(4, 5, 0, 4), c9=(5, 6, 0, 1)), drawn(c1=(0, 2, 0, 20)))
    found, report = check_masks(masks)
    assert counted(report) == {("value", "ignored"): 1} and len(found) == 2 and found[0].target.pixels == (229, 6, 0)
    assert "toy, 2 masks: 1 with values that are no class (ignored), e.g. 0.jpg (7 in 4 pixels, 9 in 1" in (
        report.text()
    )
    found, report = check_masks(masks, "drop")
    assert counted(report) == {("value", "dropped"): 1} and [s.id for s in found] == ["1.jpg"]
    with pytest.raises(DataError, match="that are no class"):
        check_masks(masks, "error")


def test_empty_and_unknown_masks(tmp_path):
    masks = data(tmp_path, blank(), blank(value=255), drawn(c1=(0, 2, 0, 3)))
    found, report = check_masks(masks)
    assert counted(report) == {("unknown", "dropped"): 1, ("empty", "kept"): 1}
    assert [s.id for s in found] == ["0.jpg", "2.jpg"]
    found, report = check_masks(masks, "drop")
    assert counted(report) == {("unknown", "dropped"): 1, ("empty", "dropped"): 1} and len(found) == 1
    with pytest.raises(DataError, match="no image is left"):
        check_masks(masks.subset([1], "toy"))
    things = replace(masks, classes=("car", "cat", "dog"))
    assert counted(check_masks(things)[1]) == {("unknown", "dropped"): 1}  # a picture of a car


def test_masks_of_another_size(tmp_path):
    half, other = drawn((6, 10), c1=(0, 3, 0, 5)), drawn((12, 12), c1=(0, 3, 0, 5))
    found, report = check_masks(data(tmp_path, half, other, *[drawn(c1=(0, 3, 0, 5))] * 8))
    assert counted(report) == {("size", "dropped"): 1, ("size", "fixed"): 1}
    assert [s.id for s in found] == ["0.jpg", *(f"{i}.jpg" for i in range(2, 10))]
    assert (read_mask(found[0].target) == drawn(c1=(0, 6, 0, 10))).all() and found[0].target.pixels == (180, 60, 0)
    with pytest.raises(DataError, match=r"0.jpg \(10x6, the image has 20x12\)"):
        check_masks(data(tmp_path, half), "error")


FINE = drawn(c1=(0, 3, 0, 9), c2=(6, 9, 0, 9))
BLENDED = np.concatenate([FINE[:9], np.arange(100, 160, dtype=np.uint8).reshape(3, 20)])
ONE_MORE = np.where(drawn(c1=(9, 12, 0, 6)) > 0, np.uint8(3), FINE)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (FINE * 60, r"54 of 54 pixels .* of 60, 120 .no pixel is left of 'cat', 'dog'.*grey levels .*0, 60, 120"),
        (FINE + 1, r"27 of 240 pixels .* of 3 .*counted from 1: they go up to 3, but 3 classes have 0 to 2"),
        (ONE_MORE, r"18 of 72 pixels .* of 3, more.*without the background: the masks hold 0 to 3"),
        (BLENDED, r"60 of 114 pixels .* resized or saved with blended edges"),
        (np.minimum(FINE, 1) * 255, r"everything except 'background' in 1 of 1 masks.*value 255, which means ignored"),
        (
            np.where(FINE == 2, 77, FINE).astype(np.uint8),
            r"27 of 54 pixels .* of 77 .*'dog'.*a line for each, called void",
        ),
    ],
    ids=["grey", "from 1", "no background", "blended", "white", "another"],
)
def test_a_correction_that_would_lose_much_stops_with_the_reason(tmp_path, pixels, said):
    with pytest.raises(DataError, match=f"would drop {said}"):
        check_masks(data(tmp_path, pixels))


def test_numbers_without_a_background_are_said(tmp_path):
    masks = data(tmp_path, np.maximum(FINE, 1))
    assert "start at 1" in check_masks(masks)[1].merged and "start at 1" in checked({"": masks})[1][0]
    assert not check_masks(data(tmp_path, FINE))[1].merged


def test_a_correction_does_not_drop_many_images_or_all_of_a_class(tmp_path):
    sizes = data(tmp_path, FINE, drawn((12, 12), c1=(0, 3, 0, 5)))
    with pytest.raises(DataError, match="would drop 1 of 2 images, whose masks have another size"):
        check_masks(sizes)
    assert [s.id for s in check_masks(sizes, "drop")[0]] == ["0.jpg"]
    last = data(tmp_path, *[drawn(c1=(0, 3, 0, 5))] * 19, drawn((12, 12), c2=(0, 3, 0, 5)))
    with pytest.raises(DataError, match="would drop all pixels of 'dog'"):
        check_masks(last)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_masks_of_the_stored_picture_are_turned_with_it(tmp_path, orientation):
    pixels = drawn(c1=(0, 2, 0, 9), c2=(9, 12, 15, 20))
    found, report = check_masks(data(tmp_path, pixels, orientation=orientation))
    assert counted(report) == {("size", "fixed"): 1} and found[0].target.size == SIZE[::-1]
    assert (read_mask(found[0].target) == upright(pixels, orientation)).all()


def test_values_that_are_objects_are_said_to_be(tmp_path):
    file = write(tmp_path / "m.png", drawn(c1=(1, 5, 1, 5), c2=(2, 6, 8, 12)))
    write(tmp_path / "0.jpg", np.zeros((*SIZE, 3), np.uint8))
    target = Boxes(ONE[:2], (0, 0), (False,) * 2, SIZE, InstanceMasks(file, (1, 2)))
    parts, notes = checked({"all": as_masks(boxes(tmp_path, target, classes=("cat",)))})
    assert parts["all"].kind == "masks" and len(notes) == 1 and "all values except 0 for cat" in notes[0]


def test_objects_without_an_outline_are_told(tmp_path):
    write(tmp_path / "0.jpg", np.zeros((*SIZE, 3), np.uint8))
    shape = Polygons(((1, 1, 5, 1, 5, 5, 1, 5),))
    target = Boxes(ONE[:2], (0, 0), (False,) * 2, SIZE, Outlines((shape, None)))
    _, report = check_masks(as_masks(boxes(tmp_path, target)))
    assert counted(report) == {("outline", "ignored"): 1} and "0.jpg (1 of 2)" in report.text()


def test_policies_are_checked(tmp_path):
    masks = data(tmp_path, blank())
    with pytest.raises(ConfigError, match="accepted: error, fix, drop"):
        check_masks(masks, "mend")
    with pytest.raises(ConfigError, match="only masks"):
        check_masks(boxes(Path(".")))
