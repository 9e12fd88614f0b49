"""A detector as an ONNX file, for runtimes without Python; checked against the model before anybody gets it.

Its input ``rows`` is float32 of shape (batch, columns), any number of rows, columns in the order of the metadata and in
the units of the data. Its outputs have shape (batch,): ``score``, float32, higher is more normal; with a threshold
``is_anomaly``, bool; of a calibrated model ``p_value``, float32. The metadata, JSON, are ``model``, ``columns``,
``score_unit``, ``threshold`` (or null), ``calibration_rows`` and ``noumena_version``.
"""

import copy
import json
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ArtifactError, NotSupportedError
from noumena.core.exporting import quiet_exporters
from noumena.density.detector import Detector
from noumena.density.differentiable import column_names_of
from noumena.density.neighbours import _LEAST_DISTANCE, Neighbours

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_TOLERANCE = 1e-5
_CHECKED_ROWS = 96
# Standard deviations by which rows of the check are moved: where normal rows are, where anomalies are, and far away.
_SHIFTS = (0.0, 1.0, 10.0, 1000.0)
_P_TOLERANCE = 1e-6
# Of nearest neighbours: rows whose distances are taken exactly, per neighbour asked for.
_CANDIDATES = 4


def to_onnx(model: Detector) -> bytes:
    """The score, the verdict and the p-value of rows as the content of an ONNX file.

    Args:
        model: a trained model.

    Raises:
        NotSupportedError: a package for ONNX is not installed, the model has no weights yet, or its score has
            operations that ONNX lacks.
        ArtifactError: the file would not compute what the model does.
    """
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise NotSupportedError(f"ONNX needs the package '{package}': pip install 'noumena[onnx]'")
    if getattr(model, "active_scoring", None) == "original":
        raise NotSupportedError(
            "scoring='original' draws noise by the bits of a row, which ONNX has no operation for. Export with "
            "scoring='reconstruction', which decodes the mean instead of a draw."
        )
    if not model.is_built:
        raise NotSupportedError("the model has no weights yet: call fit(data), or load a saved one.")
    # A copy, because the tracing is done on the processor and in single precision, wherever the model is.
    single = copy.deepcopy(model).cpu().float().eval()
    single.threshold, single.calibration = model.threshold.cpu().double(), model.calibration.cpu().double()
    for parameter in single.parameters():
        parameter.requires_grad_(False)
    rows = _checked_rows(single)
    content = _exported(single, rows)
    _check(content, single, rows)
    return content


class NeighbourScore(nn.Module):
    """The score of :class:`~noumena.density.neighbours.Neighbours` by operations that ONNX has, without an index."""

    centre: Tensor
    least: Tensor

    def __init__(self, model: Neighbours) -> None:
        super().__init__()
        self.model = model
        self._kept = min(model.neighbours, len(model.reference))
        self._columns = int(model.varying)
        self._offset = 0.0
        if model.method == "density":
            # The density falls by the columns' number times the logarithm of the distance; this is the rest.
            unit = model.unit.reshape(1)
            self._offset = float(model._log_density_of(unit) + self._columns * unit.log())
        self.register_buffer("centre", model.centre.clone())
        self.register_buffer("least", _LEAST_DISTANCE * model.unit)

    def forward(self, rows: Tensor) -> Tensor:
        """Scores (batch,) of rows (batch, columns) in the units of the data."""
        distances = self._distances(self.model._within_reach(rows))
        if self.model.method == "mean":
            return -distances.mean(-1)
        furthest = distances.amax(-1)
        if self.model.method == "kth":
            return -furthest
        return self._offset - self._columns * torch.maximum(furthest, self.least).log()

    def _distances(self, x: Tensor) -> Tensor:
        """Distances to the nearest reference rows (batch, neighbours): the best of four times as many candidates.

        A matrix product finds the candidates, its rounding being why there are more; differences give the distances.
        """
        reference = self.model.reference
        centred = reference - self.centre
        squared = centred.square().sum(-1) - 2.0 * (x - self.centre) @ centred.T  # less the row's own square
        candidates = min(len(reference), _CANDIDATES * self._kept)
        near = reference[squared.topk(candidates, largest=False, sorted=False).indices]
        distances = (x[:, None] - near).square().sum(-1)
        return distances.topk(self._kept, largest=False, sorted=False).values.sqrt()


