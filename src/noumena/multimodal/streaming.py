"""Inference of one sample at a time, for control loops and displays: plain numpy, no torch in the call."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.multimodal.calibration import MOST_DISTANCE
from noumena.multimodal.compiled import Perceptron, Vector, compiled, exact
from noumena.multimodal.frontend import FrontEnd
from noumena.multimodal.model import _REST_TOLERANCE, MVAE
from noumena.multimodal.networks import _GREATEST_LOG_VAR, _LEAST_LOG_VAR, Encoder, SkipMLP
from noumena.multimodal.objective import subset_index

# A posterior this much narrower than the greatest is the narrowest there is; float32 overflows at 88.
_LARGEST_EXPONENT = np.full(1, 80.0, np.float32)
_RANGE = np.full(1, math.exp(_GREATEST_LOG_VAR - _LEAST_LOG_VAR), np.float32)
_ONE = np.ones(1, np.float32)


class Streamer:
    """Infers modalities from others, one sample at a time, from weights compiled into a few small matrices.

    What :meth:`~noumena.multimodal.model.MVAE.infer` says of the same sample, in a fraction of its time: scaling,
    principal components and units are folded into the matrices, and buffers are made once. The weights are those the
    model has now; make another one after further training. An object serves one thread.
    """

    def __init__(
        self, model: MVAE, inputs: Sequence[str], targets: Sequence[str], *, smoothing: float | None = None
    ) -> None:
        """
        Args:
            model: a fitted model.
            inputs: names of the modalities that every sample has.
            targets: names of the modalities to infer.
            smoothing: share of the former output that is kept, in [0, 1): outputs are ``smoothing * former +
                (1 - smoothing) * inferred``, and the first one as it is. None: no filter.

        Raises:
            ConfigError: an unknown name, or a share out of range.
            NotSupportedError: the model has no weights yet.
        """
        model.check_names(inputs)
        model.check_names(targets)
        if smoothing is not None and not 0.0 <= smoothing < 1.0:
            raise ConfigError(f"smoothing: expected a share in [0, 1), got {smoothing}.")
        self.inputs = tuple(dict.fromkeys(inputs))
        self.targets = tuple(dict.fromkeys(targets))
        self.smoothing = smoothing
        self._z = np.zeros(model.z_dim, np.float32)
        self._encode = _Fusion(model, self.inputs)
        self._decoders = {name: _Exit(model, name) for name in self.targets}
        self._errors = _Errors(model, self.inputs, self.targets)
        self._rest = _rest_latent(model) if model.zero_at_rest else None
        self._off_rest = np.empty_like(self._z)
        if self._rest is not None:
            for name, modality in zip(model.names, model.modalities, strict=True):
                if name in self._decoders and modality.kind != "vector":
                    self._decoders[name].subtract_rest(self._rest)
        self._former: dict[str, Vector] = {}
        self._seen = False

    def __call__(self, sample: Mapping[str, Any] | Any) -> dict[str, Vector]:
        """The targets' means in physical units, float32, shape (size,) each; the arrays are the caller's.

        Args:
            sample: name to numbers of shape (size,) in physical units, further names are not looked at; or the
                numbers alone where there is one input.

        Raises:
            DataError: a modality is missing, has another size, or holds something that is no finite number. The state
                of the filter stays as it was.
        """
        self._encode(sample, self._z)
        self._seen = True
        z = self._z
        at_rest = self._rest is not None and self._is_near(self._rest)
        found = {name: decode(z, at_rest) for name, decode in self._decoders.items()}
        return found if self.smoothing is None else self._smoothed(found, self.smoothing)

    def std(self) -> dict[str, Vector]:
        """Calibrated standard deviations of the latest sample's targets (before smoothing), in physical units.

        Float32, shape (size,) each; NaN where the model was not calibrated.

        Raises:
            NotSupportedError: there has been no sample yet.
        """
        if not self._seen:
            raise NotSupportedError("there is no deviation before the first sample: call the streamer with one.")
        return self._errors(self._z)

    def reset(self) -> None:
        """Forget former outputs: the next one is not smoothed."""
        self._former.clear()

    def _smoothed(self, found: dict[str, Vector], kept: float) -> dict[str, Vector]:
        for name, value in found.items():
            former = self._former.get(name)
            if former is None:
                self._former[name] = value.copy()
                continue
            value -= former
            value *= np.float32(1.0 - kept)
            former += value
            value[:] = former
        return found

    def _is_near(self, rest: Vector) -> bool:
        off = self._off_rest
        np.subtract(self._z, rest, off)
        # The cheap bound on the sum of squares excludes almost every sample.
        return float(off.dot(off)) <= len(off) * _REST_TOLERANCE**2 and float(np.abs(off).max()) <= _REST_TOLERANCE


class _Fusion:
    """Samples to posterior means of the latents."""

    def __init__(self, model: MVAE, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._product = len(names) > 1 and model.fusion not in ("moe", "align")
        self._entries = [_Entry(model, name, 1.0 / len(names), variance=self._product) for name in names]
        size = model.z_dim
        self._out = np.empty(2 * size if self._product else size, np.float32)
        self._mean, self._exponent = self._out[:size], self._out[size:]
        self._total, self._sums = np.empty((2, size), np.float32)

    def __call__(self, sample: Any, z: Vector) -> None:
        entries = self._entries
        if type(sample) is dict or isinstance(sample, Mapping):
            for name, entry in zip(self._names, entries, strict=True):
                if name not in sample:
                    raise DataError(
                        f"expected a sample with {', '.join(self._names)}, found {', '.join(map(str, sample))}. Add "
                        f"'{name}', or make a streamer with other inputs."
                    )
                entry.read(sample[name])
        elif len(entries) == 1:
            entries[0].read(sample)
        else:
            raise DataError(
                f"expected a mapping with {', '.join(self._names)}, found {type(sample).__name__}. Pass "
                "{'name': numbers, ...}."
            )
        if self._product:
            self._multiply(z)
            return
        entries[0].run(z)
        for entry in entries[1:]:
            # Each has its share of the mean folded into its last matrix.
            np.add(z, entry.run(self._out), z)

    def _multiply(self, z: Vector) -> None:
        """Means weighted by precisions up to a common factor.

        With both soft bounds exp(-log_var) is (1 + e) / (1 + e + range), where e = exp(greatest - raw log-variance).
        """
        weight, mean, total, sums = self._exponent, self._mean, self._total, self._sums
        z.fill(0.0)
        total.fill(0.0)
        for entry in self._entries:
            entry.run(self._out)
            np.minimum(weight, _LARGEST_EXPONENT, out=weight)
            np.exp(weight, weight)
            np.add(weight, _ONE, weight)
            np.add(weight, _RANGE, sums)
            np.divide(weight, sums, weight)
            np.add(total, weight, total)
            np.multiply(mean, weight, mean)
            np.add(z, mean, z)
        np.divide(z, total, z)


class _Entry:
    """One modality's numbers to its posterior: checks, front end and encoder."""

    def __init__(self, model: MVAE, name: str, share: float, *, variance: bool) -> None:
        number = model.names.index(name)
        self._modality = model.modalities[number]
        front = cast("FrontEnd", model.fronts[number])
        encoder = cast("Encoder", model.encoders[number])
        gain = exact(front.input_weight)
        self._project = None
        if front.basis is None:
            gain = gain / exact(front.scale)
        else:
            project = gain[:, None] * exact(front.basis) / exact(front.scale) / exact(front.spread)
            self._project = compiled(project).dot
            gain = np.ones_like(gain)
        size = model.z_dim
        scale, shift = np.full(size, share), np.zeros(size)
        if variance:
            scale = np.concatenate([np.ones(size), -np.ones(size)])
            shift = np.concatenate([shift, np.full(size, _GREATEST_LOG_VAR)])
        network = Perceptron(encoder.network, model.activation, gain=gain, scale=scale, shift=shift)
        self._features = network.entry
        self.run = network.run
        self._mean = exact(front.mean).astype(np.float32)
        self._raw = np.empty(self._modality.size, np.float32)
        self._shape = self._raw.shape

    def read(self, values: Any) -> None:
        """Take a sample's numbers."""
        raw = self._raw
        try:
            array = np.asarray(values)
            if array.shape != self._shape:
                raise DataError(
                    f"'{self._modality.name}': expected {self._shape[0]} numbers, shape ({self._shape[0]},), found "
                    f"shape {array.shape}. Pass one sample, as x.reshape(-1)."
                )
            np.copyto(raw, array)
        except (TypeError, ValueError) as error:
            raise DataError(f"'{self._modality.name}': expected {self._shape[0]} numbers, found {error}.") from error
        if not np.isfinite(raw).all():
            column = int((~np.isfinite(raw)).argmax())
            raise DataError(
                f"'{self._modality.name}', column '{self._modality.columns[column]}' is {array[column]}; expected a "
                "finite float32 number. Leave the sample out."
            )
        if self._project is None:
            np.subtract(raw, self._mean, self._features)
        else:
            np.subtract(raw, self._mean, raw)
            self._project(raw, self._features)


