"""Internal coordinates of any molecule along a spanning tree of its bonds, and coordinates from them.

Every atom but the root hangs on a parent by a bond length r, an angle theta and an azimuth alpha in the parent's frame.
The frame of an atom with children has its first axis along the bond from its parent and is turned about it by a torsion
phi, so that *all* children of an atom turn together: the side groups of a chain keep their place, and with it their
handedness, whatever its torsions do. Together these are the 3 N - 6 degrees of freedom of N atoms. A ring is cut at one
bond, which the others keep closed.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.molecules.fixed import register_fixed
from noumena.molecules.topology import Topology


@dataclass(frozen=True)
class SpanningTree:
    """A spanning tree of the bonds, from the middle of the molecule outwards.

    Attributes:
        order: atoms, parents before children; the root first.
        parent: of each atom (by atom number); the root's is itself.
        main: the child that a frame's torsion is measured to, of each atom; -1 without children.
        grandparent: the atom that angles at an atom's parent are measured from; for children of the root its main
            child, and for that one itself.
        rotors: atoms other than the root that have children, parents first. A frame belongs to each.
    """

    order: tuple[int, ...]
    parent: tuple[int, ...]
    main: tuple[int, ...]
    grandparent: tuple[int, ...]
    rotors: tuple[int, ...]

    @property
    def root(self) -> int:
        """The atom in the middle."""
        return self.order[0]


def spanning_tree(topology: Topology) -> SpanningTree:
    """The tree that internal coordinates follow.

    The root is the heavy atom with two or more neighbours whose farthest atom is nearest: few frames stand between it
    and any atom, so errors have short levers. Breadth first, so that rings are cut opposite to it. The main child of an
    atom is the one with most descendants.
    """
    n = len(topology)
    inner = [a for a in range(n) if len(topology.neighbours[a]) > 1] or [0]
    reach = topology.bonds_between.max(1)
    root = min(inner, key=lambda a: (not topology.heavy[a], reach[a], a))
    parent = [-1] * n
    parent[root] = root
    order, queue = [], deque([root])
    while queue:
        atom = queue.popleft()
        order.append(atom)
        for other in topology.neighbours[atom]:
            if parent[other] < 0:
                parent[other] = atom
                queue.append(other)
    below = [1] * n
    for atom in reversed(order[1:]):
        below[parent[atom]] += below[atom]
    children: list[list[int]] = [[] for _ in range(n)]
    for atom in order[1:]:
        children[parent[atom]].append(atom)
    main = [max(own, key=lambda a: (below[a], topology.elements[a], -a), default=-1) for own in children]
    grandparent = [parent[parent[a]] if parent[a] != root else main[root] for a in range(n)]
    grandparent[root] = root
    rotors = tuple(atom for atom in order[1:] if children[atom])
    return SpanningTree(tuple(order), tuple(parent), tuple(main), tuple(grandparent), rotors)


class InternalCoordinates(nn.Module):
    """Between coordinates and internal coordinates of one molecule.

    Internal coordinates are two tensors: ``lengths`` of shape (batch, atoms - 1, 2), bond length in angstrom and
    angle in radians of each atom but the root, and ``turns`` of shape (batch, turns) in radians, first the torsion of
    each rotor, then the azimuth of each atom that is no main child. Some are fixed by how frames are chosen and not
    free: the angle of the root's main child, and the torsion of that child where nothing defines it.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        tree = spanning_tree(topology)
        self.tree = tree
        n, root = len(topology), tree.root
        placed = list(tree.order[1:])
        root_main = tree.main[root]
        reference = next((a for a in placed if tree.parent[a] == root and a != root_main), -1)
        self.gauge_is_free = reference < 0
        # Azimuths: of atoms that neither are a main child nor the root's reference child.
        sided = [a for a in placed if a not in (tree.main[tree.parent[a]], reference)]
        number_of_rotor = {atom: i for i, atom in enumerate(tree.rotors)}
        self.rotors, self.sided = len(tree.rotors), len(sided)
        # Row 0 of frames is the root's; row 1 + i that of rotor i.
        frame_of = [0 if a == root else 1 + number_of_rotor.get(a, -1) for a in range(n)]
        index = {
            "placed": placed,
            "parents": [tree.parent[a] for a in placed],
            "grandparents": [tree.grandparent[a] for a in placed],
            "parent_frame": [frame_of[tree.parent[a]] for a in placed],
            "rotor_atoms": list(tree.rotors),
            "rotor_rows": [placed.index(a) for a in tree.rotors],
            "rotor_main": [tree.main[a] for a in tree.rotors],
            "rotor_parent": [tree.parent[a] for a in tree.rotors],
            # The plane a torsion is measured from: for the root's main child that of the root's reference child.
            "rotor_plane": [
                (reference if reference >= 0 else root) if a == root_main else tree.grandparent[a] for a in tree.rotors
            ],
            "sided_rows": [placed.index(a) for a in sided],
            "sided_atoms": sided,
            "sided_main": [
                reference if tree.parent[a] == root else tree.main[tree.parent[a]] for a in sided
            ],
            "inverse": list(np.argsort([root, *placed])),
        }  # fmt: skip
        for name, entries in index.items():
            register_fixed(self, name, np.asarray(entries, dtype=np.int64))
        register_fixed(self, "jumps", ancestors([0, *(frame_of[tree.parent[a]] for a in tree.rotors)]))
        # A ring whose parts are from two conformations would not close.
        rings = {frozenset(topology.bonds[number]) for number in np.flatnonzero(topology.ring_bonds)}
        bridges = [a for a in tree.rotors if frozenset((a, tree.parent[a])) not in rings]
        below = _below(tree)
        register_fixed(self, "beyond_rows", below[np.ix_(bridges, placed)])
        register_fixed(self, "beyond_turns", below[np.ix_(bridges, [*tree.rotors, *sided])])
        self._first = placed.index(root_main) if n > 1 else 0

    @property
    def turns(self) -> int:
        """How many torsions and azimuths there are."""
        return self.rotors + self.sided

    def _index(self, name: str) -> Tensor:
        return cast("Tensor", getattr(self, name))

    def torsion_quadruples(self) -> np.ndarray:
        """The atoms of each rotor's torsion, int64, shape (rotors, 4)."""
        columns = ("rotor_plane", "rotor_parent", "rotor_atoms", "rotor_main")
        return np.stack([self._index(name).cpu().numpy() for name in columns], 1)

    def forward(self, xyz: Tensor) -> tuple[Tensor, Tensor]:
        """Internal coordinates of ``xyz``, shape (batch, atoms, 3), in angstrom: ``lengths`` and ``turns``."""

        def at(name: str) -> Tensor:
            return xyz.index_select(1, self._index(name))

        bond = at("placed") - at("parents")
        length = _length(bond)
        back = at("grandparents") - at("parents")
        angle = torch.atan2(_length(torch.linalg.cross(back, bond)), (back * bond).sum(-1))
        angle = torch.cat([angle[:, : self._first], torch.zeros_like(angle[:, :1]), angle[:, self._first + 1 :]], 1)
        axis = at("rotor_atoms") - at("rotor_parent")
        torsion = _turn(axis, at("rotor_plane") - at("rotor_parent"), at("rotor_main") - at("rotor_atoms"))
        if self.gauge_is_free:
            torsion = torch.cat([torch.zeros_like(torsion[:, :1]), torsion[:, 1:]], 1)
        rows = self._index("sided_rows")
        own, origin = bond.index_select(1, rows), xyz.index_select(1, self._index("parents").index_select(0, rows))
        azimuth = _turn(-back.index_select(1, rows), at("sided_main") - origin, own)
        return torch.stack([length, angle], -1), torch.cat([torsion, azimuth], 1)

    @property
    def bridges(self) -> int:
        """How many bonds there are with rotors beyond them that are part of no ring."""
        return len(self._index("beyond_rows"))

    def crossed(self, first: Tensor, second: Tensor, bond: Tensor) -> Tensor:
        """Molecules that are one conformation on the near side of a bond and another one beyond it.

        Args:
            first: coordinates of the side with the root, shape (batch, atoms, 3), in angstrom.
            second: coordinates of the other side, of the same shape.
            bond: beyond which one the other side lies, int64, shape (batch,), 0 to ``bridges`` - 1.

        Returns:
            Shape (batch, atoms, 3), centroid at the origin.
        """
        beyond_rows = self._index("beyond_rows").index_select(0, bond)[..., None]
        beyond_turns = self._index("beyond_turns").index_select(0, bond)
        (lengths, turns), (other_lengths, other_turns) = self(first), self(second)
        lengths = torch.where(beyond_rows, other_lengths, lengths)
        turns = torch.where(beyond_turns, other_turns, turns)
        return self.build(lengths, torch.cos(turns), torch.sin(turns))

    def build(self, lengths: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Coordinates from internal coordinates, turns given by cosine and sine.

        Frames are multiplied along the tree by pointer jumping: as many batched products as the logarithm of its depth,
        instead of one after the other.

        Args:
            lengths: shape (batch, atoms - 1, 2).
            cos, sin: of the turns, each of shape (batch, turns).

        Returns:
            Shape (batch, atoms, 3) in angstrom, centroid at the origin.
        """
        batch = len(lengths)
        one, zero = lengths.new_ones(batch, lengths.shape[1]), lengths.new_zeros(batch, lengths.shape[1])
        rows = self._index("sided_rows")
        cos_azimuth = one.index_copy(1, rows, cos[:, self.rotors :])
        sin_azimuth = zero.index_copy(1, rows, sin[:, self.rotors :])
        radius, angle = lengths.unbind(-1)
        c, s = torch.cos(angle), torch.sin(angle)
        # The root's main child lies on the far side of the first axis: angle 0, azimuth pi.
        first = torch.zeros_like(one[0]).index_fill(0, self._index("rotor_rows").new_tensor([self._first]), 1.0)
        c, s = c * (1 - first) + first, s * (1 - first)
        cos_azimuth = cos_azimuth * (1 - 2 * first)
        direction = torch.stack([-c, s * cos_azimuth, s * sin_azimuth], -1)
        offset = direction * radius[..., None]
        rotation, shift = self._rotor_transforms(direction, c, s, cos_azimuth, sin_azimuth, offset, cos, sin)
        identity = torch.eye(3, dtype=lengths.dtype, device=lengths.device).expand(batch, 1, 3, 3)
        rotation = torch.cat([identity, rotation], 1)
        shift = torch.cat([shift.new_zeros(batch, 1, 3), shift], 1)
        for ancestor in self._index("jumps"):
            above, below = rotation.index_select(1, ancestor), rotation
            shift = shift.index_select(1, ancestor) + (above @ shift[..., None])[..., 0]
            rotation = above @ below
        frame = self._index("parent_frame")
        turned = rotation.index_select(1, frame) @ offset[..., None]
        xyz = torch.cat([shift.new_zeros(batch, 1, 3), shift.index_select(1, frame) + turned[..., 0]], 1)
        xyz = xyz.index_select(1, self._index("inverse"))
        return xyz - xyz.mean(1, keepdim=True)

    def _rotor_transforms(
        self,
        direction: Tensor,
        c: Tensor,
        s: Tensor,
        cos_azimuth: Tensor,
        sin_azimuth: Tensor,
        offset: Tensor,
        cos: Tensor,
        sin: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Each rotor's frame in that of its parent: rotations (batch, rotors, 3, 3) and shifts (batch, rotors, 3)."""
        rows = self._index("rotor_rows")
        # The second axis lies in the plane of the last two bonds, on the side of the grandparent: torsion 0 is cis.
        second = torch.stack([-s, -c * cos_azimuth, -c * sin_azimuth], -1).index_select(1, rows)
        e1 = direction.index_select(1, rows)
        third = torch.linalg.cross(e1, second)
        turn_cos, turn_sin = cos[:, : self.rotors, None], sin[:, : self.rotors, None]
        e2 = turn_cos * second + turn_sin * third
        e3 = turn_cos * third - turn_sin * second
        return torch.stack([e1, e2, e3], -1), offset.index_select(1, rows)


def _below(tree: SpanningTree) -> np.ndarray:
    """Which atoms hang on which others, bool, shape (atoms, atoms), an atom on itself; by [upper, lower]."""
    found = np.eye(len(tree.parent), dtype=bool)
    for atom in tree.order[1:]:
        found[:, atom] |= found[:, tree.parent[atom]]
    return found


def _length(vectors: Tensor) -> Tensor:
    return vectors.square().sum(-1).clamp_min(1e-12).sqrt()


def _turn(axis: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """Signed angle about ``axis`` from ``start`` to ``end``, right-handed, in radians; shape (batch, turns)."""
    across = torch.linalg.cross(axis, start)
    sin = _length(axis) * (across * end).sum(-1)
    return torch.atan2(sin, (across * torch.linalg.cross(axis, end)).sum(-1))


def ancestors(parents: Sequence[int] | np.ndarray) -> np.ndarray:
    """Which node to combine each node with in each round of pointer jumping (Hillis & Steele 1986).

    Args:
        parents: of each node; the root's is itself.

    Returns:
        int64, shape (rounds, nodes): the ancestor 1, 2, 4, ... steps up, the root where there is none.
    """
    ancestor = np.asarray(parents, dtype=np.int64)
    root = np.flatnonzero(ancestor == np.arange(len(ancestor)))[0]
    rounds: list[np.ndarray] = []
    while (ancestor != root).any():
        rounds.append(ancestor)
        ancestor = ancestor[ancestor]
    return np.stack(rounds) if rounds else np.zeros((0, len(ancestor)), dtype=np.int64)
