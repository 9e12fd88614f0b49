import logging
import os
import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.core.posterior import DiagonalGaussian
from noumena.density.flow import Flow
from noumena.density.gormpo.importing import import_gormpo
from noumena.density.model import VAE
from noumena.registry import family, resolve

COLUMNS, WIDTHS, LATENT = 5, (7, 6), 3
METADATA = {
    "threshold": np.float32(-2.5),
    "input_dim": COLUMNS,
    "latent_dim": LATENT,
    "hidden_dims": list(WIDTHS),
    "device": "cuda:1",
    "mean": -1.25,
    "std": np.float64(0.75),
    "threshold_candidates": {1: -2.5, 5: np.float64(-2.0), 10: -1.5},
}


# The original's files and formulas, from their description


def vae_state(columns=COLUMNS, widths=WIDTHS, latent=LATENT, seed=0):
    rng = np.random.default_rng(seed)
    encoder, decoder = (columns, *widths), (latent, *widths[::-1], columns)
    layers = {f"encoder.encoder.{2 * i}": (encoder[i + 1], encoder[i]) for i in range(len(widths))}
    layers |= {"encoder.fc_mu": (latent, encoder[-1]), "encoder.fc_logvar": (latent, encoder[-1])}
    layers |= {f"decoder.decoder.{2 * i}": (decoder[i + 1], decoder[i]) for i in range(len(decoder) - 1)}
    return _drawn(layers, rng)


def flow_state(columns=COLUMNS, widths=(6, 4), layers=3, seed=0):
    rng = np.random.default_rng(seed)
    state = {"prior_mean": torch.zeros(columns), "prior_std": torch.ones(columns)}
    for number in range(layers):
        mask = (np.arange(columns) % 2 == number % 2).astype(np.float32)
        sizes = (int(mask.sum()), *widths, columns - int(mask.sum()))
        state[f"coupling_layers.{number}.mask"] = torch.from_numpy(mask)
        for net in ("scale_net", "translate_net"):
            prefix = f"coupling_layers.{number}.{net}.network"
            state |= _drawn({f"{prefix}.{2 * i}": (sizes[i + 1], sizes[i]) for i in range(len(sizes) - 1)}, rng)
    return state


def _drawn(layers, rng):
    state = {}
    for name, (out, given) in layers.items():
        state[f"{name}.weight"] = torch.from_numpy(rng.normal(size=(out, given)).astype(np.float32) / given**0.5)
        state[f"{name}.bias"] = torch.from_numpy(rng.normal(size=out).astype(np.float32) * 0.3)
    return state


def apply(state, prefix, count, x):
    """Linear layers of a state with ReLU between them, in float64."""
    for i in range(count):
        weight, bias = (state[f"{prefix}.{2 * i}.{part}"].double().numpy() for part in ("weight", "bias"))
        x = x @ weight.T + bias
        x = np.maximum(x, 0.0) if i < count - 1 else x
    return x


def encode(state, x):
    h = np.maximum(apply(state, "encoder.encoder", len(WIDTHS), x), 0.0)
    heads = ("encoder.fc_mu", "encoder.fc_logvar")
    return [h @ state[f"{name}.weight"].double().numpy().T + state[f"{name}.bias"].double().numpy() for name in heads]


def log_prob(state, x):
    total = np.zeros(len(x))
    for number in range(3):
        mask = state[f"coupling_layers.{number}.mask"].numpy() == 1
        prefix = f"coupling_layers.{number}"
        scale = np.tanh(apply(state, f"{prefix}.scale_net.network", 3, x[:, mask]))
        shift = apply(state, f"{prefix}.translate_net.network", 3, x[:, mask])
        y = x.copy()
        y[:, ~mask] = x[:, ~mask] * np.exp(scale) + shift
        x, total = y, total + scale.sum(1)
    return total - 0.5 * (x**2).sum(1) - 0.5 * x.shape[1] * np.log(2 * np.pi)


def rows(n=20, columns=COLUMNS, seed=1):
    return np.random.default_rng(seed).normal(size=(n, columns)).astype(np.float32)


