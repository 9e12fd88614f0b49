import functools
import json
import os
import shutil
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import noumena
from noumena.core.errors import ArtifactError, ConfigError, NotSupportedError
from noumena.core.losses import kl_loss
from noumena.crystals.batch import CrystalBatch
from noumena.crystals.importing import import_chemeleon2
from noumena.crystals.model import CrystalVAE
from tests.cli.test_cli import run

FILES = Path(__file__).parent / "parity"
WEIGHTS = FILES / "vae_small.safetensors"
CLOSE = {"rtol": 0.0, "atol": 1e-5}


@pytest.fixture(scope="module")
def reference():
    with np.load(FILES / "vae_small_reference.npz", allow_pickle=False) as archive:
        return {key: torch.from_numpy(np.asarray(archive[key])) for key in archive.files}


@pytest.fixture
def weights(tmp_path):
    """A copy of the weights and their configuration in a folder of its own."""
    shutil.copy(FILES / "vae_small.json", tmp_path / "vae_small.json")
    return Path(shutil.copy(WEIGHTS, tmp_path / "vae_small.safetensors"))


def crystals(reference):
    names = ("atom_types", "frac_coords", "lattices", "num_atoms")
    return CrystalBatch(*(reference[name] for name in names))


def rewritten(path, change):
    """The weights after ``change``."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    return path


def settings(path, **changes):
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **changes}))


def same_weights(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


# Parity


def test_posterior_and_decoder_are_those_of_the_original(reference, tmp_path):
    import_chemeleon2(WEIGHTS).save(tmp_path / "model")
    model, batch = noumena.load(tmp_path / "model"), crystals(reference)
    with torch.no_grad():
        posterior = model.encode(batch)
        decoded = model._decoded(
            posterior.mean, model.packing(batch.num_atoms), torch.zeros(len(batch)), batch.atom_types
        )
    torch.testing.assert_close(posterior.mean, reference["posterior_mean"], **CLOSE)
    torch.testing.assert_close(posterior.log_var, reference["posterior_logvar"], **CLOSE)
    torch.testing.assert_close(kl_loss(posterior), reference["kl"].mean(), **CLOSE)
    torch.testing.assert_close(decoded.types, reference["decoded_atom_types"], **CLOSE)
    torch.testing.assert_close(decoded.coords, reference["decoded_frac_coords"], **CLOSE)
    torch.testing.assert_close(decoded.cell, reference["decoded_lattices"], **CLOSE)
    scaled = model.tokens.lengths_angles(decoded, batch.num_atoms)[0] / batch.num_atoms[:, None] ** (1 / 3)
    torch.testing.assert_close(scaled, reference["decoded_lengths"], **CLOSE)
    angles = torch.deg2rad(model.tokens.lengths_angles(decoded, batch.num_atoms)[1])
    torch.testing.assert_close(angles, reference["decoded_angles"], **CLOSE)


def test_elements_of_a_reconstruction_are_the_likeliest_of_the_original(reference):
    found = import_chemeleon2(WEIGHTS).reconstruct(crystals(reference))
    likeliest = reference["decoded_atom_types"].argmax(1)
    assert torch.equal(found.atom_types[likeliest > 0], likeliest[likeliest > 0])
    torch.testing.assert_close(found.frac_coords, reference["decoded_frac_coords"].remainder(1.0), rtol=0, atol=2e-5)


# What is beside the weights


def test_settings_come_from_the_json_file_and_arguments_override_them(weights):
    settings(weights.with_suffix(".json"), loss_weights={"angles": 3.0, "kl": 1e-4, "fa": 0.0})
    model = import_chemeleon2(weights)
    assert (model.heads, model.activation, model.angle_weight, model.beta) == (4, "gelu", 3.0, 1e-4)
    assert (model.type_weight, model.coord_weight, model.corruption) == (1.0, 10.0, 0.0)
    other = import_chemeleon2(weights, heads=8, activation="gelu-tanh")
    assert (other.heads, other.activation) == (8, "gelu-tanh")


def test_without_a_json_file_the_number_of_heads_is_asked_for(weights):
    weights.with_suffix(".json").unlink()
    with pytest.raises(ConfigError, match=r"heads.*divisor of the width 64, got None"):
        import_chemeleon2(weights)
    with pytest.raises(ConfigError, match=r"got 7"):
        import_chemeleon2(weights, heads=7)
    assert import_chemeleon2(weights, heads=4).activation == "gelu-tanh"


def test_the_published_width_has_eight_heads(tmp_path):
    sizes = {"width": 512, "encoder_layers": 1, "decoder_layers": 1, "feedforward": 8, "latent_dim": 4}
    made = CrystalVAE(representation="original", species=100, max_atoms=20, vector_dim=0, heads=2, **sizes)
    save_file(theirs(made), tmp_path / "wide.safetensors")
    found = import_chemeleon2(tmp_path / "wide.safetensors")
    assert found.heads == 8
    assert same_weights(found, made)


def theirs(model):
    """A state of this library by the names of the original, written down independently."""
    names = {
        "tokens.types.": "encoder.atom_type_embedder.",
        "tokens.lattices.": "encoder.lattices_embedder.",
        "tokens.coords.": "encoder.frac_coords_embedder.",
        "tokens.type_head.": "decoder.atom_types_head.",
        "tokens.coord_head.": "decoder.frac_coords_head.",
        "tokens.cell_head.": "decoder.lattice_head.",
        "to_posterior.": "quant_conv.",
        "from_latent.": "post_quant_conv.",
        "encoder.": "encoder.transformer.",
        "decoder.": "decoder.transformer.",
    }
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("gaussian.")}
    found = {}
    for name, value in state.items():
        ours = next(ours for ours in names if name.startswith(ours))
        found[names[ours] + name.removeprefix(ours).replace("in_proj.", "in_proj_")] = value
    return found


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"d_model": 128}, ArtifactError, "d_model=128, the tensors have 64"),
        ({"num_layers": 3}, ArtifactError, "num_layers=3, the tensors have 2"),
        ({"norm_first": False}, NotSupportedError, "norm_first=false"),
        ({"activation": "relu"}, ConfigError, "unknown 'relu'"),
        ({"nhead": "four"}, ConfigError, "got four"),
        ({"loss_weights": {"kl": "small"}}, ConfigError, "loss_weights"),
    ],
)
def test_a_json_file_that_contradicts_the_weights_is_refused(weights, changes, error, words):
    settings(weights.with_suffix(".json"), **changes)
    with pytest.raises(error, match=words):
        import_chemeleon2(weights)


def test_a_json_file_that_is_none_is_refused(weights):
    weights.with_suffix(".json").write_text("{nhead: 4")
    with pytest.raises(ConfigError, match="is no JSON"):
        import_chemeleon2(weights)
    weights.with_suffix(".json").write_text("[4]")
    with pytest.raises(ConfigError, match="found list"):
        import_chemeleon2(weights)


# Checkpoints of Lightning


def lightning(path, state, **further):
    torch.save({"state_dict": state, "epoch": 3, "optimizer_states": [], **further}, path)
    return path


@pytest.mark.parametrize("prefix", ["", "vae.", "_orig_mod.", "model.vae."])
def test_a_checkpoint_gives_the_same_model_whatever_contains_the_vae(tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in load_file(WEIGHTS).items()}
    if prefix == "vae.":
        state |= {"denoiser.blocks.0.weight": torch.ones(3), "vae.fa_projection.weight": torch.ones(3)}
    found = import_chemeleon2(lightning(tmp_path / "a.ckpt", state), heads=4, activation="gelu")
    assert same_weights(found, import_chemeleon2(WEIGHTS))


def test_a_vae_that_is_stored_twice_is_taken_once_and_two_are_refused(tmp_path):
    state = load_file(WEIGHTS)
    twice = state | {f"vae.{name}": tensor.clone() for name, tensor in state.items()}
    found = import_chemeleon2(lightning(tmp_path / "a.ckpt", twice), heads=4, activation="gelu")
    assert same_weights(found, import_chemeleon2(WEIGHTS))
    twice["vae.quant_conv.weight"] += 1.0
    with pytest.raises(ArtifactError, match=r"two different VAEs, 'encoder' and 'vae\.encoder'"):
        import_chemeleon2(lightning(tmp_path / "b.ckpt", twice), heads=4)


class Encoder(nn.Module):
    """Stands for a module of the original's code in the hyperparameters of a checkpoint."""

    def __init__(self):
        super().__init__()
        gelu = functools.partial(nn.functional.gelu, approximate="tanh")
        layer = nn.TransformerEncoderLayer(8, 2, 8, activation=gelu, batch_first=True, norm_first=True)
        self.transformer = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.sizes = {"heads": {2}, "names": [1, 2]}


