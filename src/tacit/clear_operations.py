"""The numpy operations a clear step can run: what each one computes and which attributes it has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attributes = Mapping[str, object]
MAX_INPUTS = 4096


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation a clear step can name.

    Attributes:
        run: from the operands and the step's attributes to the result.
        inputs: least and most tensors read.
        attributes: name -> kind (see `tacit.clear_steps`); a trailing "?" marks an optional one.
        operands: if not 0, the number of tensors read and constant operands together.
    """

    run: Callable[[Sequence[Array], Attributes], object]
    inputs: tuple[int, int]
    attributes: Mapping[str, str]
    operands: int = 0


def _integers(attributes: Attributes, key: str) -> tuple[int, ...]:
    numbers = attributes[key]
    return numbers if isinstance(numbers, tuple) else ()


def _axis(attributes: Attributes) -> int:
    axis = attributes["axis"]
    return axis if isinstance(axis, int) else 0


def _softmax(operands: Sequence[Array], attributes: Attributes) -> object:
    value = np.asarray(operands[0], dtype=np.float64)
    axes = _integers(attributes, "axes")
    exponentials = np.exp(value - value.max(axis=axes, keepdims=True))
    return exponentials / exponentials.sum(axis=axes, keepdims=True)


def _log_softmax(operands: Sequence[Array], attributes: Attributes) -> object:
    value = np.asarray(operands[0], dtype=np.float64)
    axes = _integers(attributes, "axes")
    shifted = value - value.max(axis=axes, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True))


def _sigmoid(value: Array) -> Array:
    small = np.exp(-np.abs(np.asarray(value, dtype=np.float64)))
    return np.asarray(np.where(np.asarray(value) >= 0, 1.0, small) / (1.0 + small))


def _log_sum_exp(value: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    wide = np.asarray(value, dtype=np.float64)
    most = wide.max(axis=axis, keepdims=True)
    total = np.log(np.exp(wide - most).sum(axis=axis, keepdims=True)) + most
    return np.asarray(total if keepdims else total.squeeze(axis))


def _softplus(value: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, np.asarray(value, dtype=np.float64)))


def _argmax(operands: Sequence[Array], attributes: Attributes) -> object:
    return _index_of(np.argmax, operands[0], attributes)


def _argmin(operands: Sequence[Array], attributes: Attributes) -> object:
    return _index_of(np.argmin, operands[0], attributes)


def _index_of(search: Callable[..., object], value: Array, attributes: Attributes) -> object:
    axis = _axis(attributes)
    keep = bool(attributes["keepdims"])
    if not attributes["last"]:
        return np.asarray(search(value, axis=axis, keepdims=keep), dtype=np.int64)
    from_the_end = np.asarray(search(np.flip(value, axis), axis=axis, keepdims=keep))
    return value.shape[axis] - 1 - from_the_end


def _reduction(reduce: Callable[..., object]) -> Callable[[Sequence[Array], Attributes], object]:
    def run(operands: Sequence[Array], attributes: Attributes) -> object:
        keep = bool(attributes["keepdims"])
        return reduce(operands[0], axis=_integers(attributes, "axes"), keepdims=keep)

    return run


def _unary(function: Callable[[Array], object]) -> Callable[[Sequence[Array], Attributes], object]:
    return lambda operands, _: function(operands[0])


def _binary(
    function: Callable[[Array, Array], object],
) -> Callable[[Sequence[Array], Attributes], object]:
    def run(operands: Sequence[Array], attributes: Attributes) -> object:
        left, right = _fill(operands, attributes)
        return function(left, right)

    return run


def _fill(operands: Sequence[Array], attributes: Attributes) -> tuple[Array, Array]:
    given = iter(operands)
    left = attributes["left"] if "left" in attributes else next(given)
    right = attributes["right"] if "right" in attributes else next(given)
    return np.asarray(left), np.asarray(right)


def _where(operands: Sequence[Array], attributes: Attributes) -> object:
    left, right = _fill(operands[1:], attributes)
    return np.where(operands[0].astype(bool), left, right)


