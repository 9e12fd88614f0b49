"""Density estimation and out-of-distribution detection on tables and state-action data."""

from noumena.core.family import Family

FAMILY = Family(
    name="density",
    summary="tables and state-action pairs: densities, anomaly and out-of-distribution scores",
    models={
        "vae": "noumena.density.model:VAE",
        "flow": "noumena.density.flow:Flow",
        "gmm": "noumena.density.gmm:GaussianMixture",
        "knn": "noumena.density.neighbours:Neighbours",
    },
    data={
        "table": "noumena.density.data:open_table",
        "episodes": "noumena.density.data:open_episodes",
        "synthetic": "noumena.density.data:open_synthetic",
    },
    stream="noumena.density.stream:stream_rows",
    evaluate="noumena.density.evaluate:evaluate",
    exports={"onnx": "noumena.density.onnx:to_onnx"},
    importers={"gormpo": "noumena.density.gormpo.importing:import_gormpo"},
    study="noumena.density.gormpo.study:recipe_sections",
    demo=("density/hopper", "evaluate.ood=sample:hopper", "fit.batch_size=64"),
)
