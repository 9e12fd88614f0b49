"""What the explorer's page shows of a world model: frames of episodes, decoded or sought, and imagined futures."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from noumena.core.data import Dataset, Splits
from noumena.core.errors import ConfigError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing, Explorer, Points, Slider, why_nothing_moves
from noumena.worldmodels.baselines import Supervised
from noumena.worldmodels.exploring_films import Line, film_file, shown_steps, state_names, step_table, strip
from noumena.worldmodels.exploring_latents import Training, axes_of, on_simplex, survey
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.rssm import RSSM
from noumena.worldmodels.sequences import Sequences

_MOST_SLIDERS = 16
# Share of the latents' variance below which a principal axis moves nothing one could see.
_LEAST_SHARE = 1e-4
# Of probabilities that a softmax gave in float32.
_ROUNDING = 1e-4


def explore(model: WorldModel, splits: Splits, limit: int = 20_000) -> "FilmExplorer":
    """The explorer of a trained world model; its points are the single frames of whole sequences.

    Args:
        model: any model of the family.
        splits: its data. The test part is shown, else val, else train.
        limit: frames of the map at most.

    Raises:
        DataError: the data have other frames or actions than the model's.
    """
    name, held = splits.held_out
    return FilmExplorer(model.eval(), name, model.as_dataset(held), model.as_dataset(splits.train), limit)


class FilmExplorer(Explorer):
    """Frames of sequences, and what a model makes of them.

    A model with a decoder draws what it decodes; of any other the training frames with the nearest latents are drawn,
    and said to be that.
    """

    wide = True

    def __init__(self, model: WorldModel, part: str, data: Dataset, train: Dataset, limit: int) -> None:
        self.model = model
        self.data = data
        self.schema = data.schema
        self._part = part
        self._training = Training(model, train)
        self._survey = survey(model, data, limit)
        self._kept = min(int(self.schema["steps"]), limit)
        self._latents = self._survey.latents[:, : self._kept].flatten(0, 1)
        self._mean, self._axes = axes_of(self._latents, _MOST_SLIDERS, _LEAST_SHARE)
        self._codes = (self._latents - self._mean) @ self._axes.T
        ends = zip(self._codes.amin(0).tolist(), self._codes.amax(0).tolist(), strict=True)
        self.sliders = [Slider(f"axis {k}", low, high) for k, (low, high) in enumerate(ends)]
        self.without = self._lacking()
        colours = self._survey.colours(self.schema, self._kept)
        names = [self._name(index) for index in range(len(self._latents))]
        self.points = Points(self._latents.numpy(), names, colours, self._about())

    def _lacking(self) -> dict[str, str]:
        found: dict[str, str] = {}
        if not self.sliders:
            found["moved"] = why_nothing_moves(
                len(self._latents),
                "the latents do not vary from frame to frame: they have collapsed, and no slider moves them.",
            )
        if not isinstance(self.model, RSSM):
            name = type(self.model).__name__
            found["samples"] = f"{name} has no decoder and no distribution to draw frames from. Use an RSSM."
        return found

    def _about(self) -> str:
        shown = len(self._survey.sequences)
        words = f"{len(self._latents):,} frames of {shown:,} of {len(self.data):,} {self._part} sequences"
        if isinstance(self.model, RSSM):
            return f"{words}; mapped: states that have seen the frames up to their own."
        own = " Points are training frames themselves here." if self._part == "train" else ""
        return (
            f"{words}; mapped: the latent of each frame by itself. The model decodes nothing: in place of decoded "
            f"frames are those of {len(self._training):,} training frames whose latents are nearest.{own}"
        )

    # Where things are

    def _place(self, index: int) -> tuple[int, int]:
        """The number of a point's sequence in the data set, and its step."""
        return int(self._survey.sequences[index // self._kept]), index % self._kept

    def _name(self, index: int) -> str:
        sequence, step = self._place(index)
        return f"{self._part} sequence {sequence}, step {step}"

    def _sequence(self, *numbers: int) -> Sequences:
        return self.data.batch(torch.tensor(numbers, device=self.data.device)).to("cpu")

    # Drawings

    def original(self, index: int) -> Drawing:
        """The frame in its sequence, with the actions and, where they are known, the positions."""
        sequence, step = self._place(index)
        one = self._sequence(sequence)
        steps = shown_steps(one.steps, step)
        line = Line("data", one.frames[0, steps], self._marks(one, steps), self._arrows(one, steps))
        figure = strip([line], _titles(steps), self._survey.light, chosen=steps.index(step))
        arrows = "" if line.arrows is None else "; arrows: actions"
        note = f"{self._name(index)} of {one.steps - 1}, framed{arrows}"
        state = None if one.state is None else one.state[0]
        content = partial(film_file, one.frames[0], one.actions[0], state)
        return Drawing(figure, step_table(one, self.schema, step), note, ".npz", content)

    def reconstruction(self, index: int) -> Drawing:
        """The sequence decoded from its latents, and the future imagined from the frame and the actions."""
        return self._decoded(index, self._latents[index])

    def details(self, index: int) -> Sequence[Table]:
        """The true state beside those read from the latent, encoded or imagined, and how far the latents are apart."""
        sequence, step = self._place(index)
        survey, row = self._survey, index // self._kept
        facts: list[list[Any]] = [["sequence", sequence], ["step", step]]
        facts.append(["distance of the imagined latent", float(survey.drift[row, step])])
        if survey.error is not None:
            facts.append(["error of the decoded frame (root mean square)", float(survey.error[row, step])])
        else:
            _, distance = self._training.nearest(self._latents[index][None])
            facts.append(["distance of the nearest training frame", float(distance[0])])
        caption = "Imagined: from the first frame and the actions alone. Distances are in units of the latent."
        found = [Table(self._name(index), ["", "value"], facts, caption)]
        return found if survey.state is None else [*found, self._readings(survey.state[row, step], sequence, step)]

    @torch.inference_mode()
    def _readings(self, true: Tensor, sequence: int, step: int) -> Table:
        one = self._sequence(sequence).to(self.model.device)
        latents = {"read from the frame": self.model.encode(one).mean, "imagined": self.model.predict(one)}
        read = {name: self._read(found[0, step].cpu()) for name, found in latents.items()}
        names = state_names(self.schema, true.shape[-1])
        columns = [values.flatten().tolist() for values in (true, *read.values())]
        lines = [[name, *cells] for name, *cells in zip(names, *columns, strict=True)]
        how = (
            "the model's own linear map" if isinstance(self.model, Supervised) else "a linear probe of training frames"
        )
        caption = f"Read by {how}. Imagined: from the latent that the first frame and the actions lead to."
        return Table("State", ["", "true", *read], lines, caption)

    def _read(self, latent: Tensor) -> Tensor:
        """The state of a latent, shape (things, dims)."""
        if isinstance(self.model, Supervised):
            return self.model.read(latent.to(self.model.device)).float().cpu()
        assert self._training.probe is not None
        return self._training.probe.predict(latent.float())

    def positions(self, index: int) -> Sequence[float]:
        """The frame's latent along the directions in which latents vary most."""
        if "moved" in self.without:
            raise self._cannot("moved")
        return self._codes[index].tolist()

    def moved(self, index: int, positions: Sequence[float]) -> Drawing:
        """The sequence with the latent of the frame moved, and the future imagined from there."""
        if "moved" in self.without:
            raise self._cannot("moved")
        if len(positions) != len(self.sliders) or not np.isfinite(positions).all():
            raise ConfigError(f"positions: expected {len(self.sliders)} finite numbers, got {list(positions)}.")
        way = torch.tensor(list(positions), dtype=self._codes.dtype) - self._codes[index]
        latent, words = self._possible(self._latents[index] + way @ self._axes)
        return self._decoded(index, latent, words)

    def _possible(self, latent: Tensor) -> tuple[Tensor, str]:
        """``latent`` (latent,) with classes that are probabilities again, and what was done to it in words."""
        model = self.model
        if not isinstance(model, RSSM) or model.variant == "study" or model.latent != "categorical":
            return latent, ""
        groups = latent[model.deter :].unflatten(0, (model.variables, model.classes))
        nearest = on_simplex(groups)
        away = float((nearest - groups).norm())
        if away <= _ROUNDING:
            return latent, ""
        words = f"; classes moved by {away:.2g} to the nearest probabilities"
        return torch.cat([latent[: model.deter], nearest.flatten()]), words

    def path(self, start: int, end: int, steps: int) -> Sequence[Drawing]:
        """Single frames on the straight line between the latents of two frames."""
        share = torch.linspace(0.0, 1.0, steps)
        latents = torch.lerp(self._latents[start][None], self._latents[end][None], share[:, None])
        frames, words = self._frames(latents)
        found: list[Drawing] = []
        for part, frame, word in zip(share.tolist(), frames, words, strict=True):
            line = Line(self._way(), frame[None])
            figure = strip([line], [f"{100 * part:.0f} %"], self._survey.light)
            note = f"{100 * part:.0f} % of the way: {word}"
            found.append(Drawing(figure, None, note, ".npz", partial(film_file, frame[None], None)))
        return found

    @torch.inference_mode()
    def samples(self, n: int, seed: int) -> Sequence[Drawing]:
        """Films imagined from the first frame of one sequence and the actions of another, what is uncertain drawn."""
        if not isinstance(self.model, RSSM):
            raise self._cannot("samples")
        generator = torch.Generator().manual_seed(seed)
        count = len(self._survey.sequences)
        first, other = (
            self._survey.sequences[torch.randint(count, (n,), generator=generator).numpy()] for _ in range(2)
        )
        begun, acted = self._sequence(*first.tolist()), self._sequence(*other.tolist())
        start = self.model.start(begun.frames[:, 0].to(self.model.device))
        noise = torch.Generator(self.model.device).manual_seed(seed)
        rolled = self.model.rollout(start, acted.actions.to(self.model.device), generator=noise)
        films = self.model.decode(torch.cat([start[:, None], rolled], 1)).float().cpu()
        steps = shown_steps(films.shape[1], 0)
        found: list[Drawing] = []
        for k, film in enumerate(films):
            figure = strip([Line("imagined", film[steps])], _titles(steps), self._survey.light)
            table = step_table(Sequences(film[None], acted.actions[[k]]), self.schema, None)
            words = f"first frame of {self._part} sequence {first[k]}, actions of {self._part} sequence {other[k]}"
            content = partial(film_file, film, acted.actions[k])
            found.append(Drawing(figure, table, f"sample {k + 1}: imagined from the {words}", ".npz", content))
        return found

    # Decoding, or what stands in for it

    def _way(self) -> str:
        return "decoded" if isinstance(self.model, RSSM) else "nearest in training data"

    @torch.inference_mode()
    def _frames(self, latents: Tensor) -> tuple[Tensor, list[str]]:
        """A frame for each latent (n, latent), and what it is in words."""
        if isinstance(self.model, RSSM):
            decoded = self.model.decode(latents.to(self.model.device)).float().cpu()
            return decoded, ["decoded"] * len(latents)
        frames, distance = self._training.nearest(latents)
        return frames, [f"nearest in training data, latents {away:.3g} apart" for away in distance.tolist()]

    @torch.inference_mode()
    def _decoded(self, index: int, latent: Tensor, how: str = "") -> Drawing:
        """The sequence from its latents with ``latent`` (latent,) at the point's step, and what follows from it."""
        sequence, step = self._place(index)
        one = self._sequence(sequence)
        there = one.to(self.model.device)
        latents = self.model.encode(there).mean[0].float().cpu()
        latents[step] = latent
        if step + 1 < one.steps:
            rolled = self.model.rollout(latent[None].to(self.model.device), there.actions[:, step:])[0]
            latents = torch.cat([latents, rolled.float().cpu()])
        frames, words = self._frames(latents)
        film, future = frames[: one.steps], frames[one.steps :].float()
        steps = shown_steps(one.steps, step)
        marks = self._marks(one, steps)
        lines = [Line(self._way(), film[steps], marks)]
        if len(future):
            # The future begins with the frame itself.
            ahead = torch.cat([torch.full((step, *future.shape[1:]), torch.nan), film[[step]].float(), future])
            where = None if marks is None else marks.masked_fill(torch.tensor(steps)[:, None, None] < step, torch.nan)
            lines.append(Line(f"imagined from step {step}", ahead[steps], where))
        figure = strip(lines, _titles(steps), self._survey.light, chosen=steps.index(step))
        note = f"{self._name(index)}, framed: {words[step]}{self._error(film[step], one.frames[0, step])}{how}"
        content = partial(film_file, film, one.actions[0], None, future if len(future) else None)
        return Drawing(figure, self._numbers(one, film, future, step), note, ".npz", content)

    def _error(self, frame: Tensor, true: Tensor) -> str:
        wrong = float((frame.float() - true.float()).square().mean().sqrt())
        return f"; {wrong:.3g} from the true frame (root mean square of the pixels)"

    def _numbers(self, one: Sequences, film: Tensor, future: Tensor, step: int) -> Table:
        """How far the frames of each step are from the true ones."""
        true = one.frames[0].float()
        wrong = (film.float() - true).square().mean((1, 2, 3)).sqrt().tolist()
        ahead: list[float | None] = [None] * (step + 1)
        ahead += (future - true[step + 1 :]).square().mean((1, 2, 3)).sqrt().tolist()
        lines = [
            [f"{t} ◂" if t == step else str(t), *errors] for t, errors in enumerate(zip(wrong, ahead, strict=True))
        ]
        caption = (
            "Root mean square over pixels, in units of the frames; imagined: from the framed step and the actions."
        )
        return Table("Distance from the true frames", ["step", self._way(), "imagined"], lines, caption)

    def _marks(self, one: Sequences, steps: Sequence[int]) -> Tensor | None:
        """True positions in pixels at some steps, where the state is that, shape (steps, things, 2)."""
        if one.state is None or self.schema.get("state_unit") != "px" or one.state.shape[-1] != 2:
            return None
        return one.state[0, list(steps)]

    def _arrows(self, one: Sequences, steps: Sequence[int]) -> Tensor | None:
        """Actions at some steps, where they are moves in pixels, shape (steps, 2); NaN at the last one."""
        if list(self.schema["actions"]) != ["dx", "dy"] or self.schema.get("state_unit") != "px":
            return None
        none = torch.full((1, 2), torch.nan)
        return torch.cat([one.actions[0].float(), none])[list(steps)]


def _titles(steps: Sequence[int]) -> list[str]:
    return [f"t = {step}" for step in steps]
