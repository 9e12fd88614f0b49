import pytest
import torch

from noumena.worldmodels.augmentation import (
    THRESHOLD,
    background_share,
    find_background,
    ordered,
    rolled,
    shifts,
    swap_backgrounds,
)
from noumena.worldmodels.dots.data import open_dots


def walkers(n: int = 24, steps: int = 17, size: int = 16, seed: int = 0) -> torch.Tensor:
    """A bright pixel that is somewhere else in each frame, shape (n, steps, 1, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.zeros(n, steps, size * size)
    frames.scatter_(2, torch.randint(size * size, (n, steps, 1), generator=generator), 1.0)
    return frames.view(n, steps, 1, size, size)


def fixed(n: int = 24, size: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.rand(n, 1, 1, size, size, generator=torch.Generator().manual_seed(seed))


def drifting(background: torch.Tensor, drift: list[float], steps: int = 17) -> torch.Tensor:
    return rolled(background.expand(-1, steps, -1, -1, -1), shifts(torch.tensor(drift), steps))


NONE = torch.zeros(2)


def test_a_swap_takes_one_background_away_and_gives_another():
    moving, background = walkers(), fixed()
    donors = torch.randint(24, (24, 17), generator=torch.Generator().manual_seed(2))
    swapped = swap_backgrounds(moving + background, donors, NONE)
    expected = moving + background[donors][:, :, 0]
    torch.testing.assert_close(swapped, expected)


def test_a_swap_with_itself_changes_nothing():
    frames = walkers() + fixed()
    donors = torch.arange(24)[:, None].expand(-1, 17)
    torch.testing.assert_close(swap_backgrounds(frames, donors, torch.tensor([0.5, 0.0])), frames)


def test_a_drifting_background_is_swapped_along_its_drift():
    moving, background, drift = walkers(), fixed(), [0.5, -0.25]
    donors = torch.randint(24, (24, 17), generator=torch.Generator().manual_seed(2))
    swapped = swap_backgrounds(moving + drifting(background, drift), donors, torch.tensor(drift))
    by = shifts(torch.tensor(drift), 17)
    torch.testing.assert_close(swapped, moving + rolled(background[donors][:, :, 0], by), atol=1e-5, rtol=1e-5)


def test_frames_roll_by_whole_pixels_towards_zero_as_in_the_study():
    image = fixed(1)
    rolling = drifting(image, [0.7, 0.0], steps=6)
    for step in range(6):
        torch.testing.assert_close(rolling[0, step], image[0, 0].roll(int(step * 0.7), -1))


@pytest.mark.parametrize(
    ("frames", "is_fixed"),
    [
        (walkers(), False),
        (walkers() + torch.rand(24, 17, 1, 16, 16, generator=torch.Generator().manual_seed(3)), False),
        (walkers() + fixed(), True),
        (walkers() + 0.25 * fixed(), True),
        (walkers() + fixed() + torch.rand(24, 17, 1, 16, 16, generator=torch.Generator().manual_seed(3)), True),
    ],
    ids=["nothing", "changing", "fixed", "weak", "both"],
)
def test_the_share_of_a_background_tells_fixed_noise_from_none_and_from_changing(frames: torch.Tensor, is_fixed: bool):
    assert (background_share(frames, NONE) >= THRESHOLD) == is_fixed


def test_the_share_ignores_brightness_and_what_all_sequences_have_in_common():
    frames = walkers() + fixed()
    share = background_share(frames, NONE)
    assert background_share(7.0 * frames + fixed(1, seed=9), NONE) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("drift", [[0.0, 0.0], [0.5, 0.0], [0.0, -0.25], [1.0, 0.0]])
def test_the_drift_of_backgrounds_is_found(drift: list[float]):
    frames = walkers() + drifting(fixed(), drift)
    assert find_background(frames).drift.tolist() == pytest.approx(drift, abs=0.13)


def test_without_a_background_no_drift_is_found():
    assert find_background(walkers()).drift.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("steps", [1, 2, 5, 16, 17, 31])
def test_values_are_ordered_over_time(steps: int):
    frames = torch.rand(3, steps, 2, 4, generator=torch.Generator().manual_seed(steps))
    torch.testing.assert_close(torch.stack(ordered(frames), 1), frames.sort(dim=1).values, rtol=0, atol=0)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_of_what_moves_next_to_nothing_is_left_in_the_background_whether_bright_or_dark(sign: float):
    lingering = torch.zeros(24, 17, 1, 16, 16)
    lingering[:, :8, :, 4:6, 4:6] = sign  # nearly half of the time at one place
    image = fixed()
    frames = sign * walkers() + lingering + image
    found = find_background(frames)
    assert found.quantile == pytest.approx(0.08 if sign > 0 else 0.92)
    donors = torch.arange(24).flip(0)[:, None].expand(-1, 17)
    swapped = swap_backgrounds(frames, donors, found.drift, found.quantile)
    torch.testing.assert_close(swapped, frames - image + image.flip(0))


def test_the_median_is_taken_where_noise_hides_what_moves():
    noisy = fixed() + torch.randn(24, 17, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert find_background(walkers() + noisy).quantile == 0.5


@pytest.mark.parametrize("steps", [2, 3, 5, 6, 8, 9, 17])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["bright", "dark"])
def test_things_that_linger_in_short_sequences_are_no_background(steps, sign):
    frames = sign * open_dots(steps=steps, sequences=96, test_sequences=0).train.batch(torch.arange(96)).frames
    assert find_background((frames - frames.mean()) / frames.std()).share < THRESHOLD
