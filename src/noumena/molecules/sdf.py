"""One conformation as a record of an SDF file (CTFile formats V2000 and V3000, BIOVIA 2020)."""

from collections.abc import Iterator

from noumena.molecules.topology import Topology

_V2000_MOST = 999
_AROMATIC, _ANY = 4, 8
_CHARGES_PER_LINE = 8
# Neutral valence, and the elements whose bonds tell their charge: one bond more is +1, one less -1.
_VALENCE = {5: 3, 7: 3, 8: 2, 15: 3, 16: 2}
_GAINS = {5: -1, 7: 1, 8: 1, 15: 1, 16: 1}
_LOSES = frozenset((8, 16))


def sdf_record(topology: Topology) -> str:
    """A record with places ``%d`` for the frame's number and ``%f`` for each coordinate in angstrom, in atom order.

    Bond types are 1, 2, 3, 4 for aromatic, and 8 ("any") where the topology has no orders. Formal charges follow from
    the orders where all hydrogens are there and the valence allows one charge only (:func:`formal_charges`).
    """
    body = _v2000 if max(len(topology), len(topology.bonds)) <= _V2000_MOST else _v3000
    return f"{topology.formula} %d\n  noumena           3D\n\n" + "".join(body(topology)) + "M  END\n$$$$\n"


def formal_charges(topology: Topology) -> list[int]:
    """Formal charge of each atom, where bond orders tell it; 0 elsewhere.

    An ammonium or nitro nitrogen has one bond too many and is +1, an oxygen or sulphur with one bond too few is -1,
    a tetrahedral boron -1. Molecules without hydrogens are left alone, since their valences are not all there, and
    so are aromatic atoms, whose orders do not add up to whole numbers.
    """
    charges = [0] * len(topology)
    if topology.orders is None or 1 not in topology.elements:
        return charges
    around: list[list[float]] = [[] for _ in charges]
    for (i, j), order in zip(topology.bonds, topology.orders, strict=True):
        around[i].append(order)
        around[j].append(order)
    for atom, (element, orders) in enumerate(zip(topology.elements, around, strict=True)):
        if element not in _VALENCE or any(order != int(order) for order in orders):
            continue
        excess = int(sum(orders)) - _VALENCE[element]
        if excess == 1:
            charges[atom] = _GAINS[element]
        elif excess == -1 and element in _LOSES:
            charges[atom] = -1
    return charges


def _bond_type(topology: Topology, bond: int) -> int:
    if topology.orders is None:
        return _ANY
    order = topology.orders[bond]
    return int(order) if order in (1.0, 2.0, 3.0) else _AROMATIC if order == 1.5 else _ANY


def _v2000(topology: Topology) -> Iterator[str]:
    yield f"{len(topology):3d}{len(topology.bonds):3d}  0  0  0  0  0  0  0  0999 V2000\n"
    for symbol in topology.symbols:
        yield f"%10.4f%10.4f%10.4f {symbol:<3} 0  0  0  0  0  0  0  0  0  0  0  0\n"
    for bond, (i, j) in enumerate(topology.bonds):
        yield f"{i + 1:3d}{j + 1:3d}{_bond_type(topology, bond):3d}  0\n"
    charged = [(atom, charge) for atom, charge in enumerate(formal_charges(topology)) if charge]
    for start in range(0, len(charged), _CHARGES_PER_LINE):
        some = charged[start : start + _CHARGES_PER_LINE]
        yield f"M  CHG{len(some):3d}" + "".join(f" {atom + 1:3d} {charge:3d}" for atom, charge in some) + "\n"


def _v3000(topology: Topology) -> Iterator[str]:
    yield "  0  0  0     0  0            999 V3000\nM  V30 BEGIN CTAB\n"
    yield f"M  V30 COUNTS {len(topology)} {len(topology.bonds)} 0 0 0\nM  V30 BEGIN ATOM\n"
    for atom, (symbol, charge) in enumerate(zip(topology.symbols, formal_charges(topology), strict=True)):
        yield f"M  V30 {atom + 1} {symbol} %.4f %.4f %.4f 0{f' CHG={charge}' if charge else ''}\n"
    yield "M  V30 END ATOM\nM  V30 BEGIN BOND\n"
    for bond, (i, j) in enumerate(topology.bonds):
        yield f"M  V30 {bond + 1} {_bond_type(topology, bond)} {i + 1} {j + 1}\n"
    yield "M  V30 END BOND\nM  V30 END CTAB\n"