def test_modules_in_the_hyperparameters_are_neither_imported_nor_made(tmp_path, monkeypatch):
    made = []
    module = types.ModuleType("src.vae_module.encoders")
    kind = type("Encoder", (Encoder,), {"__module__": module.__name__})
    module.Encoder = kind
    for name in ("src", "src.vae_module", "src.vae_module.encoders"):
        monkeypatch.setitem(__import__("sys").modules, name, module if name.endswith("s") else types.ModuleType(name))
    path = lightning(tmp_path / "a.ckpt", load_file(WEIGHTS), hyper_parameters={"encoder": kind(), "latent_dim": 8})
    kind.__setstate__ = lambda *_: made.append("state")
    kind.__new__ = lambda *_: made.append("object")
    found = import_chemeleon2(path, heads=4, activation="gelu")
    assert same_weights(found, import_chemeleon2(WEIGHTS))
    assert made == []


class Command:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_checkpoint_that_names_other_code_is_refused_and_told_how_to_extract(tmp_path):
    marker = tmp_path / "ran"
    path = lightning(tmp_path / "a.ckpt", load_file(WEIGHTS), hyper_parameters=Command(marker))
    with pytest.raises(ArtifactError, match=r"system, code that.*not loaded.*save_file"):
        import_chemeleon2(path, heads=4)
    assert not marker.exists()


