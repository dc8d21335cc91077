"""MUDDViT beside its plain twin, on images."""
