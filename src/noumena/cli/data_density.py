"""``noumena data sparse`` and ``noumena data ood``: harder data sets and test sets out of state-action data."""

import json
from pathlib import Path
from typing import Annotated

import typer

from noumena.core.errors import ConfigError

Source = Annotated[
    str, typer.Argument(metavar="DATA", help="A D4RL-layout .hdf5, .h5 or .npz file, a Minari folder or sample:hopper.")
]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")]

_Numbers = tuple[float, float, float, float]


def register(verbs: typer.Typer) -> None:
    """Add the verbs to the group ``data``."""
    verbs.command(name="sparse", no_args_is_help=True)(sparse)
    verbs.command(name="ood", no_args_is_help=True)(ood)


def sparse(
    data: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .hdf5 file; it is whole or not there.")],
    box: Annotated[
        _Numbers | None,
        typer.Option(help="Least and greatest length of the action, least and greatest reward; automatic if missing."),
    ] = None,
    fraction: Annotated[float, typer.Option(help="Share of the trajectories through the box that goes.")] = 0.5,
    least_inside: Annotated[
        float | None, typer.Option(help="Share of its steps in the box that makes a trajectory one through it.")
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Drop trajectories that go through a region of actions and rewards; keep the rest in the D4RL layout.

    The automatic box lies around the densest mode, and half of the trajectories, those most often in it, count as
    through it.
    """
    from noumena.density.rl.sparse import sparse_dataset

    facts = sparse_dataset(data, out, box=box, fraction=fraction, least_inside=least_inside, seed=seed)
    if as_json:
        typer.echo(json.dumps(facts))
        return
    least_action, greatest_action, least_reward, greatest_reward = facts["box"].values()
    typer.echo(f"box: action length {least_action:.4g} to {greatest_action:.4g}")
    typer.echo(f"     reward {least_reward:.4g} to {greatest_reward:.4g}")
    of = f"{facts['through']:,} trajectories through it dropped ({facts['trajectories']:,} in all)"
    typer.echo(f"{facts['dropped']:,} of {of}")
    kept = f"{facts['kept']:,} of {facts['transitions']:,} transitions kept ({facts['kept_share']:.1%})"
    typer.echo(f"{kept} -> {facts['output']}")


def ood(
    data: Source,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .npz file; it is whole or not there.")],
    shift: Annotated[
        list[float] | None, typer.Option(help="A distance in standard deviations; repeat it. 0.1 0.5 1 2 4 if missing.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Rows of another file are a level; repeat it.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of each half of a level, at most.")] = 2500,
    row: Annotated[str, typer.Option(help="What a row is made of: data.row in training.")] = "next_observation+action",
    split: Annotated[str, typer.Option(help="data.split in training.")] = "trajectory",
    val_fraction: Annotated[float, typer.Option(help="data.val_fraction in training.")] = 0.2,
    test_fraction: Annotated[float, typer.Option(help="data.test_fraction in training.")] = 0.2,
    split_seed: Annotated[int, typer.Option(min=0, help="data.seed in training.")] = 0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Graded out-of-distribution test sets for `evaluate.ood`: rows moved further and further, and broken actions.

    The in-distribution half comes from the test part of DATA: name the split that the model was trained with.
    """
    from typing import Any, cast

    from noumena.density.rl.levels import SHIFTS, ood_levels

    facts = ood_levels(
        data,
        out,
        shifts=shift or SHIFTS,
        policies=dict(map(_policy, policy or [])),
        rows=rows,
        # Checked by the reader, which knows the words.
        row=cast(Any, row),
        split=cast(Any, split),
        val_fraction=val_fraction,
        test_fraction=test_fraction,
        split_seed=split_seed,
        seed=seed,
    )
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, count in facts["levels"].items():
        typer.echo(f"{name:<20}{count // 2:>8,} + {count // 2:,} rows")
    typer.echo(f"test rows of: {facts['split']} -> {facts['output']}")


def _policy(text: str) -> tuple[str, str]:
    name, equals, file = text.partition("=")
    if not (name and equals and file):
        raise ConfigError(f"--policy {text}: expected NAME=FILE, such as random=hopper_random.hdf5.")
    return name, file
