// What the shaders of F(2x2,3x3) agree on.

// Transformed weights are kept as U + 27, from 0 to 54.
const int WEIGHT_OFFSET = 27, MOST_WEIGHT = 54;

// Vectors of four words: those of a tap lie beside the other taps' of the same four outputs and four
// inputs, so that neighbouring invocations read neighbouring places. Behind the last quad come the sums, a
// vector for each quad and tap.
uint weights_at(uint quad, uint word, uint words, uint tap) {
  return (quad * words + word) * 16 + tap;
}
