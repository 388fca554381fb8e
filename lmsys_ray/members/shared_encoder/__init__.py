"""The shared encoder: one encoder reads each response with its prompt, and a linear head compares their means."""
