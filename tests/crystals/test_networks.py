import functools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from noumena.core.seeding import Noise
from noumena.crystals.augmentation import Draws, augmented, corrupted, random_rotations
from noumena.crystals.geometry import cell_of_log, log_cell
from noumena.crystals.networks.original import Original
from noumena.crystals.networks.packing import Packing
from noumena.crystals.networks.periodic import Periodic
from noumena.crystals.networks.representation import Decoded
from noumena.crystals.networks.transformer import PackedTransformer
from noumena.crystals.origin import anchors
from tests.crystals.models import changed, crystals

SIZES = (3, 1, 7, 3, 12)


# Packing


@pytest.mark.parametrize("cells", [False, True])
def test_tokens_of_a_crystal_are_neighbours_in_order_and_come_back(cells):
    packing = Packing(torch.tensor(SIZES), cells=cells)
    inside = packing.crystal[packing.source]
    start = 0
    for count, size in packing.blocks:
        for _ in range(count):
            block = packing.source[start : start + size]
            assert len(set(inside[start : start + size].tolist())) == 1
            assert packing.within[block].tolist() == list(range(size))
            start += size
    assert start == len(packing.source) == sum(SIZES) + cells * len(SIZES)
    assert torch.equal(packing.source[packing.place], torch.arange(start))


@pytest.mark.parametrize("activation", ["gelu-tanh", "gelu"])
@pytest.mark.parametrize("causal", [False, True])
def test_packed_transformer_equals_a_padded_one_of_torch_and_so_do_its_gradients(activation, causal):
    torch.manual_seed(0)
    packed = PackedTransformer(16, 2, 4, 24, causal=causal, activation=activation)
    gelu = functools.partial(functional.gelu, approximate="tanh" if activation == "gelu-tanh" else "none")
    layer = nn.TransformerEncoderLayer(16, 4, 24, 0.0, gelu, batch_first=True, norm_first=True)
    padded = nn.TransformerEncoder(layer, 2, nn.LayerNorm(16), enable_nested_tensor=False)
    weights = {name.replace("in_proj.", "in_proj_"): value for name, value in packed.state_dict().items()}
    padded.load_state_dict(weights)
    packing = Packing(torch.tensor(SIZES), cells=False)
    x, probe = torch.randn(2, sum(SIZES), 16)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = packed(ours, packing)
    (found * probe).sum().backward()

    most = max(SIZES)
    at = (packing.crystal, packing.within)
    dense = x.new_zeros(len(SIZES), most, 16).index_put(at, theirs)
    hidden = torch.arange(most)[None] >= torch.tensor(SIZES)[:, None]
    mask = torch.ones(most, most).triu(1).bool() if causal else None
    expected = padded(dense, mask=mask, src_key_padding_mask=hidden)[at]
    (expected * probe).sum().backward()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-5)
    for name, weight in packed.named_parameters():
        other = padded.get_parameter(name.replace("in_proj.", "in_proj_"))
        torch.testing.assert_close(weight.grad, other.grad, rtol=1e-4, atol=1e-4)


# Cells


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-3.0, 3.0), min_size=6, max_size=6), st.integers(1, 30))
def test_any_six_numbers_are_a_valid_cell(numbers, atoms):
    cell = torch.tensor([numbers], dtype=torch.float64)
    decoded = Decoded(torch.zeros(atoms, 5), torch.zeros(atoms, 6), cell)
    lattice = Periodic(8, 5, 2).double().lattice(decoded, torch.tensor([atoms]))
    assert torch.isfinite(lattice).all()
    volume = torch.linalg.det(lattice)
    assert volume > 0
    # The first three numbers say the volume of an atom.
    assert math.isclose(volume.item(), atoms * math.exp(sum(numbers[:3])), rel_tol=1e-6)


def test_cells_come_back_from_their_logarithm_and_know_no_orientation():
    batch = crystals(4, 5, 6)
    log = log_cell(batch.lattice)
    again = cell_of_log(log)
    torch.testing.assert_close(again @ again.mT, batch.lattice @ batch.lattice.mT)
    turned = batch.lattice @ random_rotations(torch.randn(3, 4, dtype=torch.float64))
    torch.testing.assert_close(log_cell(turned), log)


def test_scaled_numbers_of_a_cell_are_standardised_and_come_back():
    batch = crystals(4, 5, 6, 7)
    tokens = Periodic(8, 100, 2).double()
    tokens.calibrate(batch.lattice, batch.num_atoms)
    numbers = tokens.cell_numbers(batch.lattice, batch.num_atoms)
    torch.testing.assert_close(numbers.mean(0), torch.zeros(6).double(), rtol=0, atol=1e-12)
    assert math.isclose(numbers.square().mean().item(), 1.0, rel_tol=1e-9)
    decoded = Decoded(torch.zeros(1, 1), torch.zeros(1, 6), numbers)
    found = tokens.lattice(decoded, batch.num_atoms)
    torch.testing.assert_close(found @ found.mT, batch.lattice @ batch.lattice.mT)


# Coordinates


def at(frac):
    """What a head says of atoms at fractional coordinates, shape (atoms, 3)."""
    turn = 2.0 * math.pi * frac
    return torch.stack([turn.cos(), turn.sin()], -1).flatten(1)


def test_coordinates_come_back_from_their_points_in_the_cell():
    frac = torch.rand(200, 3, dtype=torch.float64)
    frac[:2] = torch.tensor([[0.0, 0.5, 1.0 - 1e-17], [-1e-17, 1e-17, 0.25]])
    found = Periodic(8, 5, 2).double().frac_coords(Decoded(torch.zeros(200, 5), 3.0 * at(frac), torch.zeros(1, 6)))
    assert ((found >= 0) & (found < 1)).all()
    gap = found - frac
    torch.testing.assert_close(gap - gap.round(), torch.zeros_like(gap), rtol=0, atol=1e-12)


