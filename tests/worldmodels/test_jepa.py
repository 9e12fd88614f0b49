from typing import Any

import pytest
import torch

import noumena
from noumena.core.errors import ConfigError, DataError
from noumena.core.seeding import Noise
from noumena.worldmodels.baselines import Random, Supervised
from noumena.worldmodels.jepa import JEPA
from noumena.worldmodels.model import WorldModel
from noumena.worldmodels.networks.encoders import MeNet5, ResNet18, make_encoder
from noumena.worldmodels.objectives.vicreg import covariance_loss, variance_loss
from noumena.worldmodels.sequences import Sequences

SIZES: dict[str, Any] = {"frame": (1, 28, 28), "action_dim": 2}
SMALL: dict[str, Any] = {**SIZES, "latent_dim": 24}


def sequences(n: int = 6, steps: int = 5, *, frame: tuple[int, int, int] = (1, 28, 28), seed: int = 0) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    return Sequences(
        torch.rand(n, steps, *frame, generator=generator),
        torch.randn(n, steps - 1, 2, generator=generator),
        torch.randn(n, steps, 1, 2, generator=generator),
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "vicreg": {},
    "projector": {"projector": [16, 8]},
    "backbone-mlp": {"backbone_mlp": [16, 12]},
    "mlp-predictor": {"predictor": "mlp", "predictor_width": 16},
    "two-layers": {"predictor_layers": 2},
    "simclr": {"objective": "simclr"},
    "within": {"objective": "simclr", "negatives": "within"},
    "both": {"objective": "simclr", "negatives": "both"},
    "idm": {"objective": "idm", "idm": 1.0},
    "delta-idm": {"idm": 1.0, "idm_input": "difference"},
    "time": {"std_time": 1.0, "cov_time": 1.0},
    "sigreg": {"objective": "sigreg", "sigreg_directions": 32},
    "swap": {"swap": "always"},
    "targets": {"targets": 2},
    "episode": {"episode_dim": 6},
    "convnet": {"encoder": "convnet"},
    "resnet": {"encoder": "resnet18"},
}


def models() -> list[Any]:
    made = [pytest.param(lambda o=options: JEPA(**{**SMALL, **o}), id=name) for name, options in VARIANTS.items()]
    return [*made, pytest.param(lambda: Supervised(**SMALL, state_shape=(1, 2)), id="supervised")]


@pytest.mark.parametrize("make", models())
def test_every_parameter_gets_a_gradient(make: Any):
    model = make().train()
    # Residual blocks begin as the identity, so that all but their last weights get one from the second step on.
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(2):
        optimizer.zero_grad()
        model.loss(sequences(), noise=Noise(step)).total.backward()
        optimizer.step()
    without = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    # An encoder's last bias shifts every latent alike, which differences and deviations do not see.
    assert not [name for name in without if not name.endswith("head.bias")]


@pytest.mark.parametrize("make", models())
def test_predictions_begin_with_the_encoding_and_never_look_at_later_frames(make: Any):
    model = make().eval()
    batch = sequences()
    with torch.no_grad():
        predicted = model.predict(batch)
        torch.testing.assert_close(predicted[:, 0], model.encode(batch).mean[:, 0])
        other = Sequences(batch.frames.clone(), batch.actions)
        other.frames[:, 1:] = 0.0
        torch.testing.assert_close(model.predict(other), predicted)
        assert predicted.shape == (6, 5, model.latent_size)


