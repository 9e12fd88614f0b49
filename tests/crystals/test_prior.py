import itertools
import math
import shutil

import pytest
import torch

import noumena
from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.seeding import Noise
from noumena.crystals.generator import CrystalPrior
from noumena.crystals.networks.flow import Velocity
from noumena.crystals.networks.formula import Formula
from noumena.crystals.networks.packing import Packing
from noumena.crystals.separation import separated
from tests.crystals.models import ORIGINAL, crystals, real, small

TINY = {"width": 16, "layers": 1, "heads": 2, "formula_width": 16, "formula_layers": 1, "formula_heads": 2, "steps": 3}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    """The folder of a small autoencoder that has seen data, and the data."""
    data = real(20, most=8)
    model = small(max_atoms=8, vector_dim=0)
    model.prepare(data)
    model.after_fit(data, None)
    folder = tmp_path_factory.mktemp("autoencoder") / "model"
    model.save(folder)
    return folder, data


@pytest.fixture(scope="module")
def prior(autoencoder):
    folder, data = autoencoder
    model = CrystalPrior(autoencoder=str(folder), **TINY)
    model.fit(data, max_epochs=2, batch_size=10, lr=1e-2, seed=0, progress=False)
    return model.eval()


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


def test_atoms_of_samples_are_separated_unless_that_is_not_wanted(prior):
    raw = prior.sample(8, draw(), separate=False)
    expected = separated(raw)
    assert expected.moved.any()
    found = prior.sample(8, draw())
    torch.testing.assert_close(found.frac_coords, expected.crystals.frac_coords)
    torch.testing.assert_close(found.lattice, expected.crystals.lattice)


# Elements


def formula(species=4, rank=(0, 3, 1, 2)):
    torch.manual_seed(0)
    return Formula(species, 16, 1, 2, torch.tensor(rank)).double().eval()


@pytest.mark.parametrize("size", [1, 2, 4])
def test_probabilities_of_all_multisets_of_a_size_add_up_to_one(size):
    model = formula()
    multisets = list(itertools.combinations_with_replacement((2, 3, 1), size))  # by rank
    types = torch.tensor(multisets).flatten()
    with torch.no_grad():
        found = model.log_prob(types, torch.full((len(multisets),), size))
    assert math.isclose(found.exp().sum().item(), 1.0, rel_tol=1e-9)


def test_elements_are_drawn_as_often_as_their_probability_says():
    model, n = formula(), 6000
    types = model.sample(torch.full((n,), 2), draw())
    assert torch.equal(model.ordered(types, torch.arange(n).repeat_interleave(2)), torch.arange(2 * n))
    pairs = types.view(n, 2)
    for pair in itertools.combinations_with_replacement((2, 3, 1), 2):
        expected = model.log_prob(torch.tensor(pair), torch.tensor([2])).exp().item()
        share = (pairs == torch.tensor(pair)).all(1).double().mean().item()
        assert abs(share - expected) < 5 * math.sqrt(expected * (1 - expected) / n)


def test_log_probability_of_elements_does_not_depend_on_the_batch_or_the_order_given():
    model = formula()
    types, sizes = torch.tensor([1, 2, 3, 1, 3, 3, 2]), torch.tensor([3, 1, 3])
    order = model.ordered(types, torch.repeat_interleave(torch.arange(3), sizes))
    whole = model.log_prob(types[order], sizes)
    for number, part in enumerate(types.split(sizes.tolist())):
        for arrangement in set(itertools.permutations(part.tolist())):
            given = torch.tensor(arrangement)
            rows = model.ordered(given, torch.zeros(len(given)).long())
            alone = model.log_prob(given[rows], torch.tensor([len(given)]))
            torch.testing.assert_close(alone[0], whole[number], rtol=0, atol=1e-12)


# Velocity


