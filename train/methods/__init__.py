"""Training methods: each turns one batch into accumulated gradients, nothing else."""
