"""Builders of manifests from the public data sets' own annotation files, one file per family of layouts."""
