"""The page's server: for browsers of this machine alone, and for nothing but the page."""

import logging
import socket
import threading
from html import escape
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noumena.core.errors import ConfigError, NotSupportedError
from noumena.explore.service import Service

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")
# Dash answers any other path with the page, too.
_EXACT = frozenset({"/", "/_dash-layout", "/_dash-dependencies", "/_dash-update-component", "/_favicon.ico"})
_ASSETS = frozenset({"/assets/explore.css", "/assets/explore.js"})
_PARTS = "/_dash-component-suites/"
_LARGEST_REQUEST = 1 << 20


def content_policy(script_hashes: list[str]) -> str:
    """What the page may load and run.

    Scripts of this server and those of Dash's own that are inside the page, by hash. ``unsafe-eval`` is for
    plotly's WebGL traces: the library they draw with (regl) compiles its drawing commands while it runs, and without
    it there is no map. Nothing can be loaded from, or sent to, anywhere else.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'self' 'unsafe-eval' {' '.join(script_hashes)}",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ]
    )


def make_app(service: Service) -> Any:
    """The page as a Dash application.

    Raises:
        NotSupportedError: Dash is not installed.
    """
    require_dash()
    _import_whole()
    from dash import Dash

    from noumena.explore.callbacks import connect
    from noumena.explore.downloads import connect_downloads
    from noumena.explore.layout import page

    app = Dash(
        __name__,
        assets_folder=str(Path(__file__).parent / "assets"),
        url_base_pathname="/",
        serve_locally=True,
        compress=False,
        title=escape(f"{service.about.title} – Noumena explorer"),
        update_title="",
        add_log_handler=False,
        enable_mcp=False,
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.layout = lambda: page(service)
    connect(app, service)
    connect_downloads(app, service)
    _guard(app)
    return app


def _import_whole() -> None:
    """Import what plotly asks about at every answer, in whichever thread, once it is imported at all.

    A family that imports one of these when it is first needed would have another thread find half of it.
    """
    for name in ("PIL.Image", "pandas"):
        if find_spec(name.partition(".")[0]) is not None:
            import_module(name)


def require_dash() -> None:
    """Make sure that the page can be made.

    Raises:
        NotSupportedError: Dash or plotly is not installed.
    """
    for name in ("dash", "plotly"):
        if find_spec(name) is None:
            raise NotSupportedError(f"the explorer's page needs the package '{name}': pip install 'noumena[explore]'")


def _guard(app: Any) -> None:
    """Refuse whatever is not asked by a page of this server, and tell browsers what the page may do."""
    from flask import Response, abort, request

    policy = content_policy(list(app.csp_hashes()))
    app.server.config["MAX_CONTENT_LENGTH"] = _LARGEST_REQUEST

    def refuse() -> None:
        # A name of another machine that was made to point here (DNS rebinding) does not open the page to it.
        port = request.environ["SERVER_PORT"]
        if request.host not in {f"{name}:{port}" for name in _NAMES}:
            abort(403, "this page is for browsers of this machine, at 127.0.0.1 or localhost.")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            abort(403, "another site may not ask this one.")
        if request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site") and request.path != "/":
            abort(403, "another site may not ask this one.")
        if request.path not in _EXACT | _ASSETS and not request.path.startswith(_PARTS):
            abort(404)

    def protect(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["X-Frame-Options"] = "DENY"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
        response.headers["Cross-Origin-Opener-Policy"] = "same-origin"
        return response

    app.server.before_request(refuse)
    app.server.after_request(protect)


class Server:
    """The page on a port of the loopback interface, which is bound when this is made.

    Args:
        app: of :func:`make_app`.
        port: 0 for any free one.

    Raises:
        ConfigError: the port is taken or may not be used.
    """

    def __init__(self, app: Any, port: int = 0) -> None:
        from werkzeug.serving import make_server

        # Bound here: werkzeug ends the process when a port is taken.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((HOST, port))
            listening.listen()
        except OSError as error:
            listening.close()
            raise ConfigError(
                f"port {port} of {HOST} cannot be used: {error.strerror}. Choose another with --port, or any free one "
                "with --port 0."
            ) from error
        self.port: int = listening.getsockname()[1]
        logging.getLogger("werkzeug").setLevel(logging.WARNING)
        with listening:
            self._server = make_server(HOST, self.port, app.server, threaded=True, fd=listening.fileno())
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The address of the page."""
        return f"http://{HOST}:{self.port}/"

    def serve(self) -> None:
        """Answer until the process is interrupted."""
        self._server.serve_forever()

    def start(self) -> None:
        """Answer in a thread of its own."""
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop answering and free the port."""
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
