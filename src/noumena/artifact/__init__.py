"""Trained models as folders: readable by eye, checked byte by byte, safe to load from a stranger."""

from noumena.artifact.manifest import Manifest, read_manifest, verify
from noumena.artifact.store import load, save

__all__ = ["Manifest", "load", "read_manifest", "save", "verify"]
