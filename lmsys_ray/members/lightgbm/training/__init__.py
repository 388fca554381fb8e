"""Training the LightGBM member."""
