"""Which arrays of a source are modalities, masks, groups and side quantities: by options, metadata or a model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.multimodal.facts import Description
from noumena.multimodal.files import Stored, TablePiece, mask_names
from noumena.multimodal.modality import Modality, Surface, usual_order
from noumena.multimodal.source import Source
from noumena.multimodal.surfaces import MESH_FILE, has_text_surface, read_surface, surface_of, text_surface
from noumena.readers.arrays import list_arrays
from noumena.readers.checks import listed

Units = Mapping[str, str | Sequence[str]]
_MESH = "mesh_"
_GUESSED: dict[tuple[str, ...], str] = {
    ("Dx", "Dy", "Dz", "Rx", "Ry", "Rz"): "pose",
    ("Fx", "Fy", "Fz", "Tx", "Ty", "Tz"): "wrench",
}


@dataclass(frozen=True)
class Plan:
    """What to read of a source.

    Attributes:
        source: the files.
        modalities: of the observations, in order.
        arrays: those of the modalities that are there.
        masks: of modalities, where there are any.
        side: further quantities.
        group: which rows belong together.
        surface: of the displacements.
    """

    source: Source
    modalities: tuple[Modality, ...]
    arrays: Mapping[str, Stored]
    masks: Mapping[str, Stored] = field(default_factory=dict[str, Stored])
    side: Mapping[str, Stored] = field(default_factory=dict[str, Stored])
    group: Stored | None = None
    surface: Surface | None = None

    @property
    def not_used(self) -> list[str]:
        """Arrays of the source that are not read."""
        used = {*self.arrays, *self.side, *(mask.name for mask in self.masks.values())}
        used |= {member for stored in self.arrays.values() for member in stored.members}
        used |= {self.group.name} if self.group else set()
        return [name for name in self.source.arrays if name not in used and not name.startswith(_MESH)]


@dataclass(frozen=True)
class Options:
    """What a user says about the arrays; see :func:`noumena.multimodal.data.open_arrays`."""

    modalities: Sequence[str] | None = None
    kinds: Mapping[str, str] = field(default_factory=dict[str, str])
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    units: Units = field(default_factory=dict[str, str | Sequence[str]])
    group: str | None = None
    side: Sequence[str] = ()
    mesh: str | None = None


def plan_by_options(source: Source, options: Options) -> Plan:
    """What to read where the options, the metadata or the arrays themselves say what the modalities are.

    Raises:
        ConfigError: an option names something that is not there, or kinds, columns and units that do not fit.
        DataError: it cannot be told which arrays are modalities, or they do not belong together.
    """
    group = group_of(source, options.group)
    side_names = tuple(dict.fromkeys([*options.side, *source.facts.side]))
    arrays = _chosen(source, options, {*side_names, *({group.name} if group else ())})
    _check_known(source, options, arrays)
    masks = masks_of(source, arrays)
    side = _side(source, side_names, arrays, masks, group)
    source.check_rows({**arrays, **masks, **({"": group} if group else {})})
    surface, named = _surface(source, options.mesh, arrays)
    modalities = _described(source, options, arrays, surface)
    fits = [m for m in modalities if m.kind == "displacement" and surface and m.size == 3 * len(surface.nodes)]
    return Plan(source, modalities, arrays, masks, side, group, surface if named or len(fits) == 1 else None)


def plan_by_model(source: Source, modalities: Sequence[Modality], inputs: Sequence[str] | None = None) -> Plan:
    """What to read of a source for a model's modalities; those that are not there are missing.

    Args:
        source: the files.
        modalities: of the model.
        inputs: look at these only.

    Raises:
        ConfigError: ``inputs`` names no modality of the model.
        DataError: none is there, or one has other columns than the model's.
    """
    names = [modality.name for modality in modalities]
    for name in inputs or ():
        if name not in names:
            raise ConfigError(f"inputs: the model has no modality '{name}'. {did_you_mean(name, names)}")
    arrays: dict[str, Stored] = {}
    for modality in modalities:
        if inputs is not None and modality.name not in inputs:
            continue
        stored = source.find(modality.name, None if modality.by_position else modality.columns)
        if stored is None:
            continue
        stored = _checked(source, modality.name, _usual(stored) if modality.by_position else stored)
        arrays[modality.name] = stored
        if stored.size != modality.size:
            raise DataError(
                f"{source.path}: '{modality.name}' has {stored.size} numbers in a row, the model was made for "
                f"{modality.size}. Use data of the same body and the same sensors."
            )
    if not arrays:
        wanted = listed([name for name in names if inputs is None or name in inputs])
        raise DataError(f"{source.path}: expected at least one of {wanted}, found {_found(source)}. Rename the array.")
    masks = masks_of(source, arrays)
    source.check_rows({**arrays, **masks})
    return Plan(source, tuple(modalities), arrays, masks)


def with_side(plan: Plan) -> Plan:
    """A model's plan with groups, side quantities and surface as far as the source has them."""
    source = plan.source
    group = group_of(source, None)
    side = _side(source, source.facts.side, plan.arrays, plan.masks, group)
    surface, _ = _surface(source, None, plan.arrays)
    fits = [m for m in plan.modalities if m.kind == "displacement" and surface and m.size == 3 * len(surface.nodes)]
    return replace(plan, side=side, group=group, surface=surface if len(fits) == 1 else None)


