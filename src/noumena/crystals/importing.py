"""Models trained with the code of Chemeleon2 (Park et al. 2025), as models of this library."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError, did_you_mean
from noumena.crystals.model import CrystalVAE
from noumena.crystals.networks.transformer import Activation

log = logging.getLogger("noumena")

# The published models have this width and as many heads; their tensors do not tell the latter.
_WIDTH, _HEADS = 512, 8
_ROOTS = ("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")
# Layers of the original by this library's names, the transformers apart.
_LAYERS = {
    "tokens.types": "encoder.atom_type_embedder",
    "tokens.lattices": "encoder.lattices_embedder",
    "tokens.coords": "encoder.frac_coords_embedder",
    "tokens.type_head": "decoder.atom_types_head",
    "tokens.coord_head": "decoder.frac_coords_head",
    "tokens.cell_head": "decoder.lattice_head",
    "to_posterior": "quant_conv",
    "from_latent": "post_quant_conv",
    "encoder": "encoder.transformer",
    "decoder": "decoder.transformer",
}
_OWN = "gaussian."
_TYPE_HEAD = "decoder.atom_types_head."
# A Lightning checkpoint of the original names these in its hyperparameters, which are not read.
_INERT_PREFIXES = ("src.", "omegaconf.", "torch.nn.", "torch.optim.", "torch._C._nn.")
_INERT_NAMES = ("functools.partial", "typing.Any", "collections.defaultdict", "builtins.dict", "builtins.list")
_WEIGHTS = {
    "atom_types": "type_weight",
    "lengths": "length_weight",
    "angles": "angle_weight",
    "frac_coords": "coord_weight",
    "kl": "beta",
}
_DEFAULT_WEIGHTS = {"atom_types": 1.0, "lengths": 1.0, "angles": 10.0, "frac_coords": 10.0, "kl": 1e-5}
_SETTINGS = {
    "d_model": "width",
    "num_layers": "encoder_layers",
    "dim_feedforward": "feedforward",
    "latent_dim": "latent_dim",
}


class _Inert:
    """Stands where a checkpoint names a class or a function: nothing of it is imported, and it does nothing."""

    def __new__(cls, *_: object, **__: object) -> "_Inert":
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        del state


@dataclass(frozen=True)
class _Settings:
    """What a .json file beside the weights says, and its name for messages."""

    where: Path | None
    values: Mapping[str, Any]


def import_chemeleon2(
    path: str | Path,
    *,
    heads: int | None = None,
    csp: bool = False,
    max_atoms: int = 20,
    activation: Activation | None = None,
) -> CrystalVAE:
    """A model with the weights of Chemeleon2's VAE, which computes what the original does.

    Sizes are those of the tensors. What they do not tell is taken from a .json file of the same name beside the
    weights, if there is one: ``nhead``, ``activation`` and ``loss_weights``, which an argument overrides; sizes in it
    have to agree with the tensors. The alignment with other models' features, which the published models leave out, is
    not taken over.

    Args:
        path: a .safetensors file of the state dictionary, or a Lightning checkpoint (.ckpt, .pt), also one of a model
            that contains the VAE. Nothing but tensors and plain values is unpickled: what its hyperparameters name is
            replaced, not imported.
        heads: of the attention; 8 for a width of 512, as published, when neither is said.
        csp: a model for structure prediction, which is given the elements.
        max_atoms: of the largest cell that the model is to take; 20 in MP-20 and Alex-MP-20.
        activation: of the feed-forward networks; ``gelu-tanh``, as published, when neither is said.

    Returns:
        A model with ``representation="original"``, in evaluation mode. It has seen no data here: for the controls of
        ``sample``, ``model.after_fit(train, None)`` takes the spread of its latents and the sizes of cells.

    Raises:
        ArtifactError: the file is no such state, is damaged, names other code, or contradicts the .json file.
        ConfigError: the number of heads is not known or does not divide the width, or an option is wrong.
        NotSupportedError: an encoder that is no transformer (cspnet), or one that normalises after each layer.
    """
    file = Path(path).expanduser()
    tensors = _vae_tensors(file, _read(file))
    settings = _settings(file)
    sizes = _sizes(file, tensors)
    _check_settings(file, settings, sizes)
    said: dict[str, Any] = {**sizes, **_weights(file, settings)}
    model = CrystalVAE(
        representation="original",
        max_atoms=max_atoms,
        heads=_heads(file, heads, settings, sizes["width"]),
        activation=_activation(activation, settings),
        predict_types=not csp,
        corruption=0.0,
        vector_dim=0,
        **said,
    )
    _load(model, file, tensors)
    model.schema = {
        "kind": "crystals",
        "reduction": "niggli",
        "max_atoms": max_atoms,
        "elements": list(range(1, model.species)),
        "properties": {},
    }
    # Says that there is nothing to calibrate before further training.
    model.data_fingerprint = _fingerprint(tensors)
    return model.eval()


# Files


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file by name; no code that it names runs."""
    if not path.is_file():
        found = "is a folder; name the file in it" if path.is_dir() else "there is no such file; check the path"
        raise ArtifactError(f"{path}: {found}.")
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise ArtifactError(f"{path}: is no file of safetensors, or damaged: {error}") from error
    found = _unpickled(path)
    state: Any = found.get("state_dict", found) if isinstance(found, Mapping) else None
    if not isinstance(state, Mapping) or not state:
        raise ArtifactError(f"{path}: expected a state dictionary of tensors, or a checkpoint with a 'state_dict'.")
    tensors = cast("Mapping[Any, Any]", state)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ArtifactError(f"{path}: '{name}' of its state is no tensor, but a {type(tensor).__name__}.")
    return {str(name): tensor for name, tensor in tensors.items()}


