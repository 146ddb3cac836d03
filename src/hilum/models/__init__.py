"""Networks and losses (PyTorch). Networks return logits; sigmoid and softmax are applied outside."""
