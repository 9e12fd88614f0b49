"""``noumena plan``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from noumena.cli.data_verbs import AsJson, Device, Source
from noumena.core.errors import ConfigError, DataError, NotSupportedError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="plan", no_args_is_help=True)(plan)


def plan(
    source: Source,
    episodes: Annotated[int, typer.Option("--episodes", "-n", min=1, help="How many starts and goals.")] = 100,
    planner: Annotated[str, typer.Option(help="cem, mppi or gradient.")] = "cem",
    goal: Annotated[
        str, typer.Option(help="How goals are given: image, or state (a position, through a linear readout).")
    ] = "image",
    horizon: Annotated[int, typer.Option(min=1, help="Actions of a plan.")] = 8,
    replan_every: Annotated[int, typer.Option(min=1, help="Actions taken of each plan.")] = 2,
    roadmap: Annotated[
        bool | None,
        typer.Option(
            "--roadmap/--no-roadmap",
            help="Count steps on a roadmap of remembered frames, or take the straight distance; by default the former "
            "where there are walls.",
        ),
    ] = None,
    walks: Annotated[
        int, typer.Option(min=2, help="Random walks in the world for the roadmap and the readout.")
    ] = 1024,
    seed: Annotated[int, typer.Option(help="Same seed, same starts, goals and plans.")] = 0,
    film: Annotated[Path | None, typer.Option(help="Write a film of one episode to this .gif file.")] = None,
    film_episode: Annotated[int, typer.Option(min=0, help="Which episode the film shows.")] = 0,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Act in the model's world by planning with it: how often it reaches its goals, beside chance and an oracle.

    The world is made anew from what the model keeps of its data. Frames of random walks in it give the roadmap and
    the readout from latents to positions.
    """
    if film is not None and film.suffix.lower() != ".gif":
        raise ConfigError(f"--film {film}: unknown ending '{film.suffix}'. Known: .gif.")
    if film is not None and film_episode >= episodes:
        raise ConfigError(f"--film-episode {film_episode}: there are {episodes} episodes, the first is 0.")
    if goal not in ("image", "state"):
        raise ConfigError(f"--goal: expected image or state, got '{goal}'.")
    model: Any = _world_model(source, device)
    from noumena.worldmodels.environments.worlds import world_of
    from noumena.worldmodels.planning.evaluate import plan_metrics, planner_of
    from noumena.worldmodels.planning.survey import survey

    search = planner_of(planner)
    try:
        world = world_of(model.schema)
    except DataError as error:
        raise NotSupportedError(
            f"{source}: {error} In an environment of your own, use Python: write a class with the methods of "
            "noumena.worldmodels.environments.worlds.World and pass it to "
            "noumena.worldmodels.planning.evaluate.plan_metrics(model, world)."
        ) from error
    found = plan_metrics(
        model,
        world,
        survey(model, world, walks=walks, seed=seed),
        episodes=episodes,
        seed=seed,
        planner=search,
        goal=goal,
        horizon=horizon,
        replan_every=replan_every,
        roadmap=roadmap,
    )
    if film is not None:
        from noumena.files import replacing
        from noumena.worldmodels.planning.film import film as make_film

        content = make_film(world, found.episodes, film_episode)
        with replacing(film) as beside:
            beside.write_bytes(content)
    if as_json:
        typer.echo(json.dumps(dict(found.metrics), indent=2))
        return
    _print(found.table)
    if film is not None:
        typer.echo(f"episode {film_episode} -> {film}")


def _world_model(source: Path, device: str) -> Any:
    from noumena.artifact import load, read_manifest
    from noumena.artifact.store import model_folder

    name = read_manifest(model_folder(source)).model
    if not name.startswith("worldmodels/"):
        raise NotSupportedError(f"{source} is a model '{name}': planning is for models of the worldmodels family.")
    return load(source, device=device)


def _print(table: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=table.title, caption=table.caption, caption_justify="left")
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if number == 0 else "right")
    for row in table.rows:
        shown.add_row(*("–" if cell is None else str(cell) for cell in row))
    Console().print(shown)
