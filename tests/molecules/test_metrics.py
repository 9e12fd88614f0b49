import math
from itertools import combinations

import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError, DataError
from noumena.molecules import metrics
from noumena.molecules.distributions import (
    BASINS,
    POPULATED,
    SURFACE_BINS,
    Surface,
    backbone_pairs,
    basin_populations,
    circular_wasserstein,
    jensen_shannon,
    surface,
    surface_error,
    total_variation,
    widest_torsions,
)
from noumena.molecules.handedness import Centres, Handedness
from noumena.molecules.metrics import errors, internal
from noumena.molecules.topology import Topology
from noumena.molecules.validity import Validity
from tests.molecules.chains import alanine, conformations, dimer, ethanol, peptide, random_rotations, water


@pytest.fixture(scope="module")
def aib():
    topology = peptide(6)
    return topology, conformations(topology, 40)


def noisy(xyz, size=0.1, seed=0):
    return xyz + size * torch.randn(xyz.shape, generator=torch.Generator().manual_seed(seed))


# Errors of reconstructions


def test_the_error_of_pair_distances_is_that_of_a_loop_over_frames_and_pairs(aib):
    topology, xyz = aib
    other = noisy(xyz)
    squares = [
        (torch.dist(first[i], first[j]) - torch.dist(second[i], second[j])).item() ** 2
        for first, second in zip(xyz[:5], other[:5], strict=True)
        for i, j in combinations(range(len(topology)), 2)
    ]
    found = errors(xyz[:5], other[:5], topology).values
    assert found["pair_rmse"] == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-4)


def test_the_aligned_rmsd_is_that_of_scipys_rotation(aib):
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    topology, xyz = aib
    turned = torch.einsum("nai,nij->naj", noisy(xyz), random_rotations(len(xyz)).float()) + 3.0
    squares = []
    for truth, guess in zip(xyz.numpy(), turned.numpy(), strict=True):
        _, distance = rotation.align_vectors(truth - truth.mean(0), guess - guess.mean(0))
        squares.append(distance**2 / len(topology))
    found = errors(xyz, turned, topology).values
    assert found["rmsd"] == pytest.approx(math.sqrt(np.mean(squares)), rel=1e-4)
    assert found["rmsd_mean"] == pytest.approx(np.mean(np.sqrt(squares)), rel=1e-4)


def test_a_turned_and_shifted_frame_has_no_error(aib):
    topology, xyz = aib
    turned = torch.einsum("nai,nij->naj", xyz, random_rotations(len(xyz)).float()) - 1.0
    assert all(value < 2e-3 for value in errors(xyz, turned, topology).values.values())


def test_a_mirror_image_has_the_same_distances_and_no_error_only_if_reflections_are_allowed(aib):
    topology, xyz = aib
    found = errors(xyz, -xyz, topology).values
    assert found["pair_rmse"] == 0
    assert found["bond_rmse"] == 0
    assert found["rmsd_reflected"] < 1e-3 < 0.5 < found["rmsd"]
    assert found["torsion_mae_deg"] > 30


def test_errors_do_not_depend_on_the_size_of_the_chunks(aib, monkeypatch):
    topology, xyz = aib
    whole = errors(xyz, noisy(xyz), topology).values
    monkeypatch.setattr(metrics, "_CHUNK_NUMBERS", 3 * len(topology) ** 2)
    monkeypatch.setattr(metrics, "_CHUNK_FRAMES", 7)
    assert errors(xyz, noisy(xyz), topology).values == pytest.approx(whole, rel=1e-5)


def test_torsions_on_both_sides_of_180_degrees_are_near_each_other():
    gap = metrics.wrapped(torch.tensor([math.radians(179.0) - math.radians(-179.0)]))
    assert math.degrees(gap.item()) == pytest.approx(-2.0, abs=1e-3)


@pytest.mark.parametrize("topology", [water(), dimer()])
def test_molecules_without_torsions_or_angles_have_the_errors_they_can_have(topology):
    xyz = torch.randn(4, len(topology), 3)
    found = errors(xyz, xyz, topology).values
    assert "torsion_mae_deg" not in found
    assert ("angle_rmse_deg" in found) == (len(topology) > 2)


def test_reconstructions_of_another_shape_are_refused(aib):
    topology, xyz = aib
    with pytest.raises(DataError, match="expected the same"):
        errors(xyz, xyz[:3], topology)
    with pytest.raises(DataError, match="one frame or more"):
        errors(xyz[:0], xyz[:0], topology)


