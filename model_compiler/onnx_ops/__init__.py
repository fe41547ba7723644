"""ONNX operators: one small function each, from a node to the tensor graph or to clear steps."""
