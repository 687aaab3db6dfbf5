// As much of CUDA as lif.cu uses, on a CPU: the threads of a launch run one after the other, in a chosen order.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

#define TCVQ_CPU_SHIM
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index { unsigned x; };
static thread_local Index blockIdx, threadIdx, blockDim, gridDim;

template <class To, class From>
inline To shim_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "a cast of bits keeps their number");
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}
inline float __int_as_float(int bits) { return shim_bits<float>(bits); }
inline int __float_as_int(float value) { return shim_bits<int>(value); }
inline float __uint_as_float(unsigned bits) { return shim_bits<float>(bits); }
inline unsigned __float_as_uint(float value) { return shim_bits<unsigned>(value); }
inline float shim_half_to_float(unsigned short bits) { return (float)shim_bits<_Float16>(bits); }
inline unsigned short shim_float_to_half(float value) { return shim_bits<unsigned short>((_Float16)value); }

// Options that a build may read here instead of having them compiled in; set by shim_set_options.
struct Options { int reset, decay_input, detach_reset, fire_at_threshold, gate, from_rest, trace, surrogate; };
static Options shim_options;
extern "C" void shim_set_options(const int* values) { std::memcpy(&shim_options, values, sizeof shim_options); }

template <class... Arguments, size_t... I>
inline void shim_call(void (*kernel)(Arguments...), void** arguments, std::index_sequence<I...>) {
    kernel(*static_cast<Arguments*>(arguments[I])...);
}

// Like cuLaunchKernel: a pointer to each argument. Orders: 0 as numbered, 1 reversed, above that shuffled.
template <class... Arguments>
inline void shim_launch(void (*kernel)(Arguments...), unsigned grid, unsigned block, unsigned order, void** arguments) {
    std::vector<size_t> threads((size_t)grid * block);
    std::iota(threads.begin(), threads.end(), (size_t)0);
    if (order == 1) std::reverse(threads.begin(), threads.end());
    if (order > 1) std::shuffle(threads.begin(), threads.end(), std::mt19937(order));
    gridDim.x = grid;
    blockDim.x = block;
    for (size_t thread : threads) {
        blockIdx.x = (unsigned)(thread / block);
        threadIdx.x = (unsigned)(thread % block);
        shim_call(kernel, arguments, std::index_sequence_for<Arguments...>());
    }
}

#define SHIM_EXPORT(name, kernel)                                                                  \
    extern "C" void name(unsigned grid, unsigned block, unsigned order, void** arguments) {        \
        shim_launch(kernel, grid, block, order, arguments);                                        \
    }
