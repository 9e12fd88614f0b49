import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from noumena.core.errors import ArtifactError, ConfigError, DataError, NoumenaError
from noumena.generation import generate
from noumena.molecules.generate import forcefield
from noumena.molecules.generate.conformers import conformer_job, conformer_topology, kept_conformers
from noumena.molecules.generate.dynamics import dynamics_job, prepare
from noumena.molecules.generate.settings import Conformers, Dynamics, steps_of
from noumena.molecules.geometry import aligned_square_deviation, signed_volumes
from noumena.molecules.topology import Topology
from tests.molecules.jobs import counting_job

Chem = pytest.importorskip("rdkit.Chem")
AllChem = pytest.importorskip("rdkit.Chem.AllChem")
mm = pytest.importorskip("openmm")

LACTIC = "C[C@H](O)C(=O)O"
# Every force is zero but that of two springs: parameters of a molecule that no standard force field has.
WATERLIKE = """<ForceField>
 <AtomTypes>
  <Type name="o" class="o" element="O" mass="16"/><Type name="h" class="h" element="H" mass="1.008"/>
 </AtomTypes>
 <Residues><Residue name="MOL">
  <Atom name="O1" type="o"/><Atom name="H1" type="h"/><Atom name="H2" type="h"/>
  <Bond atomName1="O1" atomName2="H1"/><Bond atomName1="O1" atomName2="H2"/>
 </Residue></Residues>
 <HarmonicBondForce><Bond class1="o" class2="h" length="0.1" k="400000"/></HarmonicBondForce>
 <HarmonicAngleForce><Angle class1="h" class2="o" class3="h" angle="1.9" k="400"/></HarmonicAngleForce>
</ForceField>"""


# Conformers


def test_conformers_depend_on_seed_and_number_alone():
    chosen = Conformers(LACTIC, n=25)
    first, again = conformer_job(1, chosen=chosen), conformer_job(1, chosen=chosen)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert len(first["xyz"]) == 20
    rest = conformer_job(2, chosen=chosen)
    assert len(rest["xyz"]) == 5
    assert not np.array_equal(rest["xyz"], first["xyz"][:5])
    other = conformer_job(1, chosen=dataclasses.replace(chosen, seed=1))
    assert not np.array_equal(other["xyz"], first["xyz"])


def test_conformers_keep_the_handedness_of_the_smiles():
    volumes = []
    for smiles in (LACTIC, LACTIC.replace("@", "@@")):
        xyz = torch.from_numpy(conformer_job(1, chosen=Conformers(smiles, n=6))["xyz"])
        volumes.append(signed_volumes(xyz, torch.tensor([[1, 0, 2, 3]])).sign())
    assert (volumes[0] == volumes[0][0]).all()
    assert (volumes[1] == -volumes[0][0]).all()


@pytest.mark.parametrize("field", ["mmff94", "mmff94s", "uff"])
def test_energies_are_those_of_the_force_field_and_minimising_lowers_them(field):
    chosen = Conformers("CCO", n=4, force_field=field)
    rough, smooth = (conformer_job(1, chosen=dataclasses.replace(chosen, minimise=steps)) for steps in (0, 500))
    assert (smooth["energy"] < rough["energy"]).all()
    assert smooth["unconverged"] == 0
    molecule = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    conformer = Chem.Conformer(molecule.GetNumAtoms())
    conformer.SetPositions(rough["xyz"][0].astype(float))
    molecule.AddConformer(conformer)
    if field == "uff":
        energy = AllChem.UFFGetMoleculeForceField(molecule).CalcEnergy()
    else:
        variant = {"mmff94": "MMFF94", "mmff94s": "MMFF94s"}[field]
        properties = AllChem.MMFFGetMoleculeProperties(molecule, mmffVariant=variant)
        energy = AllChem.MMFFGetMoleculeForceField(molecule, properties).CalcEnergy()
    assert rough["energy"][0] == pytest.approx(energy, abs=1e-3)


