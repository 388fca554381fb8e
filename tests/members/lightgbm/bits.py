"""Run in a process of its own: prints digests of features and scores, which should not depend on the CPU.

Prints as JSON what the packaged member makes of made-up conversations, and of numbers on which a last bit shows.
"""

import hashlib
import json
from dataclasses import replace

import numpy as np

from lmsys_ray.members.lightgbm.artifacts import load
from lmsys_ray.members.lightgbm.scorer import turn_scores
from lmsys_ray.members.lightgbm.turns import undivided
from lmsys_ray.storage.packaged import DIRECTORY
from tests.members.lightgbm.texts import conversations


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def main() -> None:
    artifacts = load(DIRECTORY / "lightgbm")
    features = artifacts.features("auto")
    matrix = features.matrix(conversations(40, seed=1))
    random = np.random.default_rng(0).choice(matrix.ravel(), (4000, features.columns))
    few = replace(artifacts, boosters=artifacts.boosters[:2])
    scores = turn_scores(few, features, undivided(random))
    print(json.dumps({"features": digest(matrix), "scores": digest(scores)}))


if __name__ == "__main__":
    main()
