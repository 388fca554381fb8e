"""Linear layers in the forms that a device computes fastest."""
