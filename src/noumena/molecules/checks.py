"""The checks that frames pass before they become conformations."""

import numpy as np
import torch

from noumena.core.errors import DataError
from noumena.molecules.elements import covalent_radii
from noumena.molecules.symmetry import centres, constant_signs, topological_classes
from noumena.molecules.topology import Topology

# A bond is broken beyond whichever is less: no vibration goes as far, a molecule cut by the wall of a box goes further.
_BROKEN_ANGSTROM = 0.6
_BROKEN_SHARE = 0.4
# Bonds at these multiples of the sum of the covalent radii cannot be the file's: its atoms are others.
_BOND_RATIOS = (0.55, 1.6)
_SAME_PLACE = 1e-3
_PROJECTION = np.array([0.5351, 0.3028, 0.7887])


def check_finite(xyz: np.ndarray, numbers: np.ndarray, where: str) -> None:
    """Refuse NaN and infinity.

    Args:
        xyz: shape (frames, atoms, 3).
        numbers: of the frames within the file, for the message.
        where: the file.

    Raises:
        DataError: it names frame and atom.
    """
    bad = ~np.isfinite(xyz).all(axis=-1)
    if bad.any():
        frame, atom = np.argwhere(bad)[0]
        raise DataError(
            f"{where}: frame {numbers[frame]} (counted from 0) has NaN or infinity at atom {atom + 1}, as have "
            f"{int(bad.any(axis=-1).sum())} of the frames read. The simulation blew up, or the file is "
            "damaged; leave such frames out."
        )


def check_apart(xyz: np.ndarray, numbers: np.ndarray, where: str) -> None:
    """Refuse two atoms at the same place.

    Args:
        xyz: shape (frames, atoms, 3), in angstrom.
        numbers, where: as for :func:`check_finite`.

    Raises:
        DataError: it names the frame and the atoms.
    """
    # Atoms at one place are next to each other in the order along any direction (or next but one, by chance).
    along = xyz @ _PROJECTION.astype(xyz.dtype)
    order = np.argsort(along, axis=1)
    for step in (1, 2):
        first, second = order[:, :-step], order[:, step:]
        gap = np.abs(np.take_along_axis(along, second, 1) - np.take_along_axis(along, first, 1))
        frame, place = np.nonzero(gap < _SAME_PLACE)
        i, j = first[frame, place], second[frame, place]
        same = np.linalg.norm(xyz[frame, i] - xyz[frame, j], axis=1) < _SAME_PLACE
        if same.any():
            hit = int(same.argmax())
            a, b = sorted((int(i[hit]), int(j[hit])))
            raise DataError(
                f"{where}: frame {numbers[frame[hit]]} (counted from 0) has atoms {a + 1} and {b + 1} at the same "
                "place. One of them is a copy; leave it out, or such frames."
            )


def bond_lengths(xyz: np.ndarray, topology: Topology) -> np.ndarray:
    """Lengths of all bonds in angstrom, shape (frames, bonds); ``xyz`` of shape (frames, atoms, 3)."""
    bonds = topology.bond_index
    return np.linalg.norm(xyz[:, bonds[:, 0]] - xyz[:, bonds[:, 1]], axis=2)


def check_bonds(lengths: np.ndarray, topology: Topology, where: str) -> None:
    """Refuse a topology whose bonds are not bonds in the coordinates.

    Args:
        lengths: typical length of each bond in angstrom, shape (bonds,).
        topology: that the frames are said to be of.
        where: the file, for the message.

    Raises:
        DataError: it names the worst bond.
    """
    radii = covalent_radii(topology.elements)
    ratio = lengths / radii[topology.bond_index].sum(1)
    bad = (ratio < _BOND_RATIOS[0]) | (ratio > _BOND_RATIOS[1])
    if bad.any():
        worst = int(np.abs(np.log(np.maximum(ratio, 1e-6))).argmax())
        raise DataError(
            f"{where}: {_bond(topology, worst)} is {lengths[worst]:.2f} Å long in the typical frame; "
            f"{int(bad.sum())} of {len(bad)} bonds are too long or too short to be. The topology is of other atoms or "
            "of another order of atoms, or the molecule is cut by the walls of a box: use the right topology, or make "
            "molecules whole."
        )