class _Exit:
    """Latents to one modality's physical numbers: decoder and front end."""

    def __init__(self, model: MVAE, name: str) -> None:
        number = model.names.index(name)
        front = cast("FrontEnd", model.fronts[number])
        decoder = cast("SkipMLP", model.decoders[number])
        resting = model.zero_at_rest and model.modalities[number].kind != "vector"
        mean = np.zeros(front.mean.numel()) if resting else exact(front.mean)
        scale = np.where(front.constant.cpu().numpy(), 0.0, exact(front.scale))
        self._expand = None
        if front.basis is None:
            network = Perceptron(decoder, model.activation, scale=scale, shift=mean)
        else:
            network = Perceptron(decoder, model.activation)
            expand = scale[:, None] * exact(front.basis).T * float(front.spread)
            self._expand = compiled(np.column_stack([expand, mean])).dot
            self._scores = np.ones(front.features + 1, np.float32)
            self._score_part = self._scores[:-1]
        self._entry = network.entry
        self._run = network.run
        self._offset: Vector | None = None

    def subtract_rest(self, rest: Vector) -> None:
        """Subtract the decoding of the rest latent from now on."""
        self._offset = self(rest, False)

    def __call__(self, z: Vector, at_rest: bool) -> Vector:
        self._entry[:] = z
        if self._expand is None:
            value = self._run()
        else:
            self._run(self._score_part)
            value = self._expand(self._scores)
        if self._offset is not None:
            if at_rest:
                value.fill(0.0)
            else:
                np.subtract(value, self._offset, value)
        return value


