import numpy as np
import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.molecules.geometry import signed_volumes, torsions
from noumena.molecules.symmetry import (
    centres,
    constant_signs,
    mirror_permutation,
    topological_classes,
    unique_atoms,
)
from tests.molecules.chains import alanine, conformations, ethanol, peptide, ring


def test_atoms_that_elements_and_bonds_cannot_tell_apart_share_a_class():
    topology = peptide()
    classes = topological_classes(topology)
    for residue in (2, 3, 4):
        one, other = (
            next(a for a in range(len(topology)) if topology.names[a] == n and topology.residue_ids[a] == residue)
            for n in ("CB1", "CB2")
        )
        assert classes[one] == classes[other]
    assert len(set(classes)) == len(topology) - 3
    assert {topology.names[a] for a in set(range(len(topology))) - set(unique_atoms(topology))} == {"CB1", "CB2"}
    assert len(set(topological_classes(ethanol()))) == 6
    assert len(set(topological_classes(ring()))) == 5


@pytest.mark.parametrize("make", [peptide, ethanol])
def test_a_mirrored_frame_keeps_every_labelled_hand_and_turns_every_torsion_round(make):
    topology = make()
    xyz = conformations(topology, 200, dtype=torch.float64)
    permutation = mirror_permutation(topology, xyz)
    image = -xyz[:, permutation]
    quadruples = torch.from_numpy(centres(topology))
    signs = constant_signs(xyz, quadruples)
    assert signs.abs().sum() > 0
    assert torch.equal(constant_signs(image, quadruples), signs)
    assert [topology.elements[a] for a in permutation] == list(topology.elements)
    bonds = {frozenset((int(permutation[i]), int(permutation[j]))) for i, j in topology.bonds}
    assert bonds == {frozenset(pair) for pair in topology.bonds}
    backbone = [q for q in topology.torsion_index.tolist() if all(permutation[a] == a for a in q)]
    if backbone:
        index = torch.tensor(backbone)
        assert torch.allclose(torsions(image, index), -torsions(xyz, index), atol=1e-9)


def test_the_mirror_image_of_a_mirror_image_is_the_frame():
    topology = peptide()
    permutation = mirror_permutation(topology, conformations(topology, 200))
    assert (permutation[permutation] == np.arange(len(topology))).all()


def test_a_chiral_molecule_is_refused_by_the_name_of_its_centre():
    topology = alanine()
    with pytest.raises(ConfigError, match=r"CA of MOL1.*chiral"):
        mirror_permutation(topology, conformations(topology, 200))


def test_a_centre_that_inverts_in_the_data_has_no_constant_sign():
    topology = alanine()
    xyz = conformations(topology, 100, dtype=torch.float64)
    both = torch.cat([xyz, -xyz])
    quadruples = torch.from_numpy(centres(topology))
    assert (constant_signs(both, quadruples) == 0).all()
    kept = constant_signs(xyz, quadruples)
    assert kept[0] == torch.sign(signed_volumes(xyz[:1], quadruples))[0, 0]
    assert kept[1] == 0, "the flat carbonyl carbon has no hand"
