"""Small ONNX models, written field by field: no package for it is needed."""

from __future__ import annotations

from streams.content.onnx_models import _varint as varint

FLOAT, FLOAT16 = 1, 10


def message(number: int, content: bytes | str) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def value_info(name: str, shape: list[int | str], numbers: int = FLOAT) -> bytes:
    dims = b"".join(
        message(1, number(1, size) if isinstance(size, int) else message(2, size)) for size in shape
    )
    return message(1, name) + message(2, message(1, number(1, numbers) + message(2, dims)))


def node(operator: str, source: str, target: str) -> bytes:
    return message(1, message(1, source) + message(2, target) + message(4, operator))


def model(nodes: list[bytes], source: bytes, target: bytes) -> bytes:
    graph = b"".join(nodes) + message(2, "g") + message(11, source) + message(12, target)
    return number(1, 8) + message(7, graph) + message(8, message(1, "") + number(2, 13))


def mean_colour(numbers: int = FLOAT) -> bytes:
    """(n, 3, 8, 8) to the negative mean of each channel (n, 3), through a tensor `pooled` (n, 3, 1, 1)."""
    nodes = [
        node("GlobalAveragePool", "x", "pooled"),
        node("Flatten", "pooled", "flat"),
        node("Neg", "flat", "y"),
    ]
    source, target = value_info("x", ["n", 3, 8, 8], numbers), value_info("y", ["n", 3], numbers)
    return model(nodes, source, target)


def negated(n_samples: int) -> bytes:
    return model(
        [node("Neg", "x", "y")], value_info("x", ["n", n_samples]), value_info("y", ["n", n_samples])
    )
