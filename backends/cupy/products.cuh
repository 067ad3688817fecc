// Products of small float32 matrices, for which a library's kernels take longer to begin than these to end.
// Element (i, j) of a lies at a[i * a_row + j * a_column], and so on; c is dense but for the distance of its rows.
// To each sum are added an element of a matrix that lies as c does, and one of a row, if these are there.

enum { PLAIN, RELU, GELU };

static __device__ __forceinline__ float activated(float x, long long activation) {
    if (activation == RELU) return maximum(x, 0.0f);
    if (activation == GELU) return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
    return x;
}

static __device__ __forceinline__ float finished(float sum, const float* bias, const float* addend, long long place,
                                                 long long column, long long activation) {
    if (addend) sum += addend[place];
    if (bias) sum += bias[column];
    return activated(sum, activation);
}

// A block for each row of c, which has at most 16 columns: 16 threads for each column share its sum.
extern "C" __global__ void __launch_bounds__(256)
thin_product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
             const float* __restrict__ bias, const float* __restrict__ addend, long long m, long long n, long long k,
             long long a_row, long long a_column, long long b_row, long long b_column, long long c_row,
             long long activation) {
    const long long row = blockIdx.x;
    const int column = threadIdx.x % 16, group = threadIdx.x / 16;
    float sum = 0;
    if (column < n) {
#pragma unroll 8
        for (long long i = group; i < k; i += 16)
            sum += a[row * a_row + i * a_column] * b[i * b_row + column * b_column];
    }
    __shared__ float parts[256];
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.x < n) {
        float total = 0;
#pragma unroll
        for (int i = 0; i < 16; i++) total += parts[16 * i + threadIdx.x];
        const long long place = row * c_row + threadIdx.x;
        c[place] = finished(total, bias, addend, place, threadIdx.x, activation);
    }
}

// A thread for each element of c, which is a sum of few products.
extern "C" __global__ void __launch_bounds__(256)
short_product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c,
              const float* __restrict__ bias, const float* __restrict__ addend, long long m, long long n, long long k,
              long long a_row, long long a_column, long long b_row, long long b_column, long long c_row,
              long long activation) {
    const long long number = blockIdx.x * 256ll + threadIdx.x;
    if (number >= m * n) return;
    const long long row = number / n, column = number - row * n, place = row * c_row + column;
    float sum = 0;
    for (long long i = 0; i < k; i++) sum += a[row * a_row + i * a_column] * b[i * b_row + column * b_column];
    c[place] = finished(sum, bias, addend, place, column, activation);
}

// What a library's product could not do to its result: rows of n elements, each type of element by its number.
extern "C" __global__ void __launch_bounds__(256)
finish_product(void* __restrict__ c, const void* __restrict__ bias, const void* __restrict__ addend, long long rows,
               long long n, long long c_row, long long type, long long activation) {
    const long long number = blockIdx.x * 256ll + threadIdx.x;
    if (number >= rows * n) return;
    const long long row = number / n, column = number - row * n, place = row * c_row + column;
    auto element = [type](const void* of, long long at) {
        if (type == 0) return ((const float*)of)[at];
        const unsigned short bits = ((const unsigned short*)of)[at];
        return type == 1 ? from_float16(bits) : from_bfloat16(bits);
    };
    float x = element(c, place);
    if (addend) x += element(addend, place);
    if (bias) x += element(bias, column);
    x = activated(x, activation);
    if (type == 0) ((float*)c)[place] = x;
    else ((unsigned short*)c)[place] = type == 1 ? to_float16(x) : to_bfloat16(x);
}
