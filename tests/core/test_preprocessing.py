import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import DataError
from noumena.core.preprocessing import Standardizer

quick = settings(max_examples=60, deadline=None)


def fitted(x, dtype=torch.float32):
    standardizer = Standardizer(x.shape[1]).to(dtype)
    standardizer.fit(x)
    return standardizer


def random_rows(seed, rows=50, columns=4):
    generator = torch.Generator().manual_seed(seed)
    scale = 10.0 ** torch.randint(-6, 7, (columns,), generator=generator).double()
    shift = scale * 5 * torch.randn(columns, generator=generator, dtype=torch.float64)
    return torch.randn(rows, columns, generator=generator, dtype=torch.float64) * scale + shift


@quick
@given(st.integers(0, 10_000), st.integers(2, 60), st.integers(1, 6))
def test_fitted_columns_get_zero_mean_and_unit_variance(seed, rows, columns):
    x = random_rows(seed, rows, columns)
    y = fitted(x, torch.float64)(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(columns, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(y.var(0, correction=0), torch.ones(columns, dtype=torch.float64), rtol=1e-9, atol=0)


@quick
@given(st.integers(0, 10_000))
def test_the_inverse_gives_the_rows_back(seed):
    x = random_rows(seed).float()
    standardizer = fitted(x)
    # A few roundings of the column's largest number.
    allowed = 8 * torch.finfo(torch.float32).eps * x.abs().amax(0)
    assert ((standardizer.inverse(standardizer(x)) - x).abs() <= allowed).all()


@quick
@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(1, 40))
def test_a_constant_column_is_mapped_to_zero_and_back_to_the_constant_exactly(value, rows):
    x = torch.full((rows, 2), value)
    x[:, 1] = torch.arange(rows)
    standardizer = fitted(x)
    y = standardizer(x)
    assert bool(standardizer.constant[0])
    assert (y[:, 0] == 0).all()
    assert torch.equal(standardizer.inverse(y)[:, 0], x[:, 0])
    assert torch.equal(standardizer.inverse(torch.randn(rows, 2))[:, 0], x[:, 0])


def test_a_constant_column_that_moves_is_mapped_to_its_deviation_in_its_own_unit():
    standardizer = fitted(torch.tensor([[3.0], [3.0]]))
    assert standardizer(torch.tensor([[3.5]])).item() == 0.5


def test_a_single_row_makes_every_column_constant():
    standardizer = fitted(torch.tensor([[1.0, -2.0]]))
    assert standardizer.constant.all()


def test_small_variations_on_a_large_offset_keep_their_digits():
    generator = torch.Generator().manual_seed(0)
    x = 1e9 + torch.randn(1000, 1, generator=generator, dtype=torch.float64)
    y = fitted(x, torch.float64)(x)
    assert abs(float(y.mean())) < 1e-6
    assert abs(float(y.var(correction=0)) - 1.0) < 1e-6


def test_small_variations_on_a_large_offset_survive_in_float32():
    # Neighbouring float32 numbers near 1e9 are 64 apart.
    generator = torch.Generator().manual_seed(0)
    x = (1e9 + 64.0 * torch.randint(-100, 101, (5000, 1), generator=generator)).float()
    standardizer = fitted(x)
    assert not standardizer.constant.any()
    y = standardizer(x)
    half_a_step = 32.0 / float(standardizer.scale)
    assert abs(float(y.mean())) <= half_a_step
    assert abs(float(y.var(correction=0)) - 1.0) < 1e-4


@quick
@given(st.integers(0, 10_000), st.booleans())
def test_log_det_is_the_log_determinant_of_the_autograd_jacobian(seed, with_constant):
    x = random_rows(seed, columns=3)
    if with_constant:
        x[:, 1] = 2.0
    standardizer = fitted(x, torch.float64)
    jacobian = torch.autograd.functional.jacobian(standardizer, x[0])
    torch.testing.assert_close(standardizer.log_det, torch.linalg.slogdet(jacobian).logabsdet)


def test_log_det_makes_a_density_of_standardised_rows_one_of_the_rows():
    x = random_rows(1, columns=2)
    standardizer = fitted(x, torch.float64)
    standard = torch.distributions.Normal(0.0, 1.0)
    original = torch.distributions.Normal(standardizer.mean, standardizer.scale)
    torch.testing.assert_close(
        standard.log_prob(standardizer(x)).sum(-1) + standardizer.log_det, original.log_prob(x).sum(-1)
    )


@pytest.mark.parametrize("shape", [(5, 2), (5, 4), (0, 3), (5,), (2, 5, 3)])
def test_rows_of_another_width_or_none_are_refused(shape):
    with pytest.raises(DataError, match="3 columns"):
        Standardizer(3).fit(torch.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_column_without_a_finite_mean_is_refused_by_its_number(value):
    x = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    x[4, 2] = value
    with pytest.raises(DataError, match="column 2"):
        Standardizer(3).fit(x)


def test_a_refused_fit_changes_nothing():
    standardizer = fitted(random_rows(0).float())
    before = {name: value.clone() for name, value in standardizer.state_dict().items()}
    with pytest.raises(DataError):
        standardizer.fit(torch.full((3, 4), float("nan")))
    assert all(torch.equal(value, before[name]) for name, value in standardizer.state_dict().items())


@quick
@given(st.integers(0, 10_000))
def test_the_statistics_travel_with_the_state_dict(seed):
    x = random_rows(seed).float()
    x[:, 0] = 7.0
    standardizer = fitted(x)
    copy = Standardizer(4)
    copy.load_state_dict(standardizer.state_dict())
    y = torch.randn(10, 4)
    assert torch.equal(copy(x), standardizer(x))
    assert torch.equal(copy.inverse(y), standardizer.inverse(y))
    assert torch.equal(copy.log_det, standardizer.log_det)


def test_the_statistics_are_not_trained():
    assert list(Standardizer(3).parameters()) == []
