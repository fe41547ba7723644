"""The CUDA engine on a GPU: checked, then measured against what the hardware allows."""
