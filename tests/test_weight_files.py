"""Weight files: what is read, what is written, and what is refused without being opened as a program."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from zoo.errors import WeightsError
from zoo.weights.file import read, sha256, write

TENSORS = {
    "fc.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "half": np.linspace(-1, 1, 5).astype(np.float16),
    "double": np.array([[1e300], [-0.0]]),
    "count": np.array(7, dtype=np.int64),
    "mask": np.array([True, False, True]),
    "nothing": np.zeros((0, 3), np.float32),
    "bytes": np.arange(3, dtype=np.uint8),
    "ünïcode/name with spaces": np.ones((1, 1, 1, 2), np.int32),
}


def raw(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def f32(start: int, end: int, shape: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and left[name].tobytes() == right[name].tobytes()
        for name in left
    )


# --- Reading and writing ---------------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new folder" / "w.safetensors"
    write(path, TENSORS, {"format": "pt", "note": "ü"})
    file = read(path)
    assert file.names() == sorted(TENSORS) and file.metadata == {"format": "pt", "note": "ü"}
    assert file.shapes() == {name: TENSORS[name].shape for name in sorted(TENSORS)}
    assert file.dtypes() == {name: TENSORS[name].dtype for name in sorted(TENSORS)}
    assert same(file.load(), TENSORS)
    assert os.listdir(path.parent) == ["w.safetensors"]


def test_the_formats_own_library_agrees(tmp_path):
    write(tmp_path / "ours", TENSORS, {"a": "b"})
    assert same(load_file(tmp_path / "ours"), TENSORS)
    save_file(TENSORS, tmp_path / "theirs", {"a": "b"})
    assert same(read(tmp_path / "theirs").load(), TENSORS) and read(tmp_path / "theirs").metadata == {"a": "b"}


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.complex64])
def test_dtypes_that_numpy_lacks(tmp_path, dtype):
    tensors = {"w": np.arange(6).astype(dtype).reshape(2, 3), "one": np.array(1).astype(dtype)}
    write(tmp_path / "w.safetensors", tensors)
    assert same(read(tmp_path / "w.safetensors").load(), tensors)


def test_layout_in_memory_and_byte_order_do_not_matter(tmp_path):
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    tensors = {"t": np.asfortranarray(value), "s": np.repeat(value, 2, axis=1)[:, ::2], "b": value.astype(">f4")}
    write(tmp_path / "w.safetensors", tensors)
    for array in read(tmp_path / "w.safetensors").load().values():
        np.testing.assert_array_equal(array, value)


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    write(tmp_path / "a", TENSORS, {"x": "1", "y": "2"})
    write(tmp_path / "b", dict(reversed(TENSORS.items())), {"y": "2", "x": "1"})
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")


def test_every_tensor_is_aligned_and_read_only(tmp_path):
    write(tmp_path / "w", TENSORS)
    for array in read(tmp_path / "w").load().values():
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0


def test_headers_cost_no_tensor_memory(tmp_path):
    path = tmp_path / "sparse.safetensors"
    size = 1 << 40  # a terabyte that the disk does not hold
    path.write_bytes(raw({"w": f32(0, size, [size // 4])}))
    try:
        os.truncate(path, path.stat().st_size + size)
    except OSError:
        pytest.skip("this file system has no sparse files of this size")
    assert read(path).shapes() == {"w": (size // 4,)}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, {"w": np.ones(2, np.float32)})
    before = path.read_bytes()
    for tensors in ({"w": np.array(["text"])}, {"w": np.array([object()])}, {"__metadata__": np.ones(1)}):
        with pytest.raises(WeightsError):
            write(path, tensors)
    with pytest.raises(WeightsError, match="must be text"):
        write(path, {}, {"epochs": 3})  # type: ignore[dict-item]
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit to set")
def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write(path, {"w": np.ones(2, np.float32)})
    before = path.read_bytes()
    code = (
        "import resource, numpy as np\nfrom zoo.weights.file import write\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"write({str(path)!r}, {{'w': np.ones(1000)}})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 1 and "File too large" in result.stderr
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["w.safetensors"]


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64, ml_dtypes.float8_e5m2])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_named(tmp_path, dtype, bad):
    values = np.ones((3, 3)).astype(dtype)
    values[1, 2] = bad
    write(tmp_path / "w.safetensors", {"fine": np.ones(2, np.float32), "layer1.weight": values})
    with pytest.raises(WeightsError, match=r"'layer1\.weight' holds 1 values that are NaN or infinite"):
        read(tmp_path / "w.safetensors").load()
    assert read(tmp_path / "w.safetensors").load(check_finite=False)["layer1.weight"].shape == (3, 3)


# --- Damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    write(tmp_path / "w.safetensors", TENSORS)
    return tmp_path / "w.safetensors"


def test_a_file_cut_anywhere_is_refused(sound):
    data = sound.read_bytes()
    for length in range(0, len(data)):
        sound.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            read(sound)
    sound.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match="is truncated"):
        read(sound)
    sound.write_bytes(data[:100])
    with pytest.raises(WeightsError, match="is truncated or damaged: its header claims"):
        read(sound)


def test_extra_bytes_are_refused(sound):
    sound.write_bytes(sound.read_bytes() + b"\0")
    with pytest.raises(WeightsError, match="extra bytes"):
        read(sound)


def test_a_flipped_bit_in_the_header_never_gives_other_errors_or_crashes(sound):
    data = sound.read_bytes()
    length = 8 + struct.unpack("<Q", data[:8])[0]
    refused = 0
    for position in range(length):
        sound.write_bytes(data[:position] + bytes([data[position] ^ 2]) + data[position + 1 :])
        try:
            read(sound).load(check_finite=False)  # a flip inside a name gives another name: nothing here can tell
        except WeightsError:
            refused += 1
    assert refused > length / 3


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (raw(b"{}", length=1 << 62), "header claims"),
        (raw(b"[1]"), "not a safetensors file"),
        (raw(b"{]"), "header is not JSON"),
        (raw(b'{"a": NaN, \xff}'), "header is not JSON"),
        (raw(b'{"a":' + b"[" * 100_000 + b"}"), "header is not JSON"),
        (raw(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,4]}}', bytes(4)), "not JSON"),
        (raw({"a": 3}), "tensor 'a' needs dtype"),
        (raw({"a": {"dtype": "F32"}}), "tensor 'a' needs dtype"),
        (raw({"a": f32(0, 4, [True])}, bytes(4)), "tensor 'a' needs dtype"),
        (raw({"a": f32(0, 4, [1.0])}, bytes(4)), "tensor 'a' needs dtype"),  # type: ignore[list-item]
        (raw({"a": f32(0, 4, [-1, -1])}, bytes(4)), "tensor 'a' needs dtype"),
        (raw({"a": {"dtype": [], "shape": [], "data_offsets": [0, 4]}}, bytes(4)), "tensor 'a' needs dtype"),
        (raw({"a": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)), "dtype 'F3'"),
        (raw({"a": f32(0, 4, [2])}, bytes(4)), "shape .2,. and F32 has 4 bytes"),
        (raw({"a": f32(4, 0, [0])}, bytes(4)), "has -4 bytes"),
        (raw({"a": f32(0, 8, [2]), "b": f32(4, 12, [2])}, bytes(12)), "overlaps"),
        (raw({"a": f32(0, 4, [1]), "b": f32(8, 12, [1])}, bytes(12)), "leaves a gap"),
        (raw({"a": f32(0, 4, [1]), "__metadata__": {"x": 1}}, bytes(4)), "metadata must be text"),
        (raw({"a": f32(0, 4, [1]), "__metadata__": 3}, bytes(4)), "metadata must be text"),
        (raw(b'{"a":1,"a":2}'), "name 'a' occurs twice"),
        (raw(b'{"a":{"dtype":"F32","dtype":"F32"}}'), "name 'dtype' occurs twice"),
    ],
)
def test_damaged_headers_are_named(tmp_path, content, words):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read(path)


def test_a_header_of_absurd_size_is_not_parsed(tmp_path):
    path = tmp_path / "w.safetensors"
    size = 33 * 1024 * 1024
    path.write_bytes(struct.pack("<Q", size) + b"{")
    os.truncate(path, size + 8)
    with pytest.raises(WeightsError, match="header of 34603008 bytes; zoo accepts up to"):
        read(path)


# --- Other formats ---------------------------------------------------------------------------------------------------


class Canary:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def as_torch_zip(path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/data/0", bytes(16))


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".bin", ".pth"])
@pytest.mark.parametrize("form", [0, 1, 2, 3, 4, 5, "zip"])
def test_a_pickle_is_refused_whatever_its_name_and_never_opened(tmp_path, suffix, form):
    canary, path = tmp_path / "canary", tmp_path / f"model{suffix}"
    pickled = pickle.dumps({"w": Canary(canary)}, protocol=form if isinstance(form, int) else 2)
    if form == "zip":
        as_torch_zip(path, pickled)
    else:
        path.write_bytes(pickled)
    with pytest.raises(WeightsError, match="Python pickle .* can run any program .*weights_only=True"):
        read(path)
    assert not canary.exists()
    stream = pickle.loads(pickled)["w"]  # the canary does work
    stream.close()
    assert canary.exists()


def make_npz(path: Path) -> None:
    with path.open("wb") as stream:
        np.savez(stream, a=np.ones(2))


def make_npy(path: Path) -> None:
    with path.open("wb") as stream:
        np.save(stream, np.ones(2))


def make_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.add(__file__, "x")


def make_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_npz, r"NumPy \.npz"),
        (make_npy, r"NumPy \.npy"),
        (make_tar, "tar archive"),
        (make_zip, "zip archive that holds 'config.json'"),
        (b"PK\x03\x04 and no more", "damaged zip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), r"HDF5 \(\.h5"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.3.0", "ONNX"),
        (b"\x1c\0\0\0TFL3" + bytes(20), "TensorFlow Lite"),
        (b"GGUF" + bytes(100), "GGUF"),
        (gzip.compress(b"x", mtime=0), "gzip"),  # no time in it: the test's name is made of these bytes
        (b"  <!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"),
        (b"", "an empty file"),
        (b"\xff" * 50, "in a format that zoo does not know"),
        (b"x", "in a format that zoo does not know"),
    ],
)
def test_other_formats_are_named(tmp_path, make, words):
    path = tmp_path / "model.safetensors"
    if isinstance(make, bytes):
        path.write_bytes(make)
    else:
        make(path)
    with pytest.raises(WeightsError, match=f"not a safetensors file.*{words}"):
        read(path)


def test_a_header_length_that_starts_like_a_pickle_is_no_pickle(tmp_path):
    # 0x0280 = 640 bytes of header: the first two bytes are those of a pickle of protocol 2.
    header = json.dumps({"w": f32(0, 4, [1])}).encode()
    (tmp_path / "w").write_bytes(raw(header + b" " * (640 - len(header)), bytes(4)))
    assert (tmp_path / "w").read_bytes()[:2] == b"\x80\x02"
    assert read(tmp_path / "w").names() == ["w"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match="there is no weight file"):
        read(tmp_path / "none.safetensors")


# --- Folders and shards ----------------------------------------------------------------------------------------------


def shards(folder: Path, weight_map: dict[str, object] | None = None) -> Path:
    """Two shards and their index."""
    names = {"model-00001-of-00002.safetensors": ["a", "c"], "model-00002-of-00002.safetensors": ["b"]}
    for index, (shard, tensors) in enumerate(names.items()):
        write(folder / shard, {name: np.full(3, index, np.float32) for name in tensors}, {"format": "pt"})
    right = {name: shard for shard, tensors in names.items() for name in tensors}
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map or right}))
    return path


def test_shards_read_as_one(tmp_path):
    index = shards(tmp_path)
    for given in (index, tmp_path):
        file = read(given)
        assert file.names() == ["a", "b", "c"] and file.metadata == {"format": "pt"}
        assert {name: array[0] for name, array in file.load().items()} == {"a": 0, "b": 1, "c": 0}


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "x.bin", ".safetensors", 3]
)
def test_shards_outside_the_folder_are_refused(tmp_path, shard):
    folder = tmp_path / "inside"
    folder.mkdir()
    write(tmp_path / "outside.safetensors", {"a": np.ones(1)})
    with pytest.raises(WeightsError, match="a shard is a .* file beside its index"):
        read(shards(folder, {"a": shard}))


def test_shards_that_disagree_with_their_index(tmp_path):
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    for wrong in ({"a": one, "c": two, "b": two}, {"a": one, "b": two}, {"a": one, "c": one, "b": two, "d": two}):
        with pytest.raises(WeightsError, match="disagree about"):
            read(shards(tmp_path, wrong))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match="there is no weight file"):
        read(shards(tmp_path, {"a": "missing.safetensors"}))


@pytest.mark.parametrize("text", ["{}", '{"weight_map": {}}', '{"weight_map": []}', "[]", "<html>"])
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(WeightsError, match="not a shard index|is damaged"):
        read(tmp_path)


def test_a_folder_with_one_file_and_with_several(tmp_path):
    with pytest.raises(WeightsError, match="it has: none"):
        read(tmp_path)
    write(tmp_path / "a.safetensors", {"a": np.ones(1)})
    assert read(tmp_path).names() == ["a"]
    write(tmp_path / "b.safetensors", {"b": np.ones(1)})
    with pytest.raises(WeightsError, match="it has: a.safetensors, b.safetensors"):
        read(tmp_path)
    write(tmp_path / "model.safetensors", {"c": np.ones(1)})
    assert read(tmp_path).names() == ["c"]
