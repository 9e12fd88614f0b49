"""Networks as plain numpy matrices, for one vector at a time."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from noumena.core.networks import Activation
from noumena.multimodal.networks import SkipMLP

Vector = NDArray[np.float32]
Exact = NDArray[np.float64]

_ZERO = np.zeros(1, np.float32)


class Perceptron:
    """A :class:`~noumena.multimodal.networks.SkipMLP` on one vector, which is written to ``entry``.

    The last hidden layer, a one and the entry lie side by side, so that the last product takes the bias and the skip
    with it, and every bias is a column of its matrix.
    """

    def __init__(
        self,
        network: SkipMLP,
        activation: Activation,
        *,
        gain: Exact | None = None,
        scale: Exact | None = None,
        shift: Exact | None = None,
    ) -> None:
        """
        Args:
            network: the network.
            activation: its nonlinearity.
            gain: factors of the entry, folded into the matrices.
            scale, shift: applied to the output likewise; its first ``len(scale)`` numbers are computed.
        """
        before, self._activate, after = _activation(activation)
        layers = _affine_layers(network)
        width = layers[0][0].shape[1]
        gain = np.ones(width) if gain is None else gain
        skip = None if network.skip is None else exact(network.skip.weight) * gain
        layers[0] = (layers[0][0] * gain, layers[0][1])
        for i in range(len(layers) - 1):
            layers[i] = (layers[i][0] * before, layers[i][1] * before)
            layers[i + 1] = (layers[i + 1][0] * after, layers[i + 1][1])
        weight, bias = layers[-1]
        if scale is not None and shift is not None:
            weight, bias = weight[: len(scale)] * scale[:, None], bias[: len(scale)] * scale + shift
            skip = None if skip is None else skip[: len(scale)] * scale[:, None]
        hidden = [len(first) for _, first in layers[:-1]]
        last = hidden[-1] if hidden else 0
        together = np.zeros(last + 1 + width, np.float32)
        together[last] = 1.0
        self.entry: Vector = together[last + 1 :]
        buffers = [np.ones(size + 1, np.float32) for size in hidden[:-1]] + [together]
        self._steps: list[tuple[Callable[..., Vector], Vector, Vector, Vector]] = []
        source = together[last:]
        for number, ((matrix, constant), size) in enumerate(zip(layers[:-1], hidden, strict=True)):
            parts = [constant[:, None], matrix] if number == 0 else [matrix, constant[:, None]]
            out = buffers[number][:size]
            self._steps.append((compiled(np.hstack(parts)).dot, source, out, np.empty(size, np.float32)))
            source = buffers[number][: size + 1]
        if not hidden:
            weight = weight if skip is None else weight + skip
            parts = [bias[:, None], weight]
        elif skip is None:
            parts = [weight, bias[:, None]]
        else:
            parts = [weight, bias[:, None], skip]
            source = together
        self._last, self._source = compiled(np.hstack(parts)).dot, source

    def run(self, out: Vector | None = None) -> Vector:
        """The output for what ``entry`` holds, written to ``out`` where one is given."""
        activate = self._activate
        for dot, source, hidden, scratch in self._steps:
            dot(source, hidden)
            activate(hidden, scratch)
        return self._last(self._source, out)


def exact(tensor: Tensor) -> Exact:
    """In double precision, off the graph and the device."""
    return tensor.detach().cpu().double().numpy()


def compiled(matrix: Exact) -> Vector:
    """In single precision, column by column: the faster order of the products here."""
    return np.asfortranarray(matrix.astype(np.float32))


def _affine_layers(network: SkipMLP) -> list[tuple[Exact, Exact]]:
    """Weights and biases with a nonlinearity between any two; layers that have none between them are multiplied."""
    found: list[tuple[Exact, Exact]] = []
    joined = False
    for layer in network.layers:
        if not isinstance(layer, nn.Linear):
            joined = False
            continue
        weight, bias = exact(layer.weight), exact(layer.bias)
        if joined:
            former, constant = found.pop()
            weight, bias = weight @ former, weight @ constant + bias
        found.append((weight, bias))
        joined = True
    return found


def _activation(name: Activation) -> tuple[float, Callable[[Vector, Vector], object], float]:
    """A factor before the nonlinearity, the function in place (with room to work in), a factor after."""

    def gate(function: Callable[..., object]) -> Callable[[Vector, Vector], object]:
        def gated(x: Vector, scratch: Vector) -> None:
            function(x, scratch)
            np.multiply(x, scratch, scratch)
            np.add(x, scratch, x)

        return gated

    def elu(x: Vector, scratch: Vector) -> None:
        np.minimum(x, _ZERO, out=scratch)
        np.subtract(x, scratch, x)  # the positive part
        np.expm1(scratch, scratch)
        np.add(x, scratch, x)

    if name == "relu":
        return 1.0, lambda x, _: np.maximum(x, _ZERO, out=x), 1.0
    if name == "tanh":
        return 1.0, lambda x, _: np.tanh(x, x), 1.0
    if name == "elu":
        return 1.0, elu, 1.0
    if name == "silu":
        # x sigmoid(x) = v + v tanh(v) with v = x / 2.
        return 0.5, gate(np.tanh), 1.0
    from scipy.special import erf

    # x Phi(x) = (v + v erf(v)) / sqrt(2) with v = x / sqrt(2).
    return math.sqrt(0.5), gate(erf), math.sqrt(0.5)
