"""What trainings of several kinds share: workers on Ray Train, files of a run in progress, folds, figures, curves."""
