"""From a scaled graph to circuits, one per plan: latency (many cells per ciphertext) and batch."""
