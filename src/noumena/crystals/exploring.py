"""What the explorer's page shows of a model of crystals: a map of their vectors, and cells to turn."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing, Explorer, Points, Slider, evenly
from noumena.core.model import LatentModel
from noumena.crystals import cells3d
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.composition import composition_keys, formulas_of
from noumena.crystals.dataset import Crystals
from noumena.crystals.directions import MEANING, Directions
from noumena.crystals.drawing import aligned, mismatch
from noumena.crystals.frozen import OnAutoencoder
from noumena.crystals.generation_metrics import density_of, elements_of
from noumena.crystals.generator import CrystalPrior
from noumena.crystals.matching import CRITERIA, WORDS, match
from noumena.crystals.measures.distances import valid_cells
from noumena.crystals.model import CrystalVAE
from noumena.crystals.origin import moved
from noumena.crystals.plots import chemistry
from noumena.crystals.regression import PropertyHead
from noumena.crystals.symmetry import space_groups

_ROWS = 512
_NEAREST = 8
_LOOSE = 0.1  # angstrom, tolerance of space groups
_SECONDS = 5.0  # for comparing one pair of crystals
# Cells of more atoms are not compared: one step of the search may take minutes then, and no limit stops it.
_COMPARED_ATOMS = 60


def explore(model: LatentModel, splits: Splits, limit: int = 20_000) -> "CrystalExplorer":
    """The explorer of a trained ``CrystalVAE``, ``CrystalPrior`` or ``PropertyHead``.

    Args:
        model: a trained one; of a prior and of a head, latents and reconstructions are those of its autoencoder.
        splits: the data it was trained on. The test split is shown, else val, else train.
        limit: crystals at most, evenly spread.

    Raises:
        NotSupportedError: another model.
        DataError: the data have what the model does not know, or no crystal.
    """
    vae = _autoencoder_of(model)
    name, part = splits.held_out
    whole, train = (cast("Crystals", model.as_dataset(entry)).to("cpu") for entry in (part, splits.train))
    if not len(whole):
        raise DataError(f"explore: the {name} part has no crystals. Open data with some.")
    rows = evenly(len(whole), limit)
    shown, about = whole.subset(torch.from_numpy(rows)), f"{len(rows):,} of the {len(whole):,} crystals of {name}"
    # Not in inference mode: batches keep what is computed of them, and these may be trained on later.
    seen = set(composition_keys(train.crystals).tolist())
    with torch.inference_mode():
        return CrystalExplorer(model, vae, shown, rows, seen, about)


def _autoencoder_of(model: LatentModel) -> CrystalVAE:
    if isinstance(model, OnAutoencoder):
        model.check_built()
        model = model.vae
    if not isinstance(model, CrystalVAE):
        raise NotSupportedError(f"explore: {type(model).__name__} is no model of crystals that can be shown.")
    return model


class CrystalExplorer(Explorer):
    """Crystals on the map of their invariant vectors."""

    def __init__(
        self, model: LatentModel, vae: CrystalVAE, shown: Crystals, rows: np.ndarray, seen: Set[int], about: str
    ) -> None:
        """
        Args:
            model: what was trained.
            vae: its autoencoder, or itself.
            shown: the crystals of the map, on the CPU.
            rows: their numbers in the part of the data, shape (crystals,).
            seen: compositions of the training data, see :func:`~noumena.crystals.composition.composition_keys`.
            about: which crystals these are.
        """
        self._model = model
        self._vae = vae
        self._shown = shown
        self._seen = seen
        vectors = np.concatenate([_array(model.embed(part)) for part in shown.crystals.split(_ROWS)])
        self._ids = shown.crystals.names or tuple(f"crystal {row}" for row in rows.tolist())
        self._names = [
            f"{name} {formula}" for name, formula in zip(self._ids, formulas_of(shown.crystals), strict=True)
        ]
        self.points = Points(vectors.astype(np.float32), self._names, _colours(model, shown), about)
        self._directions = Directions.of(vae.encode(shown))
        self.sliders: Sequence[Slider] = self._directions.sliders
        self.without = _lacking(model, vae, bool(self.sliders))

    def original(self, index: int) -> Drawing:
        """The cell as it is in the data."""
        one = self._one(index)
        drawing = cells3d.cell_drawing(one, one, f"{self._ids[index]}: {cells3d.in_words(one)}")
        return replace(drawing, table=None)  # the lattice is among the details, beside the reconstruction's

    @torch.inference_mode()
    def reconstruction(self, index: int) -> Drawing:
        """The cell decoded from the posterior mean, moved onto the original by the best common translation."""
        found = self._plain(self._vae.reconstruct(self._one(index)), index, "reconstruction")
        return replace(self._beside(found, index, "reconstruction"), table=None)

    def positions(self, index: int) -> Sequence[float]:
        """The means of the atoms' latents, and the cell's latent, on the principal directions."""
        if not self.sliders:
            raise self._cannot("moved")
        return self._directions.values[index].tolist()

    @torch.inference_mode()
    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """The cell decoded from shifted latents; see :data:`~noumena.crystals.directions.MEANING`.

        Raises:
            ConfigError: another number of positions, or one that is not finite.
        """
        if not self.sliders:
            raise self._cannot("moved")
        if len(positions) != len(self.sliders) or not np.isfinite(positions).all():
            raise ConfigError(f"positions: expected {len(self.sliders)} finite numbers, got {list(positions)}.")
        one = self._one(index)
        where = torch.tensor(positions, dtype=self._directions.values.dtype)
        z = self._directions.shifted(self._vae.encode(one), index, where.to(self._vae.device))
        types = None if self._vae.predict_types else one.atom_types.to(self._vae.device)
        decoded = self._vae.decode(z, one.num_atoms, types=types)
        # Counted from the origin of the data, as reconstructions are.
        origin = self._vae.anchored(one.to(self._vae.device))[1].to(self._vae.dtype)
        return self._beside(self._plain(moved(decoded, origin), index, "moved"), index, "moved", MEANING)

    @torch.inference_mode()
    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """Cells decoded on the straight line between the latents of two crystals of equally many atoms.

        Raises:
            NotSupportedError: the autoencoder does not predict elements.
            DataError: the crystals have different numbers of atoms.
        """
        if "path" in self.without:
            raise self._cannot("path")
        first, last = self._one(start), self._one(end)
        if int(first.num_atoms[0]) != int(last.num_atoms[0]):
            raise DataError(
                f"path: {self._names[start]} has {int(first.num_atoms[0])} atoms and {self._names[end]} "
                f"{int(last.num_atoms[0])}; a path joins crystals of equally many atoms. Colour the map by 'atoms' to "
                "find two."
            )
        found = self._vae.interpolate(first, last, steps).to("cpu", torch.float64)
        found = aligned(first.select(torch.zeros(steps, dtype=torch.int64)), found)
        drawn: list[Drawing] = []
        for step, one in enumerate(found.split(1)):
            share = 100.0 * step / max(1, steps - 1)
            named = cells3d.plain(one, f"step_{step + 1}")
            note = f"step {step + 1} of {steps}, {share:.0f} % of the way: {cells3d.in_words(named)}"
            drawn.append(cells3d.cell_drawing(named, first, note))
        return drawn

    @torch.inference_mode()
    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """New crystals of a prior; elements and sizes are drawn too."""
        if "samples" in self.without:
            raise self._cannot("samples")
        generator = torch.Generator(self._model.device).manual_seed(seed)
        found: CrystalBatch = self._model.sample(n, generator).to("cpu", torch.float64)
        drawn: list[Drawing] = []
        keys = composition_keys(found).tolist()
        for number, (one, key) in enumerate(zip(found.split(1), keys, strict=True), 1):
            named = cells3d.plain(one, f"sample_{number}")
            known = "in the training data" if key in self._seen else "not in the training data"
            note = f"sample {number} of {n}: {cells3d.in_words(named)}; this composition is {known}"
            drawn.append(cells3d.cell_drawing(named, named, note))
        return drawn

    @torch.inference_mode()
    def details(self, index: int) -> Sequence[Table]:
        """Composition, lattice and symmetry beside the reconstruction's, properties, and neighbours on the map."""
        one = self._one(index)
        found = aligned(one, self._plain(self._vae.reconstruct(one), index, "reconstruction"))
        tables = [cells3d.composition_table(one), _lattices(one, found), _sameness(one, found)]
        properties = self._properties(index)
        return [*tables, *([properties] if properties.rows else []), self._neighbours(index)]

    def _one(self, index: int) -> CrystalBatch:
        return self._shown.crystals.select(torch.tensor([index]))

    def _plain(self, found: CrystalBatch, index: int, kind: str) -> CrystalBatch:
        return cells3d.plain(found, f"{self._names[index]} {kind}")

    def _beside(self, found: CrystalBatch, index: int, kind: str, meaning: str = "") -> Drawing:
        """A cell that was decoded for a shown crystal, and how far it is from it."""
        one = self._one(index)
        words = f"{kind}: {formulas_of(found)[0]}"
        if bool(valid_cells(found).all()):
            found = aligned(one, found)
            wrong = int((one.atom_types != found.atom_types).sum())
            off = mismatch(one, found)[0] + ("" if wrong else ", all elements right")
            words += f"; off the original: {off} (r.m.s. over the atoms, after the best translation)"
            if isinstance(self._model, PropertyHead):
                value, unit = float(self._model.predict(found)[0]), self._unit(self._model.target)
                words += f"; {self._model.target} predicted {value:.4g}{unit}"
        return cells3d.cell_drawing(found, one, f"{words}. {meaning}".rstrip(". "))

    def _unit(self, name: str) -> str:
        unit = self._shown.units.get(name, "")
        return f" {unit}" if unit else ""

    def _properties(self, index: int) -> Table:
        rows: list[list[Any]] = []
        if isinstance(self._model, PropertyHead):
            value, spread = self._model.predict_with_spread(self._one(index))
            unit = self._unit(self._model.target)
            rows.append([f"{self._model.target}, predicted{unit and f' ({unit.strip()})'}", round(float(value[0]), 5)])
            rows.append(["standard deviation of the members", round(float(spread[0]), 5)])
        for name, values in self._shown.properties.items():
            number = float(values[index])
            rows.append([_with_unit(self._shown, name), round(number, 5) if np.isfinite(number) else None])
        return Table("Properties", ("", "value"), rows, "Of the data, if nothing else is said.")

    def _neighbours(self, index: int) -> Table:
        vectors = self.points.vectors
        distance = np.linalg.norm(vectors - vectors[index], axis=1)
        order = [i for i in np.argsort(distance, kind="stable").tolist() if i != index][:_NEAREST]
        rows = [[self._names[i], round(float(distance[i]), 4)] for i in order]
        return Table("Nearest in the latent space", ("crystal", "distance"), rows, "Of the vectors of the map.")


