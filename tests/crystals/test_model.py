import itertools

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.seeding import Noise
from noumena.crystals.augmentation import Draws, random_rotations
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.dataset import Crystals
from noumena.crystals.model import CrystalVAE
from tests.crystals.models import ORIGINAL, changed, crystals, real, small

SAME = {"rtol": 0.0, "atol": 1e-9}
KINDS = ("periodic", "original")


def test_the_original_sizes_have_the_original_number_of_parameters():
    with torch.device("meta"):
        model = CrystalVAE(
            representation="original",
            width=512,
            encoder_layers=8,
            decoder_layers=8,
            heads=8,
            feedforward=2048,
            species=100,
            vector_dim=0,
            max_atoms=20,
        )
    assert sum(weight.numel() for weight in model.parameters()) == 51_091_044


# Loss


def original_loss(model, batch, noise):
    """The objective as the facts of the original state it, written down from them."""
    posterior = model.encode(batch)
    z = posterior.mean + noise * (0.5 * posterior.log_var).exp()
    out = model._decoded(z, model.packing(batch.num_atoms), torch.zeros(len(batch)), batch.atom_types)
    lengths = batch.lattice.norm(dim=-1) / batch.num_atoms[:, None] ** (1 / 3)
    a, b, c = (batch.lattice / batch.lattice.norm(dim=-1, keepdim=True)).unbind(1)
    angles = torch.stack([(b * c).sum(-1), (a * c).sum(-1), (a * b).sum(-1)], 1).acos()
    logs = out.types - out.types.logsumexp(1, keepdim=True)
    kl = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum(1).mean()
    return {
        "types": -logs[torch.arange(len(logs)), batch.atom_types].mean(),
        "lengths": ((out.cell[:, :3] - lengths) ** 2).mean(),
        "angles": ((out.cell[:, 3:] - angles) ** 2).mean(),
        "coords": ((out.coords - batch.frac_coords) ** 2).mean(),
        "kl": kl,
    }


def test_the_original_loss_is_that_of_its_formulas():
    weights = {"type_weight": 1.0, "length_weight": 1.0, "angle_weight": 10.0, "coord_weight": 10.0, "beta": 1e-5}
    model = small(**ORIGINAL, **weights).double().eval()
    batch = crystals(4, 9, 1, 9)
    found = model.loss(batch, noise=Noise(2))
    drawn = Noise(2).normal_like(torch.empty(4, 21, 8).double())
    noise = torch.cat([row[:n] for row, n in zip(drawn, (4, 9, 1, 9), strict=True)])
    parts = original_loss(model, batch, noise)
    assert set(found.parts) == set(parts)
    for name, part in parts.items():
        torch.testing.assert_close(found.parts[name], part, rtol=0, atol=1e-6)
    named = zip(("types", "lengths", "angles", "coords", "kl"), weights.values(), strict=True)
    total = sum(weight * parts[name] for name, weight in named)
    torch.testing.assert_close(found.total, total, rtol=0, atol=1e-6)


def test_kl_counts_atoms_and_cells_alike_and_beta_weighs_it():
    model, batch = small(beta=0.5).double().eval(), crystals(4, 7)
    posterior = model.encode(batch)
    kl = kl_divergence(Normal(posterior.mean, posterior.std), Normal(0.0, 1.0)).sum(1)
    assert kl.shape == (13,)
    found = model.loss(batch)
    torch.testing.assert_close(found.parts["kl"], kl.mean(), rtol=1e-9, atol=0)
    gap = model.loss(batch, beta_scale=3.0).total - found.total
    torch.testing.assert_close(gap, kl.mean(), rtol=1e-9, atol=1e-9)


def test_given_elements_are_no_term_of_the_loss():
    assert "types" not in small(predict_types=False).loss(crystals(3, dtype=torch.float32)).parts


# One crystal, many descriptions


def shuffled(batch, seed=0):
    """The atoms of each crystal in another order, and that order."""
    generator = torch.Generator().manual_seed(seed)
    sizes = batch.num_atoms.tolist()
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    order = torch.cat([torch.randperm(n, generator=generator) + s for n, s in zip(sizes, starts, strict=True)])
    return changed(batch, atom_types=batch.atom_types[order], frac_coords=batch.frac_coords[order]), order


