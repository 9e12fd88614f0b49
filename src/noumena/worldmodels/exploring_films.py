"""Drawings of films for the explorer's page: rows of frames as one picture, with positions and actions on them."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from noumena.core.errors import NotSupportedError
from noumena.core.evaluation import Table
from noumena.style import CYCLE, GREY, ORANGE, VERMILLION
from noumena.worldmodels.sequences import Sequences

SHOWN_FRAMES = 5
"""Frames in a row at most; the one that was chosen comes on top."""

_LISTED_STEPS = 60
# Bytes of a picture at most: a page has to fetch it at every move of a slider.
_MOST_BYTES = 130_000
# Between frames as a share of their width, and between rows, where words stand, as a share of their height.
_GAP, _GAP_OF_ROWS = 0.08, 0.45
# In CSS pixels: how wide a row of frames will be, about, how high a frame is at most, and what stands around them.
_WIDTH, _MOST_HEIGHT, _AROUND = 560.0, 200.0, 120.0


@dataclass(frozen=True)
class Line:
    """One row of frames.

    Attributes:
        label: what they are, shown beside them.
        frames: shape (columns, channels, height, width); NaN throughout where there is none.
        marks: positions to ring, in pixels, shape (columns, things, 2), or ``None``.
        arrows: what moves the first thing, in pixels, shape (columns, 2), NaN where there is none, or ``None``.
    """

    label: str
    frames: Tensor
    marks: Tensor | None = None
    arrows: Tensor | None = None


@dataclass(frozen=True)
class Light:
    """What is black and what is white in every picture.

    Attributes:
        low, high: values of pixels.
    """

    low: float
    high: float

    def pictures(self, frames: Tensor) -> Tensor:
        """Frames (n, channels, height, width) as bytes (n, height, width, 4): colours, or grey, and opacity.

        Three channels are red, green and blue; of other numbers the brightest is shown.
        """
        wide = frames.float()
        there = ~wide.isnan().flatten(1).all(1)
        light = ((wide.nan_to_num() - self.low) / max(self.high - self.low, 1e-12)).clamp(0.0, 1.0)
        image = light if frames.shape[1] == 3 else light.amax(1, keepdim=True).expand(-1, 3, -1, -1)
        opaque = there.float()[:, None, None, None].expand(-1, 1, *image.shape[-2:])
        return (torch.cat([image, opaque], 1) * 255.0).round().byte().movedim(1, -1)


def shown_steps(steps: int, chosen: int) -> list[int]:
    """Steps to show of so many, evenly spread, among them the chosen one."""
    spread = np.linspace(0, steps - 1, min(steps, SHOWN_FRAMES)).round().astype(int)
    return sorted({*spread.tolist(), chosen})


def strip(lines: Sequence[Line], titles: Sequence[str], light: Light, *, chosen: int | None = None) -> dict[str, Any]:
    """A plotly figure of rows of frames, one below the other.

    Args:
        lines: of the same number of frames each.
        titles: above each column.
        light: of the picture.
        chosen: the column to frame.
    """
    shape = lines[0].frames.shape
    source, zoom, cell = _picture(lines, light)
    # In pixels of the frames; pixel 0 is at 0, its edge at -0.5.
    width, height, step_x, step_y = shape[-1], shape[-2], cell[0] * zoom, cell[1] * zoom
    image = {"type": "image", "source": source, "hoverinfo": "skip", "zsmooth": False}
    start = 0.5 * zoom - 0.5
    traces: list[dict[str, Any]] = [{**image, "x0": start, "dx": zoom, "y0": start, "dy": zoom}]
    words: list[dict[str, Any]] = []
    for row, line in enumerate(lines):
        top = row * step_y - 0.5
        # Above the first row stand the titles of the columns already.
        place = {"x": -0.5, "xanchor": "left", "y": top, "yanchor": "bottom", "yshift": 2 if row else 18}
        words.append({**place, "text": line.label, "showarrow": False})
        traces += _rings(line, row, step_x, step_y)
        words += _arrows(line, row, step_x, step_y)
    for column, title in enumerate(titles):
        place = {"x": column * step_x + width / 2 - 0.5, "y": -0.5, "yanchor": "bottom", "yshift": 2}
        words.append({**place, "text": title, "showarrow": False})
    there = [(row, k) for row, line in enumerate(lines) for k, frame in enumerate(line.frames) if not _is_blank(frame)]
    edges = [_edge(k * step_x, row * step_y, width, height, GREY, 1) for row, k in there]
    if chosen is not None:
        edges.append(_edge(chosen * step_x, 0.0, width, (len(lines) - 1) * step_y + height, VERMILLION, 2))
    right, bottom = (shape[0] - 1) * step_x + width, (len(lines) - 1) * step_y + height
    hidden = {"visible": False, "constrain": "domain", "showgrid": False, "zeroline": False}
    layout = {
        "xaxis": {**hidden, "range": [-0.5, right]},
        "yaxis": {**hidden, "range": [bottom, -(0.75 if shape[0] > 2 else 0.2) * height], "scaleanchor": "x"},
        "height": round(_AROUND + len(lines) * min(_MOST_HEIGHT, _WIDTH / shape[0] * height / width)),
        "annotations": words,
        "shapes": edges,
        "showlegend": sum("marker" in trace for trace in traces) > 0,
        "legend": {"orientation": "h", "yanchor": "top", "y": -0.02, "x": 0},
    }
    return {"data": traces, "layout": layout}


def _picture(lines: Sequence[Line], light: Light) -> tuple[str, int, tuple[int, int]]:
    """All frames in one PNG as a data address, by what it is reduced, and the distance of its frames in its pixels."""
    frames = torch.stack([line.frames.float() for line in lines])  # (rows, columns, channels, height, width)
    zoom = 1
    while True:
        small = frames.flatten(0, 1)
        if zoom > 1:
            small = functional.avg_pool2d(small, zoom, ceil_mode=True, count_include_pad=False)
        pictures = light.pictures(small).unflatten(0, frames.shape[:2])
        gap, below = max(1, round(_GAP * pictures.shape[3])), max(1, round(_GAP_OF_ROWS * pictures.shape[2]))
        # (rows, columns, height, width, 4) side by side with transparent gaps
        padded = functional.pad(pictures, (0, 0, 0, gap, 0, below))
        canvas = padded.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)[:-below, :-gap]
        content = _png(canvas.contiguous().numpy())
        if len(content) <= _MOST_BYTES or min(pictures.shape[2:4]) <= 8:
            address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
            return address, zoom, (padded.shape[3], padded.shape[2])
        zoom += 1


def _png(pixels: np.ndarray) -> bytes:
    try:
        from PIL import Image
    except ImportError as error:
        raise NotSupportedError(
            "pictures of frames need Pillow, which is not installed: pip install 'noumena[worldmodels]'"
        ) from error
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA").save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _rings(line: Line, row: int, step_x: int, step_y: int) -> list[dict[str, Any]]:
    """One trace per thing, in the first row alone in the legend."""
    if line.marks is None:
        return []
    columns = torch.arange(len(line.frames))[:, None]
    x, y = line.marks[..., 0] + step_x * columns, line.marks[..., 1] + step_y * row
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "true position" if x.shape[1] == 1 else f"true position {k + 1}",
            "legendgroup": str(k),
            "showlegend": row == 0,
            "x": _places(x[:, k]),
            "y": _places(y[:, k]),
            "marker": {
                "symbol": "circle-open",
                "size": 13,
                "color": CYCLE[(k + 1) % len(CYCLE)],
                "line": {"width": 1.5, "color": CYCLE[(k + 1) % len(CYCLE)]},
            },
            "hoverinfo": "skip",
        }
        for k in range(x.shape[1])
    ]


def _places(values: Tensor) -> list[float | None]:
    """Coordinates; there is none where it is not a number."""
    return [round(value, 2) if np.isfinite(value) else None for value in values.tolist()]


def _arrows(line: Line, row: int, step_x: int, step_y: int) -> list[dict[str, Any]]:
    """Arrows from the first thing to where the action sends it."""
    if line.arrows is None or line.marks is None:
        return []
    found: list[dict[str, Any]] = []
    for column, (mark, arrow) in enumerate(zip(line.marks[:, 0].tolist(), line.arrows.tolist(), strict=True)):
        if not np.isfinite(arrow).all():
            continue
        x, y = mark[0] + column * step_x, mark[1] + row * step_y
        tip = {"x": round(x + arrow[0], 2), "y": round(y + arrow[1], 2)}
        tail = {"ax": round(x, 2), "ay": round(y, 2), "axref": "x", "ayref": "y"}
        look = {"showarrow": True, "arrowhead": 2, "arrowsize": 0.8, "arrowwidth": 1.5, "arrowcolor": ORANGE}
        found.append({**tip, **tail, **look, "text": ""})
    return found


def _is_blank(frame: Tensor) -> bool:
    return bool(frame.isnan().all())


def _edge(left: float, top: float, width: float, height: float, colour: str, thickness: int) -> dict[str, Any]:
    """A rectangle about pixels: white frames are told from a white page by it."""
    edges = {"x0": left - 0.5, "x1": left + width - 0.5, "y0": top - 0.5, "y1": top + height - 0.5}
    return {"type": "rect", **edges, "line": {"color": colour, "width": thickness}, "fillcolor": "rgba(0,0,0,0)"}


def step_table(one: Sequences, schema: Mapping[str, Any], chosen: int | None) -> Table:
    """Actions and state of each step of a single sequence."""
    steps = one.steps
    things = [] if one.state is None else state_names(schema, one.state.shape[-1])
    state = None if one.state is None else one.state[0].flatten(1)
    lines: list[list[Any]] = []
    for t in range(min(steps, _LISTED_STEPS)):
        action = one.actions[0, t].tolist() if t < steps - 1 else [None] * one.actions.shape[-1]
        lines.append([f"{t} ◂" if t == chosen else str(t), *action, *([] if state is None else state[t].tolist())])
    caption = "The action of a step leads to the next one."
    caption += f" The first {_LISTED_STEPS} of {steps} steps." if steps > _LISTED_STEPS else ""
    return Table("Steps", ["step", *schema["actions"], *things], lines, caption)


def state_names(schema: Mapping[str, Any], dims: int) -> list[str]:
    """A name for each number of a state, things first, with its unit."""
    unit = f" ({schema['state_unit']})" if schema.get("state_unit") else ""
    axes = "xyz" if schema.get("state_unit") == "px" and dims <= 3 else [str(k) for k in range(dims)]
    if dims == 1:
        return [f"{name}{unit}" for name in schema["state"]]
    return [f"{axis} of {name}{unit}" for name in schema["state"] for axis in axes[:dims]]


def film_file(
    frames: Tensor, actions: Tensor | None, state: Tensor | None = None, imagined: Tensor | None = None
) -> bytes:
    """One episode as the content of an .npz file, with a leading axis of episodes.

    Args:
        frames: shape (time, channels, height, width).
        actions: shape (time - 1, action).
        state: shape (time, things, dims).
        imagined: frames of an imagined future, shape (steps, channels, height, width).
    """
    there = {"frames": frames, "actions": actions, "state": state, "imagined": imagined}
    buffer = io.BytesIO()
    arrays = {name: values[None].cpu().numpy() for name, values in there.items() if values is not None}
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()
