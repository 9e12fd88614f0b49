import numpy as np
import pytest
import torch
from torch import nn

import noumena
from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.crystals import frozen
from noumena.crystals.boosting import CompositionBoosting, composition_columns
from noumena.crystals.dataset import Crystals
from noumena.crystals.networks.committee import Committee
from noumena.crystals.regression import PropertyHead, errors_of, evaluate_property
from noumena.crystals.vectors import VectorBatch
from tests.crystals.models import small
from tests.crystals.random_cells import made, salt

TARGET = "energy"


def dataset(count=40, seed=0, unknown=()):
    """Crystals whose property is a function of what they are made of."""
    crystals = made(count, seed=seed, names=False)
    light = (crystals.atom_types < 12).double()
    energy = torch.zeros(count, dtype=torch.float64).index_add_(0, crystals.crystal, light) / crystals.num_atoms - 3.0
    energy[list(unknown)] = torch.nan
    return Crystals(crystals, {TARGET: energy}, {TARGET: "eV"})


@pytest.fixture
def autoencoder(monkeypatch):
    model = small(vector_dim=8)
    model.vectors.fit(made(40), epochs=3)
    model.eval()
    monkeypatch.setattr(frozen, "load_trained", lambda path: model)
    return model


def head(**options):
    return PropertyHead(autoencoder="a run", target=TARGET, width=16, members=2, **options)


def fitted(train, **options):
    model = head()
    model.fit(train, max_epochs=30, batch_size=16, lr=1e-2, progress=False, **options)
    return model


def test_a_head_learns_and_the_autoencoder_stays_as_it_is(autoencoder):
    before = {name: weight.clone() for name, weight in autoencoder.state_dict().items()}
    data = dataset()
    model = fitted(data)
    assert model.evaluate(data)["mae"] < 0.7 * float(
        (data.properties[TARGET] - data.properties[TARGET].mean()).abs().mean()
    )
    assert all(torch.equal(model.vae.state_dict()[name], weight) for name, weight in before.items())
    assert not any(weight.requires_grad for weight in model.vae.parameters())
    assert all(weight.grad is None for weight in model.vae.parameters())


def test_the_autoencoder_stays_in_evaluation_mode(autoencoder):
    model = head()
    model.prepare(dataset())
    model.train()
    assert model.head.training
    assert not model.vae.training


def test_a_saved_head_needs_no_autoencoder(autoencoder, monkeypatch, tmp_path):
    data = dataset()
    model = fitted(data)
    model.save(tmp_path / "head")

    def gone(path):
        raise AssertionError("the autoencoder was read again")

    monkeypatch.setattr(frozen, "load_trained", gone)
    again = noumena.load(tmp_path / "head")
    assert torch.equal(again.predict(data), model.predict(data))


def test_crystals_without_the_property_are_left_out(autoencoder):
    data = dataset(unknown=(0, 3, 7))
    model = head()
    model.prepare(data)
    prepared = model.for_training(data)
    assert len(prepared) == len(data) - 3
    expected = data.properties[TARGET][~data.properties[TARGET].isnan()].float()
    torch.testing.assert_close(prepared.batch(torch.arange(len(prepared))).target, expected)
    assert float(model.target_scale.mean[0]) == pytest.approx(float(expected.mean()), abs=1e-6)


def test_prediction_is_in_the_unit_of_the_data_and_order_follows(autoencoder):
    data = dataset()
    model = head()
    model.prepare(data)
    found, spread = model.predict_with_spread(data)
    turned = model.predict(data.subset(torch.arange(len(data)).flip(0)))
    torch.testing.assert_close(turned.flip(0), found, atol=1e-5, rtol=1e-5)
    assert (spread >= 0).all()
    vectors = model.encode(data).mean
    torch.testing.assert_close(model.predict(VectorBatch(vectors, vectors[:, 0])), found)
    with torch.no_grad():
        terms = model.loss(VectorBatch(vectors, data.properties[TARGET].float()))
    assert float(terms.parts["mae"]) == pytest.approx(model.evaluate(data)["mae"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"width": 0}, "model.width"), ({"members": 0}, "model.members"), ({"dropout": 1.0}, "model.dropout")],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        PropertyHead(**options)


