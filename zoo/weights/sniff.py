"""Recognise the format of a file by its bytes, never by its name. Nothing is unpickled, imported or executed."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path
from typing import BinaryIO

from zoo.errors import WeightsError

MAX_HEADER = 32 * 1024 * 1024
"""Longest accepted safetensors header in bytes: enough for about 300,000 tensors, parsed within a second."""

_PICKLE = (
    "a Python pickle ({}), which can run any program when it is opened, so zoo never opens one. Convert it in a "
    "separate environment that has torch: `from safetensors.torch import save_file; "
    "save_file(torch.load(FILE, weights_only=True), 'model.safetensors')`"
)

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x93NUMPY", "a NumPy .npy array"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 (.h5, Keras) file"),
    (0, b"GGUF", "a GGUF file"),
    (4, b"TFL3", "a TensorFlow Lite model"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull` in its repository"),
)

_MARKUP = (b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")


def is_safetensors(path: Path) -> bool:
    """Whether the file starts like safetensors: a plausible header length, then a JSON object."""
    with path.open("rb") as stream:
        start = stream.read(9)
    return len(start) == 9 and start[8:] == b"{" and 2 <= struct.unpack("<Q", start[:8])[0] <= path.stat().st_size - 8


def describe(path: Path) -> str:
    """Return what a file that is not safetensors is, and what to do if something can be done."""
    with path.open("rb") as stream:
        start = stream.read(512)
        if not start:
            return "an empty file"
        for offset, magic, phrase in _MAGIC:
            if start[offset:].startswith(magic):
                return phrase
        if start.startswith(b"PK\x03\x04"):
            return _describe_zip(path)
        if start.lstrip().lower().startswith(_MARKUP):
            return "a web page, most likely the login page of a network or a proxy's error"
        # Pickle protocols 2 to 5 start with 0x80 and their number. Protocols 0 and 1 start with any opcode, so the last
        # byte must be the STOP opcode "." as well.
        if start[0] == 0x80 and len(start) > 1 and 2 <= start[1] <= 5:
            return _PICKLE.format(f"protocol {start[1]}")
        if start[:1] in b"(c]}" and _last_byte(stream) == b".":
            return _PICKLE.format("protocol 0 or 1")
        # ONNX is a protobuf: field 1 (ir_version, a small number), then field 2 (producer) or 7 (graph).
        if start[0] == 0x08 and len(start) > 2 and start[1] < 32 and start[2] in (0x12, 0x3A):
            return "an ONNX model"
    return "in a format that zoo does not know, or damaged in its first bytes"


def require_safetensors(path: Path) -> None:
    """Raise `WeightsError`, saying what the file is, unless it starts like safetensors."""
    if is_safetensors(path):
        return
    with path.open("rb") as stream:
        start = stream.read(9)
    if start[8:] == b"{":
        length = struct.unpack("<Q", start[:8])[0]
        raise WeightsError(
            f"{path} is truncated or damaged: its header claims {length} bytes, the file has {path.stat().st_size}. "
            "Copy or download it again."
        )
    raise WeightsError(f"{path} is not a safetensors file, the only format zoo reads: it is {describe(path)}.")


def _describe_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a damaged zip archive (PyTorch and NumPy files are zip archives)"
    if any(name.endswith("data.pkl") for name in names):
        return _PICKLE.format("inside PyTorch's zip archive")
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy .npz archive"
    return "a zip archive" + (f" that holds {names[0]!r}" if names else "")


def _last_byte(stream: BinaryIO) -> bytes:
    stream.seek(-1, 2)
    return stream.read(1)
