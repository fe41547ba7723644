"""CKKS arithmetic on limbs: compiled kernels, beside their definitions in plain integers."""
