"""What happens on the page when something is clicked, typed or moved."""

from typing import Any

from dash import ALL, ClientsideFunction, Dash, Input, Output, Patch, State, ctx, dcc, html, no_update
from dash.exceptions import PreventUpdate

from noumena.core.errors import ConfigError
from noumena.explore import checks
from noumena.explore.figures import map_figure, marked
from noumena.explore.parts import guarded, listed, number, outputs, said, shown
from noumena.explore.samples import connect_samples
from noumena.explore.service import Service

COMPUTING = "UMAP is being computed; the map by PCA stays until it is there. This takes seconds to minutes."


def connect(app: Dash, service: Service) -> None:
    """Give the page's parts their functions."""
    _connect_map(app, service)
    _connect_choice(app, service)
    _connect_point(app, service)
    _connect_sliders(app, service)
    _connect_path(app, service)
    connect_samples(app, service)


def marks_of(service: Service, chosen: Any, start: Any, end: Any) -> dict[str, int]:
    """The marked points, judged."""
    given = {"start": start, "end": end, "chosen": chosen}
    return {word: checks.position(i, service.points, word) for word, i in given.items() if i is not None}


def _connect_map(app: Dash, service: Service) -> None:
    @app.callback(
        Output("map", "figure"),
        Output("map-note", "children"),
        Output("map-note", "className"),
        Output("umap-wait", "disabled"),
        Input("method", "value"),
        Input("colour", "value"),
        Input("umap-wait", "n_intervals"),
        State("chosen", "data"),
        State("start", "data"),
        State("end", "data"),
    )
    @guarded(lambda message: (no_update, message, "message", True))
    def draw_map(method: Any, colour: Any, _: Any, chosen: Any, start: Any, end: Any) -> Any:
        if service.points.colours:
            checks.one_of(colour, service.points.colours, "colour")
        else:
            colour = ""
        plane = service.plane(method)
        if plane is None:
            return no_update, COMPUTING, "note", False
        marks = marks_of(service, chosen, start, end)
        figure = map_figure(service.points, plane, colour, marks)
        n = len(service.points.names)
        return figure, f"{n:,} points. Click one to see it; drag to move, turn the wheel to zoom.", "note", True

    @app.callback(
        Output("map", "figure", allow_duplicate=True),
        Output("map-note", "children", allow_duplicate=True),
        Output("map-note", "className", allow_duplicate=True),
        Input("chosen", "data"),
        Input("start", "data"),
        Input("end", "data"),
        State("method", "value"),
        prevent_initial_call=True,
    )
    @guarded(lambda message: (no_update, message, "message"))
    def mark(chosen: Any, start: Any, end: Any, method: Any) -> Any:
        # The rings alone: sending or drawing twenty thousand points again would be felt.
        ready = service.ready_maps()
        plane = ready.get(checks.one_of(method, ("pca", "umap"), "map"), ready["pca"])
        patch = Patch()
        for part, value in marked(plane, marks_of(service, chosen, start, end)).items():
            patch["layout"][part] = value
        return patch, no_update, no_update


def _connect_choice(app: Dash, service: Service) -> None:
    @app.callback(
        Output("chosen", "data"),
        Output("find-note", "children"),
        Output("find-note", "className"),
        Input("map", "clickData"),
        Input("find", "n_submit"),
        Input("go", "n_clicks"),
        State("find", "value"),
        prevent_initial_call=True,
    )
    @guarded(lambda message: (no_update, message, "message"))
    def choose(clicked: Any, _: Any, __: Any, words: Any) -> Any:
        if ctx.triggered_id == "map":
            return checks.position(_custom(clicked), service.points), "", "note"
        index, note = service.find(words)
        return index, note, "note"

    @app.callback(
        Output("suggestions", "children"),
        Output("find-note", "children", allow_duplicate=True),
        Output("find-note", "className", allow_duplicate=True),
        Input("find", "value"),
        prevent_initial_call=True,
    )
    @guarded(lambda message: ([], message, "message"))
    def suggest(words: Any) -> Any:
        return [html.Option(value=name) for name in service.suggestions(words)], no_update, no_update

    for word in ("start", "end"):

        @app.callback(
            Output(word, "data"),
            Output("find-note", "children", allow_duplicate=True),
            Output("find-note", "className", allow_duplicate=True),
            Input(f"use-{word}", "n_clicks"),
            State("chosen", "data"),
            prevent_initial_call=True,
        )
        @guarded(lambda message: (no_update, message, "message"))
        def use(_: Any, chosen: Any) -> Any:
            return checks.position(chosen, service.points), "", "note"


def _custom(clicked: Any) -> Any:
    """The position in what plotly says of a click."""
    try:
        return clicked["points"][0]["customdata"]
    except (TypeError, KeyError, IndexError) as error:
        raise ConfigError("the click was on no point.") from error


def _connect_point(app: Dash, service: Service) -> None:
    @app.callback(*outputs("original"), Output("chosen-name", "children"), Input("chosen", "data"))
    @guarded(lambda message: [*said(message), no_update])
    def original(chosen: Any) -> Any:
        return [
            *shown(service.original(chosen), whose="Original"),
            service.name(checks.position(chosen, service.points)),
        ]

    @app.callback(*outputs("rebuilt"), Input("chosen", "data"))
    @guarded(said)
    def rebuilt(chosen: Any) -> Any:
        if "reconstruction" in service.explorer.without:
            return said(service.explorer.without["reconstruction"], kind="reason")
        return shown(service.reconstruction(chosen), whose="Reconstruction")

    @app.callback(Output("details", "children"), Input("chosen", "data"))
    @guarded(lambda message: html.P(message, className="message"))
    def details(chosen: Any) -> Any:
        return listed(service.details(chosen))