def test_velocity_follows_the_order_of_the_atoms_and_sees_one_crystal_only():
    torch.manual_seed(0)
    model = Velocity(4, 10, 16, 2, 2).double()
    for weight in model.parameters():  # gates start at zero, which would hide everything
        torch.nn.init.normal_(weight, std=0.3)
    sizes = torch.tensor([5, 3])
    z, types, time = torch.randn(10, 4).double(), torch.randint(1, 10, (8,)), torch.tensor([0.3, 0.8]).double()
    found = model(z, time, types, Packing(sizes, cells=True))
    order = torch.cat([torch.randperm(5), 5 + torch.randperm(3), torch.tensor([8, 9])])
    shuffled = model(z[order], time, types[order[:8]], Packing(sizes, cells=True))
    torch.testing.assert_close(shuffled, found[order], rtol=0, atol=1e-10)
    rows = torch.tensor([5, 6, 7, 9])
    alone = model(z[rows], time[1:], types[5:], Packing(sizes[1:], cells=True))
    torch.testing.assert_close(alone, found[rows], rtol=0, atol=1e-10)
    assert (model(z, time.flip(0), types, Packing(sizes, cells=True)) - found).abs().max() > 1e-6


# Training


def test_every_trainable_weight_gets_a_gradient_and_none_of_the_autoencoder(prior, autoencoder):
    model = prior
    with torch.no_grad():
        for weight in model.trainable:  # gates start at zero and hold gradients back
            weight.add_(0.02 * torch.randn(weight.shape, generator=draw()))
    model.zero_grad()
    batch = autoencoder[1].batch(torch.arange(20))
    model.train().loss(batch, noise=Noise(1)).total.backward()
    model.eval()
    named = dict(model.named_parameters())
    assert all(weight.grad is None and not weight.requires_grad for weight in model.vae.parameters())
    own = {name: weight for name, weight in named.items() if not name.startswith("vae.")}
    assert [name for name, weight in own.items() if weight.grad is None or not bool(weight.grad.any())] == []


def test_training_lowers_the_loss_and_leaves_the_autoencoder_as_it_is(autoencoder):
    folder, data = autoencoder
    model = CrystalPrior(autoencoder=str(folder), **TINY)
    history = model.fit(data, max_epochs=12, batch_size=20, lr=1e-2, seed=0, progress=False)
    losses = history["train_loss"]
    assert losses[-1] < 0.9 * losses[0]
    before = noumena.load(folder).state_dict()
    after = model.vae.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_encoded_crystals_and_crystals_have_the_same_loss(prior, autoencoder):
    data = autoencoder[1]
    encoded = prior.for_training(data).batch(torch.arange(9))
    crystals_ = data.batch(torch.arange(9))
    one, two = prior.loss(encoded, noise=Noise(4)), prior.loss(crystals_, noise=Noise(4))
    torch.testing.assert_close(one.vector(), two.vector(), rtol=1e-4, atol=1e-4)


# Samples


def test_sizes_and_compositions_are_those_asked_for(prior):
    found = prior.sample(6, draw(), n_atoms=[1, 2, 3, 4, 5, 6])
    assert found.num_atoms.tolist() == [1, 2, 3, 4, 5, 6]
    found = prior.sample(12, draw(), composition="Li2 O")
    for each in found.split(1):
        counts = torch.bincount(each.atom_types, minlength=9)
        assert counts[3] == 2 * counts[8] > 0
        assert counts.sum() == len(each.atom_types)
    one = prior.sample(3, draw(), composition="Li2 O", n_atoms=6)
    assert one.atom_types.sort()[0].tolist() == [3] * 12 + [8] * 6
    assert torch.isfinite(found.lattice).all()
    assert (found.volume > 0).all()
    assert ((found.frac_coords >= 0) & (found.frac_coords < 1)).all()


def test_sizes_are_those_of_the_training_data(prior, autoencoder):
    truth = autoencoder[1].crystals.num_atoms
    found = prior.sample(400, draw()).num_atoms
    expected = torch.bincount(truth, minlength=9) / len(truth)
    shares = torch.bincount(found, minlength=9) / 400
    assert (shares - expected).abs().max() < 5 * 0.5 / math.sqrt(400)
    assert not bool(shares[expected == 0].any())