def _array(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _with_unit(data: Crystals, name: str) -> str:
    unit = data.units.get(name)
    return f"{name} ({unit})" if unit else name


def _colours(model: LatentModel, shown: Crystals) -> dict[str, np.ndarray]:
    """What is known of every crystal, what the model itself says of it first."""
    crystals = shown.crystals
    found: dict[str, np.ndarray] = {}
    if isinstance(model, PropertyHead):
        name = _with_unit(shown, model.target)
        found[f"{name}, predicted"] = _array(model.predict(shown)).astype(np.float64)
        if model.target in shown.properties:
            error = found[f"{name}, predicted"] - _array(shown.properties[model.target])
            found[f"{name}, predicted less true"] = error
    found["class by most electronegative element"] = np.array(chemistry(crystals))
    if isinstance(model, CrystalPrior):
        found["composition under the prior (nats per atom)"] = _composition_nats(model, crystals)
    found["elements"] = _array(elements_of(crystals))
    found["atoms"] = _array(crystals.num_atoms)
    found["volume per atom (Å³)"] = _array(crystals.volume / crystals.num_atoms)
    found["density (g/cm³)"] = _array(density_of(crystals))
    return found | {_with_unit(shown, name): _array(values) for name, values in shown.properties.items()}


def _composition_nats(model: CrystalPrior, crystals: CrystalBatch) -> np.ndarray:
    """Negative log-probability of each crystal's elements given their number, per atom, shape (crystals,)."""
    found: list[np.ndarray] = []
    for part in (part.to(model.device) for part in crystals.split(_ROWS)):
        types = part.atom_types[model.formula.ordered(part.atom_types, part.crystal)]
        found.append(_array(-model.formula.log_prob(types, part.num_atoms) / part.num_atoms))
    return np.concatenate(found)


def _lacking(model: LatentModel, vae: CrystalVAE, has_directions: bool) -> Mapping[str, str]:
    found: dict[str, str] = {}
    if not has_directions:
        found["moved"] = "the latents of all shown crystals are the same: there is no direction to move along."
    if not vae.predict_types:
        found["path"] = (
            "this autoencoder does not predict elements, so what lies between two crystals has none. Train one with "
            "model.predict_types=true."
        )
    if not isinstance(model, CrystalPrior):
        try:
            model.sample(1)
        except NotSupportedError as error:
            found["samples"] = str(error)
    return found


def _lattices(one: CrystalBatch, found: CrystalBatch) -> Table:
    pairs = zip(cells3d.LATTICE_WORDS, cells3d.lattice_numbers(one), cells3d.lattice_numbers(found), strict=True)
    rows = [[word, round(true, 4), round(other, 4), round(other - true, 4)] for word, true, other in pairs]
    return Table("Lattice", ("", "original", "reconstruction", "difference"), rows)


def _sameness(one: CrystalBatch, found: CrystalBatch) -> Table:
    """Whether a reconstruction is the same crystal, and has the same space group."""
    rows: list[list[str]] = []
    notes: list[str] = []
    try:
        groups = [str(int(space_groups(each, _LOOSE)[0]) or "not found") for each in (one, found)]
        same = "yes" if groups[0] == groups[1] else "no"
        rows.append([f"space group within {_LOOSE} Å", f"{same}: {groups[0]} and {groups[1]}"])
    except NotSupportedError as error:
        notes.append(f"Space groups: {error}")
    if int(one.num_atoms[0]) > _COMPARED_ATOMS:
        notes.append(f"Cells of more than {_COMPARED_ATOMS} atoms are not compared here; evaluation does it.")
        return Table("Same crystal?", ("original and reconstruction", ""), rows, " ".join(notes))
    try:
        matches = match(one, found, workers=0, time_limit=_SECONDS)
        answers = {name: "yes" if bool(matches.matched[name][0]) else "no" for name in CRITERIA}
        rows += [[WORDS[name], answer] for name, answer in answers.items()]
        if answers["field"] == "yes":
            rows.append(["r.m.s. distance in units of (V / N)^(1/3)", f"{float(matches.rms[0]):.4f}"])
        notes += [f"Not compared: {words}" for words in matches.details if words]
    except NotSupportedError as error:
        notes.append(f"Comparison: {error}")
    return Table("Same crystal?", ("original and reconstruction", ""), rows, " ".join(notes))
