"""The sparse design of battles: which two models met, and covariates."""

import numpy as np


class Design:
    """Units of battles, each between two of `models` models, with or without covariates [units, covariates].

    Parameters are the strengths, then the coefficients of the covariates, then a tie parameter if there is one. A unit
    is a battle, or all battles with the same A and B.
    """

    def __init__(
        self,
        first: np.ndarray,
        second: np.ndarray,
        models: int,
        covariates: np.ndarray | None = None,
        tie: bool = False,
    ) -> None:
        self.models, self.tie, self.covariates = models, tie, covariates
        count = 0 if covariates is None else covariates.shape[1]
        self.strengths = slice(0, models)
        self.coefficients = slice(models, models + count)
        self.size = models + count + tie
        keys, self.pair_of = np.unique(first.astype(np.int64) * models + second, return_inverse=True)
        self.pairs = np.divmod(keys, models)
        """The models A and B of each pair that met, int64 [pairs] each; `pair_of` is the pair of each unit."""

    def of_pairs(self) -> "Design":
        """Returns the design of which each pair is a unit, without covariates."""
        return Design(*self.pairs, self.models, None, self.tie)

    def pair_sums(self, values: np.ndarray) -> np.ndarray:
        """Returns the sums over each pair of values [units]: [pairs]."""
        return np.bincount(self.pair_of, weights=values, minlength=len(self.pairs[0]))

    def differences(self, parameters: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns the strength of A less that of B, with the covariates, [units], and the tie parameter or 0."""
        strengths = parameters[self.strengths]
        d = (strengths[self.pairs[0]] - strengths[self.pairs[1]])[self.pair_of]
        if self.covariates is not None:
            d += self.covariates @ parameters[self.coefficients]
        return d, float(parameters[-1]) if self.tie else 0.0

    def slope(self, by_d: np.ndarray, by_tie: np.ndarray) -> np.ndarray:
        """Returns the gradient [size] of a sum over units with these derivatives [units]."""
        found = np.zeros(self.size)
        found[self.strengths] = self._of_models(by_d)
        if self.covariates is not None:
            found[self.coefficients] = by_d @ self.covariates
        if self.tie:
            found[-1] = by_tie.sum()
        return found

    def matrix(self, by_d: np.ndarray, mixed: np.ndarray, by_tie: np.ndarray) -> np.ndarray:
        """Returns the sum over units of weighted products of their rows of the design [size, size].

        The weights [units] are those of d with d, of d with the tie parameter, and of that with itself.
        """
        found = np.zeros((self.size, self.size))
        a, b = self.pairs
        weights = self.pair_sums(by_d)
        for rows, columns, sign in ((a, a, 1), (b, b, 1), (a, b, -1), (b, a, -1)):
            np.add.at(found, (rows, columns), sign * weights)
        if self.covariates is not None:
            weighted = self.covariates * by_d[:, None]
            found[self.coefficients, self.coefficients] = self.covariates.T @ weighted
            for number, column in enumerate(weighted.T):
                found[self.strengths, self.models + number] = self._of_models(column)
            found[self.coefficients, self.strengths] = found[self.strengths, self.coefficients].T
        if self.tie:
            found[-1, :-1] = found[:-1, -1] = self.slope(mixed, mixed)[:-1]
            found[-1, -1] = by_tie.sum()
        return found

    def _of_models(self, values: np.ndarray) -> np.ndarray:
        """Returns the sum over each model's battles as A of values [units], less that over those as B: [models]."""
        sums = self.pair_sums(values)
        a, b = (np.bincount(side, weights=sums, minlength=self.models) for side in self.pairs)
        return a - b
