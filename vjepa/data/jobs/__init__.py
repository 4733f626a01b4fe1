"""Many independent jobs in processes or on a Ray cluster, resumable."""
