import math
from dataclasses import replace

import pytest
import torch

from noumena.core.errors import DataError
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.matching import match
from noumena.crystals.metrics import by_atoms, match_values, reconstruction_errors, wilson
from tests.crystals.measured import cubic, first, perturbed


def test_a_perfect_reconstruction_has_no_error():
    crystals = first(30)
    values = reconstruction_errors(crystals, crystals).values()
    assert values["type_accuracy"] == values["composition_exact"] == 1.0
    for name in ("coord_error", "coord_error_raw", "length_error", "angle_error", "volume_error", "invalid_cells"):
        assert values[name] == pytest.approx(0.0, abs=1e-6)


def test_a_common_translation_is_an_error_of_the_raw_distance_only():
    crystals = first(30)
    shift = torch.tensor([0.3, -0.45, 1.2], dtype=torch.float64)
    errors = reconstruction_errors(crystals, replace(crystals, frac_coords=crystals.frac_coords + shift))
    assert errors.coords.max() < 1e-9
    assert errors.coords_raw.min() > 0.5


def test_images_of_sites_are_the_same_sites():
    crystals = first(30)
    images = torch.randint(-2, 3, crystals.frac_coords.shape, generator=torch.Generator().manual_seed(0))
    errors = reconstruction_errors(crystals, replace(crystals, frac_coords=crystals.frac_coords + images))
    assert errors.coords_raw.max() < 1e-9


def test_site_distance_is_in_angstrom_across_the_cell_boundary():
    truth = cubic([11, 17], [[0.02, 0, 0], [0.5, 0.5, 0.5]], 4.0)
    found = cubic([11, 17], [[0.97, 0, 0], [0.5, 0.5, 0.5]], 4.0)
    errors = reconstruction_errors(truth, found)
    # One of two atoms moved by 0.05 x 4 angstrom; half of it is the common translation.
    assert float(errors.coords_raw) == pytest.approx(0.1)
    assert float(errors.coords) == pytest.approx(0.1)


def test_the_removed_translation_is_no_worse_than_any_other():
    truth = first(10)
    found = perturbed(truth, 0.3, 0.0)

    def squares(shift):
        moved = replace(found, frac_coords=found.frac_coords + shift[found.crystal])
        off = moved.frac_coords - truth.frac_coords
        cart = torch.einsum("ai,aij->aj", off - off.round(), truth.lattice[truth.crystal])
        return torch.zeros(10, dtype=torch.float64).index_add_(0, truth.crystal, cart.square().sum(1))

    # The mean distance is bounded by the root of the mean square, whatever translation is tried.
    best = reconstruction_errors(truth, found).coords
    for seed in range(20):
        shift = torch.rand(10, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert (best <= (squares(shift) / truth.num_atoms).sqrt() + 1e-9).all()


def test_errors_of_the_cell_have_their_units():
    truth = cubic([29], [[0, 0, 0]], 4.0)
    found = CrystalBatch.from_lengths_angles(
        torch.tensor([[4.4, 4.0, 4.0]], dtype=torch.float64),
        torch.tensor([[90.0, 90.0, 96.0]], dtype=torch.float64),
        torch.zeros(1, 3, dtype=torch.float64),
        torch.tensor([29]),
        torch.tensor([1]),
    )
    errors = reconstruction_errors(truth, found)
    assert float(errors.lengths) == pytest.approx(10 / 3)
    assert float(errors.angles) == pytest.approx(2.0)
    assert float(errors.volume) == pytest.approx(100 * abs(1.1 * math.sin(math.radians(96)) - 1))


def test_types_count_atoms_and_compositions_count_crystals():
    truth = CrystalBatch.cat([cubic([11, 17], [[0, 0, 0], [0.5] * 3], 4.0)] * 2)
    found = replace(truth, atom_types=torch.tensor([17, 11, 11, 11]))
    values = reconstruction_errors(truth, found).values()
    assert values["type_accuracy"] == 0.25
    assert values["composition_exact"] == 0.5  # swapped elements are the same composition


def test_what_is_no_cell_is_counted_and_left_out_of_means():
    truth = first(4)
    lattice = truth.lattice.clone()
    lattice[2] = torch.nan
    values = reconstruction_errors(truth, replace(truth, lattice=lattice)).values()
    assert values["invalid_cells"] == 1
    assert values["length_error"] == pytest.approx(0.0, abs=1e-9)
    broken = reconstruction_errors(truth, replace(truth, lattice=lattice * torch.nan)).values()
    assert broken["invalid_cells"] == 4
    assert "length_error" not in broken


def test_other_atoms_than_the_originals_are_refused():
    with pytest.raises(DataError, match="same number of atoms"):
        reconstruction_errors(first(3), first(3, start=3))


@pytest.mark.parametrize(
    # Values of scipy.stats.binomtest(k, n).proportion_ci(method="wilson").
    ("hits", "n"),
    [(997, 1000), (0, 20), (20, 20), (7, 13)],
)
def test_interval_is_wilsons(hits, n):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_unmatched_crystals_count_in_crmse_with_the_criterions_stol():
    truth = first(6)
    found = replace(truth, atom_types=torch.where(truth.crystal == 0, 86, truth.atom_types))
    values = match_values(match(truth, found, workers=0))
    assert values["match_field"] == pytest.approx(5 / 6)
    assert values["rms_field"] == pytest.approx(0.0, abs=1e-6)
    assert values["crms_field"] == pytest.approx(0.5 / 6, abs=1e-6)
    assert values["match_field_low"] < values["match_field"] < values["match_field_high"]
    assert values["failures"] == 0


def test_bins_of_sizes_hold_every_crystal_once():
    truth = first(60)
    found = perturbed(truth, 0.02, 0.0)
    matches = match(truth, found, workers=0, criteria=("field",))
    errors = reconstruction_errors(truth, found)
    rows = by_atoms(matches, errors)
    assert sum(n for _, n, _ in rows) == 60
    share = sum(n * values["match_field"] for _, n, values in rows) / 60
    assert share == pytest.approx(float(matches.matched["field"].double().mean()))
