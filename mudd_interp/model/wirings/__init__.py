"""The architectures of the family: each a wiring, and the modules that compute it."""
