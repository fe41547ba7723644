"""CKKS arithmetic on NVIDIA GPUs: kernels in csrc/cuda, launched through CUDA's driver."""
