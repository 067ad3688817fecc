// Runs CUDA C on the CPU, one block after another, each thread a fiber. Threads run in turn from one meeting point to
// the next, upwards or downwards, so that a missing barrier shows in one of the two orders. Meeting points are checked:
// all threads of a block (those of a warp that a shuffle names) must be at the same one, none may have left, or the
// launch fails.
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
void meet(Meeting meeting, int line, unsigned lanes = 0xffffffffu);
uint64_t exchange_bits(unsigned lanes, uint64_t bits, int mask, int line);
unsigned char* shared_bytes();
void copy_later(void* target, const void* source, unsigned size);
void end_copies();
void wait_for_copies(int left);
void load_matrices(unsigned (&to)[4], const void* row, bool turned, int line);
enum class Operand { bfloat16, float16, tf32 };
void multiply(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, Operand type, int line);
// Every thread of every block; without meeting points threads need no fibers.
const char* launch(long long blocks, unsigned threads, unsigned shared, bool meets, bool downwards,
                   void (*kernel)(const long long*), const long long* words);

// Offer a value, let all these lanes arrive, read another one's, let all of them read.
template <class T> T exchange(unsigned lanes, T value, int mask, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(T));
    bits = exchange_bits(lanes, bits, mask, line);
    memcpy(&value, &bits, sizeof(T));
    return value;
}
}  // namespace emulate

#define __syncthreads() emulate::meet(emulate::Meeting::block, __LINE__)
#define __syncwarp(lanes) emulate::meet(emulate::Meeting::warp, __LINE__, lanes)
#define __shfl_xor_sync(lanes, value, mask) emulate::exchange(lanes, value, mask, __LINE__)
#define __shfl_sync(lanes, value, lane) emulate::exchange(lanes, value, (int)(threadIdx.x % 32) ^ (lane), __LINE__)

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
// The twins of instructions.cuh: conversions by arithmetic, what a warp does together with meeting points. Copies to
// shared memory take place when they are waited for, so that a missing wait shows; in every other warp at once, so that
// it shows where others still read what they overwrite.
static inline unsigned short to_bfloat16(float a) {
    unsigned int bits = (unsigned int)__float_as_int(a);
    return (unsigned short)((a != a ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
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
static inline unsigned pack_bfloat16(float low, float high) { return to_bfloat16(low) | to_bfloat16(high) << 16; }
static inline unsigned pack_float16(float low, float high) { return to_float16(low) | to_float16(high) << 16; }
static inline unsigned to_tf32(float a) {
    unsigned bits = (unsigned)__float_as_int(a);
    return a - a != 0 ? bits : (bits + 0x1000u) & ~0x1fffu;
}
template <int COUNT> void store_words(void* place, const unsigned (&words)[COUNT]) {
    memcpy(place, words, sizeof words);
}
static inline float reciprocal(float a) { return 1.0f / a; }
static inline float power_of_two(float a) { return a < -126 ? 0.0f : exp2f(a); }

typedef unsigned char* SharedPlace;
static inline SharedPlace shared_place(const void* place) { return (SharedPlace)place; }
static inline unsigned char* shared_bytes() { return emulate::shared_bytes(); }
template <int SIZE> void copy_to_shared(void* target, const void* source, bool some) {
    static_assert(SIZE == 4 || SIZE == 16, "sizes of copies");
    emulate::copy_later(target, some ? source : nullptr, SIZE);
}
static inline void end_copies() { emulate::end_copies(); }
template <int LEFT> void wait_for_copies() { emulate::wait_for_copies(LEFT); }
static inline void load_matrices(unsigned (&to)[4], const void* row, int line = __builtin_LINE()) {
    emulate::load_matrices(to, row, false, line);
}
static inline void load_turned_matrices(unsigned (&to)[4], const void* row, int line = __builtin_LINE()) {
    emulate::load_matrices(to, row, true, line);
}
static inline void multiply_bfloat16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                     int line = __builtin_LINE()) {
    emulate::multiply(sum, a, b0, b1, emulate::Operand::bfloat16, line);
}
static inline void multiply_float16(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                    int line = __builtin_LINE()) {
    emulate::multiply(sum, a, b0, b1, emulate::Operand::float16, line);
}
static inline void multiply_tf32(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                 int line = __builtin_LINE()) {
    emulate::multiply(sum, a, b0, b1, emulate::Operand::tf32, line);
}
