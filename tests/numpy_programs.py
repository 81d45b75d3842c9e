"""Evaluate traced JAX programs with NumPy: nothing is lowered or compiled.

Compiling a deep net costs far more than running it once on a few pixels. A program that runs once is therefore traced
and evaluated primitive by primitive. What this cannot show, that XLA computes the same, is shown by the tests that
compile: one program of each family (`test_backbones.py`), every layer (`test_layers.py`), and real weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
import scipy.special
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from numpy.lib.stride_tricks import as_strided

Params = dict[str, Any]


def evaluate(function: Callable[..., Any], *arguments: Any) -> Any:
    """Return `function(*arguments)` with NumPy arrays in place of JAX arrays.

    Args:
        function: a function that JAX can trace. arguments: pytrees of arrays.
    """
    program, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    inputs = [np.asarray(leaf) for leaf in jax.tree.leaves(arguments)]
    return jax.tree.unflatten(jax.tree.structure(shapes), run(program.jaxpr, program.consts, inputs))


def run(program: Jaxpr, consts: Sequence[Any], inputs: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of a program for its inputs. Each value is dropped after its last use."""
    values = dict(zip(program.constvars, map(np.asarray, consts), strict=True))
    values.update(zip(program.invars, inputs, strict=True))
    last = {v: i for i, equation in enumerate(program.eqns) for v in equation.invars if not isinstance(v, Literal)}
    kept = {v for v in program.outvars if not isinstance(v, Literal)}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for i, equation in enumerate(program.eqns):
        outputs = _apply(equation, list(map(read, equation.invars)))
        values.update(zip(equation.outvars, outputs, strict=True))
        for atom in equation.invars:
            if not isinstance(atom, Literal) and last[atom] == i and atom not in kept:
                values.pop(atom, None)
    return list(map(read, program.outvars))


def _apply(equation: Any, inputs: list[Any]) -> list[Any]:
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        branch = params["branches"][int(inputs[0])]
        return run(branch.jaxpr, branch.consts, inputs[1:])
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):  # a function in a function: jit, custom_vjp, remat
        inner = params.get(key)
        if isinstance(inner, ClosedJaxpr) and name not in ("scan", "while"):
            return run(inner.jaxpr, inner.consts, inputs)
        if isinstance(inner, Jaxpr) and name not in ("scan", "while"):
            return run(inner, (), inputs)
    if name in ELEMENTWISE:
        return [ELEMENTWISE[name](*inputs)]
    if name in PRIMITIVES:
        found = PRIMITIVES[name](params, *inputs)
        return found if equation.primitive.multiple_results else [found]
    found = equation.primitive.bind(*map(np.asarray, inputs), **params)  # rare ones: by JAX, one at a time
    return [np.asarray(y) for y in (found if equation.primitive.multiple_results else [found])]


# Convolutions, products and windows ------------------------------------------------------------------------------


