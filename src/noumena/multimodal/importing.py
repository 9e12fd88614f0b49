"""Models trained with the original ProSoRo code, as models of this library."""

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from noumena.core.errors import ArtifactError, ConfigError, DataError
from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.model import MVAE
from noumena.multimodal.surfaces import has_text_surface, text_surface
from noumena.readers.arrays import whole_array

log = logging.getLogger("noumena")

_SCHEME = "mvae_<module type>_<recon_pred_scale>_<z_coeff>_<kl_coeff>_<z_dim>.pth, as mvae_cylinder_1_1_0.1_32.pth"
_NUMBER = r"(\d+(?:\.\d+)?(?:e-?\d+)?)"
_NAME = re.compile(rf"mvae_(?P<module>.+)_{_NUMBER}_{_NUMBER}_{_NUMBER}_(?P<z_dim>\d+)")
# The layers of each modality, by what stands before its number and after.
_LAYERS = ("encoder_{}.0", "encoder_{}.2", "fc_mu_{}", "fc_var_{}", "decoder_{}.0", "decoder_{}.2", "decoder_{}.4")
_KINDS = ("pose", "wrench", "displacement")


@dataclass(frozen=True)
class _Sizes:
    """Widths of one modality's networks: columns, hidden layers of the encoder, latent."""

    columns: int
    hidden: tuple[int, int]
    latent: int


def import_prosoro(
    weights: str | Path,
    *,
    data: str | Path | None = None,
    names: Sequence[str] = ("pose", "force", "shape"),
    recon_pred_scale: float | None = None,
    z_coeff: float | None = None,
    kl_coeff: float | None = None,
) -> MVAE:
    """A model with the weights of a ProSoRo checkpoint, which computes what the original does.

    The first modality is taken for a pose, the second for a wrench and the third for displacements, where their sizes
    allow it. Deviations and the latent distribution are not part of a checkpoint: ``calibrate`` and ``fit`` of the
    model give them.

    Args:
        weights: the .pth file. Its name tells module type, coefficients and latent size:
            ``mvae_<module type>_<recon_pred_scale>_<z_coeff>_<kl_coeff>_<z_dim>.pth``.
        data: folder with the statistics mu.npy and std.npy of the training data, and perhaps the template
            surf_node.txt and surf_triangles.txt. Default: the folder of ``weights``. Without statistics the model
            takes and gives standardised numbers, without units.
        names: of the modalities, in the order of the checkpoint.
        recon_pred_scale, z_coeff, kl_coeff: coefficients of the objective, in place of those of the file name.

    Returns:
        A model with ``fusion="align"``, in evaluation mode.

    Raises:
        ArtifactError: the file is no such checkpoint, is damaged, or contradicts its name.
        ConfigError: a file name without the coefficients, which are not given either; or unusable ``names``.
        DataError: statistics or a surface that do not belong to the weights.
    """
    path = Path(weights).expanduser()
    tensors = _read(path)
    sizes = _sizes(tensors, path)
    given = {"recon_pred_scale": recon_pred_scale, "z_coeff": z_coeff, "kl_coeff": kl_coeff}
    coefficients = _coefficients(path, sizes[0].latent, given)
    folder = path.parent if data is None else Path(data).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with mu.npy and std.npy. Check the path.")
    statistics = _statistics(folder, sum(size.columns for size in sizes))
    modalities = _modalities(names, sizes, path, in_units=statistics is not None)
    surface = _surface(folder, modalities)
    model = MVAE(
        sizes={modality.name: modality.size for modality in modalities},
        surface=None if surface is None else {"nodes": len(surface.nodes), "triangles": len(surface.triangles)},
        z_dim=sizes[0].latent,
        fusion="align",
        hidden_dims={modality.name: size.hidden for modality, size in zip(modalities, sizes, strict=True)},
        activation="relu",
        skip=False,
        activate_last=False,
        components=None,
        scale="column",
        recon_pred_scale=coefficients["recon_pred_scale"],
        z_coeff=coefficients["z_coeff"],
        kl_coeff=coefficients["kl_coeff"],
    )
    state = model.state_dict()
    for number in range(len(sizes)):
        state |= _networks(tensors, number)
    state |= _front_ends(modalities, statistics)
    if surface is not None:
        state |= {"surface_nodes": surface.nodes, "surface_triangles": surface.triangles}
    model.load_state_dict(state)
    model.schema = {"kind": "prosoro", "modalities": [modality.to_json() for modality in modalities]}
    # Says that the statistics are there, so that further training keeps them.
    model.data_fingerprint = _fingerprint(tensors)
    if statistics is None:
        log.warning(
            "%s: no mu.npy and std.npy, so the model takes and gives standardised numbers, without units. Name the "
            "folder of the training data to have them.",
            folder,
        )
    return model.eval()


