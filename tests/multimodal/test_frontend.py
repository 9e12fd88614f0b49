import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noumena.core.errors import ConfigError, DataError
from noumena.multimodal.frontend import FrontEnd, Images
from noumena.multimodal.symmetry import Action, PointGroup
from tests.multimodal.bodies import observations, respond, surface


@pytest.fixture(scope="module")
def body():
    return observations(200)


def every_image(rows, action):
    return torch.cat([action(i, rows) for i in range(len(action.elements))])


# Scaling and components


@pytest.mark.parametrize("scale", ["column", "modality"])
@pytest.mark.parametrize("components", [None, 6])
def test_features_have_unit_variance_on_average_and_come_back(body, scale, components):
    x = body["shape"].double()
    front = FrontEnd(x.shape[1], components, scale).double()
    front.fit(x)
    features = front(x)
    moving = ~front.constant if components is None else torch.ones(6, dtype=torch.bool)
    assert float(features[:, moving].var(0, correction=0).mean()) == pytest.approx(1.0, abs=1e-6)
    difference = (front.inverse(features) - x).abs().max()
    assert float(difference) < (1e-10 if components is None else 0.2)


def test_all_components_together_lose_nothing(body):
    x = body["shape"].double()
    front = FrontEnd(x.shape[1], x.shape[1], "modality").double()
    front.fit(x)
    assert float((front.inverse(front(x)) - x).abs().max()) < 1e-6


@pytest.mark.parametrize("components", [None, 4])
def test_clamped_nodes_come_back_exactly_whatever_the_features_are(body, components):
    x = body["shape"].clone()
    x[:, 5] = 0.7
    front = FrontEnd(x.shape[1], components, "modality")
    front.fit(x)
    assert bool(front.constant[:24].all())
    wild = 100 * torch.randn(5, front.features, generator=torch.Generator().manual_seed(0))
    back = front.inverse(wild)
    assert torch.equal(back[:, :5], torch.zeros(5, 5))
    assert torch.equal(back[:, 5], torch.full((5,), 0.7))
    assert torch.isfinite(front(x)).all()


def test_one_scale_for_a_modality_keeps_ratios_of_errors(body):
    x = body["shape"].double()
    front = FrontEnd(x.shape[1], None, "modality").double()
    front.fit(x)
    assert len(front.scale[~front.constant].unique()) == 1


def test_more_components_than_rows_carry_are_zero_rows():
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    front = FrontEnd(20, 8, "modality")
    front.fit(x)
    norms = front.basis.norm(dim=1)
    assert ((norms - 1).abs() < 1e-5).sum() == 2
    assert (norms == 0).sum() == 6
    assert float((front.inverse(front(x)) - x).abs().max()) < 1e-4


def test_a_modality_nobody_has_is_refused():
    with pytest.raises(DataError, match="missing in every training row"):
        FrontEnd(3, None, "column").fit(torch.zeros(0, 3))


# Symmetry


@pytest.mark.parametrize("name", ["C1", "C4", "C8", "C8v", "C2v", "C1v"])
def test_the_elements_form_a_group(name):
    elements = PointGroup.parse(name).elements
    products = torch.einsum("aij,bjk->abik", elements, elements).flatten(0, 1)
    distance = (products[:, None] - elements[None]).abs().amax((2, 3)).amin(1)
    assert float(distance.max()) < 1e-12
    assert len(elements) == int(name[1:].rstrip("v")) * (2 if name.endswith("v") else 1)


@pytest.mark.parametrize("name", ["", "D4", "C0", "C24V", "c4", "C4h", "C-1"])
def test_other_symbols_are_refused(name):
    with pytest.raises(ConfigError, match="C24v"):
        PointGroup.parse(name)


@pytest.mark.parametrize("name", ["C8v", "C4"])
def test_the_body_answers_the_moved_pose_with_the_moved_wrench_and_shape(name):
    group, shape = PointGroup.parse(name), surface()
    pose = 0.3 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    force, field = map(torch.from_numpy, respond(pose.numpy(), shape))
    acts = [Action(group, kind, shape.nodes) for kind in ("pose", "wrench", "displacement")]
    for i in range(len(group.elements)):
        moved_force, moved_field = respond(acts[0](i, pose).numpy(), shape)
        assert torch.allclose(acts[1](i, force), torch.from_numpy(moved_force), atol=1e-12)
        assert torch.allclose(acts[2](i, field), torch.from_numpy(moved_field), atol=1e-6)


def test_a_surface_without_the_symmetry_is_refused():
    with pytest.raises(DataError, match="has not the symmetry"):
        PointGroup.parse("C5").on_nodes(surface().nodes)


def test_displacements_without_a_surface_are_refused():
    with pytest.raises(ConfigError, match=r"data\.mesh"):
        Action(PointGroup.parse("C4"), "displacement", None)


@pytest.mark.parametrize("name", ["C8v", "C4", "C2v"])
@pytest.mark.parametrize(("modality", "components"), [("shape", 10), ("shape", None), ("force", None)])
def test_statistics_are_those_of_all_images_together(body, name, modality, components):
    group = PointGroup.parse(name)
    kind = {"shape": "displacement", "force": "wrench"}[modality]
    action = Action(group, kind, body.surface.nodes)
    x = body[modality].double()
    rule = "modality" if modality == "shape" else "column"
    symmetric, explicit = (FrontEnd(x.shape[1], components, rule).double() for _ in range(2))
    symmetric.fit(x, action, group.order)
    explicit.fit(every_image(x, action))
    moving = ~symmetric.constant
    assert torch.equal(symmetric.constant, explicit.constant)
    assert torch.allclose(symmetric.mean[moving], explicit.mean[moving], atol=1e-9)
    assert torch.allclose(symmetric.scale, explicit.scale, atol=1e-9)
    if components is not None:
        # The same subspace, whatever the bases are.
        projectors = [front.basis.T @ front.basis for front in (symmetric, explicit)]
        assert torch.allclose(*projectors, atol=1e-6)


@pytest.mark.parametrize("components", [12, None])
def test_images_of_features_are_the_features_of_images(body, components):
    group = PointGroup.parse("C8v")
    fronts = []
    for modality in body.modalities:
        action = Action(group, modality.kind, body.surface.nodes)
        front = FrontEnd(
            modality.size,
            components if modality.name == "shape" else None,
            "modality" if modality.name == "shape" else "column",
        )
        front.double().fit(body[modality.name].double(), action, group.order)
        fronts.append(front)
    images = Images(group, body.modalities, fronts, body.surface.nodes).double()
    rows = [body[name][:16].double() for name in body.names]
    uniform = (torch.arange(16, dtype=torch.float64) + 0.5) / 16
    found = images([front(x) for front, x in zip(fronts, rows, strict=True)], uniform)
    for modality, front, x, image in zip(body.modalities, fronts, rows, found, strict=True):
        action = Action(group, modality.kind, body.surface.nodes)
        expected = torch.cat([front(action(i, x[[i]])) for i in range(16)])
        assert torch.allclose(image, expected, atol=1e-6), modality.name


@given(st.integers(1, 36), st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_chain_of_subgroups_gives_the_average_over_the_group(order, mirror):
    group = PointGroup(order, mirror)
    action = Action(group, "wrench", None)
    moment = torch.randn(6, 6, generator=torch.Generator().manual_seed(order), dtype=torch.float64)
    expected = torch.stack([six @ moment @ six.T for six in group.on_six()]).mean(0)
    assert torch.allclose(action.average_of_moment(moment, order), expected, atol=1e-12)
