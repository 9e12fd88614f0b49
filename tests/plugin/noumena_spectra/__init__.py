"""One-dimensional spectra: intensities on one common axis."""

from noumena.core.family import Family, Headline

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
    explore="noumena_spectra.exploring:explore",
    demo=("spectra/peaks", "fit.max_epochs=10"),
    headline=Headline(
        metric="reconstruction_rmse",
        baseline="pca_rmse",
        says="error of rebuilt held-out spectra, r.m.s.",
        against="principal component analysis with as many dimensions",
        picture="reconstructions",
        shows="Held-out spectra and what is rebuilt of them.",
    ),
)
