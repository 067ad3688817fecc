// Tiles of rows in shared memory and their products by one warp: rows by rows, which leaves scores in registers, and
// from there scores by rows. Attention is made of these two.

// How a type is stored and multiplied. A step of a product along the inner axis takes 32 bytes of each operand.
struct Bfloat16 {
    typedef unsigned short Element;
    static __device__ __forceinline__ float load(unsigned short a) { return from_bfloat16(a); }
    static __device__ __forceinline__ unsigned short store(float a) { return to_bfloat16(a); }
    static __device__ __forceinline__ unsigned int pack(float low, float high) { return pack_bfloat16(low, high); }
    static __device__ __forceinline__ void round(unsigned int (&)[4]) {}
    static __device__ __forceinline__ void multiply(float (&sum)[4], const unsigned int (&a)[4], unsigned int b0,
                                                    unsigned int b1) {
        multiply_bfloat16(sum, a, b0, b1);
    }
};
struct Float16 {
    typedef unsigned short Element;
    static __device__ __forceinline__ float load(unsigned short a) { return from_float16(a); }
    static __device__ __forceinline__ unsigned short store(float a) { return to_float16(a); }
    static __device__ __forceinline__ unsigned int pack(float low, float high) { return pack_float16(low, high); }
    static __device__ __forceinline__ void round(unsigned int (&)[4]) {}
    static __device__ __forceinline__ void multiply(float (&sum)[4], const unsigned int (&a)[4], unsigned int b0,
                                                    unsigned int b1) {
        multiply_float16(sum, a, b0, b1);
    }
};
struct Tf32 {
    typedef float Element;
    static __device__ __forceinline__ float load(float a) { return a; }
    static __device__ __forceinline__ float store(float a) { return a; }
    static __device__ __forceinline__ void round(unsigned int (&words)[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) words[i] = to_tf32(__int_as_float((int)words[i]));
    }
    static __device__ __forceinline__ void multiply(float (&sum)[4], const unsigned int (&a)[4], unsigned int b0,
                                                    unsigned int b1) {
        multiply_tf32(sum, a, b0, b1);
    }
};
struct Float32 {
    typedef float Element;
    static __device__ __forceinline__ float load(float a) { return a; }
    static __device__ __forceinline__ float store(float a) { return a; }
};

// Bytes from one row of a tile to the next: 16 more than it holds, so that the 8 rows of a matrix, 16 bytes of each,
// lie in different banks.
template <class Kind, int WIDTH> struct Tile {
    static constexpr int ELEMENT = sizeof(typename Kind::Element);
    static constexpr int PITCH = WIDTH * ELEMENT + 16;
};

// Begins to bring ROWS rows into shared memory. There are `rows` of them with `width` elements; the rest are zeros.
// Steps 3 and 4 say how far rows and columns are apart; where rows are read 16 bytes at a time, columns are neighbours.
template <class Kind, int WIDTH, int ROWS, int THREADS>
static __device__ __forceinline__ void load_tile(unsigned char* tile, const typename Kind::Element* source,
                                                 const long long* steps, int rows, int width, bool aligned) {
    typedef typename Kind::Element Element;
    typedef Tile<Kind, WIDTH> Shape;
    const long long step = steps[3];
    if (aligned) {
        constexpr int CHUNK = 16 / Shape::ELEMENT, CHUNKS = WIDTH / CHUNK, SIDE = CHUNKS & -CHUNKS;
        const int column = threadIdx.x % SIDE * CHUNK;
        int row = threadIdx.x / SIDE;
        const Element* from = source + row * step + column;
        SharedPlace to = shared_place(tile + row * Shape::PITCH + column * Shape::ELEMENT);
#pragma unroll
        for (int first = 0; first < ROWS; first += THREADS / SIDE) {
            if (ROWS * SIDE % THREADS && row >= ROWS) break;
#pragma unroll
            for (int c = 0; c < CHUNKS / SIDE; c++) {
                const bool some = row < rows && column + c * SIDE * CHUNK < width;
                copy_to_shared<16>(to + c * SIDE * 16, some ? from + c * SIDE * CHUNK : source, some);
            }
            row += THREADS / SIDE;
            from += THREADS / SIDE * step;
            to += THREADS / SIDE * Shape::PITCH;
        }
    } else {
        for (int i = threadIdx.x; i < ROWS * WIDTH; i += THREADS) {
            const int row = i / WIDTH, column = i % WIDTH;
            const bool some = row < rows && column < width;
            ((Element*)(tile + row * Shape::PITCH))[column] =
                some ? source[row * step + column * steps[4]] : (Element)0;
        }
    }
}

// Products of a warp by tensor cores. Element 2 h + j of sum[m][n] in lane l is that of row 16 m + 8 h + l / 4 and
// column 8 n + 2 (l % 4) + j.
template <class Kind, int WIDTH> struct Scores {
    static constexpr int PITCH = Tile<Kind, WIDTH>::PITCH;

    // sum += a @ b^T, where both lie in shared memory, row by row. Where registers are few, not all steps of the inner
    // axis may be unrolled.
    template <int UNROLLED, int M, int N>
    static __device__ __forceinline__ void scores(float (&sum)[M][N][4], const unsigned char* a,
                                                  const unsigned char* b) {
        const int lane = threadIdx.x % 32;
        const SharedPlace left_place = shared_place(a + lane % 16 * PITCH + lane / 16 * 16);
        const SharedPlace right_place = shared_place(b + (lane / 16 * 8 + lane % 8) * PITCH + lane / 8 % 2 * 16);
#pragma unroll UNROLLED
        for (int k = 0; k < WIDTH * Tile<Kind, WIDTH>::ELEMENT / 32; k++) {
            unsigned int left[M][4], right[4];
#pragma unroll
            for (int m = 0; m < M; m++) {
                load_matrices(left[m], left_place + 16 * m * PITCH + 32 * k);
                Kind::round(left[m]);
            }
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                load_matrices(right, right_place + 8 * n * PITCH + 32 * k);
                Kind::round(right);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    Kind::multiply(sum[m][n], left[m], right[0], right[1]);
                    Kind::multiply(sum[m][n + 1], left[m], right[2], right[3]);
                }
            }
        }
    }
};