def redescribed(batch):
    """Name, another description of the same crystals, and the shift of its origin."""
    draw = torch.Generator().manual_seed(4)
    shift = torch.rand(len(batch), 3, generator=draw, dtype=torch.float64)
    images = torch.randint(-2, 3, batch.frac_coords.shape, generator=draw)
    turns = random_rotations(torch.randn(len(batch), 4, generator=draw, dtype=torch.float64))
    zero = torch.zeros_like(shift)
    return {
        "origin": (changed(batch, frac_coords=batch.frac_coords + shift[batch.crystal]), shift),
        "images": (changed(batch, frac_coords=batch.frac_coords + images), zero),
        "rotation": (changed(batch, lattice=batch.lattice @ turns), zero),
        "origin in the cell": (
            changed(batch, frac_coords=(batch.frac_coords + shift[batch.crystal]).remainder(1.0)),
            shift,
        ),
    }


def assert_same_places(found, expected):
    gap = found - expected
    torch.testing.assert_close(gap - gap.round(), torch.zeros_like(gap), rtol=0, atol=1e-7)


@pytest.mark.parametrize("description", ["origin", "images", "rotation", "origin in the cell"])
def test_latents_vectors_and_reconstructions_do_not_depend_on_the_description(description):
    model, batch = small().double().eval(), crystals(5, 1, 12, 20)
    other, shift = redescribed(batch)[description]
    torch.testing.assert_close(model.encode(other).mean, model.encode(batch).mean, **SAME)
    torch.testing.assert_close(model.encode(other).log_var, model.encode(batch).log_var, **SAME)
    torch.testing.assert_close(model.vector(other), model.vector(batch), **SAME)
    one, two = model.reconstruct(batch), model.reconstruct(other)
    assert torch.equal(one.atom_types, two.atom_types)
    torch.testing.assert_close(one.lattice, two.lattice, rtol=0, atol=1e-7)
    assert_same_places(two.frac_coords, one.frac_coords + shift[batch.crystal])


@pytest.mark.parametrize("description", ["origin", "images", "rotation"])
def test_the_original_depends_on_the_description(description):
    model, batch = small(**ORIGINAL).double().eval(), crystals(5, 12)
    other, _ = redescribed(batch)[description]
    assert (model.vector(other) - model.vector(batch)).abs().max() > 1e-3


def test_latents_come_in_the_order_of_the_atoms():
    model, batch = small().double().eval(), crystals(5, 1, 12)
    other, order = shuffled(batch)
    one, two = model.encode(batch), model.encode(other)
    torch.testing.assert_close(two.atoms, one.atoms[order], **SAME)
    torch.testing.assert_close(two.cells, one.cells, **SAME)
    torch.testing.assert_close(model.vector(other), model.vector(batch), **SAME)
    assert_same_places(model.reconstruct(other).frac_coords, model.reconstruct(batch).frac_coords[order])


def test_a_supercell_that_is_read_is_the_primitive_cell_again():
    pymatgen = pytest.importorskip("pymatgen.core")
    model, batch = small().double().eval(), crystals(4, 4)
    made = [
        pymatgen.Structure(cell.numpy(), types.tolist(), frac.numpy())
        for cell, types, frac in zip(batch.lattice, batch.atom_types.split(4), batch.frac_coords.split(4), strict=True)
    ]
    large = [each.copy() for each in made]
    for each, scaling in zip(large, ([2, 1, 1], [[1, 1, 0], [0, 2, 1], [0, 0, 2]]), strict=True):
        each.make_supercell(scaling)
    assert [len(each) for each in large] == [8, 16]
    one, two = model.vector(made), model.vector(large)
    torch.testing.assert_close(two, one, rtol=0, atol=1e-6)


def test_latents_do_not_depend_on_the_batch():
    model, batch = small().double().eval(), crystals(5, 1, 12, 5)
    whole = model.encode(batch)
    for number, rows in enumerate(whole.atoms.split(batch.num_atoms.tolist())):
        alone = model.encode(batch.select(torch.tensor([number])))
        torch.testing.assert_close(alone.atoms, rows, **SAME)
        torch.testing.assert_close(alone.cells[0], whole.cells[number], **SAME)


def test_mirror_images_are_told_apart_by_their_coordinates():
    """A cell and its mirror image have the same metric; what differs are the coordinates."""
    model, batch = small().double().eval(), crystals(6)
    mirrored = changed(batch, frac_coords=-batch.frac_coords)
    assert (model.encode(mirrored).mean - model.encode(batch).mean).abs().max() > 1e-4


# Gradients and training


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_gets_a_gradient(kind):
    model = small(latent_noise=0.5, **(ORIGINAL if kind == "original" else {})).train()
    model.loss(crystals(5, 1, 12, 7, 7, dtype=torch.float32), noise=Noise(0)).total.backward()
    trained = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, gradient in trained.items() if gradient is None or not bool(gradient.any())] == []
    assert all(bool(gradient.isfinite().all()) for gradient in trained.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{}, {"corruption": 0.25, "latent_noise": 0.5}, {"augment": False}])
