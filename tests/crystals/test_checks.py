import numpy as np
import pytest

from noumena.crystals.checks import MIN_DISTANCE, too_close, too_large, unsound
from noumena.crystals.formats.raw import Raw, Structure
from tests.crystals.structures import random_structure

CUBE = 4.0 * np.eye(3)


def simple(lattice, frac, types=None):
    frac = np.array(frac, float).reshape(-1, 3)
    return Structure(np.array(lattice, float), frac, np.array(types or [6] * len(frac)), "here", "it")


@pytest.mark.parametrize(
    ("structure", "reason"),
    [
        (simple(CUBE, []), "no atoms"),
        (simple(CUBE * np.nan, [[0, 0, 0]]), "cell vector is NaN"),
        (simple(CUBE, [[0, np.inf, 0]]), "coordinate is NaN"),
        (simple(CUBE, [[0, 0, 0]], [119]), "outside 1 to 118"),
        (simple(CUBE, [[0, 0, 0]], [0]), "outside 1 to 118"),
        (simple(1.2 * np.eye(3), [[0, 0, 0]]), "cubic angstrom per atom"),
        (simple(11.0 * np.eye(3), [[0, 0, 0]]), "cubic angstrom per atom"),
        (simple([[1, 0, 0], [2, 0, 0], [0, 0, 1]], [[0, 0, 0]]), "cubic angstrom per atom"),
    ],
)
def test_what_is_no_crystal_is_named_and_its_neighbours_are_not(structure, reason):
    raw = Raw.of([random_structure(0), structure, random_structure(1)])
    found = unsound(raw)
    assert list(found) == [1]
    assert reason in found[1]
    kept = raw.without(found)
    assert kept.names == ["s0", "s1"]
    assert [(one.name, one.reason) for one in kept.skipped] == [("it", found[1])]


def test_least_distances_are_those_over_all_images_in_any_cell():
    generator = np.random.default_rng(0)
    steps = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    shear = np.array([[1, 3, 0], [0, 1, 0], [-2, 1, 1]])
    structures, close = [], []
    for _ in range(60):
        lattice = generator.normal(size=(3, 3)) * 0.4 + np.diag([1.3, 3, 5])
        frac = generator.random((3, 3))
        frac[2] = frac[1] + generator.normal(size=3) @ np.linalg.inv(lattice) * 0.3
        gap = (frac[:, None] - frac[None])[:, :, None] + steps
        length = np.linalg.norm(gap @ lattice, axis=-1)
        length[np.arange(3), np.arange(3), len(steps) // 2] = np.inf
        structures.append(simple(shear @ lattice, frac @ np.linalg.inv(shear)))
        close.append(length.min() < MIN_DISTANCE)
    assert 10 < sum(close) < 50
    assert list(too_close(Raw.of(structures))) == np.flatnonzero(close).tolist()


def test_a_single_atom_may_be_too_close_to_its_own_image():
    thin = simple([[0.4, 0, 0], [0, 5, 0], [0, 0, 5]], [[0, 0, 0]])
    assert "0.400 angstrom" in too_close(Raw.of([thin]))[0]


def test_a_large_cell_is_kept_while_a_primitive_one_may_be_small_enough():
    eight = simple(8 * np.eye(3), np.arange(24).reshape(8, 3) / 24)
    seven = simple(8 * np.eye(3), np.arange(24).reshape(8, 3) / 24, [6] * 7 + [7])
    raw = Raw.of([eight, seven])
    assert list(too_large(raw, 4, reducible=True)) == [1]
    assert list(too_large(raw, 4, reducible=False)) == [0, 1]
    assert too_large(raw, None, reducible=False) == {}
