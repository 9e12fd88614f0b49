"""Periodic crystal structures: encode any of them, decode it back, sample new ones, search and compare."""

from noumena.core.family import Family

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
)
