"""How settings are layered, checked and explained."""
