import json

import numpy as np
import pytest

from noumena.core.errors import DataError
from noumena.molecules.elements import atomic_number, covalent_radii
from noumena.molecules.topology import Topology
from tests.molecules.chains import alanine, ethanol, peptide, ring


@pytest.mark.parametrize("make", [peptide, alanine, ring, ethanol])
def test_a_topology_comes_back_from_json(make):
    topology = make()
    assert Topology.from_json(json.loads(json.dumps(topology.to_json()))) == topology


def test_backbone_torsions_are_found_by_names_and_bonds_of_any_residue():
    topology = peptide(3)
    named = topology.torsions
    for residue in (2, 3, 4):
        atoms = [topology.names[a] for a in named[f"phi:{residue}"]]
        assert atoms == ["C", "N", "CA", "C"]
        assert topology.residue_ids[named[f"phi:{residue}"][1]] == residue
    assert [topology.names[a] for a in named["psi:3"]] == ["N", "CA", "C", "N"]
    assert [topology.names[a] for a in named["omega:3"]] == ["CA", "C", "N", "CA"]
    assert topology.residue_ids[named["omega:3"][2]] == 3


def test_every_bond_with_atoms_on_both_sides_has_one_torsion():
    topology = ethanol()
    axes = [frozenset(q[1:3]) for q in topology.torsion_index.tolist()]
    assert sorted(map(sorted, axes)) == [[0, 1], [1, 2]]
    assert len(topology.torsions) == 2


def test_bonds_between_atoms_are_counted_along_the_shortest_way():
    topology = ring()
    assert topology.bonds_between[0, 3] == 3
    assert topology.bonds_between[0, 5] == 1
    assert topology.bonds_between[6, 3] == 4
    assert (topology.bonds_between == topology.bonds_between.T).all()
    assert len(topology.pair_index()) == 21
    assert len(topology.pair_index(1, 1)) == 7


def test_bonds_of_a_ring_are_told_from_others():
    topology = ring()
    assert topology.ring_bonds.sum() == 6
    assert not peptide().ring_bonds.any()


def test_formula_angles_and_subset():
    assert ethanol().formula == "C2H6O"
    assert len(ethanol().angle_index) == 6 + 6 + 1
    assert peptide().formula == "C15N3O4"
    heavy = ethanol().subset(np.flatnonzero(ethanol().heavy))
    assert heavy.bonds == ((0, 1), (1, 2))


def test_atoms_that_no_bonds_connect_are_refused_by_name():
    with pytest.raises(DataError, match=r"2 of 4 atoms .* atom 3 \(O1 of MOL1\).*selection"):
        Topology.make([6, 6, 8, 1], [(0, 1), (2, 3)])


@pytest.mark.parametrize(
    ("elements", "bonds", "options", "words"),
    [
        ([6], [], {}, "1 atoms"),
        ([6, 200], [(0, 1)], {}, "200 is no atomic number"),
        ([6, 6], [(0, 2)], {}, "joins atoms 0 and 2"),
        ([6, 6], [(1, 1)], {}, "two different"),
        ([6, 6], [(0, 1), (1, 0)], {}, "given twice"),
        ([6, 6], [(0, 1)], {"names": ["C"]}, "1 names for 2 atoms"),
        ([6, 6], [(0, 1)], {"orders": [1, 2]}, "2 bond orders for 1 bonds"),
    ],
)
def test_an_impossible_topology_is_refused_in_words(elements, bonds, options, words):
    with pytest.raises(DataError, match=words):
        Topology.make(elements, bonds, **options)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        {"elements": [6, 6]},
        {"elements": [6, 6], "bonds": [[0, 1]], "code": "import os"},
        {"elements": "CC", "bonds": [[0, 1]]},
        {"elements": [6, "x"], "bonds": [[0, 1]]},
        {"elements": [6, 6], "bonds": [[0]]},
        {"elements": [6, 6], "bonds": [[0, 1]] * 1000},
    ],
)
def test_a_damaged_description_is_refused(entry):
    with pytest.raises(DataError):
        Topology.from_json(entry)


def test_the_first_difference_of_two_molecules_is_named():
    assert ethanol().difference(ethanol()) is None
    assert "9 atoms (C2H6O) instead of 7" in ethanol().difference(alanine())
    other = Topology.make([6, 6, 16, 1, 1, 1, 1, 1, 1], ethanol().bonds)
    assert "atom 3 is S" in other.difference(ethanol())
    moved = Topology.make(ethanol().elements, [(0, 1), (1, 2), (2, 3), (0, 8), (0, 4), (0, 5), (1, 6), (1, 7)])
    assert "the bond 1-9" in moved.difference(ethanol())


def test_symbols_and_radii():
    assert atomic_number(" cl ") == 17
    assert covalent_radii([1, 6, 8]).tolist() == [0.31, 0.76, 0.66]
    with pytest.raises(DataError, match="'Qq' is no element"):
        atomic_number("Qq")
