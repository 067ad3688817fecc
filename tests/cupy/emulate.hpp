// Runs CUDA C on the CPU, one block after another, each thread a fiber. Threads run in turn from one meeting point to
// the next, upwards or downwards, so that a missing barrier shows in one of the two orders. Meeting points are checked:
// all threads of a block (of a warp, for shuffles) must be at the same one, none may have left, or the launch fails.
#pragma once
#include <ucontext.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static  // one block runs at a time, so static storage is the block's
#define __launch_bounds__(...)

struct dim3 { unsigned x = 1, y = 1, z = 1; };
static dim3 blockIdx, blockDim, gridDim, threadIdx;

namespace emulate {
constexpr size_t STACK = 64 * 1024, WARP = 32;
enum class Meeting { none, warp, block, end };
struct Fiber {
    ucontext_t context;
    Meeting meeting;
    int line;  // of the meeting point: threads at different ones do not meet
    uint64_t offered;
};
static ucontext_t scheduler;
static std::vector<Fiber> fibers;
static std::vector<char> stacks;
static size_t current;
static std::function<void()> body;
static std::string problem;

static void run_fiber(size_t i) {
    current = i;
    threadIdx = {unsigned(i), 0, 0};
    fibers[i].meeting = Meeting::none;
    swapcontext(&scheduler, &fibers[i].context);
}
static void meet(Meeting meeting, int line) {
    Fiber& fiber = fibers[current];
    fiber.meeting = meeting;
    fiber.line = line;
    swapcontext(&fiber.context, &scheduler);
}
static void entry() {
    body();
    meet(Meeting::end, 0);
}

// Are all threads in [first, last) at one meeting point of this kind?
static bool have_met(size_t first, size_t last, Meeting meeting) {
    return std::all_of(fibers.begin() + first, fibers.begin() + last, [=](const Fiber& fiber) {
        return fiber.meeting == meeting && fiber.line == fibers[first].line;
    });
}

static void run_block(bool downwards) {
    size_t n = blockDim.x;
    fibers.assign(n, {});
    stacks.resize(n * STACK);
    for (size_t i = 0; i < n; i++) {
        getcontext(&fibers[i].context);
        fibers[i].context.uc_stack.ss_sp = &stacks[i * STACK];
        fibers[i].context.uc_stack.ss_size = STACK;
        fibers[i].context.uc_link = &scheduler;
        makecontext(&fibers[i].context, entry, 0);
    }
    auto run = [=](size_t first, size_t last) {
        for (size_t k = 0; k < last - first; k++) run_fiber(downwards ? last - 1 - k : first + k);
    };
    run(0, n);
    while (!have_met(0, n, Meeting::end)) {
        bool moved = false;
        for (size_t k = 0; k < n; k += WARP) {
            size_t first = downwards ? (n - 1 - k) / WARP * WARP : k, last = std::min(first + WARP, n);
            if (have_met(first, last, Meeting::warp)) run(first, last), moved = true;
        }
        if (have_met(0, n, Meeting::block)) run(0, n), moved = true;
        if (!moved) {
            for (size_t i = 0; i < n && problem.empty(); i++)
                if (fibers[i].line != fibers[0].line || fibers[i].meeting != fibers[0].meeting)
                    problem = "threads 0 and " + std::to_string(i) + " wait at lines " +
                              std::to_string(fibers[0].line) + " and " + std::to_string(fibers[i].line);
            return;
        }
    }
}

template <class F> const char* launch(long long blocks, unsigned threads, bool downwards, F kernel) {
    problem.clear();
    gridDim = {unsigned(blocks)};
    blockDim = {threads};
    body = kernel;
    for (long long k = 0; k < blocks && problem.empty(); k++) {
        blockIdx = {unsigned(downwards ? blocks - 1 - k : k), 0, 0};
        run_block(downwards);
    }
    return problem.c_str();
}

// Offer a value, let the whole warp arrive, read another lane's, let the whole warp read.
template <class T> T exchange(T value, int mask, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    size_t self = current;
    std::memcpy(&fibers[self].offered, &value, sizeof(T));
    meet(Meeting::warp, line);
    std::memcpy(&value, &fibers[self / WARP * WARP + ((self % WARP) ^ mask)].offered, sizeof(T));
    meet(Meeting::warp, -line);
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
static inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
static inline double rsqrt(double x) { return 1 / std::sqrt(x); }

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
