"""Export: the bundle, the ONNX graph and the proof that it is the network that was evaluated."""