def write(folder, state, metadata=None, base="hopper"):
    """The files of a model; the path without their endings."""
    torch.save(state, folder / f"{base}_model.pth")
    if metadata is not None:
        (folder / f"{base}_meta_data.pkl").write_bytes(pickle.dumps(metadata))
    return folder / base


class Fixed:
    """Noise that was recorded."""

    def __init__(self, eps):
        self.eps = eps

    def normal_like(self, _):
        return self.eps


# What a model computes


def test_a_vae_computes_what_the_original_does(tmp_path):
    state, x = vae_state(), rows()
    model = import_gormpo(write(tmp_path, state, METADATA))
    assert isinstance(model, VAE)
    assert not model.training
    mu, logvar = encode(state, x.astype(np.float64))
    with torch.inference_mode():
        posterior = model.encode(torch.from_numpy(x))
        assert isinstance(posterior, DiagonalGaussian)
        assert np.allclose(posterior.mean, mu, atol=1e-5)
        assert np.allclose(posterior.log_var, logvar, atol=1e-5)
        decoded = apply(state, "decoder.decoder", len(WIDTHS) + 1, mu)
        assert np.allclose(model.decode(torch.from_numpy(mu)), decoded, atol=1e-5)
    assert np.allclose(model.score_samples(x), -((x - decoded) ** 2).sum(1), rtol=1e-5, atol=1e-5)


def test_the_terms_of_the_loss_are_the_originals(tmp_path):
    state, x = vae_state(), rows()
    model = import_gormpo(write(tmp_path, state, METADATA))
    eps = rows(columns=LATENT, seed=2)
    mu, logvar = encode(state, x.astype(np.float64))
    z = mu + eps * np.exp(0.5 * logvar)
    squares = ((x - apply(state, "decoder.decoder", len(WIDTHS) + 1, z)) ** 2).sum(1).mean()
    kl = -0.5 * (1 + logvar - mu**2 - np.exp(logvar)).sum(1).mean()
    terms = model.loss(torch.from_numpy(x), noise=Fixed(torch.from_numpy(eps)), beta_scale=2.0)
    expected = [squares + 2.0 * kl, squares, kl]
    found = dict(zip(terms.names(), terms.vector().tolist(), strict=True))
    assert found == pytest.approx({"loss": expected[0], "reconstruction": expected[1], "kl": expected[2]}, rel=1e-5)


def test_a_realnvp_has_the_originals_log_densities(tmp_path):
    state, x = flow_state(), rows()
    model = import_gormpo(write(tmp_path, state, {"threshold": -9.5, "input_dim": COLUMNS, "num_layers": 3}))
    assert isinstance(model, Flow)
    assert np.allclose(model.score_samples(x), log_prob(state, x.astype(np.float64)), rtol=1e-5, atol=1e-5)
    assert float(model.threshold) == -9.5
    assert model.predict_anomaly(x).tolist() == (model.score_samples(x) < -9.5).tolist()


@pytest.mark.parametrize("state", [vae_state(), flow_state()], ids=["vae", "realnvp"])
def test_a_model_saved_here_computes_the_same_and_keeps_what_the_metadata_say(tmp_path, state):
    model = import_gormpo(write(tmp_path, state, {**METADATA, "latent_dim": None, "hidden_dims": None}), actions=2)
    model.save(tmp_path / "saved")
    again = noumena.load(tmp_path / "saved")
    assert np.array_equal(again.score_samples(rows()), model.score_samples(rows()))
    assert float(again.threshold) == -2.5
    assert again.schema == model.schema
    assert again.schema["gormpo"] == {
        "name": "hopper",
        "score_mean": -1.25,
        "score_std": 0.75,
        "threshold": -2.5,
        "threshold_candidates": {"1": -2.5, "5": -2.0, "10": -1.5},
    }
    assert again.schema["columns"] == ["next_obs_0", "next_obs_1", "next_obs_2", "action_0", "action_1"]


def test_the_kind_is_told_by_the_weights_not_by_the_path(tmp_path):
    assert isinstance(import_gormpo(write(tmp_path, flow_state(), base="my_vae")), Flow)
    assert isinstance(import_gormpo(write(tmp_path, vae_state(), base="realnvp_run")), VAE)


