"""Density estimation and out-of-distribution detection on tables and state-action data."""

from noumena.core.family import Family

FAMILY = Family(
    name="density",
    summary="tables and state-action pairs: densities, anomaly and out-of-distribution scores",
    models={"vae": "noumena.density.model:VAE"},
    data={
        "table": "noumena.density.data:open_table",
        "episodes": "noumena.density.data:open_episodes",
        "synthetic": "noumena.density.data:open_synthetic",
    },
    stream="noumena.density.stream:stream_rows",
    evaluate="noumena.density.evaluate:evaluate",
    demo=("density/hopper", "evaluate.ood=sample:hopper", "fit.batch_size=64"),
)