@pytest.mark.parametrize("atoms", [1, 3])
def test_a_batch_of_one_crystal_trains(kind, options, atoms):
    model = small(**{**(ORIGINAL if kind == "original" else {}), **options}).train()
    found = model.loss(crystals(atoms, dtype=torch.float32), noise=Noise(0))
    found.total.backward()
    assert found.vector().isfinite().all()
    assert all(bool(weight.grad.isfinite().all()) for weight in model.parameters() if weight.grad is not None)


def test_evaluation_draws_no_descriptions_and_damages_nothing():
    model, batch = small(corruption=0.9, latent_noise=1.0).eval(), crystals(5, 8, dtype=torch.float32)
    plain = small(corruption=0.0, augment=False).eval()
    torch.testing.assert_close(model.loss(batch, noise=Noise(1)).vector(), plain.loss(batch, noise=Noise(1)).vector())
    model.train()
    assert (model.loss(batch, noise=Noise(1)).total - plain.loss(batch, noise=Noise(1)).total).abs() > 1e-3


STEPS = 150
FIT = {"max_epochs": 2, "batch_size": 7, "lr": 1e-3, "progress": False}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_trains_the_same_model(kind):
    data = real(16)
    options = {**(ORIGINAL if kind == "original" else {}), "max_atoms": None, "vector_dim": 0}
    found = []
    for seed in (3, 3, 4):
        model = CrystalVAE(**{**options, "width": 16, "encoder_layers": 1, "decoder_layers": 1, "heads": 2})
        model.fit(data, seed=seed, **FIT)
        found.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.fixture(scope="module")
def learned():
    """A small model, the 16 crystals it was trained on, and the loss of each step."""
    data = real(16, most=8)
    model = CrystalVAE(
        width=64, encoder_layers=2, decoder_layers=2, heads=4, corruption=0.0, augment=False, vector_dim=0
    )
    model.prepare(data, seed=0)
    batch = data.batch(torch.arange(16))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, fused=True)
    losses = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1.0 - step / STEPS)
        loss = model.train().loss(batch, noise=Noise(step)).total
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    model.after_fit(data, None)
    return model.eval(), data, losses


def test_a_small_model_learns_sixteen_crystals(learned):
    model, data, losses = learned
    assert losses[-1] < 0.1 * losses[0]
    found = model.reconstruct(data)
    truth = data.crystals
    assert torch.equal(found.num_atoms, truth.num_atoms)
    assert found.names == truth.names
    assert (found.atom_types == truth.atom_types).double().mean() > 0.95
    gap = found.frac_coords - truth.frac_coords
    error = torch.einsum("ai,aij->aj", gap - gap.round(), truth.lattice[truth.crystal]).norm(dim=1)
    assert error.median() < 0.3
    assert ((found.lengths - truth.lengths).abs() / truth.lengths).mean() < 0.05
    assert (found.angles - truth.angles).abs().mean() < 5.0


def test_save_and_load_give_identical_reconstructions_and_samples(learned, tmp_path):
    model, data, _ = learned
    model.save(tmp_path / "model")
    again = noumena.load(tmp_path / "model")
    one, two = model.reconstruct(data), again.reconstruct(data)
    for name in ("atom_types", "frac_coords", "lattice"):
        assert torch.equal(getattr(one, name), getattr(two, name))
    draws = [m.sample(5, torch.Generator().manual_seed(1), prior="gaussian") for m in (model, again)]
    assert torch.equal(draws[0].frac_coords, draws[1].frac_coords)
    assert torch.equal(draws[0].num_atoms, draws[1].num_atoms)


