"""The modality-free core: models, posteriors, losses, preprocessing, batches and errors.

Import the modules directly (``from noumena.core.posterior import DiagonalGaussian``); this package
file stays empty so that the light ones (errors, family) do not pull in torch.
"""