def test_the_topology_has_hydrogens_and_orders_in_the_order_of_the_coordinates():
    chosen = Conformers("OC(=O)c1ccccc1", n=1)
    topology = conformer_topology(chosen)
    assert topology.formula == "C7H6O2"
    assert {1.0, 1.5, 2.0} == set(topology.orders)
    xyz = torch.from_numpy(conformer_job(1, chosen=chosen)["xyz"])
    lengths = (xyz[:, topology.bond_index[:, 0]] - xyz[:, topology.bond_index[:, 1]]).norm(dim=-1)
    assert 0.9 < lengths.min() < lengths.max() < 1.7


def test_windows_of_energy_and_distance_keep_the_lowest_of_each_kind():
    topology = Topology.make([6] * 4, [(0, 1), (1, 2), (2, 3)])
    rng = np.random.default_rng(0)
    shapes = rng.normal(size=(3, 4, 3)) * 2
    kinds = np.array([0, 1, 0, 2, 1, 0])
    xyz = (shapes[kinds] + 0.001 * rng.normal(size=(6, 4, 3))).astype(np.float32)
    xyz[4] = -xyz[4]  # the mirror image is another conformer
    energy = np.array([3.0, 5.0, 1.0, 50.0, 6.0, 2.0])
    kept = partial(kept_conformers, xyz, energy, topology)
    np.testing.assert_array_equal(kept(Conformers("CCCC")), np.arange(6))
    np.testing.assert_array_equal(kept(Conformers("CCCC", energy_window=4.5)), [0, 1, 2, 5])
    np.testing.assert_array_equal(kept(Conformers("CCCC", least_rmsd=0.1)), [1, 2, 3, 4])
    np.testing.assert_array_equal(kept(Conformers("CCCC", least_rmsd=0.1, energy_window=10.0)), [1, 2, 4])


@pytest.mark.parametrize(
    ("smiles", "field", "words"),
    [
        ("CC(O)F", "mmff94", r"handedness open.*C\[C@"),
        ("CC=CC", "mmff94", r"handedness open.*C/C=C"),
        ("C1CC", "mmff94", "no SMILES"),
        ("CC.O", "mmff94", "2 molecules"),
        ("[Fe]CC", "mmff94", "no parameters.*force_field=uff"),
    ],
)
def test_molecules_that_cannot_be_made_are_refused_before_any_work(smiles, field, words):
    with pytest.raises(ConfigError, match=words):
        conformer_topology(Conformers(smiles, force_field=field))


# Dynamics


@pytest.fixture(scope="module")
def peptide(tmp_path_factory):
    """Alanyl-alanine as a PDB file, with and without hydrogens."""
    folder = tmp_path_factory.mktemp("peptide")
    molecule = Chem.AddHs(Chem.MolFromSequence("AA"), addResidueInfo=True)
    AllChem.EmbedMolecule(molecule, randomSeed=1)
    Chem.MolToPDBFile(Chem.RemoveHs(molecule), str(folder / "heavy.pdb"))
    return folder / "heavy.pdb"


def small(**changes):
    return Dynamics(**{"steps": 60, "stride": 10, "equilibrate": 20, **changes})


def run(start, *numbers):
    """Jobs one after the other, each given what the one before gave."""
    found, before = [], None
    for number in numbers:
        before = dynamics_job(number, before, start=start)
        found.append(before)
    return found


def test_missing_hydrogens_are_added_the_same_way_every_time(peptide):
    first, again = prepare(str(peptide), small()), prepare(str(peptide), small())
    assert first.topology.formula == "C6H12N2O3"
    np.testing.assert_array_equal(first.positions, again.positions)
    assert first.system == again.system