def test_rows_are_those_of_a_table_unless_the_actions_are_told(tmp_path):
    base = write(tmp_path, vae_state(), METADATA)
    assert import_gormpo(base).schema["kind"] == "table"
    assert import_gormpo(base, actions=2).schema["row"] == "next_observation+action"
    for wrong in (0, COLUMNS, -1):
        with pytest.raises(ConfigError, match=rf"actions: expected 1 to 4 of the 5 columns of a row, got {wrong}"):
            import_gormpo(base, actions=wrong)


def test_further_training_goes_on_from_the_weights(tmp_path):
    model = import_gormpo(write(tmp_path, vae_state(), METADATA))
    before = model.score_samples(rows())
    model.fit(rows(200), rows(400, seed=3), max_epochs=1, batch_size=50, lr=1e-6, progress=False)
    assert np.allclose(model.score_samples(rows()), before, rtol=1e-3)
    assert not np.array_equal(model.score_samples(rows()), before)
    assert model.calibration_rows == 200


def test_the_family_offers_the_importer():
    assert resolve(family("density").importers["gormpo"]) is import_gormpo


# Finding the files


def test_base_either_file_and_folder_name_the_same_model(tmp_path):
    base = write(tmp_path, vae_state(), METADATA)
    expected = import_gormpo(base).score_samples(rows())
    for path in (f"{base}_model.pth", f"{base}_meta_data.pkl", tmp_path, str(tmp_path) + "/"):
        model = import_gormpo(path)
        assert float(model.threshold) == -2.5
        assert np.array_equal(model.score_samples(rows()), expected)


def test_a_folder_of_several_models_asks_for_one(tmp_path):
    write(tmp_path, vae_state(), base="a")
    write(tmp_path, vae_state(), base="b")
    with pytest.raises(ArtifactError, match=r"expected one file \*_model.pth in the folder, found 2 \(a, b\)"):
        import_gormpo(tmp_path)


def test_a_path_without_a_model_is_refused_with_those_that_are_there(tmp_path):
    write(tmp_path, vae_state(), base="hopper_vae")
    with pytest.raises(ArtifactError, match=r"hoper: expected a folder.*Models there: hopper_vae"):
        import_gormpo(tmp_path / "hoper")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"empty: expected one file .* found none"):
        import_gormpo(tmp_path / "empty")
    (tmp_path / "empty" / "x_meta_data.pkl").write_bytes(pickle.dumps(METADATA))
    with pytest.raises(ArtifactError, match=r"its weights x_model\.pth are not beside it"):
        import_gormpo(tmp_path / "empty" / "x_meta_data.pkl")


def test_without_metadata_there_is_a_model_and_no_threshold(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="noumena"):
        model = import_gormpo(write(tmp_path, vae_state()))
    assert "hopper_meta_data.pkl: is not there, so the model has no threshold" in caplog.text
    with pytest.raises(NotSupportedError, match="no threshold is set"):
        model.predict(rows())
    model.calibrate(rows(200))
    assert set(model.predict(rows())) <= {1, -1}


def test_a_vaes_threshold_is_told_to_be_of_other_scores(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="noumena"):
        import_gormpo(write(tmp_path, vae_state(), METADATA))
    assert "made of scores with a latent drawn at random" in caplog.text


def test_other_families_are_refused_with_what_to_do(tmp_path):
    (tmp_path / "kde.faiss").write_bytes(b"index")
    for path in (tmp_path / "kde", tmp_path / "kde.faiss", tmp_path):
        with pytest.raises(NotSupportedError, match=r"is the index of a KDE.*Fit density/knn"):
            import_gormpo(path)
    base = write(tmp_path, {"odefunc.net.0.weight": torch.zeros(2, 2)}, base="ode")
    with pytest.raises(NotSupportedError, match=r"odefunc.net.0.weight, .* Train a flow in its place"):
        import_gormpo(base)


