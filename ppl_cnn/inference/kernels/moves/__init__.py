"""Ways in which a chain moves, each leaving its density as it is."""
