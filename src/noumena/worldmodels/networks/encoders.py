"""Encoders: one frame to one vector."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.errors import ConfigError, did_you_mean

Encoder = Literal["menet5", "resnet18", "convnet"]

_RESNET_WIDTHS = (64, 128, 256, 512)
_COARSEST = 4  # pixels along the shorter side at which a convnet stops halving


def make_encoder(name: Encoder, frame: tuple[int, int, int], *, width: int, latent_dim: int) -> nn.Module:
    """A network from frames of shape (batch, channels, height, width) to vectors of shape (batch, latent).

    Args:
        name: ``menet5``, three convolutions with batch norm after the rectifier, made for 28 pixels; ``resnet18`` (He
            et al. 2016); or ``convnet``, which halves the frame until some four pixels are left, for any size.
        frame: channels, height and width.
        width: multiplies the numbers of channels; ``resnet18`` has none and takes 1.
        latent_dim: length of the vectors. A ``resnet18`` of 512 has no last linear layer.

    Raises:
        ConfigError: an unknown name, a width below 1, or frames too small for the network.
    """
    if width < 1 or latent_dim < 1:
        raise ConfigError(f"model.width and model.latent_dim: expected at least 1, got {width} and {latent_dim}.")
    if name == "menet5":
        return MeNet5(frame, width=width, latent_dim=latent_dim)
    if name == "convnet":
        return ConvNet(frame, width=width, latent_dim=latent_dim)
    if name == "resnet18":
        if width != 1:
            raise ConfigError(f"model.width: a resnet18 has one width; expected 1, got {width}.")
        return ResNet18(frame, latent_dim=latent_dim)
    raise ConfigError(f"model.encoder: unknown '{name}'. {did_you_mean(str(name), ('menet5', 'resnet18', 'convnet'))}")


class MeNet5(nn.Module):
    """Three convolutions and one linear layer, as in Sobal et al. 2022 (arXiv 2211.10831).

    Batch norm stands behind the rectifier, so that the pooled features are centred.
    """

    def __init__(self, frame: tuple[int, int, int], *, width: int = 1, latent_dim: int = 128) -> None:
        super().__init__()
        channels, height, breadth = frame
        one, two = 16 * width, 32 * width
        self.convolutions = nn.Sequential(
            *_relu_norm(nn.Conv2d(channels, one, 5, stride=2, padding=2)),
            *_relu_norm(nn.Conv2d(one, two, 5, stride=2, padding=2)),
            *_relu_norm(nn.Conv2d(two, two, 3, padding=1)),
            nn.AvgPool2d(2),
        )
        rows, columns = (math.ceil(math.ceil(side / 2) / 2) // 2 for side in (height, breadth))
        if min(rows, columns) < 1:
            raise ConfigError(f"menet5 needs frames of at least 5 x 5 pixels, got {height} x {breadth}.")
        self.head = nn.Linear(two * rows * columns, latent_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (batch, channels, height, width) to vectors (batch, latent)."""
        return self.head(_convolved(self.convolutions, frames).flatten(1))


def _convolved(layers: nn.Sequential, frames: Tensor) -> Tensor:
    """Convolutions of frames; on processors with the channels innermost, which takes a sixth less time there."""
    if frames.device.type == "cpu":
        # Of a single channel `contiguous(memory_format=...)` would leave the strides as they are.
        frames = frames.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    return layers(frames)


def _relu_norm(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    return convolution, nn.ReLU(), nn.BatchNorm2d(convolution.out_channels)


class ConvNet(nn.Module):
    """Strided 4 x 4 convolutions with batch norm until some four pixels are left, then one linear layer."""

    def __init__(self, frame: tuple[int, int, int], *, width: int = 1, latent_dim: int = 128) -> None:
        super().__init__()
        channels, height, breadth = frame
        if min(height, breadth) < 2:
            raise ConfigError(f"convnet needs frames of at least 2 x 2 pixels, got {height} x {breadth}.")
        layers: list[nn.Module] = []
        features = 16 * width
        while min(height, breadth) > _COARSEST or not layers:
            layers += _relu_norm(nn.Conv2d(channels, features, 4, stride=2, padding=1))
            channels, features = features, min(2 * features, 64 * width)
            height, breadth = height // 2, breadth // 2
        self.convolutions = nn.Sequential(*layers)
        self.head = nn.Linear(channels * height * breadth, latent_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (batch, channels, height, width) to vectors (batch, latent)."""
        return self.head(_convolved(self.convolutions, frames).flatten(1))


class _Residual(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut (He et al. 2016, figure 2)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(outputs)
        # Blocks begin as the identity (Goyal et al. 2017, section 5.1).
        nn.init.zeros_(self.second_norm.weight)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.shortcut(x) + self.second_norm(self.second(hidden)))


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, table 1) with global pooling; 512 features, or a linear layer on them."""

    def __init__(self, frame: tuple[int, int, int], *, latent_dim: int = 512) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(frame[0], _RESNET_WIDTHS[0], 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(_RESNET_WIDTHS[0]),
            nn.ReLU(),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        blocks: list[nn.Module] = []
        inputs = _RESNET_WIDTHS[0]
        for stage, outputs in enumerate(_RESNET_WIDTHS):
            blocks += [_Residual(inputs, outputs, 1 if stage == 0 else 2), _Residual(outputs, outputs, 1)]
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Identity() if latent_dim == inputs else nn.Linear(inputs, latent_dim)

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (batch, channels, height, width) to vectors (batch, latent)."""
        return self.head(self.blocks(self.stem(frames)).mean((-2, -1)))


def normed_mlp(sizes: Sequence[int]) -> nn.Module:
    """Linear layers with batch norm and rectifier between them, the last one without bias (Bardes et al. 2022).

    Args:
        sizes: widths from input to output. A single one gives the identity.
    """
    if min(sizes) < 1:
        raise ConfigError(f"widths of layers: expected positive integers, got {list(sizes)}.")
    layers: list[nn.Module] = []
    for i in range(len(sizes) - 2):
        layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.BatchNorm1d(sizes[i + 1]), nn.ReLU()]
    if len(sizes) > 1:
        layers.append(nn.Linear(sizes[-2], sizes[-1], bias=False))
    return nn.Sequential(*layers)


class Backbone(nn.Module):
    """An encoder, and what may follow it before the latent is used."""

    def __init__(self, encoder: nn.Module, latent_dim: int, extra: Sequence[int] = ()) -> None:
        """
        Args:
            encoder: of frames to vectors of ``latent_dim``.
            extra: widths of a :func:`normed_mlp` behind it; the last one is then the size of the latent.
        """
        super().__init__()
        self.encoder = encoder
        self.mlp = normed_mlp([latent_dim, *extra])
        self.latent_size = extra[-1] if extra else latent_dim

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (batch, channels, height, width) to latents (batch, latent)."""
        return self.mlp(self.encoder(frames))


def in_chunks(network: nn.Module, frames: Tensor, most: int = 4096) -> Tensor:
    """``network`` over many frames without a peak of memory where no gradient is wanted."""
    if torch.is_grad_enabled() or len(frames) <= most:
        return network(frames)
    return torch.cat([network(part) for part in frames.split(most)])
