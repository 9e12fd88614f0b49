import http.client
import io
import json
import re
import socket

import numpy as np
import pytest

from noumena.core.errors import ConfigError
from noumena.core.evaluation import Table
from noumena.core.exploring import Drawing
from noumena.explore.server import Server, make_app
from noumena.explore.service import About, Service
from tests.explore.curves import Curves


class Broken(Curves):
    def original(self, index):
        raise ZeroDivisionError("secret of the inside")

    def details(self, index):
        raise ConfigError("the table is lost: look for it")


class Unplain(Curves):
    """Its answers hold what no page can be sent."""

    def original(self, index):
        return Drawing(None, note={"a", "set"})

    def details(self, index):
        return (Table({"a", "set"}, ("wave",), [["one"]]),)


def served(explorer):
    server = Server(make_app(Service(explorer, About("run <b>", "curves/exact"))))
    server.start()
    return server


@pytest.fixture(scope="module")
def server():
    found = served(Curves(20))
    yield found
    found.close()


def ask(server, path, *, host=None, method="GET", body=None, headers=None):
    """A request exactly as written, no path normalised: status, headers, content."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest(method, path, skip_host=True)
    content = b"" if body is None else json.dumps(body).encode()
    given = {"Host": host or f"127.0.0.1:{server.port}", "Content-Length": str(len(content))}
    given |= {"Content-Type": "application/json"} if body is not None else {}
    for name, value in (given | (headers or {})).items():
        connection.putheader(name, value)
    connection.endheaders(content)
    response = connection.getresponse()
    answer = response.status, response.headers, response.read().decode("utf-8", "replace")
    connection.close()
    return answer


def callback(server, output, inputs, state=(), *, outputs=None, changed=None):
    """Ask a callback what it makes of values, as a page would: the parts of the answer."""

    def spec(pairs):
        return [{"id": key.rpartition(".")[0], "property": key.rpartition(".")[2], "value": v} for key, v in pairs]

    body = {
        "output": output,
        "outputs": outputs or {"id": output.rpartition(".")[0], "property": output.rpartition(".")[2]},
        "inputs": spec(inputs),
        "state": spec(state),
        "changedPropIds": [changed or inputs[0][0]],
    }
    return ask(server, "/_dash-update-component", method="POST", body=body)


def test_it_listens_on_the_loopback_interface_alone(server):
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    # 127.0.0.2 is the same machine by another address: whatever is bound to all interfaces answers there.
    with pytest.raises(OSError, match=r"refused|assign|unreachable|timed out"):
        socket.create_connection(("127.0.0.2", server.port), timeout=2)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "192.168.0.1:{port}"]
)
@pytest.mark.parametrize("path", ["/", "/_dash-layout", "/assets/explore.css"])
def test_another_name_for_this_machine_does_not_open_the_page(server, host, path):
    assert ask(server, path, host=host.format(port=server.port))[0] == 403


def test_localhost_is_a_name_of_it(server):
    assert ask(server, "/", host=f"localhost:{server.port}")[0] == 200


@pytest.mark.parametrize(
    "headers", [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}], ids=str
)
def test_another_site_may_not_ask(server, headers):
    assert ask(server, "/_dash-update-component", method="POST", body={}, headers=headers)[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../x",
        "/assets/../server.py",
        "/assets/..%2fserver.py",
        "/assets/%2e%2e/server.py",
        "/assets//etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/etc/passwd",
        "/config.yaml",
        "/model/model.safetensors",
        "/_reload-hash",
        "/_mcp",
        "/anything",
        "/static/x",
    ],
)
def test_nothing_but_the_page_is_served(server, path):
    status, _, text = ask(server, path)
    assert status == 404
    assert "root:" not in text
    assert "Traceback" not in text


def test_parts_of_other_packages_are_not_served(server):
    for path in ("/_dash-component-suites/noumena/files.py", "/_dash-component-suites/dash/dash.py"):
        status, _, text = ask(server, path)
        assert status in (404, 500)
        assert "import" not in text


def test_the_page_names_no_address_outside(server):
    status, headers, text = ask(server, "/")
    assert status == 200
    assert not re.findall(r"(?:src|href|action)=[\"'](?:https?:)?//", text)
    assert not re.findall(r"https?://(?!127\.0\.0\.1)", text)
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert "'unsafe-inline'" not in policy["script-src"]
    assert policy["connect-src"] == policy["frame-ancestors"].replace("none", "self") == "'self'"
    assert not re.findall(r"https?:|\*", headers["Content-Security-Policy"])
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_name_of_a_run_is_no_markup(server):
    assert "run <b>" not in ask(server, "/")[2].partition("<title>")[2].partition("</title>")[0]


def test_every_script_and_style_of_the_page_is_there(server):
    found = re.findall(r"(?:src|href)=\"([^\"]+)\"", ask(server, "/")[2])
    assert any("explore.js" in path for path in found)
    assert any("explore.css" in path for path in found)
    assert {ask(server, path)[0] for path in found} == {200}


@pytest.mark.parametrize("value", [-1, 99, "x", None, [1], 1e400, "../../etc/passwd"], ids=repr)
def test_a_bad_value_from_the_page_gets_a_message(server, value):
    status, _, text = callback(server, "details.children", [("chosen.data", value)])
    assert status == 200
    shown = json.loads(text)["response"]["details"]["children"]["props"]["children"]
    assert shown.startswith("point: expected a whole number from 0 to 19, got ")


@pytest.mark.parametrize("body", [{}, [], {"output": "nothing.data"}, {"output": "chosen.data", "inputs": 3}], ids=str)
def test_a_request_that_is_none_gets_no_traceback(server, body):
    status, _, text = ask(server, "/_dash-update-component", method="POST", body=body)
    assert status >= 400
    assert "Traceback" not in text
    assert ".py" not in text


def test_an_error_of_the_family_is_a_message_and_a_line_of_the_log(caplog):
    server = served(Broken(5))
    try:
        _, _, text = callback(server, "details.children", [("chosen.data", 0)])
        assert "the table is lost: look for it" in text
        names = ["figure.figure", "figure.style", "table.children", "note.children", "note.className"]
        names += ["download.hidden", "download.children"]
        listed = [*(f"original-{name}" for name in names), "chosen-name.children"]
        outputs = [{"id": n.rpartition(".")[0], "property": n.rpartition(".")[2]} for n in listed]
        status, _, text = callback(server, f"..{'...'.join(listed)}..", [("chosen.data", 0)], outputs=outputs)
    finally:
        server.close()
    assert status == 200
    note = json.loads(text)["response"]["original-note"]
    assert note["className"] == "message"
    assert note["children"].startswith("this did not work: ZeroDivisionError: secret of the inside.")
    assert "Traceback" not in text
    assert "ZeroDivisionError" in caplog.text
    assert "test_server.py" in caplog.text


def test_a_port_that_is_taken_is_an_error_with_a_way_out(server):
    with pytest.raises(ConfigError, match=rf"port {server.port} .*--port 0"):
        Server(make_app(Service(Curves(3), About("x", "y/z"))), server.port)


def test_a_closed_server_frees_its_port():
    first = served(Curves(3))
    first.close()
    second = Server(make_app(Service(Curves(3), About("x", "y/z"))), first.port)
    assert second.port == first.port
    second.close()


def test_latents_and_map_are_files_that_read_back():
    import pyarrow.csv

    from noumena.explore.downloads import file_name, latents, map_table

    curves = Curves(20)
    service = Service(curves, About("x", "y/z"))
    with np.load(io.BytesIO(latents(service)), allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["vectors"], curves.latents)
        assert archive["names"].tolist() == list(curves.points.names)
    table = pyarrow.csv.read_csv(io.BytesIO(map_table(service)))
    assert table.column_names == ["name", "pca1", "pca2", "kind", "energy"]
    np.testing.assert_allclose(table["pca1"], service.plane("pca").coordinates[:, 0], rtol=1e-5)
    assert file_name("../../a b/<c>", ".cif") == "a-b-c.cif"
    assert file_name("…", ".cif") == "drawing.cif"


def test_what_cannot_be_sent_to_the_page_becomes_a_message_in_its_place():
    server = served(Unplain(5))
    try:
        status, _, text = callback(server, "details.children", [("chosen.data", 0)])
    finally:
        server.close()
    assert status == 200
    assert "this did not work: TypeError" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("word", ["start", "end"])
def test_an_end_of_a_path_that_is_no_point_is_told(server, word):
    listed = [output for output in _outputs_of(server) if output.startswith(f"..{word}.data")]
    (name,) = listed
    outputs = [{"id": part.rpartition(".")[0], "property": part.rpartition(".")[2]} for part in name[2:-2].split("...")]
    status, _, text = callback(server, name, [(f"use-{word}.n_clicks", 1)], [("chosen.data", 99)], outputs=outputs)
    assert status == 200
    assert "point: expected a whole number from 0 to 19, got 99" in text


def _outputs_of(server):
    _, _, text = ask(server, "/_dash-dependencies")
    return [entry["output"] for entry in json.loads(text)]
