import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.seeding import Noise
from noumena.molecules.geometry import aligned_square_deviation, signed_volumes
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.symmetry import centres, constant_signs
from tests.molecules.chains import alanine, data, ethanol, peptide, random_rotations, ring, water

PAIRS = [("torsions", "internal"), ("visnet", "egnn"), ("visnet", "internal"), ("torsions", "egnn")]
SMALL = {"z_dim": 4, "width": 32, "blocks": 1, "layers": 1, "channels": 16, "mixture": 4}


def prepared(topology, frames=64, seed=0, **options):
    model = MoleculeVAE(**{**SMALL, **options})
    train = data(topology, frames)
    model.prepare(train, seed=seed)
    return model.eval(), train


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
@pytest.mark.parametrize("make", [peptide, ethanol, ring, alanine, water])
def test_any_molecule_trains_and_every_parameter_gets_a_gradient(encoder, decoder, make):
    model, train = prepared(make(), encoder=encoder, decoder=decoder, chirality=1.0, clash=1.0)
    terms = model.train().loss(train.xyz[:8], noise=Noise(0))
    assert torch.isfinite(terms.total)
    terms.total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)]
    if len(train.topology) > 5:
        assert not silent
    assert not [n for n in silent if n.startswith("head")]


@pytest.mark.parametrize("encoder", ["torsions", "visnet"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_thousand_rotations_and_translations_leave_the_code_as_it_is(encoder, dtype, tolerance):
    model, train = prepared(peptide(), encoder=encoder)
    model = model.to(dtype)
    frame = train.xyz[:1].double()
    shifts = 5.0 * torch.randn(1000, 1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = (frame @ random_rotations(1000) + shifts).to(dtype)
    with torch.no_grad():
        code, codes = model.encode(frame.to(dtype)), model.encode(moved)
    assert (codes.mean - code.mean).abs().max() < tolerance
    assert (codes.log_var - code.log_var).abs().max() < tolerance


@pytest.mark.parametrize("encoder", ["torsions", "visnet"])
def test_mirror_images_have_different_codes_under_se3_and_the_same_under_e3(encoder):
    for symmetry in ("SE3", "E3"):
        model, train = prepared(peptide(), encoder=encoder, symmetry=symmetry, mirror=True)
        with torch.no_grad():
            codes = model.encode(train.xyz).mean
            images = [model.encode(-train.xyz).mean, model.encode(model.mirrored(train.xyz)).mean]
        for image in images:
            difference = (image - codes).abs().max(1).values
            if symmetry == "SE3":
                assert difference.min() > 1e-3
            else:
                assert difference.max() < 1e-5


def test_visnet_codes_do_not_depend_on_which_of_two_like_atoms_is_which():
    topology = ethanol()
    model, train = prepared(topology, encoder="visnet")
    swapped = train.xyz[:, [0, 1, 2, 4, 5, 3, 7, 6, 8]]
    with torch.no_grad():
        assert torch.allclose(model.encode(swapped).mean, model.encode(train.xyz).mean, atol=1e-5)


@pytest.mark.parametrize("kind", ["diagonal", "isotropic"])
def test_the_posterior_starts_with_a_log_variance_of_minus_one(kind):
    model, train = prepared(peptide(), posterior=kind)
    log_var = model.encode(train.xyz).log_var
    assert log_var.shape == (len(train), 4 if kind == "diagonal" else 1)
    assert (log_var + 1.0).abs().max() < 0.5
    assert log_var.mean().item() == pytest.approx(-1.0, abs=0.1)
    assert torch.equal(model.head.log_var.bias, torch.full_like(model.head.log_var.bias, -1.0))
    spread = model.head.log_var.weight.std() / model.head.mean.weight.std()
    assert spread.item() == pytest.approx(0.1, rel=0.3)


@pytest.mark.parametrize("encoder", ["torsions", "visnet"])
def test_codes_vary_over_frames_from_the_start(encoder):
    model, train = prepared(peptide(), encoder=encoder)
    with torch.no_grad():
        assert model.encode(train.xyz).mean.std(0).median() > 0.1


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_a_saved_model_encodes_reconstructs_and_samples_the_same(encoder, decoder, tmp_path):
    model, train = prepared(peptide(), encoder=encoder, decoder=decoder, mirror=True)
    model.after_fit(train, None)
    model.save(tmp_path / "model")
    loaded = noumena.load(tmp_path / "model")
    assert loaded.molecule == model.molecule
    with torch.no_grad():
        assert torch.equal(loaded.encode(train.xyz).mean, model.encode(train.xyz).mean)
    assert torch.equal(loaded.reconstruct(train), model.reconstruct(train))
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    assert torch.equal(loaded.sample(5, generators[0]), model.sample(5, generators[1]))
    assert torch.equal(loaded.mirrored(train.xyz), model.mirrored(train.xyz))


def test_what_follows_from_the_molecule_is_not_saved():
    for encoder, decoder in PAIRS:
        model, _ = prepared(peptide(), encoder=encoder, decoder=decoder)
        whole = [name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()]
        assert set(whole) <= {"augmentation.mirror_index", "encoder_network.standardizer.constant"}


def test_a_model_of_a_damaged_topology_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"model\.topology"):
        MoleculeVAE(topology={"elements": [6, 6]})


def test_training_lowers_the_loss_and_keeps_the_hand(tmp_path):
    train, val = data(peptide(), 512, seed=0), data(peptide(), 128, seed=1)
    model = MoleculeVAE(z_dim=8, width=64, blocks=1, mixture=4)
    history = model.fit(train, val, max_epochs=25, batch_size=32, lr=3e-3, patience=None, progress=False)
    assert history["val_loss"][-1] < 0.3 * history["val_loss"][0]
    built = model.reconstruct(val)
    assert (
        aligned_square_deviation(built, val.xyz).mean()
        < 1.1 * aligned_square_deviation(built, val.xyz, reflect=True).mean()
    )


def test_the_same_seed_gives_the_same_weights():
    runs = []
    for _ in range(2):
        model = MoleculeVAE(**SMALL, mirror=True)
        model.fit(data(peptide(), 64), data(peptide(), 32, seed=1), max_epochs=2, batch_size=16, progress=False, seed=5)
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_mirror_augmentation_is_refused_for_a_chiral_molecule():
    with pytest.raises(ConfigError, match="chiral"):
        prepared(alanine(), mirror=True)


def test_reconstruction_lies_on_its_input_by_a_proper_rotation():
    model, train = prepared(alanine(), frames=300)
    moved = train.xyz @ random_rotations(300, dtype=torch.float32) + 7.0
    built = model.reconstruct(moved)
    assert torch.allclose(built.mean(1), moved.mean(1), atol=1e-4)
    quadruples = torch.from_numpy(centres(train.topology))
    signs = constant_signs(train.xyz, quadruples)
    assert ((torch.sign(signed_volumes(built, quadruples)) == signs) | (signs == 0)).all()
    again = model.reconstruct(built)
    assert (
        aligned_square_deviation(again, built).mean() <= aligned_square_deviation(torch.flip(again, [0]), built).mean()
    )


def test_crossovers_are_new_conformations_that_clash_no_more_than_their_parents():
    model, train = prepared(peptide(), frames=200, crossover=0.5, clash=1.0)
    crossed = model.augmentation.crossed(train.xyz, Noise(3))
    changed = (crossed - train.xyz).abs().amax((1, 2)) > 1e-3
    assert 0.1 < changed.float().mean() < 0.6
    before = model.reconstruction.overlaps(train.xyz)
    allowed = torch.maximum(before, before.roll(1))
    assert bool((model.reconstruction.overlaps(crossed) <= allowed + 1e-3).all())


def test_losses_of_validation_see_the_frames_as_they_are():
    changing, train = prepared(peptide(), crossover=1.0)
    plain, _ = prepared(peptide())
    assert torch.equal(changing.loss(train.xyz, noise=Noise(0)).total, plain.loss(train.xyz, noise=Noise(0)).total)


def test_a_path_begins_and_ends_at_the_reconstructions_of_its_ends():
    model, train = prepared(peptide())
    path = model.interpolate(train.xyz[0], train.xyz[1], 7)
    ends = model.reconstruct(train.xyz[:2])
    assert path.shape == (7, len(train.topology), 3)
    assert aligned_square_deviation(path[[0, -1]], ends).max() < 1e-8


def test_samples_of_the_fitted_prior_are_those_of_the_codes_and_not_of_the_normal():
    model, train = prepared(peptide(), frames=400)
    model.after_fit(train, None)
    z = model.prior.sample(4000, torch.Generator().manual_seed(0))
    posterior = model.encode(train)
    mean, std = posterior.mean.mean(0), (posterior.mean.var(0) + posterior.log_var.exp().mean(0)).sqrt()
    assert torch.allclose(z.mean(0), mean, atol=0.15)
    assert torch.allclose(z.std(0), std, rtol=0.1)


def test_free_bits_leave_the_reported_kl_as_it_is():
    model, train = prepared(peptide(), free_bits=50.0, beta=1.0)
    plain, _ = prepared(peptide(), beta=1.0)
    found, other = (m.loss(train.xyz, noise=Noise(0)) for m in (model, plain))
    assert torch.equal(found.parts["kl"], other.parts["kl"])
    assert torch.allclose(found.total - other.total, 4 * 50.0 - other.parts["kl"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder": "torsion"}, r"model\.encoder: unknown 'torsion'.*torsions"),
        ({"loss": "bonds"}, r"model\.loss: unknown 'bonds'.*bond"),
        ({"symmetry": "O3"}, r"model\.symmetry"),
        ({"z_dim": 0}, r"model\.z_dim"),
        ({"aligned": -1.0}, r"model\.aligned"),
        ({"crossover": 1.5}, r"model\.crossover"),
        ({"beta": float("nan")}, r"model\.beta"),
        ({"cutoff": 0.0}, r"model\.cutoff"),
    ],
)
def test_an_impossible_option_is_refused_by_its_key(options, words):
    with pytest.raises(ConfigError, match=words):
        MoleculeVAE(**options)


def test_another_molecule_or_shape_is_refused_in_words():
    model, _ = prepared(peptide())
    with pytest.raises(DataError, match=r"another molecule.*9 atoms \(C2H6O\)"):
        model.encode(data(ethanol(), 3))
    with pytest.raises(DataError, match=r"expected coordinates of shape \(frames, 22, 3\)"):
        model.encode(np.zeros((3, 5, 3)))
    frames = np.zeros((2, 22, 3))
    frames[1, 2, 0] = np.nan
    with pytest.raises(DataError, match="frame 1 has NaN or infinity at atom 3"):
        model.as_dataset(frames)
    with pytest.raises(DataError, match=r"latents of shape \(batch, 4\)"):
        model.decode(torch.zeros(2, 5))
    with pytest.raises(ConfigError, match="unknown prior"):
        model.sample(2, prior="flow")
    with pytest.raises(NotSupportedError, match="Conformations"):
        MoleculeVAE().as_dataset(np.zeros((2, 3, 3)))
    with pytest.raises(ConfigError, match="another molecule"):
        model.prepare(data(ethanol(), 3))
