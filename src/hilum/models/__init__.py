"""Networks and losses (PyTorch). Logits leave a network; sigmoid and softmax happen once, after it."""
