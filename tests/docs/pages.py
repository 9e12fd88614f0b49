"""What each page takes for granted: files, runs and names; and which of its numbers are made smaller to run it."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from tests.docs import materials as made
from tests.docs.blocks import ROOT


def _nothing(_: Path) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True)
class Page:
    """How a page is run.

    Attributes:
        prepare: makes the files it takes for granted in its folder; gives the names its Python takes for granted.
        replace: text of its blocks to the text that is run; all of it has to be there.
        slow: why it takes longer than a few seconds, if it does.
        elsewhere: the test that runs its blocks in place of this one.
    """

    prepare: Callable[[Path], Mapping[str, Any]] = _nothing
    replace: Mapping[str, str] = field(default_factory=dict)
    slow: str | None = None
    elsewhere: str | None = None


def _tables(folder: Path) -> None:
    made.table(folder / "measurements.csv")
    made.table(folder / "new.csv")
    made.table(folder / "new.parquet")
    made.table(folder / "labelled.csv", label="is_fault")


def _molecules(folder: Path) -> None:
    made.trajectory(folder)
    made.trajectory(folder, "new", frames=10)
    made.topology(folder)


def _crystals(folder: Path) -> None:
    made.crystals(folder / "cifs")
    made.crystals(folder / "mine.cif", 0)


def _own_data(folder: Path) -> Mapping[str, Any]:
    _tables(folder)
    _molecules(folder)
    _crystals(folder)
    made.hopper(folder / "hopper_medium.hdf5")
    made.robot(folder / "robot")
    made.films(folder / "rooms.h5", frames=20)
    rows = made.array()
    np.savez(folder / "both.npz", left=rows, right=rows**2)
    return {"rows": rows, "left": rows, "right": rows**2}


def _readme(folder: Path) -> Mapping[str, Any]:
    _own_data(folder)
    made.robot(folder / "live.npz", ("pose",))
    (folder / "space.yaml").write_text("model.latent_dim: {low: 1, high: 3}\n")
    rows = made.array(200)
    return {"train_rows": rows[:150], "val_rows": rows[150:], "new_rows": rows[:20]}


def _own_data_and_faults(folder: Path) -> Mapping[str, Any]:
    names = _own_data(folder)
    lines = (folder / "measurements.csv").read_text().splitlines()
    (folder / "holes.csv").write_text("\n".join([*lines[:18], "0.3,,1.2", *lines[18:]]) + "\n")
    (folder / "names.csv").write_text("machine,height\n" + "".join(f"pump-{i},{i}\n" for i in range(9)))
    made.robot(folder / "broken")
    np.save(folder / "broken" / "force.npy", np.load(folder / "broken" / "force.npy")[:-1])
    (folder / "a.cif").write_text("data_x\n_cell_length_a 4\n_cell_length_c 4\n")
    made.films(folder / "films.npz", frames=6)
    return names


def _guide(folder: Path) -> Mapping[str, Any]:
    _tables(folder)
    _crystals(folder)
    (folder / "laptop.yaml").write_text("fit: {batch_size: 128}\n")
    for kind in ("robot", "molecule", "crystals", "world"):
        made.run(kind, folder / "runs" / kind)
    made.run("prior", folder / "runs" / "prior")
    made.robot(folder / "live.npz", ("pose",))
    made.topology(folder, "first")
    made.topology(folder, "last")
    rows = made.array(200)
    return {"train": rows[:150], "val": rows[150:], "new_rows": rows[:20], "rows": rows, "train_rows": rows[:150]} | {
        "val_rows": rows[150:]
    }


def _resume(folder: Path) -> Mapping[str, Any]:
    _tables(folder)
    rows = made.array(200)
    return {"train": rows[:150], "val": rows[150:]}


def _only_tables(folder: Path) -> Mapping[str, Any]:
    _tables(folder)
    return {}


def _sharing(folder: Path) -> Mapping[str, Any]:
    _tables(folder)
    made.run("gmm", folder / "runs" / "mine")
    return {"new_rows": made.array(20)}


def _safety(folder: Path) -> Mapping[str, Any]:
    made.run("gmm", folder / "runs" / "mine")
    made.run("gmm", folder / "copy")
    return {"path_of_a_copy": folder / "copy" / "model"}


def _exploring(folder: Path) -> Mapping[str, Any]:
    made.run("table", folder / "runs" / "table")
    return {}


def _export(folder: Path) -> Mapping[str, Any]:
    for kind in ("table", "robot", "molecule"):
        made.run(kind, folder / "runs" / kind)
    made.trajectory(folder, "new", frames=10)
    return {"rows": made.array(20)}


def _density(folder: Path) -> Mapping[str, Any]:
    made.study_of_gormpo(folder)
    return {}


def _multimodal(folder: Path) -> Mapping[str, Any]:
    made.robot(folder / "robot")
    made.robot(folder / "folder")
    made.run("robot", folder / "runs" / "robot")
    made.robot(folder / "new.npz", ("pose",))
    rows = made.array()
    np.savez(folder / "both.npz", left=rows, right=rows**2)
    shutil.copy(ROOT / "tests/multimodal/prosoro/mvae_cylinder_1.0_1.0_0.1_8.pth", folder)
    arrays = {name: np.load(folder / "robot" / f"{name}.npy")[:5] for name in ("pose", "force", "shape")}
    return {"poses": arrays["pose"], "forces": arrays["force"], "shapes": arrays["shape"], "pose": arrays["pose"][0]}


def _crystals_page(folder: Path) -> Mapping[str, Any]:
    _crystals(folder)
    made.field_layout(folder / "mp_20")
    for name in ("train", "val", "others"):
        shutil.copy(files("noumena.crystals").joinpath("samples/mp20.parquet"), folder / f"{name}.parquet")
    made.two_crystals(folder)
    made.study_of_chemeleon(folder)
    return {}


def _chemeleon(folder: Path) -> Mapping[str, Any]:
    made.study_of_chemeleon(folder)
    return {}


def _molecules_page(folder: Path) -> Mapping[str, Any]:
    _molecules(folder)
    made.topology(folder, "first")
    made.topology(folder, "last")
    made.topology(folder, "peptide")
    shutil.copy(files("noumena.molecules").joinpath("samples/aib9.npz"), folder)
    return {"xyz": np.load(files("noumena.molecules").joinpath("samples/aib9.npz"))["xyz"][:20]}


def _worldmodels(folder: Path) -> Mapping[str, Any]:
    made.photographs(folder / "photographs")
    for name in ("new", "other"):
        made.rooms(folder / f"{name}.h5")
    for name in ("vicreg.yaml", "sweep_fixed_uniform.(1).vicreg.best.yaml"):
        shutil.copy(ROOT / "tests/worldmodels/parity/vicreg.yaml", folder / name)
    return _jepa(folder)


def _jepa(folder: Path) -> Mapping[str, Any]:
    for ending in ("ckpt", "yaml"):
        shutil.copy(
            ROOT / f"tests/worldmodels/parity/vicreg.{ending}", folder / f"epoch=100_sample_step=999936.{ending}"
        )
    return {}


PAGES = {
    "README.md": Page(_readme),
    "docs/guide.md": Page(_guide),
    "docs/howto/own_data.md": Page(_own_data_and_faults),
    "docs/howto/resume.md": Page(_resume),
    "docs/howto/export.md": Page(_export),
    "docs/howto/safety.md": Page(_safety),
    "docs/howto/tuning.md": Page(_only_tables),
    "docs/howto/sharing.md": Page(_sharing),
    "docs/howto/exploring.md": Page(_exploring),
    "docs/density.md": Page(_density),
    "docs/multimodal.md": Page(_multimodal),
    "docs/crystals.md": Page(
        _crystals_page,
        {
            "width=128, encoder_layers=2, decoder_layers=2, ": "width=16, encoder_layers=1, decoder_layers=1, ",
            "width=128, layers=3, ": "width=16, layers=1, ",
            "data.val_rows=1000 data.test_rows=1000": "data.val_rows=50 data.test_rows=50",
        },
    ),
    "docs/molecules.md": Page(_molecules_page),
    "docs/worldmodels.md": Page(
        _worldmodels,
        {
            "sequences=6400)": "sequences=16, test_sequences=100)",
            "evaluate(model, splits)": "evaluate(model, splits, probe_train_sequences=32, probe_sequences=32)",
            "episodes=100,": "episodes=2,",
            "0.5 1 2 3; do": "0.5; do",
            "seed in 0 1 2": "seed in 0",
        },
    ),
    "docs/coming_from/chemeleon2.md": Page(_chemeleon),
    "docs/coming_from/jepa_ssl.md": Page(_jepa, {"sequences=320, ": "sequences=64, "}),
    "docs/howto/many_devices.md": Page(elsewhere="tests/training/test_distributed.py"),
    "docs/new_family.md": Page(elsewhere="tests/test_plugin.py"),
}