# Files that are wrong


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoder.fc_logvar.bias": None}, "'encoder.fc_logvar.bias' is missing"),
        ({"encoder.extra": torch.zeros(2)}, "'encoder.extra' is unknown"),
        ({"encoder.fc_mu.weight": torch.zeros(3, 9)}, r"'encoder.fc_mu.weight' has shape \(3, 9\), .* say \(3, 6\)"),
        ({"decoder.decoder.4.bias": torch.zeros(4)}, r"'decoder.decoder.4.bias' has shape \(4,\), .* say \(5,\)"),
        ({"encoder.encoder.0.weight": torch.zeros(7)}, r"expected a matrix 'encoder.encoder.0.weight'; its shape is"),
        ({"encoder.encoder.0.weight": torch.zeros(7, 0)}, r"expected a matrix .* its shape is \(7, 0\)"),
        ({"encoder.fc_mu.bias": torch.tensor([0.0, np.nan, 0.0])}, "'encoder.fc_mu.bias' is not finite throughout"),
        ({"encoder.fc_mu.bias": 3}, "'encoder.fc_mu.bias' is no plain tensor of real numbers"),
        ({"encoder.fc_mu.bias": torch.zeros(3, dtype=torch.int64)}, "'encoder.fc_mu.bias' is no plain tensor"),
        ({"encoder.fc_mu.bias": torch.zeros(1).expand(3)}, "'encoder.fc_mu.bias' is no plain tensor"),
    ],
)
def test_weights_that_contradict_each_other_are_refused(tmp_path, change, message):
    state = {name: tensor for name, tensor in {**vae_state(), **change}.items() if tensor is not None}
    with pytest.raises(ArtifactError, match=rf"hopper_model.pth: .*{message}"):
        import_gormpo(write(tmp_path, state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coupling_layers.1.mask": torch.ones(5)}, "'coupling_layers.1.mask' is no row of zeros and 2 ones"),
        ({"coupling_layers.0.mask": torch.full((5,), 0.6)}, "'coupling_layers.0.mask' is no row of zeros and 3 ones"),
        ({"prior_std": torch.zeros(5)}, "'prior_std' is not above 0"),
        ({"prior_std": None}, "prior_std"),
        ({"coupling_layers.2.translate_net.network.4.bias": torch.zeros(9)}, "translate_net.network.4.bias"),
        ({"coupling_layers.2.scale_net.network.0.weight": None}, "scale_net.network.0.weight'; it is missing"),
        ({"coupling_layers.7.mask": torch.ones(5)}, "coupling_layers.7"),
    ],
)
def test_flows_that_contradict_themselves_are_refused(tmp_path, change, message):
    state = {name: tensor for name, tensor in {**flow_state(), **change}.items() if tensor is not None}
    with pytest.raises(ArtifactError, match=rf"hopper_model.pth: .*{message}"):
        import_gormpo(write(tmp_path, state))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 4}, r"says latent_dim=4, the tensors of hopper_model.pth have 3. It belongs to other weights"),
        ({"hidden_dims": [7, 5]}, r"says hidden_dims=\[7, 5\]"),
        ({"hidden_dims": {"a": {}}}, "says hidden_dims=a dict"),
        ({"threshold": "low"}, "'threshold': expected a number, found a str"),
        ({"threshold": True}, "'threshold': expected a number"),
        ({"threshold": np.zeros(2)}, "'threshold': expected a number, found a ndarray"),
        ({"threshold_candidates": [1, 2]}, "'threshold_candidates': expected a dictionary"),
        ({"threshold_candidates": {"one": 1.0}}, "'threshold_candidates': expected a number, found a str"),
        ({1: 2}, "expected a dictionary with 'threshold', ..., found dict"),
    ],
)
def test_metadata_that_cannot_be_are_refused(tmp_path, change, message):
    with pytest.raises(ArtifactError, match=rf"hopper_meta_data.pkl: .*{message}"):
        import_gormpo(write(tmp_path, vae_state(), {**METADATA, **change}))


def test_metadata_without_sizes_as_of_old_files_are_enough(tmp_path):
    model = import_gormpo(write(tmp_path, vae_state(), {"threshold": -3.0}))
    assert model.hidden_dims == WIDTHS
    assert float(model.threshold) == -3.0


