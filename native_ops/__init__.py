"""Packed 2-bit operators and the runtime that executes a model file with them.

Layers, each of which knows only those before it:

- `kernels/`: C++ on raw pointers, one translation unit for each instruction set, chosen at run time;
- `executorch/`: the kernels as ExecuTorch operators `mbq::*`, with every argument checked;
- `runtime/`: the extension module `_native`, a program behind numpy arrays;
- this package: `Program` with its metadata and its errors, and the model file's `container`.

Only numpy is imported here: a device has neither PyTorch nor ExecuTorch's Python packages.
"""
