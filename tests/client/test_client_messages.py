"""What the client says when something is wrong."""

import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from tacit.client.client import Client
from tacit.errors import (
    InputRangeError,
    InputShapeError,
    ServiceError,
    TacitError,
    UnknownModelError,
    UserError,
)
from tests.client.served import BOUND, KINDS, ROWS, Kind, clear_answer


class TestMessages:
    def test_a_wrong_shape_names_the_right_one(self, client: Client) -> None:
        with pytest.raises(InputShapeError, match=r"expected shape \(rows, 6\), got \(1, 5\)"):
            client.predict("squared", ROWS[:1, :5])

    def test_a_row_without_its_axis_is_refused(self, client: Client) -> None:
        with pytest.raises(InputShapeError, match=r"\(rows, 6\), got \(6,\)"):
            client.predict("squared", ROWS[0])

    @pytest.mark.parametrize("rows", [[["a"] * 6], [[None] * 6], [[1], [1, 2]], 3.0])
    def test_what_is_not_rows_of_numbers_is_refused(self, client: Client, rows: object) -> None:
        with pytest.raises(InputShapeError):
            client.predict("squared", rows)  # type: ignore[arg-type]

    def test_a_missing_input_is_named(self, client: Client) -> None:
        with pytest.raises(InputShapeError, match="'x' is missing"):
            client.predict("squared", {"z": ROWS[:1]})

    def test_a_value_outside_the_range_is_refused_or_clipped(
        self, client: Client, url: str, home: Path
    ) -> None:
        rows = ROWS[:2].copy()
        rows[1, 2] = 50.0
        with pytest.raises(InputRangeError, match="row 1, element 2"):
            client.predict("squared", rows)
        with Client(url, key_dir=home, allow_insecure=True, clip=True) as clipping:
            found = clipping.predict("squared", rows)
        assert np.abs(found[:1] - clear_answer(rows[:1])).max() < BOUND
        assert np.all(found[1] < clear_answer(rows[1:]).max())

    def test_an_unknown_model_and_version_are_named(self, client: Client) -> None:
        with pytest.raises(UnknownModelError, match="nothing"):
            client.predict("nothing", ROWS[:1])
        with pytest.raises(UnknownModelError, match="7"):
            client.predict("squared", ROWS[:1], version="7")

    def test_an_unknown_plan_lists_the_plans(self, client: Client) -> None:
        with pytest.raises(UserError, match=r"'fast'.*latency.*batch"):
            client.predict("squared", ROWS[:1], plan="fast")

    @pytest.mark.parametrize("transport", KINDS)
    def test_a_server_that_is_not_there(self, tmp_path: Path, transport: Kind) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        place = f"http://127.0.0.1:{port}"
        with (
            Client(place, key_dir=tmp_path, transport=transport) as client,
            pytest.raises(ServiceError, match="is the server running"),
        ):
            client.predict("squared", ROWS[:1])

    @pytest.mark.parametrize("transport", KINDS)
    def test_a_server_that_vanishes_after_the_signature(
        self, url: str, home: Path, transport: Kind
    ) -> None:
        with Client(
            url,
            key_dir=home,
            allow_insecure=True,
            transport=transport,
            grpc_url="127.0.0.1:9",
        ) as client:
            client.upload_keys("squared")
            if transport == "http":
                object.__setattr__(client._transport, "url", "http://127.0.0.1:9")
            with pytest.raises(ServiceError, match="is the server running"):
                client.predict("squared", ROWS[:1])

    def test_a_server_that_never_answers(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with (
                Client(f"http://127.0.0.1:{port}", key_dir=tmp_path, timeout=0.3) as client,
                pytest.raises(ServiceError, match=r"within 0\.3 s"),
            ):
                client.predict("squared", ROWS[:1])

    @pytest.mark.parametrize("transport", KINDS)
    def test_an_answer_that_takes_too_long(self, url: str, home: Path, transport: Kind) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            with Client(
                url,
                key_dir=home,
                allow_insecure=True,
                timeout=5.0,
                transport=transport,
                grpc_url=f"127.0.0.1:{port}",
            ) as client:
                client.upload_keys("squared")
                if transport == "http":
                    object.__setattr__(client._transport, "url", f"http://127.0.0.1:{port}")
                with pytest.raises(ServiceError, match=r"within 5 s|is the server running"):
                    client.predict("squared", ROWS[:1])

    def test_a_server_that_is_something_else(self, tmp_path: Path) -> None:
        with _PlainServer() as place, Client(place, key_dir=tmp_path) as client:
            with pytest.raises(ServiceError, match="HTTP 501"):
                client.models()
            with pytest.raises(ServiceError, match="is it a Tacit server"):
                client.predict("squared", ROWS[:1])

    @pytest.mark.parametrize(
        "url",
        ["localhost:8000", "ftp://x", "http://", "http://u@h", "http://h:99999", "http://h?x=1"],
    )
    def test_what_is_not_a_url_is_refused(self, url: str) -> None:
        with pytest.raises(UserError, match="expected http"):
            Client(url)

    def test_every_message_is_one_line(self, client: Client) -> None:
        for name, rows in (
            ("nothing", ROWS[:1]),
            ("squared", ROWS[:1, :5]),
            ("squared", ROWS[:1] * 100),
        ):
            with pytest.raises(TacitError) as caught:
                client.predict(name, rows)
            assert "\n" not in str(caught.value)
            assert not re.match(r"[a-z_]+: ", str(caught.value))


class _PlainServer:
    """Answers GET with JSON that is not ours, and nothing else."""

    def __enter__(self) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'{"hello": "world"}')

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()
