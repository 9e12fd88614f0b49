"""``noumena data``: make data by simulation, or out of other data."""

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from noumena.cli import data_density, data_molecules, data_worldmodels
from noumena.cli.progress import keeping_finished_jobs, processors, progress_bar
from noumena.multimodal.softrobot.settings import SoftRobot

_DEFAULT = SoftRobot()
_POSE = tuple[float, float, float, float, float, float]

_verbs = typer.Typer(no_args_is_help=True, help="Make data, by simulation or out of other data.")


def register(app: typer.Typer) -> None:
    """Add the group of verbs."""
    data_density.register(_verbs)
    data_molecules.register(_verbs)
    data_worldmodels.register(_verbs)
    app.add_typer(_verbs, name="data")


@_verbs.command(name="softrobot", no_args_is_help=True)
def softrobot(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the data; an unfinished one is continued.")],
    paths: Annotated[int, typer.Option(min=1, help="Load paths; about ten rows each.")] = 320,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same data.")] = 0,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all processors by default.")] = None,
    targets: Annotated[int, typer.Option(min=1, help="Random poses that each path visits.")] = 3,
    outer_radius: Annotated[float, typer.Option(help="Of the cylinder, mm.")] = _DEFAULT.outer_radius,
    inner_radius: Annotated[float, typer.Option(help="Of the cylinder, mm.")] = _DEFAULT.inner_radius,
    height: Annotated[float, typer.Option(help="Of the cylinder, mm.")] = _DEFAULT.height,
    shear_modulus: Annotated[float, typer.Option(help="Of the Neo-Hookean material, MPa.")] = _DEFAULT.shear_modulus,
    bulk_modulus: Annotated[float, typer.Option(help="Of the Neo-Hookean material, MPa.")] = _DEFAULT.bulk_modulus,
    turns: Annotated[int, typer.Option(help="Elements around.")] = _DEFAULT.turns,
    layers: Annotated[int, typer.Option(help="Elements through the wall.")] = _DEFAULT.layers,
    levels: Annotated[int, typer.Option(help="Elements along the axis.")] = _DEFAULT.levels,
    pose_low: Annotated[_POSE, typer.Option(help="Least Dx Dy Dz (mm) Rx Ry Rz (rad) of the top.")] = _DEFAULT.pose_low,
    pose_high: Annotated[_POSE, typer.Option(help="Greatest of these.")] = _DEFAULT.pose_high,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Poses of a soft hollow cylinder with the wrench on its base and its surface's shape, by finite elements.

    Each row is a static equilibrium. Stop it at any moment: the same command continues where it was.
    """
    from functools import partial

    from noumena.generation import generate
    from noumena.multimodal.softrobot import describe, load_path, surface_arrays
    from noumena.multimodal.softrobot.description import settings

    robot = SoftRobot(
        outer_radius=outer_radius,
        inner_radius=inner_radius,
        height=height,
        shear_modulus=shear_modulus,
        bulk_modulus=bulk_modulus,
        turns=turns,
        layers=layers,
        levels=levels,
        pose_low=pose_low,
        pose_high=pose_high,
    )
    began = time.monotonic()
    with keeping_finished_jobs(out), progress_bar("load paths") as progress:
        done = generate(
            out,
            partial(load_path, robot=robot, seed=seed, targets=targets),
            paths,
            settings=settings(robot, seed=seed, targets=targets),
            describe=partial(describe, robot=robot, paths=paths, seed=seed, targets=targets),
            archives={"surface_mesh.npz": surface_arrays(robot)},
            workers=workers or processors(),
            progress=progress,
        )
    facts = {
        "rows": done.metadata["samples"],
        "paths": paths,
        "failed_steps": done.metadata["failed_steps"],
        "paths_kept": done.kept,
        "seconds": round(time.monotonic() - began, 2),
        "output": str(out),
    }
    if as_json:
        typer.echo(json.dumps(facts))
        return
    kept = f" ({done.kept} of them were there already)" if done.kept else ""
    failed = f"{facts['failed_steps']} step{'' if facts['failed_steps'] == 1 else 's'} failed"
    typer.echo(f"{facts['rows']:,} rows of {paths:,} load paths{kept}, {failed}, {facts['seconds']:.1f} s -> {out}")
