"""Between physical numbers and networks: scaling and, for wide modalities, principal components."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from noumena.core.errors import DataError
from noumena.multimodal.modality import Modality
from noumena.multimodal.symmetry import Action, PointGroup

Scale = Literal["column", "modality"]

# Two principal values nearer than this belong to one representation of the symmetry group and stay together.
_DEGENERATE = 1e-3
# A column whose variance is below this share of its mean square is constant up to the rounding of group averages.
_ROUNDING = 1e-24


class FrontEnd(nn.Module):
    """Maps the columns of one modality to features of unit variance on average, and back.

    Columns are centred and divided by their own standard deviation (``column``) or all by the same number, the root
    mean variance (``modality``: an error counts the same wherever it occurs, 0.1 mm at the clamp as much as at the
    top). With ``components`` the features are the scores of the leading principal components, divided by one number.
    Constant columns come back exactly.

    Buffers: ``mean``, ``scale`` float and ``constant`` bool, shape (columns,); ``basis`` float, shape (components,
    columns) with orthonormal or zero rows; ``spread`` the divisor of the scores; ``input_weight`` float, shape
    (features,), see :meth:`encoder_input`.
    """

    mean: Tensor
    scale: Tensor
    constant: Tensor
    basis: Tensor | None
    spread: Tensor
    input_weight: Tensor

    def __init__(self, columns: int, components: int | None, scale: Scale) -> None:
        super().__init__()
        self.rule: Scale = scale
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))
        self.register_buffer("constant", torch.zeros(columns, dtype=torch.bool))
        self.register_buffer("basis", None if components is None else torch.zeros(components, columns))
        self.register_buffer("spread", torch.ones(()))
        self.features = columns if components is None else components
        self.register_buffer("input_weight", torch.ones(self.features))

    @torch.no_grad()
    def fit(self, x: Tensor, action: Action | None = None, order: int = 1) -> None:
        """Take the statistics of rows ``x`` (rows, columns), in float64.

        With an ``action`` they are those of the rows and all their images under the group, which makes means,
        scales and principal subspaces invariant.

        Raises:
            DataError: there is no row.
        """
        if len(x) == 0:
            raise DataError("a modality is missing in every training row; leave it out, or give rows that have it.")
        rows = x.double()
        shift = rows[0] if action is None else torch.zeros_like(rows[0])
        mean = (rows - shift).mean(0)
        moment = _moment(rows - shift)
        if action is not None:
            mean, moment = action.average_of_mean(mean), action.average_of_moment(moment, order)
        covariance = moment - torch.outer(mean, mean)
        variance = covariance.diagonal().clamp(min=0.0)
        unchanged = (rows == rows[0]).all(0)
        if action is not None:
            unchanged &= variance <= _ROUNDING * moment.diagonal()
        constant = unchanged | (variance.sqrt().to(self.scale.dtype) == 0)
        variance = torch.where(constant, torch.zeros_like(variance), variance)
        if self.rule == "column":
            scale = variance.sqrt()
        else:
            scale = (variance.sum() / max(1, int((~constant).sum()))).sqrt().expand_as(variance)
        scale = torch.where(constant | (scale == 0), torch.ones_like(scale), scale)
        self.mean.copy_(torch.where(constant, rows[0], mean + shift))
        self.scale.copy_(scale)
        self.constant.copy_(constant)
        if self.basis is not None:
            kept = (~constant).to(covariance)
            self._fit_components(covariance / torch.outer(scale, scale) * torch.outer(kept, kept))

    def _fit_components(self, covariance: Tensor) -> None:
        assert self.basis is not None
        values, vectors = torch.linalg.eigh(covariance)
        values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(1)
        wanted = self.features
        kept = min(wanted, int((values > 1e-12 * values[0]).sum()))
        if 0 < kept < len(values) and values[kept - 1] - values[kept] < _DEGENERATE * values[kept - 1]:
            while kept > 1 and values[kept - 2] - values[kept - 1] < _DEGENERATE * values[kept - 2]:
                kept -= 1
            kept = max(1, kept - 1)
        basis = torch.zeros(wanted, len(covariance), dtype=covariance.dtype)
        basis[:kept] = vectors[:, :kept].T
        # The sign of an eigenvector is the solver's whim; its largest entry is made positive.
        largest = basis.gather(1, basis.abs().argmax(1, keepdim=True))
        basis *= torch.where(largest < 0, -1.0, 1.0)
        spread = (values[:kept].sum() / max(1, kept)).sqrt()
        spread = torch.where(spread == 0, torch.ones_like(spread), spread)
        self.basis.copy_(basis)
        self.spread.copy_(spread)
        # Minor components carry much of what tells states apart: their inputs are lifted to the root of their spread.
        relative = (values[:kept].sqrt() / spread).clamp(min=1e-4)
        self.input_weight.fill_(1.0)
        self.input_weight[:kept] = relative.rsqrt().to(self.input_weight)

    def forward(self, x: Tensor) -> Tensor:
        """Features (rows, features) of physical columns (rows, columns)."""
        standard = (x - self.mean) / self.scale
        return standard if self.basis is None else standard @ self.basis.T / self.spread

    def inverse(self, features: Tensor) -> Tensor:
        """Physical columns (rows, columns) of features; constant columns exactly, whatever the features are."""
        standard = features if self.basis is None else (features * self.spread) @ self.basis
        return torch.where(self.constant, self.mean, standard * self.scale + self.mean)

    def encoder_input(self, features: Tensor) -> Tensor:
        """Features as the encoder takes them: scores with the square root of their spread taken out."""
        return features * self.input_weight

    def action_on_features(self, action: Action) -> Tensor | None:
        """Matrices R with ``features @ R[i]`` the features of the image under element i.

        Shape (elements, features, features); ``None`` for a wide modality without components, whose images are
        permutations.
        """
        if self.basis is not None:
            basis = self.basis.double()
            return torch.stack([action(i, basis) @ basis.T for i in range(len(action.elements))])
        if action.kind == "displacement":
            return None
        scale = self.scale.double()
        eye = torch.eye(self.features, dtype=torch.float64, device=scale.device)
        return torch.stack([action(i, eye * scale) / scale for i in range(len(action.elements))])


def _moment(rows: Tensor, block: int = 8192) -> Tensor:
    """Mean of the outer products of rows with themselves, shape (columns, columns)."""
    total = rows.new_zeros(rows.shape[1], rows.shape[1])
    for part in rows.split(block):
        total += part.T @ part
    return total / len(rows)


def resolve_components(sizes: Mapping[str, int], components: int | Mapping[str, int] | None) -> dict[str, int | None]:
    """Principal components of each modality; ``None`` where the columns are the features."""
    if components is None:
        return dict.fromkeys(sizes)
    if isinstance(components, Mapping):
        return {name: components.get(name) for name in sizes}
    return {name: components if size > components else None for name, size in sizes.items()}


def resolve_scales(modalities: Sequence[Modality], scale: Scale | Mapping[str, Scale] | None) -> dict[str, Scale]:
    """The scaling rule of each modality: as given, else one number for displacements and one per column for others."""
    if isinstance(scale, str):
        return {modality.name: scale for modality in modalities}
    usual: dict[str, Scale] = {m.name: "modality" if m.kind == "displacement" else "column" for m in modalities}
    return {**usual, **{name: rule for name, rule in (scale or {}).items() if name in usual}}


class Images(nn.Module):
    """Random images of a batch's features under a symmetry group: every row gets an element of its own.

    Buffers are not saved: they follow from the group, the statistics and the surface.
    """

    def __init__(
        self, group: PointGroup, modalities: Sequence[Modality], fronts: Sequence[FrontEnd], nodes: Tensor | None
    ) -> None:
        super().__init__()
        self.elements = len(group.elements)
        self._matrices: list[str | None] = []
        self._sources: list[str | None] = []
        for number, (modality, front) in enumerate(zip(modalities, fronts, strict=True)):
            matrices = sources = None
            if modality.kind != "vector":
                action = Action(group, modality.kind, nodes)
                found = front.action_on_features(action)
                if found is None:
                    sources = f"sources_{number}"
                    self.register_buffer(sources, action.sources, persistent=False)
                else:
                    matrices = f"matrices_{number}"
                    self.register_buffer(matrices, found.to(front.mean), persistent=False)
            self._matrices.append(matrices)
            self._sources.append(sources)
        self.register_buffer("rotations", group.elements.float(), persistent=False)

    def forward(self, features: Sequence[Tensor], uniform: Tensor) -> list[Tensor]:
        """The images.

        Args:
            features: of each modality, shape (batch, features).
            uniform: numbers in [0, 1), shape (batch,), that choose the elements.
        """
        chosen = (uniform * self.elements).long().clamp(max=self.elements - 1)
        found: list[Tensor] = []
        for x, matrices, sources in zip(features, self._matrices, self._sources, strict=True):
            if matrices is not None:
                found.append(torch.bmm(x[:, None], self.get_buffer(matrices)[chosen])[:, 0])
            elif sources is not None:
                order = self.get_buffer(sources)[chosen]  # (batch, nodes)
                vectors = x.view(len(x), -1, 3).gather(1, order[:, :, None].expand(-1, -1, 3))
                rotations = self.get_buffer("rotations")[chosen].to(x)
                found.append(torch.einsum("bij,bnj->bni", rotations, vectors).flatten(1))
            else:
                found.append(x)
        return found
