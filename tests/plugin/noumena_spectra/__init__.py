"""One-dimensional spectra: intensities on one common axis."""

from noumena.core.family import Family

FAMILY = Family(
    name="spectra",
    summary="one-dimensional spectra: a convolutional VAE, reconstructions and scores",
    models={"vae": "noumena_spectra.model:SpectraVAE"},
    data={
        "file": "noumena_spectra.data:open_file",
        "synthetic": "noumena_spectra.data:open_synthetic",
    },
    stream="noumena_spectra.data:stream_file",
    evaluate="noumena_spectra.evaluate:evaluate",
    demo=("spectra/peaks", "fit.max_epochs=10"),
)
