"""How a model is used, and whether its gradients can be trusted."""
