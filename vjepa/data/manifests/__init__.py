"""Manifests: which videos there are, and what is known of each."""
