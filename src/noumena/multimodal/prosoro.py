"""Opening data in the layout of the original ProSoRo: pose, force and node displacements side by side in one array."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from noumena.core.data import Splits
from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.data import read_plan
from noumena.multimodal.files import ArrayPiece
from noumena.multimodal.hstack import DATA, TESTING, TRAINING, is_prosoro, stacked_shape, stacked_source
from noumena.multimodal.modality import Modality, Surface
from noumena.multimodal.observations import Observations
from noumena.multimodal.plan import Plan, group_of
from noumena.multimodal.splits import Division, Rule, divide
from noumena.multimodal.surfaces import has_text_surface, read_surface, text_surface
from noumena.readers.arrays import list_arrays

_POSE, _FORCE = 6, 6
_STATISTICS = ("mu.npy", "std.npy")
_LAYOUT = {"kind": "prosoro"}


def open_prosoro(
    path: str,
    *,
    mesh: str | None = None,
    group: str | None = None,
    split: Rule | None = None,
    val_fraction: float = 0.15,
    test_fraction: float = 0.2,
    max_rows: int | None = None,
    missing_fraction: float = 0.0,
    seed: int = 0,
) -> Splits:
    """Poses (mm, rad), forces (N, N mm) and node displacements (mm) of a folder of ProSoRo, divided in three.

    Args:
        path: a folder with data.npy, or with training_data.npy and testing_data.npy; each of shape
            (rows, 6 + 6 + 3 nodes). Where both of the latter are there, they are taken: test is testing_data.npy, and
            train and val are divided from training_data.npy. Or one such .npy file.
        mesh: folder with surf_node.txt and surf_triangles.txt, or an .npz file with nodes and triangles. Default: the
            two text files in ``path``, if there.
        group: a further .npy file of the folder, without its ending, with one entry for each row (of
            training_data.npy, if that is taken): rows of one load path, say.
        split, val_fraction, test_fraction, max_rows, missing_fraction, seed: as in
            :func:`noumena.multimodal.data.open_arrays`; ``test_fraction`` is not looked at where testing_data.npy is
            there.

    The statistics mu.npy and std.npy are checked for their width and not used: a model has its own.

    Raises:
        ConfigError: an option is out of range or names no file.
        DataError: no data are there, or an array is of another width or holds values that are refused.
    """
    division = Division(split, val_fraction, test_fraction, max_rows, missing_fraction, seed)
    place = Path(path).expanduser()
    folder = place if place.is_dir() else place.parent
    file = _main_file(place)
    surface = _surface(folder, mesh)
    modalities = _modalities(file, stacked_shape(file)[1], surface)
    if split == "group" and group is None:
        raise ConfigError("split='group' needs to know the groups: pass group='name of the file'.")
    data = _read(file, modalities, surface, folder, group)
    testing = folder / TESTING
    test = _read(testing, modalities, surface, folder, None) if file.name == TRAINING and testing.is_file() else None
    splits = divide(data, division, path, test)
    about = {**splits.about, **_facts(folder, file, modalities, surface, test is not None, group)}
    return replace(splits, about=about)


def _main_file(place: Path) -> Path:
    if not place.is_dir():
        stacked_shape(place)
        return place
    if not is_prosoro(place):
        motion = place / "motion.csv"
        known = f"motion.csv has the poses to simulate, not what came of them. Add {DATA}." if motion.is_file() else ""
        raise DataError(f"{place}: expected {DATA} or {TRAINING}, found neither. {known or 'Check the path.'}")
    both = (place / TRAINING).is_file() and (place / TESTING).is_file()
    chosen = place / TRAINING if both or not (place / DATA).is_file() else place / DATA
    if not chosen.is_file():
        raise DataError(f"{place}: expected {DATA} or {TRAINING}, found only {TESTING}. Add the rows to train on.")
    return chosen


def _modalities(file: Path, width: int, surface: Surface | None) -> tuple[Modality, ...]:
    nodes, rest = divmod(width - _POSE - _FORCE, 3)
    if nodes < 1 or rest:
        raise DataError(
            f"{file}: expected 6 + 6 + 3n columns (pose, force, and 3 for each of n nodes), found {width}. Stack pose, "
            "force and node displacements side by side, without an index column."
        )
    if surface is not None and len(surface.nodes) != nodes:
        raise DataError(
            f"{file}: has {width} = 6 + 6 + 3 x {nodes} columns, so {nodes} nodes, but the surface has "
            f"{len(surface.nodes)}. Use the template that the data were made with, or name another with mesh=..."
        )
    return (
        Modality.of_size("pose", _POSE, kind="pose"),
        Modality.of_size("force", _FORCE, kind="wrench"),
        Modality.of_size("shape", 3 * nodes, kind="displacement", units="mm"),
    )


def _surface(folder: Path, mesh: str | None) -> Surface | None:
    if mesh is not None:
        beside = folder / mesh
        return read_surface(beside if beside.exists() else Path(mesh).expanduser())
    return text_surface(folder) if has_text_surface(folder) else None


def _read(
    file: Path, modalities: Sequence[Modality], surface: Surface | None, folder: Path, group: str | None
) -> Observations:
    further = []
    if group is not None:
        place = folder / f"{group}.npy"
        if not place.is_file():
            found = sorted(other.stem for other in folder.glob("*.npy"))
            raise ConfigError(f"group: {folder} has no {group}.npy. Found: {', '.join(found)}.")
        further = [ArrayPiece(place)]
    source = stacked_source(file, file, {modality.name: modality.size for modality in modalities}, further)
    names = [modality.name for modality in modalities]
    arrays = {name: source.arrays[name] for name in names}
    plan = Plan(source, tuple(modalities), arrays, group=group_of(source, group), surface=surface)
    return read_plan(plan, _LAYOUT)


def _facts(
    folder: Path, file: Path, modalities: Sequence[Modality], surface: Surface | None, tested: bool, group: str | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {"files": [file.name, TESTING] if tested else [file.name]}
    if tested:
        facts["test_set"] = f"all rows of {TESTING}"
    if surface is not None:
        facts["surface"] = f"{len(surface.nodes)} points, {len(surface.triangles)} triangles"
    if statistics := [name for name in _STATISTICS if (folder / name).is_file()]:
        width = sum(modality.size for modality in modalities)
        for name in statistics:
            shape = list_arrays(folder / name)[""].shape
            if shape not in ((width,), (1, width)):
                raise DataError(
                    f"{folder / name}: expected {width} numbers, one for each column of {file.name}, found shape "
                    f"{shape}. Remove it: it is not needed."
                )
        facts["statistics"] = f"{' and '.join(statistics)} are there and not used: a model keeps its own"
    if (motion := folder / "motion.csv").is_file():
        with motion.open(encoding="utf-8") as lines:
            facts["motion"] = f"motion.csv lists {sum(bool(line.strip()) for line in lines)} poses"
    if group is None:
        facts["note"] = (
            "the layout does not tell which rows belong to one load path, so rows of one path may be in several splits"
        )
    return facts
