// Products of small float32 matrices, for which a library's kernels take longer to begin than these to end.
// Element (i, j) of a lies at a[i * a_row + j * a_column], and so on; c is dense but for the distance of its rows.

// A warp for each row of c, which has at most 16 columns; its lanes share the sum.
extern "C" __global__ void __launch_bounds__(256)
thin_product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, long long m, long long n,
             long long k, long long a_row, long long a_column, long long b_row, long long b_column, long long c_row) {
    const long long row = blockIdx.x * 8ll + threadIdx.x / 32;
    if (row >= m) return;
    float sums[16];
#pragma unroll
    for (int j = 0; j < 16; j++) sums[j] = 0;
    for (long long i = threadIdx.x % 32; i < k; i += 32) {
        const float factor = a[row * a_row + i * a_column];
#pragma unroll
        for (int j = 0; j < 16; j++)
            if (j < n) sums[j] += factor * b[i * b_row + j * b_column];
    }
#pragma unroll
    for (int j = 0; j < 16; j++) {
        if (j < n) {
#pragma unroll
            for (int distance = 16; distance; distance >>= 1) sums[j] += from_lane(sums[j], distance);
            if (threadIdx.x % 32 == 0) c[row * c_row + j] = sums[j];
        }
    }
}

// A thread for each element of c, which is a sum of few products.
extern "C" __global__ void __launch_bounds__(256)
short_product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, long long m, long long n,
              long long k, long long a_row, long long a_column, long long b_row, long long b_column, long long c_row) {
    const long long place = blockIdx.x * 256ll + threadIdx.x;
    if (place >= m * n) return;
    const long long row = place / n, column = place - row * n;
    float sum = 0;
    for (long long i = 0; i < k; i++) sum += a[row * a_row + i * a_column] * b[i * b_row + column * b_column];
    c[row * c_row + column] = sum;
}
