"""Fingerprints of traced programs, which say whether a net has changed since its values were compared.

Two programs with one fingerprint have the same primitives with the same parameters, shapes, literals and constants in
the same order, and so the same outputs for the same inputs. `tools/fingerprints.py` compares the values of every net
and records the fingerprints; the tests compare the values of those nets alone whose fingerprint has changed. Another
release of JAX may trace other programs: then all values are compared.

A program follows from code, goldens and libraries. Where all of them are those of the record, nothing needs to be
traced to know that the program is the same.
"""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

FILE = Path(__file__).parent / "golden" / "fingerprints.json"
ADDRESS = re.compile(r" at 0x[0-9a-f]+")
UNSEEN = {"compiler_options_kvs", "ctx_mesh", "debug_info", "inline", "name", "out_sharding", "sharding"}
"""Parameters of primitives that change no value."""


ROOT = Path(__file__).parent.parent
LIBRARIES = ("jax", "flax", "numpy")


@cache
def recorded() -> Mapping[str, str]:
    """What is recorded: fingerprint by `<backbone> <case>`, and `code_of` by plugin module and family."""
    return json.loads(FILE.read_text()) if FILE.exists() else {}


def record(found: Mapping[str, str]) -> None:
    """Write the file of fingerprints, one a line."""
    FILE.write_text(json.dumps(dict(sorted(found.items())), indent=0) + "\n")


@cache
def code_of(module: str, golden: Path) -> str:
    """A hash of all that a plugin's programs follow from: its module and what that imports of zoo, directly or not,
    without comments and docstrings, the file of golden values, and the versions of the libraries."""
    digest = hashlib.sha256(golden.read_bytes() if golden.exists() else b"")
    for library in LIBRARIES:
        digest.update(version(library).encode())
    for text in sorted(_text(file) for file in _imported(_file_of(module))):
        digest.update(text.encode())
    return digest.hexdigest()[:32]


def _imported(file: Path | None) -> set[Path]:
    """A file of zoo and all others of zoo that it imports."""
    found, left = set[Path](), [file]
    while left:
        one = left.pop()
        if one is not None and one not in found:
            found.add(one)
            left += [_file_of(name) for name in _names(_tree(one))]
    return found


def _names(tree: ast.Module) -> Iterator[str]:
    """Everything that is imported somewhere in a module and may be a module itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _file_of(module: str) -> Path | None:
    """The file of a module of zoo, None for other names."""
    top, *parts = module.split(".")
    if top != "zoo":
        return None
    folder = ROOT.joinpath(*parts) if parts[:1] in (["plugins"], ["adapters"]) else ROOT.joinpath("zoo", *parts)
    return next((file for file in (folder / "__init__.py", folder.with_suffix(".py")) if file.is_file()), None)


@cache
def _tree(file: Path) -> ast.Module:
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree


@cache
def _text(file: Path) -> str:
    return ast.unparse(_tree(file))


def fingerprint(program: ClosedJaxpr, *others: Any) -> str:
    """A hash of a traced program and of whatever else (by its `repr`) the values depend on."""
    parts = [_program(program.jaxpr, program.consts, {}), *map(repr, others)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _program(program: Jaxpr, consts: Sequence[Any], done: dict[int, tuple[str, Jaxpr]]) -> str:
    """A hash of one program. `done` keeps those of inner programs, which repeat, by identity."""
    if not consts and id(program) in done:
        return done[id(program)][0]
    names: dict[Any, str] = {}

    def said(atom: Any) -> str:
        if isinstance(atom, Literal):
            return f"{_value(atom.val)}:{atom.aval.str_short()}"
        return f"{names.setdefault(atom, f'v{len(names)}')}:{atom.aval.str_short()}"

    lines = [" ".join(map(said, (*program.constvars, *program.invars))), *map(_value, consts)]
    for equation in program.eqns:
        params = (f"{k}={_param(v, done)}" for k, v in sorted(equation.params.items()) if _matters(k, v))
        inputs, outputs = (" ".join(map(said, atoms)) for atoms in (equation.invars, equation.outvars))
        lines.append(f"{equation.primitive.name}({';'.join(params)}) {inputs} -> {outputs}")
    lines.append(" ".join(map(said, program.outvars)))
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    if not consts:
        done[id(program)] = digest, program  # the program too, so that its identity is not given to another
    return digest


def _matters(key: str, value: Any) -> bool:
    return key not in UNSEEN and "thunk" not in key and not callable(value)


def _param(value: Any, done: dict[int, tuple[str, Jaxpr]]) -> str:
    if isinstance(value, ClosedJaxpr):
        return _program(value.jaxpr, value.consts, done)
    if isinstance(value, Jaxpr):
        return _program(value, (), done)
    if isinstance(value, tuple | list):
        return f"({','.join(_param(item, done) for item in value)})"
    return _value(value)


def _value(value: Any) -> str:
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        array = np.asarray(value)
        return f"{array.dtype}{array.shape}{hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]}"
    return ADDRESS.sub("", repr(value))