def test_a_posterior_sample_follows_its_generator(learned):
    model, data, _ = learned
    mean = model.reconstruct(data)
    one, two, three = (model.reconstruct(data, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one.frac_coords, two.frac_coords)
    assert not torch.equal(one.frac_coords, three.frac_coords)
    assert not torch.equal(one.frac_coords, mean.frac_coords)


# Decoding


def latents(model, *sizes):
    torch.manual_seed(1)
    return torch.randn(sum(sizes) + len(sizes), model.latent_dim), torch.tensor(sizes)


def test_decoded_crystals_are_of_the_composition_that_was_asked_for():
    model = small().eval()
    z, sizes = latents(model, 3, 6)
    found = model.decode(z, sizes, composition="Li2 O")
    assert [sorted(each.atom_types.tolist()) for each in found.split(1)] == [[3, 3, 8], [3, 3, 3, 3, 8, 8]]
    assert torch.equal(model.decode(z, sizes, composition={3: 2, 8: 1}).atom_types, found.atom_types)
    plain = model.decode(z, sizes)
    assert torch.equal(plain.frac_coords, found.frac_coords)
    assert (plain.atom_types >= 1).all()


def test_elements_are_dealt_as_the_decoder_finds_likeliest():
    model = small().double().eval()
    z, sizes = latents(model, 5)
    logits = model._decoded(z.double(), model.packing(sizes), torch.zeros(1), torch.zeros(5).long()).types.log_softmax(
        -1
    )
    found = model.decode(z.double(), sizes, composition="Li2 O3").atom_types
    deals = set(itertools.permutations([3, 3, 8, 8, 8]))
    best = max(deals, key=lambda deal: sum(logits[atom, element].item() for atom, element in enumerate(deal)))
    assert tuple(found.tolist()) == best


def test_one_crystal_needs_no_sizes():
    model = small().eval()
    z, sizes = latents(model, 4)
    assert torch.equal(model.decode(z).frac_coords, model.decode(z, sizes).frac_coords)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"composition": "Li2 O", "types": torch.ones(4).long()}, ConfigError, "not both"),
        ({"composition": "Li2 O"}, ConfigError, "4 atoms cannot be of Li2O"),
        ({"composition": "Ogg"}, ConfigError, "Ogg"),
        ({"composition": {118: 1, 119: 3}}, ConfigError, "119"),
    ],
)
def test_wrong_elements_are_refused(options, error, words):
    model = small().eval()
    with pytest.raises(error, match=words):
        model.decode(latents(model, 4)[0], torch.tensor([4]), **options)


def test_wrong_shapes_of_latents_are_refused():
    model = small().eval()
    with pytest.raises(DataError, match=r"1 crystals of 4 atoms need latents of shape \(5, 8\), got \(4, 8\)"):
        model.decode(torch.zeros(4, 8), torch.tensor([4]))
    with pytest.raises(ConfigError, match="does not predict elements"):
        small(predict_types=False).decode(torch.zeros(5, 8), torch.tensor([4]))


def test_cells_and_elements_beyond_the_model_are_refused():
    model = small(species=20, max_atoms=4).eval()
    batch = changed(crystals(3), atom_types=torch.tensor([1, 20, 3]))
    with pytest.raises(DataError, match=r"crystal 0: atomic number 20; the model knows elements up to 19"):
        model.encode(batch)
    with pytest.raises(DataError, match=r"crystal 1: 5 atoms.*at most 4"):
        model.encode(changed(crystals(3, 5), atom_types=torch.ones(8).long()))


# Samples and paths


def test_samples_have_the_sizes_and_elements_that_were_asked_for(learned):
    model, data, _ = learned
    draw = torch.Generator().manual_seed(0)
    for prior in ("standard", "gaussian"):
        found = model.sample(6, draw, n_atoms=[1, 2, 3, 4, 5, 6], prior=prior)
        assert found.num_atoms.tolist() == [1, 2, 3, 4, 5, 6]
        found = model.sample(9, draw, composition="Na Cl", prior=prior)
        counts = [torch.bincount(each.atom_types, minlength=18)[[11, 17]].tolist() for each in found.split(1)]
        assert all(a == b > 0 and a + b == n for (a, b), n in zip(counts, found.num_atoms.tolist(), strict=True))
        assert torch.isfinite(found.lattice).all()
        assert (found.volume > 0).all()
    sizes = model.sample(300, draw, prior="standard").num_atoms
    assert set(sizes.tolist()) <= set(data.crystals.num_atoms.tolist())


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, NotSupportedError, "mp20-prior"),
        ({"prior": "gausian"}, ConfigError, "Did you mean 'gaussian'"),
        ({"prior": "standard", "n_atoms": 99}, ConfigError, "from 1 to 7"),
        ({"prior": "standard", "n_atoms": [1, 2]}, ConfigError, "2 numbers for n=3"),
        ({"prior": "standard", "n_atoms": 4, "composition": "Li2 O"}, ConfigError, "no multiple of the 3 atoms"),
        ({"prior": "standard", "composition": "Ba4 Ti4 O12"}, ConfigError, "has 20 atoms"),
    ],
)
def test_samples_that_cannot_be_are_refused(learned, options, error, words):
    with pytest.raises(error, match=words):
        learned[0].sample(3, **options)


