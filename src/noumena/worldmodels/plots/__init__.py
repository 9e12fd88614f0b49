"""The pictures of the family: what is read from latents, the latents themselves, and error against noise."""

from noumena.worldmodels.plots.latent import latent_map, latent_spectrum
from noumena.worldmodels.plots.noise import noise_curves
from noumena.worldmodels.plots.readings import step_errors, strips, traces

__all__ = ["latent_map", "latent_spectrum", "noise_curves", "step_errors", "strips", "traces"]
