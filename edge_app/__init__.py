"""The device side: sources, sensors, the governor, the pipeline between them, and what comes out.

Reaches the model only through `native_ops`; neither torch nor ExecuTorch's Python package may
come in. Modules that the command line imports at start import nothing heavy at their top.
"""
