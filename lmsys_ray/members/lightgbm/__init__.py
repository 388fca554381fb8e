"""The LightGBM member: gradient-boosted trees on counts of words and characters."""

from lmsys_ray.members.lightgbm.scorer import LightGBMScorer

__all__ = ["LightGBMScorer"]
