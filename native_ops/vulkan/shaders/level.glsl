// What every shader of a level sees: four buffers and the numbers of its layer.
//
// The arena holds the level's values where its plan places them, then the image. Codes lie four to a word, the first
// channel in the lowest bits; words behind a pixel's channels are filled with code 0. Floats are kept
// as their bits, so that one binding serves both.

layout(local_size_x_id = 0, local_size_y_id = 1) in;

layout(std430, set = 0, binding = 0) buffer Arena { uint arena[]; };
layout(std430, set = 0, binding = 1) readonly buffer Weights { uint weights[]; };
layout(std430, set = 0, binding = 2) readonly buffer Floats { float floats[]; };
layout(std430, set = 0, binding = 3) writeonly buffer Logits { float logits[]; };

const uint NONE = ~0u;

int code_of(uint word, uint channel) { return int(bitfieldExtract(word, 8 * int(channel), 8)); }
