"""Whether a network's outputs are piecewise linear in each single weight, told from its trace.

Then the second derivative of an output in one weight is 0 almost everywhere, and the diagonal of the Hessian is that of
the Gauss-Newton matrix.
"""

from __future__ import annotations

from typing import Any

from torch import fx

from lossatlas.evaluation.points.tracing import POINT_PREFIX, Trace

# Piecewise linear in all their arguments together.
_JOINTLY = {
    "relu", "relu_", "relu6", "leaky_relu", "hardtanh", "threshold", "hardshrink", "softshrink", "abs", "neg", "rsub",
    "add", "__add__", "__radd__", "__iadd__", "sub", "__sub__", "__rsub__", "__neg__", "maximum", "minimum", "max",
    "amax", "clamp", "sum", "mean", "cat", "concat", "stack", "pad", "getitem", "__getitem__", "getattr", "flatten",
    "reshape", "view", "view_as", "permute", "transpose", "movedim", "swapaxes", "t", "squeeze", "unsqueeze", "expand",
    "expand_as", "contiguous", "clone", "chunk", "split", "narrow", "select", "unbind", "roll", "flip", "unflatten",
    "to", "float", "double", "dropout", "dropout1d", "dropout2d", "dropout3d", "interpolate", "upsample",
    "pixel_shuffle", "_pad",
    *(f"{kind}_pool{d}d" for kind in ("avg", "max", "adaptive_avg", "adaptive_max") for d in (1, 2, 3)),
    *(f"_max_pool{d}d" for d in (1, 2, 3)),
}  # fmt: skip
# Linear in each argument for itself.
_SEPARATELY = {
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
    "mul", "__mul__", "__rmul__", "matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "addmm", "bilinear", "prelu",
}  # fmt: skip
_QUOTIENTS = {"div", "__truediv__", "true_divide", "divide"}


def curved_by(traced: Trace) -> str | None:
    """The first function by which the outputs may be curved in a single weight; None where there is none."""
    depends: dict[fx.Node, frozenset[str]] = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            moves = str(node.target).startswith(POINT_PREFIX)
            depends[node] = frozenset([str(node.target)]) if moves else frozenset()
        elif node.op != "output":
            own = [depends[source] for source in node.all_input_nodes]
            depends[node] = frozenset().union(*own)
            if depends[node] and not _linear(node, own, depends):
                return _name(node)
    return None


def _linear(node: fx.Node, own: list[frozenset[str]], depends: dict[fx.Node, frozenset[str]]) -> bool:
    name = _name(node)
    if name in _JOINTLY:
        return True
    if name in _QUOTIENTS:
        divisor = _argument(node, 1, "other")
        return not (isinstance(divisor, fx.Node) and depends[divisor])
    if name == "batch_norm" and _argument(node, 5, "training"):
        return False
    # Arguments that share no weight: each weight comes in one of them.
    return name in _SEPARATELY and sum(map(len, own)) == len(frozenset().union(*own)) and _distinct(node)


def _distinct(node: fx.Node) -> bool:
    """No argument comes twice, as in x * x."""
    given = [argument for argument in (*node.args, *node.kwargs.values()) if isinstance(argument, fx.Node)]
    return len(given) == len(set(given))


def _argument(node: fx.Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, False)


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
