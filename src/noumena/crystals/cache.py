"""Crystals read once kept as one file of columns, found again by the content of what they were read from."""

import hashlib
import json
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from noumena.crystals.formats.raw import Raw, Skipped

FORMAT = 1
"""Raised whenever reading gives other crystals than before."""
_LOG = logging.getLogger(__name__)


def folder_of(cache: str | Path) -> Path:
    """Folder of the cache: as given, or for ``auto`` ``noumena/crystals`` in the user's cache folder."""
    if str(cache) != "auto":
        return Path(cache).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "noumena" / "crystals"


def key_of(files: Mapping[str, Path], options: Mapping[str, Any]) -> str:
    """A hash of the bytes and names of files, the options, and how this version reads.

    Args:
        files: by their names within the source.
        options: JSON-able.
    """
    digest = hashlib.sha256(json.dumps([FORMAT, dict(options)], sort_keys=True).encode())
    for name, path in files.items():
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(len(name.encode()).to_bytes(8, "little") + name.encode() + content)
    return digest.hexdigest()


def load(folder: Path, key: str) -> Raw | None:
    """What was stored for a key; None if nothing was, or if the file is damaged, which the log then says."""
    path = _file(folder, key)
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _unpacked({name: archive[name] for name in archive.files})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        _LOG.warning("%s is damaged (%s); the crystals are read anew", path, error)
        return None


def store(folder: Path, key: str, raw: Raw) -> None:
    """Store crystals for a key. Where that cannot be done the log says so; they are read again the next time."""
    path = _file(folder, key)
    beside: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{path.stem}-", suffix=".npz", delete=False) as file:
            beside = Path(file.name)
            np.savez(file, allow_pickle=False, **_packed(raw))
        beside.replace(path)
    except OSError as error:
        _LOG.warning("%s cannot be written (%s); the crystals are not cached", path, error)
        if beside is not None:
            with suppress(OSError):
                beside.unlink()


def _file(folder: Path, key: str) -> Path:
    return folder / f"crystals-{key[:40]}.npz"


def _packed(raw: Raw) -> dict[str, np.ndarray]:
    texts = {
        "names": raw.names,
        "where": raw.where,
        "skipped_where": [one.where for one in raw.skipped],
        "skipped_name": [one.name for one in raw.skipped],
        "skipped_reason": [one.reason for one in raw.skipped],
        "property_names": list(raw.properties),
    }
    arrays = {
        "lattice": raw.lattice,
        "frac_coords": raw.frac_coords,
        "atom_types": raw.atom_types.astype(np.int16),
        "num_atoms": raw.num_atoms,
    }
    values = {f"property_{number}": column for number, column in enumerate(raw.properties.values())}
    return {**arrays, **values, **{name: _text_array(text) for name, text in texts.items()}}


def _unpacked(arrays: Mapping[str, np.ndarray]) -> Raw:
    """The crystals of stored arrays.

    Raises:
        ValueError, KeyError: they do not belong together.
    """
    left_out = zip(*(_text_list(arrays[f"skipped_{name}"]) for name in ("where", "name", "reason")), strict=True)
    names = _text_list(arrays["property_names"])
    raw = Raw(
        lattice=arrays["lattice"],
        frac_coords=arrays["frac_coords"],
        atom_types=arrays["atom_types"].astype(np.int64),
        num_atoms=arrays["num_atoms"],
        names=_text_list(arrays["names"]),
        where=_text_list(arrays["where"]),
        properties={name: arrays[f"property_{number}"] for number, name in enumerate(names)},
        skipped=tuple(Skipped(*one) for one in left_out),
    )
    atoms, crystals = int(raw.num_atoms.sum()), len(raw)
    sizes = {len(raw.names), len(raw.where), *(len(values) for values in raw.properties.values())}
    if (
        raw.lattice.shape != (crystals, 3, 3)
        or raw.frac_coords.shape != (atoms, 3)
        or raw.atom_types.shape != (atoms,)
        or sizes != {crystals}
    ):
        raise ValueError("its arrays do not agree")
    return raw


def _text_array(texts: Sequence[str]) -> np.ndarray:
    """Texts as one array of bytes: an array of text gives each the room of the longest."""
    return np.frombuffer(json.dumps(texts).encode(), np.uint8)


def _text_list(array: np.ndarray) -> list[str]:
    found = json.loads(array.tobytes())
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError("it has no list of texts where one belongs")
    return found