def _connect_sliders(app: Dash, service: Service) -> None:
    sliders = service.explorer.sliders
    reason = service.explorer.without.get("moved", "" if sliders else "this model has no directions to move along.")

    @app.callback(
        Output("sliders", "children"), Output("reset", "hidden"), Input("chosen", "data"), Input("reset", "n_clicks")
    )
    @guarded(lambda message: (html.P(message, className="message"), True))
    def set_sliders(chosen: Any, _: Any) -> Any:
        if reason:
            return html.P(reason, className="reason"), True
        values = service.positions(chosen)
        limits = service.bounds(chosen)
        return [
            _slider(i, slider.name, low, high, value)
            for i, (slider, (low, high), value) in enumerate(zip(sliders, limits, values, strict=True))
        ], False

    # The browser counts the moves, so that of several on their way the server knows the last.
    app.clientside_callback(
        ClientsideFunction("explore", "moves"),
        Output("moves", "data"),
        Input({"slider": ALL}, "value"),
        State("chosen", "data"),
        prevent_initial_call=True,
    )

    @app.callback(*outputs("moved"), Input("moves", "data"), State("page", "data"))
    @guarded(said)
    def move(moves: Any, page: Any) -> Any:
        if reason:
            return said("")
        if moves is None:
            raise PreventUpdate
        if not isinstance(moves, dict) or set(moves) != {"values", "count", "chosen"}:
            raise ConfigError("sliders: expected values, count and chosen.")
        count = checks.whole_number(moves["count"], 0, 2**53, "count")
        token = checks.text(page, "page")
        drawing = service.moved(moves["chosen"], moves["values"], page=token, count=count)
        if drawing is None:
            raise PreventUpdate
        return shown(drawing)


def _slider(position: int, name: str, low: float, high: float, value: float) -> html.Div:
    marks = {low: number(low), high: number(high)}
    return html.Div(
        [
            html.Span(name, className="slider-name"),
            dcc.Slider(
                id={"slider": position},
                min=low,
                max=high,
                value=value,
                step=(high - low) / 200,
                marks=marks,
                updatemode="drag",
                allow_direct_input=False,
                included=False,
                tooltip={"placement": "top", "always_visible": False, "transform": "fourDigits"},
            ),
        ],
        className="slider",
    )


def _connect_path(app: Dash, service: Service) -> None:
    reason = service.explorer.without.get("path", "")

    @app.callback(
        Output("path-ends", "children"),
        Output("path-ends", "className"),
        Output("draw-path", "disabled"),
        Input("start", "data"),
        Input("end", "data"),
    )
    @guarded(lambda message: (message, "message", True))
    def ends(start: Any, end: Any) -> Any:
        if reason:
            return reason, "reason", True
        found = marks_of(service, None, start, end)
        words = [
            f"{word}: {service.name(found[word])}" if word in found else f"{word}: none yet"
            for word in ("start", "end")
        ]
        hint = "" if len(found) == 2 else ". Choose a point of the map and press “Use as start” or “Use as end”."
        return ", ".join(words) + hint, "note", len(found) < 2

    @app.callback(
        Output("path", "data"),
        Output("step", "max"),
        Output("step", "value"),
        Output("step", "disabled"),
        Output("play", "disabled"),
        *outputs("path"),
        Input("draw-path", "n_clicks"),
        State("start", "data"),
        State("end", "data"),
        State("steps", "value"),
        prevent_initial_call=True,
    )
    @guarded(lambda message: [None, 2, 1, True, True, *said(message)])
    def draw_path(_: Any, start: Any, end: Any, steps: Any) -> Any:
        drawings = service.path(start, end, steps)
        return [[start, end, steps], len(drawings), 1, False, False, *shown(drawings[0])]

    @app.callback(
        *[Output(o.component_id, o.component_property, allow_duplicate=True) for o in outputs("path")],
        Input("step", "value"),
        State("path", "data"),
        prevent_initial_call=True,
    )
    @guarded(said)
    def step(value: Any, path: Any) -> Any:
        if path is None:
            raise PreventUpdate
        return shown(drawing_of_path(service, path, value))

    app.clientside_callback(
        ClientsideFunction("explore", "play"),
        Output("play-clock", "disabled"),
        Output("play", "children"),
        Input("play", "n_clicks"),
        Input("path", "data"),
        State("play-clock", "disabled"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("explore", "advance"),
        Output("step", "value", allow_duplicate=True),
        Input("play-clock", "n_intervals"),
        State("step", "value"),
        State("step", "max"),
        prevent_initial_call=True,
    )


def drawing_of_path(service: Service, path: Any, step: Any) -> Any:
    """The drawing at a step, from 1, of a path ``[start, end, steps]`` of the page."""
    if not isinstance(path, list) or len(path) != 3:
        raise ConfigError("path: expected start, end and steps.")
    drawings = service.path(*path)
    return drawings[checks.whole_number(step, 1, len(drawings), "step") - 1]
