"""The manifest of a model folder: what is in it, and a hash of every byte."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from noumena.core.errors import ArtifactError

FORMAT = 1
FILES = ("config.json", "model.safetensors", "card.md")
MANIFEST = "manifest.json"
_MAX_JSON = 1 << 20


class FileEntry(BaseModel):
    """Size and hash of one file."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """What ``manifest.json`` says.

    Attributes:
        format: version of the folder's layout.
        model: registered name, as in ``density/vae``.
        created: time of saving, ISO 8601, UTC.
        versions: of the libraries that wrote it.
        data: fingerprint of the training data, if the model was fitted.
        files: every other file of the folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    format: int
    model: str
    created: str
    versions: dict[str, str]
    data: str | None
    files: dict[str, FileEntry]

    def dump(self) -> bytes:
        """The only bytes that are this manifest: canonical JSON that ends with its own hash."""
        body = self.model_dump()
        digest = hashlib.sha256(_canonical(body)).hexdigest()
        return _canonical({**body, "sha256": digest})


def _canonical(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``manifest.json`` of a model folder.

    Raises:
        ArtifactError: there is none, its format is unknown, or a byte of it has changed.
    """
    folder = Path(folder)
    path = folder / MANIFEST
    if not folder.is_dir():
        raise ArtifactError(
            f"{folder} is no model folder: {'it is a file' if folder.exists() else 'it does not exist'}."
        )
    if not path.is_file():
        raise ArtifactError(f"{folder} is no model folder: it has no {MANIFEST}. Give the path that `save` wrote.")
    raw = read_small(path)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: {error}. Get a fresh copy.") from error
    if not isinstance(body, dict):
        raise ArtifactError(f"{path} is damaged: expected an object. Get a fresh copy.")
    version = body.get("format")
    if version != FORMAT:
        raise ArtifactError(
            f"{path}: format version {version!r} is unknown; this version of noumena reads {FORMAT}. Update noumena."
        )
    body.pop("sha256", None)
    try:
        manifest = Manifest.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{path} is damaged: '{where}': {first['msg']}. Get a fresh copy.") from error
    if manifest.dump() != raw:
        raise ArtifactError(f"{path} is damaged: its content does not match its hash. Get a fresh copy.")
    if set(manifest.files) != set(FILES):
        raise ArtifactError(f"{path} lists {sorted(manifest.files)}, expected {sorted(FILES)}.")
    return manifest


def verify(folder: str | Path) -> Manifest:
    """Check that every file of a model folder is what its manifest says.

    Raises:
        ArtifactError: a file is missing, has another size or another hash.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, entry in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(f"{path} is missing. Get a fresh copy of the folder.")
        size = path.stat().st_size
        if size != entry.bytes:
            raise ArtifactError(f"{path} has {size} bytes instead of {entry.bytes}: it is truncated or was changed.")
        if sha256(path) != entry.sha256:
            raise ArtifactError(f"{path} has changed: its sha256 is not the one in {MANIFEST}. Get a fresh copy.")
    return manifest


def write_manifest(folder: Path, model: str, created: str, versions: dict[str, str], data: str | None) -> None:
    """Describe the files of ``folder``; called last, so that a folder with a manifest is whole."""
    files = {name: FileEntry(bytes=(folder / name).stat().st_size, sha256=sha256(folder / name)) for name in FILES}
    manifest = Manifest(format=FORMAT, model=model, created=created, versions=versions, data=data, files=files)
    (folder / MANIFEST).write_bytes(manifest.dump())


def sha256(path: Path) -> str:
    """Hash of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_small(path: Path) -> bytes:
    """The content of a JSON file, refused when it is far larger than any real one."""
    if path.stat().st_size > _MAX_JSON:
        raise ArtifactError(f"{path} has {path.stat().st_size} bytes; a real one has a few thousand.")
    return path.read_bytes()
