import pytest
import torch
from torch.nn import functional

import noumena
from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.seeding import Noise
from noumena.worldmodels.rssm import RSSM
from noumena.worldmodels.sequences import Sequences
from noumena.worldmodels.statespace.latents import Categories, Latent, Normals

SMALL = {"deter": 24, "hidden": 20, "variables": 5, "classes": 4, "decoder_width": 4}
CASES = {
    "categorical": SMALL,
    "gaussian": {**SMALL, "latent": "gaussian"},
    "study": {"variant": "study", "deter": 16},
}


class Recorded(Noise):
    """Draws that are given, one after another."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def normal_like(self, x):
        draw = self.draws.pop(0)
        assert draw.shape == x.shape
        return draw

    uniform_like = normal_like


def sequences(batch=6, time=5, frame=(1, 28, 28), action=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Sequences(
        torch.rand(batch, time, *frame, generator=generator, dtype=torch.float64),
        torch.randn(batch, time - 1, action, generator=generator, dtype=torch.float64),
    )


def made(seed=0, frame=(1, 28, 28), **options):
    torch.manual_seed(seed)
    model = RSSM(frame=frame, action_dim=2, **options).double()
    model.pixels.mean.fill_(0.4), model.pixels.scale.fill_(0.3)
    model.action_scale.scale.fill_(1.7)
    return model


# The study's model


def test_the_studys_model_has_its_number_of_parameters():
    model = RSSM(frame=(1, 28, 28), action_dim=2, variant="study", encoder="menet5", width=2, deter=512)
    assert sum(p.numel() for p in model.parameters()) == 5_004_064
    assert sum(p.numel() for p in model.network.encoder.parameters()) == 384_768


def study_step_by_step(model, batch, of_posterior, of_prior):
    """The study's loss with one encoding, one posterior and one decoding for each step."""
    net, softplus = model.network, functional.softplus
    frames, actions = (batch.frames - 0.4) / 0.3, batch.actions / 1.7

    def posterior(code, h):
        both = torch.cat([code, h], -1)
        return net.posterior_mean(both), softplus(net.posterior_spread(both)) + model.min_var

    h = net.encoder(frames[:, 0])
    mean, std = posterior(h, h)
    z = (mean + std * of_posterior[:, 0]).detach()
    total = functional.mse_loss(net.decoder(torch.cat([z, h], -1)), frames[:, 0])
    for t in range(1, batch.steps):
        h = net.cell(torch.relu(net.input(torch.cat([z, actions[:, t - 1]], -1))), h)
        m, s = net.prior_mean(h), softplus(net.prior_spread(h)) + model.min_var
        mean, std = posterior(net.encoder(frames[:, t]), h)
        prior, seen = torch.distributions.Normal(m, s), torch.distributions.Normal(mean, std)
        total = total + torch.distributions.kl_divergence(prior, seen).mean().clamp(min=3.0)
        foreseen = (m + s * of_prior[:, t - 1]).detach()
        total = total + functional.mse_loss(net.decoder(torch.cat([foreseen, h], -1)), frames[:, t])
        if t < batch.steps - 1:
            z = (mean + std * of_posterior[:, t]).detach()
    return total / (batch.steps - 1)


