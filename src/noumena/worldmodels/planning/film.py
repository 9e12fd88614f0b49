"""A film of an episode: what the camera sees, the goal, the way so far, and what the model imagines next."""

import io
from typing import Any, cast

import torch

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.style import BLUE, GREEN, VERMILLION
from noumena.worldmodels.environments.worlds import World
from noumena.worldmodels.planning.control import Episodes
from noumena.worldmodels.planning.pictures import painted, rgb

_WIDTH = 384  # pixels of the film, about
_FRAME_MS, _LAST_MS = 160, 1200


def film(world: World, episodes: Episodes, episode: int = 0) -> bytes:
    """An animated GIF of one episode, one picture per action.

    Blue is the way so far, green what the plan then carried out foresees, the red circle the goal, as wide as counts
    as reached.

    Args:
        world: where the episodes happened.
        episodes: what happened.
        episode: which one.

    Raises:
        ConfigError: there is no such episode.
        NotSupportedError: Pillow is not installed.
    """
    if not 0 <= episode < len(episodes.goals):
        raise ConfigError(f"episode: expected from 0 to {len(episodes.goals) - 1}, got {episode}.")
    image: Any = _pillow()
    last = int(episodes.steps[episode])
    scenes = None if episodes.scenes is None else episodes.scenes[[episode]]
    frames = world.render(episodes.positions[[episode], : last + 1], scenes)[0]
    zoom = max(1, round(_WIDTH / frames.shape[-1]))
    pictures: list[Any] = []
    for step, pixels in enumerate(painted(frames, world.brightest)):
        large = image.fromarray(pixels).resize(
            (pixels.shape[1] * zoom, pixels.shape[0] * zoom), image.Resampling.NEAREST
        )
        _draw(large, world, episodes, episode, step, zoom)
        # An octree keeps the few coloured pixels; the default cuts them out of a noisy picture's palette.
        pictures.append(large.quantize(64, method=image.Quantize.FASTOCTREE))
    file = io.BytesIO()
    durations = [_FRAME_MS] * (len(pictures) - 1) + [_LAST_MS]
    pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    return file.getvalue()


def _draw(picture: Any, world: World, episodes: Episodes, episode: int, step: int, zoom: int) -> None:
    from PIL import ImageDraw

    draw: Any = cast(Any, ImageDraw).Draw(picture)

    def at(points: torch.Tensor) -> list[tuple[float, float]]:
        # The middle of pixel 0 is half a pixel from the edge.
        return [(float(x + 0.5) * zoom, float(y + 0.5) * zoom) for x, y in points.tolist()]

    width = max(2, zoom // 3)
    (goal,) = at(episodes.goals[[episode]])
    draw.circle(goal, world.success_radius * zoom, outline=rgb(VERMILLION), width=width)
    way = at(episodes.positions[episode, : step + 1])
    if len(way) > 1:
        draw.line(way, fill=rgb(BLUE), width=width, joint="curve")
    if episodes.imagined is None or step >= episodes.imagined.shape[1]:
        return
    plan = episodes.imagined[episode, step]
    plan = plan[plan.isfinite().all(-1)]
    for x, y in at(plan):
        draw.ellipse((x - width, y - width, x + width, y + width), fill=rgb(GREEN))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise NotSupportedError(
            "films need Pillow, which is not installed: pip install 'noumena[worldmodels]'"
        ) from error
    return Image
