"""From a trained multi-branch network to one file that a device runs at several bit-widths.

A run of `train` goes through five steps, one module each:

- `folding` turns the trained network into integers: weight codes, and one scale and bias per
  output channel that hold batch normalisation, ReLU and the next activation quantiser;
- `integer` is that integer network and executes it with the operations of `arithmetic`. This
  executor is the oracle: every kernel on every instruction set has to give its codes bit for bit
  (`checks` refuses what it could not execute exactly);
- `packing` stores four weight codes a byte behind a checked header;
- `ops` declares the operations to PyTorch, and `program` lowers every level into one ExecuTorch
  program in which the levels share the packed weights;
- `verification` runs the finished file and compares it with the oracle and the trained network.

`python -m export RUN -o model.pte` does all of it (`build`), and measures (`costs`) and
reports (`report`) what came out. This room imports `train` and `native_ops`;
nothing on the device imports this room.
"""