# Faults


def dropped(name):
    return lambda tensors: tensors.pop(name)


def cut(name):
    return lambda tensors: tensors.update({name: tensors[name][:-1].clone()})


def spoiled(tensors):
    tensors["quant_conv.weight"][0, 0] = torch.nan


def as_cspnet(tensors):
    for name in [name for name in tensors if name.startswith("encoder.")]:
        tensors.pop(name)
    tensors["encoder.csp_layer_0.edge_mlp.0.weight"] = torch.ones(2, 2)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dropped("decoder.frac_coords_head.weight"), ArtifactError, "'decoder.frac_coords_head.weight' is missing"),
        (dropped("encoder.transformer.layers.1.norm2.bias"), ArtifactError, r"layers\.1\.norm2\.bias' is missing"),
        (dropped("post_quant_conv.weight"), ArtifactError, "no post_quant_conv.weight"),
        (dropped("encoder.atom_type_embedder.weight"), ArtifactError, "atom_type_embedder.weight'; it is missing"),
        (cut("decoder.lattice_head.weight"), ArtifactError, r"shape \(5, 64\), the others say \(6, 64\)"),
        (spoiled, ArtifactError, "'quant_conv.weight' is not finite"),
        (as_cspnet, NotSupportedError, r"no transformer \(encoder\.csp_layer_0.*cspnet"),
        (
            lambda tensors: tensors.update({"decoder.extra.bias": torch.ones(1)}),
            ArtifactError,
            "extra.bias' is unknown",
        ),
    ],
)
def test_a_state_that_is_not_one_of_chemeleon2_is_refused_by_name(weights, change, error, words):
    with pytest.raises(error, match=words):
        import_chemeleon2(rewritten(weights, change))


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such file"):
        import_chemeleon2(tmp_path / "none.safetensors")
    with pytest.raises(ArtifactError, match="is a folder"):
        import_chemeleon2(tmp_path)
    for name in ("a.safetensors", "a.ckpt"):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 9)
        with pytest.raises(ArtifactError, match="or damaged"):
            import_chemeleon2(tmp_path / name)
    torch.save({"state_dict": {"epoch": 3}}, tmp_path / "b.ckpt")
    with pytest.raises(ArtifactError, match="'epoch' of its state is no tensor"):
        import_chemeleon2(tmp_path / "b.ckpt")
    torch.save([1], tmp_path / "c.ckpt")
    with pytest.raises(ArtifactError, match="expected a state dictionary"):
        import_chemeleon2(tmp_path / "c.ckpt")


