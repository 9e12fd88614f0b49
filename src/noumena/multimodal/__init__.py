"""Several views of one state in one latent space: any modality inferred from any other."""

from noumena.core.family import Family

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
    demo=("multimodal/softrobot-symmetric", "fit.max_epochs=150", "evaluate.baselines=[poly]"),
)
