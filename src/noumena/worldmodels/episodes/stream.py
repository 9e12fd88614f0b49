"""Frames of a recording of any size, a bounded number at a time, as a trained model takes them."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from noumena.core.errors import ConfigError, DataError
from noumena.worldmodels.episodes.data import Reading, open_source
from noumena.worldmodels.episodes.pictures import Pictures
from noumena.worldmodels.episodes.reading import checked_blocks
from noumena.worldmodels.episodes.source import Source

# Networks take a multiple of what their input takes; frames of one batch take at most this much as float32.
_BATCH_BYTES = 16 << 20


def stream_sequences(path: str, schema: Mapping[str, Any], *, batch_rows: int = 65536) -> Iterator[Tensor]:
    """All frames of a file or folder, in its order, episode after episode; none is skipped.

    Args:
        path: see :func:`noumena.worldmodels.episodes.data.open_episodes`; actions are not needed.
        schema: of the data the model was trained on, which says how files are read and how large frames are.
        batch_rows: frames at a time at most; large frames come fewer at a time.

    Yields:
        Frames, shape (n, channels, height, width), uint8 or float32.

    Raises:
        ConfigError: ``batch_rows`` is below 1.
        DataError: the file is missing, damaged, or of other frames (at once); a frame is not finite (when it is
            reached).
    """
    if batch_rows < 1:
        raise ConfigError(f"batch_rows={batch_rows}: expected at least one frame in a batch.")
    reading = replace(Reading.of_schema(schema), state=None)
    source = open_source(path, reading)
    pictures = reading.pictures(source)
    if (expected := tuple(schema["frame"])) != pictures.frame:
        raise DataError(
            f"{path}: frames are of (channels, height, width) {pictures.frame}; the model was trained on {expected}. "
            "Bring them to the same size and colours."
        )
    channels, height, width = pictures.frame
    rows = max(1, min(batch_rows, _BATCH_BYTES // (4 * channels * height * width)))
    return _batches(source, pictures, rows)


def _batches(source: Source, pictures: Pictures, rows: int) -> Iterator[Tensor]:
    for _, block in checked_blocks(source):
        for start in range(0, len(block), rows):
            yield pictures(block[start : start + rows])
