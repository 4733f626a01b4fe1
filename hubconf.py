"""Entry points of torch.hub, e.g. `torch.hub.load(".", "create_model", "vit_large_patch16_256", source="local")`."""

from vjepa import create_model, list_models, load_encoder, load_predictor, load_probe

dependencies = ["torch", "einops", "jaxtyping", "lightning", "safetensors", "timm"]

__all__ = ["create_model", "list_models", "load_encoder", "load_predictor", "load_probe"]
