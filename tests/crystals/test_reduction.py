import numpy as np
import pytest

from noumena.core.errors import ConfigError
from noumena.crystals.formats.raw import Raw, Structure
from noumena.crystals.niggli import metric, niggli
from noumena.crystals.reduction import in_cell, reduce
from tests.crystals.structures import distances, random_structure

SHEARS = np.array(
    [[[1, 2, 0], [0, 1, 0], [0, -1, 1]], [[2, 1, 0], [1, 1, 0], [3, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]]
)
SUPERCELLS = np.array(
    [[[2, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 1, 0], [-1, 2, 0], [0, 0, 1]], [[0, 1, 1], [1, 0, 1], [1, 1, 0]]]
)


def rotation(seed: int) -> np.ndarray:
    matrix, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix))


def supercell(one: Structure, matrix: np.ndarray, seed: int, noise: float = 0.0) -> Structure:
    """The same crystal in a larger cell, with the atoms in any order, moved and turned."""
    generator = np.random.default_rng(seed)
    steps = np.stack(np.meshgrid(*[np.arange(-4, 5)] * 3, indexing="ij"), -1).reshape(-1, 3)
    inside = (steps + np.array([1.1e-3, 2.7e-3, 5.3e-3])) @ np.linalg.inv(matrix)
    steps = steps[((inside >= 0) & (inside < 1)).all(1)]
    assert len(steps) == round(abs(np.linalg.det(matrix)))
    frac = (one.frac_coords[None] + steps[:, None]).reshape(-1, 3) @ np.linalg.inv(matrix)
    types = np.tile(one.atom_types, len(steps))
    lattice = matrix @ one.lattice
    frac = frac + noise * generator.normal(size=frac.shape) @ np.linalg.inv(lattice) + generator.random(3)
    order = generator.permutation(len(types))
    return Structure(lattice @ rotation(seed), frac[order], types[order], "super", one.name)


def crystal_of(raw: Raw, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    atoms = slice(*raw.offsets[number : number + 2])
    return raw.lattice[number], raw.frac_coords[atoms], raw.atom_types[atoms]


def assert_same_crystal(first: Raw, second: Raw, tolerance: float = 1e-6) -> None:
    for number in range(len(first)):
        one, two = distances(*crystal_of(first, number)), distances(*crystal_of(second, number))
        assert one.shape == two.shape
        assert np.abs(one - two).max() < tolerance


@pytest.mark.parametrize("reduction", ["niggli", "primitive"])
def test_every_cell_of_a_crystal_reduces_to_the_same_one(reduction):
    originals = [random_structure(seed, atoms=4 + seed % 3) for seed in range(6)]
    expected = reduce(Raw.of(originals), "niggli")
    for kind, matrices in enumerate((SHEARS, SUPERCELLS)):
        if reduction == "primitive" and kind == 0:
            continue  # cells of the same size are left as they are
        for matrix in matrices:
            got = reduce(Raw.of([supercell(one, matrix, seed) for seed, one in enumerate(originals)]), reduction)
            assert got.num_atoms.tolist() == expected.num_atoms.tolist()
            np.testing.assert_allclose(metric(got.lattice), metric(expected.lattice), atol=1e-8)
            assert_same_crystal(got, expected)


def test_supercells_with_noise_below_the_tolerance_reduce_and_with_noise_above_do_not():
    originals = [random_structure(seed) for seed in range(8)]
    noisy = [supercell(one, SUPERCELLS[2], seed, noise=1e-3) for seed, one in enumerate(originals)]
    assert reduce(Raw.of(noisy), "niggli").num_atoms.tolist() == [6] * 8
    # Fewer digits than the displacements: another crystal, whose cell is as large as it seems.
    moved = [supercell(one, SUPERCELLS[2], seed, noise=0.2) for seed, one in enumerate(originals)]
    assert reduce(Raw.of(moved), "niggli").num_atoms.tolist() == [len(one.atom_types) for one in moved]
    assert reduce(Raw.of(noisy), "niggli", 1e-5).num_atoms.tolist() == [len(one.atom_types) for one in noisy]


@pytest.mark.parametrize("reduction", ["niggli", "primitive", "none"])
def test_a_reduced_crystal_stays_the_same_to_the_bit(reduction):
    structures = [supercell(random_structure(seed), SUPERCELLS[seed % 3], seed, 1e-4) for seed in range(9)]
    once = reduce(Raw.of(structures), reduction)
    twice = reduce(once, reduction)
    assert np.array_equal(once.lattice, twice.lattice)
    assert np.array_equal(once.frac_coords, twice.frac_coords)
    assert np.array_equal(once.atom_types, twice.atom_types)


def test_centred_cells_become_primitive_whatever_else_is_read_with_them():
    salt = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    rock = Structure(5.64 * np.eye(3), np.concatenate([salt, salt + 0.5]), np.repeat([11, 17], 4), "", "NaCl")
    iron = Structure(2.87 * np.eye(3), np.array([[0, 0, 0], [0.5, 0.5, 0.5]]), np.array([26, 26]), "", "Fe")
    reduced = reduce(Raw.of([random_structure(1), rock, iron, random_structure(2)]), "niggli")
    assert reduced.num_atoms.tolist() == [6, 2, 1, 6]
    lengths = np.linalg.norm(reduced.lattice, axis=2)
    np.testing.assert_allclose(lengths[1], 5.64 / 2**0.5)
    np.testing.assert_allclose(lengths[2], 2.87 * 3**0.5 / 2)
    np.testing.assert_allclose(np.linalg.det(reduced.lattice[1:3]), [5.64**3 / 4, 2.87**3 / 2])


def test_a_crystal_and_its_mirror_image_stay_two_and_cells_are_right_handed():
    one = random_structure(3)
    mirror = np.diag([1.0, 1.0, -1.0])
    image = Structure(one.lattice @ mirror, one.frac_coords, one.atom_types, "", "mirror")
    for reduction in ("niggli", "primitive", "none"):
        reduced = reduce(Raw.of([one, image]), reduction)
        assert (np.linalg.det(reduced.lattice) > 0).all()
        for number, given in enumerate((one, image)):
            lattice, frac, _ = crystal_of(reduced, number)
            # Places in space are as given, up to translations of the lattice.
            steps = (frac @ lattice - given.frac_coords @ given.lattice) @ np.linalg.inv(given.lattice)
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)


