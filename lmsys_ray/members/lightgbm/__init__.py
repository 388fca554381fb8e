"""The LightGBM member: gradient-boosted trees on counts of words and characters, or on statistics of the texts."""

from lmsys_ray.members.lightgbm.openmp import load_openmp

load_openmp()  # before anything here imports lightgbm