def masks_of(source: Source, arrays: Iterable[str]) -> dict[str, Stored]:
    """The masks of some arrays."""
    found = {name: source.mask_of(name) for name in arrays}
    return {name: mask for name, mask in found.items() if mask is not None}


def _chosen(source: Source, options: Options, taken: set[str]) -> dict[str, Stored]:
    names = options.modalities
    if names is None and source.facts.complete:
        names = [name for name in source.facts.modalities if name not in taken]
    if names is None:
        names = _candidates(source, options, taken)
    arrays: dict[str, Stored] = {}
    for name in names:
        columns = options.columns.get(name) or _description(source, name).columns
        stored = source.find(name, columns)
        if stored is None:
            where = f"'{source.facts.path}' names" if options.modalities is None else "modalities:"
            known = [other.name for other in source.arrays.values() if other.inner and not _is_aside(source, other)]
            raise ConfigError(
                f"{where} '{name}', but {source.path} has no such array. {did_you_mean(name, known or source.arrays)}"
            )
        arrays[name] = _checked(source, name, stored if columns else _usual(stored))
    if not arrays:
        raise ConfigError(f"modalities: an empty list. Name some of {_found(source)}.")
    return arrays


def _candidates(source: Source, options: Options, taken: set[str]) -> list[str]:
    """All arrays of numbers with rows and columns that are nothing else."""
    combined = [name for name in options.columns if name not in source.arrays]
    arrays = [stored for stored in source.arrays.values() if stored.name not in taken and not _is_aside(source, stored)]
    for stored in arrays:
        if stored.kind not in "fiubU":
            raise DataError(
                f"{source.path}: '{stored.name}' holds no plain numbers (type '{stored.kind}'). Convert it to numbers, "
                "or name the modalities to read with modalities=[...]."
            )
    wide = [stored for stored in arrays if stored.inner and (stored.is_number or stored.text)]
    if len({stored.rows for stored in wide}) > 1:
        raise DataError(
            f"{source.path}: cannot tell the modalities, since the arrays differ in rows: {_found(source)}. Name them "
            "with modalities=[...]."
        )
    # Those that the metadata describe come first, in their order.
    described = [name for name in source.facts.modalities if name in {stored.name for stored in wide}]
    names = [*dict.fromkeys([*described, *(stored.name for stored in wide), *combined])]
    if not names:
        remedy = "Write 2-D arrays (rows, numbers)."
        if any(isinstance(piece, TablePiece) for piece in source.pieces):
            remedy = "Call columns 'modality.column', e.g. pose.Dx, or pass columns={'pose': ['Dx', ...], ...}."
        raise DataError(f"{source.path}: found no modality among {_found(source)}. {remedy}")
    return names


def _checked(source: Source, name: str, stored: Stored) -> Stored:
    """As an array of numbers with columns."""
    where = source.pieces[stored.piece].path
    if stored.text:
        examples = ", ".join(f"'{column}' ({what})" for column, what in stored.text.items())
        raise DataError(
            f"{where}: '{name}' is not numeric: {examples}. Encode as numbers, or leave it out "
            "by naming the others with modalities=[...]."
        )
    return stored if stored.inner else replace(stored, name=name, inner=(1,))


def _usual(stored: Stored) -> Stored:
    return stored.picked(usual_order(stored.columns)) if stored.columns else stored


def _described(
    source: Source, options: Options, arrays: Mapping[str, Stored], surface: Surface | None
) -> tuple[Modality, ...]:
    columns = {name: _columns(source, options, name, stored) for name, stored in arrays.items()}
    kinds = {
        name: options.kinds.get(name) or _description(source, name).kind or _GUESSED.get(tuple(columns[name] or ()))
        for name in arrays
    }
    fits = [name for name, stored in arrays.items() if surface and stored.size == 3 * len(surface.nodes)]
    if len(fits) == 1 and "displacement" not in kinds.values():
        kinds[fits[0]] = kinds[fits[0]] or "displacement"
    try:
        return tuple(
            Modality.of_size(
                name,
                stored.size,
                kind=kinds[name] or "vector",
                columns=columns[name],
                units=options.units.get(name, _description(source, name).units),
            )
            for name, stored in arrays.items()
        )
    except ConfigError as error:
        raise ConfigError(f"{source.path}: {error}") from error


