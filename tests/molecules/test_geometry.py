import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from noumena.molecules import geometry
from tests.molecules.chains import conformations, peptide, random_rotations


@pytest.fixture
def xyz():
    return conformations(peptide(), 20, dtype=torch.float64)


def test_torsions_follow_the_iupac_sign():
    # Looking from the second to the third atom, a clockwise turn of the front bond onto the rear one is positive.
    front, rear = [1.0, 0.0, 0.0], [np.cos(-0.5), np.sin(-0.5), 1.0]
    frame = torch.tensor([[front, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0], rear]])
    # Seen along +z, x to y is clockwise turned round: the rear bond at -0.5 about +z lies clockwise of the front one.
    angle = geometry.torsions(frame, torch.tensor([[0, 1, 2, 3]]))
    assert angle.item() == pytest.approx(-0.5)


def test_torsions_and_angles_equal_the_textbook_formulas(xyz):
    topology = peptide()
    quadruples = topology.torsion_index
    a, b, c, d = (xyz[:, quadruples[:, k]] for k in range(4))
    n1, n2 = torch.linalg.cross(b - a, c - b), torch.linalg.cross(c - b, d - c)
    cosine = (n1 * n2).sum(-1) / n1.norm(dim=-1) / n2.norm(dim=-1)
    sign = torch.sign((n1 * (d - c)).sum(-1))
    expected = sign * torch.arccos(cosine.clamp(-1, 1))
    assert torch.allclose(geometry.torsions(xyz, torch.from_numpy(quadruples)), expected, atol=1e-6)
    triples = topology.angle_index
    first, second = xyz[:, triples[:, 0]] - xyz[:, triples[:, 1]], xyz[:, triples[:, 2]] - xyz[:, triples[:, 1]]
    cosine = (first * second).sum(-1) / first.norm(dim=-1) / second.norm(dim=-1)
    assert torch.allclose(geometry.angles(xyz, torch.from_numpy(triples)), torch.arccos(cosine), atol=1e-8)


def test_superposition_undoes_any_rotation_and_translation(xyz):
    moved = xyz @ random_rotations(20) + torch.randn(20, 1, 3, dtype=torch.float64)
    assert torch.allclose(geometry.superposed(moved, xyz), xyz, atol=1e-10)
    assert geometry.aligned_square_deviation(moved, xyz).max() < 1e-20


def test_superposition_is_scipys(xyz):
    other = torch.randn(20, xyz.shape[1], 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    other = other - other.mean(1, keepdim=True)
    target = xyz - xyz.mean(1, keepdim=True)
    for number in range(20):
        _, distance = Rotation.align_vectors(target[number].numpy(), other[number].numpy())
        found = geometry.aligned_square_deviation(other[number : number + 1], target[number : number + 1])
        assert found.item() == pytest.approx(distance**2 / xyz.shape[1], rel=1e-6)


def test_a_mirror_image_is_superposed_by_a_reflection_alone(xyz):
    proper = geometry.aligned_square_deviation(-xyz, xyz)
    reflected = geometry.aligned_square_deviation(-xyz, xyz, reflect=True)
    assert reflected.max() < 1e-20
    assert proper.min() > 0.1
    rotation = geometry.rotation_onto(-xyz, xyz)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(20, dtype=torch.float64))


def test_the_aligned_deviation_has_the_gradient_of_finite_differences(xyz):
    target = xyz[:2]
    moving = (target + 0.3 * torch.randn(target.shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: geometry.aligned_square_deviation(x, target), (moving,), atol=1e-6)


def test_signed_volumes_are_determinants_and_change_sign_in_the_mirror(xyz):
    quadruples = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7]])
    a, b, c, d = (xyz[:, quadruples[:, k]] for k in range(4))
    expected = torch.linalg.det(torch.stack([b - a, c - a, d - a], -2))
    found = geometry.signed_volumes(xyz, quadruples)
    assert torch.allclose(found, expected)
    assert torch.allclose(geometry.signed_volumes(-xyz, quadruples), -found)


def test_gradients_are_finite_where_atoms_coincide_or_lie_on_a_line():
    frame = torch.zeros(1, 4, 3, requires_grad=True)
    found = (
        geometry.distances(frame, torch.tensor([[0, 1]])).sum()
        + geometry.angles(frame, torch.tensor([[0, 1, 2]])).sum()
        + geometry.torsions(frame, torch.tensor([[0, 1, 2, 3]])).sum()
    )
    found.backward()
    assert torch.isfinite(frame.grad).all()
