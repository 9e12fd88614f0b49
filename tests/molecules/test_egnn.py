import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.molecules.baselines import aligned_to, mean_structure
from noumena.molecules.geometry import aligned_square_deviation, distances, rotation_onto, signed_volumes
from noumena.molecules.networks.egnn import EGNNDecoder
from tests.molecules.chains import alanine, conformations, dimer, ethanol, peptide, random_rotations, ring, water

MOLECULES = [peptide, alanine, ring, ethanol, water, dimer]


def decoder(topology, z_dim=4, dtype=torch.float32, calibrated=True, seed=0, **options):
    torch.manual_seed(seed)
    made = EGNNDecoder(topology, z_dim, **{"width": 16, "trunk": 24, "blocks": 1, **options}).to(dtype)
    if calibrated:
        made.calibrate(conformations(topology, 64, dtype=dtype))
    return made


@pytest.mark.parametrize("make", MOLECULES)
def test_the_gradient_reaches_every_parameter_and_every_latent(make):
    topology = make()
    made = decoder(topology)
    z = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    target = conformations(topology, 8, seed=3)
    (made(z) - target).square().sum().backward()
    assert [name for name, p in made.named_parameters() if not (p.grad != 0).any()] == []
    assert (z.grad != 0).all()


@pytest.mark.parametrize("make", MOLECULES)
def test_before_training_bonds_have_the_datas_lengths(make):
    topology = make()
    xyz = conformations(topology, 64)
    made = decoder(topology)
    tree = torch.stack([made.order, made.parent], 1)
    expected, spread = distances(xyz, tree).mean(0), distances(xyz, tree).std(0)
    with torch.no_grad():
        found = distances(made(torch.zeros(1, 4)), tree)[0]
    assert ((found - expected).abs() < 3 * spread).all()


def test_decoding_is_deterministic_and_does_not_depend_on_the_batch():
    made = decoder(peptide(), dtype=torch.float64)
    z = torch.randn(16, 4, dtype=torch.float64)
    with torch.no_grad():
        together, alone = made(z), torch.cat([made(row[None]) for row in z])
        assert torch.equal(together, made(z))
    assert (together - alone).abs().max() < 1e-11


def test_centroids_are_at_the_origin():
    with torch.no_grad():
        assert (
            decoder(ethanol(), dtype=torch.float64)(torch.randn(8, 4, dtype=torch.float64)).mean(1).abs().max() < 1e-12
        )


def test_layers_move_with_rotations_and_translations():
    topology = peptide()
    made = decoder(topology, dtype=torch.float64)
    xyz = conformations(topology, 1, dtype=torch.float64)
    rotations = random_rotations(50)
    scalars = torch.randn(1, len(topology), 16, dtype=torch.float64)
    with torch.no_grad():
        layer = made.layers[0]
        same, moved = layer(scalars, xyz, made)
        turned_scalars, turned = layer(scalars.expand(50, -1, -1), xyz @ rotations + 3.0, made)
    assert (moved - xyz).abs().max() > 1e-4
    assert (turned - (moved @ rotations + 3.0)).abs().max() < 1e-10
    assert (turned_scalars - same).abs().max() < 1e-10


def test_training_learns_both_hands_of_one_conformation():
    topology = alanine()
    one = conformations(topology, 1)
    both = torch.cat([one, one * torch.tensor([1.0, 1.0, -1.0])])
    made = decoder(topology, z_dim=1)
    made.calibrate(both)
    z = torch.tensor([[-1.0], [1.0]])
    optimiser = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(150):
        loss = aligned_square_deviation(made(z), both).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    centre = torch.tensor([[0, 2, 3, 4]])
    with torch.no_grad():
        assert torch.equal(signed_volumes(made(z), centre).sign(), signed_volumes(both, centre).sign())
        assert aligned_square_deviation(made(z), both).max() < 0.05


def test_training_gives_exchangeable_atoms_their_own_places():
    topology = ethanol()
    target = conformations(topology, 1)
    made = decoder(topology, z_dim=1)
    made.calibrate(target.expand(4, -1, -1))
    optimiser = torch.optim.AdamW(made.parameters(), lr=3e-3)
    for _ in range(100):
        loss = aligned_square_deviation(made(torch.zeros(1, 1)), target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.02


def test_tree_bonds_take_the_lengths_that_the_latent_asks_for():
    topology = peptide()
    made = decoder(topology, z_dim=2, dtype=torch.float64)
    tree = torch.stack([made.order, made.parent], 1)
    with torch.no_grad():
        before = distances(made(torch.zeros(1, 2, dtype=torch.float64)), tree)
        made.direct_length.bias += 1.0
        after = distances(made(torch.zeros(1, 2, dtype=torch.float64)), tree)
    assert torch.allclose(after - before, made.bond_std.expand_as(before), atol=1e-5)


def test_calibration_starts_from_the_mean_structure():
    topology = peptide()
    xyz = conformations(topology, 64, dtype=torch.float64)
    made = decoder(topology, dtype=torch.float64)
    mean = aligned_to(xyz, mean_structure(xyz)).mean(0)
    with torch.no_grad():
        start = made._chain(made.start[None])
        rotation = rotation_onto(start, mean[None] - mean.mean(0))
        assert torch.allclose(start @ rotation, mean[None] - mean.mean(0), atol=1e-8)


def test_a_calibrated_decoder_gives_the_same_coordinates_after_its_state_is_loaded():
    made, other = decoder(peptide()), decoder(peptide(), calibrated=False, seed=9)
    other.load_state_dict(made.state_dict())
    z = torch.randn(8, 4)
    with torch.no_grad():
        assert torch.equal(made(z), other(z))


def test_a_chain_is_the_sum_of_its_bond_vectors():
    topology = peptide()
    made = decoder(topology, dtype=torch.float64, calibrated=False)
    vectors = torch.randn(5, len(topology) - 1, 3, dtype=torch.float64)
    xyz = made._chain(vectors)
    assert torch.allclose(xyz[:, made.order] - xyz[:, made.parent], vectors, atol=1e-12)


@pytest.mark.parametrize("name", ["width", "layers", "trunk", "blocks", "neighbours"])
def test_sizes_below_one_are_refused(name):
    with pytest.raises(ConfigError, match=name):
        decoder(peptide(), calibrated=False, **{name: 0})


def test_no_latent_is_refused():
    with pytest.raises(ConfigError, match="z_dim"):
        EGNNDecoder(water(), 0)


def test_statistics_are_saved_and_what_follows_from_the_molecule_is_not():
    state = decoder(peptide()).state_dict()
    assert {"start", "spread", "bond_mean", "bond_std", "distance_mean", "distance_std"} <= state.keys()
    assert not {"neighbour_index", "order", "parent", "slot", "jumps", "mask"} & state.keys()