template <class Kind, int WIDTH> struct Product : Scores<Kind, WIDTH> {
    static constexpr int PITCH = Tile<Kind, WIDTH>::PITCH;

    // sum += p @ b, where p lies in registers as `scores` leaves it.
    template <int M, int N>
    static __device__ __forceinline__ void rows(float (&sum)[M][WIDTH / 8][4], const float (&p)[M][N][4],
                                                const unsigned char* b) {
        const int lane = threadIdx.x % 32;
        const SharedPlace place = shared_place(b + lane % 16 * PITCH + lane / 16 * 16);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            unsigned int left[M][4], right[4];
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    left[m][i] = Kind::pack(p[m][n + i / 2][i % 2 * 2], p[m][n + i / 2][i % 2 * 2 + 1]);
#pragma unroll
            for (int d = 0; d < WIDTH / 8; d += 2) {
                load_turned_matrices(right, place + 8 * n * PITCH + 16 * d);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    Kind::multiply(sum[m][d], left[m], right[0], right[1]);
                    Kind::multiply(sum[m][d + 1], left[m], right[2], right[3]);
                }
            }
        }
    }
};

// Words of 32 bits cannot be turned on their way out of shared memory. In their place the columns of p are taken in
// another order: those of a lane, 2 t and 2 t + 1, are numbers t and t + 4 of the inner axis.
template <int WIDTH> struct Product<Tf32, WIDTH> : Scores<Tf32, WIDTH> {
    static constexpr int PITCH = Tile<Tf32, WIDTH>::PITCH;

    template <int M, int N>
    static __device__ __forceinline__ void rows(float (&sum)[M][WIDTH / 8][4], const float (&p)[M][N][4],
                                                const unsigned char* b) {
        const int lane = threadIdx.x % 32;
        b += lane % 4 * 2 * PITCH + lane / 4 * 4;
#pragma unroll
        for (int n = 0; n < N; n++) {
            unsigned int left[M][4];
#pragma unroll
            for (int m = 0; m < M; m++)
#pragma unroll
                for (int i = 0; i < 4; i++) left[m][i] = to_tf32(p[m][n][i % 2 * 2 + i / 2]);
#pragma unroll
            for (int d = 0; d < WIDTH / 8; d++) {
                const unsigned char* place = b + 8 * n * PITCH + 32 * d;
                const unsigned int first = to_tf32(*(const float*)place);
                const unsigned int second = to_tf32(*(const float*)(place + PITCH));
#pragma unroll
                for (int m = 0; m < M; m++) multiply_tf32(sum[m][d], left[m], first, second);
            }
        }
    }
};

// The same products in true float32: each lane computes its elements.
template <int WIDTH> struct Product<Float32, WIDTH> {
    static constexpr int PITCH = Tile<Float32, WIDTH>::PITCH;

    template <int UNROLLED, int M, int N>
    static __device__ __forceinline__ void scores(float (&sum)[M][N][4], const unsigned char* a,
                                                  const unsigned char* b) {
        typedef Packed<float, 4> Four;
        const int lane = threadIdx.x % 32;
        a += lane / 4 * PITCH;
        b += lane % 4 * 2 * PITCH;
#pragma unroll 2
        for (int k = 0; k < WIDTH / 4; k++) {
            Four left[M][2];
#pragma unroll
            for (int i = 0; i < 2 * M; i++) left[i / 2][i % 2] = *(const Four*)(a + 8 * i * PITCH + 16 * k);
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const Four right = *(const Four*)(b + (8 * n + j) * PITCH + 16 * k);
#pragma unroll
                    for (int m = 0; m < M; m++)
#pragma unroll
                        for (int h = 0; h < 2; h++)
#pragma unroll
                            for (int i = 0; i < 4; i++)
                                sum[m][n][2 * h + j] += left[m][h].values[i] * right.values[i];
                }
        }
    }

    template <int M, int N>
    static __device__ __forceinline__ void rows(float (&sum)[M][WIDTH / 8][4], const float (&p)[M][N][4],
                                                const unsigned char* b) {
        typedef Packed<float, 2> Two;
        const int lane = threadIdx.x % 32;
        b += lane % 4 * 8;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll 1
            for (int pair = 0; pair < 4; pair++)
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    float left[M][2];
#pragma unroll
                    for (int i = 0; i < 2 * M; i++)
                        left[i / 2][i % 2] =
                            __shfl_sync(0xffffffffu, p[i / 2][n][i % 2 * 2 + j], lane / 4 * 4 + pair);
#pragma unroll
                    for (int d = 0; d < WIDTH / 8; d++) {
                        const Two right = *(const Two*)(b + (8 * n + 2 * pair + j) * PITCH + 32 * d);
#pragma unroll
                        for (int m = 0; m < M; m++)
#pragma unroll
                            for (int i = 0; i < 4; i++) sum[m][d][i] += left[m][i / 2] * right.values[i % 2];
                    }
                }
    }
};