class _Errors:
    """Calibrated deviations, see :class:`~noumena.multimodal.calibration.Calibration`."""

    def __init__(self, model: MVAE, inputs: Sequence[str], targets: Sequence[str]) -> None:
        calibration = model.calibration
        observed = torch.tensor([[name in inputs for name in model.names]])
        subset = int(subset_index(observed))
        self._centre = exact(calibration.centre).astype(np.float32)
        self._width = exact(calibration.width).astype(np.float32)
        slopes, scale = exact(calibration.slope)[subset], exact(calibration.scale)[subset].astype(np.float32)
        self._targets = {name: (float(slopes[model.names.index(name)]), scale[model.slices[name]]) for name in targets}

    def __call__(self, z: Vector) -> dict[str, Vector]:
        standard = (z - self._centre) / self._width
        distance = min(math.sqrt(standard.dot(standard) / len(z)) - 1.0, MOST_DISTANCE)
        return {name: scale * np.float32(math.exp(slope * distance)) for name, (slope, scale) in self._targets.items()}


def _rest_latent(model: MVAE) -> Vector:
    """Posterior mean of the rest pose, by the arithmetic of the samples, so that rest is met exactly."""
    pose = next(modality for modality in model.modalities if modality.kind == "pose")
    entry = _Entry(model, pose.name, 1.0, variance=False)
    entry.read(np.zeros(6, np.float32))
    return entry.run()
