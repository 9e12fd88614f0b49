"""Which files a path names, and the reader of each."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Protocol

from noumena.core.errors import ConfigError, DataError, did_you_mean
from noumena.molecules.formats.dcd import DcdFile
from noumena.molecules.formats.frames import TrajectoryFile
from noumena.molecules.formats.gromacs import GromacsFile
from noumena.molecules.formats.npz import open_npz
from noumena.molecules.formats.pdb import PdbFile
from noumena.molecules.formats.sdf import SdfFile
from noumena.molecules.formats.xyz import XyzFile
from noumena.readers.common import suffix_of

SAMPLE = "sample:"
_MAX_FILES = 10_000


class _Opener(Protocol):
    def __call__(self, path: Path) -> TrajectoryFile: ...


_OPENERS: Mapping[str, _Opener] = {
    ".npz": open_npz,
    ".pdb": PdbFile,
    ".xtc": GromacsFile,
    ".trr": GromacsFile,
    ".dcd": DcdFile,
    ".xyz": XyzFile,
    ".sdf": SdfFile,
}
SUFFIXES = tuple(_OPENERS)


def trajectory_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that a path names, each a trajectory, in the order given, those of a folder or pattern by name.

    Args:
        path: a file; a folder, whose files of the known formats are meant; a pattern such as ``run*/traj.xtc``; several
            of these in a list or, in one text, with commas between them; or ``sample:aib9``.

    Raises:
        ConfigError: there is no such sample.
        DataError: nothing is there, or a file twice.
    """
    if not isinstance(path, str | Path):
        found = [file for entry in path for file in trajectory_files(entry)]
    else:
        found = _named(str(path))
    if not found:
        raise DataError(f"{path}: names no file. Give the path of a trajectory.")
    if len(found) > _MAX_FILES:
        raise DataError(f"{path}: names {len(found):,} files; expected at most {_MAX_FILES:,}. Join them first.")
    if twice := [file for number, file in enumerate(found) if file in found[:number]]:
        raise DataError(f"{path}: names {twice[0]} twice. Name each trajectory once.")
    return found


def _named(text: str) -> list[Path]:
    if text.startswith(SAMPLE) and "," not in text:
        return [sample_path(text)]
    place = Path(text).expanduser()
    if place.is_dir():
        # A PDB file among trajectories that hold coordinates only is their topology, which is for the user to say.
        files = [file for file in sorted(place.iterdir()) if file.suffix.lower() in SUFFIXES]
        if not files:
            raise DataError(f"{place}: a folder without any {', '.join(SUFFIXES)} file. Name another one.")
        if len({file.suffix.lower() for file in files}) > 1:
            kinds = ", ".join(sorted({file.suffix.lower() for file in files}))
            raise DataError(
                f"{place}: has files of several formats ({kinds}); which of them are trajectories? Say it with a "
                f"pattern such as {place / '*'}{files[-1].suffix}, and name the topology with topology=..."
            )
        return files
    if place.exists():
        return [place]
    if "," in text:
        return [file for entry in text.split(",") if entry.strip() for file in _named(entry.strip())]
    if any(sign in text for sign in "*?["):
        matches = sorted(Path(place.anchor or ".").glob(str(place.relative_to(place.anchor))))
        if not matches:
            raise DataError(f"{text}: no file matches this pattern. Check the path.")
        return matches
    return [place]


def sample_path(name: str) -> Path:
    """The shipped file for a name such as ``sample:aib9``.

    Raises:
        ConfigError: there is no such sample.
    """
    folder = Path(str(resources.files("noumena.molecules") / "samples"))
    known = [SAMPLE + file.stem for file in sorted(folder.glob("*.npz"))]
    if name not in known:
        raise ConfigError(f"no data '{name}' in the package. {did_you_mean(name, known)}")
    return folder / f"{name.removeprefix(SAMPLE)}.npz"


def open_file(path: Path) -> TrajectoryFile:
    """Read the header of a trajectory.

    Raises:
        DataError: the file is missing, empty, damaged, or of a format that is not known.
        NotSupportedError: a library that its format needs is not installed.
    """
    return _OPENERS[suffix_of(path, SUFFIXES)](path)
