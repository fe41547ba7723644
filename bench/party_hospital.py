"""One hospital of `bench parties`, in a process of its own: from the invitation to the models.

Words: the folder, and this hospital's name. `session.json` says what is done; the first hospital
creates the session. What was measured is written to NAME.json.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

from tacit.client.party import Party, terms_for
from tacit.client.party_training import JointTraining
from tacit.client.training.service import TrainingService
from tacit.party_terms import Column
from tacit.training import TrainingTask
from tacit.training_plan import TrainingPlan

PATIENCE = 3600.0
LEAST_SMUDGING_BITS = 20


def _joined(root: Path, name: str, given: dict[str, object], plan: TrainingPlan) -> Party:
    names, url = [str(n) for n in _list(given["names"])], str(given["url"])
    if name == names[0]:
        columns = [Column(str(n), float(a), float(b)) for n, a, b in _list(given["columns"])]  # type: ignore[misc,has-type]
        terms = terms_for(
            plan.signature,
            "heart four parties",
            names,
            columns,
            plan.task.rows,
            least_smudging_bits=LEAST_SMUDGING_BITS,
        )
        party, tokens = Party.create(url, terms, root / name)
        for other, token in tokens.items():
            part = root / f".{other}"
            part.write_text(json.dumps({"session": terms.session, "token": token}))
            part.rename(root / f"{other}.invitation")
        return party
    path = root / f"{name}.invitation"
    end = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > end:
            raise SystemExit(f"no invitation for {name}")
        time.sleep(0.1)
    invitation = json.loads(path.read_text())
    return Party.join(url, invitation["session"], name, invitation["token"], root / name)


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def main(root: Path, name: str) -> None:
    """Take part and write down what it took."""
    given = json.loads((root / "session.json").read_text())
    task = TrainingTask.from_json(given["task"])
    table = np.load(root / f"{name}.npz")
    x, positive, fold = table["x"], table["y"] > 0, table["fold"]
    measured: dict[str, object] = {}
    with TrainingService(given["url"], timeout=PATIENCE) as service:
        plan = TrainingPlan.of(service.signature(service.planned(task).plan))
        with _joined(root, name, given, plan) as party:
            start = time.monotonic()
            model = party.keygen(seconds=PATIENCE)
            measured["keygen_seconds"] = time.monotonic() - start
            start = time.monotonic()
            uploaded = model.upload_keys(service) if party.session.leads else 0
            measured["upload"] = [time.monotonic() - start, uploaded]
            folds, starts = [], []
            for number in range(given["folds"]):
                starts.append(time.monotonic())
                training = JointTraining(party, plan, f"fold-{number}")
                rest = fold != number
                found = training.fit(service, x[rest], positive[rest], seconds=PATIENCE)
                folds.append(
                    {
                        "prepared": found.prepared.tolist(),
                        "hits": int(
                            ((found.probabilities(x[~rest]) > 0.5) == positive[~rest]).sum()
                        ),
                        "seconds": time.monotonic() - starts[-1],
                    }
                )
            measured["folds"] = folds
            measured["steps"] = {
                step: [cost.seconds, cost.sent, cost.received] for step, cost in party.costs.items()
            }
            request = party.session.transcript.entry("fold-0-weights.share", party.session.party)
            measured["smudging"] = dict(request.body)
            measured["parameters"] = {
                "log_n": party.terms.params.log_n,
                "depth": party.terms.params.depth,
                "log_scale": party.terms.params.log_scale,
                "dnum": party.terms.params.dnum,
                "security": party.terms.params.security.value,
                "evaluation_keys": len(party.terms.needed),
                "key_bytes": model.facts.key_bytes,
            }
    measured["peak_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (root / f"{name}.json").write_text(json.dumps(measured))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