def test_scores_that_are_not_finite_are_left_out_with_a_word(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="noumena"):
        model = import_gormpo(write(tmp_path, vae_state(), {**METADATA, "threshold": np.float32("nan"), "extra": 1}))
    assert np.isnan(float(model.threshold))
    assert "'threshold' is nan and is not taken over" in caplog.text
    assert "not taken over: 'extra'" in caplog.text
    assert "threshold" not in model.schema["gormpo"]


class Planted:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_code_in_either_file_is_refused_by_name_and_not_run(tmp_path):
    marker = str(tmp_path / "ran")
    base = write(tmp_path, vae_state(), {**METADATA, "device": Planted(marker)})
    with pytest.raises(ArtifactError, match=r"hopper_meta_data.pkl: the pickle asks for posix.mkdir"):
        import_gormpo(base)
    base = write(tmp_path, {**vae_state(), "extra": Planted(marker)}, METADATA)
    with pytest.raises(ArtifactError, match=r"hopper_model.pth: .*it asks for posix.mkdir. It was not loaded"):
        import_gormpo(base)
    assert not Path(marker).exists()


def test_damaged_weights_are_refused_in_words(tmp_path):
    base = write(tmp_path, vae_state(), METADATA)
    file = tmp_path / "hopper_model.pth"
    content = file.read_bytes()
    rng = np.random.default_rng(0)
    cut = [content[:n] for n in (0, 1, 100, len(content) // 2, len(content) - 1)]
    garbage = [b"hello", pickle.dumps([1], 2), pickle.dumps({"a": 1}, 2), rng.bytes(500)]
    for wrong in (*cut, *garbage):
        file.write_bytes(wrong)
        with pytest.raises(ArtifactError, match=r"hopper_model.pth: "):
            import_gormpo(base)
    for place in rng.choice(len(content), 150, replace=False):
        changed = bytearray(content)
        changed[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(bytes(changed))
        # A bit of a number may change unseen; nothing else may happen than a model or an error in words.
        with suppress(ArtifactError, NotSupportedError):
            import_gormpo(base)


# The original's own files


@pytest.fixture
def parity():
    if "NOUMENA_DATA" not in os.environ:
        pytest.skip("NOUMENA_DATA names no data folder")
    return Path(os.environ["NOUMENA_DATA"]) / "parity" / "gormpo"


@pytest.mark.slow
def test_a_real_vae_agrees_with_what_the_original_computed(parity):
    model = import_gormpo(parity / "hopper_vae", actions=3)
    with np.load(parity / "hopper_vae_reference.npz") as file:
        reference = {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}
    x = reference["x"]
    near = {"rtol": 1e-5, "atol": 1e-5}
    with torch.inference_mode():
        posterior = model.encode(x)
        assert isinstance(posterior, DiagonalGaussian)
        torch.testing.assert_close(posterior.mean, reference["mu"], **near)
        torch.testing.assert_close(posterior.log_var, reference["logvar"], **near)
        torch.testing.assert_close(posterior.sample(noise=reference["eps"]), reference["z"], **near)
        torch.testing.assert_close(model.decode(reference["mu"]), reference["reconstruction_of_mu"], **near)
        torch.testing.assert_close(model.decode(reference["z"]), reference["reconstruction_of_z"], **near)
        terms = model.loss(x, noise=Fixed(reference["eps"]), beta_scale=2.0).vector()
    torch.testing.assert_close(terms.double(), reference["loss_beta2"], **near)
    assert np.allclose(model.score_samples(x), reference["score_of_mu"], **near)
    assert float(model.threshold) == float(reference["threshold"])


@pytest.mark.slow
def test_a_real_realnvp_agrees_with_what_the_original_computed(parity):
    model = import_gormpo(parity / "hopper_realnvp")
    with np.load(parity / "hopper_realnvp_reference.npz") as file:
        assert np.allclose(model.score_samples(file["x"]), file["log_prob"], rtol=1e-5, atol=1e-5)
