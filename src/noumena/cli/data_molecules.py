"""``noumena data conformers`` and ``noumena data md``: conformations of a molecule."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from noumena.cli.progress import keeping_finished_jobs, processors, progress_bar
from noumena.core.errors import ArtifactError, ConfigError
from noumena.molecules.generate.settings import Conformers, Dynamics, steps_of

if TYPE_CHECKING:
    import numpy as np

    from noumena.molecules.topology import Topology

    Choose = Callable[["np.ndarray", "np.ndarray"], "np.ndarray"]

FRAMES, TOPOLOGY = "frames.npz", "topology.pdb"

_DYNAMICS = Dynamics()
_BLOCK = 4096

Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the data; an unfinished one is continued.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same data.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes; all processors by default.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]


def register(verbs: typer.Typer) -> None:
    """Add the verbs to the group ``data``."""
    verbs.command(name="conformers", no_args_is_help=True)(conformers)
    verbs.command(name="md", no_args_is_help=True)(dynamics)


def conformers(
    smiles: Annotated[str, typer.Argument(metavar="SMILES", help="The molecule, its handedness written out.")],
    out: Out,
    n: Annotated[int, typer.Option(min=1, help="How many to embed.")] = 500,
    seed: Seed = 0,
    workers: Workers = None,
    force_field: Annotated[str, typer.Option(help="Of the energies: mmff94, mmff94s or uff.")] = "mmff94",
    minimise: Annotated[int, typer.Option(min=0, help="Steps of minimisation at most; 0 for none.")] = 0,
    energy_window: Annotated[
        float | None, typer.Option(help="Leave out what lies this much above the lowest energy, kcal/mol.")
    ] = None,
    least_rmsd: Annotated[
        float | None, typer.Option(help="Leave out what is nearer to one of lower energy, angstrom over heavy atoms.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Conformers of a molecule by distance geometry (RDKit, ETKDGv3) with their force-field energies.

    OUT gets frames.npz, which `data.path` of a recipe of molecules takes, and topology.pdb. Stop it at any moment: the
    same command continues where it was.
    """
    from functools import partial

    from noumena.generation import generate
    from noumena.molecules.generate import conformers as made

    chosen = Conformers(
        smiles=smiles,
        n=n,
        seed=seed,
        force_field=cast("Any", force_field),  # checked there
        minimise=minimise,
        energy_window=energy_window,
        least_rmsd=least_rmsd,
    )
    topology = made.conformer_topology(chosen)
    began = time.monotonic()
    with keeping_finished_jobs(out), progress_bar("batches of conformers") as progress:
        done = generate(
            out,
            partial(made.conformer_job, chosen=chosen),
            chosen.jobs,
            settings=made.conformer_settings(chosen),
            describe=partial(made.describe_conformers, chosen=chosen),
            workers=workers or processors(),
            progress=progress,
        )
        kept = pack(out, topology, lambda xyz, energy: made.kept_conformers(xyz, energy, topology, chosen))
    _report(
        out, topology, kept, began, as_json, {"embedded": done.metadata["embedded"], "failed": done.metadata["failed"]}
    )