@pytest.mark.parametrize("make", models())
def test_states_do_not_depend_on_later_actions_nor_on_the_rest_of_the_batch(make: Any):
    model = make().eval()
    batch = sequences()
    with torch.no_grad():
        start = model.start(batch.frames[:, 0])
        whole = model.rollout(start, batch.actions)
        torch.testing.assert_close(model.rollout(start, batch.actions[:, :2]), whole[:, :2])
        torch.testing.assert_close(model.rollout(start[:1], batch.actions[:1]), whole[:1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", models())
def test_a_saved_model_gives_the_same_states(make: Any, tmp_path: Any):
    model = make().eval()
    model.save(tmp_path / "model")
    again: Any = noumena.load(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(again.predict(sequences()), model.predict(sequences()))


def test_the_objective_is_the_weighted_sum_of_published_terms():
    model = JEPA(**SMALL, sim=3.0, std=5.0, cov=0.5, skip_first=True).double().train()
    batch = sequences(8)
    batch = Sequences(batch.frames.double(), batch.actions.double())
    terms = model.loss(batch, noise=Noise(0))
    encoded = model.start(batch.frames.flatten(0, 1)).unflatten(0, (8, 5)).transpose(0, 1)
    predicted = model.rollout(encoded[0], batch.actions).transpose(0, 1)
    sim = torch.stack([((p - s) ** 2).mean() for p, s in zip(predicted, encoded[1:], strict=True)]).mean()
    std = torch.stack([variance_loss(s) for s in encoded[1:]]).mean()
    cov = torch.stack([covariance_loss(s) for s in encoded[1:]]).mean()
    torch.testing.assert_close(terms.parts["sim"], sim)
    torch.testing.assert_close(terms.total, 3.0 * sim + 5.0 * std + 0.5 * cov)


def test_inverse_dynamics_reads_the_action_from_the_rolled_out_state_and_the_next_encoding():
    model = JEPA(**SMALL, objective="idm", idm=2.0).double().train()
    batch = sequences(8)
    batch = Sequences(batch.frames.double(), batch.actions.double())
    terms = model.loss(batch, noise=Noise(0))
    encoded = model.start(batch.frames.flatten(0, 1)).unflatten(0, (8, 5))
    rolled = model.rollout(encoded[:, 0], batch.actions)
    linear, errors = model.inverse.linear, []
    for t in range(4):
        before = encoded[:, 0] if t == 0 else rolled[:, t - 1]
        read = torch.cat([before, encoded[:, t + 1]], 1) @ linear.weight.T + linear.bias
        errors.append((read - model.action_scale(batch.actions[:, t])).square().mean())
    torch.testing.assert_close(terms.total, 2.0 * torch.stack(errors).mean())


def test_the_same_noise_gives_the_same_loss_and_other_noise_another():
    model = JEPA(**SMALL, swap="always", targets=2, episode_dim=4).train()
    first, again, other = (model.loss(sequences(), noise=Noise(seed)).total for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_all_targets_are_as_good_as_no_choice():
    model = JEPA(**SMALL).eval()
    chosen = JEPA(**SMALL, targets=4).eval()
    chosen.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        chosen.loss(sequences(), noise=Noise(0)).total, model.loss(sequences(), noise=Noise(1)).total
    )


def test_a_swap_is_switched_on_by_a_fixed_background_alone():
    from noumena.worldmodels.episodes.data import as_dataset

    moving = torch.zeros(40, 17, 1, 12 * 12)
    generator = torch.Generator().manual_seed(0)
    moving.scatter_(3, torch.randint(144, (40, 17, 1, 1), generator=generator), 1.0)
    moving = moving.view(40, 17, 1, 12, 12)
    actions = torch.randn(40, 16, 2, generator=generator)
    for background, expected in ((torch.rand(40, 1, 1, 12, 12, generator=generator), True), (torch.zeros(1), False)):
        model = JEPA(latent_dim=8, swap="auto")
        model.prepare(as_dataset(Sequences(moving + background, actions), None), seed=0)
        assert model.swaps is expected


def test_the_scale_of_frames_and_actions_does_not_matter():
    from noumena.worldmodels.episodes.data import as_dataset

    batch = sequences(20)
    scaled = Sequences(255.0 * batch.frames + 3.0, 10.0 * batch.actions - 1.0)
    states: list[torch.Tensor] = []
    for data in (batch, scaled):
        model = JEPA(latent_dim=8)
        model.prepare(as_dataset(data, None), seed=0)
        with torch.no_grad():
            states.append(model.eval().predict(data))
    torch.testing.assert_close(*states, atol=1e-4, rtol=1e-3)


def test_episode_latents_are_carried_through_a_rollout_unchanged():
    model = JEPA(**SMALL, episode_dim=6).eval()
    with torch.no_grad():
        predicted = model.predict(sequences())
    torch.testing.assert_close(predicted[:, 1:, -6:], predicted[:, :1, -6:].expand(-1, 4, -1))
    assert model.latent_size == 30


def test_encoders_have_the_studys_sizes():
    def count(network: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in network.parameters())

    assert count(MeNet5((1, 28, 28), width=2, latent_dim=512)) == 384_768
    assert count(ResNet18((1, 28, 28))) == pytest.approx(11.17e6, rel=1e-3)
    assert count(JEPA(**SIZES, width=2, latent_dim=512, idm=1.0)) == 1_179_394


@pytest.mark.parametrize("name", ["menet5", "resnet18", "convnet"])
@pytest.mark.parametrize("frame", [(1, 28, 28), (3, 64, 64), (2, 31, 50)])
def test_encoders_take_frames_of_any_size(name: Any, frame: tuple[int, int, int]):
    network = make_encoder(name, frame, width=1, latent_dim=10)
    assert network(torch.zeros(2, *frame)).shape == (2, 10)


def test_blocks_of_a_resnet_begin_as_the_identity():
    network = ResNet18((1, 28, 28), latent_dim=512)
    x = torch.rand(3, 64, 7, 7)
    torch.testing.assert_close(network.blocks[0](x), x)


def test_a_random_model_is_not_changed_by_training():
    from noumena.worldmodels.episodes.data import as_dataset

    model = Random(latent_dim=8)
    data = as_dataset(sequences(16), None)
    model.prepare(data, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.fit(data, max_epochs=2, batch_size=8, seed=0, progress=False)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name])


def test_a_supervised_model_learns_and_reads_the_state_in_its_units():
    from noumena.worldmodels.episodes.data import as_dataset

    generator = torch.Generator().manual_seed(0)
    position = 4.0 + 8.0 * torch.rand(64, 3, 1, 2, generator=generator)
    rows, columns = torch.arange(16.0)[:, None], torch.arange(16.0)
    x, y = (position[:, :, 0, i, None, None] for i in (0, 1))
    frames = torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 4)[:, :, None]
    batch = Sequences(frames, (position[:, 1:] - position[:, :-1])[:, :, 0], position)
    model = Supervised(latent_dim=16)
    model.fit(as_dataset(batch, None), max_epochs=60, batch_size=16, lr=3e-3, seed=0, progress=False)
    with torch.no_grad():
        error = (model.read(model.predict(batch)) - position).square().sum(-1).mean().sqrt()
    assert error < 1.0  # pixels; the mean position is 3.3 away


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"objective": "vicregg"}, "did you mean 'vicreg'|vicreg"),
        ({"objective": "idm"}, "model.idm"),
        ({"latent_dim": 0}, "latent_dim"),
        ({"sim": -1.0}, "model.sim"),
        ({"temperature": 0.0}, "temperature"),
        ({"targets": 0}, "targets"),
        ({"encoder": "resnet18", "width": 2}, "one width"),
        ({"frame": (28, 28)}, "channels, height, width"),
        ({"encoder": "lenet"}, "model.encoder"),
        ({"projector": [0]}, "projector"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        JEPA(**{**SIZES, **options})


def test_frames_of_another_size_are_refused_with_both_sizes():
    model = JEPA(**SMALL).eval()
    with pytest.raises(DataError, match=r"1, 28, 28.*3, 28, 28"):
        model.encode(torch.zeros(2, 3, 28, 28))


@pytest.mark.parametrize(
    ("frames", "actions", "words"),
    [
        ((2, 5, 1, 8, 8), (2, 5, 2), "one action fewer than the 5 frames"),
        ((2, 5, 8, 8), (2, 4, 2), "batch, time, channels, height, width"),
        ((2, 5, 1, 8, 8), (3, 4, 2), r"expected shape \(2, 4, action\)"),
    ],
)
def test_frames_and_actions_that_do_not_fit_are_refused(frames: Any, actions: Any, words: str):
    with pytest.raises(DataError, match=words):
        Sequences(torch.zeros(frames), torch.zeros(actions))


def test_every_model_of_the_family_keeps_the_contract():
    assert all(issubclass(cls, WorldModel) for cls in (JEPA, Supervised, Random))