def test_the_gaussian_has_the_moments_of_the_latents(learned):
    model, data, _ = learned
    posterior = model.encode(data)
    drawn = model.gaussian.sample(40_000, 10, torch.Generator().manual_seed(0))[:40_000].double()
    atoms = posterior.atoms.double()
    spread = atoms.std(0).max().item()
    torch.testing.assert_close(drawn.mean(0), atoms.mean(0), rtol=0, atol=0.03 * spread)
    torch.testing.assert_close(drawn.T.cov(), atoms.T.cov(correction=0), rtol=0, atol=0.05 * spread**2)


def test_a_path_begins_and_ends_at_its_crystals(learned):
    model, data, _ = learned
    sizes = data.crystals.num_atoms
    size = max(sizes.tolist(), key=sizes.tolist().count)
    one, two = (sizes == size).nonzero()[:2, 0]
    start, end = data.subset(one[None]), data.subset(two[None])
    path = model.interpolate(start, end, 5)
    assert path.num_atoms.tolist() == [int(size)] * 5
    first, last = model.reconstruct(start), model.reconstruct(end)
    torch.testing.assert_close(path.lattice[0], first.lattice[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(path.lattice[-1], last.lattice[0], rtol=1e-4, atol=1e-4)
    pieces = path.split(1)
    assert sorted(pieces[0].atom_types.tolist()) == sorted(first.atom_types.tolist())
    assert sorted(pieces[-1].atom_types.tolist()) == sorted(last.atom_types.tolist())
    other = data.subset((sizes != size).nonzero()[:1, 0])
    with pytest.raises(DataError, match="equally many atoms"):
        model.interpolate(start, other, 5)
    with pytest.raises(ConfigError, match="at least 2 steps"):
        model.interpolate(start, end, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"width": 30}, "multiple of model.heads"),
        ({"representation": "orginal"}, "Did you mean 'original'"),
        ({"activation": "gelu-than"}, "Did you mean 'gelu-tanh'"),
        ({"beta": -1.0}, "model.beta"),
        ({"corruption": 1.0}, "model.corruption"),
        ({"latent_dim": 0}, "model.latent_dim"),
    ],
)
def test_options_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        small(**options)


def test_whole_datasets_and_batches_encode_alike():
    model, data = small(max_atoms=30).eval(), real(30)
    one, two = model.encode(data), model.encode(data.crystals)
    assert torch.equal(one.mean, two.mean)
    assert len(model.vector(data)) == len(data)
    assert isinstance(model.as_dataset(CrystalBatch.cat([data.crystals])), Crystals)
    assert torch.equal(model.vector(data), model.embed(data))


def test_the_vector_is_learned_saved_and_the_same_for_every_description(tmp_path):
    data = real(24)
    model = small(vector_dim=8)
    model.prepare(data, seed=0)
    model.after_fit(data, None)
    model.save(tmp_path / "model")
    again = noumena.load(tmp_path / "model")
    batch = data.crystals
    vector = model.vector(data)
    assert vector.shape == (24, 8)
    assert torch.equal(again.vector(data), vector)
    assert bool((vector.std(0) > 0).all())
    shift = torch.rand(24, 3, generator=torch.Generator().manual_seed(0), dtype=batch.dtype)
    whole = torch.randint(-2, 3, batch.frac_coords.shape, generator=torch.Generator().manual_seed(1))
    other = changed(batch, frac_coords=batch.frac_coords + shift[batch.crystal] + whole)
    torch.testing.assert_close(model.vector(other), vector, rtol=1e-3, atol=1e-3)


def test_symmetrised_reconstructions_have_the_group_they_nearly_had(learned):
    pytest.importorskip("moyopy")
    from noumena.crystals.symmetry import space_groups, symmetrised

    model, data, _ = learned
    plain, exact = model.reconstruct(data), model.reconstruct(data, symmetrise=True)
    _, groups = symmetrised(plain)
    known = groups > 0
    assert torch.equal(space_groups(exact, 0.01)[known], groups[known])
    assert exact.names == data.crystals.names


def test_noise_of_latents_is_in_units_of_their_spread():
    batch = crystals(4, 6, dtype=torch.float32)
    model = small(latent_noise=0.5, vector_dim=0)
    packing = model.packing(batch.num_atoms)
    z = torch.randn(len(packing.crystal), model.latent_dim, generator=torch.Generator().manual_seed(3))
    model.train()
    found, level = model._disturbed(z, packing, Draws(Noise(1), batch, 7))
    wider, _ = model._disturbed(10.0 * z, packing, Draws(Noise(1), batch, 7))
    torch.testing.assert_close(wider, 10.0 * found)
    untouched = (level == 0)[packing.crystal]
    assert torch.equal(found[untouched], z[untouched])
    assert bool((level <= 0.5).all())
    assert torch.equal(model.eval()._disturbed(z, packing, Draws(Noise(1), batch, 7))[0], z)
