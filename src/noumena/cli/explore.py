"""``noumena explore``."""

import json
from typing import Annotated

import typer

from noumena.cli.data_verbs import Source


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(name="explore", no_args_is_help=True)(explore)


def explore(
    source: Source,
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[DATA] [KEY=VALUE]...", help="Other data than the run's; data.label=y, ..."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of the page; 0 takes any free one.")] = 8050,
    limit: Annotated[int, typer.Option(min=10, help="Points of the map at most, evenly spread.")] = 20_000,
    device: Annotated[str, typer.Option(help="Where to compute, such as cpu or cuda.")] = "cpu",
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as JSON when the page answers.")] = False,
) -> None:
    """Look at a trained model and its data in the browser: a page of this machine alone, until Ctrl-C.

    A map of the latent space, original and reconstruction of each point, sliders, paths, samples, downloads.
    """
    from noumena.explore.server import Server, make_app, require_dash

    require_dash()  # before minutes go into encoding the data
    from noumena.explore.opening import open_run

    service = open_run(source, arguments or [], limit=limit, device=device)
    try:
        server = Server(make_app(service), port)
        points = len(service.points.names)
        typer.echo(
            json.dumps({"url": server.url, "port": server.port, "points": points})
            if as_json
            else f"{service.about.title}: {points:,} points at {server.url}  (Ctrl-C ends it)"
        )
        if browser:
            import webbrowser

            webbrowser.open(server.url)
        server.serve()
    finally:
        service.close()
