import pytest
import torch

from noumena.core.errors import ConfigError
from noumena.crystals.composition import composition_keys, composition_of, counts_of, formula_of, formulas_of
from tests.crystals.random_cells import made, salt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NaCl", {11: 1, 17: 1}),
        ("Na Cl", {11: 1, 17: 1}),
        (" Na4  Cl4 ", {11: 4, 17: 4}),
        ("Li2O3", {3: 2, 8: 3}),
        ("Co", {27: 1}),
        ("CO", {6: 1, 8: 1}),
        ("Ca(OH)2", {20: 1, 8: 2, 1: 2}),
        ("[Fe(CN)6]2K", {26: 2, 6: 12, 7: 12, 19: 1}),
        ("FeOFe", {26: 2, 8: 1}),
        ("Na 2 Cl", {11: 2, 17: 1}),
    ],
)
def test_a_formula_counts_its_elements(text, expected):
    assert composition_of(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no element"),
        ("NaCk", "no element 'Ck'"),
        ("nacl", "symbol"),
        ("Na0", "1 to"),
        ("2Na", "behind an element"),
        ("Na2 2", "behind an element"),
        ("Na0.5Cl", "whole number"),
        ("Ca(OH2", "not closed"),
        ("CaOH)2", "closes none"),
        ("()2", "behind an element"),
        ("Na+", "'+'"),
        ("Na-Cl", "'-Cl'"),
    ],
)
def test_what_is_no_formula_is_refused_in_words(text, words):
    with pytest.raises(ConfigError, match=words.replace("+", r"\+")) as caught:
        composition_of(text)
    assert f"'{text}'" in str(caught.value)


def test_formulas_are_reduced_and_ordered_as_asked():
    composition = composition_of("O8 C4 H8 Na2")
    assert formula_of(composition) == "NaH4C2O4"
    assert formula_of(composition, reduced=False, hill=True) == "C4H8Na2O8"
    assert formula_of({17: 2, 11: 2}, hill=True) == "ClNa"
    assert formula_of({8: 2}, reduced=False) == "O2"
    assert formula_of({8: 2, 3: 0}) == "O"


def test_a_formula_reads_back_as_the_composition_of_its_crystal():
    batch = made(8)
    for formula, counts in zip(formulas_of(batch, reduced=False), counts_of(batch), strict=True):
        assert composition_of(formula) == {n: int(counts[n]) for n in counts.nonzero()[:, 0].tolist()}


def test_the_order_of_elements_is_that_of_pymatgen():
    core = pytest.importorskip("pymatgen.core")
    for text in ("NaCl", "LiFePO4", "CuCdN3", "SrTiO3", "GaAs", "Mg2Si", "BaYCu", "UO2", "HfAl3C"):
        assert formula_of(composition_of(text)) == core.Composition(text).get_integer_formula_and_factor()[0]


def test_compositions_are_told_apart_and_multiples_are_not():
    batch = salt(count=3)
    doubled = type(batch).cat([batch, made(20, seed=3)])
    keys = composition_keys(doubled)
    assert len(keys[:3].unique()) == 1
    formulas = formulas_of(doubled)
    assert len(keys.unique()) == len(set(formulas))
    twice = type(batch)(batch.atom_types[:4], batch.frac_coords[:4], batch.lattice[:1], torch.tensor([4]), ())
    assert int(composition_keys(twice)[0]) == int(keys[0])
