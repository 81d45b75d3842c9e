"""Read and write weight files safely. Only safetensors: numbers and names, nothing that can run.

Names, shapes and dtypes come from the header; tensors stay on disk (memory-mapped) until they are used. Three checks go
beyond those of the safetensors library: duplicate names, values that are not finite, and the sha256 that files written
by zoo hold of their own content. Without it, a flipped bit would change predictions without any error.

Format: https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import os
import re
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from zoo import settings
from zoo.disk import sha256, write_whole
from zoo.errors import WeightsError
from zoo.weights.sniff import MAX_HEADER, require_safetensors

__all__ = ["DESCRIPTION", "DTYPES", "SEAL", "Entry", "TensorFile", "content_digest", "read", "sha256", "write"]

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "C64": np.dtype("<c8"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U64": np.dtype("<u8"),
    "U32": np.dtype("<u4"),
    "U16": np.dtype("<u2"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
"""The format's dtype names and the NumPy dtypes in memory."""

DESCRIPTION = "zoo"
"""Metadata key under which a saved model describes itself. A file with it must have a seal."""
SEAL = "zoo.sha256"
"""Metadata key that holds the sha256 of the content: names, dtypes, shapes, metadata, values."""

_CODES = {dtype: code for code, dtype in DTYPES.items()}
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")
_INDEX = ".index.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """Location of one tensor: bytes [start, end) of `path`."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class TensorFile:
    """A safetensors file, or the shards of one checkpoint. Only the headers have been read.

    Attributes:
        path: of the file or the shard index.
        entries: tensor name -> location, sorted by name.
        metadata: text from the header.
    """

    path: Path
    entries: Mapping[str, Entry] = field(repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)

    def names(self) -> list[str]:
        """Return the tensor names, sorted."""
        return list(self.entries)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return tensor name -> shape."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def dtypes(self) -> dict[str, np.dtype]:
        """Return tensor name -> NumPy dtype (bfloat16 and float8 come from ml_dtypes)."""
        return {name: entry.dtype for name, entry in self.entries.items()}

    def load(self, *, check_finite: bool = True, ignore: Collection[str] = ()) -> dict[str, np.ndarray]:
        """Return tensor name -> read-only array on the memory-mapped file.

        Args:
            check_finite: refuse tensors with NaN or infinite values.
            ignore: names of tensors that are left out, and may hold such values.
        Raises:
            WeightsError: if a tensor is not finite, or the content of a file written by zoo has changed.
        """
        maps = {path: _map(path) for path in dict.fromkeys(entry.path for entry in self.entries.values())}
        tensors = {}
        for name, entry in self.entries.items():
            raw = maps[entry.path][entry.start : entry.end]
            tensors[name] = raw.view(entry.dtype).reshape(entry.shape)
        if {DESCRIPTION, SEAL} & self.metadata.keys():  # first of all: a damaged file could also fail the next check
            _require_sealed(self.path, tensors, self.metadata)
        if check_finite:
            for name, entry in self.entries.items():
                if name not in ignore:
                    _require_finite(entry.path, name, tensors[name])
        return {name: tensors[name] for name in tensors if name not in ignore} if ignore else tensors


def read(path: str | os.PathLike[str]) -> TensorFile:
    """Open a safetensors file, a shard index (`*.index.json`), or a folder with either. Only headers are read.

    Raises:
        WeightsError: if the file has another format (e.g. a pickle, whatever its suffix) or is damaged, or shards do
            not agree with their index.
    """
    path = settings.expanded(path)
    if path.is_dir():
        path = _file_in(path)
    if not path.is_file():
        raise WeightsError(f"there is no weight file {path}.")
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    with path.open("rb") as stream:
        entries, metadata = _read_header(path, stream)
    return TensorFile(path, entries, metadata)