def _cast(operands: Sequence[Array], attributes: Attributes) -> object:
    return operands[0].astype(str(attributes["dtype"]))


def _clip(operands: Sequence[Array], attributes: Attributes) -> object:
    value = np.asarray(operands[0])
    low, high = attributes.get("low"), attributes.get("high")
    if isinstance(low, float):
        value = np.maximum(value, low)
    return np.minimum(value, high) if isinstance(high, float) else value


def _scale(operands: Sequence[Array], attributes: Attributes) -> object:
    offset, factor = np.asarray(attributes["offset"]), np.asarray(attributes["factor"])
    return (operands[0].astype(np.float64) - offset) * factor


def _normalize(operands: Sequence[Array], attributes: Attributes) -> object:
    value = np.asarray(operands[0], dtype=np.float64)
    match attributes["norm"]:
        case "L1":
            norm = np.abs(value).sum(axis=1, keepdims=True)
        case "L2":
            norm = np.sqrt((value * value).sum(axis=1, keepdims=True))
        case _:
            norm = np.abs(value).max(axis=1, keepdims=True)
    return value / np.maximum(norm, 1e-30)


def _reshape(operands: Sequence[Array], attributes: Attributes) -> object:
    return operands[0].reshape((operands[0].shape[0], *_integers(attributes, "row_shape")))


def _transpose(operands: Sequence[Array], attributes: Attributes) -> object:
    return operands[0].transpose(_integers(attributes, "permutation"))


def _concat(operands: Sequence[Array], attributes: Attributes) -> object:
    return np.concatenate(operands, axis=_axis(attributes))


def _select(operands: Sequence[Array], attributes: Attributes) -> object:
    return np.take(operands[0], np.asarray(attributes["indices"]), axis=_axis(attributes))


def _lookup(operands: Sequence[Array], attributes: Attributes) -> object:
    return np.asarray(attributes["table"])[operands[0].astype(np.int64)]


def _map_values(operands: Sequence[Array], attributes: Attributes) -> object:
    keys, values = np.asarray(attributes["keys"]), np.asarray(attributes["values"])
    default = np.asarray(attributes["default"])
    found = dict(zip(keys.tolist(), values.tolist(), strict=True))
    mapped = [found.get(key, default.item()) for key in operands[0].ravel().tolist()]
    dtype = values.dtype if values.dtype.kind != "U" else np.dtype(str)
    return np.array(mapped, dtype=dtype).reshape(operands[0].shape)


def _couple_pairs(value: Array) -> Array:
    """Probabilities of k classes from those of the pairs (i, j), i < j, that i is meant.

    The second method of Wu, Lin and Weng (2004): p minimises the sum over pairs of
    (r_ji p_i - r_ij p_j)^2, improved one class at a time, for each row until its optimality
    conditions hold within 0.005 / k, as libsvm and onnxruntime stop.
    """
    pairs = np.asarray(value, dtype=np.float64)
    classes = math.isqrt(2 * pairs.shape[1]) + 1
    upper = np.triu_indices(classes, 1)
    won = np.zeros((len(pairs), classes, classes))
    won[:, upper[0], upper[1]] = pairs
    won[:, upper[1], upper[0]] = 1.0 - pairs
    matrix = -won * won.transpose(0, 2, 1)
    diagonal = np.square(won).sum(axis=1)
    matrix[:, np.arange(classes), np.arange(classes)] = diagonal
    found = np.full((len(pairs), classes), 1.0 / classes)
    for _ in range(max(100, classes)):
        gradient = np.einsum("rij,rj->ri", matrix, found)
        total = (found * gradient).sum(axis=1, keepdims=True)
        going = np.abs(gradient - total).max(axis=1) >= 0.005 / classes
        if not going.any():
            break
        found[going] = _improved(matrix[going], found[going], gradient[going], total[going, 0])
    return found


def _improved(matrix: Array, found: Array, gradient: Array, total: Array) -> Array:
    """Set each probability in turn to its best value, then scale to a sum of 1."""
    for own in range(found.shape[1]):
        diagonal = matrix[:, own, own]
        change = (total - gradient[:, own]) / diagonal
        found[:, own] += change
        total = total + change * (change * diagonal + 2.0 * gradient[:, own])
        total /= np.square(1.0 + change)
        found /= (1.0 + change)[:, None]
        gradient = (gradient + change[:, None] * matrix[:, own]) / (1.0 + change)[:, None]
    return found


