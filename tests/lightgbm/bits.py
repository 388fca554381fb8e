"""Run in a process of its own: prints digests of features and scores, which should not depend on the CPU.

Prints as JSON what the packaged member makes of made-up conversations, and of numbers on which a last bit shows.
"""

import hashlib
import json

import numpy as np

from lmsys_ray.members.lightgbm.artifacts import load
from lmsys_ray.members.lightgbm.scorer import predict
from lmsys_ray.resources import DIRECTORY
from tests.lightgbm.texts import conversations


def digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()


def main() -> None:
    artifacts = load(DIRECTORY / "lightgbm")
    features = artifacts.features("auto")
    matrix = features.matrix(conversations(40, seed=1))
    random = np.random.default_rng(0).choice(matrix.ravel(), (4000, features.columns))
    scores = predict(artifacts.boosters[:2], features, random)
    print(json.dumps({"features": digest(matrix), "scores": digest(scores)}))


if __name__ == "__main__":
    main()
