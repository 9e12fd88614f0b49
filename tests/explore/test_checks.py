import math

import numpy as np
import pytest

from noumena.core.errors import ConfigError, DataError, NotSupportedError
from noumena.core.exploring import Points, Slider
from noumena.explore import checks
from noumena.explore.service import About, Service
from tests.explore.curves import Curves

ABOUT = About("test", "curves/exact")
HOSTILE = [None, "0", "../../etc/passwd", [0], {"a": 1}, True, 1.5, math.nan, math.inf, -1, 10, 1e300]


@pytest.fixture
def service():
    return Service(Curves(10), ABOUT)


@pytest.mark.parametrize("value", HOSTILE, ids=repr)
def test_what_is_no_position_of_a_point_is_refused_in_words(service, value):
    for ask in (service.original, service.reconstruction, service.details, service.positions):
        with pytest.raises(ConfigError, match="whole number from 0 to 9"):
            ask(value)
    assert service.explorer.calls == []


def test_a_whole_number_may_come_as_a_float(service):
    assert service.original(3.0).note == "curve 3"


@pytest.mark.parametrize(
    "value", [None, "x", [], [0.0, 0.0], [0.0] * 4, [0.0, "1", 0.0], [0.0, math.nan, 0.0], [99.0, 0.0, 0.0], [True] * 3]
)
def test_positions_of_sliders_are_as_many_finite_numbers_in_their_ranges(service, value):
    with pytest.raises(ConfigError, match="sliders: expected"):
        service.moved(0, value)
    assert not [call for call in service.explorer.calls if call[0] == "moved"]


def test_a_slider_reaches_as_far_as_its_sample(service):
    service.explorer.latents[2, 0] = 50.0
    assert service.bounds(2)[0] == (-6.0, 50.0)
    assert service.moved(2, [50.0, 0.0, 0.0]) is not None


def test_numbers_of_steps_and_samples_have_limits(service):
    for steps in (0, 1, checks.MAX_STEPS + 1, 2.5, None):
        with pytest.raises(ConfigError, match="steps"):
            service.path(0, 1, steps)
    for n in (0, checks.MAX_SAMPLES + 1, None, "3"):
        with pytest.raises(ConfigError, match="number of samples"):
            service.samples(n, 0)
    for seed in (-1, 2**31, 0.5, None):
        with pytest.raises(ConfigError, match="seed"):
            service.samples(1, seed)


def test_what_a_model_cannot_do_is_said_in_the_familys_words():
    reasons = {name: f"no {name} here" for name in ("reconstruction", "moved", "path", "samples")}
    service = Service(Curves(5, without=reasons), ABOUT)
    for ask, reason in (
        (lambda: service.reconstruction(0), "no reconstruction here"),
        (lambda: service.moved(0, [0.0] * 3), "no moved here"),
        (lambda: service.path(0, 1, 3), "no path here"),
        (lambda: service.samples(1, 0), "no samples here"),
    ):
        with pytest.raises(NotSupportedError, match=reason):
            ask()


@pytest.mark.parametrize(("words", "expected"), [("curve 7", 7), ("#3", 3), ("URVE 5", 5), (" curve 1 ", 1)])
def test_points_are_found_by_name_part_of_it_or_position(service, words, expected):
    assert service.find(words)[0] == expected


def test_a_part_of_several_names_finds_the_first_and_says_so(service):
    assert service.find("curve") == (0, "10 names have 'curve'; this is the first.")


@pytest.mark.parametrize("words", ["", None, "nobody", "#10", "#-1", 5, "x" * 201])
def test_a_name_of_no_point_is_refused_in_words(service, words):
    with pytest.raises(ConfigError):
        service.find(words)


def test_latents_that_are_not_finite_are_an_error_before_any_page():
    curves = Curves(10)
    curves.latents[3, 1] = math.nan
    with pytest.raises(DataError, match="1 of 10 samples are not finite"):
        Service(curves, ABOUT)


def test_no_points_are_an_error_before_any_page():
    with pytest.raises(DataError, match="no points"):
        Service(Curves(0), ABOUT)


def test_an_explorer_that_contradicts_itself_is_refused():
    curves = Curves(10)
    curves.points = Points(curves.latents, ["one"])
    with pytest.raises(ConfigError, match="10 points and 1 of names"):
        Service(curves, ABOUT)
    curves = Curves(10)
    curves.points = Points(curves.latents, curves.points.names, {"kind": np.zeros(3)})
    with pytest.raises(ConfigError, match="3 of colour 'kind'"):
        Service(curves, ABOUT)
    curves = Curves(10)
    curves.sliders = [Slider("z0", 1.0, 1.0)]
    with pytest.raises(ConfigError, match="'z0' goes from"):
        Service(curves, ABOUT)


def test_recent_drawings_are_kept_and_old_ones_dropped():
    service = Service(Curves(200), ABOUT)
    first = service.original(0)
    assert service.original(0) is first
    for i in range(1, 100):
        service.original(i)
    assert service.original(0) is not first
    assert service.explorer.calls.count(("original", 0)) == 2


def test_of_several_moves_of_a_page_only_the_last_is_drawn(service):
    values = [0.0, 0.0, 0.0]
    assert service.moved(0, values, page="a", count=5) is not None
    assert service.moved(0, [1.0, 0.0, 0.0], page="a", count=4) is None  # came late
    assert service.moved(0, [1.0, 0.0, 0.0], page="b", count=1) is not None  # of another window
    assert service.moved(0, [1.0, 0.0, 0.0], page="a", count=6) is not None


def test_one_question_at_a_time_reaches_the_model():
    import threading
    import time

    class Slow(Curves):
        inside = most = 0

        def original(self, index):
            self.inside += 1
            self.most = max(self.most, self.inside)
            time.sleep(0.005)
            self.inside -= 1
            return super().original(index)

    slow = Slow(20)
    service = Service(slow, ABOUT)
    threads = [threading.Thread(target=service.original, args=(i,)) for i in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert slow.most == 1
    assert len(slow.calls) == 20