class _Score(nn.Module):
    """A detector's score as the forward pass of a module."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, rows: Tensor) -> Tensor:
        """Scores (batch,) of rows (batch, columns)."""
        return self.model.log_density(rows)


class Verdict(nn.Module):
    """A detector's answers as a function of rows alone."""

    threshold: Tensor
    steps: Tensor
    calibration: Tensor

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = NeighbourScore(model) if isinstance(model, Neighbours) else _Score(model)
        self.outputs = ["score"]
        if not bool(model.threshold.isnan()):
            self.outputs.append("is_anomaly")
        if model.calibration_rows:
            self.outputs.append("p_value")
        self.register_buffer("threshold", model.threshold.double())
        # Padded to a power of two less one, so that every step of the search stays inside.
        self._rows = len(model.calibration)
        steps = [2**k for k in reversed(range(self._rows.bit_length()))]
        padding = model.calibration.new_full((sum(steps) - self._rows,), float("inf"))
        self.register_buffer("calibration", torch.cat([model.calibration, padding]).double())
        self._steps = steps

    def forward(self, rows: Tensor) -> list[Tensor]:
        """``score`` and, where the model has them, ``is_anomaly`` and ``p_value``, each of shape (batch,)."""
        score = self.model(rows)
        score = torch.where(torch.isnan(score), torch.full_like(score, float("-inf")), score)
        # Compared in double precision, as the model does.
        wide = score.double()
        finite = ~(torch.isinf(wide) | torch.isnan(wide))
        found = [score]
        if "is_anomaly" in self.outputs:
            found.append(~((wide >= self.threshold) & finite))
        if "p_value" in self.outputs:
            at_most = torch.where(finite, self._at_most(wide), 0)
            found.append(((1.0 + at_most.double()) / (self._rows + 1.0)).float())
        return found

    def _at_most(self, score: Tensor) -> Tensor:
        """How many calibration scores are at most each score: a binary search, int64, shape (batch,)."""
        place = torch.zeros_like(score, dtype=torch.int64)
        for step in self._steps:
            below = self.calibration[place + (step - 1)] <= score
            place = torch.where(below, place + step, place)
        return place


def _exported(model: Detector, rows: Tensor) -> bytes:
    network = Verdict(model).eval()
    # Once before the tracing: what the model computes once and keeps must be numbers, not the tracer's stand-ins.
    with torch.no_grad():
        network(rows)
    try:
        with quiet_exporters(), torch.no_grad():
            program = torch.onnx.export(
                network,
                (rows,),
                input_names=["rows"],
                output_names=network.outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise NotSupportedError(
            f"{type(model).__name__}: its score cannot be written as ONNX ({reason}). Score with noumena instead."
        ) from error
    proto = cast("Any", program).model_proto
    _forget_origin(proto.graph)
    proto.producer_name = "noumena"
    for key, value in _metadata(model).items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return proto.SerializeToString()


def _metadata(model: Detector) -> Mapping[str, Any]:
    from noumena import __version__

    threshold = float(model.threshold)
    return {
        "model": type(model).__name__,
        "columns": list(column_names_of(model)),
        "score_unit": model.score_unit,
        "threshold": None if np.isnan(threshold) else threshold,
        "calibration_rows": model.calibration_rows,
        "noumena_version": __version__,
    }


def _forget_origin(graph: Any) -> None:
    """Remove what the exporter notes beside every node: lines of code, with the paths of the machine."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def _checked_rows(model: Detector) -> Tensor:
    """Rows of the model where it can draw some, else of its columns' means and deviations, and these moved far away."""
    generator = torch.Generator().manual_seed(0)
    assert model.input_dim is not None
    noise = torch.randn(_CHECKED_ROWS, model.input_dim, generator=generator)
    mean, scale = torch.zeros(model.input_dim), torch.ones(model.input_dim)
    if model.standardizer is not None:
        mean, scale = model.standardizer.mean, model.standardizer.scale * ~model.standardizer.constant
    try:
        rows = model.sample(_CHECKED_ROWS, generator, noise=True)
    except NotSupportedError:
        rows = mean + noise * scale
    moved = [rows.clone().float() + shift * noise * scale for shift in _SHIFTS]
    return torch.cat([*moved, torch.zeros(1, model.input_dim), mean[None].clone()])


def _check(content: bytes, model: Detector, rows: Tensor) -> None:
    """Compare what the file computes with what the model does, of one row and of many."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    for part in (rows, rows[:1]):
        found = dict(zip(names, session.run(names, {"rows": part.numpy()}), strict=True))
        _check_scores(cast("np.ndarray", found["score"]), model.score_samples(part))
        _check_answers({name: cast("np.ndarray", answer) for name, answer in found.items()}, model)


def _check_scores(found: np.ndarray, wanted: np.ndarray) -> None:
    """Each score to 1e-5 of itself, or of the median score where it is smaller."""
    finite = np.isfinite(wanted)
    same = found.shape == wanted.shape and bool((np.isfinite(found) == finite).all())
    scale = np.maximum(np.abs(wanted), np.median(np.abs(wanted[finite]))) if finite.any() else np.ones(len(wanted))
    error = (np.abs(found - wanted) / np.where(scale > 0, scale, 1.0))[finite].max(initial=0.0) if same else np.inf
    if not error <= _TOLERANCE:
        raise ArtifactError(
            f"ONNX: the scores differ from the model's by {error:.1e} of themselves, more than {_TOLERANCE:.0e}. No "
            "file was written; report this with the versions of torch and onnxruntime."
        )


def _check_answers(found: Mapping[str, np.ndarray], model: Detector) -> None:
    """The verdicts and p-values that the model would give to the scores of the file."""
    scores = found["score"].astype(np.float64)
    right = True
    if "is_anomaly" in found:
        right &= bool((found["is_anomaly"] == model.is_anomaly(scores)).all())
    if "p_value" in found:
        right &= bool(np.allclose(found["p_value"], model.p_value_of(scores), rtol=_P_TOLERANCE, atol=0.0))
    if not right:
        raise ArtifactError(
            "ONNX: the verdicts or p-values differ from those the model gives to the same scores. No file was "
            "written; report this with the versions of torch and onnxruntime."
        )
