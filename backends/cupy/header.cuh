// Device functions of the kernels that graphc prints. Plain CUDA C: no include, so that NVRTC compiles it fast.
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif

// Integers wrap around; overflow of a signed one would be undefined in C.
#define WRAPPING(T, U)                                                                                       \
    static __device__ __forceinline__ T wrapping_add(T a, T b) { return (T)((U)a + (U)b); }                  \
    static __device__ __forceinline__ T wrapping_sub(T a, T b) { return (T)((U)a - (U)b); }                  \
    static __device__ __forceinline__ T wrapping_mul(T a, T b) { return (T)((U)a * (U)b); }                  \
    static __device__ __forceinline__ T wrapping_neg(T a) { return (T)(0 - (U)a); }                          \
    static __device__ __forceinline__ T absolute(T a) { return a < 0 ? wrapping_neg(a) : a; }                \
    static __device__ __forceinline__ T shift_left(T a, T n) { return (T)((U)a << n); }                      \
    /* towards minus infinity; by zero gives 0, and -1 is apart because the smallest / -1 overflows */       \
    static __device__ __forceinline__ T floor_divide(T a, T b) {                                             \
        if (b == 0) return 0;                                                                                \
        if (b == -1) return wrapping_neg(a);                                                                 \
        return a / b - (a % b != 0 && (a < 0) != (b < 0));                                                   \
    }                                                                                                        \
    static __device__ __forceinline__ T modulo(T a, T b) {                                                   \
        if (b == 0 || b == -1) return 0;                                                                     \
        T rest = a % b;                                                                                      \
        return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;                                         \
    }                                                                                                        \
    static __device__ __forceinline__ T truncated_remainder(T a, T b) {                                      \
        return b == 0 || b == -1 ? 0 : a % b;                                                                \
    }                                                                                                        \
    /* a negative exponent gives the power truncated, and 0 for base 0 */                                    \
    static __device__ __forceinline__ T power(T base, T exponent) {                                          \
        if (exponent < 0) return base == 1 ? 1 : base == -1 ? (exponent & 1 ? -1 : 1) : 0;                   \
        U result = 1, square = (U)base;                                                                      \
        for (; exponent; exponent >>= 1, square *= square)                                                   \
            if (exponent & 1) result *= square;                                                              \
        return (T)result;                                                                                    \
    }
WRAPPING(int, unsigned int)
WRAPPING(long long, unsigned long long)

// Of numbers that are never negative; by zero gives 0. Nearly all are small, which takes a fraction of the time.
static __device__ __forceinline__ long long quotient(long long a, long long b) {
    if (b == 0) return 0;
    return (a | b) >> 32 ? a / b : (unsigned int)a / (unsigned int)b;
}
static __device__ __forceinline__ long long remainder(long long a, long long b) {
    if (b == 0) return 0;
    return (a | b) >> 32 ? a % b : (unsigned int)a % (unsigned int)b;
}

