"""Scores of any scale on one: the logarithm of the chance that a normal row scores as low."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

# Share of the reference scores that are the tail, and how many it takes at least.
_TAIL_SHARE = 0.2
_FEWEST_IN_TAIL = 5
# Points that hold the distribution above the tail.
_MOST_POINTS = 1000
# An exponential tail is linear in the score, and one detector's large numbers would drown the others; a heavier one
# is logarithmic. A bounded one (below 0) would call all far rows alike.
_SHAPE_RANGE = (0.25, 0.9)


@dataclass(frozen=True)
class Tail:
    r"""The distribution function of scores of normal rows, with a lower tail that goes on below the lowest of them.

    Above ``start``, the ``share`` quantile, it is the empirical one, linear between neighbours. Below, scores fall
    short of ``start`` by an amount that follows a generalised Pareto distribution (Pickands 1975),

    .. math:: \log p(s) = \log(\mathrm{share}) - \frac{1}{\xi} \log\Big(1 + \xi\, \frac{\mathrm{start} - s}{\sigma}\Big)

    so that far rows keep their order.

    Attributes:
        body: reference scores from ``start`` on, ascending, of many only some, float64, shape (n,).
        log_p: the logarithm of the distribution function at each of them.
        start, scale, shape: of the tail.
    """

    body: np.ndarray
    log_p: np.ndarray
    start: float
    scale: float
    shape: float

    @classmethod
    def fit(cls, scores: np.ndarray) -> Self:
        """The tail of scores of normal rows that were not trained on, shape (rows,), at least one of them finite."""
        finite = np.sort(scores[np.isfinite(scores)].astype(np.float64))
        n = len(finite)
        k = min(max(_FEWEST_IN_TAIL, round(_TAIL_SHARE * n)), (n + 1) // 2)
        start = float(finite[k - 1])
        ranks = np.arange(k, n + 1)
        scale, shape = _pareto(start - finite[:k][::-1])
        least = 1e-6 * max(float(finite[-1] - finite[0]), abs(start), 1e-6)
        # The last of equal scores tells the share of scores as low.
        body, last = np.unique(finite[k - 1 :][::-1], return_index=True)
        log_p = np.log(ranks[::-1][last] / (n + 1.0))
        kept = np.unique(np.linspace(0, len(body) - 1, _MOST_POINTS).round().astype(np.int64))
        return cls(body[kept], log_p[kept], start, max(scale, least), shape)

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """``log p`` of scores, shape (rows,): at most 0; ``-inf`` for scores that are ``-inf``."""
        inside = np.interp(scores, self.body, self.log_p)
        short = np.maximum(self.start - scores, 0.0) / self.scale
        return np.where(scores >= self.start, inside, self.log_p[0] - np.log1p(self.shape * short) / self.shape)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON."""
        return {
            name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """The reverse of :meth:`as_dict`.

        Raises:
            ValueError, KeyError, TypeError: it is something else.
        """
        body, log_p = (np.array(content[name], dtype=np.float64) for name in ("body", "log_p"))
        start, scale, shape = (float(content[name]) for name in ("start", "scale", "shape"))
        plain = np.isfinite(body).all() and np.isfinite(log_p).all() and np.isfinite([start, scale, shape]).all()
        if not plain or body.ndim != 1 or body.shape != log_p.shape or not len(body) or scale <= 0.0 or shape <= 0.0:
            raise ValueError("no distribution of scores")
        return cls(body, log_p, start, scale, shape)


def _pareto(short: np.ndarray) -> tuple[float, float]:
    """Scale and shape of a generalised Pareto distribution by probability-weighted moments (Hosking & Wallis 1987).

    Args:
        short: ascending, at least 0, shape (k,).
    """
    k = len(short)
    mean = float(short.mean())
    # E[X (1 - F(X))] with the plotting positions of the paper, (i - 0.35) / k.
    weighted = float((short * (1.0 - (np.arange(1, k + 1) - 0.35) / k)).mean())
    gap = mean - 2.0 * weighted
    shape = 2.0 - mean / gap if gap > 0.0 else _SHAPE_RANGE[1]
    shape = float(np.clip(shape, *_SHAPE_RANGE))
    # The mean fixes the scale of a shape that was moved to its range.
    return mean * (1.0 - shape), shape