def test_samples_follow_their_generator(prior):
    one, two, three = (prior.sample(8, draw(seed)) for seed in (1, 1, 2))
    for name in ("num_atoms", "atom_types", "frac_coords", "lattice"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    assert not (torch.equal(one.num_atoms, three.num_atoms) and torch.equal(one.frac_coords, three.frac_coords))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n_atoms": 99}, "from 1 to"),
        ({"composition": "Li2 O", "n_atoms": 4}, "no multiple"),
        ({"composition": {3: 1, 119: 1}}, "beyond those the model knows"),
    ],
)
def test_samples_that_cannot_be_are_refused(prior, options, words):
    with pytest.raises(ConfigError, match=words):
        prior.sample(2, **options)


# Models


def test_a_saved_prior_needs_no_other_folder(prior, autoencoder, tmp_path):
    copy = shutil.copytree(autoencoder[0], tmp_path / "autoencoder")
    model = CrystalPrior(autoencoder=str(copy), **TINY)
    model.fit(autoencoder[1], max_epochs=1, batch_size=20, seed=0, progress=False)
    model.eval().save(tmp_path / "prior")
    shutil.rmtree(copy)
    again = noumena.load(tmp_path / "prior")
    one, two = model.sample(5, draw()), again.sample(5, draw())
    for name in ("num_atoms", "atom_types", "frac_coords", "lattice"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    batch = crystals(4, 6)
    assert torch.equal(model.encode(batch).mean, again.encode(batch).mean)


def test_a_prior_without_autoencoder_says_what_is_missing():
    with pytest.raises(ConfigError, match="has no autoencoder yet"):
        CrystalPrior(**TINY).sample(2)
    with pytest.raises(ConfigError, match=r"model\.autoencoder is missing"):
        CrystalPrior(**TINY).fit(real(4), max_epochs=1, progress=False)


def test_the_original_representation_has_no_prior(tmp_path):
    small(**ORIGINAL).save(tmp_path / "original")
    with pytest.raises(NotSupportedError, match="representation='periodic'"):
        CrystalPrior(autoencoder=str(tmp_path / "original"), **TINY).fit(real(4), max_epochs=1, progress=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 30, "heads": 8}, "multiple of model.heads"),
        ({"temperature": 0.0}, "model.temperature"),
        ({"formula_dropout": 1.0}, "model.formula_dropout"),
        ({"steps": 0}, "model.steps"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        CrystalPrior(**options)


def test_training_with_held_out_crystals_keeps_the_best_weights(autoencoder):
    folder, data = autoencoder
    rows = torch.arange(len(data))
    model = CrystalPrior(autoencoder=str(folder), **TINY)
    history = model.fit(data.subset(rows[5:]), data.subset(rows[:5]), max_epochs=3, batch_size=8, progress=False)
    assert len(history["val_flow"]) == 3
    assert history.best_epoch == min(range(3), key=lambda epoch: history["val_loss"][epoch])


def test_guidance_draws_samples_away_from_those_without_elements(prior):
    types, sizes = torch.tensor([11, 17]), torch.tensor([2])
    packing = Packing(sizes, cells=True)
    z, time = torch.randn(3, prior.vae.latent_dim, generator=draw(2)), torch.tensor([0.4])
    told = prior.velocity(z, time, types, packing)
    untold = prior.velocity(z, time, torch.zeros_like(types), packing)
    before = prior.guidance
    try:
        prior.guidance = 3.0
        torch.testing.assert_close(prior._guided(z, time, types, packing), untold + 3.0 * (told - untold))
    finally:
        prior.guidance = before


def test_symmetrised_samples_have_the_symmetry_they_nearly_had(prior):
    pytest.importorskip("moyopy")
    from noumena.crystals.symmetry import space_groups, symmetrised

    drawn = prior.sample(6, draw(1), n_atoms=2)
    exact = prior.sample(6, draw(1), n_atoms=2, symmetrise=True)
    _, groups = symmetrised(drawn)
    assert torch.equal(space_groups(exact, 0.01), groups)
    assert torch.equal(drawn.atom_types, exact.atom_types)
