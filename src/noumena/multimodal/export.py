"""A model as an ONNX file, for runtimes without Python; checked against the model before anybody gets it."""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.core.exporting import quiet_exporters
from noumena.core.posterior import DiagonalGaussian
from noumena.multimodal.frontend import FrontEnd
from noumena.multimodal.inference import Prediction
from noumena.multimodal.model import MVAE
from noumena.multimodal.objective import subset_index

_TOLERANCE = 1e-5
_CHECKED_ROWS = 64
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(model: MVAE, inputs: Sequence[str], targets: Sequence[str], *, std: bool = True) -> bytes:
    """The inference of ``targets`` from ``inputs`` as the content of an ONNX file.

    Its inputs are called as the modalities and take float32 of shape (rows, size) in physical units, any number of
    rows. Its outputs are ``<target>`` (``<target>_mean`` where the target is an input as well) and ``<target>_std``, of
    shape (rows, size): what :meth:`~noumena.multimodal.model.MVAE.infer` gives, deviations being NaN where the model
    was not calibrated. The metadata are JSON: ``inputs``, a list of names; ``outputs``, names of the modalities by
    those of the outputs; ``modalities``, of each its name, columns, units and kind.

    Args:
        model: a fitted model.
        inputs: names of the modalities that every row has.
        targets: names of the modalities to infer.
        std: with standard deviations.

    Raises:
        ConfigError: an unknown name, or names that ONNX could not tell apart.
        NotSupportedError: a package for ONNX is not installed, or the model has no weights yet.
        ArtifactError: the file would not compute what the model does.
    """
    model.check_names(inputs)
    model.check_names(targets)
    _check_installed()
    inputs, targets = tuple(dict.fromkeys(inputs)), tuple(dict.fromkeys(targets))
    outputs: dict[str, str] = {}
    for name in targets:
        outputs |= {f"{name}_mean" if name in inputs else name: name, **({f"{name}_std": name} if std else {})}
    if len({*inputs, *outputs}) < len(inputs) + len(targets) * (1 + std):
        raise ConfigError(f"the names {[*inputs, *outputs]} must differ in an ONNX file. Leave out the deviations.")
    # A copy, because the tracing is done on the processor and in single precision, wherever the model is.
    single = copy.deepcopy(model).cpu().float().eval()
    rows = _typical_rows(single, inputs)
    file = _exported(_Inference(single, inputs, targets, std=std), rows, outputs)
    _check(file, rows, single.infer(rows, targets), outputs)
    return file


class _Inference(nn.Module):
    """The inference as a function of tensors alone."""

    def __init__(self, model: MVAE, inputs: Sequence[str], targets: Sequence[str], *, std: bool) -> None:
        super().__init__()
        self.model = model
        self._numbers = [model.names.index(name) for name in inputs]
        self._targets = targets
        self._std = std
        observed = torch.tensor([[name in inputs for name in model.names]])
        self.register_buffer("subset", subset_index(observed))

    def forward(self, *rows: Tensor) -> list[Tensor]:
        """Means and deviations, each of shape (rows, size), in turn."""
        model = self.model
        z = self._latents(rows)
        decoded = model.decode_some(z, self._targets)
        found: list[Tensor] = []
        for name in self._targets:
            found.append(decoded[name])
            if self._std:
                number = model.names.index(name)
                subset = cast("Tensor", self.subset)
                found.append(model.calibration.std(subset, number, model.slices[name], z))
        return found

    def _latents(self, rows: Sequence[Tensor]) -> Tensor:
        """Posterior means, shape (rows, latent)."""
        posteriors: list[DiagonalGaussian] = []
        for number, x in zip(self._numbers, rows, strict=True):
            front = cast("FrontEnd", self.model.fronts[number])
            posteriors.append(self.model.encoders[number](front.encoder_input(front(x))))
        if len(posteriors) == 1:
            return posteriors[0].mean
        means = torch.stack([posterior.mean for posterior in posteriors])
        if self.model.fusion in ("moe", "align"):
            return means.mean(0)
        # A softmax over the modalities: their precisions, normalised.
        log_vars = torch.stack([posterior.log_var for posterior in posteriors])
        return (torch.softmax(-log_vars, 0) * means).sum(0)


def _exported(network: _Inference, rows: Mapping[str, np.ndarray], outputs: Mapping[str, str]) -> bytes:
    axis = torch.export.Dim("rows")
    with quiet_exporters():
        program = torch.onnx.export(
            network.eval(),
            tuple(torch.from_numpy(array) for array in rows.values()),
            input_names=list(rows),
            output_names=list(outputs),
            dynamic_shapes=(tuple({0: axis} for _ in rows),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = network.model
    used = [m for m in model.modalities if m.name in rows or m.name in outputs.values()]
    proto = program.model_proto
    _forget_origin(proto.graph)
    proto.producer_name = "noumena"
    facts = {"inputs": list(rows), "outputs": dict(outputs), "modalities": [asdict(modality) for modality in used]}
    for key, value in facts.items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    return proto.SerializeToString()


def _forget_origin(graph: Any) -> None:
    """Remove what the exporter notes beside every node: lines of code, with the paths of the machine."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]


def _check(
    file: bytes, rows: Mapping[str, np.ndarray], expected: Mapping[str, Prediction], outputs: Mapping[str, str]
) -> None:
    """Compare what the file computes with what the model does, relative to the largest number of each output."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    found = cast("list[np.ndarray]", session.run(list(outputs), dict(rows)))
    for (output, name), values in zip(outputs.items(), found, strict=True):
        wanted = expected[name].std if output.endswith("_std") and output != name else expected[name].mean
        known = np.isfinite(wanted)
        scale = float(np.abs(wanted[known]).max(initial=0.0)) or 1.0
        same = values.shape == wanted.shape and bool((np.isfinite(values) == known).all())
        error = float(np.abs(values - wanted)[known].max(initial=0.0)) / scale if same else float("inf")
        if not error <= _TOLERANCE:
            raise ArtifactError(
                f"ONNX: '{output}' differs from the model by {error:.1e} of its largest value, more than "
                f"{_TOLERANCE:.0e}. No file was written; report this with the versions of torch and onnxruntime."
            )


def _typical_rows(model: MVAE, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Random rows of the spread of the training data, and one of zeros."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, np.ndarray] = {}
    for name in names:
        front = cast("FrontEnd", model.fronts[model.names.index(name)])
        noise = torch.randn(_CHECKED_ROWS, len(front.mean), generator=generator)
        rows = front.mean + noise * front.scale * ~front.constant
        rows[0] = 0.0
        found[name] = rows.numpy()
    return found


def _check_installed() -> None:
    for package in _PACKAGES:
        if find_spec(package) is None:
            raise NotSupportedError(f"ONNX needs the package '{package}': pip install 'noumena[multimodal]'")
