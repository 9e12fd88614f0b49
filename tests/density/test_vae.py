import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.seeding import Noise
from noumena.density.model import VAE
from noumena.density.noise import row_noise
from noumena.density.table import as_table

QUICK = {"max_epochs": 4, "batch_size": 64, "lr": 3e-3, "accelerator": "cpu"}
ORIGINAL = {"decoder_scale": "fixed", "standardize": False, "activation": "relu"}


def correlated_rows(n=400, columns=5, seed=0):
    """Rows on a plane with a little noise, each column in another unit."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(2, columns))
    rows = rng.normal(size=(n, 2)) @ mixing + 0.1 * rng.normal(size=(n, columns))
    return (rows * 10.0 ** (np.arange(columns) % 3) + np.arange(columns)).astype("float32")


def built(columns, seed=0, **changes):
    torch.manual_seed(seed)
    return VAE(**{"input_dim": columns, "hidden_dims": (16, 8), "latent_dim": 3, **changes})


@pytest.fixture(scope="module")
def trained():
    model = VAE(hidden_dims=(32,), latent_dim=2)
    model.fit(correlated_rows(), correlated_rows(seed=1), **QUICK | {"max_epochs": 30})
    return model


# The published objective, written again from its formula


def published_loss(model, x, eps):
    """Sum of squared errors plus beta times the KL of Kingma & Welling 2014, appendix B, averaged over rows."""
    weights = dict(model.named_parameters())

    def through(prefix, h, layers):
        for i in range(layers):
            h = h @ weights[f"{prefix}.{2 * i}.weight"].T + weights[f"{prefix}.{2 * i}.bias"]
            if i < layers - 1 or prefix == "encoder.trunk":
                h = torch.clamp(h, min=0.0)
        return h

    hidden = len(model.hidden_dims)
    head = through("encoder.trunk", x, hidden) @ weights["encoder.head.weight"].T + weights["encoder.head.bias"]
    mu, logvar = head[:, : model.latent_dim], head[:, model.latent_dim :]
    decoded = through("decoder.net", mu + torch.exp(logvar / 2) * eps, hidden + 1)
    reconstruction = ((x - decoded) ** 2).sum()
    kl = -0.5 * (1 + logvar - mu**2 - torch.exp(logvar)).sum()
    of_mean = through("decoder.net", mu, hidden + 1)
    terms = [reconstruction + model.beta * kl, reconstruction, kl]
    return [term / len(x) for term in terms], -((x - of_mean) ** 2).sum(1)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_original_setting_has_the_loss_gradient_and_score_of_the_published_formula(beta, seed):
    model = built(5, seed, beta=beta, **ORIGINAL).double()
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(37, 5)).astype("float32")).double()
    eps = Noise(seed).normal_like(torch.zeros(37, 3, dtype=torch.float64))
    terms = model.loss(x, noise=Noise(seed))
    expected, score = published_loss(model, x, eps)
    torch.testing.assert_close(
        torch.stack([terms.total, *terms.parts.values()]), torch.stack(expected), rtol=1e-6, atol=1e-9
    )

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(terms.total, parameters)
    expected_gradients = torch.autograd.grad(expected[0], parameters)
    for found, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(model.score_samples(x), score.detach().numpy(), rtol=1e-6)


def test_beta_and_its_schedule_weigh_the_kl_alone():
    x = torch.from_numpy(correlated_rows(50))
    model = built(5, beta=2.0, **ORIGINAL)
    for scale in (0.0, 0.25, 1.0):
        terms = model.loss(x, noise=Noise(0), beta_scale=scale)
        expected = terms.parts["reconstruction"] + 2.0 * scale * terms.parts["kl"]
        torch.testing.assert_close(terms.total, expected)


# The learned scale


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("scoring", ["reconstruction", "elbo"])
def test_the_learned_scale_scores_in_nats_in_the_units_of_the_data(standardize, scoring):
    x = correlated_rows(60)
    model = built(5, standardize=standardize, scoring=scoring)
    if standardize:
        model.standardizer.fit(torch.from_numpy(x))
    with torch.no_grad():
        model.decoder.log_scale.copy_(torch.linspace(-2.0, 1.0, 5))
        unit = model.standardizer.scale if standardize else 1.0
        posterior = model.encode(torch.from_numpy(x))
        likelihood = Normal(model.decode(posterior.mean), model.decoder.log_scale.exp() * unit)
        expected = likelihood.log_prob(torch.from_numpy(x)).sum(1)
        if scoring != "reconstruction":
            prior = Normal(torch.zeros(()), torch.ones(()))
            expected -= kl_divergence(Normal(posterior.mean, posterior.std), prior).sum(1)
    np.testing.assert_allclose(model.score_samples(x), expected.numpy(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("decoder_scale", ["fixed", "learned"])
def test_a_gradient_reaches_every_parameter(decoder_scale, standardize):
    x = torch.from_numpy(correlated_rows(100))
    model = built(5, decoder_scale=decoder_scale, standardize=standardize)
    if standardize:
        model.standardizer.fit(x)
    model.loss(x, noise=Noise(0)).total.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or float(p.grad.abs().sum()) == 0.0]
    assert dead == []


def test_the_learned_scale_converges_to_the_deviation_of_the_noise():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(2000, 1)) * [[0.2, 2.0]]).astype("float32")
    x[:, 1] = rng.normal(size=2000) * 2.0
    model = VAE(hidden_dims=(8,), latent_dim=1, beta=50.0, standardize=False)  # the latent explains nothing
    model.fit(x, **QUICK | {"max_epochs": 40, "lr": 1e-2, "lr_schedule": "cosine"})
    np.testing.assert_allclose(model.decoder.log_scale.detach().exp().numpy(), x.std(0), rtol=0.1)


@pytest.mark.parametrize("standardize", [False, True])
def test_the_importance_score_is_the_likelihood_where_that_is_known(standardize):
    """A decoder with one linear layer is a factor analysis: its likelihood is a Gaussian (Bishop 2006, eq. 12.65)."""
    x = correlated_rows(200)
    model = built(5, hidden_dims=(), draws=512, standardize=standardize).double()
    rows = torch.from_numpy(x).double()
    if standardize:
        model.standardizer.fit(rows)
    scaled = model._standardized(rows)
    with torch.no_grad():
        model.decoder.log_scale.fill_(-0.5)
        weight, bias = model.decoder.net[0].weight, model.decoder.net[0].bias
        noise = torch.exp(2.0 * model.decoder.log_scale)
        known = MultivariateNormal(bias, weight @ weight.T + torch.diag(noise)).log_prob(scaled) + model._log_det
        # The exact posterior: importance weights are then all the same (Bishop 2006, eq. 12.42).
        inner = torch.linalg.inv(torch.eye(3, dtype=torch.float64) + weight.T @ (weight / noise[:, None]))
        gain = inner @ (weight / noise[:, None]).T
        model.encoder.head.weight.copy_(torch.cat([gain, torch.zeros(3, 5)]))
        model.encoder.head.bias.copy_(torch.cat([-gain @ bias, inner.diagonal().log()]))
    score = model.score_samples(x)
    near = known > known.median()
    np.testing.assert_allclose(score[near], known.numpy()[near], rtol=0.01, atol=0.1)
    assert (score <= known.numpy() + 0.2).all()


def test_draws_of_the_posterior_are_the_same_for_every_row_and_batch():
    x = correlated_rows(300, seed=5)
    model = built(5)
    model.standardizer.fit(torch.from_numpy(x))
    for scoring in ("importance", "reconstruction_probability", "original"):
        model.scoring = scoring
        whole = model.score_samples(x)
        np.testing.assert_array_equal(model.score_samples(x[::-1].copy())[::-1], whole)
        np.testing.assert_array_equal(model.score_samples(x[17:18]), whole[17:18])


def test_more_draws_raise_the_importance_score_towards_the_likelihood():
    """Burda et al. 2016, theorem 1."""
    x = correlated_rows(400, seed=2)
    model = VAE(hidden_dims=(16,), latent_dim=2)
    model.fit(x, **QUICK | {"max_epochs": 10})
    means = []
    for draws in (4, 32, 256):
        model.draws, model.scoring = draws, "importance"
        means.append(model.score_samples(x).mean())
    assert means == sorted(means)


def test_the_original_score_of_a_row_is_noisy_as_published_but_its_own():
    rows = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    noise = row_noise(rows, 4)
    assert torch.equal(row_noise(rows.flip(0), 4).flip(0), noise)
    assert float(noise.mean().abs()) < 0.02
    assert float(noise.std() - 1.0) == pytest.approx(0.0, abs=0.02)
    assert float(torch.corrcoef(noise.T).fill_diagonal_(0.0).abs().max()) < 0.05
    moved = rows.clone()
    moved[:, 1] = torch.nextafter(moved[:, 1], torch.tensor(10.0))
    assert float((row_noise(moved, 4) * noise).mean().abs()) < 0.02


# A row's score is its own


@pytest.mark.parametrize("columns", [1, 3, 14])
@pytest.mark.parametrize("widths", [(64, 32), (256, 128), (40,)])
def test_the_score_of_a_row_does_not_depend_on_its_batch(columns, widths):
    check_scores_against_batches(columns, widths)


# Some processors round a narrow matrix product by where in memory a row starts.
@pytest.mark.parametrize(("columns", "widths"), [(14, (64, 33)), (5, (17,)), (14, ())])
def test_the_score_of_a_row_depends_on_its_batch_by_rounding_at_most_for_odd_widths(columns, widths):
    x = np.random.default_rng(columns).normal(size=(1500, columns)).astype("float32")
    model = built(columns, hidden_dims=widths)
    whole = model.score_samples(x)
    for rows in (slice(0, 1), slice(7, 20), slice(1400, 1500), slice(None, None, -1)):
        np.testing.assert_allclose(model.score_samples(x[rows]), whole[rows], rtol=1e-5)


def check_scores_against_batches(columns, widths):
    rng = np.random.default_rng(columns)
    x = rng.normal(size=(1500, columns)).astype("float32")
    model = built(columns, hidden_dims=widths)
    model.standardizer.fit(torch.from_numpy(x))
    whole = model.score_samples(x)
    for size in (1, 2, 3, 7, 31, 48, 100, 511, 512, 513, 1023, 1024, 1025, 1499, 1500):
        assert np.array_equal(model.score_samples(x[:size]), whole[:size]), size
    for row in rng.integers(0, 1500, 40):
        assert model.score_samples(x[row : row + 1])[0] == whole[row]
    for _ in range(5):
        start, stop = np.sort(rng.integers(0, 1501, 2))
        if start < stop:
            assert np.array_equal(model.score_samples(x[start:stop]), whole[start:stop])
        order = rng.permutation(1500)
        assert np.array_equal(model.score_samples(x[order]), whole[order])


def test_the_score_of_a_row_is_the_same_each_time_and_draws_nothing(trained):
    x = correlated_rows(50, seed=3)
    before = torch.get_rng_state()
    assert np.array_equal(trained.score_samples(x), trained.score_samples(x))
    assert torch.equal(before, torch.get_rng_state())


# Far rows and bad rows


@pytest.mark.parametrize("far", [1e20, -1e20, 1e30, 3e38, -3e38, 1e300])
@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("setting", [{}, {"decoder_scale": "fixed"}, ORIGINAL])
def test_a_far_row_is_an_anomaly_and_never_normal(far, everywhere, setting):
    model = VAE(hidden_dims=(16,), latent_dim=2, **setting)
    model.fit(correlated_rows(200), correlated_rows(100, seed=1), **QUICK | {"max_epochs": 1})
    x = correlated_rows(3, seed=2).astype("float64")
    x[1, slice(None) if everywhere else 2] = far
    score = model.score_samples(x)
    assert not np.isnan(score).any()
    assert score[1] < score[[0, 2]].min()
    assert model.predict_anomaly(x)[1]
    assert model.predict(x)[1] == -1


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("use", ["score_samples", "predict", "predict_anomaly", "reconstruct", "encode", "evaluate"])
@pytest.mark.parametrize("kind", ["array", "tensor"])
def test_a_row_that_is_not_finite_is_refused_with_its_place(trained, bad, use, kind):
    x = correlated_rows(10)
    x[6, 3] = bad
    with pytest.raises(DataError, match=r"row 6 .*x_3"):
        getattr(trained, use)(x if kind == "array" else torch.from_numpy(x))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_training_rows_that_are_not_finite_are_refused(bad):
    x = correlated_rows(20)
    x[2, 1] = bad
    with pytest.raises(DataError, match=r"row 2 .*x_1"):
        VAE(hidden_dims=(4,)).fit(x, **QUICK)


def test_rows_of_another_width_are_refused(trained):
    with pytest.raises(DataError, match="column"):
        trained.score_samples(correlated_rows(10, columns=4))


# Constant columns


@pytest.fixture(scope="module")
def with_constants():
    x = correlated_rows(300)
    x[:, 1] = 1234.567
    x[:, 4] = 0.0
    model = VAE(hidden_dims=(16,), latent_dim=2)
    model.fit(x, x[:100], **QUICK | {"max_epochs": 20})
    return model, x


def test_constant_columns_are_reproduced_exactly(with_constants):
    model, x = with_constants
    generator = torch.Generator().manual_seed(0)
    for rows in (model.reconstruct(x), model.sample(50, generator), model.sample(50, generator, noise=True)):
        assert (rows[:, 1] == float(x[0, 1])).all()
        assert (rows[:, 4] == 0.0).all()


@pytest.mark.parametrize("column", [1, 4])
def test_a_constant_column_that_changed_makes_an_anomaly(with_constants, column):
    model, x = with_constants
    normal = x[np.argsort(model.score_samples(x))[-20:]]
    assert not model.predict_anomaly(normal).any()
    changed = normal.copy()
    changed[:, column] += 1.0
    assert model.predict_anomaly(changed).all()


def test_a_constant_column_costs_the_other_columns_nothing(with_constants):
    model, x = with_constants
    moved = x.copy()
    moved[:, 0] += 0.5
    assert not np.array_equal(model.score_samples(moved), model.score_samples(x))
    assert np.isfinite(model.score_samples(x)).all()


def test_a_model_of_only_constant_columns_tells_the_constant_from_everything_else():
    x = np.full((50, 2), 3.0, dtype="float32")
    model = VAE(hidden_dims=(4,), latent_dim=1)
    model.fit(x, x, **QUICK)
    assert model.predict([[3.0, 3.0], [3.0, 3.5]]).tolist() == [1, -1]


# Small and odd data


def test_one_column_is_enough():
    x = np.random.default_rng(0).normal(10.0, 2.0, size=(500, 1)).astype("float32")
    model = VAE(hidden_dims=(16,), latent_dim=1)
    model.fit(x[:400], x[400:], **QUICK | {"max_epochs": 15})
    assert model.predict([[100.0], [-80.0], [10.0]]).tolist() == [-1, -1, 1]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_fewer_rows_than_a_batch_are_enough(rows):
    model = VAE(hidden_dims=(4,), latent_dim=1)
    history = model.fit(correlated_rows(rows), correlated_rows(rows, seed=1), **QUICK)
    assert np.isfinite(history["train_loss"]).all()
    assert np.isfinite(model.score_samples(correlated_rows(3))).all()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64", "bool", "float16", "float64"])
def test_rows_of_any_number_type_score_as_the_same_rows_in_float32(trained, dtype):
    x = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 100, size=(20, 5)).astype(dtype)
    expected = trained.score_samples(x.astype("float32"))
    assert np.array_equal(trained.score_samples(x), expected)
    assert np.array_equal(trained.score_samples(torch.from_numpy(x)), expected)


def test_integers_can_be_trained_on():
    x = np.random.default_rng(0).integers(0, 10, size=(100, 3))
    assert np.isfinite(VAE(hidden_dims=(4,)).fit(x, **QUICK)["train_loss"]).all()


# Thresholds and predictions


@given(st.floats(0.01, 0.99))
@settings(max_examples=40, deadline=None)
def test_the_threshold_leaves_the_wished_share_below_it(trained, fraction):
    x = correlated_rows(300, seed=5)
    threshold = trained.set_threshold(x, fraction)
    below = int((trained.score_samples(x) < threshold).sum())
    assert abs(below - fraction * len(x)) <= 1.0
    assert trained.predict_anomaly(x).sum() == below


def test_fit_calibrates_on_half_of_the_validation_rows_which_choose_no_weights():
    train, val = correlated_rows(), correlated_rows(200, seed=1)
    model = VAE(hidden_dims=(16,), latent_dim=2, anomaly_fraction=0.1)
    model.fit(train, val, **QUICK)
    _, calibration = model.divide_validation(as_table(val))
    assert len(calibration) == model.calibration_rows == 100
    # The tenth of 101 places: so many of the calibration rows lie below the threshold.
    assert model.predict_anomaly(calibration).sum() == 9
    np.testing.assert_array_equal(np.sort(model.score_samples(calibration)), model.calibration.numpy())
    assert (model.p_value(calibration) > 0.1).sum() == 91


def test_without_a_threshold_a_prediction_is_refused_with_the_remedy():
    model = VAE(hidden_dims=(4,))
    model.fit(correlated_rows(50), **QUICK)
    with pytest.raises(NotSupportedError, match="calibrate"):
        model.predict(correlated_rows(5))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_outside_zero_and_one_is_refused(trained, fraction):
    with pytest.raises(ConfigError, match="anomaly_fraction"):
        trained.set_threshold(correlated_rows(20), fraction)


def test_predictions_scores_and_threshold_agree(trained):
    x = np.concatenate([correlated_rows(200, seed=4), 20 * correlated_rows(50, seed=6)])
    threshold = trained.set_threshold(correlated_rows(200, seed=1), 0.05)
    scores = trained.score_samples(x)
    anomaly = trained.predict_anomaly(x)
    assert np.array_equal(anomaly, scores < threshold)
    assert np.array_equal(trained.is_anomaly(scores), anomaly)
    assert np.array_equal(trained.predict(x), np.where(anomaly, -1, 1))
    assert anomaly[200:].mean() > anomaly[:200].mean()


def test_scores_that_are_no_numbers_are_anomalies(trained):
    trained.set_threshold(correlated_rows(200, seed=1), 0.05)
    assert trained.is_anomaly(np.array([np.nan, -np.inf, np.inf])).all()


# Generation


@pytest.mark.parametrize("noise", [False, True])
def test_samples_are_a_function_of_the_generator(trained, noise):
    before = torch.get_rng_state()
    first, again, other = (trained.sample(20, torch.Generator().manual_seed(seed), noise=noise) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_samples_with_noise_have_the_spread_of_the_data(trained):
    samples = trained.sample(4000, torch.Generator().manual_seed(0), noise=True).numpy()
    data = correlated_rows(4000, seed=8)
    np.testing.assert_allclose(samples.std(0), data.std(0), rtol=0.35)


def test_noise_has_the_deviation_that_the_score_assumes():
    model = built(2, standardize=False)
    with torch.no_grad():
        model.decoder.log_scale.copy_(torch.tensor([-9.0, 0.5]))  # below the least scale, and ordinary
        means = model.sample(20_000, torch.Generator().manual_seed(0))
        noisy = model.sample(20_000, torch.Generator().manual_seed(0), noise=True)
        residual = (noisy - means).double()
        zero = torch.zeros(1, 2)
        peak = model.decoder.log_prob(zero, zero, None).item()
    # The density of a normal distribution at its mean is prod 1/(sqrt(2 pi) std).
    assert peak == pytest.approx(-float(residual.std(0).log().sum()) - float(np.log(2 * np.pi)), abs=0.05)


def test_no_samples_are_an_empty_table_and_a_negative_number_is_refused(trained):
    assert trained.sample(0).shape == (0, 5)
    with pytest.raises(ConfigError, match="-1"):
        trained.sample(-1)


def test_a_trained_model_reconstructs_better_than_the_mean_and_worse_what_it_never_saw(trained):
    x = correlated_rows(200, seed=4)
    error = np.abs(trained.reconstruct(x).numpy() - x).mean(0)
    assert (error < np.abs(x - x.mean(0)).mean(0)).all()
    strange = np.random.default_rng(0).permuted(x, axis=0)  # the same columns without their correlation
    assert trained.score_samples(strange).mean() < trained.score_samples(x).mean()


# Saving


def test_a_saved_model_keeps_threshold_schema_and_scores_to_the_bit(trained, tmp_path):
    x = correlated_rows(700, seed=4)
    trained.set_threshold(correlated_rows(200, seed=1), 0.03)
    trained.save(tmp_path / "model")
    loaded = noumena.load(tmp_path / "model")
    assert isinstance(loaded, VAE)
    assert float(loaded.threshold) == float(trained.threshold)
    assert loaded.schema == trained.schema
    assert loaded.data_fingerprint == trained.data_fingerprint
    assert loaded.hyperparameters() == trained.hyperparameters()
    assert np.array_equal(loaded.score_samples(x), trained.score_samples(x))
    assert np.array_equal(loaded.predict(x), trained.predict(x))
    generators = (torch.Generator().manual_seed(0) for _ in range(2))
    assert torch.equal(loaded.sample(9, next(generators)), trained.sample(9, next(generators)))


# Options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("input_dim", 0),
        ("hidden_dims", [8, 0]),
        ("hidden_dims", [-1]),
        ("latent_dim", 0),
        ("beta", -0.1),
        ("beta", float("nan")),
        ("beta", float("inf")),
        ("free_bits", -1.0),
        ("free_bits", float("nan")),
        ("decoder_scale", "leaned"),
        ("activation", "rellu"),
        ("anomaly_fraction", 0.0),
        ("anomaly_fraction", 1.0),
        ("anomaly_fraction", float("nan")),
    ],
)
def test_a_hyperparameter_out_of_range_is_refused_by_its_name(name, value):
    with pytest.raises(ConfigError, match=rf"model\.{name}"):
        VAE(**{name: value})


@pytest.mark.parametrize("splits", [1, 2, 3])
def test_the_history_has_one_entry_per_epoch_for_each_term_of_each_split(splits):
    parts = [correlated_rows(100, seed=seed) for seed in range(splits)]
    history = VAE(hidden_dims=(4,), latent_dim=1).fit(*parts, **QUICK)
    assert history.epochs == QUICK["max_epochs"]
    for number, split in enumerate(("train", "val", "test")):
        for term in ("loss", "reconstruction", "kl"):
            name = f"{split}_{term}"
            assert (name in history) == (number < splits)
            if number < splits:
                assert len(history[name]) == QUICK["max_epochs"]
    for total, reconstruction, kl in zip(
        history["train_loss"], history["train_reconstruction"], history["train_kl"], strict=True
    ):
        assert total == pytest.approx(reconstruction + kl, rel=1e-5)


def test_evaluation_is_deterministic_and_agrees_with_the_scores(trained):
    x = correlated_rows(100, seed=4)
    metrics = trained.evaluate(x)
    assert metrics == trained.evaluate(x)
    assert metrics["loss"] == pytest.approx(metrics["reconstruction"] + metrics["kl"], rel=1e-5)
    assert metrics["score_mean"] == pytest.approx(trained.score_samples(x).mean())
    assert metrics["active_units"] == 2.0


# Parity with the published system


@pytest.fixture(scope="module")
def original():
    folder = os.environ.get("NOUMENA_DATA")
    if not folder:
        pytest.skip("NOUMENA_DATA does not name the folder of the reference data")
    place = Path(folder) / "parity" / "gormpo"
    state = torch.load(place / "hopper_vae_model.pth", map_location="cpu", weights_only=True)
    with np.load(place / "hopper_vae_reference.npz", allow_pickle=False) as file:
        reference = {name: torch.from_numpy(file[name]) for name in file.files}
    model = VAE(
        input_dim=14, hidden_dims=[256, 128], latent_dim=8, decoder_scale="fixed", standardize=False, beta=2.0
    ).eval()
    translated = {"threshold": model.threshold}
    for kind in ("weight", "bias"):
        for layer in (0, 2):
            translated[f"encoder.trunk.{layer}.{kind}"] = state[f"encoder.encoder.{layer}.{kind}"]
        translated[f"encoder.head.{kind}"] = torch.cat(
            [state[f"encoder.fc_mu.{kind}"], state[f"encoder.fc_logvar.{kind}"]]
        )
        for layer in (0, 2, 4):
            translated[f"decoder.net.{layer}.{kind}"] = state[f"decoder.decoder.{layer}.{kind}"]
    model.load_state_dict(translated)
    return model, reference


class RecordedNoise(Noise):
    """The noise that the original drew."""

    def __init__(self, eps):
        super().__init__(0)
        self.eps = eps

    def normal_like(self, x):
        return self.eps


@pytest.mark.slow
def test_posterior_and_decoding_are_those_of_the_published_system(original):
    model, reference = original
    with torch.no_grad():
        posterior = model.encode(reference["x"])
        decoded = model.decode(posterior.mean)
    torch.testing.assert_close(posterior.mean, reference["mu"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posterior.log_var, reference["logvar"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posterior.sample(noise=reference["eps"]), reference["z"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(decoded, reference["reconstruction_of_mu"], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_loss_terms_on_the_recorded_noise_are_those_of_the_published_system(original):
    model, reference = original
    with torch.no_grad():
        terms = model.loss(reference["x"], noise=RecordedNoise(reference["eps"]))
    torch.testing.assert_close(terms.vector(), reference["loss_beta2"].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_scores_are_those_of_the_published_system(original):
    model, reference = original
    np.testing.assert_allclose(model.score_samples(reference["x"]), reference["score_of_mu"], rtol=1e-5, atol=1e-5)
