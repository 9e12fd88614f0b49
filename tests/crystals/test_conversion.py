import numpy as np
import pytest

from noumena.crystals.conversion import atom_columns, to_ase, to_pymatgen
from noumena.crystals.elements import SYMBOLS
from tests.crystals.random_cells import made


def test_pymatgen_and_ase_get_the_same_cells_sites_and_names():
    pytest.importorskip("pymatgen.core")
    pytest.importorskip("ase")
    batch = made(5)
    structures, atoms = to_pymatgen(batch), to_ase(batch)
    for number, (structure, one) in enumerate(zip(structures, atoms, strict=True)):
        rows = slice(*batch.offsets[number : number + 2].tolist())
        np.testing.assert_allclose(structure.lattice.matrix, batch.lattice[number], atol=1e-12)
        np.testing.assert_allclose(structure.frac_coords, batch.frac_coords[rows], atol=1e-12)
        np.testing.assert_allclose(one.positions, batch.cart_coords[rows], atol=1e-9)
        np.testing.assert_allclose(one.cell[:], batch.lattice[number], atol=1e-12)
        assert [site.specie.Z for site in structure] == one.numbers.tolist() == batch.atom_types[rows].tolist()
        assert structure.properties["material_id"] == one.info["material_id"] == batch.names[number]
        assert one.pbc.all()
    assert "material_id" not in to_ase(made(1, names=False))[0].info


def test_rows_of_atoms_tell_crystal_number_and_element():
    batch = made(4)
    found = atom_columns(batch)
    for crystal, name in enumerate(batch.names):
        rows = found["id"] == name
        assert found["atom"][rows].tolist() == list(range(int(batch.num_atoms[crystal])))
        expected = batch.atom_types[batch.crystal == crystal].tolist()
        assert found["element"][rows].tolist() == [SYMBOLS[number] for number in expected]
    assert "id" not in atom_columns(made(2, names=False))
