// Products of small float32 matrices, for which a library's kernels take longer to begin than these to end.
// Element (i, j) of a lies at a[i * a_row + j * a_column], and so on; c is dense but for the distance of its rows.

// A block for each row of c, which has at most 16 columns: 16 threads for each column share its sum.
extern "C" __global__ void __launch_bounds__(256)
thin_product(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, long long m, long long n,
             long long k, long long a_row, long long a_column, long long b_row, long long b_column, long long c_row) {
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
        c[row * c_row + threadIdx.x] = total;
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
