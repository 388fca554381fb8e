"""Files: local, in object storage, packaged."""
