"""The explorer of a run as the page uses it: one request at a time, what was drawn lately kept, values checked."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing, Explorer
from noumena.explore import checks
from noumena.explore.maps import Embedding, PlaneMap, pca

_KEPT = 48
_PAGES = 64
MAPS = {"pca": "PCA", "umap": "UMAP"}
T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What the page's head says.

    Attributes:
        title: of the run.
        model: registered name.
    """

    title: str
    model: str


class Service:
    """Answers the page's questions about one model.

    Models are not safe to use from several threads (their random generators, their buffers), so that one question
    waits for the other; answers to recent ones are kept.

    Args:
        explorer: of the family.
        about: for the page's head.

    Raises:
        DataError, ConfigError: the explorer has nothing to show, or contradicts itself.
    """

    def __init__(self, explorer: Explorer, about: About) -> None:
        checks.check_explorer(explorer)
        self.explorer = explorer
        self.points = explorer.points
        self.about = about
        self._model = threading.RLock()
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._latest: OrderedDict[str, int] = OrderedDict()
        self._order = threading.Lock()
        self._pca = pca(self.points.vectors)
        self.umap = Embedding(self.points.vectors)

    # Points

    def plane(self, method: Any) -> PlaneMap | None:
        """The map ``pca`` or ``umap``; ``None`` while it is computed.

        Raises:
            ConfigError: there is no such map.
            NotSupportedError: UMAP is not installed or failed.
        """
        return self._pca if checks.one_of(method, MAPS, "map") == "pca" else self.umap.get()

    def ready_maps(self) -> dict[str, PlaneMap]:
        """The maps that have been computed."""
        ready = {"pca": self._pca}
        if self.umap.done is not None:
            ready["umap"] = self.umap.done
        return ready

    def find(self, words: Any) -> tuple[int, str]:
        """The point of a name, or of a position written ``#12``; and a line on how it was found.

        Raises:
            ConfigError: no point is called so.
        """
        wanted = checks.text(words, "name")
        if not wanted:
            raise ConfigError("type a name, a part of one, or a position such as #0.")
        if wanted[0] == "#" and wanted[1:].isdecimal():
            return checks.position(int(wanted[1:]), self.points), ""
        exact = [i for i, name in enumerate(self.points.names) if name == wanted]
        if exact:
            return exact[0], ""
        parts = self._containing(wanted)
        if not parts:
            raise ConfigError(f"no point has a name with '{wanted}'. Positions are written #0 to #{self.last}.")
        others = f"{len(parts):,} names have '{wanted}'; this is the first." if len(parts) > 1 else ""
        return parts[0], others

    def suggestions(self, words: Any, limit: int = 20) -> list[str]:
        """Names that contain what was typed."""
        wanted = checks.text(words, "name")
        return [self.points.names[i] for i in self._containing(wanted, limit)] if wanted else []

    def _containing(self, wanted: str, limit: int | None = None) -> list[int]:
        low = wanted.casefold()
        return [i for i, name in enumerate(self.points.names) if low in name.casefold()][:limit]

    @property
    def last(self) -> int:
        """Position of the last point."""
        return len(self.points.names) - 1

    def name(self, index: int) -> str:
        """Of a point."""
        return str(self.points.names[index])

    # Drawings; every value is one of the page

    def original(self, index: Any) -> Drawing:
        """See :meth:`Explorer.original`."""
        i = checks.position(index, self.points)
        return self._ask(("original", i), lambda: self.explorer.original(i))

    def reconstruction(self, index: Any) -> Drawing:
        """See :meth:`Explorer.reconstruction`."""
        i = checks.position(index, self.points)
        self._can("reconstruction")
        return self._ask(("reconstruction", i), lambda: self.explorer.reconstruction(i))

    def details(self, index: Any) -> Sequence[Table]:
        """See :meth:`Explorer.details`."""
        i = checks.position(index, self.points)
        return self._ask(("details", i), lambda: tuple(self.explorer.details(i)))

    def positions(self, index: Any) -> tuple[float, ...]:
        """See :meth:`Explorer.positions`.

        Raises:
            ConfigError: the family gave something else than one finite number per slider.
        """
        i = checks.position(index, self.points)
        self._can("moved")
        found = self._ask(("positions", i), lambda: tuple(float(value) for value in self.explorer.positions(i)))
        if len(found) != len(self.explorer.sliders) or not np.isfinite(found).all():
            raise ConfigError(f"the family gave {found} as positions of {len(self.explorer.sliders)} sliders.")
        return found

    def bounds(self, index: Any) -> list[tuple[float, float]]:
        """From where to where each slider goes for a sample: its own range, and as far as the sample is."""
        found = zip(self.explorer.sliders, self.positions(index), strict=True)
        return [(float(min(slider.low, value)), float(max(slider.high, value))) for slider, value in found]

    def moved(self, index: Any, positions: Any, *, page: str = "", count: int = 0) -> Drawing | None:
        """See :meth:`Explorer.moved`; ``None`` if ``page`` has asked again since, with a higher ``count``."""
        i = checks.position(index, self.points)
        values = checks.slider_positions(positions, self.bounds(i))
        self._note(page, count)
        with self._model:
            if self._overtaken(page, count):
                return None
            return self._ask(("moved", i, values), lambda: self.explorer.moved(i, values))

    def path(self, start: Any, end: Any, steps: Any) -> Sequence[Drawing]:
        """See :meth:`Explorer.path`."""
        first = checks.position(start, self.points, "start")
        last = checks.position(end, self.points, "end")
        n = checks.whole_number(steps, 2, checks.MAX_STEPS, "steps")
        self._can("path")
        drawn = self._ask(("path", first, last, n), lambda: tuple(self.explorer.path(first, last, n)))
        if len(drawn) != n:
            raise ConfigError(f"the family drew {len(drawn)} of {n} steps.")
        return drawn

    def samples(self, n: Any, seed: Any) -> Sequence[Drawing]:
        """See :meth:`Explorer.samples`."""
        many = checks.whole_number(n, 1, checks.MAX_SAMPLES, "number of samples")
        start = checks.whole_number(seed, 0, checks.MAX_SEED, "seed")
        self._can("samples")
        return self._ask(("samples", many, start), lambda: tuple(self.explorer.samples(many, start)))

    def content(self, drawing: Drawing) -> bytes:
        """The file of a drawing.

        Raises:
            NotSupportedError: it has none.
        """
        if drawing.file is None:
            raise NotSupportedError("this drawing has no file to download.")
        with self._model:
            return drawing.file()

    # Order

    def _can(self, what: str) -> None:
        if what in self.explorer.without:
            raise NotSupportedError(self.explorer.without[what])

    def _ask(self, key: Hashable, make: Callable[[], T]) -> T:
        with self._model:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast(T, self._kept[key])
            answer = make()
            self._kept[key] = answer
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return answer

    def _note(self, page: str, count: int) -> None:
        with self._order:
            self._latest[page] = max(count, self._latest.pop(page, 0))
            while len(self._latest) > _PAGES:
                self._latest.popitem(last=False)

    def _overtaken(self, page: str, count: int) -> bool:
        with self._order:
            return count < self._latest.get(page, 0)

    def close(self) -> None:
        """End what runs in the background."""
        self.umap.close()
