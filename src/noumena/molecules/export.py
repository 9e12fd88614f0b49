"""The encoder as one file for other programs, to be used as collective variables; checked before anybody gets it.

Its input ``xyz`` is float32 of shape (frames, atoms, 3): coordinates in angstrom, any number of frames, anywhere in
space, atoms in the order of the metadata. Its output ``z`` has shape (frames, latents): the posterior means. The
metadata, JSON, are ``model``, ``input``, ``output``, ``unit`` and ``topology``.

The check compares the file with the model on frames drawn from the prior, their mirror images included, to 1e-5 of the
largest latent. Single precision itself costs an ONNX file of a ViSNet encoder about half of that.
"""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from noumena.core.errors import ArtifactError, NotSupportedError
from noumena.core.exporting import quiet_exporters
from noumena.core.posterior import DiagonalGaussian
from noumena.molecules.model import MoleculeVAE

METADATA = "noumena.json"
"""The entry of a .pt2 file's ``extra_files`` that holds the metadata."""

_TOLERANCE = 1e-5
_CHECKED_FRAMES = 32
_ANYWHERE = 20.0  # angstrom
_ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def to_onnx(model: MoleculeVAE) -> bytes:
    """The encoder as the content of an ONNX file, for programs without Python.

    Args:
        model: a fitted model.

    Raises:
        NotSupportedError: a package for ONNX is not installed, or the model has no weights yet.
        ArtifactError: the file would not compute what the model does.
    """
    for package in _ONNX_PACKAGES:
        if find_spec(package) is None:
            raise NotSupportedError(f"ONNX needs the package '{package}': pip install 'noumena[molecules]'")
    import onnxruntime

    single, frames = _prepared(model)
    with quiet_exporters():
        program = torch.onnx.export(
            Encoder(single),
            (frames,),
            input_names=["xyz"],
            output_names=["z"],
            dynamic_shapes=({0: torch.export.Dim("frames")},),
            dynamo=True,
            verbose=False,
        )
    proto = cast("Any", program).model_proto
    _forget_origin(proto.graph)
    proto.producer_name = "noumena"
    for key, value in _metadata(model).items():
        proto.metadata_props.add(key=key, value=json.dumps(value))
    content: bytes = proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    _check("ONNX", lambda xyz: cast("np.ndarray", session.run(["z"], {"xyz": xyz.numpy()})[0]), single, frames)
    return content


def to_program(model: MoleculeVAE) -> bytes:
    """The encoder as the content of a ``torch.export`` file (.pt2), differentiable with respect to the coordinates.

    ``torch.export.load(path).module()`` is a function of the coordinates; the forces that a bias on a latent makes are
    its gradient. The file holds tensors and a graph as JSON, and nothing pickled. (``torch.export.load`` would run
    pickled code of a file that has some: load files from those you trust.)

    Args:
        model: a fitted model.

    Raises:
        NotSupportedError: the model has no weights yet.
        ArtifactError: the file would not compute what the model does, or would hold pickled objects.
    """
    single, frames = _prepared(model)
    with quiet_exporters():
        program = torch.export.export(
            Encoder(single), (frames,), dynamic_shapes=({0: torch.export.Dim("frames")},), strict=False
        )
    for node in program.graph.nodes:
        # Lines of code, with the paths of the machine.
        node.meta.pop("stack_trace", None)
    program.example_inputs = None  # they would be pickled
    file = io.BytesIO()
    with quiet_exporters():
        torch.export.save(program, file, extra_files={METADATA: json.dumps(_metadata(model))})
    content = file.getvalue()
    _check_no_pickle(content)
    loaded = torch.export.load(io.BytesIO(content)).module()
    _check("torch.export", lambda xyz: loaded(xyz).detach().numpy(), single, frames)
    return content


class Encoder(nn.Module):
    """The encoder of a model as a function of coordinates alone."""

    def __init__(self, model: MoleculeVAE) -> None:
        super().__init__()
        self.network = model.encoder_network
        self.head = model.head
        self.eval()

    def forward(self, xyz: Tensor) -> Tensor:
        """Posterior means, shape (frames, latents), of coordinates in angstrom, shape (frames, atoms, 3)."""
        posterior: DiagonalGaussian = self.head(self.network(xyz))
        return posterior.mean


def _prepared(model: MoleculeVAE) -> tuple[MoleculeVAE, Tensor]:
    """A copy on the processor in single precision, wherever the model is, and frames to trace and check it with."""
    single = copy.deepcopy(model).cpu().float().eval()
    for parameter in single.parameters():
        parameter.requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    frames = single.sample(_CHECKED_FRAMES, generator, prior="normal")
    # Both hands, and not at the origin.
    shift = _ANYWHERE * torch.randn(2 * _CHECKED_FRAMES, 1, 3, generator=generator)
    return single, torch.cat([frames, -frames]) + shift


def _metadata(model: MoleculeVAE) -> dict[str, Any]:
    return {
        "model": "molecules/vae",
        "input": "xyz",
        "output": "z",
        "unit": "angstrom",
        "topology": model.molecule.to_json(),
    }


def _check(kind: str, compute: Callable[[Tensor], np.ndarray], model: MoleculeVAE, frames: Tensor) -> None:
    """Compare what the file computes with what the model does, for one frame and for many."""
    for xyz in (frames, frames[:1]):
        wanted = model.encode(xyz).mean.detach().numpy()
        found = compute(xyz)
        scale = max(float(np.abs(wanted).max()), 1.0)
        error = float(np.abs(found - wanted).max()) / scale if found.shape == wanted.shape else float("inf")
        if not error <= _TOLERANCE:
            raise ArtifactError(
                f"{kind}: the latents differ from the model's by {error:.1e} of the largest, more than "
                f"{_TOLERANCE:.0e}. No file was written; report this with the version of torch."
            )


def _check_no_pickle(content: bytes) -> None:
    """Make sure that loading the file unpickles nothing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            pickled = False
            if name.endswith("_config.json"):
                pickled = any(entry["use_pickle"] for entry in json.loads(archive.read(name))["config"].values())
            elif "/sample_inputs/" in name:
                pickled = archive.getinfo(name).file_size > 0
            if pickled:
                raise ArtifactError(
                    f"torch.export: this version of torch pickles {name}; no file was written. Export to .onnx instead."
                )


def _forget_origin(graph: Any) -> None:
    """Remove what the exporter notes beside every node: lines of code, with the paths of the machine."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