def dynamics(
    source: Annotated[str, typer.Argument(metavar="FILE|SMILES", help="A .pdb or .cif file of one molecule.")],
    out: Out,
    ns: Annotated[float | None, typer.Option(help="Length of each replica in ns; 1 by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="The same in steps.")] = None,
    temperature: Annotated[float, typer.Option(help="K.")] = _DYNAMICS.temperature,
    dt: Annotated[float, typer.Option(help="Time step, fs.")] = _DYNAMICS.dt,
    stride: Annotated[int, typer.Option(min=1, help="Steps between stored frames.")] = _DYNAMICS.stride,
    force_field: Annotated[
        list[str] | None,
        typer.Option(
            help="amber14 (the default), amber19, amber99sbildn, charmm36, or an OpenMM .xml file; repeat it for more."
        ),
    ] = None,
    solvent: Annotated[str, typer.Option(help="vacuum, or obc2: implicit water.")] = _DYNAMICS.solvent,
    replicas: Annotated[int, typer.Option(min=1, help="Independent runs.")] = _DYNAMICS.replicas,
    seed: Seed = 0,
    friction: Annotated[float, typer.Option(help="1/ps.")] = _DYNAMICS.friction,
    hydrogen_mass: Annotated[float, typer.Option(help="Dalton; 4 allows --dt 4.")] = _DYNAMICS.hydrogen_mass,
    equilibrate: Annotated[int, typer.Option(min=0, help="Steps before the first frame.")] = _DYNAMICS.equilibrate,
    platform: Annotated[str, typer.Option(help="auto, reference or cpu.")] = _DYNAMICS.platform,
    workers: Workers = None,
    as_json: AsJson = False,
) -> None:
    """Molecular dynamics of one molecule (OpenMM, Langevin) from a structure; hydrogens it lacks are added.

    OUT gets frames.npz, which `data.path` of a recipe of molecules takes, and topology.pdb. Stop it at any moment: the
    same command continues where it was, and the trajectory comes out the same.
    """
    from functools import partial

    from noumena.generation import generate
    from noumena.molecules.generate import dynamics as made

    if ns is not None and steps is not None:
        raise ConfigError("--ns and --steps both say how long; give one.")
    chosen = Dynamics(
        temperature=temperature,
        steps=steps if steps is not None else steps_of(1.0 if ns is None else ns, dt),
        dt=dt,
        stride=stride,
        force_field=tuple(force_field or _DYNAMICS.force_field),
        solvent=cast("Any", solvent),  # checked there
        replicas=replicas,
        seed=seed,
        friction=friction,
        hydrogen_mass=hydrogen_mass,
        equilibrate=equilibrate,
        platform=cast("Any", platform),  # checked there
    )
    start = made.prepare(source, chosen)
    began = time.monotonic()
    with keeping_finished_jobs(out), progress_bar("pieces of trajectory") as progress:
        generate(
            out,
            partial(made.dynamics_job, start=start),
            chosen.replicas * chosen.jobs_per_replica,
            chain=chosen.jobs_per_replica,
            settings=made.dynamics_settings(start),
            describe=partial(made.describe_dynamics, start=start),
            workers=workers or min(processors(), chosen.replicas),
            progress=progress,
        )
        numbers = {"dt_ps": chosen.dt_ps, "temperature_K": chosen.temperature}
        kept = pack(out, start.topology, further=numbers)
    _report(out, start.topology, kept, began, as_json, {"replicas": chosen.replicas})


def pack(
    out: Path, topology: "Topology", choose: "Choose | None" = None, *, further: Mapping[str, float] | None = None
) -> int:
    """Make ``frames.npz`` and ``topology.pdb`` of the columns in a folder of generated data, and delete those.

    Stopped at any moment, it does the same when it is called again.

    Args:
        out: folder with ``xyz.npy``, ``energy.npy`` and further columns.
        topology: of the molecule.
        choose: from coordinates and energies, the numbers of the frames to keep; all by default.
        further: single numbers to store with the frames.

    Returns:
        How many frames there are.

    Raises:
        ArtifactError: the folder is not whole.
    """
    import numpy as np

    from noumena.files import clear_leftovers, replacing
    from noumena.molecules.writers import write_npz, write_pdb

    clear_leftovers(out)
    packed = out / FRAMES
    columns = {path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(out.glob("*.npy"))}
    if not packed.exists():
        if "xyz" not in columns:
            raise ArtifactError(f"{out} says it is complete, but has no {FRAMES}. Delete the folder and run again.")
        xyz = columns.pop("xyz")
        index = np.arange(len(xyz)) if choose is None else choose(xyz, columns["energy"])
        with replacing(out / TOPOLOGY) as beside:
            write_pdb(beside, [np.array(xyz[index[0]])], topology)

        def blocks() -> Iterator[Any]:
            for first in range(0, len(index), _BLOCK):
                yield np.asarray(xyz[index[first : first + _BLOCK]])

        scalars = {name: np.asarray(value, dtype=np.float64) for name, value in (further or {}).items()}
        with replacing(packed) as beside:
            write_npz(beside, blocks(), topology, {**{k: v[index] for k, v in columns.items()}, **scalars})
    for column in out.glob("*.npy"):
        column.unlink()
    with np.load(packed, allow_pickle=False) as archive:
        return len(archive["energy"])


def _report(
    out: Path, topology: "Topology", kept: int, began: float, as_json: bool, further: Mapping[str, Any]
) -> None:
    seconds = round(time.monotonic() - began, 2)
    if as_json:
        facts = {"frames": kept, **further, "atoms": len(topology), "formula": topology.formula, "seconds": seconds}
        typer.echo(json.dumps({**facts, "output": str(out / FRAMES)}))
        return
    words = ", ".join(f"{value:,} {name}" for name, value in further.items())
    typer.echo(
        f"{kept:,} frames of {topology.formula} ({len(topology)} atoms; {words}), {seconds:.1f} s -> {out / FRAMES}"
    )
