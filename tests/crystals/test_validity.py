import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import COVALENT_RADII, ELECTRONEGATIVITIES, GROUPS, MASSES, PERIODS
from noumena.crystals.geometry import volume_of
from noumena.crystals.measures.distances import nearest_distance, shortened, valid_cells
from noumena.crystals.validity import compositional_validity, structural_validity, validity
from tests.crystals.measured import cubic, described_otherwise, first

warnings.simplefilter("ignore")


def brute(lattice, frac, reach=4):
    """Nearest distance by looking at all images up to ``reach``."""
    steps = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), -1).reshape(-1, 3)
    off = (frac[:, None] - frac[None])[:, :, None] + steps
    length = np.linalg.norm(off @ lattice, axis=-1)
    length[np.arange(len(frac)), np.arange(len(frac)), len(steps) // 2] = np.inf
    return length.min()


def test_nearest_distance_is_that_of_all_images():
    crystals = first(40)
    found = nearest_distance(crystals)
    for one, value in zip(crystals.split(1), found.tolist(), strict=True):
        assert value == pytest.approx(brute(one.lattice[0].numpy(), one.frac_coords.numpy()), abs=1e-9)


def test_nearest_distance_does_not_depend_on_the_description():
    crystals = first(40)
    torch.testing.assert_close(nearest_distance(described_otherwise(crystals)), nearest_distance(crystals))


def test_nearest_distance_of_a_single_atom_is_its_shortest_period():
    skewed = torch.tensor([[3.0, 0, 0], [30.1, 4.0, 0], [-21.2, 40.5, 5.0]], dtype=torch.float64)
    one = CrystalBatch.of(skewed, torch.zeros(1, 3, dtype=torch.float64), torch.tensor([29]))
    expected = brute(skewed.numpy(), np.zeros((1, 3)), reach=14)
    assert float(nearest_distance(one)) == pytest.approx(expected)


def test_shortened_vectors_span_the_same_lattice():
    lattice = described_otherwise(first(20)).lattice
    whole = shortened(lattice) @ torch.linalg.inv(lattice)
    torch.testing.assert_close(whole, whole.round(), atol=1e-9, rtol=0)
    torch.testing.assert_close(volume_of(shortened(lattice)), volume_of(lattice))


def test_what_is_no_cell_has_no_distance_and_is_not_valid():
    crystals = first(4)
    lattice, frac = crystals.lattice.clone(), crystals.frac_coords.clone()
    lattice[0], lattice[1, 0] = torch.nan, 0.0
    frac[int(crystals.offsets[2])] = torch.inf
    broken = replace(crystals, lattice=lattice, frac_coords=frac)
    assert valid_cells(broken).tolist() == [False, False, False, True]
    assert nearest_distance(broken).isnan().tolist() == [True, True, True, False]
    assert structural_validity(broken).tolist() == [False, False, False, True]


def test_atoms_on_top_of_each_other_are_not_valid():
    near = cubic([11, 17], [[0, 0, 0], [0.1, 0, 0]], 4.0)
    far = cubic([11, 17], [[0, 0, 0], [0.2, 0, 0]], 4.0)
    both = CrystalBatch.cat([near, far])
    assert structural_validity(both).tolist() == [False, True]


def test_charges_of_salts_are_balanced_and_others_are_not():
    pytest.importorskip("smact")
    sites = [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.0]]
    salt = cubic([11, 17], sites[:2], 5.0)
    wrong = cubic([11, 17, 17], sites, 5.0)
    alloy = cubic([29, 30], sites[:2], 3.0)
    many = cubic(list(range(3, 14)), [[k / 11, 0.0, 0.0] for k in range(11)], 40.0)
    unknown = cubic([112, 8], sites[:2], 5.0)
    found = compositional_validity(CrystalBatch.cat([salt, wrong, alloy, many, unknown]))
    assert found.tolist() == [True, False, True, False, False]


def test_shares_of_real_crystals():
    pytest.importorskip("smact")
    values = validity(first(100))
    assert values["valid_structure"] == 1.0
    assert values["valid_composition"] > 0.8
    assert values["nearest_above_1.0"] >= values["nearest_above_1.5"] > 0.85
    assert math.isfinite(values["nearest_mean"])


@pytest.mark.filterwarnings("ignore:No Pauling")
def test_tables_of_the_elements_are_those_of_other_libraries():
    core = pytest.importorskip("pymatgen.core")
    data = pytest.importorskip("ase.data")
    for number in range(1, 119):
        element = core.Element.from_Z(number)
        # To four digits behind the point, that is to 1e-4 u.
        assert MASSES[number] == pytest.approx(float(data.atomic_masses[number]), abs=6e-5)
        assert (PERIODS[number], GROUPS[number]) == (element.row, element.group)
        assert ELECTRONEGATIVITIES[number] == pytest.approx(element.X, nan_ok=True)
        if number <= 96:
            assert COVALENT_RADII[number] == pytest.approx(data.covalent_radii[number])
        else:
            assert math.isnan(COVALENT_RADII[number])
