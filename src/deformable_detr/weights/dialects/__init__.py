"""The names that other code bases give to the same tensors."""