def test_frames_keep_bonds_and_handedness_and_depend_on_seed_and_replica(peptide):
    start = prepare(str(peptide), small(replicas=2))
    (first,), (again,), (second,) = run(start, 1), run(start, 1), run(start, 2)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert first["xyz"].shape == (6, len(start.topology), 3)
    assert set(second["traj"]) == {1}
    assert not np.array_equal(first["xyz"], second["xyz"])
    (other,) = run(dataclasses.replace(start, chosen=dataclasses.replace(start.chosen, seed=5)), 1)
    assert not np.array_equal(first["xyz"], other["xyz"])
    names = [f"{name}{residue}" for name, residue in zip(start.topology.names, start.topology.residue_ids, strict=True)]
    centre = torch.tensor([[names.index(f"{name}1") for name in ("CA", "N", "C", "CB")]])
    frames = torch.from_numpy(np.concatenate([first["xyz"], second["xyz"]]))
    # L-alanine, by the right-hand rule of its substituents.
    assert (signed_volumes(frames, centre) > 0).all()
    bonds = start.topology.bond_index
    lengths = (frames[:, bonds[:, 0]] - frames[:, bonds[:, 1]]).norm(dim=-1)
    assert 0.9 < lengths.min() < lengths.max() < 1.75
    np.testing.assert_allclose(frames.mean(1), 0.0, atol=1e-5)


@pytest.mark.parametrize("platform", ["reference", "cpu"])
def test_pieces_continue_each_other_and_other_work_between_them_makes_no_difference(peptide, platform, monkeypatch):
    monkeypatch.setattr("noumena.molecules.generate.settings.STEPS_PER_JOB", 30)
    start = prepare(str(peptide), small(platform=platform, replicas=2))
    assert start.chosen.jobs_per_replica == 2
    whole = run(start, 1, 2)
    first = dynamics_job(1, None, start=start)
    dynamics_job(3, None, start=start)
    second = dynamics_job(2, {name: array.copy() for name, array in first.items()}, start=start)
    for name in first:
        np.testing.assert_array_equal(whole[0][name], first[name])
        np.testing.assert_array_equal(whole[1][name], second[name])
    # No jump between the pieces: as far as between two frames of one.
    frames = torch.from_numpy(np.concatenate([first["xyz"], second["xyz"]]))
    moved = aligned_square_deviation(frames[1:], frames[:-1]).sqrt()
    assert moved[2] < 2 * moved.max() / 1.5
    assert moved.min() > 0


