"""What people look at: how far a run is, from its directory alone."""
