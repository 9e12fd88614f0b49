import pytest
import torch

from noumena.density.flows.spline import bend, numbers_of, unbend


def parameters(bins, *shape, size=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(numbers_of(bins), *shape, generator=generator, dtype=torch.float64)


def points(*shape, reach=8.0, seed=1):
    uniform = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return reach * (2.0 * uniform - 1.0)


@pytest.mark.parametrize("bins", [2, 5, 8])
@pytest.mark.parametrize("size", [0.0, 1.0, 10.0])
def test_a_spline_rises_its_slope_is_the_one_claimed_and_it_can_be_inverted(bins, size):
    numbers = parameters(bins, 3, 400, size=size)
    x = points(3, 400).requires_grad_()
    y, log_slope = bend(x, numbers)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(slope.log(), log_slope, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(unbend(y, numbers), x, rtol=1e-6, atol=1e-6)
    one = numbers[..., :1].expand(-1, -1, 400)
    rising = bend(points(3, 400).sort(-1).values, one)[0]
    assert (rising.diff(dim=-1) > 0).all()


def test_parameters_of_zero_are_the_identity():
    x = points(100)
    y, log_slope = bend(x, torch.zeros(numbers_of(8), 100, dtype=torch.float64))
    torch.testing.assert_close(y, x)
    torch.testing.assert_close(log_slope, torch.zeros_like(x), rtol=0, atol=1e-12)


def test_outside_of_the_box_a_spline_is_the_identity_and_its_gradient_finite():
    x = torch.tensor([-1e30, -5.0, 5.0, 7.0, 3e38, torch.inf], requires_grad=True)
    numbers = parameters(8, 6).float().requires_grad_()
    y, log_slope = bend(x, numbers)
    assert y.tolist() == x.tolist()
    assert log_slope.tolist() == [0.0] * 6
    assert unbend(x, numbers).tolist() == x.tolist()
    gradients = torch.autograd.grad(y[:5].sum() + log_slope.sum(), (x, numbers))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_spline_and_its_slope_go_through_the_sides_of_the_box_and_the_knots_without_a_jump():
    numbers = parameters(8, 1, size=1.0).expand(-1, 20001)
    x = torch.linspace(-6.0, 6.0, 20001, dtype=torch.float64)
    y, log_slope = bend(x, numbers)
    assert float((y.diff() - 6e-4 * log_slope[:-1].exp()).abs().max()) < 1e-3
    assert float(log_slope.diff().abs().max()) < 0.1


def test_splines_equal_those_of_zuko():
    transforms = pytest.importorskip("zuko.transforms")
    bins, x = 8, points(50)
    numbers = parameters(bins, 50, size=1.0)
    # zuko bounds its logits in another way, so ours are handed over as it wants them.
    shares = torch.softmax(numbers[: 2 * bins].unflatten(0, (2, bins)), 1) * (1.0 - bins * 1e-3) + 1e-3
    slopes = numbers[2 * bins :] / (1.0 + numbers[2 * bins :].abs() / 7.0)

    def unclamped(value, scale):
        return value / (1.0 - value.abs() / scale)

    limit = float(torch.log(torch.tensor(1e-12)).abs())
    logits = [unclamped(share.log().T, limit / 2.0) for share in shares]
    theirs = transforms.MonotonicRQSTransform(*logits, unclamped(slopes.T, limit), bound=5.0, slope=1e-12)
    y, log_slope = bend(x, numbers)
    expected, expected_slope = theirs.call_and_ladj(x)
    torch.testing.assert_close(y, expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_slope, expected_slope, rtol=1e-6, atol=1e-6)
