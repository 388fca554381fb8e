"""Metrics of three-class probabilities: proper scores, calibration, and intervals by resampling whole prompts.

Throughout, `probabilities` is [rows, 3] in the order of `lmsys_ray.CLASSES`, each row summing to 1, and `labels` [rows]
is the class that people chose, as 0, 1 or 2.
"""

from dataclasses import dataclass

import numpy as np

METRICS = ("log_loss", "accuracy", "brier_score", "calibration_error")
"""The order of the metrics wherever an array has a metric axis."""

BINS = 15
"""Bins of the calibration error, as in Guo et al. 2017."""

RESAMPLES = 1000
LEVEL = 0.95
SMALLEST = 1e-15
"""The floor of a probability in the logarithm, as in the competition's grader."""

_TIMES_AT_ONCE = 1 << 20
"""The most entries of the matrix [resamples, clusters] that is multiplied at once: 8 MiB."""


def log_losses(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the negative log probability of each row's label [rows], in nats; takes [..., rows, 3] too."""
    chosen = probabilities[..., np.arange(len(labels)), labels]
    return -np.log(np.maximum(chosen, SMALLEST))


def at_floor(probabilities: np.ndarray, labels: np.ndarray) -> int:
    """Returns the number of rows whose label has a probability below `SMALLEST`."""
    return int((probabilities[np.arange(len(labels)), labels] < SMALLEST).sum())


def brier_scores(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns each row's squared error summed over the classes [rows], 0 to 2 (Brier 1950)."""
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)


def hits(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns whether the class of the highest probability is the label [rows]; of equal ones the first counts."""
    return probabilities.argmax(axis=1) == labels


def calibration_gaps(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Returns highest probability minus hit [rows, bins], in the column of the row's bin and 0 elsewhere.

    The bins divide 0 to 1 into equal widths. The absolute column means sum to the expected calibration error.
    """
    confidence = probabilities.max(axis=1)
    gaps = np.zeros((len(labels), bins))
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps[np.arange(len(labels)), place] = confidence - hits(probabilities, labels)
    return gaps


def log_loss(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean negative log probability of the labels, in nats: the score of the competition."""
    return float(log_losses(probabilities, labels).mean())


def brier_score(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean squared error summed over the classes, 0 to 2."""
    return float(brier_scores(probabilities, labels).mean())


def accuracy(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of rows whose highest probability is the label's."""
    return float(hits(probabilities, labels).mean())


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> float:
    """Returns the expected calibration error of the highest probability, in equal-width bins (Guo et al. 2017)."""
    return float(np.abs(calibration_gaps(probabilities, labels, bins).mean(axis=0)).sum())


def class_shares(labels: np.ndarray) -> np.ndarray:
    """Returns the share of each class among the labels [3]: the constant prediction with the lowest log loss."""
    return np.bincount(labels, minlength=3) / len(labels)


@dataclass(frozen=True)
class Estimate:
    """Metrics of one set of predictions, and their values over resamples of the prompts.

    Estimates of the same rows with the same seed share their resamples, so that their difference is paired.
    """

    values: np.ndarray
    """[metrics]"""
    resampled: np.ndarray
    """[resamples, metrics]"""

    def __sub__(self, other: "Estimate") -> "Estimate":
        return Estimate(self.values - other.values, self.resampled - other.resampled)

    def intervals(self, level: float = LEVEL) -> np.ndarray:
        """Returns the percentile interval of each metric [2, metrics]."""
        return np.quantile(self.resampled, [(1 - level) / 2, (1 + level) / 2], axis=0)

    def figures(self) -> dict[str, dict[str, float]]:
        """Returns value, low and high of each of `METRICS`, as in JSON files."""
        return {
            metric: {"value": float(value), "low": float(low), "high": float(high)}
            for metric, value, low, high in zip(METRICS, self.values, *self.intervals(), strict=True)
        }


def estimate_metrics(
    probabilities: np.ndarray, labels: np.ndarray, clusters: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Estimate:
    """Estimates all `METRICS`; rows of one number in `clusters` [rows], those of a prompt, are resampled together.

    A resample has the noise of the sample and its own, which raises every resampled calibration error; the excess of
    their mean over the estimate is subtracted before intervals are taken.
    """
    terms = np.column_stack(
        [
            log_losses(probabilities, labels),
            hits(probabilities, labels),
            brier_scores(probabilities, labels),
            calibration_gaps(probabilities, labels),
        ]
    )
    values = _from_means(terms.mean(axis=0))
    resampled = _from_means(resampled_means(terms, clusters, resamples, seed))
    excess = max(0.0, resampled[:, -1].mean() - values[-1])
    resampled[:, -1] = np.maximum(resampled[:, -1] - excess, 0)
    return Estimate(values, resampled)


def estimate_sureness(probabilities: np.ndarray, labels: np.ndarray, clusters: np.ndarray) -> Estimate:
    """Estimates the mean of highest probability minus hit, one value: above 0, predictions are surer than right."""
    gaps = probabilities.max(axis=1) - hits(probabilities, labels)
    return estimate_means(gaps[:, None], clusters)


def estimate_means(terms: np.ndarray, clusters: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Estimates the means of any per-row terms [rows, metrics]."""
    return Estimate(terms.mean(axis=0), resampled_means(terms, clusters, resamples, seed))


def resampled_means(terms: np.ndarray, clusters: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Returns means of `terms` [rows, terms] over resamples of whole clusters, with replacement [resamples, terms].

    The cluster bootstrap (Davison and Hinkley 1997, 3.8): answers to one prompt are not independent.
    """
    keys, cluster = np.unique(clusters, return_inverse=True)
    sums = np.zeros((len(keys), terms.shape[1]))
    np.add.at(sums, cluster, terms)
    sizes = np.bincount(cluster)
    generator = np.random.default_rng(seed)
    means = np.empty((resamples, terms.shape[1]))
    step = max(1, _TIMES_AT_ONCE // len(keys))
    for start in range(0, resamples, step):
        part = means[start : start + step]
        drawn = (generator.integers(len(keys), size=len(keys)) for _ in part)
        times = np.stack([np.bincount(chosen, minlength=len(keys)) for chosen in drawn]).astype(np.float64)
        part[:] = times @ sums / (times @ sizes)[:, None]
    return means


def _from_means(means: np.ndarray) -> np.ndarray:
    """Turns means of per-row terms [..., 3 + bins] into metrics [..., metrics]."""
    return np.concatenate([means[..., :3], np.abs(means[..., 3:]).sum(axis=-1, keepdims=True)], axis=-1)


def reliability(predicted: np.ndarray, happened: np.ndarray, bins: int = 10) -> np.ndarray:
    """Returns mean predicted probability, observed share and row count [3, bins] over bins of equal numbers of rows.

    `predicted` and `happened` are [rows]: the probability of an event, and whether it happened.
    """
    parts = [part for part in np.array_split(np.argsort(predicted, kind="stable"), bins) if len(part)]
    return np.array([(predicted[part].mean(), happened[part].mean(), len(part)) for part in parts], dtype=np.float64).T
