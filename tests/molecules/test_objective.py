import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.molecules.objective import (
    Reconstruction,
    Weights,
    chirality_loss,
    clash_limits,
    distance_matrix,
    pair_loss,
    pairwise_distance_loss,
    torsion_loss,
)
from noumena.molecules.symmetry import centres
from tests.molecules.chains import conformations, ethanol, peptide, random_rotations

NONE = Weights(0.0, 0.0, 0.0, 0.0, 0.0)
ALL = Weights(aligned=1.0, local=2.0, torsion=3.0, chirality=4.0, clash=5.0)


@pytest.fixture
def target():
    return conformations(peptide(), 12, dtype=torch.float64)


@pytest.fixture
def predicted(target):
    return target + 0.2 * torch.randn(target.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_pairwise_loss_is_the_mean_over_pairs_of_each_molecule_and_then_over_the_batch(predicted, target):
    expected = np.mean(
        [
            np.mean((torch.pdist(one) - torch.pdist(other)).square().numpy())
            for one, other in zip(predicted, target, strict=True)
        ]
    )
    assert pairwise_distance_loss(predicted, target).item() == pytest.approx(expected, rel=1e-12)


def test_pairwise_loss_of_a_molecule_does_not_depend_on_the_others_of_its_batch(predicted, target):
    alone = [pairwise_distance_loss(predicted[i : i + 1], target[i : i + 1]) for i in range(len(target))]
    assert torch.allclose(torch.stack(alone).mean(), pairwise_distance_loss(predicted, target))


def test_distances_of_near_atoms_keep_their_digits_in_single_precision(target):
    far = (target + 50.0).float()
    exact = distance_matrix(far.double())
    assert (distance_matrix(far).double() - exact).abs().max() < 2e-5


@pytest.mark.parametrize("loss", ["bond", "pairwise"])
def test_distance_losses_are_blind_to_mirror_images_and_the_further_terms_are_not(target, loss):
    topology = peptide()
    total, _ = Reconstruction(topology, loss, NONE).double()(-target, target)
    assert total < 1e-20
    _, parts = Reconstruction(topology, loss, ALL).double()(-target, target)
    for name in ("aligned", "torsion", "chirality"):
        assert parts[name] > 0.05, name


def test_every_term_is_invariant_to_rotation_and_translation_of_either_side(predicted, target):
    topology = peptide()
    terms = Reconstruction(topology, "pairwise", ALL).double()
    plain, parts = terms(predicted, target)
    shift = torch.randn(len(target), 1, 3, dtype=torch.float64)
    moved, moved_parts = terms(predicted @ random_rotations(len(target)) + shift, target)
    assert torch.allclose(plain, moved, rtol=1e-9)
    for name, value in parts.items():
        assert torch.allclose(value, moved_parts[name], rtol=1e-8), name


def test_the_total_is_the_weighted_sum_of_its_parts(predicted, target):
    total, parts = Reconstruction(peptide(), "pairwise", ALL).double()(predicted, target)
    weights = {"pairwise": 1.0, "aligned": 1.0, "local": 2.0, "torsion": 3.0, "chirality": 4.0, "clash": 5.0}
    assert torch.allclose(total, sum(weights[name] * value for name, value in parts.items()))


def test_a_perfect_reconstruction_costs_nothing_but_its_own_clashes(target):
    _, parts = Reconstruction(peptide(), "bond", ALL).double()(target.clone(), target)
    for name in ("bond", "local", "aligned", "torsion", "chirality"):
        assert parts[name].abs() < 1e-12, name


def test_torsion_loss_is_one_minus_the_cosine_of_the_differences(predicted, target):
    from noumena.molecules.geometry import torsions

    quadruples = torch.from_numpy(peptide().torsion_index)
    expected = (1 - torch.cos(torsions(predicted, quadruples) - torsions(target, quadruples))).mean()
    assert torch.allclose(torsion_loss(predicted, target, quadruples), expected)


def test_clashes_are_counted_between_atoms_four_or_more_bonds_apart_only():
    topology = peptide(1)
    far = topology.pair_index(4)
    xyz = torch.zeros(1, len(topology), 3, dtype=torch.float64)
    xyz[0, :, 0] = torch.arange(len(topology)) * 10.0
    terms = Reconstruction(topology, "bond", ALL).double()
    assert terms.overlaps(xyz) == 0
    i, j = far[0]
    xyz[0, j] = xyz[0, i] + torch.tensor([2.0, 0.0, 0.0])
    assert terms.overlaps(xyz).item() == pytest.approx((clash_limits(topology, far)[0] - 2.0) ** 2)
    near = topology.pair_index(1, 3)[0]
    xyz[0, :, 0] = torch.arange(len(topology)) * 10.0
    xyz[0, near[1]] = xyz[0, near[0]]
    assert terms.overlaps(xyz) == 0


def test_hydrogens_may_come_nearer():
    limits = clash_limits(ethanol(), np.asarray([[0, 1], [0, 3], [3, 4]]))
    assert limits[0] > limits[1] >= limits[2]


@pytest.mark.parametrize("term", ["pairwise", "pair", "torsion", "chirality"])
def test_gradients_are_those_of_finite_differences(predicted, target, term):
    topology = peptide()
    functions = {
        "pairwise": lambda x: pairwise_distance_loss(x, target[:2]),
        "pair": lambda x: pair_loss(x, target[:2], torch.from_numpy(topology.bond_index)),
        "torsion": lambda x: torsion_loss(x, target[:2], torch.from_numpy(topology.torsion_index)),
        "chirality": lambda x: chirality_loss(x, target[:2], torch.from_numpy(centres(topology))),
    }
    assert torch.autograd.gradcheck(functions[term], (predicted[:2].clone().requires_grad_(),))


def test_batches_of_different_shape_are_refused(target):
    with pytest.raises(DataError, match="same shape"):
        pairwise_distance_loss(target[:3], target[:2])
    with pytest.raises(DataError, match="2 or more atoms"):
        pairwise_distance_loss(target[:, :1], target[:, :1])
