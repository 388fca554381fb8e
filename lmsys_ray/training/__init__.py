"""Training of ensemble members on labelled preferences, and the folds that they are judged on."""
