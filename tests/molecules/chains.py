"""Small molecules made up for tests, and random conformations of them."""

import numpy as np
import torch

from noumena.molecules.conformations import Conformations, centred
from noumena.molecules.internal import InternalCoordinates
from noumena.molecules.topology import Topology


def peptide(residues=3):
    """CH3-CO-(NH-C(CH3)2-CO)n-CH3 without hydrogens: every inner carbon has two like methyls."""
    elements, names, ids, bonds = [6, 6, 8], ["CH3", "C", "O"], [1, 1, 1], [(0, 1), (1, 2)]
    last = 1
    for residue in range(2, residues + 2):
        first = len(elements)
        elements += [7, 6, 6, 6, 6, 8]
        names += ["N", "CA", "CB1", "CB2", "C", "O"]
        ids += [residue] * 6
        bonds += [(last, first), (first, first + 1), (first + 1, first + 2), (first + 1, first + 3)]
        bonds += [(first + 1, first + 4), (first + 4, first + 5)]
        last = first + 4
    elements.append(6)
    names.append("CH3")
    ids.append(residues + 2)
    bonds.append((last, len(elements) - 1))
    return Topology.make(elements, bonds, names=names, residue_ids=ids, residue_names=["AIB"] * len(elements))


def alanine():
    """N-CA(-HA)(-CB)-C=O with its hydrogens left out but for HA: the middle is a stereocentre."""
    return Topology.make(
        [7, 6, 1, 6, 6, 8, 7],
        [(0, 1), (1, 2), (1, 3), (1, 4), (4, 5), (4, 6)],
        names=["N", "CA", "HA", "CB", "C", "O", "NXT"],
    )


def ring():
    """Methylcyclohexane without hydrogens."""
    return Topology.make([6] * 7, [*((i, (i + 1) % 6) for i in range(6)), (0, 6)])


def ethanol():
    return Topology.make([6, 6, 8, 1, 1, 1, 1, 1, 1], [(0, 1), (1, 2), (2, 8), (0, 3), (0, 4), (0, 5), (1, 6), (1, 7)])


def water():
    return Topology.make([8, 1, 1], [(0, 1), (0, 2)])


def dimer():
    return Topology.make([6, 8], [(0, 1)])


def conformations(topology, frames, seed=0, spread=0.8, dtype=torch.float32):
    """Frames with ordinary bonds and angles, tetrahedral and labelled hands fixed, and torsions about two values."""
    rng = np.random.default_rng(seed)
    internal = InternalCoordinates(topology).double()
    atoms = len(topology) - 1
    length = 1.45 + 0.03 * rng.standard_normal((frames, atoms))
    angle = np.deg2rad(111.0) + 0.05 * rng.standard_normal((frames, atoms))
    hand = rng.choice([-1.0, 1.0], (frames, 1))
    torsion = hand * (1.0 + 0.2 * np.arange(internal.rotors)) + spread * 0.3 * rng.standard_normal(
        (frames, internal.rotors)
    )
    # Further children of an atom lie on either side of the first, always the same; of an atom of three, flat.
    parents = [internal.tree.parent[a] for a in internal.sided_atoms.tolist()]
    flat = np.asarray([len(topology.neighbours[p]) == 3 for p in parents], dtype=bool)
    middle = np.where(flat, np.pi, np.where(np.arange(internal.sided) % 2 == 0, 2.1, -2.1))
    side = middle + 0.05 * rng.standard_normal((frames, internal.sided))
    turns = torch.from_numpy(np.concatenate([torsion, side], 1))
    xyz = internal.build(torch.from_numpy(np.stack([length, angle], -1)), torch.cos(turns), torch.sin(turns))
    return xyz.to(dtype)


def data(topology, frames, seed=0, **options):
    xyz = centred(conformations(topology, frames, seed, **options))
    number = torch.arange(frames)
    return Conformations(xyz, topology, torch.zeros_like(number), number)


def random_rotations(n, seed=0, dtype=torch.float64):
    """Uniformly random proper rotations, shape (n, 3, 3)."""
    generator = torch.Generator().manual_seed(seed)
    q, r = torch.linalg.qr(torch.randn(n, 3, 3, generator=generator, dtype=torch.float64))
    q = q * torch.sign(torch.diagonal(r, dim1=1, dim2=2))[:, None, :]
    q[:, :, 0] = q[:, :, 0] * torch.linalg.det(q)[:, None]
    return q.to(dtype)