static __device__ __forceinline__ unsigned int floor_divide(unsigned int a, unsigned int b) { return b ? a / b : 0; }
static __device__ __forceinline__ unsigned int modulo(unsigned int a, unsigned int b) { return b ? a % b : 0; }
static __device__ __forceinline__ unsigned int truncated_remainder(unsigned int a, unsigned int b) {
    return modulo(a, b);
}
static __device__ __forceinline__ unsigned int power(unsigned int base, unsigned int exponent) {
    unsigned int result = 1;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

static __device__ __forceinline__ float modulo(float a, float b) {
    float rest = fmodf(a, b);
    if (rest == 0) return copysignf(0.0f, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}
static __device__ __forceinline__ double modulo(double a, double b) {
    double rest = fmod(a, b);
    if (rest == 0) return copysign(0.0, b);
    return (rest < 0) != (b < 0) ? rest + b : rest;
}
// The quotient of what is left of a without its remainder: exact where a / b would round up to a whole number.
static __device__ __forceinline__ float floor_divide(float a, float b) {
    if (b == 0) return a / b;
    float rest = fmodf(a, b), quotient = (a - rest) / b;
    if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1.0f;
    return quotient != 0 ? rintf(quotient) : copysignf(0.0f, a / b);
}
static __device__ __forceinline__ double floor_divide(double a, double b) {
    if (b == 0) return a / b;
    double rest = fmod(a, b), quotient = (a - rest) / b;
    if (rest != 0 && (rest < 0) != (b < 0)) quotient -= 1.0;
    return quotient != 0 ? rint(quotient) : copysign(0.0, a / b);
}

// A NaN on either side comes through.
#define ORDERED(T)                                                                                           \
    static __device__ __forceinline__ T minimum(T a, T b) { return a != a || a < b ? a : b; }                \
    static __device__ __forceinline__ T maximum(T a, T b) { return a != a || a > b ? a : b; }                \
    static __device__ __forceinline__ T sign_of(T a) { return a > 0 ? (T)1 : a < 0 ? (T)-1 : a == 0 ? (T)0 : a; }
ORDERED(float)
ORDERED(double)
#undef ORDERED
#define ORDERED(T)                                                                                           \
    static __device__ __forceinline__ T minimum(T a, T b) { return a < b ? a : b; }                          \
    static __device__ __forceinline__ T maximum(T a, T b) { return a > b ? a : b; }
ORDERED(int)
ORDERED(long long)
ORDERED(unsigned int)
static __device__ __forceinline__ int sign_of(int a) { return (a > 0) - (a < 0); }
static __device__ __forceinline__ long long sign_of(long long a) { return (a > 0) - (a < 0); }
static __device__ __forceinline__ unsigned int sign_of(unsigned int a) { return a > 0; }

static __device__ __forceinline__ bool is_nan(float a) { return a != a; }
static __device__ __forceinline__ bool is_nan(double a) { return a != a; }
static __device__ __forceinline__ bool is_finite(float a) { return a - a == 0; }
static __device__ __forceinline__ bool is_finite(double a) { return a - a == 0; }

// float16 and bfloat16 are their bits; the other conversions are instructions.
static __device__ __forceinline__ float from_bfloat16(unsigned short a) { return __int_as_float((int)a << 16); }

// Where the exponential overflows, the result is less than the smallest normal number, and 0.
static __device__ __forceinline__ float sigmoid(float a) { return reciprocal(1.0f + expf(-a)); }
// Does not overflow: the exponential is of a negative number.
static __device__ __forceinline__ double sigmoid(double a) {
    double small = exp(-fabs(a));
    return (a >= 0 ? 1.0 : small) / (1.0 + small);
}
static __device__ __forceinline__ float softplus(float a) { return maximum(a, 0.0f) + log1pf(expf(-fabsf(a))); }
static __device__ __forceinline__ double softplus(double a) { return maximum(a, 0.0) + log1p(exp(-fabs(a))); }

static __device__ __forceinline__ unsigned int rotate_left(unsigned int a, int n) { return a << n | a >> (32 - n); }

// The first word of the Threefry-2x32-20 block (Salmon et al., SC 2011).
static __device__ __forceinline__ unsigned int threefry(unsigned int key0, unsigned int key1, unsigned int x,
                                                        unsigned int y) {
    unsigned int schedule[3] = {key0, key1, key0 ^ key1 ^ 0x1BD11BDAu};
    int distances[2][4] = {{13, 15, 26, 6}, {17, 29, 16, 24}};
    x += key0;
    y += key1;
#pragma unroll
    for (int group = 0; group < 5; group++) {
#pragma unroll
        for (int round = 0; round < 4; round++) {
            x += y;
            y = rotate_left(y, distances[group % 2][round]) ^ x;
        }
        x += schedule[(group + 1) % 3];
        y += schedule[(group + 2) % 3] + group + 1;
    }
    return x;
}

// The first failure stays; the cell is [check + 1 or 0, detail].
static __device__ __forceinline__ void record_failure(long long* status, long long check, long long detail) {
    if (atomicCAS((unsigned long long*)status, 0ull, (unsigned long long)(check + 1)) == 0) status[1] = detail;
}

// Neighbours that are moved at once: one access of 16 bytes, or of what they take if that is less.
template <class T, int SIZE> struct __align__(sizeof(T) * SIZE < 16 ? sizeof(T) * SIZE : 16) Packed {
    T values[SIZE];
    __device__ __forceinline__ T& operator[](long long i) { return values[i]; }
};

// To an array that the kernel does not read.
template <class T, int SIZE> static __device__ __forceinline__ void store_packed(T* place, Packed<T, SIZE> values) {
    constexpr int BYTES = sizeof(T) * SIZE, COUNT = BYTES % 16 ? 2 : 4;
    if (BYTES % 8) {
        *(Packed<T, SIZE>*)place = values;
        return;
    }
#pragma unroll
    for (int i = 0; i < BYTES / (4 * COUNT); i++) {
        unsigned int words[COUNT];
        memcpy(words, (const char*)&values + 4 * COUNT * i, sizeof words);
        store_words((char*)place + 4 * COUNT * i, words);
    }
}

// What several threads combine their values by.
struct Add {
    static __device__ __forceinline__ float apply(float a, float b) { return a + b; }
    static __device__ __forceinline__ double apply(double a, double b) { return a + b; }
    static __device__ __forceinline__ unsigned int apply(unsigned int a, unsigned int b) { return a + b; }
    static __device__ __forceinline__ int apply(int a, int b) { return wrapping_add(a, b); }
    static __device__ __forceinline__ long long apply(long long a, long long b) { return wrapping_add(a, b); }
};
struct Mul {
    static __device__ __forceinline__ float apply(float a, float b) { return a * b; }
    static __device__ __forceinline__ double apply(double a, double b) { return a * b; }
    static __device__ __forceinline__ unsigned int apply(unsigned int a, unsigned int b) { return a * b; }
    static __device__ __forceinline__ int apply(int a, int b) { return wrapping_mul(a, b); }
    static __device__ __forceinline__ long long apply(long long a, long long b) { return wrapping_mul(a, b); }
};
struct Min {
    template <class T> static __device__ __forceinline__ T apply(T a, T b) { return minimum(a, b); }
};
struct Max {
    template <class T> static __device__ __forceinline__ T apply(T a, T b) { return maximum(a, b); }
};
struct And {
    template <class T> static __device__ __forceinline__ T apply(T a, T b) { return (T)(a & b); }
};
struct Or {
    template <class T> static __device__ __forceinline__ T apply(T a, T b) { return (T)(a | b); }
};

// The lanes of the calling thread's team of LANES threads: a power of two, at most a warp.
template <int LANES> static __device__ __forceinline__ unsigned int team_lanes() {
    return LANES == 32 ? 0xffffffffu : ((1u << LANES % 32) - 1u) << threadIdx.x % 32 / LANES * LANES;
}
// The barrier of a team.
template <int LANES> static __device__ __forceinline__ void meet() { __syncwarp(team_lanes<LANES>()); }

template <int LANES = 32, class T> static __device__ __forceinline__ T from_lane(T value, int distance) {
    return __shfl_xor_sync(team_lanes<LANES>(), value, distance);
}
template <int LANES = 32> static __device__ __forceinline__ bool from_lane(bool value, int distance) {
    return from_lane<LANES>((int)value, distance) != 0;
}

// `value` combined over all THREADS of the block, or of a team of no more than a warp, the same in each and in an order
// that never changes: lanes in a butterfly, then warps one after the other. Every thread of the block or team must come
// here; it is a barrier too.
template <class Operation, int THREADS, class T> static __device__ __forceinline__ T combine(T value) {
    constexpr int LANES = THREADS < 32 ? THREADS : 32;
#pragma unroll
    for (int distance = LANES / 2; distance; distance >>= 1)
        value = Operation::apply(value, from_lane<LANES>(value, distance));
    if (THREADS <= 32) {
        meet<LANES>();  // a shuffle alone does not order what threads do to memory
        return value;
    }
    __shared__ T warps[THREADS > 32 ? THREADS / 32 : 1];
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
    __syncthreads();
    value = warps[0];
#pragma unroll
    for (int warp = 1; warp < THREADS / 32; warp++) value = Operation::apply(value, warps[warp]);
    __syncthreads();  // before `warps` is written again
    return value;
}

// Copies the results of a step to the next slot of a ring in the host's memory, so that steps need not wait for a copy.
extern "C" __global__ void post_results(const int* cell, int* ring, unsigned long long* turn, long long words,
                                        long long slot_words, long long slots) {
    const unsigned long long now = *turn;
    int* slot = ring + now % slots * slot_words;
    for (long long i = threadIdx.x; i < words; i += blockDim.x) slot[i] = cell[i];
    __syncthreads();
    if (threadIdx.x == 0) *turn = now + 1;
}
