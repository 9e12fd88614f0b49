"""Decoders from latent states to frames: that of the study, and a cheaper one for frames of any size."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from noumena.core.errors import ConfigError

_STUDY_SIZE = (28, 28)
_COARSEST = 8  # largest side, in cells, of the grid that a GridDecoder starts from
_LAST = 4  # its last enlargement, whose channels become pixels


class EnlargingConvolution(nn.Module):
    """Nearest-neighbour enlargement by ``factor``, then a convolution without bias that keeps the size.

    Computed before the enlargement: several columns of the kernel look at the same cell, so their weights are added
    first. Each of the factor x factor positions within a cell is left with a 3x3 kernel, and the results are laid out
    as pixels (sub-pixel convolution, Shi et al. 2016). The same numbers up to rounding, for ``9 / kernel**2`` of the
    multiplications and without a large feature map.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, factor: int) -> None:
        """
        Args:
            inputs, outputs: channels.
            kernel: side of the kernel, odd and at most ``2 * factor + 1`` so that it reaches one cell far.
            factor: of the enlargement.
        """
        super().__init__()
        if kernel % 2 == 0 or kernel > 2 * factor + 1:
            raise ConfigError(f"kernel: expected an odd number of at most {2 * factor + 1}, got {kernel}.")
        self.factor = factor
        self.weight = nn.Conv2d(inputs, outputs, kernel, bias=False).weight

    def forward(self, x: Tensor) -> Tensor:
        """Shape (n, inputs, height, width) to (n, outputs, factor * height, factor * width)."""
        taps = self._taps()
        folded = torch.einsum("oiyx,pay,qbx->opqiab", self.weight, taps, taps).flatten(0, 2)
        # Channels last takes less time on a CPU for so many channels of few cells.
        x, folded = (y.contiguous(memory_format=torch.channels_last) for y in (x, folded))
        return functional.pixel_shuffle(functional.conv2d(x, folded, padding=1), self.factor)

    def _taps(self) -> Tensor:
        """Which cell a column of the kernel looks at, 0 or 1, shape (position within the cell, cell, column)."""
        device, kernel = self.weight.device, self.weight.shape[-1]
        position, column = torch.arange(self.factor, device=device), torch.arange(kernel, device=device)
        cell = (position[:, None] + column - kernel // 2).div(self.factor, rounding_mode="floor")
        return (cell[:, None] == torch.arange(-1, 2, device=device)[:, None]).to(self.weight.dtype)


class StudyDecoder(nn.Module):
    """The decoder of the study of moving dots (Sobal et al. 2022, arXiv 2211.10831): 3, 6, 18, 54, then 28 pixels.

    Linear to 64 channels of 3x3, ReLU; nearest x2, 3x3 convolution to 64, ReLU, batch norm; nearest x3, 5x5 convolution
    to 32, ReLU, batch norm; nearest x3, 5x5 convolution to the frame's channels; bilinear to 28x28.
    """

    def __init__(self, state: int, frame: tuple[int, int, int]) -> None:
        """
        Args:
            state: numbers in the state.
            frame: channels, height and width.

        Raises:
            ConfigError: frames of another size than 28x28.
        """
        super().__init__()
        channels, height, width = frame
        if (height, width) != _STUDY_SIZE:
            raise ConfigError(
                f"model.variant: the decoder of 'study' makes frames of 28x28 pixels, the data have {height}x{width}; "
                "use 'dreamer'."
            )
        self.grid = nn.Linear(state, 64 * 9)
        self.convolutions = nn.Sequential(
            nn.Unflatten(1, (64, 3, 3)),
            nn.ReLU(),
            EnlargingConvolution(64, 64, 3, factor=2),
            nn.ReLU(),
            nn.BatchNorm2d(64),
            EnlargingConvolution(64, 32, 5, factor=3),
            nn.ReLU(),
            nn.BatchNorm2d(32),
            EnlargingConvolution(32, channels, 5, factor=3),
        )

    def forward(self, states: Tensor) -> Tensor:
        """States (n, state) to frames (n, channels, 28, 28)."""
        large = self.convolutions(self.grid(states))
        return functional.interpolate(large, size=_STUDY_SIZE, mode="bilinear", align_corners=False)


class GridDecoder(nn.Module):
    """Frames of any size from a coarse grid, enlarged by sub-pixel convolutions (Shi et al. 2016).

    A linear layer makes a grid of at most 8x8 cells. Each doubling is a 3x3 convolution to four times the channels,
    laid out as 2x2 pixels; the last one lays out 4x4. So every convolution runs before its enlargement, never on a
    full-size feature map. What exceeds the frame is cut off.
    """

    def __init__(self, state: int, frame: tuple[int, int, int], *, width: int = 16) -> None:
        """
        Args:
            state: numbers in the state.
            frame: channels, height and width.
            width: channels of the grids.
        """
        super().__init__()
        channels, *size = frame
        doublings = 0
        while max(size) > _COARSEST * _LAST << doublings:
            doublings += 1
        cells = tuple(-(-side // (_LAST << doublings)) for side in size)  # rounded up
        self.size = cast("tuple[int, int]", tuple(size))
        self.grid = nn.Linear(state, width * cells[0] * cells[1])
        layers: list[nn.Module] = [nn.Unflatten(1, (width, *cells)), nn.SiLU()]
        for _ in range(doublings):
            layers += [nn.Conv2d(width, 4 * width, 3, padding=1), nn.PixelShuffle(2), nn.SiLU()]
        layers += [nn.Conv2d(width, channels * _LAST**2, 3, padding=1), nn.PixelShuffle(_LAST)]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, states: Tensor) -> Tensor:
        """States (n, state) to frames (n, channels, height, width)."""
        height, width = self.size
        return self.convolutions(self.grid(states))[..., :height, :width]