# Distributions


def test_total_variation_is_nothing_for_the_same_and_one_for_disjoint_data():
    values = np.linspace(0.0, 1.0, 500)
    assert total_variation(values, values, 0.0, 1.0) == 0
    assert total_variation(values, np.repeat(values, 3), 0.0, 1.0) == pytest.approx(0.0)
    assert total_variation(values, values + 5.0, 0.0, 1.0) == pytest.approx(1.0)


def test_divergence_of_torsions_is_between_nothing_and_the_logarithm_of_two():
    rng = np.random.default_rng(0)
    one, other = rng.uniform(-math.pi, 0, (500, 1)), rng.uniform(0, math.pi, (300, 1))
    assert jensen_shannon(one, one) == pytest.approx(0.0, abs=1e-12)
    assert jensen_shannon(one, other) == pytest.approx(math.log(2.0))
    mixed = np.concatenate([one, other])
    assert jensen_shannon(one, mixed) == pytest.approx(jensen_shannon(mixed, one))


@pytest.mark.parametrize("turn", [0.3, -1.2, 2.5])
def test_the_distance_of_torsions_turned_alike_is_the_angle_they_are_turned_by(turn):
    angles = np.random.default_rng(1).normal(2.9, 0.1, (400, 2))
    wrapped = [np.angle(np.exp(1j * part)) for part in (angles, angles + turn)]
    assert circular_wasserstein(*wrapped) == pytest.approx(abs(turn), abs=math.radians(1.0))


def test_free_energies_of_the_same_data_do_not_differ_and_missing_basins_cost():
    rng = np.random.default_rng(2)
    phi, psi = rng.normal(-1.0, 0.2, 4000), rng.normal(-0.8, 0.2, 4000)
    data = surface(phi, psi)
    assert data.counts.sum() == 4000
    assert data.energy.min() == 0
    assert surface_error(data, data) == 0
    assert surface_error(data, surface(phi[:2000], psi[:2000])) < 0.3
    far = surface_error(data, surface(-phi, -psi))
    assert math.isfinite(far)
    assert far > 0.4


def test_a_surface_that_is_shifted_by_a_constant_is_the_same():
    counts = np.full((SURFACE_BINS, SURFACE_BINS), 0)
    counts[:2, 0] = 100, 200
    spilled = counts.copy()
    spilled[9, 9] = 300
    assert surface_error(Surface(counts), Surface(spilled)) == pytest.approx(0.0, abs=1e-12)


def test_a_surface_without_populated_bins_has_no_error():
    few = surface(np.zeros(POPULATED - 1), np.zeros(POPULATED - 1))
    assert math.isnan(surface_error(few, few))


def test_basins_cover_the_map_and_a_mirror_image_is_in_the_mirrored_basin():
    rng = np.random.default_rng(3)
    phi, psi = rng.uniform(-math.pi, math.pi, (2, 5000))
    found, mirrored = basin_populations(phi, psi), basin_populations(-phi, -psi)
    assert sum(found.values()) == pytest.approx(1.0)
    assert [mirrored[b] for b in ("alphaL", "gamma", "alphaR", "beta")] == [found[b] for b in BASINS]
    degrees = {"alphaR": (-60, -45), "beta": (-80, 75), "alphaL": (57, 47), "gamma": (70, -70)}
    for name, (first, second) in degrees.items():
        assert basin_populations(np.radians([first]), np.radians([second]))[name] == 1


def test_phi_and_psi_are_paired_by_residue(aib):
    topology, _ = aib
    names = list(topology.torsions)
    for residue, (i, j) in backbone_pairs(topology).items():
        assert (names[i], names[j]) == (f"phi:{residue}", f"psi:{residue}")
    assert len(backbone_pairs(topology)) == 5
    assert backbone_pairs(ethanol()) == {}


def test_methyl_groups_come_last_among_the_torsions_that_vary():
    topology = ethanol()
    names = list(topology.torsions.values())
    order = widest_torsions(topology, np.random.default_rng(0).uniform(-3, 3, (50, len(names))) * [3.0, 0.1])
    assert set(names[order[0]][1:3]) == {1, 2}


# Validity


def chain(elements):
    return Topology.make(elements, [(i, i + 1) for i in range(len(elements) - 1)])


