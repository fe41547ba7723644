"""One hospital: a process of its own that goes from the invitation to the model by `tacit party`.

Words: the folder of the test, and this hospital's name. The first one creates the session, which
writes the others' invitations.
"""

import json
import sys
import time
from pathlib import Path

from tacit.client.cli import main

PATIENCE = 240


def run(*words: object) -> None:
    """Run one command; end with its code if it fails."""
    code = main(["party", *(str(word) for word in words)])
    if code:
        sys.exit(code)


def begin(root: Path, name: str) -> None:
    """Create or join the session."""
    given, own = json.loads((root / "session.json").read_text()), root / name
    if name == given["names"][0]:
        sizes = ("--most-rows", given["rows"], "--train", given["iterations"])
        noise = ("--least-smudging-bits", 4, "--precision-bits", 14)
        run(
            *("create", given["url"], "--parties", *given["names"], *sizes, *noise),
            *("--columns", root / "columns.csv", "--folder", own, "--allow-insecure"),
        )
        return
    path, end = root / f"{name}.invitation", time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    run("join", path, "--columns", root / "columns.csv", "--folder", own, "--allow-insecure")


def take_part(root: Path, name: str) -> None:
    """Make keys, train, verify."""
    begin(root, name)
    rest = ("--folder", root / name, "--allow-insecure")
    upload = ["--upload"] if not (root / f"{name}.invitation").exists() else []
    run("keygen", *upload, *rest, "--wait", PATIENCE)
    files = ("--rows", root / f"{name}.npy", "--labels", root / f"{name}.labels.npy")
    run("train", *files, "--out", root / f"{name}.json", *rest, "--wait", PATIENCE)
    run("verify", *rest)


if __name__ == "__main__":
    take_part(Path(sys.argv[1]), sys.argv[2])
