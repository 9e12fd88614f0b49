"""Small files of every kind that a page may take for granted, and small trained runs."""

import atexit
import contextlib
import pickle
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import h5py
import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from pyarrow import csv, parquet
from safetensors.torch import load_file
from torch import nn

import noumena
from noumena.crystals.data import open_crystals
from noumena.crystals.writers import write_cif
from noumena.multimodal.source import sample_path
from noumena.worldmodels.environments.gym import register
from noumena.worldmodels.episodes.collect import collect
from tests.docs.quick import quick
from tests.molecules.files import sample, write

_SEED = 0
# Recipe and overrides of the run of each kind.
_RUNS = {
    "table": ("density/table", "data.path=measurements.csv"),
    "gmm": ("density/table-gmm", "data.path=measurements.csv"),
    "hopper": ("density/hopper-gmm",),
    "prior": ("crystals/mp20-prior", "model.autoencoder=crystals", "data.path=sample:mp20"),
    "robot": ("multimodal/softrobot",),
    "crystals": ("crystals/sample",),
    "molecule": ("molecules/alanine-dipeptide",),
    "world": ("worldmodels/two-rooms",),
    "dots": ("worldmodels/jepa-robust", "data.fixed=1"),
}


@cache
def _trained(kind: str) -> Path:
    folder = Path(mkdtemp(prefix="noumena-docs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    table(folder / "measurements.csv")
    recipe, *overrides = _RUNS[kind]
    _, name, *more = quick(["fit", recipe, *overrides], folder)
    if kind == "prior":
        run("crystals", folder / "crystals")
    with contextlib.chdir(folder):
        noumena.run_recipe(name, more, out="run")
    return folder / "run"


def run(kind: str, path: Path) -> None:
    """A small finished run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(_trained(kind), path)


def rows(number: int = 240, seed: int = _SEED) -> dict[str, np.ndarray]:
    """Three columns that depend on each other."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(number, 3)) @ np.array([[1.0, 0.5, 0.0], [0.0, 1.0, 0.3], [0.2, 0.0, 1.0]])
    return dict(zip(("height", "width", "mass"), mixed.T, strict=True))


def table(path: Path, *, label: str | None = None, number: int = 240) -> None:
    """A CSV or Parquet table, with a column of labels if it is named."""
    columns: dict[str, np.ndarray] = rows(number)
    if label is not None:
        anomalous = np.arange(number) >= number - 12
        columns = {name: values + 6.0 * anomalous for name, values in columns.items()} | {label: anomalous.astype(int)}
    made = pa.table(columns)
    parquet.write_table(made, path) if path.suffix == ".parquet" else csv.write_csv(made, path)


def hopper(path: Path) -> None:
    """State-action data in the layout of D4RL."""
    shutil.copy(str(files("noumena.density").joinpath("samples/hopper_sample.hdf5")), path)


def robot(path: Path, only: tuple[str, ...] = ()) -> None:
    """A folder of arrays of a soft robot, or an archive of some of them."""
    arrays = dict(np.load(sample_path("sample:softrobot")))
    if only:
        np.savez(path, **{name: arrays[name][:20] for name in only})
        return
    path.mkdir()
    for name in ("pose", "force", "shape", "path_id"):
        np.save(path / f"{name}.npy", arrays[name].astype("float32" if name != "path_id" else "int64"))
    np.savez(path / "surface.npz", nodes=arrays["mesh_nodes"], triangles=arrays["mesh_triangles"])


def trajectory(folder: Path, name: str = "traj", form: str = "xtc", frames: int = 40) -> None:
    """Frames of alanine dipeptide; formats without names of atoms also need ``topology``."""
    data = sample(frames=frames)
    write(folder, form, data.xyz, data.topology, name=name)


def topology(folder: Path, name: str = "top") -> None:
    """One frame as PDB."""
    data = sample(frames=1)
    write(folder, "pdb", data.xyz, data.topology, name=name)


def crystals(path: Path, number: int = 40) -> None:
    """A folder of CIF files, or one CIF file of one crystal."""
    batch = _crystals()  # of at most six atoms, so that no part has larger ones than the others
    if path.suffix == ".cif":
        write_cif(path, [batch.select(torch.tensor([number]))])
        return
    path.mkdir()
    for place in range(number):
        write_cif(path / f"{place}.cif", [batch.select(torch.tensor([place]))])


@cache
def _crystals():
    return open_crystals("sample:mp20", max_atoms=6, seed=0).train.crystals


def array(number: int = 240) -> np.ndarray:
    """The columns of :func:`rows` side by side, shape (number, 3)."""
    return np.stack(list(rows(number).values()), 1)


def films(path: Path, *, frames: int, episodes: int = 5) -> None:
    """Episodes of small pictures and actions, as HDF5 or .npz."""
    rng = np.random.default_rng(_SEED)
    arrays = {
        "frames": rng.integers(0, 255, (episodes, frames, 16, 16), dtype=np.uint8),
        "actions": rng.normal(size=(episodes, frames - 1, 2)).astype(np.float32),
    }
    if path.suffix == ".npz":
        np.savez(path, **arrays)
        return
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values


def rooms(path: Path) -> None:
    """Episodes in two rooms, as ``noumena data collect`` records them."""
    register()
    collect("noumena/TwoRooms-v0", path, episodes=4, max_steps=20, seed=_SEED)


def photographs(folder: Path) -> None:
    """A folder of grey pictures."""
    folder.mkdir()
    rng = np.random.default_rng(_SEED)
    for place in range(8):
        Image.fromarray(rng.integers(0, 255, (64, 64), dtype=np.uint8)).save(folder / f"{place}.png")


def field_layout(folder: Path) -> None:
    """CIF texts in the tables of three parts."""
    folder.mkdir()
    batch = _crystals()
    for part, first in {"train": 0, "val": 30, "test": 40}.items():
        texts: list[str] = []
        for place in range(first, first + (30 if part == "train" else 10)):
            write_cif(folder / "one.cif", [batch.select(torch.tensor([place]))])
            texts.append((folder / "one.cif").read_text())
        csv.write_csv(
            pa.table({"material_id": [f"{part}-{i}" for i in range(len(texts))], "cif": texts}), folder / f"{part}.csv"
        )
    (folder / "one.cif").unlink()


def two_crystals(folder: Path) -> None:
    """Two crystals of the same number of atoms, ``a.cif`` and ``b.cif``."""
    batch = _crystals()
    for name, place in zip("ab", (batch.num_atoms == 4).nonzero()[:2], strict=True):
        write_cif(folder / f"{name}.cif", [batch.select(place)])


def study_of_gormpo(folder: Path) -> None:
    """A configuration and a trained model of GORMPO."""
    (folder / "vae_hopper.yaml").write_text(
        "model_type: vae\ntask: hopper-medium-v2\nhidden_dims: [64, 32]\nlatent_dim: 8\n"
    )
    layers = {
        "encoder.encoder.0": nn.Linear(14, 64),
        "encoder.encoder.2": nn.Linear(64, 32),
        "encoder.fc_mu": nn.Linear(32, 8),
        "encoder.fc_logvar": nn.Linear(32, 8),
        "decoder.decoder.0": nn.Linear(8, 32),
        "decoder.decoder.2": nn.Linear(32, 64),
        "decoder.decoder.4": nn.Linear(64, 14),
    }
    state = {f"{name}.{part}": one for name, layer in layers.items() for part, one in layer.state_dict().items()}
    torch.save(state, folder / "hopper_vae_model.pth")
    facts = {"threshold": -20.0, "input_dim": 14, "latent_dim": 8, "hidden_dims": [64, 32], "device": "cpu"}
    (folder / "hopper_vae_meta_data.pkl").write_bytes(pickle.dumps(facts | {"mean": -12.0, "std": 3.0}))


def study_of_chemeleon(folder: Path) -> None:
    """A trained model of Chemeleon2."""
    parity = Path(__file__).parents[1] / "crystals" / "parity"
    torch.save({"state_dict": load_file(parity / "vae_small.safetensors")}, folder / "vae.ckpt")
    shutil.copy(parity / "vae_small.json", folder / "vae.json")