def test_the_loss_of_coordinates_knows_that_the_cell_ends_where_it_begins():
    tokens = Periodic(8, 5, 2).double()
    batch = crystals(1)
    target = changed(batch, frac_coords=torch.full((1, 3), 0.99, dtype=torch.float64))

    def errors(x):
        decoded = Decoded(torch.zeros(1, 5), at(torch.full((1, 3), x, dtype=torch.float64)), torch.zeros(1, 6).double())
        found = tokens.losses(decoded, target)
        return found["coords"], found["circle"]

    for near, far in zip(errors(0.01), errors(0.97), strict=True):
        torch.testing.assert_close(near, far)
    # 0.02 of the cell's diagonal, in angstrom, squared
    step = 0.02 * target.lattice[0].sum(0)
    assert torch.linalg.vector_norm(step) < 0.5
    torch.testing.assert_close(errors(0.01)[0], step.square().mean())
    plain = Original(8, 5).double()
    gap = plain.losses(Decoded(torch.zeros(1, 5), torch.full((1, 3), 0.01).double(), torch.zeros(1, 6)), target)
    assert math.isclose(gap["coords"].item(), 0.98**2, rel_tol=1e-6)


# Augmentation


def test_rotations_are_rotations_and_uniform():
    found = random_rotations(torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(found @ found.mT, torch.eye(3).double().expand(20_000, 3, 3))
    torch.testing.assert_close(torch.linalg.det(found), torch.ones(20_000).double())
    # Entries of uniform rotations have mean 0 and variance 1/3; five standard errors
    assert found.mean(0).abs().max() < 5 * math.sqrt(1 / 3 / 20_000)
    assert (found.square().mean(0) - 1 / 3).abs().max() < 5 * math.sqrt(4 / 45 / 20_000)


def test_each_crystal_gets_a_rotation_and_an_origin_of_its_own():
    one = crystals(4)
    batch = type(one).cat([one, one])
    found = augmented(batch, Noise(1))
    turns = torch.linalg.inv(batch.lattice) @ found.lattice
    assert (turns[0] - turns[1]).abs().max() > 0.1
    shift = (found.frac_coords - batch.frac_coords).remainder(1.0).view(2, 4, 3)
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    assert (shift[0, 0] - shift[1, 0]).abs().max() > 0.05
    torch.testing.assert_close(found.lengths, batch.lengths)
    torch.testing.assert_close(found.angles, batch.angles)


def test_draws_of_a_crystal_do_not_depend_on_the_others_of_the_batch():
    def drawn(batch):
        draws, packing = Draws(Noise(3), batch, 21), Packing(batch.num_atoms, cells=True)
        tokens = draws.normal(packing, 4)
        return tokens[:5], tokens[len(batch.atom_types)]

    for one, two in zip(drawn(crystals(5, 3)), drawn(crystals(5, 9, 2)), strict=True):
        assert torch.equal(one[: len(two)], two)
    for kind in (Draws.uniform, lambda draws: draws.normal_of_atoms(3)):
        found = [kind(Draws(Noise(3), batch, 21))[:5] for batch in (crystals(5, 3), crystals(5, 9))]
        assert torch.equal(*found)


def test_tokens_of_atoms_and_cells_are_drawn_independently():
    batch = crystals(5, 3, 8)
    drawn = Draws(Noise(3), batch, 21).normal(Packing(batch.num_atoms, cells=True), 4)
    assert len(torch.unique(drawn)) == drawn.numel()


def test_corruption_hits_its_share_and_leaves_the_rest():
    batch = crystals(*[20] * 60, first=100)
    found = corrupted(batch, 0.25, Draws(Noise(5), batch, 21))
    hit = found.atom_types == 0
    assert 0.18 < hit.double().mean() < 0.32
    assert torch.equal(found.atom_types[~hit], batch.atom_types[~hit])
    assert torch.equal(found.frac_coords[~hit], batch.frac_coords[~hit])
    push = torch.einsum("ai,aij->aj", found.frac_coords - batch.frac_coords, batch.lattice[batch.crystal])[hit]
    assert abs(push.std().item() - 0.1) < 0.01
    assert abs(push.mean().item()) < 0.015
    untouched = corrupted(batch, 0.0, Draws(Noise(5), batch, 21))
    assert torch.equal(untouched.frac_coords, batch.frac_coords)


# Origin


def test_the_origin_is_an_atom_of_the_rarest_element_and_the_same_in_any_order():
    batch = crystals(9, 14, 20)
    chosen = anchors(batch)
    assert torch.equal(batch.crystal[chosen], torch.arange(3))
    for number, atom in enumerate(chosen.tolist()):
        types = batch.atom_types[batch.crystal == number]
        counts = torch.bincount(types)
        assert counts[batch.atom_types[atom]] == counts[counts > 0].min()
    order = torch.cat([torch.randperm(n) + start for n, start in zip((9, 14, 20), (0, 9, 23), strict=True)])
    shuffled = changed(batch, atom_types=batch.atom_types[order], frac_coords=batch.frac_coords[order])
    assert torch.equal(order[anchors(shuffled)], chosen)


def test_chance_takes_every_atom_of_the_rarest_element():
    batch = crystals(6)
    types = torch.tensor([8, 8, 8, 8, 3, 3])
    batch = changed(batch, atom_types=types)
    found = {anchors(batch, torch.rand(6)).item() for _ in range(60)}
    assert found == {4, 5}
