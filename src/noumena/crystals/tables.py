"""The tables of trained models of crystals."""

from collections.abc import Mapping, Sequence

from noumena.core.evaluation import Table
from noumena.crystals.fingerprints import PROPERTIES
from noumena.crystals.generation_metrics import COVERAGE_LIMITS, MOST_COMPARED, SAME
from noumena.crystals.matching import CRITERIA, WORDS
from noumena.crystals.validity import NEAREST, SMACT_RULE

_ERRORS = {
    "type_accuracy": ("atoms with the right element (%)", 100.0),
    "composition_exact": ("crystals with the right composition (%)", 100.0),
    "coord_error": ("distance of a site from its own, best common translation removed (Å)", 1.0),
    "coord_error_p90": ("the same, 90th percentile over crystals (Å)", 1.0),
    "coord_error_raw": ("distance of a site from its own, no translation removed (Å)", 1.0),
    "length_error": ("lengths of the cell, mean absolute error (%)", 1.0),
    "angle_error": ("angles of the cell, mean absolute error (°)", 1.0),
    "volume_error": ("volume, mean absolute error (%)", 1.0),
    "invalid_cells": ("reconstructions that are no cell", 1.0),
}
_SAMPLES = {
    "cells": ("samples that are cells at all (%)", 100.0),
    "valid_structure": ("structurally valid (%)", 100.0),
    "valid_composition": ("compositionally valid (%)", 100.0),
    "valid": ("both (%)", 100.0),
    "nearest_above_1.0": ("nearest distance above 1.0 Å (%)", 100.0),
    "nearest_above_1.5": ("nearest distance above 1.5 Å (%)", 100.0),
    "elements": ("elements per crystal", 1.0),
    "atoms": ("atoms per crystal", 1.0),
    "unique": ("unique (%)", 100.0),
    "novel": ("novel (%)", 100.0),
    "unique_novel": ("unique and novel (%)", 100.0),
    "valid_unique_novel": ("valid, unique and novel (%)", 100.0),
    "novel_composition": ("formula of no training crystal (%)", 100.0),
    "coverage_recall": ("coverage of the held-out crystals (%)", 100.0),
    "coverage_precision": ("samples near a held-out crystal (%)", 100.0),
    "w1_density": ("density, Wasserstein-1 distance (g/cm³)", 1.0),
    "w1_volume": ("volume per atom, Wasserstein-1 distance (Å³)", 1.0),
    "w1_elements": ("number of elements, Wasserstein-1 distance", 1.0),
    "w1_atoms": ("number of atoms, Wasserstein-1 distance", 1.0),
    "w1_nearest": ("nearest distance, Wasserstein-1 distance (Å)", 1.0),
    "comparison_failures": ("pairs that could not be compared", 1.0),
}

Columns = Mapping[str, Mapping[str, float]]
"""Values by name, for each heading."""


def match_table(columns: Columns, counts: Mapping[str, int]) -> Table:
    """Match rates under every criterion, with 95 % intervals.

    Args:
        columns: values of :func:`noumena.crystals.metrics.match_values` by heading.
        counts: crystals behind each heading.
    """
    rows: list[list[str | float | None]] = [["crystals", *(counts[name] for name in columns)]]
    for name, words in WORDS.items():
        rows.append([f"match, {words} (%)", *(_rate(values, name) for values in columns.values())])
    rows.append(["RMSE of the matched, field's criterion", *(values.get("rms_field") for values in columns.values())])
    rows.append(["cRMSE, field's criterion", *(values.get("crms_field") for values in columns.values())])
    reasons = sorted({key for values in columns.values() for key in values if key.startswith("failures_")})
    rows.append(["pairs that could not be compared", *(values.get("failures") for values in columns.values())])
    for reason in reasons:
        words = reason.removeprefix("failures_").replace("_", " ")
        rows.append([f"of these: {words}", *(values.get(reason, 0.0) for values in columns.values())])
    caption = (
        "Share of crystals whose reconstruction is the same crystal for pymatgen's StructureMatcher; in brackets the "
        "95 % interval (Wilson). The three criteria differ and are not to be compared with each other. RMSE in units "
        f"of (V / N)^(1/3); in cRMSE a crystal that does not match counts as stol {CRITERIA['field'].stol}. A pair "
        "that could not be compared counts as no match."
    )
    return Table("Matched reconstructions", ["", *columns], rows, caption)


def _rate(values: Mapping[str, float], name: str) -> str | None:
    key = f"match_{name}"
    if key not in values:
        return None
    share, low, high = (100.0 * values[each] for each in (key, f"{key}_low", f"{key}_high"))
    return f"{share:.1f} ({low:.1f} to {high:.1f})"


def error_table(columns: Columns) -> Table:
    """Errors of types, sites and cells."""
    caption = (
        "Atom by atom in the order of the originals. Distances by the nearest periodic image in the original's cell, "
        "mean over the atoms of a crystal, then over crystals. The common translation of all atoms is no error of a "
        "crystal: a description from another origin is the same crystal."
    )
    return Table("Errors of reconstructions", ["", *columns], _rows(_ERRORS, columns), caption)


def size_table(rows: Sequence[tuple[str, int, Mapping[str, float]]], label: str) -> Table:
    """Match rates by number of atoms (:func:`noumena.crystals.metrics.by_atoms`)."""
    found = [
        [
            atoms,
            crystals,
            *(100.0 * values[f"match_{name}"] for name in WORDS),
            100.0 * values["type_accuracy"],
            values.get("coord_error"),
        ]
        for atoms, crystals, values in rows
    ]
    columns = ["atoms", "crystals", *(f"{name} (%)" for name in WORDS), "right elements (%)", "site distance (Å)"]
    return Table(
        "Matches by number of atoms", columns, found, f"{label}. {'; '.join(f'{n}: {w}' for n, w in WORDS.items())}."
    )


def sample_table(columns: Columns, n: int, note: str) -> Table:
    """How good samples are, one column for each source of them."""
    caption = (
        f"{n:,} samples each. Structurally valid: no two atoms within {NEAREST} Å and a volume above 0.1 Å³ (the "
        f"field's rule, which is weak). Compositionally valid: {SMACT_RULE}. Unique and novel: different from every "
        f"earlier sample, and from every training crystal, of the same formula under the {WORDS[SAME]}; of more than "
        f"{MOST_COMPARED} of one formula those of the nearest structure features are compared. Coverage: a crystal "
        f"within {COVERAGE_LIMITS[0]} in radial distribution and {COVERAGE_LIMITS[1]} in composition features "
        f"({', '.join(PROPERTIES)}); these features are this library's, so that the shares are not CDVAE's COV-R and "
        f"COV-P. {note}"
    )
    return Table("Samples", ["", *columns], _rows(_SAMPLES, columns), caption.strip())


def _rows(names: Mapping[str, tuple[str, float]], columns: Columns) -> list[list[str | float | None]]:
    return [
        [words, *(values[name] * scale if name in values else None for values in columns.values())]
        for name, (words, scale) in names.items()
        if any(name in values for values in columns.values())
    ]
