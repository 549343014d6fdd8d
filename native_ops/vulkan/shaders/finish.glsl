// From an accumulator to what the next layers read, in the order of kernels/layers.h. Every step
// rounds on its own: `precise` keeps a compiler from contracting a product and a sum.

// Written so that a value that is not a number becomes the lowest code.
uint to_code(float value, uint limits) {
  const float lowest = float(limits & 0xffu), highest = float(limits >> 8);
  const float rounded = roundEven(value);
  return uint(!(rounded > lowest) ? lowest : rounded > highest ? highest : rounded);
}

// Writes the codes of four channels from `first` on, of which those behind the outputs are 0.
void write_codes(uint output_index, uint y, uint x, uint first, float values[4]) {
  const CodeOutput form = codes[output_index];
  uint word = 0;
  for (uint i = 0; i < 4; ++i) {
    if (first + i >= outputs) break;
    precise float scaled = values[i] * form.scale;
    precise float moved = scaled + form.offset;
    word |= to_code(moved, form.limits) << (8 * i);
  }
  arena[form.origin + y * form.row + x * form.pixel + first / 4] = word;
}

// The stream and all codes of four channels.
void write_values(uint y, uint x, uint first, float values[4]) {
  if (stream != NONE) {
    const uint place = stream + (y * out_width + x) * outputs + first;
    for (uint i = 0; i < 4 && first + i < outputs; ++i) arena[place + i] = floatBitsToUint(values[i]);
  }
  for (uint i = 0; i < code_outputs; ++i) write_codes(i, y, x, first, values);
}

// Accumulators of four outputs from `first` on, at output pixel (y, x).
void finish(uint y, uint x, uint first, int acc[4]) {
  const bool direct = (flags & FLAG_DIRECT) != 0, relu = (flags & FLAG_RELU) != 0;
  float values[4] = float[4](0.0, 0.0, 0.0, 0.0);
  uint word = 0;
  for (uint i = 0; i < 4; ++i) {
    const uint channel = first + i;
    if (channel >= outputs) break;
    precise float scaled = float(acc[i]) * floats[affine + channel];
    precise float value = scaled + floats[affine + outputs + channel];
    if (direct) {
      word |= to_code(value, codes[0].limits) << (8 * i);
      continue;
    }
    if (residual != NONE) {
      const uint place = residual + (y * out_width + x) * outputs + channel;
      precise float sum = value + uintBitsToFloat(arena[place]);
      value = sum;
    }
    values[i] = relu && !(value > 0.0) ? 0.0 : value;
  }
  if (direct) {
    arena[codes[0].origin + y * codes[0].row + x * codes[0].pixel + first / 4] = word;
  } else {
    write_values(y, x, first, values);
  }
}
