import logging
import pickle
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import noumena
from noumena.core.errors import ArtifactError, ConfigError, DataError
from noumena.multimodal.importing import import_prosoro
from noumena.multimodal.observations import Batch, from_arrays

FILES = Path(__file__).parent / "prosoro"
NAME = "mvae_cylinder_1.0_1.0_0.1_8.pth"
SIZES = [6, 6, 60]


class Recorded:
    """The noise that the original drew, in its order."""

    def __init__(self, draws):
        self._draws = iter(draws)

    def normal_like(self, _):
        return next(self._draws)


@pytest.fixture(scope="module")
def reference():
    with np.load(FILES / "reference.npz", allow_pickle=False) as archive:
        return {name: torch.from_numpy(np.asarray(archive[name])) for name in archive.files}


@pytest.fixture
def weights(tmp_path):
    """A copy of the weights in a folder of its own."""
    return Path(shutil.copy(FILES / NAME, tmp_path / NAME))


def close(found, expected):
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-5, atol=1e-5)


def changed(weights, change):
    tensors = torch.load(weights, weights_only=True)
    change(tensors)
    torch.save(tensors, weights)
    return weights


def statistics(folder, seed=0):
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(size=72) * 3, rng.random(72) + 0.5
    std[20:23] = 0.0
    np.save(folder / "mu.npy", mean)
    np.save(folder / "std.npy", std)
    return mean, std


# Parity


def test_posteriors_and_decodings_are_those_of_the_original(reference, tmp_path):
    import_prosoro(FILES / NAME).save(tmp_path / "model")
    model = noumena.load(tmp_path / "model")
    for i, source in enumerate(model.names):
        posterior = model.encode({source: reference[f"x{i}"]})
        close(posterior.mean.detach(), reference[f"mu_{i}"])
        close(posterior.log_var.detach(), reference[f"logvar_{i}"])
        inferred = model.infer({source: reference[f"x{i}"]}, model.names)
        for j, target in enumerate(model.names):
            close(inferred[target].mean, reference[f"decode_{j}_of_mu_{i}"])


def test_every_term_of_the_objective_is_that_of_the_original(reference):
    model = import_prosoro(FILES / NAME)
    draws = [reference[f"eps_recon_{i}"] for i in range(3)] + [reference[f"eps_predict_0_to_{j}"] for j in (1, 2)]
    batch = Batch(torch.cat([reference[f"x{i}"] for i in range(3)], 1))
    terms = model.loss(batch, noise=Recorded(draws))
    close(terms.total.item(), reference["loss"])
    pairs = {"reconstruction": "recon_loss", "prediction": "pred_loss", "kl": "kl", "alignment": "z_loss"}
    for i, name in enumerate(model.names):
        pairs |= {f"reconstruction_{name}": f"recon_loss_{i}", f"kl_{name}": f"kl_{i}"}
        pairs |= {f"prediction_{name}": f"pred_loss_0_{i}"} if i else {}
    assert set(pairs) == set(terms.parts)
    for ours, theirs in pairs.items():
        close(terms.parts[ours].item(), reference[f"loss_{theirs}"])


# What comes with the weights


def test_statistics_of_the_original_give_physical_units(weights, reference):
    mean, std = statistics(weights.parent)
    model = import_prosoro(weights)
    scale = np.where(std == 0, 1.0, std)
    ends = np.cumsum([0, *SIZES])
    parts = [slice(start, stop) for start, stop in pairwise(ends)]
    pose = reference["x0"].numpy() * scale[parts[0]] + mean[parts[0]]
    inferred = model.infer({"pose": pose}, ["force", "shape"])
    for j, name in ((1, "force"), (2, "shape")):
        expected = reference[f"decode_{j}_of_mu_0"].numpy() * scale[parts[j]] + mean[parts[j]]
        expected[:, std[parts[j]] == 0] = mean[parts[j]][std[parts[j]] == 0]
        np.testing.assert_allclose(inferred[name].mean, expected, rtol=1e-4, atol=1e-4)
    assert [modality.unit_of(slice(0, 3)) for modality in model.modalities] == ["mm", "N", "mm"]
    assert [modality.kind for modality in model.modalities] == ["pose", "wrench", "displacement"]
    np.testing.assert_array_equal(inferred["shape"].mean[:, 8:11], np.tile(mean[20:23].astype(np.float32), (16, 1)))


def test_without_statistics_it_says_that_numbers_are_standardised(weights, caplog):
    with caplog.at_level(logging.WARNING, "noumena"):
        model = import_prosoro(weights)
    assert "standardised" in caplog.text
    assert {unit for modality in model.modalities for unit in modality.units} == {""}
    caplog.clear()
    statistics(weights.parent)
    import_prosoro(weights)
    assert not caplog.text


