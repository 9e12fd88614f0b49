import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.molecules.networks.graph import (
    ExponentialNormalBasis,
    cosine_cutoff,
    neighbours,
    spherical_harmonics,
)
from noumena.molecules.networks.heads import PosteriorHead
from noumena.molecules.networks.visnet import ViSNetEncoder, triple_products
from noumena.molecules.symmetry import topological_classes
from tests.molecules.chains import alanine, conformations, dimer, ethanol, peptide, random_rotations, ring, water

MOLECULES = [peptide, alanine, ring, ethanol, water, dimer]


def encoder(topology, dtype=torch.float32, calibrated=True, seed=0, **options):
    torch.manual_seed(seed)
    made = ViSNetEncoder(topology, **{"width": 16, "vectors": 4, "features": 12, "pool": 4, **options}).to(dtype)
    if calibrated:
        made.calibrate(conformations(topology, 64, dtype=dtype))
    return made.eval()


@pytest.mark.parametrize(("symmetry", "lmax"), [("SE3", 1), ("SE3", 2), ("E3", 1)])
@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_thousand_rotations_and_translations_leave_the_codes_unchanged(dtype, most, symmetry, lmax):
    topology = peptide(2)
    made = encoder(topology, dtype, symmetry=symmetry, lmax=lmax)
    frame = conformations(topology, 1, seed=5, dtype=torch.float64)
    shifts = torch.randn(1000, 1, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    moved = (frame @ random_rotations(1000) + shifts).to(dtype)
    head = PosteriorHead(12, 8, "diagonal").to(dtype)
    with torch.no_grad():
        codes, expected = head(made(moved)).mean, head(made(frame.to(dtype))).mean
    assert (codes - expected).abs().max() < most


@pytest.mark.parametrize("lmax", [1, 2])
def test_mirror_images_have_different_features_under_se3_and_the_same_under_e3(lmax):
    topology = peptide()
    xyz = conformations(topology, 8, seed=5, dtype=torch.float64)
    mirrored = xyz * torch.tensor([1.0, 1.0, -1.0])
    told = encoder(topology, torch.float64, symmetry="SE3", lmax=lmax)
    blind = encoder(topology, torch.float64, symmetry="E3", lmax=lmax)
    with torch.no_grad():
        assert ((told(xyz) - told(mirrored)).abs().amax(1) > 0.1).all()
        assert (blind(xyz) - blind(mirrored)).abs().max() < 1e-10


@pytest.mark.parametrize("make", [peptide, ethanol])
def test_exchanging_exchangeable_atoms_leaves_the_features_unchanged(make):
    topology = make()
    pairs = {"peptide": [(5, 6), (11, 12)], "ethanol": [(3, 4), (4, 5), (6, 7)]}[make.__name__]
    made = encoder(topology, torch.float64)
    xyz = conformations(topology, 8, seed=5, dtype=torch.float64)
    with torch.no_grad():
        expected = made(xyz)
        for pair in pairs:
            swapped = xyz.clone()
            swapped[:, list(pair)] = xyz[:, list(reversed(pair))]
            assert (xyz - swapped).abs().max() > 0.5
            assert (made(swapped) - expected).abs().max() < 1e-10


def test_exchanging_atoms_of_different_places_changes_the_features():
    topology = peptide()
    made = encoder(topology)
    xyz = conformations(topology, 8, seed=5)
    swapped = xyz.clone()
    swapped[:, [2, 8]] = xyz[:, [8, 2]]
    with torch.no_grad():
        assert (made(swapped) - made(xyz)).abs().max() > 0.1


def test_features_of_a_frame_do_not_depend_on_its_batch():
    topology = peptide()
    made = encoder(topology, torch.float64)
    xyz = conformations(topology, 16, seed=5, dtype=torch.float64)
    with torch.no_grad():
        together, alone = made(xyz), torch.cat([made(frame[None]) for frame in xyz])
    assert (together - alone).abs().max() < 1e-12


@pytest.mark.parametrize("symmetry", ["SE3", "E3"])
@pytest.mark.parametrize("make", MOLECULES)
def test_the_gradient_reaches_every_parameter_of_any_molecule(make, symmetry):
    topology = make()
    made = encoder(topology, symmetry=symmetry, layers=3)
    xyz = conformations(topology, 8, seed=5)
    made(xyz).mul(torch.randn(8, 12, generator=torch.Generator().manual_seed(0))).sum().backward()
    # Vectors of a flat molecule span no volume; those of a straight one have nothing beside the bond.
    free = ("triple", "sides", "side_gate")[: max(0, 4 - len(topology)) * 3 // 2]
    silent = [
        name for name, p in made.named_parameters() if not any(f in name for f in free) and not (p.grad != 0).any()
    ]
    assert silent == []


def test_features_and_their_slope_are_continuous_where_a_neighbour_crosses_the_cutoff():
    topology = dimer()
    made = encoder(topology, torch.float64, calibrated=False, cutoff=3.0)
    distance = torch.linspace(2.9, 3.1, 401, dtype=torch.float64)
    xyz = torch.zeros(401, 2, 3, dtype=torch.float64)
    xyz[:, 1, 0] = distance
    with torch.no_grad():
        features = made(xyz)
    slope = features.diff(dim=0) / distance.diff()[:, None]
    assert (features[distance > 3.0] - features[-1]).abs().max() < 1e-14
    assert slope.diff(dim=0).abs().max() < 0.05 * slope.abs().max()
    assert slope[-201:].abs().max() < 0.02 * slope.abs().max()


def test_after_calibration_the_pooled_channels_vary_by_one_over_the_data():
    topology = peptide()
    made = encoder(topology)
    with torch.no_grad():
        pooled = made.standardise(made.pooled(conformations(topology, 64)))
    assert pooled.mean(0).abs().max() < 1e-3
    assert (pooled.std(0).median() - 1).abs() < 0.05


def test_features_resolve_a_hundredth_of_an_angstrom_of_one_bond():
    topology = peptide()
    made = encoder(topology)
    xyz = conformations(topology, 64)
    longer = xyz.clone()
    last = len(topology) - 1
    bond = longer[:, last] - longer[:, topology.neighbours[last][0]]
    longer[:, last] += 0.01 * bond / bond.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        spread = made(xyz).std(0).norm()
        assert (made(longer) - made(xyz)).norm(dim=-1).min() > 1e-3 * spread


def test_a_calibrated_encoder_gives_the_same_features_after_its_state_is_loaded():
    topology = peptide()
    made, other = encoder(topology), encoder(topology, calibrated=False, seed=9)
    other.load_state_dict(made.state_dict())
    xyz = conformations(topology, 8, seed=5)
    with torch.no_grad():
        assert torch.equal(made(xyz), other(xyz))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"heads": 3}, "do not divide"),
        ({"cutoff": 0.0}, "cutoff"),
        ({"lmax": 3}, "lmax"),
        ({"symmetry": "E4"}, "symmetry"),
        ({"layers": 0}, "layers"),
        ({"neighbours": 0}, "neighbours"),
    ],
)
def test_options_out_of_range_are_refused_in_words(options, words):
    with pytest.raises(ConfigError, match=words):
        encoder(peptide(), calibrated=False, **options)


