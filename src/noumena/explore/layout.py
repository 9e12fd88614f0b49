"""Where everything stands on the page."""

import uuid
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from noumena.explore.checks import LONGEST_TEXT, MAX_SAMPLES, MAX_SEED, MAX_STEPS
from noumena.explore.figures import CONFIG
from noumena.explore.parts import aria, place_of_table, slot
from noumena.explore.service import MAPS, Service

_MAP_CONFIG: Any = {**CONFIG, "scrollZoom": True}
NO_COLOUR = "one colour"


def page(service: Service) -> html.Main:
    """The whole page, anew for each browser window."""
    return html.Main(
        [
            # What the page knows: which points are meant. Judged by the server each time it comes back.
            dcc.Store(id="page", data=uuid.uuid4().hex),
            dcc.Store(id="chosen", data=0),
            dcc.Store(id="start", data=None),
            dcc.Store(id="end", data=None),
            dcc.Store(id="moves", data=None),
            dcc.Store(id="path", data=None),
            dcc.Store(id="drawn-samples", data=None),
            dcc.Download(id="file"),
            dcc.Interval(id="umap-wait", interval=1000, disabled=True),
            dcc.Interval(id="play-clock", interval=450, disabled=True),
            _header(service),
            html.Div([_map(service), _chosen(service)], className="columns wide-left"),
            # Beside each other the two drawings leave too little room for tables.
            html.Div(
                [place_of_table("original"), place_of_table("rebuilt"), html.Div(id="details", className="inner")],
                className="tables",
            ),
            _moved(),
            _path(),
            _samples(),
        ]
    )


def _header(service: Service) -> html.Header:
    return html.Header(
        [
            html.H1(service.about.title),
            html.P(f"Noumena explorer – {service.about.model}. {service.points.about}", className="lead"),
            html.Nav(
                [
                    html.A("Map", href="#map-section"),
                    html.A("Point", href="#point-section"),
                    html.A("Move", href="#move-section"),
                    html.A("Path", href="#path-section"),
                    html.A("Samples", href="#samples-section"),
                ],
                **aria("Sections"),
            ),
        ]
    )


def _map(service: Service) -> html.Section:
    colours = list(service.points.colours) or [NO_COLOUR]
    return html.Section(
        id="map-section",
        children=[
            html.H2("Latent map"),
            html.Div(
                [
                    _labelled(
                        "Map",
                        dcc.RadioItems(
                            id="method",
                            options=[{"label": label, "value": name} for name, label in MAPS.items()],
                            value="pca",
                            inline=True,
                            className="choices",
                        ),
                    ),
                    _labelled(
                        "Colour",
                        dcc.Dropdown(id="colour", options=colours, value=colours[0], clearable=False, searchable=False),
                        grow=True,
                    ),
                ],
                className="bar",
            ),
            html.P(id="map-note", className="note", role="status"),
            html.Div(dcc.Graph(id="map", config=_MAP_CONFIG), className="map"),
            html.Div(
                [
                    html.Button("Download map .csv", id="download-map", className="small"),
                    html.Button("Download latents .npz", id="download-latents", className="small"),
                ],
                className="bar",
            ),
            html.P(id="file-note", className="message", role="status"),
        ],
    )


def _chosen(service: Service) -> html.Section:
    return html.Section(
        id="point-section",
        children=[
            html.H2(["Chosen point ", html.Span(id="chosen-name", className="soft")]),
            html.Div(
                [
                    dcc.Input(
                        id="find",
                        type="text",
                        list="suggestions",
                        placeholder="name, part of it, or #position",
                        autoComplete="off",
                        maxLength=LONGEST_TEXT,
                        debounce=False,
                        className="grow",
                    ),
                    html.Datalist(id="suggestions", children=[]),
                    html.Button("Go", id="go"),
                    html.Button("Use as start", id="use-start"),
                    html.Button("Use as end", id="use-end"),
                ],
                className="bar",
            ),
            html.P(id="find-note", className="note", role="status"),
            html.Div(
                [
                    html.Div(
                        [
                            html.H3("Original"),
                            slot("original", "the chosen point as it is in the data", with_table=False),
                        ]
                    ),
                    html.Div(
                        [html.H3("Reconstruction"), slot("rebuilt", "the chosen point reconstructed", with_table=False)]
                    ),
                ],
                className="columns" if service.explorer.wide else "columns pair",
            ),
        ],
    )


def _moved() -> html.Section:
    return html.Section(
        id="move-section",
        children=[
            html.H2("Move through the latent space"),
            html.Div(
                [
                    html.Div(
                        [
                            html.P(
                                "Sliders stand where the chosen point is. What is decoded follows them.",
                                className="note",
                            ),
                            html.Div(id="sliders"),
                            html.Div(html.Button("Back to the point", id="reset"), className="bar"),
                        ],
                        id="slider-panel",
                    ),
                    slot("moved", "what is decoded at the sliders' positions"),
                ],
                className="columns pair",
            ),
        ],
    )


def _path() -> html.Section:
    return html.Section(
        id="path-section",
        children=[
            html.H2("From one point to another"),
            html.P(id="path-ends", className="note"),
            html.Div(
                [
                    _labelled("Steps", dcc.Input(id="steps", type="number", value=9, min=2, max=MAX_STEPS, step=1)),
                    html.Button("Draw the path", id="draw-path"),
                    html.Button("Play", id="play", disabled=True),
                    html.Div(
                        dcc.Slider(
                            id="step",
                            min=1,
                            max=2,
                            step=1,
                            value=1,
                            marks=None,
                            updatemode="drag",
                            disabled=True,
                            allow_direct_input=False,
                            tooltip={"placement": "bottom", "always_visible": False},
                        ),
                        className="grow step",
                    ),
                ],
                className="bar",
            ),
            slot("path", "a step of the path"),
        ],
    )


def _samples() -> html.Section:
    return html.Section(
        id="samples-section",
        children=[
            html.H2("New samples"),
            html.Div(
                [
                    _labelled("How many", dcc.Input(id="n", type="number", value=6, min=1, max=MAX_SAMPLES, step=1)),
                    _labelled("Seed", dcc.Input(id="seed", type="number", value=0, min=0, max=MAX_SEED, step=1)),
                    html.Button("Draw samples", id="draw-samples"),
                    html.Button("Others", id="other-samples"),
                ],
                className="bar",
            ),
            html.P(id="samples-note", className="note", role="status"),
            html.Div(id="samples", className="multiples"),
        ],
    )


def _labelled(words: str, control: Component, *, grow: bool = False) -> html.Label:
    return html.Label([html.Span(words), control], className="grow" if grow else "")
