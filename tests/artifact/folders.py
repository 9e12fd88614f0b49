"""Model folders for the tests, and ways to tamper with them so that every hash is right again."""

import hashlib
import json

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from noumena.density.model import VAE

COLUMNS = 4
FILES = ("manifest.json", "config.json", "model.safetensors", "card.md")


def rows(n=60, seed=0):
    return np.random.default_rng(seed).normal(size=(n, COLUMNS)).astype("float32")


def small_model(seed=0):
    torch.manual_seed(seed)
    model = VAE(input_dim=COLUMNS, hidden_dims=(8, 4), latent_dim=2)
    model.standardizer.fit(torch.from_numpy(rows()))
    model.schema = {"columns": [f"x_{i}" for i in range(COLUMNS)], "kind": "table"}
    model.set_threshold(rows())
    return model.eval()


def change_json(path, change):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content) or content, indent=2) + "\n")


def change_config(folder, change):
    """Edit ``config.json`` and sign the folder again."""
    change_json(folder / "config.json", change)
    sign(folder)


def change_tensors(folder, change):
    """Edit the dictionary of tensors and sign the folder again."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"model": "density/vae"})
    sign(folder)


def sign(folder, **changes):
    """Give the manifest right sizes and hashes, as somebody who wants the folder to be believed would."""
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("sha256", None)
    for name, entry in manifest["files"].items():
        if (folder / name).is_file():
            content = (folder / name).read_bytes()
            entry.update(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    manifest.update(changes)
    manifest["sha256"] = hashlib.sha256(canonical(manifest)).hexdigest()
    (folder / "manifest.json").write_bytes(canonical(manifest))


def canonical(value):
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True) + "\n").encode()