def _unpickled(path: Path) -> Any:
    try:
        named = sorted(map(str, torch.serialization.get_unsafe_globals_in_checkpoint(path)))
        foreign = [name for name in named if not (name.startswith(_INERT_PREFIXES) or name in _INERT_NAMES)]
        if foreign:
            raise ArtifactError(
                f"{path}: names {', '.join(foreign)}, code that a checkpoint of Chemeleon2 does not name. It was not "
                "loaded. If you trust where it is from, extract its tensors in the environment that wrote it, by "
                "safetensors.torch.save_file of its 'state_dict', and name that file."
            )
        # Each name gets a class of its own that does nothing.
        stand_ins = [(type("_Named", (_Inert,), {}), name) for name in named]
        with torch.serialization.safe_globals(cast("list[Any]", stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, EOFError, OSError, KeyError, TypeError) as error:
        first = str(error).partition("\n")[0].rstrip(".")
        raise ArtifactError(
            f"{path}: is no checkpoint of PyTorch, or damaged, or holds more than tensors and settings: {first}. "
            "Save the tensors of its 'state_dict' with safetensors.torch.save_file and name that file."
        ) from error


def _vae_tensors(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of the VAE by the original's names, whatever stands before them; float32."""
    # A compiled module's name says nothing.
    plain = {name.replace("_orig_mod.", ""): tensor for name, tensor in tensors.items()}
    ends = re.compile(r"(.*?)post_quant_conv\.weight")
    prefixes = sorted((match[1] for match in map(ends.fullmatch, plain) if match), key=lambda prefix: len(prefix))
    if not prefixes:
        first = ", ".join(list(plain)[:3])
        raise ArtifactError(
            f"{path}: expected the VAE of Chemeleon2 (encoder, decoder, quant_conv, post_quant_conv), found {first}, "
            "... and no post_quant_conv.weight. Name a checkpoint of the VAE."
        )
    found = [
        {name.removeprefix(prefix): plain[name] for name in plain if name.startswith(tuple(prefix + r for r in _ROOTS))}
        for prefix in prefixes
    ]
    for prefix, other in zip(prefixes[1:], found[1:], strict=True):
        same = other.keys() == found[0].keys() and all(torch.equal(other[name], found[0][name]) for name in other)
        if not same:
            raise ArtifactError(
                f"{path}: holds two different VAEs, '{prefixes[0]}encoder' and '{prefix}encoder'. Save the tensors of "
                "one."
            )
    for name, tensor in found[0].items():
        if not bool(tensor.isfinite().all()):
            raise ArtifactError(f"{path}: '{prefixes[0]}{name}' is not finite throughout. The training had diverged.")
    return {name: tensor.float() for name, tensor in found[0].items()}


def _settings(path: Path) -> _Settings:
    where = path.with_suffix(".json")
    if not where.is_file():
        return _Settings(None, {})
    try:
        found = json.loads(where.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ConfigError(f"{where}: is no JSON: {error}. Mend or remove it.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: expected an object with nhead, activation, ..., found {type(found).__name__}.")
    return _Settings(where, cast("dict[str, Any]", found))


# Sizes and settings


def _sizes(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, int]:
    """Hyperparameters that the tensors tell."""
    if not any(name.startswith("encoder.transformer.") for name in tensors):
        first = next((name for name in tensors if name.startswith("encoder.")), "no encoder")
        raise NotSupportedError(
            f"{path}: its encoder is no transformer ({first}), but perhaps a cspnet, which is not taken over. Give a "
            "checkpoint of a VAE whose encoder and decoder are transformers."
        )
    layers = {part: _count(tensors, f"{part}.transformer.layers.") for part in ("encoder", "decoder")}
    types = _matrix(path, tensors, "encoder.atom_type_embedder.weight")
    return {
        "species": types.shape[0],
        "width": types.shape[1],
        "latent_dim": _matrix(path, tensors, "post_quant_conv.weight").shape[1],
        "encoder_layers": layers["encoder"],
        "decoder_layers": layers["decoder"],
        "feedforward": _matrix(path, tensors, "encoder.transformer.layers.0.linear1.weight").shape[0],
    }


def _count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    return len({name.removeprefix(prefix).partition(".")[0] for name in tensors if name.startswith(prefix)})


def _matrix(path: Path, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    tensor = tensors.get(name)
    if tensor is None or tensor.ndim != 2:
        raise ArtifactError(f"{path}: expected a matrix '{name}'; it is {'missing' if tensor is None else 'none'}.")
    return tensor


def _check_settings(path: Path, settings: _Settings, sizes: Mapping[str, int]) -> None:
    """What is said has to be what there is."""
    for theirs, ours in _SETTINGS.items():
        said = settings.values.get(theirs, sizes[ours])
        if said != sizes[ours]:
            raise ArtifactError(
                f"{path}: {settings.where} says {theirs}={said}, the tensors have {sizes[ours]}. It is the "
                "configuration of other weights."
            )
    if settings.values.get("norm_first", True) is not True:
        raise NotSupportedError(
            f"{path}: {settings.where} says norm_first=false; transformers that normalise first are taken over."
        )


def _heads(path: Path, given: int | None, settings: _Settings, width: int) -> int:
    found = settings.values.get("nhead") if given is None else given
    if found is None and width == _WIDTH:
        return _HEADS
    if not isinstance(found, int) or found < 1 or width % found:
        raise ConfigError(
            f"{path}: the tensors do not tell the number of attention heads; expected a divisor of the width {width}, "
            f"got {found}. Give heads (--heads), or 'nhead' in {path.with_suffix('.json').name} beside the weights."
        )
    return found


def _activation(given: Activation | None, settings: _Settings) -> Activation:
    known = get_args(Activation)
    found = settings.values.get("activation", known[0]) if given is None else given
    name = str(found).replace("_", "-")
    if name not in known:
        raise ConfigError(f"activation: unknown '{found}'. {did_you_mean(name, known)}")
    return cast("Activation", name)


def _weights(path: Path, settings: _Settings) -> dict[str, float]:
    """Weights of the terms of the loss by this library's names."""
    said: Any = settings.values.get("loss_weights", {})
    if not isinstance(said, dict) or not all(isinstance(value, int | float) for value in said.values()):
        raise ConfigError(f"{settings.where}: loss_weights: expected an object of numbers, got {said}.")
    weights = cast("dict[str, float]", said)
    if weights.get("fa"):
        log.warning("%s: the alignment with other features (loss_weights.fa) is not taken over.", path)
    return {ours: float(weights.get(name, _DEFAULT_WEIGHTS[name])) for name, ours in _WEIGHTS.items()}


# Tensors


def _theirs(name: str) -> str:
    """The original's name of a tensor of :class:`CrystalVAE`."""
    layer = next(layer for layer in _LAYERS if name.startswith(f"{layer}."))
    found = _LAYERS[layer] + name.removeprefix(layer)
    return found.replace(".in_proj.", ".in_proj_")


def _load(model: CrystalVAE, path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The weights; names and shapes are looked at first."""
    state = model.state_dict()
    names = {name: _theirs(name) for name in state if not name.startswith(_OWN)}
    if not model.predict_types and not any(name.startswith(_TYPE_HEAD) for name in tensors):
        # Nothing asks a model that is given the elements for them.
        names = {ours: theirs for ours, theirs in names.items() if not theirs.startswith(_TYPE_HEAD)}
        state |= {name: torch.zeros_like(state[name]) for name in state if name.startswith("tokens.type_head.")}
    missing, further = sorted(set(names.values()) - set(tensors)), sorted(set(tensors) - set(names.values()))
    if missing or further:
        wrong = f"'{missing[0]}' is missing" if missing else f"'{further[0]}' is unknown"
        raise ArtifactError(f"{path}: {wrong}. Transformer VAEs of Chemeleon2 are taken over.")
    for ours, theirs in names.items():
        if tensors[theirs].shape != state[ours].shape:
            raise ArtifactError(
                f"{path}: '{theirs}' has shape {tuple(tensors[theirs].shape)}, the others say "
                f"{tuple(state[ours].shape)}."
            )
        state[ours] = tensors[theirs]
    model.load_state_dict(state)


def _fingerprint(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return f"chemeleon2:{digest.hexdigest()}"
