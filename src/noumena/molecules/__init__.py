"""Conformations of a molecule in a latent space that tells left from right."""

from noumena.core.family import Family, Headline

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
    explore="noumena.molecules.exploring:explore",
    demo=("molecules/aib9", "model.width=256", "fit.max_epochs=60"),
    headline=Headline(
        metric="rmsd",
        baseline="baseline_pca/rmsd",
        says="RMSD of held-out conformations from what is rebuilt of their latents",
        against="principal component analysis with as many components",
        unit="Å",
        picture="overlays",
        shows="Held-out conformations (grey) under what is rebuilt of them (coloured), from good to worst by RMSD. "
        "Structures are turned onto each other, never reflected: the mirror image of a helix is another structure.",
    ),
    purpose="For conformations of a molecule, as molecular dynamics gives them: a few latent numbers for each, from "
    "which it is rebuilt, interpolated and sampled, left and right kept apart. Here: Aib9, a peptide with helices of "
    "both hands.",
    tries={
        "noumena encode {run} sample:aib9 -o latents.csv": "Latent numbers of each frame of a trajectory.",
        "noumena sample {run} -n 100 -o samples.pdb": "New conformations, for any viewer of molecules.",
        "noumena interpolate {run} sample:aib9:0 sample:aib9:500 -o path.pdb": "A path from one frame to another.",
        "noumena explore {run}": "Explore its latent space in the browser; this needs pip install 'noumena[explore]'.",
        "noumena fit molecules/trajectory data.path=YOUR.xtc data.topology=YOUR.pdb": "Train on your own trajectory; "
        "formats of simulations need pip install 'noumena[molecules]'.",
    },
)