def broken(lengths: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Which bonds are off their usual length by more than 0.6 angstrom or 40 %, bool, shape (frames, bonds)."""
    limit = np.minimum(_BROKEN_ANGSTROM, _BROKEN_SHARE * reference)
    return np.abs(lengths - reference) > limit


def refuse_broken(
    off: np.ndarray, lengths: np.ndarray, reference: np.ndarray, numbers: np.ndarray, topology: Topology, where: str
) -> None:
    """Refuse frames with a broken bond.

    Args:
        off: from :func:`broken`.
        lengths, reference: as there.
        numbers: of the frames within the file.
        topology: of the molecule.
        where: the file.

    Raises:
        DataError: it names the first frame and its worst bond.
    """
    if not off.any():
        return
    frame = int(off.any(axis=-1).argmax())
    bond = int(np.abs(lengths[frame] - reference).argmax())
    raise DataError(
        f"{where}: frame {numbers[frame]} (counted from 0) has {_bond(topology, bond)} at "
        f"{lengths[frame, bond]:.2f} Å, usually {reference[bond]:.2f} Å, as have broken bonds "
        f"{int(off.any(axis=-1).sum())} of {len(off)} frames. Make molecules whole across the walls of the box (gmx "
        "trjconv -pbc mol, cpptraj image), or leave such frames out with broken='drop'."
    )


def _bond(topology: Topology, bond: int) -> str:
    i, j = topology.bonds[bond]
    names, residues, ids = topology.names, topology.residue_names, topology.residue_ids
    return f"the bond {i + 1}-{j + 1} ({names[i]}-{names[j]} of {residues[i]}{ids[i]})"


def hands(xyz: np.ndarray, topology: Topology) -> np.ndarray:
    """Which way round the neighbours of each centre are, 1 or -1; 0 where that changes or the centre is flat.

    Args:
        xyz: shape (frames, atoms, 3), in angstrom.
        topology: of the molecule.

    Returns:
        int64, shape (centres,), in the order of :func:`noumena.molecules.symmetry.centres`.
    """
    signs = constant_signs(torch.from_numpy(np.asarray(xyz, np.float64)), torch.from_numpy(centres(topology)))
    return signs.numpy().astype(np.int64)


def check_hands(xyz: np.ndarray, topology: Topology, expected: np.ndarray, where: str) -> None:
    """Refuse frames in which the neighbours of an atom are the other way round than a model knows them.

    The model would take them for what it was never trained on, and its answers would be worthless.

    Args:
        xyz: shape (frames, atoms, 3), in angstrom.
        topology: of the molecule.
        expected: of :func:`hands`.
        where: the file.

    Raises:
        DataError: it names the atom and what to do.
    """
    wrong = np.flatnonzero(hands(xyz, topology) * expected < 0)
    if not len(wrong):
        return
    middle = [atom for atom, around in enumerate(topology.neighbours) if len(around) >= 3]
    atom = middle[wrong[0]]
    label = f"{topology.names[atom]} of {topology.residue_names[atom]}{topology.residue_ids[atom]}"
    classes = topological_classes(topology)
    around = topology.neighbours[atom]
    like = [a for a in around if sum(classes[a] == classes[b] for b in around) > 1]
    remedy = (
        f"Atoms {like[0] + 1} and {like[1] + 1} ({topology.names[like[0]]}, {topology.names[like[1]]}) are alike: "
        "exchange their places in the file, or train on this file too."
        if like
        else "It is the mirror image there: check which of the two molecules the file is of."
    )
    raise DataError(
        f"{where}: the neighbours of atom {atom + 1} ({label}) are the other way round than in the model's training "
        f"data, as are those of {len(wrong) - 1} more. {remedy}"
    )
