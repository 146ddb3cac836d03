"""Export bundles and ONNX graphs, with a parity check between PyTorch and ONNX Runtime."""
