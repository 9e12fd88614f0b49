import numpy as np
import pytest

from noumena.crystals.formats.cif import read_cif
from tests.crystals.structures import cif_of, distances, random_structure

SALT = """data_salt
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{group}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
{extra}
{sites}
"""
SITES = "Na1 Na1+ 0 0 0\nCl1 Cl1- 0.5 0.5 0.5"


def salt(group="_symmetry_space_group_name_H-M 'F m -3 m'", sites=SITES, extra=""):
    return SALT.format(group=group, sites=sites, extra=extra)


def only(text):
    found, skipped = read_cif(text, "file.cif", "name")
    assert not skipped
    assert len(found) == 1
    return found[0]


def reason(text):
    found, skipped = read_cif(text, "file.cif", "name")
    assert not found
    assert len(skipped) == 1
    assert skipped[0].where.startswith("file.cif")
    return skipped[0].reason


@pytest.mark.parametrize("seed", range(4))
def test_a_structure_comes_back_as_it_was_written(seed):
    one = random_structure(seed)
    found = only(cif_of(one))
    assert found.atom_types.tolist() == one.atom_types.tolist()
    np.testing.assert_allclose(found.frac_coords, one.frac_coords, atol=1e-9)
    np.testing.assert_allclose(found.lattice @ found.lattice.T, one.lattice @ one.lattice.T, atol=1e-6)


@pytest.mark.parametrize(
    "group",
    [
        "_symmetry_space_group_name_H-M 'F m -3 m'",
        "_space_group_name_H-M_alt 'Fm-3m'",
        "_space_group_name_Hall '-F 4 2 3'",
        "_space_group_IT_number 225",
    ],
)
def test_the_named_space_group_gives_all_atoms(group):
    found = only(salt(group))
    assert found.atom_types.tolist() == [11] * 4 + [17] * 4
    near = distances(found.lattice, found.frac_coords, found.atom_types, 3.0)
    np.testing.assert_allclose(near.reshape(8, 6, 2)[..., 1], 2.82)


def test_without_any_symmetry_it_is_p1_and_operations_go_before_names():
    assert only(salt("")).atom_types.tolist() == [11, 17]
    listed = "_symmetry_space_group_name_H-M 'F m -3 m'\nloop_\n_symmetry_equiv_pos_as_xyz\nx,y,z\n'x, y+1/2, z+1/2'"
    assert only(salt(listed)).atom_types.tolist() == [11, 11, 17, 17]


@pytest.mark.filterwarnings("ignore:Issues encountered")
def test_atoms_of_all_symmetries_are_those_of_another_program():
    parser = pytest.importorskip("pymatgen.io.cif").CifParser
    for number in (14, 62, 166, 194, 216, 227):
        sites = "A1 Fe 0.11 0.23 0.37\nB1 O 0 0 0\nC1 S 0.3333 0.6667 0.25"
        text = salt(f"_space_group_IT_number {number}", sites).replace("_length_c 5.64", "_length_c 9.4")
        if number in (166, 194):
            text = text.replace("_gamma 90", "_gamma 120")
        if number in (216, 227):
            text = text.replace("9.4", "5.64").replace("0.3333 0.6667 0.25", "0.125 0.125 0.125")
        text = text.replace("5.64", "15.64")
        expected = parser.from_str(text, site_tolerance=1e-3).parse_structures(primitive=False)[0]
        found = only(text)
        assert sorted(found.atom_types.tolist()) == sorted(site.specie.Z for site in expected)
        gap = found.frac_coords[:, None] - expected.frac_coords[None]
        length = np.linalg.norm((gap - np.rint(gap)) @ found.lattice, axis=-1)
        assert length.min(1).max() < 5e-3


def test_a_site_near_a_symmetry_element_is_one_atom_on_it():
    found = only(salt("_space_group_IT_number 225", "Na1 Na 0.0001 0 -0.0002\nCl1 Cl 0.5 0.5001 0.5"))
    assert found.atom_types.tolist() == [11] * 4 + [17] * 4
    doubled = found.frac_coords * 2
    np.testing.assert_allclose(doubled, np.rint(doubled), atol=1e-12)


