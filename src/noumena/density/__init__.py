"""Density estimation and out-of-distribution detection on tables and state-action data."""

from noumena.core.family import Family, Headline

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
    explore="noumena.density.exploring:explore",
    demo=("density/hopper", "evaluate.ood=sample:hopper", "fit.batch_size=64"),
    headline=Headline(
        metric="auroc/shift_1",
        baseline="auroc_knn/shift_1",
        says="AUROC: held-out rows told from rows moved by one standard deviation; 0.5 is guessing, 1 perfect",
        against="the distance to the ten nearest training rows",
        better="higher",
        picture="scores",
        shows="How normal the model finds held-out rows (blue) and several kinds of anomaly (orange): rows moved by "
        "so many standard deviations, rows of other policies, rows with wrong actions. The further the two stand apart "
        "the better; a shift of a tenth is too small for any method. The report has the AUROC of every kind.",
    ),
    purpose="For tables and for the states and actions of robots: learns what normal rows look like, scores how normal "
    "a new row is, and says which columns make it unusual. Here: rows of a simulated one-legged robot that hops.",
    tries={
        "noumena score {run} sample:hopper -o scores.csv": "Score every row of a file, with a verdict and a p-value.",
        "noumena explain {run} sample:hopper --top 3": "Which columns make the strangest rows strange?",
        "noumena explore {run}": "Explore its latent space in the browser; this needs pip install 'noumena[explore]'.",
        "noumena fit density/table data.path=YOUR.csv": "Train on a table of your own: CSV, Parquet, NumPy or HDF5.",
    },
)