@pytest.mark.parametrize(("ends", "limit"), [((6, 8), 2.2), ((6, 1), 1.6), ((1, 1), 1.4)])
def test_a_pair_clashes_below_the_limit_of_its_kind(ends, limit):
    topology = chain([ends[0], 6, 6, 6, ends[1]])
    xyz = torch.tensor([[0.0, 0, 0], [0, 30, 0], [10, 30, 0], [20, 30, 0], [0, 0, 0]]).repeat(2, 1, 1)
    xyz[0, 4, 2], xyz[1, 4, 2] = limit - 0.02, limit + 0.02
    assert Validity.fit(xyz, topology).flaws(xyz).clash.tolist() == [True, False]


def test_atoms_that_few_bonds_hold_together_do_not_clash():
    topology = chain([6, 6, 6, 6])
    xyz = torch.zeros(1, 4, 3)
    assert not Validity.fit(xyz, topology).flaws(xyz).clash.any()


def test_a_bond_far_off_its_mean_is_broken():
    topology = dimer()
    train = torch.tensor([[[0.0, 0, 0], [1.2, 0, 0]]]).repeat(10, 1, 1)
    frames = torch.tensor([[[0.0, 0, 0], [0, x, 0]] for x in (1.2, 1.44, 1.46, 0.96, 0.94)])
    flaws = Validity.fit(train, topology).flaws(frames)
    assert flaws.broken.tolist() == [False, False, True, False, True]
    assert flaws.rates == {"bad": 0.4, "clash": 0.0, "broken": 0.4}


# Left and right


def test_the_hand_of_a_peptide_is_that_of_its_five_inner_phi():
    assert Handedness.of(peptide(9)).names == tuple(f"phi:{i}" for i in range(4, 9))
    assert Handedness.of(peptide(9)).threshold == pytest.approx(math.pi)
    assert Handedness.of(peptide(4)) is None
    assert Handedness.of(ethanol()) is None
    assert Handedness.of(peptide(9), []) is None


def test_torsions_of_the_hand_that_do_not_exist_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"phi:3"):
        Handedness.of(peptide(3), ["phy:3"])
    with pytest.raises(ConfigError, match="twice"):
        Handedness.of(peptide(3), ["phi:3", "phi:3"])


def test_a_mirror_image_has_the_other_hand(aib):
    topology, xyz = aib
    hand = Handedness.of(topology)
    zeta, mirrored = (hand.zeta(internal(part, topology).torsions) for part in (xyz, -xyz))
    assert torch.allclose(zeta, -mirrored, atol=1e-4)
    shares, other = hand.fractions(zeta), hand.fractions(mirrored)
    assert shares["left"] == other["right"]
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_confusion_matrix_counts_originals_in_rows():
    hand = Handedness(("a",), (0,))
    left, right, none = 1.0, -1.0, 0.0
    counts = hand.confusion(
        torch.tensor([left, left, left, right, none]), torch.tensor([left, right, none, right, left])
    )
    assert counts.tolist() == [[1, 1, 1], [0, 1, 0], [1, 0, 0]]


def test_a_handed_frame_keeps_its_sign_or_even_stays_handed():
    hand = Handedness(("a",), (0,))
    original = torch.tensor([1.0, 1.0, 1.0, -1.0, 0.1])
    kept = hand.kept(original, torch.tensor([2.0, 0.2, -1.0, -3.0, 5.0]))
    assert kept == {"handed_right": 0.75, "handed_kept": 0.5, "handed_frames": 4.0}
    assert math.isnan(hand.kept(torch.zeros(3), torch.zeros(3))["handed_right"])


def test_a_stereocentre_keeps_its_sign_and_loses_it_in_the_mirror():
    topology = alanine()
    xyz = conformations(topology, 30)
    centres = Centres.find(topology, xyz)
    assert centres.stereogenic.any()
    assert [label.split()[0] for label in centres.labels] == ["CA"]
    assert centres.rates(xyz) == {"chirality": 1.0}
    assert centres.rates(-xyz) == {"chirality": 0.0}


def test_like_methyls_make_a_centre_by_label_only(aib):
    topology, xyz = aib
    centres = Centres.find(topology, xyz)
    assert len(centres) == 6
    assert not centres.stereogenic.any()
    assert centres.rates(xyz) == {"prochirality": 1.0}


def test_planar_atoms_are_no_centres():
    topology = Topology.make([6, 8, 7, 6], [(0, 1), (0, 2), (0, 3)])
    flat = torch.tensor([[0.0, 0, 0], [1.2, 0, 0], [-0.6, 1.2, 0], [-0.6, -1.2, 0]])
    assert len(Centres.find(topology, noisy(flat.repeat(200, 1, 1)))) == 0
