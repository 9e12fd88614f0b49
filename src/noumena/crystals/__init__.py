"""Periodic crystal structures: encode any of them, decode it back, sample new ones, search and compare."""

from noumena.core.family import Family, Headline

FAMILY = Family(
    name="crystals",
    summary="periodic crystal structures: encode, reconstruct, sample by composition, search, predict properties",
    models={
        "vae": "noumena.crystals.model:CrystalVAE",
        "prior": "noumena.crystals.generator:CrystalPrior",
        "property": "noumena.crystals.regression:PropertyHead",
    },
    data={"crystals": "noumena.crystals.data:open_crystals"},
    stream="noumena.crystals.data:stream_crystals",
    evaluate="noumena.crystals.evaluate:evaluate",
    writers={
        ending: f"noumena.crystals.writers:write_{name}"
        for ending, name in {
            ".cif": "cif",
            ".extxyz": "extxyz",
            ".xyz": "extxyz",
            ".vasp": "poscar",
            ".zip": "archive",
            ".parquet": "parquet",
        }.items()
    },
    features={"per-atom": "noumena.crystals.conversion:atom_columns"},
    importers={"chemeleon2": "noumena.crystals.importing:import_chemeleon2"},
    explore="noumena.crystals.exploring:explore",
    demo=("crystals/sample", "model.predict_types=false", "fit.max_epochs=40", "evaluate.samples=0"),
    demo_needs=("moyopy", "pymatgen"),
    headline=Headline(
        metric="match_field",
        baseline="lookup_match_field",
        says="held-out crystals that match their original after encoding and decoding, their elements given",
        against="the training crystal of the nearest composition, its elements exchanged",
        unit="%",
        better="higher",
        picture="reconstructions",
        shows="Cells of held-out crystals beside what the decoder makes of their latents, with the mean distance of "
        "the atoms and the errors of the cell. Matches are by the criterion that is usual in the field, pymatgen's "
        "StructureMatcher with ltol 0.3, stol 0.5 and angle 10°. The report has stricter ones too.",
    ),
    purpose="For periodic crystal structures: latents that stay the same however a crystal is described, for search, "
    "property prediction and sampling of new ones. Here: 400 crystals of the set MP-20. These are too few to learn all "
    "elements from, so the decoder is told them.",
    tries={
        "noumena neighbours {run} sample:mp20 sample:mp20:0 -k 5": "The crystals most like the first one.",
        "noumena encode {run} sample:mp20 -o vectors.csv": "A vector for each crystal.",
        "noumena explore {run}": "Explore its latent space in the browser; this needs pip install 'noumena[explore]'.",
        "noumena fit crystals/files data.path=YOUR_FOLDER": "Train on CIF files of your own.",
    },
)
