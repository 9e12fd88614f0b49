import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

import noumena
from noumena.core.errors import ArtifactError, ConfigError, DataError
from noumena.core.seeding import Noise
from noumena.density.flow import Flow

ARCHITECTURES = ("realnvp", "nsf", "original")
QUICK = {"max_epochs": 6, "batch_size": 128, "lr": 3e-3, "accelerator": "cpu", "progress": False}
SMALL = {"transforms": 4, "hidden_dims": (16,), "bins": 4}


def correlated_rows(n=600, columns=5, seed=0):
    """Rows near a curved surface, each column in another unit."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(2, columns))
    hidden = rng.normal(size=(n, 2))
    rows = hidden @ mixing + 0.3 * hidden[:, :1] ** 2 + 0.2 * rng.normal(size=(n, columns))
    return (rows * 10.0 ** (np.arange(columns) % 3) + np.arange(columns)).astype("float32")


def built(columns, seed=0, spread=0.2, **changes):
    """A flow far from the identity, fitted to nothing but its preprocessing."""
    torch.manual_seed(seed)
    model = Flow(**{"input_dim": columns, **SMALL, **changes})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model.eval()


def prepared(rows, seed=0, **changes):
    model = built(rows.shape[1], seed, **changes)
    model.prepare(model.as_dataset(rows))
    return model


def with_columns(*numbers):
    """Every architecture with every number of columns, except for the one that refuses a single one."""
    return [(one, n) for one in ARCHITECTURES for n in numbers if (one, n) != ("original", 1)]


@pytest.fixture(scope="module", params=ARCHITECTURES)
def trained(request):
    model = Flow(architecture=request.param, **SMALL)
    model.fit(correlated_rows(), correlated_rows(seed=1), **QUICK)
    return model


# The map


@pytest.mark.parametrize(("architecture", "columns"), with_columns(1, 2, 3, 6))
def test_the_density_is_that_of_the_latents_and_the_jacobian(architecture, columns):
    rows = correlated_rows(200, columns)
    model = prepared(rows, architecture=architecture, whiten=columns != 3).double()
    few = torch.from_numpy(rows[:5]).double()

    def latents(row):
        row = row[None] if model.standardizer is None else model.standardizer(row[None])
        return model.flow(row if model.whitening is None else model.whitening(row)[0])[0][0]

    jacobians = [torch.autograd.functional.jacobian(latents, row) for row in few]
    log_det = torch.stack([jacobian.slogdet()[1] for jacobian in jacobians])
    z = model.encode(few).mean
    prior = MultivariateNormal(torch.zeros(columns).double(), torch.eye(columns).double())
    torch.testing.assert_close(model.log_density(few), prior.log_prob(z) + log_det, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(z, torch.stack([latents(row) for row in few]))


@pytest.mark.parametrize(("architecture", "columns"), with_columns(1, 2, 5))
def test_decoding_inverts_encoding_both_ways(architecture, columns):
    rows = correlated_rows(200, columns)
    model = prepared(rows, architecture=architecture, whiten=columns == 5).double()
    unit = rows.std(0)
    np.testing.assert_allclose(model.reconstruct(rows).numpy() / unit, rows / unit, atol=1e-6)
    z = torch.randn(50, columns, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        torch.testing.assert_close(model._to_latents(model.standardizer(model.decode(z)))[0], z, rtol=0, atol=1e-6)


def test_single_precision_is_enough_to_invert_a_trained_flow(trained):
    rows = correlated_rows(seed=2)
    unit = rows.std(0)
    np.testing.assert_allclose(trained.reconstruct(rows).numpy() / unit, rows / unit, atol=1e-3)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("architecture", ["realnvp", "nsf"])
def test_the_density_in_the_units_of_the_data_integrates_to_one(architecture, columns):
    rows = correlated_rows(300, columns) * 7.0
    model = prepared(rows, architecture=architecture, spread=0.1)
    axes = [np.linspace(-16, 16, 401) * column.std() + column.mean() for column in rows.T]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, columns)
    cell = np.prod([axis[1] - axis[0] for axis in axes])
    assert np.exp(model.score_samples(grid)).sum() * cell == pytest.approx(1.0, abs=0.02)


def test_a_fresh_flow_is_near_the_normal_distribution_of_the_training_rows():
    rows = correlated_rows(5000, 4)
    model = Flow(input_dim=4, whiten=True, **SMALL)
    model.prepare(model.as_dataset(rows))
    wide = torch.from_numpy(rows).double()
    expected = MultivariateNormal(wide.mean(0), wide.T.cov()).log_prob(wide).mean()
    assert model.score_samples(rows).mean() == pytest.approx(float(expected), abs=0.3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_loss_is_the_mean_score_of_standardised_rows_with_the_sign_changed(architecture):
    rows = correlated_rows()
    model = prepared(rows, architecture=architecture)
    terms = model.loss(torch.from_numpy(rows), noise=Noise(0))
    expected = -(model.score_samples(rows).mean() + float(model.standardizer.scale.log().sum()))
    assert terms.total.item() == pytest.approx(expected, abs=1e-3)
    assert terms.names() == ("loss", "nll")


@pytest.mark.parametrize(("architecture", "columns"), with_columns(1, 5))
def test_a_gradient_reaches_every_parameter(architecture, columns):
    rows = torch.from_numpy(correlated_rows(100, columns))
    torch.manual_seed(0)
    model = Flow(input_dim=columns, architecture=architecture, **SMALL)
    model.prepare(model.as_dataset(rows))
    model.loss(rows, noise=Noise(0)).total.backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not float(p.grad.abs().sum()) > 0.0] == []


# Training


def test_training_raises_the_likelihood_of_rows_it_has_not_seen():
    rows, others = correlated_rows(1000), correlated_rows(1000, seed=1)
    for architecture in ("realnvp", "nsf"):
        model = Flow(architecture=architecture, **SMALL)
        model.prepare(model.as_dataset(rows))
        before = model.score_samples(others).mean()
        model.fit(rows, others, **QUICK)
        assert model.score_samples(others).mean() > before + 0.1


def test_the_same_seed_gives_the_same_weights():
    states = []
    for _ in range(2):
        model = Flow(architecture="nsf", **SMALL)
        model.fit(correlated_rows(200), **QUICK | {"max_epochs": 1, "seed": 3})
        states.append(model.state_dict())
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0, equal_nan=True)


def test_the_weights_with_the_lowest_validation_loss_are_kept():
    rows, others = correlated_rows(60), correlated_rows(400, seed=1)
    model = Flow(**SMALL | {"hidden_dims": (64, 64)})
    history = model.fit(rows, others, **QUICK | {"max_epochs": 60, "patience": 10, "lr": 1e-2, "batch_size": 32})
    losses = history["val_loss"]
    assert len(losses) < 60
    assert losses[-1] > min(losses)
    stopping = model.divide_validation(model.as_dataset(others))[0]
    assert model.loss(stopping.rows, noise=Noise(0)).total.item() == pytest.approx(min(losses), abs=1e-3)


def test_a_saved_flow_scores_and_samples_the_same(trained, tmp_path):
    trained.save(tmp_path / "model")
    loaded = noumena.load(tmp_path / "model")
    rows = correlated_rows(50, seed=2)
    np.testing.assert_array_equal(loaded.score_samples(rows), trained.score_samples(rows))
    np.testing.assert_array_equal(loaded.p_value(rows), trained.p_value(rows))
    pair = [model.sample(20, torch.Generator().manual_seed(1)) for model in (loaded, trained)]
    assert torch.equal(*pair)


# A row's score is its own


@pytest.mark.parametrize(("architecture", "columns"), with_columns(1, 3, 14))
def test_the_score_of_a_row_does_not_depend_on_its_batch(architecture, columns):
    rows = correlated_rows(700, columns)
    model = prepared(rows, architecture=architecture)
    together = model.score_samples(rows)
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_allclose(model.score_samples(rows[order]), together[order], rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(model.score_samples(rows[300:301]), together[300:301], rtol=1e-6, atol=2e-6)
    np.testing.assert_array_equal(model.score_samples(rows), together)


def test_the_gradient_of_the_score_is_that_of_finite_differences():
    rows = correlated_rows(100)
    for architecture in ARCHITECTURES:
        model = prepared(rows, architecture=architecture).double()
        x = torch.from_numpy(rows[:3]).double().requires_grad_()
        assert torch.autograd.gradcheck(model.log_density, x, atol=1e-4, rtol=1e-3)


# Far rows


@pytest.mark.parametrize("columns", [1, 4])
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("architecture", ["realnvp", "nsf"])
def test_the_score_keeps_falling_on_every_ray_and_stays_a_number(architecture, whiten, columns):
    rows = correlated_rows(400, columns)
    model = prepared(rows, architecture=architecture, whiten=whiten)
    directions = np.random.default_rng(0).normal(size=(20, columns))
    directions = np.concatenate([directions, np.eye(columns), -np.eye(columns)])
    # In standard deviations; as far as float32 reaches.
    distances = np.concatenate([np.geomspace(1e4, 1e10, 60), np.geomspace(1e11, 1e35, 80)])
    for direction in directions:
        scores = model.score_samples(rows.mean(0) + distances[:, None] * direction * rows.std(0))
        assert not np.isnan(scores).any()
        assert (np.diff(scores[:60]) < 0).all()
        # Beyond, it is as low as it gets, up to rounding.
        assert (scores[60:] < scores[59]).all()
        assert (scores[62:] <= 0.9999 * scores[61]).all()


@pytest.mark.parametrize("value", [1e20, -1e20, 1e308, -1e308, 3.4e38])
def test_a_far_row_is_an_anomaly(trained, value):
    rows = correlated_rows(4, seed=2).astype("float64")
    for column in range(rows.shape[1]):
        far = rows.copy()
        far[:, column] = value
        assert trained.predict_anomaly(far).all()
        assert (trained.p_value(far) == 1.0 / (trained.calibration_rows + 1)).all()
        assert (trained.score_samples(far) < trained.calibration.min().item()).all()


def test_the_gradient_of_a_far_row_is_finite():
    for architecture in ("realnvp", "nsf"):
        model = prepared(correlated_rows(200), architecture=architecture)
        x = torch.full((2, 5), 1e15, requires_grad=True)
        assert torch.isfinite(torch.autograd.grad(model.log_density(x).sum(), x)[0]).all()


def test_rows_with_nan_are_refused(trained):
    with pytest.raises(DataError):
        trained.score_samples(np.full((2, 5), np.nan))


# Columns


def test_a_constant_column_costs_nothing_while_constant_and_much_once_it_changes():
    rows = correlated_rows(400, 4)
    wide = np.insert(rows, 2, 123.0, axis=1)
    for architecture in ("realnvp", "nsf"):
        models = [Flow(architecture=architecture, **SMALL) for _ in range(2)]
        for model, data in zip(models, (rows, wide), strict=True):
            model.fit(data, data, **QUICK)
        with_it, without = models[1].score_samples(wide), models[0].score_samples(rows)
        assert np.isfinite(with_it).all()
        # Another network, so only nearly the same; the least scale adds 6 - log(2 pi) / 2 nats.
        assert abs((with_it - without).mean() - (6.0 - 0.5 * np.log(2 * np.pi))) < 1.5
        changed = wide.copy()
        changed[:, 2] += 1.0
        np.testing.assert_allclose(models[1].score_samples(changed), with_it - 0.5 * np.exp(12.0), rtol=1e-5)
        assert models[1].predict_anomaly(changed).all()
        assert (models[1].sample(50, torch.Generator().manual_seed(0))[:, 2] == 123.0).all()
        assert (models[1].reconstruct(wide)[:, 2] == 123.0).all()


def test_what_a_constant_column_holds_does_not_reach_the_others():
    wide = np.insert(correlated_rows(300, 3), 1, 5.0, axis=1)
    model = prepared(wide)
    latents = model.encode(wide).mean
    wide[:, 1] = 6.0
    torch.testing.assert_close(model.encode(wide).mean, latents, rtol=0, atol=0)


def test_rows_without_any_variance_are_scored():
    model = Flow(**SMALL)
    model.fit(np.ones((40, 3), np.float32), np.ones((10, 3), np.float32), **QUICK)
    scores = model.score_samples(np.array([[1.0, 1.0, 1.0], [1.0, 1.5, 1.0]]))
    assert np.isfinite(scores).all()
    assert scores[1] < scores[0] - 1e4


@pytest.mark.parametrize("architecture", ["realnvp", "nsf"])
def test_a_single_column_that_is_not_normal_is_learnt(architecture):
    rng = np.random.default_rng(0)
    rows = (rng.choice([-3.0, 3.0], size=(1000, 1)) + 0.4 * rng.normal(size=(1000, 1))).astype("float32")
    model = Flow(architecture=architecture, transforms=2)
    model.fit(rows[:800], rows[800:], **QUICK | {"max_epochs": 15, "lr": 3e-2})
    entropy = np.log(2.0) + 0.5 * np.log(2 * np.pi * np.e * 0.4**2)
    assert model.score_samples(rows[800:]).mean() > -entropy - 0.25
    assert model.score_samples([[0.0]])[0] < model.score_samples([[3.0]])[0] - 2.0
    drawn = model.sample(2000, torch.Generator().manual_seed(0)).numpy()
    assert abs(np.abs(drawn).mean() - 3.0) < 0.25


def test_the_original_refuses_a_single_column():
    with pytest.raises(ConfigError, match="at least 2 columns"):
        Flow(input_dim=1, architecture="original")


@pytest.mark.parametrize("architecture", ["realnvp", "nsf"])
def test_duplicated_and_copied_columns_and_few_rows_give_finite_scores(architecture):
    rows = correlated_rows(30, 3)
    copied = np.concatenate([rows, rows[:, :1], -2.0 * rows[:, 1:2]], 1)
    model = Flow(architecture=architecture, whiten=True, **SMALL)
    model.fit(np.repeat(copied, 2, 0), copied, **QUICK)
    assert np.isfinite(model.score_samples(copied)).all()
    broken = copied.copy()
    broken[:, 3] += rows[:, 0].std()
    assert (model.score_samples(broken) < model.score_samples(copied) - 3.0).all()


def test_more_columns_than_rows_are_whitened_with_care():
    rng = np.random.default_rng(0)
    rows, others = rng.normal(size=(2, 40, 100)).astype("float32")
    model = Flow(whiten=True, **SMALL)
    model.prepare(model.as_dataset(rows))
    # Unshrunk, the forty rows would span a space outside of which nothing may lie.
    assert model.score_samples(others).mean() > model.score_samples(rows).mean() - 40.0


def test_integer_columns_are_accepted():
    rows = np.random.default_rng(0).integers(0, 5, size=(300, 3))
    model = Flow(**SMALL)
    model.fit(rows.astype(np.int16), rows.astype(np.uint8), **QUICK | {"max_epochs": 2})
    assert np.isfinite(model.score_samples(rows)).all()


# Dequantisation


def mixed_rows(n=1000, seed=0):
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.normal(size=n), rng.integers(0, 4, size=n) * 0.5]).astype("float32")


def test_only_gridded_columns_get_noise_and_of_one_step():
    seen = []
    model = prepared(mixed_rows())
    np.testing.assert_allclose(model.quantum.numpy(), [0.0, 0.5], rtol=1e-5)
    model._standardized_density = lambda x: seen.append(x) or x.sum(-1)
    rows = torch.from_numpy(mixed_rows())
    for noise in (Noise(0), Noise(1), Noise(0)):
        model.loss(rows, noise=noise)
    given = [model.standardizer.inverse(x) for x in seen]
    torch.testing.assert_close(given[0][:, 0], rows[:, 0], rtol=1e-5, atol=1e-6)
    moved = given[0][:, 1] - rows[:, 1]
    assert -0.2501 < float(moved.min()) < -0.24
    assert 0.24 < float(moved.max()) < 0.2501
    assert not torch.equal(given[0], given[1])
    assert torch.equal(given[0], given[2])


def test_without_dequantisation_nothing_gets_noise():
    model = prepared(mixed_rows(), dequantise=False)
    rows = torch.from_numpy(mixed_rows())
    assert model.quantum.tolist() == [0.0, 0.0]
    assert torch.equal(model.loss(rows, noise=Noise(0)).total, model.loss(rows, noise=Noise(1)).total)


def test_a_count_is_scored_by_its_share_per_step_and_sampled_on_the_grid():
    rng = np.random.default_rng(0)
    rows = rng.choice([0.0, 2.0, 4.0], p=[0.6, 0.3, 0.1], size=(1000, 1)).astype("float32")
    model = Flow(architecture="nsf", transforms=2)
    model.fit(rows[:800], rows[800:], **QUICK | {"max_epochs": 15, "lr": 3e-2})
    found = np.exp(model.score_samples([[0.0], [2.0], [4.0]])) * 2.0
    np.testing.assert_allclose(found, [0.6, 0.3, 0.1], rtol=0.35)
    drawn = model.sample(4000, torch.Generator().manual_seed(0)).numpy()
    assert set(np.unique(drawn)) >= {0.0, 2.0, 4.0}
    assert (drawn % 2.0 == 0.0).all()
    assert (drawn == 0.0).mean() == pytest.approx(0.6, abs=0.1)


# Sampling


def test_samples_have_the_moments_of_the_data_and_follow_the_generator():
    rows = correlated_rows(1000, 3)
    model = Flow(architecture="nsf", **SMALL)
    model.fit(rows, **QUICK | {"max_epochs": 3})
    drawn = [model.sample(4000, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    np.testing.assert_allclose((drawn[0].numpy().mean(0) - rows.mean(0)) / rows.std(0), 0.0, atol=0.2)
    np.testing.assert_allclose(np.corrcoef(drawn[0].numpy().T), np.corrcoef(rows.T), atol=0.15)
    assert model.sample(0).shape == (0, 3)
    with pytest.raises(ConfigError, match="at least 0"):
        model.sample(-1)


# The original


def original_state(columns=5, width=7, layers=3, seed=0):
    """A state dict with the original's keys."""
    generator = torch.Generator().manual_seed(seed)
    state = {"prior_mean": torch.zeros(columns), "prior_std": torch.ones(columns)}
    for layer in range(layers):
        mask = torch.arange(columns) % 2 == layer % 2
        given = int(mask.sum())
        state[f"coupling_layers.{layer}.mask"] = mask.float()
        for net in ("scale_net", "translate_net"):
            sizes = [given, width, width, columns - given]
            for place in range(3):
                name = f"coupling_layers.{layer}.{net}.network.{2 * place}"
                state[f"{name}.weight"] = 0.5 * torch.randn(sizes[place + 1], sizes[place], generator=generator)
                state[f"{name}.bias"] = 0.1 * torch.randn(sizes[place + 1], generator=generator)
    return state