_NONE: Mapping[str, str] = MappingProxyType({})
_CONSTANT_OPERANDS: Mapping[str, str] = MappingProxyType({"left": "array?", "right": "array?"})
_REDUCTION: Mapping[str, str] = MappingProxyType({"axes": "ints", "keepdims": "bool"})
_INDEX_OF: Mapping[str, str] = MappingProxyType({"axis": "int", "keepdims": "bool", "last": "bool"})
_AXES: Mapping[str, str] = MappingProxyType({"axes": "ints"})


def _operations() -> dict[str, Operation]:
    unary: dict[str, Callable[[Array], object]] = {
        "identity": np.asarray,
        "negate": np.negative,
        "sigmoid": _sigmoid,
        "tanh": np.tanh,
        "softplus": _softplus,
        "relu": lambda value: np.maximum(value, 0),
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "abs": np.abs,
        "reciprocal": lambda value: 1.0 / np.asarray(value, dtype=np.float64),
        "sign": np.sign,
        "floor": np.floor,
        "ceil": np.ceil,
        "round": np.rint,
        "couple_pairs": _couple_pairs,
        "not": lambda value: np.logical_not(value.astype(bool)),
    }
    binary: dict[str, Callable[[Array, Array], object]] = {
        "add": np.add,
        "subtract": np.subtract,
        "multiply": np.multiply,
        "divide": np.true_divide,
        "power": np.power,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "greater": np.greater,
        "greater_or_equal": np.greater_equal,
        "less": np.less,
        "less_or_equal": np.less_equal,
        "equal": np.equal,
        "and": np.logical_and,
        "or": np.logical_or,
    }
    reductions: dict[str, Callable[..., object]] = {
        "sum": np.sum,
        "mean": np.mean,
        "max": np.max,
        "min": np.min,
        "product": np.prod,
        "log_sum_exp": _log_sum_exp,
    }
    table = {name: Operation(_unary(run), (1, 1), _NONE) for name, run in unary.items()}
    for name, run in binary.items():
        table[name] = Operation(_binary(run), (1, 2), _CONSTANT_OPERANDS, operands=2)
    for name, reduce in reductions.items():
        table[name] = Operation(_reduction(reduce), (1, 1), _REDUCTION)
    return table | _shaped_operations()


def _shaped_operations() -> dict[str, Operation]:
    arrays = {"keys": "array", "values": "array", "default": "array"}
    return {
        "where": Operation(_where, (1, 3), _CONSTANT_OPERANDS, operands=3),
        "softmax": Operation(_softmax, (1, 1), _AXES),
        "log_softmax": Operation(_log_softmax, (1, 1), _AXES),
        "argmax": Operation(_argmax, (1, 1), _INDEX_OF),
        "argmin": Operation(_argmin, (1, 1), _INDEX_OF),
        "cast": Operation(_cast, (1, 1), {"dtype": "dtype"}),
        "clip": Operation(_clip, (1, 1), {"low": "float?", "high": "float?"}),
        "scale": Operation(_scale, (1, 1), {"offset": "array", "factor": "array"}),
        "normalize": Operation(_normalize, (1, 1), {"norm": "norm"}),
        "reshape": Operation(_reshape, (1, 1), {"row_shape": "ints"}),
        "transpose": Operation(_transpose, (1, 1), {"permutation": "ints"}),
        "concat": Operation(_concat, (1, MAX_INPUTS), {"axis": "int"}),
        "select": Operation(_select, (1, 1), {"axis": "int", "indices": "array"}),
        "lookup": Operation(_lookup, (1, 1), {"table": "array"}),
        "map_values": Operation(_map_values, (1, 1), arrays),
        "zip_map": Operation(_unary(np.asarray), (1, 1), {"labels": "array"}),
    }


OPERATIONS: Mapping[str, Operation] = MappingProxyType(_operations())
