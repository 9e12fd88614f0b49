"""Several views of one state in one latent space: any modality inferred from any other."""

from noumena.core.family import Family, Headline

FAMILY = Family(
    name="multimodal",
    summary="pose, force and shape of soft robots, or any set of vectors: any modality from any other",
    models={"mvae": "noumena.multimodal.model:MVAE"},
    data={
        "arrays": "noumena.multimodal.data:open_arrays",
        "prosoro": "noumena.multimodal.prosoro:open_prosoro",
    },
    stream="noumena.multimodal.data:stream_rows",
    evaluate="noumena.multimodal.evaluate:evaluate",
    exports={"onnx": "noumena.multimodal.export:to_onnx"},
    importers={"prosoro": "noumena.multimodal.importing:import_prosoro"},
    explore="noumena.multimodal.exploring:explore",
    demo=("multimodal/softrobot-symmetric", "fit.max_epochs=150", "evaluate.baselines=[poly]"),
    headline=Headline(
        metric="node_rmse/pose->shape",
        baseline="baseline_poly/node_rmse/pose->shape",
        says="error of the deformed shape inferred from the pose alone, r.m.s. over the points of the surface",
        against="polynomial regression from the pose",
        unit="mm",
        picture="surface",
        shows="True surfaces of a soft cylinder, those inferred from the pose of its top alone, and the distance "
        "between the two, for the held-out state of median error and for the worst. Colour: how far a point has moved.",
    ),
    purpose="For several views of one state, each of which may be missing: learns one latent space for all of them, "
    "and infers any view from any other, with an uncertainty. Here: pose, force and shape of a soft robot, from finite "
    "elements.",
    tries={
        "noumena infer {run} sample:softrobot --inputs pose --targets shape -o shapes.npz": "Infer shapes from poses.",
        "noumena explore {run}": "Explore its latent space in the browser; this needs pip install 'noumena[explore]'.",
        "noumena fit multimodal/softrobot data.path=YOUR_FOLDER": "Train on poses, forces and shapes of your own.",
        "noumena fit multimodal/table data.path=YOUR.npz": "Or on any sets of vectors that belong together.",
    },
)
