"""Atoms that are alike, and what a molecule's mirror image is as a labelled molecule."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from noumena.core.errors import ConfigError
from noumena.molecules.geometry import distances, signed_volumes
from noumena.molecules.topology import Topology

# A centre keeps its hand if this share of the frames has the same sign.
_KEEPS = 0.999
# The triple product of three edges of a regular tetrahedron is 0.71 of the product of their lengths.
_FLAT = 0.2


def topological_classes(topology: Topology) -> np.ndarray:
    """The class of each atom, int64, shape (atoms,): atoms of one class cannot be told apart by elements and bonds.

    Colours refined by those of the neighbours until nothing changes (Weisfeiler & Leman 1968); stereochemistry plays
    no part, so the two methyls of a dimethyl carbon and the hydrogens of a methyl are alike.
    """
    colours = _numbered([str(z) for z in topology.elements])
    while True:
        around = [tuple(sorted(colours[a] for a in own)) for own in topology.neighbours]
        refined = _numbered([f"{colours[a]}:{around[a]}" for a in range(len(topology))])
        if len(set(refined)) == len(set(colours)):
            return np.asarray(refined, dtype=np.int64)
        colours = refined


def _numbered(labels: Sequence[str]) -> list[int]:
    known = {label: number for number, label in enumerate(sorted(set(labels)))}
    return [known[label] for label in labels]


def unique_atoms(topology: Topology) -> np.ndarray:
    """Atoms that are the only ones of their class, int64, ascending: their labels cannot betray a molecule's hand."""
    classes = topological_classes(topology)
    return np.flatnonzero(np.bincount(classes)[classes] == 1)


def centres(topology: Topology) -> np.ndarray:
    """Four atoms whose signed volume tells the hand of each atom with three or more neighbours, int64, shape (n, 4).

    With four neighbours these are they; with three, the atom itself comes first.
    """
    found = [
        around[:4] if len(around) >= 4 else (atom, *around)
        for atom, around in enumerate(topology.neighbours)
        if len(around) >= 3
    ]
    return np.asarray(found, dtype=np.int64).reshape(-1, 4)


def constant_signs(xyz: Tensor, quadruples: Tensor) -> Tensor:
    """1 or -1 where the signed volume of a quadruple keeps its sign in (nearly) all frames, else 0.

    A quadruple that is nearly flat on average, as about a carbonyl carbon, has no hand: 0.

    Args:
        xyz: shape (frames, atoms, 3).
        quadruples: int64, shape (n, 4).

    Returns:
        Shape (n,), of the type of ``xyz``.
    """
    volumes = signed_volumes(xyz, quadruples)
    positive = (volumes > 0).to(xyz.dtype).mean(0)
    signs = torch.where(positive >= _KEEPS, 1.0, torch.where(positive <= 1.0 - _KEEPS, -1.0, 0.0))
    edges = [distances(xyz, quadruples[:, [0, corner]]) for corner in (1, 2, 3)]
    box = (edges[0] * edges[1] * edges[2]).mean(0)
    return torch.where(volumes.mean(0).abs() >= _FLAT * box, signs, 0.0).to(xyz.dtype)


def mirror_permutation(topology: Topology, xyz: Tensor) -> np.ndarray:
    """Which atoms change places so that a reflected frame is a frame of the same labelled molecule.

    The two methyls of a dimethyl carbon have labels, and a fixed hand by them, though the molecule has none. The image
    of a frame is ``-xyz[:, permutation]``: reflected, with such atoms swapped wherever the labelled hand of a centre
    would change. That the *energy* is the same in the mirror follows for an achiral molecule in an achiral medium.

    Args:
        topology: of the molecule.
        xyz: frames that show which centres keep their hand, shape (frames, atoms, 3).

    Returns:
        int64, shape (atoms,).

    Raises:
        ConfigError: a centre has no two like neighbours, so that the molecule is chiral.
    """
    quadruples = centres(topology)
    signs = constant_signs(xyz, torch.from_numpy(quadruples)).numpy()
    permutation = np.arange(len(topology))
    classes = topological_classes(topology)
    middle = [atom for atom, around in enumerate(topology.neighbours) if len(around) >= 3]

    def image_sign(number: int) -> float:
        image = torch.from_numpy(permutation[quadruples[number]][None])
        return -float(constant_signs(xyz, image)[0])

    # From the middle outwards: a swap of large branches moves the centres within them, never the other way round.
    reach = topology.bonds_between.max(1)
    for number in sorted(range(len(middle)), key=lambda n: (reach[middle[n]], middle[n])):
        if signs[number] and image_sign(number) != signs[number]:
            swap = _swap_at(topology, classes, middle[number])
            if swap is None:
                raise ConfigError(_chiral(topology, middle[number]))
            permutation = permutation[swap]
    wrong = [n for n in range(len(middle)) if signs[n] and image_sign(n) != signs[n]]
    if wrong:
        raise ConfigError(_chiral(topology, middle[wrong[0]]))
    return permutation


def _chiral(topology: Topology, atom: int) -> str:
    label = f"{topology.names[atom]} of {topology.residue_names[atom]}{topology.residue_ids[atom]}"
    return (
        f"model.mirror: atom {atom + 1} ({label}) keeps its hand in all frames and has no two like neighbours to swap, "
        "so a mirrored frame would be another molecule. Use mirror=false for a chiral molecule."
    )


def _swap_at(topology: Topology, classes: np.ndarray, centre: int) -> np.ndarray | None:
    """The permutation that swaps two like branches at ``centre``, the smallest ones; ``None`` if there are none."""
    best: dict[int, int] | None = None
    around = topology.neighbours[centre]
    for number, i in enumerate(around):
        for j in around[number + 1 :]:
            if classes[i] == classes[j]:
                matched = _matched(topology, classes, centre, i, j)
                if matched is not None and (best is None or len(matched) < len(best)):
                    best = matched
    if best is None:
        return None
    swap = np.arange(len(topology))
    for mine, theirs in best.items():
        swap[mine], swap[theirs] = theirs, mine
    return swap


def _matched(topology: Topology, classes: np.ndarray, centre: int, i: int, j: int) -> dict[int, int] | None:
    """Atoms of the branch at ``i`` with their like in the branch at ``j``; ``None`` if the branches meet."""
    matched, pending = {i: j}, [(i, centre, j, centre)]
    while pending:
        mine, from_mine, theirs, from_theirs = pending.pop()
        own = sorted((a for a in topology.neighbours[mine] if a != from_mine), key=lambda a: (classes[a], a))
        like = sorted((a for a in topology.neighbours[theirs] if a != from_theirs), key=lambda a: (classes[a], a))
        for a, b in zip(own, like, strict=True):
            taken = {centre, *matched, *matched.values()}
            if a in taken or b in taken or a == b:
                return None
            matched[a] = b
            pending.append((a, mine, b, theirs))
    return matched