def test_no_path_another_model_and_no_fit_are_refused(autoencoder, monkeypatch):
    with pytest.raises(ConfigError, match=r"model\.autoencoder is missing"):
        PropertyHead(target=TARGET).prepare(dataset())
    monkeypatch.setattr(frozen, "load_trained", lambda path: head())
    with pytest.raises(ConfigError, match="expected a crystals/vae"):
        head().prepare(dataset())
    with pytest.raises(ConfigError, match="call fit"):
        head().encode(dataset())
    with pytest.raises(NotSupportedError, match=r"model\.vae"):
        head().decode(torch.zeros(1, 8))


def test_an_unknown_property_and_one_without_values_are_refused(autoencoder):
    with pytest.raises(DataError, match=r"no property 'energi'.*Did you mean 'energy'"):
        PropertyHead(autoencoder="a run", target="energi").prepare(dataset())
    with pytest.raises(DataError, match="none of the 5 crystals"):
        head().prepare(dataset(5, unknown=range(5)))


def test_a_committee_is_its_members_side_by_side():
    torch.manual_seed(0)
    committee = Committee(3, 5, 2, 4, 0.0)
    x = torch.randn(7, 3)
    for member, found in enumerate(committee(x)):
        hidden = x
        for depth, (weight, bias) in enumerate(zip(committee.weights, committee.biases, strict=True)):
            hidden = hidden @ weight[member] + bias[member]
            hidden = nn.functional.silu(hidden) if depth < 2 else hidden
        torch.testing.assert_close(found, hidden[:, 0])


def test_evaluation_compares_with_boosting_and_the_mean(autoencoder):
    train, held = dataset(60), dataset(30, seed=9, unknown=(2,))
    model = fitted(train)
    found = evaluate_property(model, Splits(train, None, held), resamples=50)
    truth = held.properties[TARGET]
    known = ~truth.isnan()
    off = (model.predict(held).double() - truth)[known]
    assert found.metrics["mae"] == pytest.approx(float(off.abs().mean()), rel=1e-5)
    assert found.metrics["rmse"] == pytest.approx(float(off.square().mean().sqrt()), rel=1e-5)
    constant = float((truth[known] - train.properties[TARGET].mean()).abs().mean())
    assert found.metrics["mean_mae"] == pytest.approx(constant)
    assert found.metrics["mae_low"] <= found.metrics["mae"] <= found.metrics["mae_high"]
    assert (found.metrics["left_out"], found.metrics["crystals"]) == (1, 29)
    assert "boosting_mae" in found.metrics
    without = evaluate_property(model, Splits(train, None, held), baselines=False, resamples=5)
    assert not any(name.startswith("boosting") for name in without.metrics)


def test_errors_are_those_of_their_formulas():
    generator = np.random.default_rng(0)
    truth, found = generator.normal(size=20), generator.normal(size=20)
    errors = errors_of(torch.from_numpy(found), torch.from_numpy(truth))
    assert errors["mae"] == pytest.approx(np.abs(found - truth).mean())
    assert errors["rmse"] == pytest.approx(np.sqrt(((found - truth) ** 2).mean()))
    assert errors["r2"] == pytest.approx(1 - ((found - truth) ** 2).sum() / ((truth - truth.mean()) ** 2).sum())


def test_composition_columns_are_blind_to_structure_and_hold_known_values():
    columns = composition_columns(salt())
    np.testing.assert_array_equal(columns, composition_columns(salt(length=5.0)))
    assert columns[0, 10] == columns[0, 16] == 0.5  # shares of sodium and chlorine
    assert columns[0, 118] == 14.0  # mean atomic number of 11 and 17
    assert columns[0, 118 + 3 * 17] == 6.0  # and their range


def test_boosting_learns_from_composition():
    data = dataset(100)
    model = CompositionBoosting(iterations=20, rate=0.3).fit(data.crystals, data.properties[TARGET])
    off = model.predict(data.crystals) - data.properties[TARGET]
    assert float(off.abs().mean()) < 0.1