def _read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint; nothing but tensors is unpickled."""
    if not path.is_file():
        raise ArtifactError(f"{path}: there is no such file. Check the path.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError) as error:
        first = str(error).partition("\n")[0]
        raise ArtifactError(f"{path}: is no file of weights alone, or damaged: {first}") from error
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ArtifactError(
            f"{path}: expected a state dictionary of tensors, found {type(found).__name__}. Save model.state_dict()."
        )
    return {str(name): tensor.float() for name, tensor in found.items()}


def _sizes(tensors: Mapping[str, Tensor], path: Path) -> list[_Sizes]:
    """Widths of each modality's networks, after a look at every name and shape."""
    count = sum(bool(re.fullmatch(r"fc_mu_\d+\.weight", name)) for name in tensors)
    expected = {f"{layer.format(i)}.{part}" for i in range(count) for layer in _LAYERS for part in ("weight", "bias")}
    missing, further = sorted(expected - tensors.keys()), sorted(tensors.keys() - expected)
    if count < 2 or missing or further:
        wrong = f"'{missing[0]}' is missing" if missing else f"'{further[0]}' is unknown" if further else "too few"
        raise ArtifactError(
            f"{path}: is no checkpoint of ProSoRo: expected encoder_i, fc_mu_i, fc_var_i and decoder_i of two or more "
            f"modalities, {wrong}."
        )
    found: list[_Sizes] = []
    for number in range(count):
        first, second = (tensors[f"encoder_{number}.{layer}.weight"] for layer in (0, 2))
        latent = tensors[f"fc_mu_{number}.weight"]
        if not first.ndim == second.ndim == latent.ndim == 2:
            raise ArtifactError(f"{path}: the weights of modality {number} are no matrices.")
        size = _Sizes(first.shape[1], (first.shape[0], second.shape[0]), tensors["fc_mu_0.weight"].shape[0])
        x, (h1, h2), z = size.columns, size.hidden, size.latent
        shapes = [(h1, x), (h2, h1), (z, h2), (z, h2), (h2, z), (h1, h2), (x, h1)]
        for layer, shape in zip(_LAYERS, shapes, strict=True):
            for part, wanted in (("weight", shape), ("bias", shape[:1])):
                name = f"{layer.format(number)}.{part}"
                if tuple(tensors[name].shape) != wanted:
                    raise ArtifactError(
                        f"{path}: '{name}' has shape {tuple(tensors[name].shape)}, the others say {wanted}."
                    )
                if not bool(tensors[name].isfinite().all()):
                    raise ArtifactError(f"{path}: '{name}' is not finite throughout. The training had diverged.")
        found.append(size)
    return found


def _coefficients(path: Path, z_dim: int, given: Mapping[str, float | None]) -> dict[str, float]:
    match = _NAME.fullmatch(path.stem)
    if match is None:
        wanting = [name for name, value in given.items() if value is None]
        if wanting:
            raise ConfigError(
                f"{path}: the name does not tell {', '.join(wanting)}; expected {_SCHEME}. Rename the file, or "
                "give them."
            )
        return {name: value for name, value in given.items() if value is not None}
    if int(match["z_dim"]) != z_dim:
        raise ArtifactError(
            f"{path}: the name says z_dim={match['z_dim']}, the tensors have {z_dim}. It is another model's name."
        )
    named = dict(zip(given, map(float, match.groups()[1:4]), strict=True))
    return {name: named[name] if value is None else value for name, value in given.items()}