def _columns(source: Source, options: Options, name: str, stored: Stored) -> Sequence[str] | None:
    return options.columns.get(name) or stored.columns or _description(source, name).columns


def _description(source: Source, name: str) -> Description:
    return source.facts.modalities.get(name, Description())


def _check_known(source: Source, options: Options, arrays: Mapping[str, Stored]) -> None:
    """Refuse options about arrays that are nowhere."""
    known = [*arrays, *(name for name in source.arrays if name not in arrays)]
    for option, entries in (("kinds", options.kinds), ("columns", options.columns), ("units", options.units)):
        for name in entries:
            if name not in known:
                raise ConfigError(f"{option}: {source.path} has no modality '{name}'. {did_you_mean(name, known)}")


def group_of(source: Source, name: str | None) -> Stored | None:
    """The array of groups; one that the metadata name may be missing.

    Raises:
        ConfigError: there is no array of that name.
        DataError: it has not one entry for each row.
    """
    wanted = name or source.facts.group
    stored = source.arrays.get(wanted) if wanted else None
    if wanted is None or (stored is None and name is None):
        return None
    flat = [other.name for other in source.arrays.values() if not other.inner]
    if stored is None:
        raise ConfigError(f"group: {source.path} has no '{wanted}'. {did_you_mean(wanted, flat or source.arrays)}")
    if stored.inner not in ((), (1,)):
        raise DataError(
            f"{source.path}: the group '{wanted}' should have one entry for each row, found {stored.in_words}. "
            f"{did_you_mean(wanted, flat)}"
        )
    # A table's cells can be read as text whatever they are, so that words and numbers may be mixed.
    as_text = isinstance(source.pieces[stored.piece], TablePiece)
    return replace(stored, kind="U", inner=()) if as_text else stored


def _side(
    source: Source,
    names: Sequence[str],
    arrays: Mapping[str, Stored],
    masks: Mapping[str, Stored],
    group: Stored | None,
) -> dict[str, Stored]:
    """The arrays named, and all 1-D arrays of numbers that are nothing else and have as many rows."""
    used = {member for stored in arrays.values() for member in stored.members} | set(arrays)
    used |= {mask.name for mask in masks.values()} | ({group.name} if group else set())
    rows = source.check_rows(arrays)
    side: dict[str, Stored] = {}
    for name in names:
        if name not in source.arrays:
            raise ConfigError(f"side: {source.path} has no array '{name}'. {did_you_mean(name, source.arrays)}")
        stored = source.arrays[name]
        if stored.kind not in "fiub":
            raise DataError(f"{source.path}: the side quantity '{name}' is not numeric. Leave it out of side=[...].")
        if name not in used:
            side[name] = stored
    source.check_rows({**arrays, **side})
    for name, stored in source.arrays.items():
        fits = rows is None or stored.rows in (None, rows)
        aside = _is_aside(source, stored)
        if name not in used and not aside and not stored.inner and stored.is_number and fits:
            side[name] = stored
    return side


def _is_aside(source: Source, stored: Stored) -> bool:
    """Whether an array is a mask or belongs to the mesh."""
    return stored.name.startswith(_MESH) or any(stored.name in mask_names(name) for name in source.arrays)


def _surface(source: Source, mesh: str | None, arrays: Mapping[str, Stored]) -> tuple[Surface | None, bool]:
    """The surface, and whether it was named rather than found."""
    named = mesh or next((found for name in arrays if (found := _description(source, name).mesh)), None)
    if named is not None:
        beside = source.folder / named
        return read_surface(beside if beside.exists() else Path(named).expanduser()), True
    if (nodes := source.arrays.get(f"{_MESH}nodes")) is not None:
        path = source.pieces[nodes.piece].path
        return surface_of(path, list_arrays(path), nodes.members[0].removesuffix("nodes")), False
    if (source.folder / MESH_FILE).is_file():
        return read_surface(source.folder / MESH_FILE), False
    if has_text_surface(source.folder):
        return text_surface(source.folder), False
    return None, False


def _found(source: Source) -> str:
    shown = [stored.in_words for stored in source.arrays.values()]
    return ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