@pytest.mark.parametrize("far", [False, True])
def test_the_studys_loss_equals_its_statement_step_by_step(far):
    model, batch = made(**CASES["study"]).eval(), sequences()
    if far:  # a KL above the 3 nats at which it is cut off
        model.network.prior_mean[0].bias.data.fill_(20.0)
    draws = [torch.randn(6, 4, 16, dtype=torch.float64) for _ in range(2)]
    terms = model.loss(batch, noise=Recorded(*draws))
    expected = study_step_by_step(model, batch, *draws)
    assert (terms.parts["kl"] > 3.0) == far
    torch.testing.assert_close(terms.total, expected, rtol=1e-9, atol=1e-9)
    weights = [p for p in model.parameters() if p.requires_grad]
    for mine, theirs in zip(
        torch.autograd.grad(terms.total, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


def test_why_the_study_is_not_the_default_its_prior_and_posterior_are_never_trained():
    """Documentation of a fault that `variant="study"` keeps: draws without gradient, and a KL that is cut off."""
    model = made(**CASES["study"])
    model.loss(sequences(), noise=Noise(0)).total.backward()
    untrained = {name.split(".")[1] for name, p in model.named_parameters() if p.grad.abs().max() == 0.0}
    assert {"prior_mean", "prior_spread", "posterior_mean", "posterior_spread"} <= untrained
    assert not untrained & {"encoder", "input", "cell", "decoder"}


def test_the_studys_roll_out_draws_from_priors_without_the_added_deviation():
    model, batch = made(**CASES["study"], min_var=0.9).eval(), sequences()
    net, h, states = model.network, model.start(batch.frames[:, 0]), []
    z = torch.randn(6, 4, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    again = torch.Generator().manual_seed(3)
    for t in range(4):
        noise = torch.randn(6, 16, generator=again, dtype=torch.float64)
        z = net.prior_mean(h) + functional.softplus(net.prior_spread(h)) * noise
        h = net.cell(torch.relu(net.input(torch.cat([z, batch.actions[:, t] / 1.7], -1))), h)
        states.append(h)
    rolled = model.rollout(model.start(batch.frames[:, 0]), batch.actions, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(rolled, torch.stack(states, 1))


# The corrected model


def dreamer_step_by_step(model, batch, draws):
    """DreamerV3's loss with every network called at every step."""
    net = model.network
    frames, actions = (batch.frames - 0.4) / 0.3, batch.actions / 1.7
    silu = functional.silu

    def logits(head, hidden):
        raw = head.out(silu(head.norm(hidden)))
        p = 0.99 * raw.unflatten(-1, (5, 4)).softmax(-1) + 0.01 / 4
        return torch.distributions.Independent(torch.distributions.Categorical(probs=p), 1)

    kl = torch.distributions.kl_divergence

    def stopped(d):
        return torch.distributions.Independent(torch.distributions.Categorical(probs=d.base_dist.probs.detach()), 1)

    h, total = torch.tanh(net.first).expand(len(batch), -1), 0.0
    for t in range(batch.steps):
        q = logits(net.posterior, net.posterior_from_h(h) + net.encoder(frames[:, t]))
        p = logits(net.prior, net.prior_from_h(h))
        probs = q.base_dist.probs
        chosen = (draws[:, t, :, None] > probs.cumsum(-1)).sum(-1).clamp(max=3)
        z = (functional.one_hot(chosen, 4) - probs.detach() + probs).flatten(1)
        error = (net.decoder(torch.cat([h, z], -1)) - frames[:, t]).square().sum((1, 2, 3))
        dyn, rep = kl(stopped(q), p).clamp(min=1.0), kl(q, stopped(p)).clamp(min=1.0)
        total = total + (error + 0.5 * dyn + 0.1 * rep).mean()
        if t + 1 < batch.steps:
            x = silu(net.norm(net.from_z(z) + net.from_action(actions[:, t])))
            reset, candidate, update = net.cell.norm(net.cell.gates(torch.cat([x, h], -1))).chunk(3, -1)
            update = torch.sigmoid(update - 1)
            h = update * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - update) * h
    return total / batch.steps


def test_dreamers_loss_equals_its_statement_step_by_step():
    model, batch = made(**SMALL).eval(), sequences()
    draws = torch.rand(6, 5, 5, dtype=torch.float64)
    terms = model.loss(batch, noise=Recorded(draws))
    expected = dreamer_step_by_step(model, batch, draws)
    torch.testing.assert_close(terms.total, expected, rtol=1e-9, atol=1e-9)
    weights = list(model.parameters())
    for mine, theirs in zip(
        torch.autograd.grad(terms.total, weights), torch.autograd.grad(expected, weights), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("options", [{}, {"latent": "gaussian", "variables": 32}, {"encoder": "convnet"}])
def test_every_weight_of_the_default_model_gets_a_gradient(options):
    model = RSSM(frame=(1, 28, 28), action_dim=2, **options)
    batch = sequences()
    model.loss(batch, noise=Noise(0)).total.backward()
    untrained = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().sum() == 0.0]
    assert untrained == []


def test_kl_is_balanced_between_prior_and_posterior():
    batch, draws = sequences(), torch.rand(6, 5, 5, dtype=torch.float64)

    def loss(**weights):
        return made(**SMALL, free_nats=0.0, **weights).eval().loss(batch, noise=Recorded(draws.clone()))

    both = loss(kl_dyn=0.5, kl_rep=0.1)
    torch.testing.assert_close(both.total, both.parts["reconstruction"] + 0.6 * both.parts["kl"])
    model = made(**SMALL, free_nats=0.0, kl_dyn=0.0)  # what trains the posterior leaves the prior's head alone
    terms = model.loss(batch, noise=Noise(0))
    (terms.total - terms.parts["reconstruction"]).backward()
    assert not any(p.grad.any() for p in model.network.prior.parameters())
    assert all(p.grad.any() for p in model.network.posterior.parameters())


def test_below_the_free_nats_nothing_is_pushed():
    model = made(**SMALL, free_nats=100.0)
    terms = model.loss(sequences(), noise=Noise(0))
    torch.testing.assert_close(terms.total, terms.parts["reconstruction"] + 60.0)
    terms.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.network.prior.parameters())


# Distributions


def test_classes_are_drawn_as_often_as_they_are_probable_and_carry_the_gradient_of_the_probabilities():
    raw = torch.randn(2, 12, dtype=torch.float64, requires_grad=True)
    belief = Latent("categorical", 3, 4, unimix=0.01, min_std=0.1).categories(raw)
    u = torch.rand(20_000, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = Categories(belief.log_p.expand(20_000, -1, -1, -1)).draw(u)
    torch.testing.assert_close(drawn.detach().sum(-1), torch.full((20_000, 2), 3.0, dtype=torch.float64))
    torch.testing.assert_close(drawn.mean(0), belief.mean, rtol=0, atol=0.02)
    weights = torch.randn(2, 12, dtype=torch.float64)
    (mine,) = torch.autograd.grad((belief.draw(u[0]) * weights).sum(), raw, retain_graph=True)
    (theirs,) = torch.autograd.grad((belief.mean * weights).sum(), raw)
    torch.testing.assert_close(mine, theirs)


def test_a_draw_at_the_end_of_the_cumulated_probabilities_is_the_last_class():
    belief = Categories(torch.tensor([[0.1, 0.2, 0.7 - 1e-7]]).log())
    assert belief.draw(torch.tensor([1.0 - 2**-24])).argmax() == 2


def test_classes_are_mixed_with_the_uniform_distribution():
    raw = torch.tensor([[200.0, 0.0, 0.0, 0.0]])
    belief = Latent("categorical", 1, 4, unimix=0.01, min_std=0.1).categories(raw)
    torch.testing.assert_close(belief.mean, torch.tensor([[0.9925, 0.0025, 0.0025, 0.0025]]))


def test_kl_of_normal_variables_is_that_of_torch():
    p, q = (Normals(torch.randn(4, 3), torch.rand(4, 3) + 0.1) for _ in range(2))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(p.mean, p.std), torch.distributions.Normal(q.mean, q.std)
    )
    torch.testing.assert_close(p.kl(q), expected.sum(-1))


def test_normal_variables_have_at_least_their_smallest_deviation_and_begin_at_one():
    latent = Latent("gaussian", 3, 4, unimix=0.01, min_std=0.2)
    assert latent.normals(torch.full((6,), -50.0)).std.min() == pytest.approx(0.2)
    torch.testing.assert_close(latent.normals(torch.zeros(6)).std, torch.ones(3))


# States


@pytest.mark.parametrize("case", CASES)
def test_a_roll_out_continues_where_another_ended(case):
    model, batch = made(**CASES[case]).eval(), sequences(time=7)
    start = model.start(batch.frames[:, 0])
    whole = model.rollout(start, batch.actions)
    one = model.rollout(start, batch.actions[:, :2])
    two = model.rollout(one[:, -1], batch.actions[:, 2:])
    torch.testing.assert_close(torch.cat([one, two], 1), whole)
    assert model.rollout(start, batch.actions[:, :0]).shape == (6, 0, model.latent_size)


@pytest.mark.parametrize("case", CASES)
def test_roll_outs_repeat_and_draws_follow_their_generator(case):
    model, batch = made(**CASES[case]).eval(), sequences()
    start = model.start(batch.frames[:, 0])

    def drawn(seed):
        return model.rollout(start, batch.actions, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(model.rollout(start, batch.actions), model.rollout(start, batch.actions))
    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.mark.parametrize("case", CASES)
def test_the_roll_out_is_differentiable_in_the_actions(case):
    model, batch = made(**CASES[case]).eval(), sequences()
    actions = batch.actions.clone().requires_grad_()
    model.rollout(model.start(batch.frames[:, 0]), actions).square().sum().backward()
    assert (actions.grad.abs().sum((0, 2)) > 0).all()


@pytest.mark.parametrize("case", CASES)
def test_filtered_states_begin_like_single_frames_and_never_see_later_ones(case):
    model, batch = made(**CASES[case]).eval(), sequences()
    states = model.encode(batch).mean
    torch.testing.assert_close(states[:, 0], model.start(batch.frames[:, 0]))
    torch.testing.assert_close(model.encode(batch.frames).mean[:, 0], states[:, 0])
    later = Sequences(batch.frames.clone(), batch.actions.clone())
    later.frames[:, 3:] = 0.0
    later.actions[:, 3:] = 0.0
    torch.testing.assert_close(model.encode(later).mean[:, :3], states[:, :3])
    assert not torch.allclose(model.encode(later).mean[:, 4], states[:, 4])


@pytest.mark.parametrize("case", CASES)
def test_frames_are_decoded_in_the_units_of_the_data(case):
    model, batch = made(**CASES[case]).eval(), sequences()
    states = model.encode(batch).mean
    before = model.decode(states)
    assert before.shape == batch.frames.shape
    model.pixels.scale.mul_(2.0)
    torch.testing.assert_close(model.decode(states) - 0.4, 2.0 * (before - 0.4))
    torch.testing.assert_close(model.imagine(batch), model.decode(model.predict(batch)))
    torch.testing.assert_close(model.reconstruct(batch), model.decode(model.encode(batch).mean))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_repeats_with_its_noise_and_beta_weighs_the_kl(case):
    model, batch = made(**CASES[case]).eval(), sequences()
    whole, none = (model.loss(batch, noise=Noise(1), beta_scale=beta) for beta in (1.0, 0.0))
    assert torch.equal(model.loss(batch, noise=Noise(1)).total, whole.total)
    torch.testing.assert_close(none.total, whole.parts["reconstruction"])
    assert whole.total > none.total


@pytest.mark.parametrize("case", CASES)
def test_a_model_is_made_again_from_its_hyperparameters(case):
    model = made(**CASES[case])
    again = RSSM(**model.hyperparameters()).double()
    again.load_state_dict(model.state_dict())
    batch = sequences()
    assert torch.equal(again.eval().predict(batch), model.eval().predict(batch))


def test_frames_of_other_sizes_and_stored_bytes_are_taken():
    model = made(frame=(3, 40, 64), **SMALL, encoder="convnet").eval()
    batch = sequences(frame=(3, 40, 64))
    stored = Sequences((batch.frames * 255).to(torch.uint8), batch.actions)
    assert model.reconstruct(stored).shape == stored.frames.shape
    assert torch.isfinite(model.loss(stored, noise=Noise(0)).total)


@pytest.mark.parametrize("latent", ["categorical", "gaussian"])
def test_a_few_steps_of_training_make_it_foresee_where_a_bar_goes(latent):
    """A bar of three columns is moved by the action; roll-outs of the trained model decode to where it ends."""
    torch.manual_seed(0)
    model = RSSM(frame=(1, 8, 8), action_dim=1, **{**SMALL, "variables": 16, "latent": latent, "deter": 48})
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(100):
        optimiser.zero_grad()
        model.loss(bars(48, step), noise=Noise(step)).total.backward()
        optimiser.step()
    model.eval()
    batch = bars(200, 10_000)
    with torch.no_grad():
        error = (model.imagine(batch) - batch.frames)[:, 1:].square().mean()
        still = (batch.frames[:, :1] - batch.frames)[:, 1:].square().mean()
    assert error < 0.25 * still


def bars(count, seed):
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(8, (count, 1), generator=generator)
    actions = torch.randint(-1, 2, (count, 3), generator=generator)
    places = torch.cat([place, place + actions.cumsum(1)], 1) % 8
    columns = sum(functional.one_hot((places + shift) % 8, 8) for shift in (0, 1, 2))
    return Sequences(columns[:, :, None, None].expand(-1, -1, 1, 8, -1).float(), actions[..., None].float())


# Faults


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("model.variant: unknown 'dreamr'. Did you mean 'dreamer'", {"variant": "dreamr"}),
        ("model.latent: unknown 'normal'", {"latent": "normal"}),
        ("model.classes: expected 2 to", {"classes": 1}),
        ("model.deter: expected", {"deter": 0}),
        ("model.unimix", {"unimix": 1.0}),
        ("model.free_nats", {"free_nats": -1.0}),
        ("model.kl_rep", {"kl_rep": float("nan")}),
        ("model.classes: the variant 'study' has no such option", {"variant": "study", "classes": 8}),
        ("model.encoder: unknown 'menet'", {"encoder": "menet"}),
    ],
)
def test_options_out_of_range_are_refused_by_name(words, options):
    with pytest.raises(ConfigError) as caught:
        RSSM(frame=(1, 28, 28), action_dim=2, **options)
    assert words in str(caught.value)


def test_data_that_do_not_fit_are_refused():
    model = made(**SMALL)
    with pytest.raises(DataError, match="at least 2 frames"):
        model.loss(sequences(time=1))
    with pytest.raises(DataError, match=r"1, 28, 28.*\(6, 5, 1, 20, 28\)"):
        model.loss(sequences(frame=(1, 20, 28)))
    with pytest.raises(DataError, match="44 numbers"):
        model.decode(torch.zeros(2, 3))
    with pytest.raises(NotSupportedError, match="imagine"):
        model.sample(3)


# Round trips


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_imagines_the_same_frames(case, tmp_path):
    model = RSSM(frame=(1, 28, 28), action_dim=2, **CASES[case]).eval()
    model.save(tmp_path / "model")
    batch = sequences()
    assert torch.equal(noumena.load(tmp_path / "model").imagine(batch), model.imagine(batch))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_can_be_computed_in_mixed_precision(case):
    model, batch = RSSM(frame=(1, 28, 28), action_dim=2, **CASES[case]).eval(), sequences()
    whole = model.loss(batch, noise=Noise(0)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model.loss(batch, noise=Noise(0)).total
    mixed.backward()
    torch.testing.assert_close(mixed, whole, rtol=0.02, atol=0.02)
