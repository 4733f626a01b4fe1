"""Training of probes and the choice of their settings."""
