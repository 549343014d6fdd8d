"""What the levels of a model cost on this machine: measured once, kept, and told to the governor."""