def test_thirds_with_few_digits_are_thirds_and_other_numbers_stay():
    sites = "O1 O 0.3333 0.6667 0.16667\nO2 O 0.6666 0.8333 -0.3333333\nO3 O 0.33338 0.3331 0.16661\nO4 O 0.334 0.5 0"
    found = only(salt("", sites)).frac_coords
    np.testing.assert_array_equal(found[0], [1 / 3, 2 / 3, 1 / 6])
    np.testing.assert_allclose(found[1], [2 / 3, 5 / 6, -1 / 3], atol=1e-15)
    assert found[2].tolist() == [0.33338, 0.3331, 0.16661]
    assert found[3].tolist() == [0.334, 0.5, 0.0]


@pytest.mark.parametrize(
    ("symbol", "number"), [("Fe3+", 26), ("FE", 26), ("O2-", 8), ("D", 1), ("Cl", 17), ("'Na+'", 11), ("U", 92)]
)
def test_symbols_with_charges_and_deuterium_are_elements(symbol, number):
    assert only(salt("", f"X1 {symbol} 0 0 0")).atom_types.tolist() == [number]


def test_elements_of_labels_are_used_where_they_can_be_only_one():
    def labels(*given):
        return salt("", "\n".join(f"{label} ? {0.1 * row:.1f} 0 0" for row, label in enumerate(given)))

    assert only(labels("Fe1", "O12", "Ow1", "Cl")).atom_types.tolist() == [26, 8, 8, 17]
    for label in ("CA1", "Wat1", "1Fe", "Zz"):
        assert "no known element" in reason(labels(label))
        assert label in reason(labels(label))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (salt(extra="_atom_site_occupancy", sites="Na1 Na 0 0 0 1\nCl1 Cl .5 .5 .5 0.75(2)"), "occupancy 0.75(2)"),
        (salt(extra="_atom_site_disorder_group", sites="Na1 Na 0 0 0 A"), "disorder group A"),
        (salt(extra="_atom_site_attached_hydrogens", sites="O1 O 0 0 0 2"), "2 hydrogens"),
        (salt(sites="Na1 Na ? 0 0"), "expected a number"),
        (salt(sites="Q1 Q 0 0 0"), "no known element"),
        (salt(sites="V1 Vac 0 0 0"), "no known element"),
        (salt().replace("_cell_length_b 5.64", ""), "_cell_length_b is missing"),
        (salt().replace("_cell_length_b 5.64", "_cell_length_b -5"), "not positive"),
        (salt().replace("_cell_length_b 5.64", "_cell_length_b 0"), "not positive"),
        (salt().replace("_cell_length_b 5.64", "_cell_length_b nan"), "not finite"),
        (salt().replace("_cell_angle_gamma 90", "_cell_angle_gamma 190"), "close none"),
        (salt().replace("_angle_gamma 90", "_angle_gamma 20").replace("_beta 90", "_beta 60"), "close none"),
        (salt("_symmetry_space_group_name_H-M 'Z 9'"), "'Z 9' is not known"),
        (salt("loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, q'"), "symmetry operation"),
        ("data_x\n_cell_length_a 5", "missing"),
        ("data_x\n_cell_length_a 'open", "no CIF"),
        ("hello", "no CIF"),
        ("", "no data block"),
    ],
)
def test_what_is_no_ordered_crystal_is_left_out_with_the_reason(text, words):
    assert words in reason(text)


def test_occupancies_with_uncertainty_or_unknown_count_as_whole():
    text = salt("", "Na1 Na 0 0 0 1.0000(3)\nCl1 Cl 0.5(1) 0.5 0.5 ?", "_atom_site_occupancy")
    assert only(text).frac_coords.tolist() == [[0, 0, 0], [0.5, 0.5, 0.5]]


def test_every_block_with_atoms_is_a_crystal_and_headers_are_none():
    text = "data_header\n_author 'me'\n" + cif_of(random_structure(1)) + salt().replace("5.64", "0", 1)
    found, skipped = read_cif(text, "file.cif", "name")
    assert [(one.name, one.where) for one in found] == [("name:s1", "file.cif, block 's1'")]
    assert [(one.name, one.where) for one in skipped] == [("name:salt", "file.cif, block 'salt'")]