@pytest.mark.parametrize("make", MOLECULES)
def test_every_pair_within_three_bonds_is_an_edge_and_no_edge_is_there_twice(make):
    topology = make()
    graph = neighbours(topology, 8)
    for atom, (row, mask) in enumerate(zip(graph.index, graph.mask, strict=True)):
        chosen = row[mask > 0].tolist()
        near = np.flatnonzero((topology.bonds_between[atom] > 0) & (topology.bonds_between[atom] <= 3))
        assert set(near.tolist()) <= set(chosen)
        assert len(set(chosen)) == len(chosen)
        assert atom not in chosen


def test_edges_go_with_the_atoms_when_exchangeable_ones_change_places():
    topology = peptide(6)
    for count in (8, 12, 16, 20):
        graph = neighbours(topology, count)
        edges = {
            (atom, int(j), int(kind))
            for atom in range(len(topology))
            for j, m, kind in zip(graph.index[atom], graph.mask[atom], graph.kind[atom], strict=True)
            if m
        }
        swap = {5: 6, 6: 5}
        assert {(swap.get(i, i), swap.get(j, j), kind) for i, j, kind in edges} == edges


def test_edges_of_one_kind_join_the_same_classes_over_the_same_number_of_bonds():
    topology = ethanol()
    graph, classes = neighbours(topology, 8), topological_classes(topology)
    meaning = {}
    for atom in range(len(topology)):
        for j, m, kind in zip(graph.index[atom], graph.mask[atom], graph.kind[atom], strict=True):
            if m:
                found = (classes[atom], classes[j], topology.bonds_between[atom, j])
                assert meaning.setdefault(int(kind), found) == found
    assert 0 not in meaning


def test_spherical_harmonics_have_length_one_and_their_products_are_legendres_polynomials():
    unit = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    harmonics = spherical_harmonics(unit, 2)
    cosine = unit @ unit.T
    expected = (cosine + 0.5 * (3 * cosine**2 - 1)) / 2
    assert torch.allclose(harmonics @ harmonics.T, expected, atol=1e-12)


def test_triple_products_change_their_sign_in_the_mirror_and_vanish_in_a_plane():
    vectors = torch.randn(20, 3, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mirror = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64)[:, None]
    assert torch.allclose(triple_products(vectors * mirror), -triple_products(vectors), atol=1e-14)
    flat = vectors * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)[:, None]
    assert triple_products(flat).abs().max() < 1e-14


def test_the_cutoff_falls_from_one_to_zero_and_the_basis_tells_bond_lengths_apart():
    assert torch.allclose(cosine_cutoff(torch.tensor([0.0, 2.5, 5.0, 9.0]), 5.0), torch.tensor([1.0, 0.5, 0.0, 0.0]))
    basis = ExponentialNormalBasis(16, 12.0)(torch.tensor([1.50, 1.51]))
    assert (basis[1] - basis[0]).abs().max() > 0.01
