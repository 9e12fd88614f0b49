import numpy as np
import pytest
import torch

from noumena.core.errors import DataError
from noumena.molecules import baselines
from noumena.molecules.baselines import (
    AlignedPCA,
    aligned_to,
    mean_distance_rmse,
    mean_distances,
    mean_structure,
    thinned,
)
from noumena.molecules.metrics import errors
from tests.molecules.chains import conformations, peptide, random_rotations, water


@pytest.fixture(scope="module")
def frames():
    return conformations(peptide(2), 120)


def error(pca, xyz):
    return errors(xyz, pca.reconstruct(xyz), peptide(2)).values["rmsd"]


def test_more_components_leave_a_smaller_error_and_all_of_them_none(frames):
    full = AlignedPCA.fit(frames, 1000)
    found = [error(full.first(k), frames) for k in (0, 2, 5, 10, len(full.axes))]
    assert found == sorted(found, reverse=True)
    assert len(full.axes) <= 3 * frames.shape[1] - 6
    assert found[-1] < 0.02


def test_as_many_components_reconstruct_data_that_vary_along_so_many_directions():
    generator = torch.Generator().manual_seed(0)
    still = 4 * torch.randn(12, 3, generator=generator)
    modes = 0.05 * torch.randn(3, 12, 3, generator=generator)
    xyz = still + torch.einsum("nk,kai->nai", torch.randn(60, 3, generator=generator), modes)
    pca = AlignedPCA.fit(xyz, 3)
    left = (pca.reconstruct(xyz) - aligned_to(xyz, pca.reference)).square().mean().sqrt()
    assert left < 0.02 * xyz.std(0).mean()


def test_components_do_not_depend_on_the_orientation_of_what_is_encoded(frames):
    pca = AlignedPCA.fit(frames, 4)
    turned = torch.einsum("nai,nij->naj", frames, random_rotations(len(frames)).float()) + 2.0
    assert torch.allclose(pca.encode(turned), pca.encode(frames), atol=1e-3)


def test_axes_are_orthonormal_and_the_spread_is_that_of_the_training_frames(frames):
    pca = AlignedPCA.fit(frames, 6)
    assert torch.allclose(pca.axes @ pca.axes.T, torch.eye(6), atol=1e-5)
    codes = pca.encode(frames)
    assert torch.allclose(codes.mean(0), torch.zeros(6), atol=1e-3)
    assert torch.allclose(codes.std(0, correction=0), pca.spread, rtol=1e-3)


def test_samples_have_the_spread_of_the_components_and_repeat_with_their_generator(frames):
    pca = AlignedPCA.fit(frames, 2)
    drawn = pca.sample(4000, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, pca.sample(4000, torch.Generator().manual_seed(1)))
    codes = (drawn - pca.mean).flatten(1) @ pca.axes.T
    assert torch.allclose(codes.std(0), pca.spread, rtol=0.06)


def test_components_of_many_coordinates_are_those_of_the_covariance_matrix(frames, monkeypatch):
    exact = AlignedPCA.fit(frames, 3)
    monkeypatch.setattr(baselines, "_EXACT_COORDINATES", 1)
    found = AlignedPCA.fit(frames, 3)
    assert torch.allclose(found.spread, exact.spread, rtol=1e-3)
    assert torch.allclose((found.axes * exact.axes).sum(1).abs(), torch.ones(3), atol=1e-3)
    assert torch.equal(found.axes, AlignedPCA.fit(frames, 3).axes)


def test_small_molecules_and_few_frames_have_few_components():
    assert len(AlignedPCA.fit(torch.randn(20, 3, 3), 16).axes) == 3
    assert len(AlignedPCA.fit(conformations(water(), 2), 16).axes) == 1
    still = conformations(water(), 1)
    assert torch.allclose(AlignedPCA.fit(still, 4).reconstruct(still), still - still.mean(1, keepdim=True), atol=1e-5)


def test_the_mean_structure_of_turned_copies_is_the_structure(frames):
    copies = frames[:1] @ random_rotations(30).float()
    found = mean_structure(copies)
    assert (aligned_to(frames[:1], found)[0] - found).abs().max() < 1e-3


def test_mean_distances_are_the_best_constant_distances(frames):
    mean = mean_distances(frames)
    i, j = np.triu_indices(frames.shape[1], 1)
    apart = (frames[:, i] - frames[:, j]).norm(dim=-1)
    assert torch.allclose(mean[i, j], apart.mean(0), atol=1e-4)
    spread = float((apart - apart.mean(0)).square().mean().sqrt())
    assert mean_distance_rmse(frames, mean) == pytest.approx(spread, rel=1e-4)
    assert mean_distance_rmse(frames, mean * 1.05) > spread


def test_frames_are_thinned_evenly_from_the_first_to_the_last():
    assert thinned(5, 10).tolist() == [0, 1, 2, 3, 4]
    found = thinned(101, 11)
    assert found.tolist() == list(range(0, 101, 10))


def test_no_frames_are_refused():
    with pytest.raises(DataError, match="one training frame"):
        AlignedPCA.fit(torch.zeros(0, 4, 3), 2)
