import numpy as np
import pytest
import torch

from noumena.molecules.geometry import aligned_square_deviation, signed_volumes, torsions
from noumena.molecules.internal import InternalCoordinates, ancestors, spanning_tree
from noumena.molecules.networks.internal import InternalDecoder
from noumena.molecules.symmetry import centres, constant_signs
from tests.molecules.chains import alanine, conformations, dimer, ethanol, peptide, ring, water

MOLECULES = [peptide, alanine, ring, ethanol, water, dimer]


@pytest.mark.parametrize("make", MOLECULES)
def test_any_conformation_comes_back_from_its_internal_coordinates(make):
    topology = make()
    internal = InternalCoordinates(topology).double()
    xyz = torch.randn(50, len(topology), 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    lengths, turns = internal(xyz)
    built = internal.build(lengths, torch.cos(turns), torch.sin(turns))
    assert aligned_square_deviation(built, xyz).max() < 1e-20


@pytest.mark.parametrize("make", MOLECULES)
def test_there_are_as_many_free_coordinates_as_degrees_of_freedom(make):
    topology = make()
    internal = InternalCoordinates(topology)
    fixed = 1 + int(internal.gauge_is_free and internal.rotors > 0)
    expected = 3 * len(topology) - 6 if len(topology) > 2 else 1
    assert internal.turns + 2 * (len(topology) - 1) - fixed == expected


@pytest.mark.parametrize("make", [peptide, ethanol, alanine])
def test_turning_one_bond_moves_the_torsion_about_it_and_no_other_internal_coordinate(make):
    topology = make()
    internal = InternalCoordinates(topology).double()
    lengths, turns = internal(conformations(topology, 4, dtype=torch.float64))
    turned = turns.clone()
    turned[:, -internal.sided - 1] += 0.7
    after = internal(internal.build(lengths, torch.cos(turned), torch.sin(turned)))
    assert torch.allclose(after[0], lengths, atol=1e-9)
    difference = torch.remainder(after[1] - turned + np.pi, 2 * np.pi) - np.pi
    assert difference.abs().max() < 1e-9


def test_a_rotors_torsion_is_that_of_its_four_atoms():
    topology = peptide()
    internal = InternalCoordinates(topology).double()
    xyz = conformations(topology, 8, dtype=torch.float64)
    quadruples = torch.from_numpy(internal.torsion_quadruples())
    assert torch.allclose(internal(xyz)[1][:, : internal.rotors], torsions(xyz, quadruples), atol=1e-9)


def test_a_mirror_image_has_the_same_lengths_and_opposite_turns():
    topology = peptide()
    internal = InternalCoordinates(topology).double()
    xyz = conformations(topology, 8, dtype=torch.float64)
    (lengths, turns), (lengths_m, turns_m) = internal(xyz), internal(-xyz)
    assert torch.allclose(lengths, lengths_m)
    assert torch.allclose(torch.cos(turns), torch.cos(turns_m))
    assert torch.allclose(torch.sin(turns), -torch.sin(turns_m), atol=1e-9)


def test_the_tree_starts_in_the_middle_and_takes_a_logarithm_of_its_depth_in_rounds():
    topology = peptide(20)
    tree = spanning_tree(topology)
    reach = topology.bonds_between.max(1)
    assert reach[tree.root] == reach.min()
    assert len(InternalCoordinates(topology).jumps) <= int(np.ceil(np.log2(reach[tree.root] + 1)))


@pytest.mark.parametrize("make", MOLECULES)
def test_the_tree_joins_bonded_atoms_and_pointer_jumping_adds_up_every_step_to_the_root(make):
    topology = make()
    tree = spanning_tree(topology)
    bonds = {frozenset(pair) for pair in topology.bonds}
    assert {frozenset((a, tree.parent[a])) for a in tree.order[1:]} <= bonds
    steps = np.ones(len(topology), dtype=int)
    steps[tree.root] = 0
    for jump in ancestors(tree.parent):
        steps = steps + steps[jump]
    assert (steps == topology.bonds_between[tree.root]).all()


@pytest.mark.parametrize("make", [peptide, alanine, ethanol])
def test_a_crossing_has_one_conformation_on_this_side_of_a_bond_and_the_other_beyond(make):
    topology = make()
    internal = InternalCoordinates(topology).double()
    first, second = conformations(topology, 8, dtype=torch.float64).split(4)
    for number in range(internal.bridges):
        crossed = internal.crossed(first, second, torch.full((4,), number))
        beyond = internal.beyond_rows[number].numpy()
        atoms = np.asarray(internal.tree.order[1:])[beyond]
        other = np.setdiff1d(np.arange(len(topology)), atoms)
        for kept, source in ((other, first), (atoms, second)):
            assert torch.allclose(
                torch.cdist(crossed[:, kept], crossed[:, kept]),
                torch.cdist(source[:, kept], source[:, kept]),
                atol=1e-6,
            )


def test_rings_are_not_crossed():
    assert InternalCoordinates(ring()).bridges == 0


def test_building_has_the_gradient_of_finite_differences():
    topology = peptide(1)
    internal = InternalCoordinates(topology).double()
    lengths, turns = internal(conformations(topology, 2, dtype=torch.float64))

    def build(lengths, turns):
        return internal.build(lengths, torch.cos(turns), torch.sin(turns))

    assert torch.autograd.gradcheck(build, (lengths.requires_grad_(), turns.requires_grad_()))


def test_whatever_the_latents_say_the_decoder_keeps_bonds_and_the_hand_of_every_centre():
    topology = alanine()
    xyz = conformations(topology, 400)
    decoder = InternalDecoder(topology, 4, width=16, blocks=1)
    decoder.calibrate(xyz)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        built = decoder(3.0 * torch.randn(500, 4, generator=torch.Generator().manual_seed(2)))
    quadruples = torch.from_numpy(centres(topology))
    signs = constant_signs(xyz, quadruples)
    assert signs.abs().sum() > 0
    kept = (torch.sign(signed_volumes(built, quadruples)) == signs) | (signs == 0)
    assert kept.float().mean() > 0.99
    lengths = InternalCoordinates(topology)(built)[0][..., 0]
    observed = InternalCoordinates(topology)(xyz)[0][..., 0]
    bound = 4.0 * observed.std(0) + 1e-4
    assert bool(((lengths - observed.mean(0)).abs() <= bound).all())


def test_an_untrained_decoder_gives_the_mean_structure():
    topology = peptide()
    xyz = conformations(topology, 300, spread=0.1)
    one_hand = xyz[torsions(xyz, torch.tensor([topology.torsions["phi:2"]]))[:, 0] > 0]
    decoder = InternalDecoder(topology, 4, width=16, blocks=1)
    decoder.calibrate(one_hand)
    with torch.no_grad():
        for layer in (decoder.lengths, decoder.turns):
            layer.weight.zero_()
            layer.bias.zero_()
        built = decoder(torch.zeros(1, 4))
    lengths, turns = InternalCoordinates(topology)(one_hand)
    built_lengths, built_turns = InternalCoordinates(topology)(built)
    assert torch.allclose(built_lengths[0], lengths.mean(0), atol=1e-4)
    mean_turn = torch.atan2(torch.sin(turns).mean(0), torch.cos(turns).mean(0))
    assert torch.cos(built_turns[0] - mean_turn).min() > 0.9999
