// Runs CUDA C on the CPU, one block after another, each thread a fiber. Threads run in turn from one meeting point to
// the next, upwards or downwards, so that a missing barrier shows in one of the two orders. Meeting points are checked:
// all threads of a block (of a warp, for shuffles) must be at the same one, none may have left, or the launch fails.
// What makes fibers and lets them meet is in emulate.cpp, which is compiled once.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static  // one block runs at a time, so static storage is the block's
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct dim3 { unsigned x = 1, y = 1, z = 1; };
extern dim3 blockIdx, blockDim, gridDim, threadIdx;

namespace emulate {
enum class Meeting { none, warp, block, end };
void meet(Meeting meeting, int line);
uint64_t exchange_bits(uint64_t bits, int mask, int line);
// Every thread of every block; without meeting points threads need no fibers.
const char* launch(long long blocks, unsigned threads, bool meets, bool downwards, void (*kernel)(const long long*),
                   const long long* words);

// Offer a value, let the whole warp arrive, read another lane's, let the whole warp read.
template <class T> T exchange(T value, int mask, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = exchange_bits(bits, mask, line);
    memcpy(&value, &bits, sizeof(T));
    return value;
}
}  // namespace emulate

#define __syncthreads() emulate::meet(emulate::Meeting::block, __LINE__)
#define __shfl_xor_sync(mask, value, lanes) emulate::exchange(value, lanes, __LINE__)

static inline unsigned long long atomicCAS(unsigned long long* cell, unsigned long long expected,
                                           unsigned long long desired) {
    unsigned long long old = *cell;
    if (old == expected) *cell = desired;
    return old;
}
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
// far out a rounded quotient by the root of 2 costs many units in the last place
static inline double normcdf(double x) { return (double)(erfcl(-(long double)x * 0.70710678118654752440084436210485L) / 2); }
static inline float normcdff(float x) { return (float)normcdf((double)x); }

static inline float __int_as_float(int bits) {
    float value;
    memcpy(&value, &bits, sizeof bits);
    return value;
}
static inline int __float_as_int(float value) {
    int bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
// The conversions that a GPU has instructions for, by arithmetic.
static inline float from_float16(unsigned short a) {
    int exponent = a >> 10 & 31, digits = a & 1023;
    float size = exponent == 31 ? (digits ? NAN : INFINITY)
                 : exponent     ? ldexpf((float)(1024 + digits), exponent - 25)
                                : ldexpf((float)digits, -24);
    return copysignf(size, a & 0x8000 ? -1.0f : 1.0f);
}
static inline unsigned short to_float16(float a) {
    unsigned short sign = __builtin_signbit(a) ? 0x8000 : 0;
    float size = fabsf(a);
    if (a != a) return sign | 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < ldexpf(1, -14)) return sign | (unsigned short)rintf(ldexpf(size, 24));
    int exponent;
    frexpf(size, &exponent);  // rounding up may give the next one
    return sign | (unsigned short)(((exponent + 13) << 10) + (int)rintf(ldexpf(size, 11 - exponent)));
}
