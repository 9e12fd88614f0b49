"""Compositions and chemical formulas: text to counts of elements, and crystals to text."""

import re
from collections.abc import Mapping
from functools import reduce
from math import gcd, isnan

import torch
from torch import Tensor

from noumena.core.errors import ConfigError, did_you_mean
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.elements import ELECTRONEGATIVITIES, NUMBERS, SYMBOLS


def _pauling(symbol: str) -> float:
    return ELECTRONEGATIVITIES[NUMBERS[symbol]]


# From the least to the most electronegative; those without a value last, by letter.
_ORDER = sorted(NUMBERS, key=lambda symbol: (isnan(x := _pauling(symbol)), 0.0 if isnan(x) else x, symbol))
_RANK = {NUMBERS[symbol]: rank for rank, symbol in enumerate(_ORDER)}
_TOKEN = re.compile(r"\s*(?:(?P<symbol>[A-Z][a-z]?)|(?P<open>[(\[])|(?P<close>[)\]])|(?P<count>\d+(?:\.\d*)?))")
_MOST = 100_000  # atoms of one element


def composition_of(text: str) -> dict[int, int]:
    """Atoms of each element in a formula.

    Args:
        text: symbols with whole numbers behind them, with or without spaces, brackets allowed: ``NaCl``, ``Na Cl``,
            ``Li2O3``, ``Ca(OH)2``. An element may occur more than once.

    Returns:
        Atomic number to count, in the order of first appearance.

    Raises:
        ConfigError: an unknown symbol, a count that is no positive whole number, brackets that do not match, or
            nothing at all.
    """
    groups: list[dict[int, int]] = [{}]
    pending: dict[int, int] = {}  # the element or bracket that a number would multiply
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None:
            raise _refused(text, position, "expected an element's symbol, such as Na, a whole number, or a bracket")
        if match["count"] is not None:
            factor = _factor(text, match, pending)
            pending = {number: count * factor for number, count in pending.items()}
        _add(groups[-1], pending)
        pending = {}
        if match["symbol"] is not None:
            pending = {_number(text, match["symbol"]): 1}
        elif match["open"] is not None:
            groups.append({})
        elif match["close"] is not None:
            if len(groups) == 1:
                raise _refused(text, match.start("close"), "this bracket closes none")
            pending = groups.pop()
        position = match.end()
    _add(groups[-1], pending)
    if len(groups) > 1:
        raise ConfigError(f"composition '{text}': a bracket is not closed. Close it with ')'.")
    if not groups[0]:
        raise ConfigError(f"composition '{text}': there is no element in it. Write one such as NaCl or 'Na4 Cl4'.")
    return groups[0]


def formula_of(composition: Mapping[int, int], *, reduced: bool = True, hill: bool = False) -> str:
    """A formula such as ``NaCl``.

    Args:
        composition: atomic number to count; zeros are left out.
        reduced: divide the counts by their greatest common divisor.
        hill: carbon, hydrogen and then by letter (all by letter without carbon), instead of the least electronegative
            element first.
    """
    counts = {number: count for number, count in composition.items() if count}
    divisor = reduce(gcd, counts.values(), 0) if reduced else 1
    order = sorted(counts, key=lambda number: _RANK[number])
    if hill:
        first = ("C", "H") if NUMBERS["C"] in counts else ()
        order = sorted(counts, key=lambda n: (SYMBOLS[n] not in first, SYMBOLS[n]))
    return "".join(f"{SYMBOLS[n]}{'' if counts[n] == divisor else counts[n] // divisor}" for n in order)


def counts_of(batch: CrystalBatch) -> Tensor:
    """Atoms of each element of each crystal, int64, shape (crystals, 119); column 0 is empty."""
    width = len(SYMBOLS)
    flat = torch.bincount(batch.crystal * width + batch.atom_types, minlength=len(batch) * width)
    return flat.reshape(len(batch), width)


def reduced_counts_of(batch: CrystalBatch) -> Tensor:
    """:func:`counts_of` divided by the greatest common divisor of each crystal, int64, shape (crystals, 119)."""
    counts = counts_of(batch)
    divisor = counts[:, 1]
    for column in counts.unbind(1):
        divisor = torch.gcd(divisor, column)
    return counts // divisor.clamp_min(1)[:, None]


def composition_keys(batch: CrystalBatch) -> Tensor:
    """A number for each crystal, the same for the same reduced composition and no other, int64, shape (crystals,).

    A random linear map modulo 2 ** 64, whose chance to confuse two compositions is some 1e-19.
    """
    weights = torch.randint(-(2**63), 2**63 - 1, (len(SYMBOLS),), generator=torch.Generator().manual_seed(1))
    return (reduced_counts_of(batch) * weights.to(batch.device)).sum(1)


def formulas_of(batch: CrystalBatch, *, reduced: bool = True, hill: bool = False) -> list[str]:
    """The formula of each crystal; see :func:`formula_of`."""
    counts = counts_of(batch).cpu()
    row, number = counts.nonzero(as_tuple=True)
    found: list[dict[int, int]] = [{} for _ in range(len(batch))]
    for i, n, count in zip(row.tolist(), number.tolist(), counts[row, number].tolist(), strict=True):
        found[i][n] = count
    return [formula_of(composition, reduced=reduced, hill=hill) for composition in found]


def _add(group: dict[int, int], further: Mapping[int, int]) -> None:
    for number, count in further.items():
        group[number] = group.get(number, 0) + count


def _number(text: str, symbol: str) -> int:
    if symbol in NUMBERS:
        return NUMBERS[symbol]
    hint = did_you_mean(symbol, NUMBERS).partition(" Known:")[0]
    raise ConfigError(
        f"composition '{text}': there is no element '{symbol}'. {hint if hint.startswith('Did') else ''}".rstrip()
        + " Write symbols as in the periodic table, such as Na or Cl, and whole numbers."
    )


def _factor(text: str, match: re.Match[str], pending: Mapping[int, int]) -> int:
    if not pending:
        raise _refused(text, match.start("count"), "a number stands behind an element or a bracket")
    if "." in match["count"]:
        raise _refused(text, match.start("count"), "expected a whole number of atoms; multiply the formula")
    if not 1 <= int(match["count"]) <= _MOST:
        raise _refused(text, match.start("count"), f"expected 1 to {_MOST:,} atoms")
    return int(match["count"])


def _refused(text: str, position: int, words: str) -> ConfigError:
    found = text[position:].strip()[:12]
    return ConfigError(f"composition '{text}': at '{found}': {words}. Examples: NaCl, 'Na4 Cl4', Ca(OH)2.")