def published_density(state, x, layers=3):
    """log N(z; 0, I) + sum tanh(s), y = x exp(tanh(s(x_m))) + t(x_m), written again with boolean masks."""
    x, total = x.double().clone(), torch.zeros(len(x), dtype=torch.float64)

    def network(name, h):
        for place in (0, 2, 4):
            h = h @ state[f"{name}.network.{place}.weight"].double().T + state[f"{name}.network.{place}.bias"].double()
            h = h.relu() if place < 4 else h
        return h

    for layer in range(layers):
        stays = state[f"coupling_layers.{layer}.mask"].bool()
        given = x[:, stays]
        scale = torch.tanh(network(f"coupling_layers.{layer}.scale_net", given))
        x[:, ~stays] = x[:, ~stays] * scale.exp() + network(f"coupling_layers.{layer}.translate_net", given)
        total += scale.sum(1)
    return total - 0.5 * (x.square() + np.log(2 * np.pi)).sum(1)


@pytest.mark.parametrize("columns", [2, 5, 6])
def test_weights_of_the_original_give_the_published_density(columns):
    state = original_state(columns)
    model = Flow(**Flow.original_sizes(state))
    model.load_original(state)
    x = 3.0 * torch.randn(40, columns, generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose(model.score_samples(x), published_density(state, x).numpy(), rtol=1e-5, atol=1e-5)


def test_other_weights_and_other_models_are_refused():
    state = original_state()
    with pytest.raises(ConfigError, match="standardize=False"):
        Flow(input_dim=5).load_original(state)
    model = Flow(**Flow.original_sizes(state))
    del state["prior_std"]
    with pytest.raises(ArtifactError, match="prior_std"):
        model.load_original(state)
    with pytest.raises(ArtifactError, match="coupling_layers"):
        Flow.original_sizes({"encoder.weight": torch.zeros(2, 2)})


@pytest.mark.slow
@pytest.mark.skipif("NOUMENA_DATA" not in os.environ, reason="needs the reference data")
def test_the_originals_own_weights_give_its_own_densities():
    folder = Path(os.environ["NOUMENA_DATA"]) / "parity" / "gormpo"
    state = torch.load(folder / "hopper_realnvp_model.pth", weights_only=True)
    model = Flow(**Flow.original_sizes(state))
    model.load_original(state)
    with np.load(folder / "hopper_realnvp_reference.npz", allow_pickle=False) as reference:
        np.testing.assert_allclose(model.score_samples(reference["x"]), reference["log_prob"], rtol=1e-5, atol=1e-5)


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "real_nvp"}, "model.architecture: unknown 'real_nvp'.*realnvp"),
        ({"activation": "sigmoid"}, "model.activation"),
        ({"transforms": 0}, "model.transforms: expected at least 1"),
        ({"bins": 1}, "model.bins: expected at least 2"),
        ({"hidden_dims": (8, 0)}, "model.hidden_dims"),
        ({"architecture": "original", "activation": "silu"}, "has relu"),
        ({"anomaly_fraction": 0.0}, "model.anomaly_fraction"),
    ],
)
def test_impossible_options_are_refused_by_name(options, words):
    with pytest.raises(ConfigError, match=words):
        Flow(**options)


def test_hyperparameters_make_the_same_model_again():
    model = prepared(correlated_rows(), architecture="nsf")
    again = Flow(**model.hyperparameters())
    again.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(again.score_samples(correlated_rows()), model.score_samples(correlated_rows()))