def _windows(x: np.ndarray, window: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> np.ndarray:
    """A view of every window of the axes of `x`: (*positions, *window)."""
    reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    positions = [(n - r) // s + 1 for n, r, s in zip(x.shape, reach, stride, strict=True)]
    x = np.ascontiguousarray(x)
    steps = [
        *(a * s for a, s in zip(x.strides, stride, strict=True)),
        *(a * d for a, d in zip(x.strides, dilation, strict=True)),
    ]
    return as_strided(x, (*positions, *window), steps)


def _padded(x: np.ndarray, pads: Sequence[tuple[int, int]], value: Any = 0) -> np.ndarray:
    """`x` with each axis padded; a negative number cuts off."""
    x = x[tuple(slice(max(-low, 0), n - max(-high, 0)) for n, (low, high) in zip(x.shape, pads, strict=True))]
    pads = [(max(low, 0), max(high, 0)) for low, high in pads]
    return np.pad(x, pads, constant_values=value) if any(map(any, pads)) else x


def _conv(params: Params, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    left, right, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    assert params["batch_group_count"] == 1
    x = x.transpose(left[0], *left[2:], left[1])
    kernel = kernel.transpose(*right[2:], right[1], right[0])
    zero, spread = x.dtype.type(0), [(0, 0, d - 1) for d in params["lhs_dilation"]]
    x = _pad({"padding_config": [(0, 0, 0), *spread, (0, 0, 0)]}, x, zero)
    x = _padded(x, [(0, 0), *params["padding"], (0, 0)])
    height, width, inputs, outputs = kernel.shape
    window = (1, height, width, 1)
    views = _windows(x, window, (1, *params["window_strides"], 1), (1, *params["rhs_dilation"], 1))
    batch, rows, columns, channels = views.shape[:4]
    views = views.reshape(batch, rows, columns, groups, channels // groups, height, width)
    # (groups, positions, taps and inputs) @ (groups, taps and inputs, outputs)
    columns_of = views.transpose(3, 0, 1, 2, 5, 6, 4).reshape(groups, batch * rows * columns, -1)
    kernels = kernel.reshape(height * width * inputs, groups, outputs // groups).transpose(1, 0, 2)
    y = np.matmul(columns_of, kernels).transpose(1, 0, 2).reshape(batch, rows, columns, outputs)
    return y.transpose(np.argsort([out[0], *out[2:], out[1]]))


def _dot(params: Params, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    (sum_a, sum_b), (batch_a, batch_b) = params["dimension_numbers"]
    free_a = [i for i in range(a.ndim) if i not in (*sum_a, *batch_a)]
    free_b = [i for i in range(b.ndim) if i not in (*sum_b, *batch_b)]
    batch, inner = [a.shape[i] for i in batch_a], math.prod(a.shape[i] for i in sum_a)
    left = a.transpose(*batch_a, *free_a, *sum_a).reshape(*batch, -1, inner)
    right = b.transpose(*batch_b, *sum_b, *free_b).reshape(*batch, inner, -1)
    return np.matmul(left, right).reshape(*batch, *(a.shape[i] for i in free_a), *(b.shape[i] for i in free_b))


def _reduce_window(reduce: np.ufunc, start: float, params: Params, x: np.ndarray) -> np.ndarray:
    assert all(d == 1 for d in params["base_dilation"])
    window = params["window_dimensions"]
    views = _windows(_padded(x, params["padding"], start), window, params["window_strides"], params["window_dilation"])
    return reduce.reduce(views, axis=tuple(range(x.ndim, 2 * x.ndim)))


def _pad(params: Params, x: np.ndarray, value: Any) -> np.ndarray:
    config = params["padding_config"]
    if any(inner for _, _, inner in config):
        shape = [n + max(n - 1, 0) * inner for n, (_, _, inner) in zip(x.shape, config, strict=True)]
        spread = np.full(shape, value, x.dtype)
        spread[tuple(slice(None, None, inner + 1) for _, _, inner in config)] = x
        x = spread
    return _padded(x, [(low, high) for low, high, _ in config], value)


# Shapes and choices ----------------------------------------------------------------------------------------------


def _broadcast(params: Params, x: np.ndarray, *_: Any) -> np.ndarray:
    shape = [1] * len(params["shape"])
    for i, dimension in enumerate(params["broadcast_dimensions"]):
        shape[dimension] = np.shape(x)[i]
    return np.broadcast_to(np.reshape(x, shape), params["shape"])


def _slice(params: Params, x: np.ndarray) -> np.ndarray:
    steps = params["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]


def _iota(params: Params) -> np.ndarray:
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    line = np.arange(params["shape"][params["dimension"]], dtype=params["dtype"])
    return np.broadcast_to(line.reshape(shape), params["shape"])


def _select(params: Params, which: Any, *values: Any) -> np.ndarray:
    if len(values) == 2:
        return np.where(which, values[1], values[0])
    return np.choose(np.asarray(which).astype(int), values)


def _platform(params: Params) -> np.int32:
    """The branch of `lax.platform_dependent` for a CPU."""
    return np.int32(next(i for i, names in enumerate(params["platforms"]) if names is None or "cpu" in names))


def _divide(a: Any, b: Any) -> Any:
    if np.issubdtype(np.result_type(a), np.floating):
        return np.divide(a, b)
    return (np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))).astype(np.result_type(a))  # towards zero, as XLA


def _as_before(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """SciPy's functions may return double precision."""
    return lambda x: np.asarray(function(x)).astype(np.asarray(x).dtype)


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "add": np.add,
    "add_any": np.add,
    "and": np.bitwise_and,
    "ceil": np.ceil,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "copy": lambda x: x,
    "cos": np.cos,
    "div": _divide,
    "eq": np.equal,
    "erf": _as_before(scipy.special.erf),
    "erfc": _as_before(scipy.special.erfc),
    "exp": np.exp,
    "floor": np.floor,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "log": np.log,
    "logistic": _as_before(scipy.special.expit),
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "neg": np.negative,
    "not": np.invert,
    "optimization_barrier": lambda x: x,
    "or": np.bitwise_or,
    "pow": np.power,
    "rem": np.fmod,
    "rsqrt": _as_before(lambda x: 1 / np.sqrt(x)),
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "square": np.square,
    "stop_gradient": lambda x: x,
    "sub": np.subtract,
    "tanh": np.tanh,
}
"""Primitives without parameters that matter here."""

PRIMITIVES: dict[str, Callable[..., Any]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda p, *parts: np.concatenate(parts, p["dimension"]),
    "conv_general_dilated": _conv,
    "convert_element_type": lambda p, x: np.asarray(x).astype(p["new_dtype"]),
    "dot_general": _dot,
    "expand_dims": lambda p, x: np.expand_dims(x, tuple(p["dimensions"])),
    "integer_pow": lambda p, x: x ** p["y"],
    "iota": _iota,
    "pad": _pad,
    "platform_index": _platform,
    "reduce_max": lambda p, x: np.max(x, tuple(p["axes"])),
    "reduce_min": lambda p, x: np.min(x, tuple(p["axes"])),
    "reduce_sum": lambda p, x: np.sum(x, tuple(p["axes"]), dtype=x.dtype),
    "reduce_window_max": partial(_reduce_window, np.maximum, -np.inf),
    "reduce_window_sum": partial(_reduce_window, np.add, 0),
    "reshape": lambda p, x: np.reshape(x, p["new_sizes"]),
    "rev": lambda p, x: np.flip(x, p["dimensions"]),
    "select_n": _select,
    "slice": _slice,
    "split": lambda p, x: np.split(x, np.cumsum(p["sizes"])[:-1], p["axis"]),
    "squeeze": lambda p, x: np.squeeze(x, tuple(p["dimensions"])),
    "transpose": lambda p, x: np.transpose(x, p["permutation"]),
}
"""Primitives that need their parameters; any other is run by JAX."""
