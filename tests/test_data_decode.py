"""Decoding: equal to Pillow where Pillow is right, upright, and strict about damage."""

from __future__ import annotations

import io
import os
import struct
import time
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from zoo import image_header, reading
from zoo.data import decode
from zoo.errors import ConfigError, DataError, UnreadableError
from zoo.image_header import image_size
from zoo.reading import SECONDS, deadline, in_time


def picture(height=48, width=64, channels=3):
    y, x = np.mgrid[0:height, 0:width]
    bands = [x * 255 // (width - 1), y * 255 // (height - 1), (x + 2 * y) % 256, (x * 3 + y) % 256]
    return np.stack(bands[:channels], -1).astype(np.uint8)


def encoded(image, format, **options):
    stream = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(stream, format, **options)
    return stream.getvalue()


def reference(data, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"])
def test_every_format_equals_pillow(format, tmp_path):
    data = encoded(picture(), format)
    path = tmp_path / "x.jpg"  # the content decides, not the suffix
    path.write_bytes(data)
    for source in (data, path, str(path)):
        np.testing.assert_array_equal(decode(source), reference(data))
    assert decode(data).flags.c_contiguous and decode(data).dtype == np.uint8


@pytest.mark.parametrize("options", [{"subsampling": 0}, {"subsampling": 2, "quality": 40}, {"progressive": True}])
def test_kinds_of_jpeg_equal_pillow(options):
    data = encoded(picture(), "JPEG", **options)
    np.testing.assert_array_equal(decode(data), reference(data))
    np.testing.assert_array_equal(decode(data, "L")[..., 0], reference(data, "L"))
    np.testing.assert_array_equal(decode(data, "RGBA"), reference(data, "RGBA"))


def test_grey_jpeg():
    data = encoded(picture()[..., 0], "JPEG")
    np.testing.assert_array_equal(decode(data), reference(data))
    np.testing.assert_array_equal(decode(data, "L")[..., 0], reference(data, "L"))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(picture(), format, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    pixels = decode(data)
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.shape == ((64, 48, 3) if orientation >= 5 else (48, 64, 3))


def test_broken_exif_costs_nothing():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(), "JPEG", exif=exif)
    for broken in (data.replace(b"Exif\0\0MM", b"Exif\0\0ZZ"), data.replace(b"\x01\x12\x00\x03", b"\x01\x12\x00\x63")):
        assert broken != data and decode(broken).shape == (48, 64, 3)


def test_cmyk_jpeg_equals_pillow():
    data = encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG")
    assert simplejpeg.decode_jpeg_header(data)[2] in ("CMYK", "YCCK")
    np.testing.assert_array_equal(decode(data), reference(data))
    np.testing.assert_array_equal(decode(data, "L")[..., 0], np.asarray(Image.fromarray(reference(data)).convert("L")))


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize(("low", "high"), [(0, 65535), (0, 4095), (31000, 33000)])
def test_16_bits_are_scaled_by_their_own_range(format, low, high):
    """Full range, the 12 bits of most devices, and Hounsfield units with an offset: all keep their contrast."""
    values = np.linspace(low, high, 4096).astype(np.uint16).reshape(64, 64)
    pixels = decode(encoded(values, format))
    assert pixels.shape == (64, 64, 3) and len(np.unique(pixels)) == 256
    wanted = (values.astype(np.float64) - low) / (high - low) * 255
    assert np.abs(pixels[..., 0] - wanted).max() <= 0.5 + 1e-9
    np.testing.assert_array_equal(decode(encoded(values, format), "L")[..., 0], pixels[..., 1])


def test_16_bit_colour_png():
    rgb = (picture(8, 8).astype(np.uint16) * 257).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    np.testing.assert_array_equal(decode(data), picture(8, 8))


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.int16])
def test_floats_and_signed_values_are_scaled_alike(dtype):
    """Tomography is written with negative Hounsfield units."""
    values = np.linspace(-1024, 3071, 256).astype(dtype).reshape(16, 16)
    file = io.BytesIO()
    if dtype == np.int16:  # Pillow reads such files and does not write them
        tags = {256: 16, 257: 16, 258: 16, 259: 1, 262: 1, 273: 8, 278: 16, 279: 512, 339: 2}
        entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        start = 8 + 512
        body = values.astype("<i2").tobytes() + struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
        file.write(b"II*\0" + struct.pack("<I", start) + body)
    else:
        Image.fromarray(values).save(file, "TIFF")
    found = decode(file.getvalue(), "L")[..., 0]
    wanted = (values.astype(np.float64) - values.min()) / (values.max() - values.min()) * 255
    assert np.abs(found - wanted).max() <= 0.5 + 1e-9


