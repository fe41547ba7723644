"""Options of `tacit serve` that decide who may load models, and how many threads workers have."""

from pathlib import Path

import httpx

from tacit.client.cli import build_parser
from tacit.client.cli_serve import server_options
from tacit.runtime.options import ServerOptions
from tacit.runtime.server import ServerHandle
from tests.e2e.customers import MODEL
from tests.runtime.models import write_repository

TOKENS = {name: f"{name}-token-0123456789" for name in ("clinic", "operator", "second")}


def options_of(*words: str) -> ServerOptions:
    return server_options(build_parser().parse_args(["serve", "models", *words]))


def test_only_named_administrators_load_and_unload(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", arithmetic=MODEL)
    tokens = tmp_path / "tokens"
    tokens.write_text("".join(f"{name} {token}\n" for name, token in TOKENS.items()))
    tokens.chmod(0o600)
    words = ["--token-file", str(tokens), "--administrator", "operator", "--administrator=second"]
    with ServerHandle(root, options_of(*words)) as server:
        base = f"http://127.0.0.1:{server.ports.http}/v2/repository/models/arithmetic"
        statuses = {
            (name, action): httpx.post(
                f"{base}/{action}", headers={"authorization": f"Bearer {token}"}
            ).status_code
            for action in ("unload", "load")
            for name, token in TOKENS.items()
        }
    assert statuses == {
        ("clinic", "unload"): 403,
        ("operator", "unload"): 200,
        ("second", "unload"): 404,  # it is unloaded already
        ("clinic", "load"): 403,
        ("operator", "load"): 200,
        ("second", "load"): 200,
    }


def test_by_default_everybody_administrates_an_open_server_and_nobody_one_with_tokens() -> None:
    assert options_of().administrators == frozenset({"public"})
    assert options_of("--token-file", "t").administrators == frozenset()
    assert options_of("--administrator", "a").administrators == frozenset({"a"})


def test_threads_reach_the_workers() -> None:
    assert options_of("--threads", "3").workers.threads == 3
    assert options_of().workers.threads == 0