def test_niggli_cells_are_those_of_two_other_programs():
    moyopy = pytest.importorskip("moyopy")
    core = pytest.importorskip("pymatgen.core")
    generator = np.random.default_rng(0)
    cells = generator.normal(size=(40, 3, 3)) * 3 + np.eye(3)
    change = niggli(cells)
    np.testing.assert_allclose(np.linalg.det(change), 1.0)
    for before, after in zip(cells, change @ cells, strict=True):
        assert moyopy.is_niggli_reduced(after.tolist())
        expected = core.Lattice(before).get_niggli_reduced_lattice()
        found = core.Lattice(after)
        np.testing.assert_allclose(found.abc, expected.abc, rtol=1e-6)
        np.testing.assert_allclose(found.angles, expected.angles, atol=1e-4)


def test_reduced_structures_match_those_before_by_pymatgens_matcher():
    core = pytest.importorskip("pymatgen.core")
    matcher = pytest.importorskip("pymatgen.analysis.structure_matcher").StructureMatcher(1e-3, 1e-3, 0.1)
    structures = [supercell(random_structure(seed), SUPERCELLS[seed], seed) for seed in range(3)]
    reduced = reduce(Raw.of(structures), "niggli")
    for number, given in enumerate(structures):
        lattice, frac, types = crystal_of(reduced, number)
        before = core.Structure(given.lattice, given.atom_types.tolist(), given.frac_coords)
        assert matcher.fit(before, core.Structure(lattice, types.tolist(), frac))


def test_coordinates_are_inside_the_cell_even_just_below_a_whole_number():
    inside = in_cell(np.array([-1e-18, 1.0, -0.25, 0.3, 7.5]))
    assert inside.tolist() == [0.0, 0.0, 0.75, 0.3, 0.5]


@pytest.mark.parametrize(("reduction", "tolerance"), [("nigli", 0.01), ("niggli", 0.0), ("niggli", 0.5)])
def test_options_that_make_no_sense_are_refused(reduction, tolerance):
    from noumena.crystals.reduction import check_reduction

    with pytest.raises(ConfigError, match=r"niggli|tolerance"):
        check_reduction(reduction, tolerance)
