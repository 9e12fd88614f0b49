"""``noumena data collect``: episodes of any gymnasium environment."""

import json
from pathlib import Path
from typing import Annotated

import typer

from noumena.cli.progress import progress_bar


def register(verbs: typer.Typer) -> None:
    """Add the verb to the group ``data``."""
    verbs.command(name="collect", no_args_is_help=True)(collect)


def collect(
    env: Annotated[
        str, typer.Argument(metavar="ENV", help="Such as CartPole-v1, noumena/TwoRooms-v0 or module:Name-v0.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The .hdf5 file; it is whole or not there.")],
    episodes: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    max_steps: Annotated[int, typer.Option(min=1, help="Most actions of an episode.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same episodes.")] = 0,
    size: Annotated[int | None, typer.Option(min=1, help="Make frames squares of this side, pixels.")] = None,
    gray: Annotated[bool, typer.Option("--gray", help="Make colours grey.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Frames, actions and states of an environment under random actions, for recipes of world models (extra `rl`)."""
    from noumena.worldmodels.episodes.collect import collect as record

    with progress_bar("episodes") as progress:
        facts = record(
            env, out, episodes=episodes, max_steps=max_steps, seed=seed, size=size, gray=gray, progress=progress
        )
    if as_json:
        typer.echo(json.dumps(facts))
        return
    shape = " x ".join(map(str, facts["shape"]))
    typer.echo(f"{facts['frames']:,} frames of {shape} in {facts['episodes']:,} episodes -> {facts['output']}")
