"""A page in a browser, for the end-to-end tests of the explorer and of the families' views.

``explored`` opens the explorer of a trained model (or a run's folder, or an Explorer itself) in headless Chromium and
gives its page; afterwards the test fails if the browser reported an error or asked any other host for anything.
"""

import shutil
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import pytest

from noumena.core.exploring import Explorer
from noumena.explore.opening import make_explorer, open_run
from noumena.explore.service import About, Service

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@cache
def find_browser():
    """The path of a Chromium: playwright's own, or one of the system; ``None`` where there is neither."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        return None
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    if own and Path(own).is_file():
        return own
    return next(filter(None, map(shutil.which, _NAMES)), None)


def pytest_collection_modifyitems(items):
    """Tests that need a browser are left out where there is none: decided once, when they are collected."""
    wanting = [item for item in items if {"explored", "browser"} & set(getattr(item, "fixturenames", ()))]
    if wanting and find_browser() is None:
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason="no Chromium: run `playwright install chromium`"))


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    path = find_browser()  # before playwright runs, which cannot be started twice at a time
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-background-networking", "--use-gl=angle", "--use-angle=swiftshader"]
        options.append("--enable-unsafe-swiftshader")
        found = playwright.chromium.launch(executable_path=path, args=options)
        yield found
        found.close()


class Watch:
    """What a browser complained of, and whom it asked."""

    def __init__(self, page, url):
        self.errors, self.foreign = [], []
        page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self._asked(request.url, url))

    def _asked(self, address, url):
        if not address.startswith((url, "data:", "blob:")):
            self.foreign.append(address)


def serve(service):
    """A server of a service's page, answering in a thread."""
    from noumena.explore.server import Server, make_app

    server = Server(make_app(service))
    server.start()
    return server


@contextmanager
def open_page(browser, service, *, width=1280, height=900):
    """The page of a service in a browser; raises AssertionError at the end if the browser complained."""
    server = serve(service)
    context = browser.new_context(viewport={"width": width, "height": height}, accept_downloads=True)
    try:
        page = context.new_page()
        page.set_default_timeout(20_000)
        watch = Watch(page, server.url)
        page.goto(server.url)
        page.wait_for_selector("#map .plot-container")
        yield page
        assert not watch.errors, watch.errors
        assert not watch.foreign, watch.foreign
    finally:
        context.close()
        server.close()
        service.close()


@pytest.fixture
def explored(browser):
    """``explored(model, splits)``, ``explored(run_folder)`` or ``explored(explorer)``: the page in the browser.

    Keywords: ``limit`` points at most, ``width`` and ``height`` of the window in CSS pixels.
    """
    with ExitStack() as stack:

        def opened(what, splits=None, *, limit=500, width=1280, height=900):
            if isinstance(what, Explorer):
                service = Service(what, About("test", "curves/exact"))
            elif splits is None:
                service = open_run(what, limit=limit)
            else:
                service = Service(make_explorer(what, splits, limit), About("test", type(what).__name__))
            return stack.enter_context(open_page(browser, service, width=width, height=height))

        yield opened


def click_point(page, index):
    """Click the point at position ``index`` of the map, where it is on the screen."""
    page.locator("#map").scroll_into_view_if_needed()
    place = page.evaluate(
        """([index]) => {
            const gd = document.querySelector("#map .js-plotly-plot"), full = gd._fullLayout;
            for (const trace of gd._fullData) {
                const at = Array.from(trace.customdata).indexOf(index);
                if (at < 0) continue;
                const box = gd.getBoundingClientRect(), size = full._size;
                const x = full.xaxis.d2p(trace.x[at]), y = full.yaxis.d2p(trace.y[at]);
                return [box.left + size.l + x, box.top + size.t + y];
            }
        }""",
        [index],
    )
    page.mouse.move(place[0] - 3, place[1] - 3)
    page.mouse.move(*place)
    page.mouse.click(*place)


def expect(page, selector, words):
    """Wait until an element has a text."""
    page.wait_for_function(
        "([s, w]) => [...document.querySelectorAll(s)].some(e => e.innerText.includes(w))", arg=[selector, words]
    )
