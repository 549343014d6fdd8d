// The part of a pool's window that lies inside the image, along one axis.
//
// Anonymous: a linker that merged copies of different targets could keep one that another CPU
// cannot run.

#pragma once

namespace mbq {
namespace {

struct Inside {
  int begin, end;
  Inside(int output, int kernel, int stride, int pad, int size) {
    const int first = output * stride - pad;
    begin = first < 0 ? 0 : first;
    end = first + kernel < size ? first + kernel : size;
  }
};

}  // namespace
}  // namespace mbq