def test_a_single_grey_value_is_black_and_what_is_no_number_is_refused():
    assert not decode(encoded(np.full((4, 4), 700, np.uint16), "PNG")).any()
    values = np.ones((4, 4), np.float32)
    values[1, 2] = np.nan
    with pytest.raises(DataError, match="not finite numbers"):
        decode(encoded(values, "TIFF"))


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (10, 200, 30)])
def test_transparent_images_are_composed_on_a_background(background):
    """Whatever the file stores: an opacity for each pixel, or for each entry of a palette."""
    pixels = picture(channels=4)
    palette = Image.fromarray(picture()).quantize(16)
    files = {
        "rgba": encoded(pixels, "PNG"),
        "webp": encoded(pixels, "WEBP", lossless=True, exact=True),
        "grey": encoded(Image.fromarray(picture(channels=2), "LA"), "PNG"),
        "palette": encoded(palette, "PNG", transparency=bytes(range(0, 256, 16))),
        "colour": encoded(Image.fromarray(np.full((4, 5, 3), 7, np.uint8)), "PNG", transparency=(7, 7, 7)),
    }
    for name, data in files.items():
        whole = reference(data, "RGBA").astype(float)
        share = whole[..., 3:] / 255
        exact = whole[..., :3] * share + np.array(background) * (1 - share)
        found = decode(data, background=background)
        assert np.abs(found - exact).max() <= 0.5, name
        assert (found[whole[..., 3] == 0] == background).all()
    assert (decode(files["colour"]) == 255).all()  # white by default
    assert decode(files["rgba"], "L", background=background).shape == (48, 64, 1)
    opaque = pixels.copy()
    opaque[..., 3] = 255
    np.testing.assert_array_equal(decode(encoded(opaque, "PNG"), background=background), pixels[..., :3])


def test_palette_with_transparency_and_alpha_as_the_reference():
    palette = Image.fromarray(picture()).quantize(16)
    clear = encoded(palette, "PNG", transparency=bytes(range(0, 256, 16)))
    np.testing.assert_array_equal(decode(clear, background=()), np.asarray(palette.convert("RGB")))
    np.testing.assert_array_equal(decode(clear, "RGBA"), reference(clear, "RGBA"))
    alpha = encoded(picture(channels=4), "PNG")
    np.testing.assert_array_equal(decode(alpha, background=()), picture())
    np.testing.assert_array_equal(decode(alpha, "RGBA"), picture(channels=4))
    grey = encoded(Image.fromarray(picture(channels=2), "LA"), "PNG")
    np.testing.assert_array_equal(decode(grey, background=()), reference(grey))
    bits = encoded(Image.fromarray(picture()).convert("1"), "PNG")
    np.testing.assert_array_equal(decode(bits), reference(bits))


def test_first_frame_of_an_animation():
    frames = [Image.fromarray(np.full((6, 7, 3), value, np.uint8)) for value in (10, 200)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode(data), np.full((6, 7, 3), 10))


@pytest.mark.parametrize("size", [(1, 300), (300, 1), (1, 1)])
@pytest.mark.parametrize("format", ["PNG", "JPEG"])
def test_thin_images(size, format):
    data = encoded(np.full((*size, 3), 77, np.uint8), format)
    np.testing.assert_array_equal(decode(data), reference(data))