def _statistics(folder: Path, width: int) -> tuple[Tensor, Tensor] | None:
    """Means and standard deviations of the columns, float64, shape (columns,)."""
    paths = [folder / "mu.npy", folder / "std.npy"]
    there = [path.is_file() for path in paths]
    if not any(there):
        return None
    if not all(there):
        raise DataError(
            f"{paths[there.index(False)]}: missing, while {paths[there.index(True)].name} is there. Add it."
        )
    found: list[Tensor] = []
    for path in paths:
        array = whole_array(path, "")
        if array.shape not in ((width,), (1, width)) or array.dtype.kind not in "fiu":
            raise DataError(
                f"{path}: expected {width} numbers, one for each column of all modalities, found {array.dtype} "
                f"{array.shape}. Take the statistics of the data that the weights were trained on."
            )
        tensor = torch.from_numpy(array.astype("float64").reshape(-1))
        if not bool(tensor.isfinite().all()):
            raise DataError(f"{path}: column {int((~tensor.isfinite()).long().argmax())} is not finite. Replace it.")
        found.append(tensor)
    if bool((found[1] < 0).any()):
        raise DataError(f"{paths[1]}: column {int((found[1] < 0).long().argmax())} is negative. It is no deviation.")
    return found[0], found[1]


def _modalities(names: Sequence[str], sizes: Sequence[_Sizes], path: Path, *, in_units: bool) -> list[Modality]:
    if len(names) != len(sizes) or len(set(names)) < len(names):
        raise ConfigError(f"names: {path} has {len(sizes)} modalities, each needs its own name; got {list(names)}.")
    found: list[Modality] = []
    for number, (name, size) in enumerate(zip(names, sizes, strict=True)):
        kind = _KINDS[number] if number < len(_KINDS) else "vector"
        if size.columns % 3 if kind == "displacement" else size.columns != 6:
            kind = "vector"
        units = ("mm" if kind == "displacement" else None) if in_units else ""
        found.append(Modality.of_size(name, size.columns, kind=kind, units=units))
    return found


def _surface(folder: Path, modalities: Sequence[Modality]) -> Surface | None:
    shapes = [modality for modality in modalities if modality.kind == "displacement"]
    if not shapes or not has_text_surface(folder):
        return None
    surface = text_surface(folder)
    if 3 * len(surface.nodes) != shapes[0].size:
        raise DataError(
            f"{folder}: the template has {len(surface.nodes)} nodes, the weights have {shapes[0].size // 3}. Take the "
            "template of this module, or another folder."
        )
    return surface


def _networks(tensors: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
    """The entries of one encoder and decoder in the model's state."""
    found: dict[str, Tensor] = {}
    for part in ("weight", "bias"):
        encoder = f"encoders.{number}.network.layers"
        for layer in (0, 2):
            found[f"{encoder}.{layer}.{part}"] = tensors[f"encoder_{number}.{layer}.{part}"]
        heads = [tensors[f"{head}_{number}.{part}"] for head in ("fc_mu", "fc_var")]
        found[f"{encoder}.3.{part}"] = torch.cat(heads)
        for layer in (0, 2, 4):
            found[f"decoders.{number}.layers.{layer}.{part}"] = tensors[f"decoder_{number}.{layer}.{part}"]
    return found


def _front_ends(modalities: Sequence[Modality], statistics: tuple[Tensor, Tensor] | None) -> dict[str, Tensor]:
    """The scaling of each modality; a column without spread is constant and comes back exactly."""
    if statistics is None:
        return {}
    widths = [modality.size for modality in modalities]
    found: dict[str, Tensor] = {}
    for number, (mean, std) in enumerate(zip(*(part.float().split(widths) for part in statistics), strict=True)):
        constant = std == 0
        found[f"fronts.{number}.mean"] = mean
        found[f"fronts.{number}.scale"] = torch.where(constant, torch.ones_like(std), std)
        found[f"fronts.{number}.constant"] = constant
    return found


def _fingerprint(tensors: Mapping[str, Any]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return f"prosoro:{digest.hexdigest()}"
