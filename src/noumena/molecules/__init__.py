"""Conformations of a molecule in a latent space that tells left from right."""

from noumena.core.family import Family

FAMILY = Family(
    name="molecules",
    summary="conformations of a molecule from trajectories: encode, reconstruct, sample, with handedness",
    models={"vae": "noumena.molecules.model:MoleculeVAE"},
    data={"trajectory": "noumena.molecules.data:open_trajectory"},
    stream="noumena.molecules.data:stream_frames",
    evaluate="noumena.molecules.evaluate:evaluate",
    exports={"onnx": "noumena.molecules.export:to_onnx", "pt2": "noumena.molecules.export:to_program"},
    writers={
        f".{ending}": f"noumena.molecules.writers:write_{ending}" for ending in ("pdb", "xtc", "sdf", "xyz", "npz")
    },
    tables=dict.fromkeys(("COLVAR", ".colvar", ".dat"), "noumena.molecules.colvar:write_colvar"),
    features={"torsions": "noumena.molecules.colvar:torsion_columns"},
    demo=("molecules/aib9", "model.width=256", "fit.max_epochs=100"),
)
