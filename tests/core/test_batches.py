import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.batches import BatchLoader, Order, batches_per_epoch
from noumena.core.data import FreshDataset
from noumena.core.errors import ConfigError, DataError
from noumena.density.table import Table, as_table

quick = settings(max_examples=60, deadline=None)
sizes = st.integers(1, 60)


def numbered(n):
    """A table whose only column is the row's number."""
    return as_table(torch.arange(n, dtype=torch.float32).reshape(n, 1))


def seen(loader):
    return [minibatch.data.flatten().tolist() for minibatch in loader]


def at_epoch(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return loader


@quick
@given(st.integers(1, 200), st.integers(0, 2**32), st.integers(0, 50))
def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(n, seed, epoch):
    straight, wandering = (Order(n, seed=seed, shuffle=True) for _ in range(2))
    for other in (3, 1, 4):
        wandering.set_epoch(other)
        wandering.indices()
        torch.rand(1)
    straight.set_epoch(epoch)
    wandering.set_epoch(epoch)
    assert torch.equal(straight.indices(), wandering.indices())


def test_orders_of_other_epochs_and_other_seeds_differ():
    orders = []
    for seed in range(3):
        order = Order(100, seed=seed, shuffle=True)
        for epoch in range(3):
            order.set_epoch(epoch)
            orders.append(tuple(order.indices().tolist()))
    assert len(set(orders)) == 9


@quick
@given(sizes, st.integers(1, 70), st.integers(0, 5), st.booleans())
def test_every_sample_comes_once_per_epoch(n, batch_size, epoch, shuffle):
    loader = at_epoch(BatchLoader(numbered(n), batch_size, seed=1, shuffle=shuffle), epoch)
    batches = seen(loader)
    assert sorted(row for batch in batches for row in batch) == list(range(n))
    assert len(batches) == len(loader)
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_without_shuffling_the_samples_come_in_their_own_order_with_the_same_noise_each_epoch():
    loader = BatchLoader(numbered(10), 4, seed=1, shuffle=False)
    first = [(batch.data, batch.noise.normal_like(batch.data)) for batch in at_epoch(loader, 0)]
    later = [(batch.data, batch.noise.normal_like(batch.data)) for batch in at_epoch(loader, 7)]
    assert torch.cat([data for data, _ in first]).flatten().tolist() == list(range(10))
    for (data, noise), (other_data, other_noise) in zip(first, later, strict=True):
        assert torch.equal(data, other_data)
        assert torch.equal(noise, other_noise)


def test_every_minibatch_of_a_training_has_its_own_noise():
    loader = BatchLoader(numbered(12), 4, seed=1, shuffle=True)
    seeds = [batch.noise.seed for epoch in range(5) for batch in at_epoch(loader, epoch)]
    assert len(set(seeds)) == len(seeds)


@quick
@given(sizes, st.integers(1, 20), st.integers(0, 5), st.data())
def test_starting_later_leaves_out_exactly_the_minibatches_seen_before(n, batch_size, epoch, data):
    whole = list(at_epoch(BatchLoader(numbered(n), batch_size, seed=3, shuffle=True), epoch))
    start = data.draw(st.integers(0, len(whole)))
    loader = at_epoch(BatchLoader(numbered(n), batch_size, seed=3, shuffle=True, start=start), epoch)
    rest = list(loader)
    assert len(rest) == len(loader) == len(whole) - start
    for expected, found in zip(whole[start:], rest, strict=True):
        assert torch.equal(expected.data, found.data)
        assert torch.equal(expected.noise.normal_like(expected.data), found.noise.normal_like(found.data))


def shares_of(n, batch_size, world_size, epoch=2):
    loaders = [
        BatchLoader(numbered(n), batch_size, seed=3, shuffle=True, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    return list(zip(*(at_epoch(loader, epoch) for loader in loaders), strict=True))


worlds = st.integers(1, 6).flatmap(lambda world: st.tuples(st.just(world), st.integers(world, 20)))


@quick
@given(sizes, worlds)
def test_the_shares_of_all_processes_are_the_minibatch(n, world):
    world_size, batch_size = world
    whole = at_epoch(BatchLoader(numbered(n), batch_size, seed=3, shuffle=True), 2)
    for minibatch, shares in zip(whole, shares_of(n, batch_size, world_size), strict=True):
        own = [share.data[: share.size] for share in shares]
        assert torch.equal(torch.cat(own), minibatch.data)
        assert sum(share.size for share in shares) == minibatch.size


@quick
@given(sizes, worlds)
def test_the_weighted_mean_over_processes_is_the_mean_over_the_minibatch(n, world):
    world_size, batch_size = world
    whole = at_epoch(BatchLoader(numbered(n), batch_size, seed=3, shuffle=True), 2)
    for minibatch, shares in zip(whole, shares_of(n, batch_size, world_size), strict=True):
        average = sum(share.weight * share.data.double().mean() for share in shares) / world_size
        torch.testing.assert_close(average, minibatch.data.double().mean())


@quick
@given(sizes, worlds)
def test_a_row_draws_the_same_noise_whichever_process_has_it(n, world):
    world_size, batch_size = world
    whole = at_epoch(BatchLoader(numbered(n), batch_size, seed=3, shuffle=True), 2)
    for minibatch, shares in zip(whole, shares_of(n, batch_size, world_size), strict=True):
        drawn = [share.noise.normal_like(torch.zeros(len(share.data), 3))[: share.size] for share in shares]
        assert torch.equal(torch.cat(drawn), minibatch.noise.normal_like(torch.zeros(minibatch.size, 3)))


def test_a_process_without_samples_of_its_own_takes_part_with_weight_zero():
    (last,) = shares_of(2, 8, 5)
    assert sorted(share.size for share in last) == [0, 0, 0, 1, 1]
    for share in last:
        assert len(share.data) == 1
        assert (share.weight == 0.0) == (share.size == 0)


@pytest.mark.parametrize(("batch_size", "world_size"), [(0, 1), (-1, 1), (3, 4)])
def test_a_batch_size_that_leaves_a_process_without_samples_is_refused(batch_size, world_size):
    with pytest.raises(ConfigError, match=r"fit\.batch_size"):
        BatchLoader(numbered(10), batch_size, world_size=world_size)


class FreshNumbers(Table):
    """Rows whose only column is 1000 times the epoch plus the row's number."""

    def at_epoch(self, epoch):
        return as_table(self.rows + 1000.0 * epoch)


def fresh_numbers(n):
    table = numbered(n)
    return FreshNumbers(table.rows, table.columns, layout=table.layout)


def test_data_made_on_the_fly_are_new_in_each_epoch_of_training_wherever_it_starts():
    assert isinstance(fresh_numbers(3), FreshDataset)
    loader = BatchLoader(fresh_numbers(10), 4, seed=1, shuffle=True)
    for epoch in (0, 1, 5, 1):
        rows = sorted(row for batch in seen(at_epoch(loader, epoch)) for row in batch)
        assert rows == [1000.0 * epoch + number for number in range(10)]
    resumed = BatchLoader(fresh_numbers(10), 4, seed=1, shuffle=True, start=2)
    assert seen(at_epoch(resumed, 5)) == seen(at_epoch(loader, 5))[2:]


def test_data_made_on_the_fly_stay_the_same_where_epochs_are_compared():
    loader = BatchLoader(fresh_numbers(10), 4, seed=1)
    assert seen(at_epoch(loader, 0)) == seen(at_epoch(loader, 7))


def test_processes_share_the_data_of_the_same_epoch():
    loaders = [
        at_epoch(BatchLoader(fresh_numbers(10), 4, seed=1, shuffle=True, rank=rank, world_size=2), 3) for rank in (0, 1)
    ]
    rows = sorted(row for loader in loaders for batch in seen(loader) for row in batch)
    assert rows == [3000.0 + number for number in range(10)]


@quick
@given(st.integers(2, 80), st.integers(1, 3), st.integers(1, 3), st.integers(0, 20), st.integers(0, 3))
def test_a_rest_too_small_for_a_loss_joins_the_minibatch_before(n, least, world_size, more, start):
    batch_size = least * world_size + more
    if least > 1 and n < least * world_size:
        return
    options = {"seed": 3, "shuffle": True, "world_size": world_size, "least": least}
    loaders = [BatchLoader(numbered(n), batch_size, rank=rank, **options) for rank in range(world_size)]
    shares = list(zip(*loaders, strict=True))
    assert len(shares) == batches_per_epoch(n, batch_size, least=least, world_size=world_size)
    assert all(share.size >= least for minibatch in shares for share in minibatch) or least == 1
    rows = [row for minibatch in shares for share in minibatch if share.size for row in share.data.flatten().tolist()]
    assert rows == [row for batch in seen(BatchLoader(numbered(n), n, seed=3, shuffle=True)) for row in batch]
    rest = BatchLoader(numbered(n), batch_size, start=min(start, len(shares)), **options)
    assert len(rest) == len(list(rest)) == len(shares) - min(start, len(shares))


def test_too_few_samples_or_too_small_minibatches_for_a_loss_are_refused():
    with pytest.raises(ConfigError, match=r"fit\.batch_size: expected at least 4, got 3"):
        BatchLoader(numbered(10), 3, least=2, world_size=2)
    with pytest.raises(DataError, match="needs 4 at least; a part of the data has 3"):
        BatchLoader(numbered(3), 8, least=2, world_size=2)
