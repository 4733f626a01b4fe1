"""Video joint-embedding predictive models: sampling, masking, pre-training, probing, features."""

__version__ = "0.1.0"