def write(path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Write NumPy or JAX arrays as one safetensors file. The same input always gives the same bytes.

    The write is atomic and replaces an existing file. If the metadata describe a model (`DESCRIPTION`), the header also
    gets the sha256 of the content, which `TensorFile.load` checks.

    Args:
        path: of the file.
        tensors: name -> array.
        metadata: text for the header.
    Raises:
        WeightsError: if the format lacks a dtype, a name is reserved, or metadata are not text.
    """
    path = settings.expanded(path)
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise WeightsError(f"metadata must be text, but {key!r} is {value!r}. Encode it as JSON.")
    arrays = {name: _storable(name, tensors[name]) for name in sorted(tensors)}
    if metadata and DESCRIPTION in metadata:
        metadata = {**metadata, SEAL: content_digest(arrays, metadata)}
    header: dict[str, Any] = {name: _describe(array) for name, array in arrays.items()}
    offset = 0
    # Wide dtypes come first, so that every tensor is aligned to its item size when the file is memory-mapped.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    for name in order:
        header[name]["data_offsets"] = [offset, offset + arrays[name].nbytes]
        offset += arrays[name].nbytes
    if metadata:
        header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_whole(
        path, [struct.pack("<Q", len(text)), text, *(arrays[name].reshape(-1).view(np.uint8) for name in order)]
    )


def _file_in(folder: Path) -> Path:
    """Return the checkpoint of a folder: model.safetensors, else its shard index, else the only candidate."""
    for name in ("model.safetensors", "model.safetensors" + _INDEX):
        if (folder / name).is_file():
            return folder / name
    candidates = sorted(folder.glob("*" + _INDEX)) or sorted(folder.glob("*.safetensors"))
    if len(candidates) == 1:
        return candidates[0]
    names = ", ".join(path.name for path in candidates) or "none"
    raise WeightsError(f"{folder} must have model.safetensors or exactly one *.safetensors file; it has: {names}.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the JSON object, or raise if a key occurs twice: parsers disagree about the meaning of such files."""
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [key for key, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise WeightsError(f"the name {twice!r} occurs twice")
    return result


def _parse(path: Path, text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except WeightsError as error:
        raise WeightsError(f"{path} is damaged: in its {what}, {error}.") from None
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: its {what} is not JSON ({error}).") from None
    if not isinstance(value, dict):
        raise WeightsError(f"{path} is damaged: its {what} is not a JSON object.")
    return value


def _read_header(path: Path, stream: BinaryIO) -> tuple[dict[str, Entry], dict[str, str]]:
    require_safetensors(path)
    length = struct.unpack("<Q", stream.read(8))[0]
    if length > MAX_HEADER:
        raise WeightsError(f"{path} has a header of {length} bytes; zoo accepts up to {MAX_HEADER}.")
    header = _parse(path, stream.read(length), "header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{path} is damaged: its metadata must be text values under text keys.")
    base = 8 + length
    entries = {name: _read_entry(path, base, name, header[name]) for name in sorted(header)}
    _require_whole(path, base, entries)
    return entries, metadata


def _read_entry(path: Path, base: int, name: str, item: Any) -> Entry:
    try:
        code, shape, (start, end) = item["dtype"], tuple(item["shape"]), item["data_offsets"]
        numbers = (*shape, start, end)
        sound = isinstance(code, str) and all(type(number) is int and number >= 0 for number in numbers)
    except (TypeError, KeyError, ValueError):
        sound = False
    if not sound:
        raise WeightsError(
            f"{path} is damaged: tensor {name!r} needs dtype, shape and data_offsets, not {item!r:.200}."
        )
    if code not in DTYPES:
        raise WeightsError(f"{path}: tensor {name!r} has dtype {code!r}; zoo reads {', '.join(DTYPES)}.")
    dtype = DTYPES[code]
    if end - start != math.prod(shape) * dtype.itemsize:
        raise WeightsError(f"{path} is damaged: tensor {name!r} of shape {shape} and {code} has {end - start} bytes.")
    return Entry(path, dtype, shape, base + start, base + end)


def _require_whole(path: Path, base: int, entries: Mapping[str, Entry]) -> None:
    """Raise unless the tensors cover the data exactly, without gaps, overlaps or bytes after the last tensor."""
    position = base
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != position:
            raise WeightsError(f"{path} is damaged: tensor {name!r} overlaps another or leaves a gap before it.")
        position = entry.end
    size = path.stat().st_size
    if size != position:
        what = "is truncated" if size < position else "has extra bytes at its end"
        raise WeightsError(
            f"{path} {what}: it has {size} bytes, but its header says {position}. Copy or download it again."
        )


def _read_shards(index: Path) -> TensorFile:
    """Open a checkpoint in several files, all in the folder of their index."""
    if index.stat().st_size > MAX_HEADER:
        raise WeightsError(f"{index} has {index.stat().st_size} bytes; zoo accepts an index of up to {MAX_HEADER}.")
    places = _parse(index, index.read_bytes(), "text").get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index} is not a shard index: it has no 'weight_map' from tensor names to files.")
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for shard in sorted({str(name) for name in places.values()}):
        if not _SHARD_NAME.fullmatch(shard):
            raise WeightsError(f"{index} names the shard {shard!r}; a shard is a *.safetensors file beside its index.")
        part = read(index.parent / shard)
        expected = {name for name, place in places.items() if place == shard}
        if wrong := sorted(expected ^ part.entries.keys()):
            raise WeightsError(f"{index} and {shard} disagree about {len(wrong)} tensors, e.g. {wrong[0]!r}.")
        entries |= part.entries
        metadata |= part.metadata
    return TensorFile(index, dict(sorted(entries.items())), metadata)


def _map(path: Path) -> np.ndarray:
    """Memory-map the bytes of a file as a read-only array."""
    with path.open("rb") as stream:
        return np.frombuffer(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def content_digest(tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """Return the sha256 of names, dtypes, shapes, values and metadata, without the seal itself."""
    unsealed = {key: value for key, value in metadata.items() if key != SEAL}
    forms = {name: [_CODES[array.dtype], list(array.shape)] for name, array in tensors.items()}
    digest = hashlib.sha256(json.dumps([unsealed, forms], sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(tensors[name].reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _require_sealed(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    if SEAL not in metadata:
        raise WeightsError(
            f"{path} is a model saved by zoo without the sha256 of its content. It is damaged, or was written by an "
            "older version. Copy it again from its origin, or train the model again."
        )
    if DESCRIPTION not in metadata or content_digest(tensors, metadata) != metadata[SEAL]:
        raise WeightsError(
            f"{path} is damaged or was changed: its content is not what zoo wrote (sha256). Copy it again from its "
            "origin. In a run directory with checkpoints, delete it and metrics.json, and repeat the command of the "
            "run with --resume, which writes it again."
        )


def _require_finite(path: Path, name: str, array: np.ndarray) -> None:
    # For NumPy, the floats of ml_dtypes are of kind "V". Integers are always finite.
    if array.dtype.kind in "fcV" and not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise WeightsError(f"{path}: tensor {name!r} holds {count} values that are NaN or infinite.")


def _storable(name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    array = np.ascontiguousarray(array).reshape(array.shape)  # ascontiguousarray makes a scalar one-dimensional
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    if array.dtype not in _CODES:
        raise WeightsError(f"tensor {name!r} has dtype {array.dtype}; safetensors holds {', '.join(DTYPES)}.")
    if name == "__metadata__":
        raise WeightsError("a tensor cannot be called '__metadata__': the format reserves that name.")
    return array


def _describe(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": _CODES[array.dtype], "shape": list(array.shape), "data_offsets": [0, 0]}