# Use


def test_a_model_for_structure_prediction_keeps_the_elements_it_is_given(reference):
    model, batch = import_chemeleon2(WEIGHTS, csp=True), crystals(reference)
    assert torch.equal(model.reconstruct(batch).atom_types, batch.atom_types)
    with pytest.raises(ConfigError, match="does not predict elements"):
        model.decode(model.encode(batch).mean, batch.num_atoms)


def test_a_model_for_structure_prediction_needs_no_head_of_elements(weights, reference):
    full = import_chemeleon2(WEIGHTS, csp=True).reconstruct(crystals(reference))

    def without(tensors):
        del tensors["decoder.atom_types_head.weight"], tensors["decoder.atom_types_head.bias"]

    found = import_chemeleon2(rewritten(weights, without), csp=True).reconstruct(crystals(reference))
    assert torch.equal(found.frac_coords, full.frac_coords)
    with pytest.raises(ArtifactError, match=r"atom_types_head\.bias' is missing"):
        import_chemeleon2(weights)


def test_controls_are_there_once_data_have_been_seen(reference):
    model, batch = import_chemeleon2(WEIGHTS), crystals(reference)
    with pytest.raises(ConfigError, match="no training data"):
        model.sample(2, prior="standard")
    with pytest.raises(NotSupportedError, match="no training data"):
        model.sample(2, n_atoms=3, prior="gaussian")
    assert model.sample(2, n_atoms=3, prior="standard").num_atoms.tolist() == [3, 3]
    model.after_fit(model.as_dataset(batch), None)
    sizes = model.sample(30, torch.Generator().manual_seed(0), prior="gaussian").num_atoms
    assert set(sizes.tolist()) <= set(batch.num_atoms.tolist())


def test_the_command_makes_a_model_folder(capfd, tmp_path, reference):
    out = tmp_path / "model"
    code, printed, _ = run(capfd, "import", "chemeleon2", WEIGHTS, "-o", out, "--json")
    assert code == 0
    facts = json.loads(printed)
    assert (facts["width"], facts["heads"], facts["latent_dim"], facts["predict_types"]) == (64, 4, 8, True)
    found = noumena.load(out).encode(crystals(reference)).mean
    torch.testing.assert_close(found, reference["posterior_mean"], **CLOSE)
    code, _, errors = run(capfd, "import", "chemeleon2", WEIGHTS, "-o", out)
    assert code == 4
    assert "exists" in errors
    options = ("--overwrite", "--csp", "--heads", "2", "--max-atoms", "40")
    code, printed, _ = run(capfd, "import", "chemeleon2", WEIGHTS, "-o", out, *options)
    assert code == 0
    assert "2 heads" in printed
    loaded = noumena.load(out)
    assert (loaded.predict_types, loaded.heads, loaded.max_atoms) == (False, 2, 40)


def test_the_command_says_what_is_missing(capfd, tmp_path, weights):
    weights.with_suffix(".json").unlink()
    code, _, errors = run(capfd, "import", "chemeleon2", weights, "-o", tmp_path / "model")
    assert code == 2
    assert "--heads" in errors
