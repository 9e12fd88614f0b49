import numpy as np
import pytest
import torch

from noumena.density.flows.quantisation import find_grids, snap


def column(values, rows=1000, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).choice(values, size=(rows, 1)).astype("float32"))


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([0, 1], 1.0),
        ([-3, 4], 7.0),
        (np.arange(1, 11), 1.0),
        (np.arange(50) * 0.1 + 20.0, 0.1),
        ([0, 2, 5, 9], 1.0),  # the least gap is two steps
        ([0, 1, 1000], 1.0),
        (np.arange(16) / 15, 1 / 15),
        (1e6 + np.arange(8), 1.0),
    ],
)
def test_a_column_of_few_evenly_spaced_values_has_their_step(values, step):
    grids = find_grids(column(values))
    np.testing.assert_allclose(grids.step.numpy(), [step], rtol=1e-3)
    place = (column(values).double() - grids.origin) / grids.step
    assert float((place - place.round()).abs().max()) < 0.06


@pytest.mark.parametrize(
    "rows",
    [
        np.random.default_rng(0).normal(size=(2000, 1)),
        np.random.default_rng(0).normal(size=(2000, 1)).round(3),  # as many values as rows
        np.random.default_rng(0).permutation(2000)[:, None] * 1.0,
        np.full((50, 1), 3.0),
        np.random.default_rng(0).choice([0.0, 1.0, 2.37, 7.77, 9.1234], size=(500, 1)),  # few values, no grid
        np.repeat(np.random.default_rng(0).normal(size=(50, 1)), 20, 0),
        np.random.default_rng(0).choice(1e6 + np.arange(8) * 0.0625, size=(500, 1)),  # the last bits of float32
        np.array([[0.0], [1.0], [0.0]]),  # too few rows to tell
    ],
    ids=["normal", "rounded", "counter", "constant", "irregular", "duplicated", "rounding", "three"],
)
def test_continuous_constant_and_irregular_columns_have_no_grid(rows):
    assert find_grids(torch.from_numpy(rows.astype("float32"))).step.tolist() == [0.0]


def test_each_column_is_judged_by_itself():
    rows = torch.cat([torch.randn(1000, 1), column([0, 1]), column(np.arange(5) * 0.5), torch.zeros(1000, 1)], 1)
    np.testing.assert_allclose(find_grids(rows).step.numpy(), [0.0, 1.0, 0.5, 0.0], rtol=1e-6)


def test_the_grid_does_not_depend_on_the_order_of_the_rows():
    rows = column(np.arange(7) * 0.3)
    assert find_grids(rows).step.tolist() == find_grids(rows.flip(0)).step.tolist()


def test_snapping_moves_gridded_columns_to_their_values_and_no_others():
    step, origin = torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.0])
    rows = torch.tensor([[1.2, 1.2], [1.3, -7.7], [-0.1, 0.0]])
    torch.testing.assert_close(snap(rows, step, origin), torch.tensor([[1.0, 1.2], [1.5, -7.7], [0.0, 0.0]]))
