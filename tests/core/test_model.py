import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.model import LatentModel
from noumena.density.model import VAE
from noumena.density.table import as_table

QUICK = {"max_epochs": 1, "batch_size": 32, "accelerator": "cpu"}


def rows(columns=3, n=64, seed=0):
    return np.random.default_rng(seed).normal(size=(n, columns)).astype("float32")


def small(**changes):
    return VAE(**{"hidden_dims": (8,), "latent_dim": 2, **changes})


class Encoder(LatentModel):
    """A model that can nothing but exist."""


@given(st.integers(1, 12))
@settings(max_examples=10, deadline=None)
def test_sizes_are_inferred_from_the_data(columns):
    model = small()
    assert not model.is_built
    model.prepare(as_table(rows(columns)))
    assert model.is_built
    assert model.input_dim == columns
    assert model.reconstruct(rows(columns)).shape == (64, columns)


def test_a_size_that_contradicts_the_data_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"model\.input_dim: the data have 3, the model was made for 5"):
        small(input_dim=5).prepare(as_table(rows(3)))


def test_data_of_another_width_are_refused_by_a_model_that_was_fitted():
    model = small()
    model.prepare(as_table(rows(3)))
    with pytest.raises(ConfigError, match="the data have 4"):
        model.prepare(as_table(rows(4)))


def test_initial_weights_are_a_function_of_the_seed():
    weights = []
    for seed in (0, 0, 1):
        torch.rand(3)  # what happened before does not matter
        model = small()
        model.prepare(as_table(rows()), seed=seed)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_preparing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    small().prepare(as_table(rows()))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"input_dim": 4, "hidden_dims": [7, 5], "latent_dim": 3, "beta": 0.5, "free_bits": 0.1},
        {"decoder_scale": "fixed", "standardize": False, "activation": "tanh", "anomaly_fraction": 0.2},
        {"hidden_dims": []},
    ],
)
def test_hyperparameters_make_the_same_model_again_after_a_trip_through_json(changes):
    model = small(**changes)
    if not model.is_built:
        model.prepare(as_table(rows()))
    again = VAE(**json.loads(json.dumps(model.hyperparameters())))
    assert again.hyperparameters() == model.hyperparameters()
    again.load_state_dict(model.state_dict())
    x = rows(model.input_dim)
    assert np.array_equal(again.score_samples(x), model.score_samples(x))


def test_an_inferred_size_is_part_of_the_hyperparameters():
    model = small()
    model.prepare(as_table(rows(6)))
    assert model.hyperparameters()["input_dim"] == 6


def test_a_second_fit_continues_from_the_weights_and_the_preprocessing_of_the_first():
    model = small()
    model.fit(rows(), **QUICK)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fit(5 + 3 * rows(seed=1), **QUICK, lr=1e-12)
    after = model.state_dict()
    for name in ("standardizer.mean", "standardizer.scale"):
        assert torch.equal(after[name], before[name])
    for name, value in model.named_parameters():
        torch.testing.assert_close(value.detach(), before[name], rtol=0, atol=1e-9)


def test_fitting_goes_on_improving_from_fit_to_fit():
    x = rows(n=256)
    model = small()
    first = model.fit(x, **QUICK | {"max_epochs": 5}, lr=1e-3)
    second = model.fit(x, **QUICK | {"max_epochs": 5}, lr=1e-3)
    assert second["train_loss"][0] < first["train_loss"][0]
    assert second["train_loss"][-1] < first["train_loss"][-1]


@pytest.mark.parametrize(
    ("use", "alternative"),
    [
        (lambda model: model.sample(1), "use a model with a decoder"),
        (lambda model: model.reconstruct(rows()), "use `encode`"),
        (lambda model: model.score_samples(rows()), "use a model of the density family"),
    ],
)
def test_what_a_model_lacks_is_refused_with_its_name_and_an_alternative(use, alternative):
    with pytest.raises(NotSupportedError, match=f"^Encoder .*{alternative}"):
        use(Encoder())


@pytest.mark.parametrize("verb", ["encode", "reconstruct", "score_samples"])
def test_a_model_without_weights_says_how_it_gets_them(verb):
    with pytest.raises(NotSupportedError, match=r"call fit\(data\)"):
        getattr(small(), verb)(rows())


@pytest.mark.parametrize(
    "use", [lambda model: model.sample(2), lambda model: model.decode(torch.zeros(1, 2)), lambda model: model.device]
)
def test_a_model_without_weights_refuses_to_generate_with_a_readable_error(use):
    with pytest.raises(NotSupportedError, match=r"call fit\(data\)"):
        use(small())