def test_damage_is_refused_and_named(tmp_path):
    jpeg, png = encoded(picture(300, 300), "JPEG", quality=95), encoded(picture(), "PNG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 1
    garbage = bytearray(jpeg)
    garbage[len(jpeg) // 2 : len(jpeg) // 2 + 64] = bytes(np.random.default_rng(3).integers(0, 255, 64, np.uint8))
    cases = {
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged JPEG"),
        "garbage.jpg": (bytes(garbage), "damaged JPEG"),
        "cut.png": (png[: len(png) // 2], "damaged"),
        "flipped.png": (bytes(flipped), "damaged"),
        "empty.jpg": (b"", "empty"),
        "page.jpg": (b"<!DOCTYPE html><title>404</title>", "no.* image of a known format; it starts with '<!DOCTYPE"),
        "start.jpg": (jpeg[:200], "start.jpg"),
    }
    for name, (data, said) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"{name} .*{said}" if said != name else said):
            decode(tmp_path / name)
    with pytest.raises(DataError, match="gone.jpg cannot be read"):
        decode(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be read"):
        decode(tmp_path)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    """Opening a pipe that nobody writes to would block for ever, and `/dev/zero` never ends."""
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "endless.jpg").symlink_to("/dev/zero")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "absent.jpg")
    said = {
        "pipe": "a named pipe",
        "link": "a named pipe",
        "folder": "a folder",
        "endless": "a device",
        "nowhere": "No",
    }
    for name, kind in said.items():
        for read in (decode, image_size):
            with pytest.raises(UnreadableError, match=f"{name}.jpg cannot be read: .*{kind}") as caught:
                read(tmp_path / f"{name}.jpg")
            assert caught.value.path == str(tmp_path / f"{name}.jpg")
    with pytest.raises(UnreadableError, match="null"):
        decode("a\0b.jpg")


def test_a_read_that_never_ends_is_given_up(tmp_path, monkeypatch):
    file = tmp_path / "slow.jpg"
    file.write_bytes(encoded(picture(), "JPEG"))
    monkeypatch.setenv("ZOO_READ_SECONDS", "0.05")
    monkeypatch.setitem(reading._folders, str(tmp_path), False)  # as on a network drive
    with pytest.raises(UnreadableError, match="slow.jpg cannot be read: nothing came .* ZOO_READ_SECONDS"):
        in_time(lambda path: time.sleep(1), file)
    assert decode(file).shape == (48, 64, 3)  # other files are read meanwhile
    monkeypatch.setenv("ZOO_READ_SECONDS", "soon")
    assert deadline() == SECONDS


def test_disks_and_other_file_systems(tmp_path, monkeypatch):
    if not reading._file_system("/proc"):
        pytest.skip("no list of mounts")
    assert reading._file_system("/proc") == "proc" == reading._file_system("/proc/self")
    assert reading._file_system(str(tmp_path)) not in ("", "proc")
    (tmp_path / "link").symlink_to("/proc/version")
    assert not reading._is_local("/proc/version") and not reading._is_local(str(tmp_path / "link"))
    assert b"Linux" in reading.read_file("/proc/version") and reading.read_file(tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning")
def test_a_forked_process_reads(tmp_path, monkeypatch):
    """It has none of the threads of its parent, and waits for none of them."""
    file = tmp_path / "a.png"
    file.write_bytes(encoded(picture(), "PNG"))
    monkeypatch.setitem(reading._folders, str(tmp_path), False)  # as on a network drive
    decode(file)
    child = os.fork()
    if not child:
        os._exit(0 if decode(file).shape == (48, 64, 3) else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_damage_behind_harmless_oddities_is_found():
    """The decoder stops at its first warning, which would hide the ones after it."""
    jpeg = encoded(picture(300, 300), "JPEG", quality=95)
    garbage = bytearray(jpeg)
    garbage[len(jpeg) // 2 : len(jpeg) // 2 + 64] = bytes(np.random.default_rng(3).integers(0, 255, 64, np.uint8))
    for data in (jpeg, bytes(garbage)):
        odd = data.replace(b"JFIF\0\x01\x01", b"JFIF\0\x03\x00")
        assert odd != data
        if data == jpeg:
            np.testing.assert_array_equal(decode(odd), reference(jpeg))
        else:
            with pytest.raises(DataError, match="damaged JPEG"):
                decode(odd)
    cmyk = encoded(Image.fromarray(picture(300, 300)).convert("CMYK"), "JPEG", quality=95)
    damaged = bytearray(cmyk)
    damaged[len(cmyk) // 2 : len(cmyk) // 2 + 64] = bytes(np.random.default_rng(3).integers(0, 255, 64, np.uint8))
    reference(bytes(damaged))  # Pillow says nothing
    with pytest.raises(DataError, match="damaged JPEG"):
        decode(bytes(damaged))
    assert decode(bytes(damaged), on_corrupt="lenient").shape == (300, 300, 3)


def test_lenient_takes_what_pillow_takes():
    jpeg = encoded(picture(300, 300), "JPEG", quality=95)
    garbage = bytearray(jpeg)
    garbage[len(jpeg) // 2 : len(jpeg) // 2 + 64] = bytes(np.random.default_rng(3).integers(0, 255, 64, np.uint8))
    with pytest.raises(DataError):
        decode(bytes(garbage))
    np.testing.assert_array_equal(decode(bytes(garbage), on_corrupt="lenient"), reference(bytes(garbage)))
    with pytest.raises(DataError, match="truncated"):
        decode(jpeg[: len(jpeg) // 2], on_corrupt="lenient")


def test_harmless_oddities_are_no_damage():
    """What cameras and editors do: padding before the end, an unknown JFIF version, filling between the headers."""
    jpeg = encoded(picture(), "JPEG")
    quantisation = jpeg.index(b"\xff\xdb")
    odd = {
        "padding": jpeg[:-2] + b"\0" * 40 + jpeg[-2:],
        "version": jpeg.replace(b"JFIF\0\x01\x01", b"JFIF\0\x03\x00"),
        "filling": jpeg[:quantisation] + b"\0\0\0" + jpeg[quantisation:],
    }
    for name, data in odd.items():
        assert data != jpeg
        with pytest.raises(ValueError):
            simplejpeg.decode_jpeg(data)  # or else this test shows nothing
        np.testing.assert_array_equal(decode(data), reference(jpeg), err_msg=name)
    np.testing.assert_array_equal(decode(jpeg + b"trailing bytes"), reference(jpeg))


def test_size_is_checked_before_decoding():
    for format in ("JPEG", "PNG"):
        data = encoded(picture(), format)
        assert decode(data, max_pixels=48 * 64).shape == (48, 64, 3)
        with pytest.raises(DataError, match=r"64x48 pixels; at most 3,071"):
            decode(data, max_pixels=48 * 64 - 1)
    # 400 megapixels that a few bytes claim: refused by the header.
    bomb = bytearray(encoded(picture(), "PNG"))
    bomb[16:24] = struct.pack(">II", 20000, 20000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    with pytest.raises(DataError, match="too large"):
        decode(bytes(bomb))


def test_a_large_file_is_no_image_by_its_header(tmp_path, monkeypatch):
    """Without its first bytes, nobody reads a terabyte."""
    with open(tmp_path / "hole.tif", "wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(UnreadableError, match="hole.tif is empty, or not an image"):
        decode(tmp_path / "hole.tif")
    monkeypatch.setattr(image_header, "LARGE", 0)
    (tmp_path / "small.png").write_bytes(encoded(picture(), "PNG"))
    np.testing.assert_array_equal(decode(tmp_path / "small.png"), picture())


def test_unknown_options():
    with pytest.raises(ConfigError, match="BGR"):
        decode(b"x", "BGR")
    with pytest.raises(ConfigError, match="on_corrupt"):
        decode(b"x", on_corrupt="skip")


def test_all_real_photos_decode_strictly_and_equal_pillow(assets):
    photos = [p for p in (assets / "datasets").rglob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".pgm")]
    assert len(photos) > 2000
    for path in photos:
        assert decode(path).shape[-1] == 3
    for path in photos[::40]:
        np.testing.assert_array_equal(decode(path), reference(path.read_bytes()))
