import pytest
import torch
from torch import nn
from torch.nn import functional

from noumena.core.errors import ConfigError
from noumena.worldmodels.networks.decoders import EnlargingConvolution, GridDecoder, StudyDecoder


@pytest.mark.parametrize(("kernel", "factor"), [(3, 2), (5, 3), (5, 2), (1, 4), (7, 3)])
def test_an_enlarging_convolution_is_an_enlargement_and_then_a_convolution(kernel, factor):
    layer = EnlargingConvolution(4, 3, kernel, factor).double()
    x = torch.randn(2, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    large = functional.interpolate(x, scale_factor=factor, mode="nearest")
    expected = functional.conv2d(large, layer.weight, padding=kernel // 2)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    of_layer = torch.autograd.grad(layer(x).square().sum(), (x, layer.weight))
    for mine, theirs in zip(of_layer, torch.autograd.grad(expected.square().sum(), (x, layer.weight)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("kernel", "factor"), [(4, 2), (7, 2)])
def test_a_kernel_that_reaches_too_far_is_refused(kernel, factor):
    with pytest.raises(ConfigError, match="odd number of at most 5"):
        EnlargingConvolution(4, 3, kernel, factor)


def study_layers(decoder, channels):
    """The study's decoder written layer by layer at full size, with the weights of ``decoder``."""
    layers = nn.Sequential(
        nn.Unflatten(1, (64, 3, 3)),
        nn.ReLU(),
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(64, 64, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.BatchNorm2d(64),
        nn.Upsample(scale_factor=3, mode="nearest"),
        nn.Conv2d(64, 32, 5, padding=2, bias=False),
        nn.ReLU(),
        nn.BatchNorm2d(32),
        nn.Upsample(scale_factor=3, mode="nearest"),
        nn.Conv2d(32, channels, 5, padding=2, bias=False),
        nn.Upsample(size=(28, 28), mode="bilinear"),
    )
    for mine, theirs in zip(layers.parameters(), decoder.convolutions.parameters(), strict=True):
        mine.data.copy_(theirs)
    return layers.double()


@pytest.mark.parametrize("training", [True, False])
def test_the_studys_decoder_equals_its_layers_at_full_size(training):
    decoder = StudyDecoder(10, (2, 28, 28)).double()
    layers = study_layers(decoder, 2)
    decoder.train(training), layers.train(training)
    states = torch.randn(6, 10, dtype=torch.float64)
    torch.testing.assert_close(decoder(states), layers(decoder.grid(states)), rtol=0, atol=1e-10)


def test_the_studys_decoder_makes_frames_of_28_pixels_only():
    with pytest.raises(ConfigError, match=r"64x64.*'dreamer'"):
        StudyDecoder(10, (1, 64, 64))


@pytest.mark.parametrize("frame", [(1, 28, 28), (3, 64, 64), (2, 1, 3), (1, 33, 50), (3, 96, 20)])
def test_a_grid_decoder_makes_frames_of_any_size_and_every_weight_takes_part(frame):
    decoder = GridDecoder(12, frame, width=4).double()
    frames = decoder(torch.randn(3, 12, dtype=torch.float64))
    assert frames.shape == (3, *frame)
    assert len(frames.unique()) == frames.numel()  # no pixel is a copy of another
    frames.square().sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in decoder.parameters())


def test_a_grid_decoder_starts_from_at_most_eight_cells_a_side():
    for side in (28, 32, 33, 64, 65, 200):
        grid = GridDecoder(1, (1, side, side), width=1).grid.out_features
        assert grid <= 64
