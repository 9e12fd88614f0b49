import io

import matplotlib.image
import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.worldmodels.dots.data import open_dots
from noumena.worldmodels.plots import latent_map, latent_spectrum, noise_curves, step_errors, strips, traces
from noumena.worldmodels.plots.noise import KINDS
from noumena.worldmodels.plots.readings import pictures


def drawn(figure):
    """The figure as pixels: what cannot be drawn raises."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=50)
    file.seek(0)
    return matplotlib.image.imread(file)


def records(methods=("vicreg", "jepa-robust"), kinds=tuple(KINDS), levels=(0.5, 1.0, 2.0), seeds=3):
    return [
        {"method": method, "kind": kind, "level": level, "seed": seed, "rmse": level + i + 0.1 * seed}
        for i, method in enumerate(methods)
        for kind in kinds
        for level in levels
        for seed in range(seeds)
    ]


def line(axis, method, order):
    return axis.get_lines()[order.index(method)].get_xydata()


def test_noise_curves_go_through_the_means_over_seeds_in_four_panels():
    figure = noise_curves(records())
    assert [axis.get_title(loc="left") for axis in figure.axes] == list(KINDS.values())
    for axis in figure.axes:
        found = line(axis, "jepa-robust", ["vicreg", "jepa-robust"])
        np.testing.assert_allclose(found, [[0.5, 1.6], [1.0, 2.1], [2.0, 3.1]])
    assert drawn(figure).std() > 0


def test_the_band_reaches_from_the_least_to_the_greatest_seed():
    figure = noise_curves(records(methods=["vicreg"]))
    corners = figure.axes[0].collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(0.5)
    assert corners[:, 1].max() == pytest.approx(2.2)


def test_runs_without_noise_belong_to_every_panel():
    rows = [*records(seeds=1), {"method": "vicreg", "kind": "none", "level": 0.0, "seed": 0, "rmse": 0.7}]
    for axis in noise_curves(rows).axes:
        np.testing.assert_allclose(line(axis, "vicreg", ["vicreg", "jepa-robust"])[0], [0.0, 0.7])


@pytest.mark.parametrize("spelling", ["fixed-uniform", "uniform fixed", "Fixed, uniform", "fixed_uniform"])
def test_kinds_may_be_spelt_in_any_way(spelling):
    figure = noise_curves([{"method": "a", "kind": spelling, "level": 1, "seed": 0, "rmse": 1}])
    assert [bool(axis.get_lines()) for axis in figure.axes] == [False, True, False, False]


def test_records_that_cannot_be_drawn_are_refused():
    with pytest.raises(DataError, match="no record"):
        noise_curves([])
    with pytest.raises(DataError, match="lacks seed"):
        noise_curves([{"method": "a", "kind": "none", "level": 1, "rmse": 1}])
    with pytest.raises(DataError, match=r"unknown kind of noise 'fixd_uniform'\. Did you mean 'fixed_uniform'"):
        noise_curves([{"method": "a", "kind": "fixd_uniform", "level": 1, "seed": 0, "rmse": 1}])


def test_rings_are_where_the_dots_are_and_crosses_where_they_were_read():
    data = open_dots(dots="multiple", channels=3, sequences=10, steps=5).train.batch(torch.arange(2))
    read = data.state + 1.0
    picture = strips(data, read, ["dot1", "dot2", "dot3"])
    axis = picture.figure.axes[5 + 3]  # second sequence, fourth of five frames
    marks = {mark.get_label(): mark.get_xydata()[0] for mark in axis.get_lines()}
    for i in range(3):
        np.testing.assert_allclose(marks[f"dot{i + 1}: true"], data.state[1, 3, i])
        np.testing.assert_allclose(marks[f"dot{i + 1}: read"], read[1, 3, i])
    # The ring surrounds the brightest pixel: positions are pixels of the picture, x to the right.
    image = axis.images[0].get_array()[..., 0]
    row, column = np.unravel_index(np.argmax(image), image.shape)
    assert np.hypot(*(np.array([column, row]) - data.state[1, 3, 0].numpy())) < 1.0
    drawn(picture.figure)


@pytest.mark.parametrize(("channels", "shape"), [(1, (2, 4, 6, 5)), (2, (2, 4, 6, 5)), (3, (2, 4, 6, 5, 3))])
def test_frames_of_any_channels_and_scale_become_pictures(channels, shape):
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 4, channels, 6, 5), dtype=torch.uint8, generator=generator)
    found = pictures(frames)
    assert tuple(found.shape) == shape
    torch.testing.assert_close(found, pictures(7.0 * frames.float() - 3))
    for sequence in found:
        assert (sequence.min(), sequence.max()) == (0, 1)
    assert torch.isfinite(pictures(torch.ones(1, 2, 1, 3, 3))).all()


def test_the_picture_of_steps_holds_each_methods_errors():
    methods = {"": ("imagined", torch.tensor([1.0, 2.0])), "baseline_x": ("other", torch.tensor([3.0, 4.0]))}
    picture = step_errors(methods, "px")
    (axis,) = picture.figure.axes
    assert [drawn_line.get_ydata().tolist() for drawn_line in axis.get_lines()] == [[1.0, 2.0], [3.0, 4.0]]
    assert axis.get_ylabel() == "RMSE (px)"
    drawn(picture.figure)


def test_traces_show_the_numbers_that_vary_most():
    state = torch.zeros(2, 6, 6, 1)
    for thing in range(6):
        state[..., thing, 0] = 1 + thing * torch.rand(2, 6, generator=torch.Generator().manual_seed(thing))
    picture = traces(state, state, [f"n{i}" for i in range(6)])
    labels = [axis.get_ylabel() for axis in picture.figure.axes if axis.get_ylabel()]
    assert labels == ["n2", "n3", "n4", "n5"]
    drawn(picture.figure)


@pytest.mark.parametrize("size", [1, 2, 9])
def test_latents_of_any_size_can_be_shown(size):
    latents = torch.randn(20, 5, size, generator=torch.Generator().manual_seed(0))
    for picture in (latent_map(latents, {"step": torch.arange(5).expand(20, 5)}), latent_spectrum(latents)):
        assert picture.name.startswith("latent")
        drawn(picture.figure)


def test_the_spectrum_is_of_centred_latents():
    latents = torch.randn(200, 5, 3, generator=torch.Generator().manual_seed(0)) + 100
    values = latent_spectrum(latents).figure.axes[0].get_lines()[0].get_ydata()
    assert min(values) > 0.8  # about equal, because the mean is taken away


def test_constant_latents_can_be_shown():
    still = torch.ones(6, 3, 4)
    for picture in (latent_map(still, {"step": torch.arange(3).expand(6, 3)}), latent_spectrum(still)):
        drawn(picture.figure)
