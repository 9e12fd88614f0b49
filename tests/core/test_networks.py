import pytest
import torch
from torch import nn

from noumena.core.errors import ConfigError
from noumena.core.networks import mlp

ACTIVATIONS = {
    "relu": torch.relu,
    "silu": nn.functional.silu,
    "gelu": nn.functional.gelu,
    "tanh": torch.tanh,
    "elu": nn.functional.elu,
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("activate_last", [False, True])
def test_an_mlp_is_affine_maps_with_the_activation_between_them(activation, activate_last):
    net = mlp([3, 5, 4, 2], activation, activate_last=activate_last)
    y = x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for i, layer in enumerate(layers):
        y = y @ layer.weight.T + layer.bias
        if activate_last or i < len(layers) - 1:
            y = ACTIVATIONS[activation](y)
    torch.testing.assert_close(net(x), y)


def test_two_widths_make_a_linear_map():
    net = mlp([4, 2])
    x, y = torch.randn(2, 6, 4)
    torch.testing.assert_close(net(x + y) + net(torch.zeros(6, 4)), net(x) + net(y))


def test_a_gradient_reaches_every_parameter():
    net = mlp([3, 8, 8, 1], "tanh")
    net(torch.randn(20, 3)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in net.parameters())


@pytest.mark.parametrize("sizes", [[], [3], [3, 0], [3, -1, 2]])
def test_impossible_widths_are_refused(sizes):
    with pytest.raises(ConfigError, match="at least two positive"):
        mlp(sizes)


def test_an_empty_list_of_widths_is_refused_as_a_configuration_error():
    with pytest.raises(ConfigError):
        mlp([])


def test_an_unknown_activation_is_refused_with_the_nearest_known():
    with pytest.raises(ConfigError, match="Did you mean 'gelu'"):
        mlp([2, 2], "gellu")  # type: ignore[arg-type]