def test_statistics_and_template_may_lie_in_another_folder(weights, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    mean, _ = statistics(folder)
    nodes = np.random.default_rng(0).random((20, 3))
    np.savetxt(folder / "surf_node.txt", nodes)
    np.savetxt(folder / "surf_triangles.txt", [[0, 1, 2], [17, 18, 19]], fmt="%d")
    model = import_prosoro(weights, data=folder, names=("motion", "wrench", "nodes"))
    assert model.names == ("motion", "wrench", "nodes")
    np.testing.assert_allclose(model.fronts[0].mean, mean[:6], rtol=1e-6)
    np.testing.assert_allclose(model.mesh.nodes, nodes, rtol=1e-6)
    assert model.mesh.triangles.tolist() == [[0, 1, 2], [17, 18, 19]]
    model.save(tmp_path / "model")
    assert noumena.load(tmp_path / "model").mesh.nodes.equal(model.mesh.nodes)


@pytest.mark.parametrize("name", ["mvae_omni_neck_1_1_0.1_8.pth", "mvae_omni_neck_1.0_1.0_0.1_8.pth"])
def test_both_spellings_of_the_file_name_are_read(weights, name):
    model = import_prosoro(weights.rename(weights.with_name(name)))
    assert (model.recon_pred_scale, model.z_coeff, model.kl_coeff, model.z_dim) == (1.0, 1.0, 0.1, 8)


def test_coefficients_may_be_given_where_the_name_has_none(weights):
    other = weights.rename(weights.with_name("best.pth"))
    with pytest.raises(ConfigError, match=r"kl_coeff.*mvae_<module type>"):
        import_prosoro(other, recon_pred_scale=2.0, z_coeff=0.5)
    model = import_prosoro(other, recon_pred_scale=2.0, z_coeff=0.5, kl_coeff=0.2)
    assert (model.recon_pred_scale, model.z_coeff, model.kl_coeff) == (2.0, 0.5, 0.2)
    assert import_prosoro(FILES / NAME, kl_coeff=0.2).kl_coeff == 0.2


def test_further_training_keeps_the_statistics(weights):
    mean, _ = statistics(weights.parent)
    model = import_prosoro(weights)
    rng = np.random.default_rng(0)
    rows = from_arrays(
        {"pose": rng.normal(size=(64, 6)), "force": rng.normal(size=(64, 6)), "shape": rng.normal(size=(64, 60))},
        modalities=model.modalities,
    )
    before = model.encoders[0].network.layers[0].weight.detach().clone()
    model.fit(rows, max_epochs=1, batch_size=32, lr=1e-4, seed=0, accelerator="cpu")
    np.testing.assert_allclose(model.fronts[0].mean, mean[:6], rtol=1e-6)
    after = model.encoders[0].network.layers[0].weight
    assert 0 < (after - before).abs().max() < 1e-2


# Refusals


def refused(error, words, weights, **options):
    with pytest.raises(error) as caught:
        import_prosoro(weights, **options)
    for word in words:
        assert word in str(caught.value)


def test_a_name_that_contradicts_the_tensors_is_refused(weights):
    refused(ArtifactError, ["z_dim=32", "8"], weights.rename(weights.with_name("mvae_dome_1_1_0.1_32.pth")))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("fc_var_1.bias"), ["'fc_var_1.bias'", "missing"]),
        (lambda t: t.update(extra=torch.zeros(2)), ["'extra'", "unknown"]),
        (lambda t: t.update({"decoder_2.4.weight": torch.zeros(61, 32)}), ["'decoder_2.4.weight'", "(61, 32)"]),
        (lambda t: t.update({"fc_mu_1.weight": torch.zeros(9, 16)}), ["'fc_mu_1.weight'", "(8, 16)"]),
        (lambda t: t.update({"encoder_0.0.weight": torch.zeros(8)}), ["0", "matrices"]),
        (lambda t: t["encoder_0.0.bias"].fill_(np.nan), ["'encoder_0.0.bias'", "diverged"]),
        (lambda t: t.clear(), ["two or more"]),
        (lambda t: t.update(note="text"), ["tensors"]),
    ],
)
def test_other_tensors_than_the_originals_are_refused_by_name(weights, change, words):
    refused(ArtifactError, words, changed(weights, change))


class Attack:
    def __reduce__(self):
        return (Path.touch, (Path("attacked"),))


@pytest.mark.parametrize(
    "content", [b"", b"PK nonsense", pickle.dumps(Attack(), 2), None], ids=["empty", "nonsense", "pickle", "tensors"]
)
def test_files_that_are_no_weights_are_refused_and_nothing_is_executed(weights, content, monkeypatch):
    monkeypatch.chdir(weights.parent)
    if content is None:
        torch.save({"encoder_0.0.weight": Attack()}, weights)
    else:
        weights.write_bytes(content)
    refused(ArtifactError, [str(weights)], weights)
    assert not Path("attacked").exists()
    refused(ArtifactError, ["no such file"], weights.with_name("gone.pth"))


def test_statistics_of_other_data_are_refused(weights, tmp_path):
    statistics(tmp_path)
    (tmp_path / "std.npy").unlink()
    refused(DataError, ["std.npy", "missing"], weights)
    for values, word in [
        (np.ones(71), "72 numbers"),
        (np.r_[np.ones(71), -1.0], "column 71"),
        (np.r_[np.nan, np.ones(71)], "column 0"),
    ]:
        np.save(tmp_path / "std.npy", values)
        refused(DataError, [word], weights)
    refused(DataError, ["gone"], weights, data=tmp_path / "gone")


def test_a_template_of_another_module_is_refused(weights):
    np.savetxt(weights.parent / "surf_node.txt", np.random.default_rng(0).random((21, 3)))
    np.savetxt(weights.parent / "surf_triangles.txt", [[0, 1, 20]], fmt="%d")
    refused(DataError, ["21 nodes", "20"], weights)


def test_names_must_be_one_for_each_modality(weights):
    refused(ConfigError, ["3 modalities"], weights, names=("pose", "force"))
    refused(ConfigError, ["own name"], weights, names=("pose", "pose", "shape"))
