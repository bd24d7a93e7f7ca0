// What a compiled kernel and the stand-in driver know of each other.
#pragma once
#include <cstddef>
#include <cstdint>

namespace standin {
// A module's image: this, then the path of the shared library that holds the kernel.
constexpr const char kMark[] = "// stand-in: ";

struct Shape {
    unsigned grid[3], block[3], shared;
};
// An allocation of device memory.
struct Range {
    uintptr_t begin, end;
};
// Runs all blocks; null, or what went wrong.
using Launch = const char* (*)(const Shape&, void** params, const Range*, size_t ranges);
// What a library exports as `standin_find`: the kernel of a name, or null.
using Find = Launch (*)(const char* entry);
// What it exports as `standin_arguments`: how many arguments a kernel takes, at most kMostArguments, and
// their sizes.
constexpr size_t kMostArguments = 256;
using Arguments = size_t (*)(const char* entry, size_t* sizes);
} // namespace standin
