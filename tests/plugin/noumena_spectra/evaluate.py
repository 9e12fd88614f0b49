"""What the family measures and draws."""

import torch
from torch import Tensor

from noumena.core.data import Splits
from noumena.core.evaluation import Evaluation, Picture, Table
from noumena.core.posterior import active_units
from noumena.style import BLUE, GREY, new_figure, style
from noumena_spectra.data import Spectra
from noumena_spectra.model import SpectraVAE


def evaluate(model: SpectraVAE, splits: Splits, *, baselines: bool = True, shown: int = 3) -> Evaluation:
    """Reconstruction of the held-out spectra, beside that of a principal component analysis.

    Args:
        model: a trained model.
        splits: the test part is measured; the baseline is fitted to the training part.
        baselines: measure the baseline too. ``noumena evaluate`` turns it off for a model without its run.
        shown: spectra in the picture.
    """
    held_out = _rows(splits.test or splits.val or splits.train)
    rebuilt = model.reconstruct(held_out).cpu()
    metrics = {
        "reconstruction_rmse": _rmse(rebuilt, held_out),
        "score_mean": float(model.score_samples(held_out).mean()),
        "active_units": active_units(model.encode(held_out).mean),
    }
    rows = [["VAE", model.latent_dim, metrics["reconstruction_rmse"]]]
    if baselines:
        metrics["pca_rmse"] = _rmse(_pca(_rows(splits.train), held_out, model.latent_dim), held_out)
        rows.append(["PCA", model.latent_dim, metrics["pca_rmse"]])
    table = Table(
        "Reconstruction", ("method", "dimensions", "RMSE"), rows, "Held-out spectra, in the unit of the intensity."
    )
    return Evaluation(metrics, (table,), (_picture(model, held_out[:shown], rebuilt[:shown]),))


def _rows(part: object) -> Tensor:
    assert isinstance(part, Spectra)
    return part.rows.cpu()


def _rmse(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).double().square().mean().sqrt())


def _pca(train: Tensor, held_out: Tensor, components: int) -> Tensor:
    """Held-out spectra projected on the first principal components of the training spectra."""
    mean = train.mean(0)
    _, _, directions = torch.linalg.svd(train - mean, full_matrices=False)
    kept = directions[:components]
    return (held_out - mean) @ kept.T @ kept + mean


def _picture(model: SpectraVAE, originals: Tensor, rebuilt: Tensor) -> Picture:
    with style():
        figure = new_figure(7.0, 1.2 + 1.3 * len(originals))
        panels = figure.subplots(len(originals), 1, sharex=True, squeeze=False)[:, 0]
        for panel, original, found in zip(panels, originals, rebuilt, strict=True):
            panel.plot(model.schema["axis"], original, color=GREY, label="data")
            panel.plot(model.schema["axis"], found, color=BLUE, label="reconstructed")
            panel.set_ylabel("intensity")
        panels[0].legend()
        panels[-1].set_xlabel("axis")
    return Picture("reconstructions", "Reconstructions", figure, "The first held-out spectra and what is left of them.")
