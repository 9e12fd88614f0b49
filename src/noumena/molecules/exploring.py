"""What the explorer's page shows of a model of conformations: a map of their latents, and molecules to turn."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing, Explorer, Points, Slider, evenly
from noumena.core.model import LatentModel
from noumena.core.posterior import DiagonalGaussian
from noumena.molecules.baselines import aligned_to, thinned
from noumena.molecules.conformations import Conformations
from noumena.molecules.distributions import widest_torsions
from noumena.molecules.ensembles import Ensemble, Molecule
from noumena.molecules.geometry import aligned_square_deviation, superposed
from noumena.molecules.handedness import HANDS, Handedness
from noumena.molecules.metrics import wrapped
from noumena.molecules.model import MoleculeVAE
from noumena.molecules.path import moved_onto
from noumena.molecules.sticks3d import Stage
from noumena.molecules.view import _about

_TRAIN_FRAMES = 20_000  # that mean bond lengths are taken from
_ACTIVE = 0.01  # variance of the posterior mean above which a latent is active (Burda et al. 2016)
_SLIDERS = 16
_MOST_TORSIONS = 12  # among the colours, and in the table
_NEAREST = 8
# Share of the range by which a slider goes on beyond the shown frames at each end.
_BEYOND = 0.1


def explore(model: LatentModel, splits: Splits, limit: int = 20_000) -> "MoleculeExplorer":
    """The explorer of a trained ``MoleculeVAE``.

    Args:
        model: a trained one, of any encoder and decoder.
        splits: the data it was trained on. The test split is shown, else val, else train.
        limit: frames at most, evenly spread.

    Raises:
        NotSupportedError: another model.
        DataError: the data are of another molecule, or have no frame.
    """
    if not isinstance(model, MoleculeVAE):
        raise NotSupportedError(f"explore: {type(model).__name__} is no model of conformations that can be shown.")
    name, part = splits.held_out
    whole, train = (model.as_dataset(entry).to("cpu") for entry in (part, splits.train))
    if not len(whole):
        raise DataError(f"explore: the {name} part has no frames. Open data with some.")
    shown = whole.subset(torch.from_numpy(evenly(len(whole), limit)))
    about = f"{len(shown):,} of the {len(whole):,} frames of {name}"
    with torch.inference_mode():
        few = train.xyz[thinned(len(train), _TRAIN_FRAMES)]
        molecule = Molecule.fit(model.molecule, few, Handedness.of(model.molecule))
        return MoleculeExplorer(model, shown, molecule, about)


class MoleculeExplorer(Explorer):
    """Frames on the map of their posterior means."""

    def __init__(self, model: MoleculeVAE, shown: Conformations, molecule: Molecule, about: str) -> None:
        """
        Args:
            model: a trained one.
            shown: the frames of the map, on the CPU.
            molecule: what they are measured by.
            about: which frames these are.
        """
        self._model = model
        self._shown = shown
        self._molecule = molecule
        posterior = model.encode(shown)
        self._mean, self._log_var = posterior.mean.cpu(), posterior.log_var.cpu()
        found = model.decode_in_chunks(self._mean).cpu().float()
        self._rmsd = torch.cat(
            [aligned_square_deviation(*pair) for pair in zip(found.split(1024), shown.xyz.split(1024), strict=True)]
        ).sqrt()
        held = Ensemble.of("", "", shown.xyz, molecule)
        self._torsions = widest_torsions(molecule.topology, held.arrays["torsions"]) if len(shown) else []
        several = bool((shown.trajectory != shown.trajectory[0]).any())
        self._names = [
            (f"trajectory {trajectory}, " if several else "") + f"frame {frame}"
            for trajectory, frame in zip(shown.trajectory.tolist(), shown.frame.tolist(), strict=True)
        ]
        colours = {name: np.asarray(values) for name, values in self._colours(held, several).items()}
        self.points = Points(self._mean.float().numpy(), self._names, colours, about)
        self._active = _active(posterior)
        self.sliders: Sequence[Slider] = self._make_sliders()
        self.without: Mapping[str, str] = (
            {} if self.sliders else {"moved": "no latent is active: the posterior is the same for all shown frames."}
        )

    def _colours(self, held: Ensemble, several: bool) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        hand, zeta = self._molecule.handedness, held.zeta
        if hand is not None and zeta is not None:
            found["ζ, sum of torsions that tells the hand (°)"] = np.degrees(zeta.numpy())
            found["hand"] = np.array(HANDS)[hand.hands(zeta).numpy()]
        names, degrees = list(self._molecule.topology.torsions), np.degrees(held.arrays["torsions"])
        found |= {f"{names[column]} (°)": degrees[:, column] for column in self._torsions[:_MOST_TORSIONS]}
        found["RMSD of the reconstruction (Å)"] = self._rmsd.numpy()
        found |= {name: values.numpy() for name, values in self._shown.side.items()}
        found["frame"] = self._shown.frame.numpy()
        return found | ({"trajectory": self._shown.trajectory.numpy()} if several else {})

    def _make_sliders(self) -> list[Slider]:
        low, high = self._mean[:, self._active].amin(0), self._mean[:, self._active].amax(0)
        room = _BEYOND * (high - low)
        ends = zip(self._active, (low - room).tolist(), (high + room).tolist(), strict=True)
        return [Slider(f"z{latent}", start, end) for latent, start, end in ends]

    def original(self, index: int) -> Drawing:
        """The frame as it is in the data."""
        xyz = self._shown.xyz[index]
        note = f"{self._names[index]}{self._said_of(xyz)}; {self._molecule.topology.formula}"
        return self._stage(index).drawing(xyz, note)

    @torch.inference_mode()
    def reconstruction(self, index: int) -> Drawing:
        """The frame decoded from the posterior mean, superposed on the original, which is laid under it in grey."""
        return self._over_original(self._reconstructed(index), index, "reconstruction")

    def positions(self, index: int) -> Sequence[float]:
        """The active latents of a frame."""
        if not self.sliders:
            raise self._cannot("moved")
        return self._mean[index, self._active].tolist()

    @torch.inference_mode()
    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """The frame decoded with its active latents elsewhere, superposed on the original.

        Raises:
            ConfigError: another number of positions, or one that is not finite.
        """
        if not self.sliders:
            raise self._cannot("moved")
        if len(positions) != len(self.sliders) or not np.isfinite(positions).all():
            raise ConfigError(f"positions: expected {len(self.sliders)} finite numbers, got {list(positions)}.")
        z = self._mean[index].clone()
        z[self._active] = torch.tensor(positions, dtype=z.dtype)
        xyz = self._model.decode_in_chunks(z[None]).cpu().float()
        return self._over_original(superposed(xyz, self._shown.xyz[index][None])[0], index, "moved")

    @torch.inference_mode()
    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """Frames decoded on the straight line between two latents, each superposed on the one before it."""
        first = self._shown.xyz[start]
        xyz = moved_onto(self._model.interpolate(first, self._shown.xyz[end], steps).cpu().float(), first)
        stage = self._stage(start).widened(xyz)
        return [
            stage.drawing(one, f"step {step + 1} of {steps}, {100.0 * step / (steps - 1):.0f} % of the way{words}")
            for step, (one, words) in enumerate(zip(xyz, self._said_of_each(xyz), strict=True))
        ]

    @torch.inference_mode()
    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """New conformations, latents drawn from the prior that was fitted after training."""
        generator = torch.Generator(self._model.device).manual_seed(seed)
        xyz = aligned_to(self._model.sample(n, generator).cpu().float(), self._shown.xyz[0])
        stage = self._stage(0).widened(xyz)
        return [
            stage.drawing(one, f"sample {number} of {n}{words}")
            for number, (one, words) in enumerate(zip(xyz, self._said_of_each(xyz), strict=True), 1)
        ]

    @torch.inference_mode()
    def details(self, index: int) -> Sequence[Table]:
        """Numbers of the frame beside its reconstruction's, torsions, latents, and neighbours on the map."""
        both = torch.stack([self._shown.xyz[index], self._reconstructed(index)])
        pair = Ensemble.of("", "", both, self._molecule)
        torsions = self._torsion_table(pair)
        tables = [self._numbers(pair, index), *([torsions] if torsions.rows else []), self._latents(index)]
        return [*tables, self._neighbours(index)]

    def _stage(self, index: int) -> Stage:
        return Stage.of(self._shown.xyz[index], self._molecule.topology)

    def _reconstructed(self, index: int) -> Tensor:
        return self._model.reconstruct(self._shown.xyz[index][None]).cpu().float()[0]

    def _over_original(self, xyz: Tensor, index: int, kind: str) -> Drawing:
        original = self._shown.xyz[index]
        off = math.sqrt(float(aligned_square_deviation(xyz[None], original[None])[0]))
        note = f"{kind} over the original in grey: RMSD {off:.2f} Å over all atoms{self._said_of(xyz)}"
        return self._stage(index).drawing(xyz, note, original)

    def _said_of(self, xyz: Tensor) -> str:
        return self._said_of_each(xyz[None])[0]

    def _said_of_each(self, xyz: Tensor) -> list[str]:
        """Hand, clash and broken bond of frames (frames, atoms, 3), in words."""
        part = Ensemble.of("", "", xyz, self._molecule)
        return [_about(part, frame) for frame in range(len(xyz))]

    def _numbers(self, pair: Ensemble, index: int) -> Table:
        rows: list[list[Any]] = [["RMSD (Å)", None, round(float(self._rmsd[index]), 4)]]
        mirrored = aligned_square_deviation(pair.xyz[1:], pair.xyz[:1], reflect=True)
        rows.append(["RMSD, mirror images allowed (Å)", None, round(math.sqrt(float(mirrored[0])), 4)])
        hand, zeta = self._molecule.handedness, pair.zeta
        if hand is not None and zeta is not None:
            rows.append(["ζ (°)", *(round(math.degrees(value), 2) for value in zeta.tolist())])
            rows.append(["hand", *(HANDS[number] for number in hand.hands(zeta).tolist())])
        for name, wrong in (("clash", pair.flaws.clash), ("broken bond", pair.flaws.broken)):
            rows.append([name, *("yes" if each else "no" for each in wrong.tolist())])
        kept = self._molecule.centres.kept(pair.xyz)[:, torch.from_numpy(self._molecule.centres.stereogenic)]
        if kept.shape[1]:
            rows.append([f"stereocentres as in the training data, of {kept.shape[1]}", *kept.sum(1).tolist()])
        rows += [[name, _known(float(values[index])), None] for name, values in self._shown.side.items()]
        return Table(self._names[index].capitalize(), ("", "original", "reconstruction"), rows)

    def _torsion_table(self, pair: Ensemble) -> Table:
        names, columns = list(self._molecule.topology.torsions), self._torsions[:_MOST_TORSIONS]
        angles = pair.parts.torsions
        off = torch.rad2deg(wrapped(angles[1] - angles[0])).tolist()
        first, second = (torch.rad2deg(one).tolist() for one in angles)
        rows = [[names[i], round(first[i], 1), round(second[i], 1), round(off[i], 1)] for i in columns]
        caption = "In degrees; those of greatest spread over the shown frames first."
        if len(columns) < len(names):
            caption += f" {len(columns)} of {len(names)}."
        return Table("Torsions", ("", "original", "reconstruction", "difference"), rows, caption)

    def _latents(self, index: int) -> Table:
        one = DiagonalGaussian(self._mean[index], self._log_var[index])
        numbers = torch.stack([one.mean, one.std, one.kl_per_dimension()], 1)
        order = torch.argsort(numbers[:, 2], descending=True, stable=True)[:_SLIDERS].tolist()
        rows = [[f"z{i}", *(round(value, 4) for value in numbers[i].tolist())] for i in order]
        caption = f"Of the posterior; {len(order)} of {len(numbers)} latents, those that cost most first."
        return Table("Latents", ("", "mean", "standard deviation", "KL (nats)"), rows, caption)

    def _neighbours(self, index: int) -> Table:
        distance = (self._mean - self._mean[index]).norm(dim=1)
        order = [i for i in torch.argsort(distance, stable=True).tolist() if i != index][:_NEAREST]
        near = self._shown.xyz[order]
        off = aligned_square_deviation(near, self._shown.xyz[index].expand_as(near)).sqrt().tolist() if order else []
        rows = [
            [self._names[i], round(float(distance[i]), 4), round(rmsd, 3)] for i, rmsd in zip(order, off, strict=True)
        ]
        caption = "Distance of the posterior means; RMSD of the frames after superposition."
        return Table("Nearest in the latent space", ("frame", "distance", "RMSD (Å)"), rows, caption)


def _known(value: float) -> float | None:
    return round(value, 5) if math.isfinite(value) else None


def _active(posterior: DiagonalGaussian) -> list[int]:
    """Latents whose mean varies over the frames, those that cost most nats first; sixteen at most."""
    varies = posterior.mean.var(0, correction=0) > _ACTIVE
    cost = posterior.kl_per_dimension().mean(0)
    order = torch.argsort(cost, descending=True, stable=True)
    return order[varies[order]][:_SLIDERS].tolist()