def test_implicit_water_has_the_energy_of_the_published_formula(peptide):
    chosen = small(solvent="obc2")
    start = prepare(str(peptide), chosen)
    field = forcefield.open_force_field(chosen)
    file = mm.app.Modeller(mm.app.PDBFile(str(peptide)).topology, mm.app.PDBFile(str(peptide)).positions)
    file.addHydrogens()
    slow = field.createSystem(file.topology, nonbondedMethod=mm.app.NoCutoff, constraints=mm.app.HBonds)
    energies = []
    for system in (slow, mm.XmlSerializer.deserialize(start.system)):
        context = mm.Context(system, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
        context.setPositions(start.positions)
        energies.append(context.getState(getEnergy=True).getPotentialEnergy()._value)
    assert energies[1] == pytest.approx(energies[0], abs=1e-3)
    vacuum = mm.XmlSerializer.deserialize(prepare(str(peptide), small()).system)
    context = mm.Context(vacuum, mm.VerletIntegrator(0.001), mm.Platform.getPlatformByName("Reference"))
    context.setPositions(start.positions)
    assert context.getState(getEnergy=True).getPotentialEnergy()._value > energies[0] + 50


def test_potential_energy_follows_equipartition(tmp_path):
    (tmp_path / "w.xml").write_text(WATERLIKE)
    chosen = Dynamics(steps=40_000, stride=10, dt=0.5, force_field=(str(tmp_path / "w.xml"),), friction=50.0)
    start = prepare("O", dataclasses.replace(chosen, seed=3))
    # The bonds to hydrogen are constrained: one harmonic angle is left, with half of kT.
    energy = np.concatenate([piece["energy"] for piece in run(start, 1, 2)])
    assert energy.mean() == pytest.approx(0.5 * 0.0019872 * 300.0, rel=0.15)


def test_a_molecule_without_parameters_is_refused_with_what_is_possible():
    with pytest.raises(DataError, match=r"CCO: amber14 has no parameters for MOL1.*FILE\.xml.*data conformers"):
        prepare("CCO", small())


def test_unusable_structures_are_refused_in_words(tmp_path, peptide):
    (tmp_path / "bad.pdb").write_text("ATOM      1  N   ALA A   1      xx.xxx   0.000   0.000\n")
    two = peptide.read_text().replace("END\n", "")
    two += "".join(
        line[:21] + "B" + line[22:30] + f"{float(line[30:38]) + 50:8.3f}" + line[38:] + "\n"
        for line in two.splitlines()
        if line.startswith(("ATOM", "HETATM"))
    )
    (tmp_path / "two.pdb").write_text(two + "END\n")
    for source, words in (
        (tmp_path / "gone.pdb", "no such file"),
        (tmp_path / "bad.pdb", "cannot be read"),
        (tmp_path / "two.pdb", "connected by bonds.*Leave water"),
        (tmp_path, "no such file"),
    ):
        with pytest.raises(DataError, match=words):
            prepare(str(source), small())


@pytest.mark.parametrize("tag", ["Script", "InitializationScript", 'Include file="x.xml"'])
def test_a_force_field_file_that_would_run_code_or_read_others_is_refused(tmp_path, tag):
    mark = tmp_path / "ran"
    text = f"open({str(mark)!r}, 'w')"
    (tmp_path / "bad.xml").write_text(f"<ForceField><{tag}>{text}</{tag.split()[0]}></ForceField>")
    with pytest.raises(ConfigError, match="would run code or read other files"):
        prepare("O", small(force_field=(str(tmp_path / "bad.xml"),)))
    assert not mark.exists()


def test_a_run_that_flies_apart_is_told_in_words(peptide):
    start = prepare(str(peptide), small(dt=50.0, equilibrate=500))
    with pytest.raises(ConfigError, match=r"flew apart.*dt=50 fs"):
        dynamics_job(1, None, start=start)


# Settings


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dynamics(solvent="water"), "solvent.*obc2"),
        (lambda: Dynamics(platform="cuda"), "platform"),
        (lambda: Dynamics(steps=10, stride=20), "stride=20"),
        (lambda: Dynamics(temperature=-1.0), "temperature"),
        (lambda: Dynamics(dt=float("nan")), "dt"),
        (lambda: Dynamics(replicas=0), "replicas"),
        (lambda: Dynamics(force_field=()), "force_field"),
        (lambda: prepare("O", Dynamics(force_field=("amber15",))), "amber15.*Known: amber14"),
        (lambda: Conformers("C", n=0), "n=0"),
        (lambda: Conformers("C", force_field="mmff"), "mmff94"),
        (lambda: Conformers("C", energy_window=-1.0), "energy_window"),
        (lambda: steps_of(0.0, 2.0), "ns"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_a_time_in_nanoseconds_is_so_many_steps():
    assert steps_of(0.5, 2.0) == 250_000


# Chains of jobs


def chains(folder, **options):
    return generate(
        folder,
        partial(counting_job, **options),
        10,
        chain=4,
        settings={},
        describe=lambda totals: totals,
        workers=2,
    )


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_each_job_of_a_chain_starts_from_the_one_before_and_its_state_is_no_data(tmp_path):
    assert chains(tmp_path / "out").computed == 10
    assert set(files(tmp_path / "out")) == {"value.npy", "metadata.json"}
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "value.npy"), [1, 3, 6, 10, 5, 11, 18, 26, 9, 19])


def test_a_broken_chain_continues_where_it_was_to_the_same_bytes(tmp_path):
    with pytest.raises(NoumenaError, match="not liked"):
        chains(tmp_path / "out", fail_at=3)
    done = chains(tmp_path / "out")
    assert done.kept >= 2
    assert done.computed + done.kept == 10
    chains(tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_a_lost_piece_of_a_chain_is_made_again(tmp_path):
    with pytest.raises(NoumenaError, match="not liked"):
        chains(tmp_path / "out", fail_at=10)
    (tmp_path / "out" / ".parts" / "000002.npz").unlink(missing_ok=True)
    chains(tmp_path / "out")
    chains(tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    with pytest.raises(ArtifactError, match="jobs is 10 there"):
        generate(tmp_path / "out", counting_job, 9, chain=4, settings={}, describe=lambda totals: totals)
