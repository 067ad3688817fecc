// Products by one warp of tiles in shared memory that lie either way: rows along the inner axis, or, turned, across it.
// Tensor cores do it for 16-bit floats and TF32, and ordinary multiplications for float32.

// 64 bytes of the inner axis for LENGTH rows; or, turned, as many rows as those are elements, of LENGTH each. So that
// lanes of a warp meet different banks there are bytes between turned rows, and in others the pieces of 16 bytes have
// changed places: eight rows of one piece lie in different banks, and so do two rows of all four.
template <class Kind, int LENGTH, bool TURNED> struct Panel {
    static constexpr int ELEMENT = sizeof(typename Kind::Element), INNER = 64 / ELEMENT;
    static constexpr int PITCH = TURNED ? LENGTH * ELEMENT + (ELEMENT == 2 ? 16 : 32) : 64;
    static constexpr int BYTES = PITCH * (TURNED ? INNER : LENGTH);
    // Where a byte of a row lies. Rows 8 further on are alike.
    static __device__ __forceinline__ int place(int row, int byte) {
        return row * PITCH + (TURNED ? byte : (byte / 16 ^ row / 2 % 4) * 16 + byte % 16);
    }
};

// Begins to copy an element, or as many as 16 bytes hold.
template <bool WIDE, class Element>
static __device__ __forceinline__ void bring(unsigned char* to, const Element* from, const Element* any, bool some) {
    if (WIDE)
        copy_to_shared<16>(shared_place(to), some ? from : any, some);
    else if (sizeof(Element) == 4)
        copy_to_shared<4>(shared_place(to), some ? from : any, some);
    else
        *(Element*)to = some ? *from : (Element)0;
}

// sum += left @ right for a warp, over the 64 bytes of the inner axis that tiles hold.
template <class Kind, class Left, class Right, bool TURNED_LEFT, bool TURNED_RIGHT, int M, int N> struct Warp {
    static constexpr bool HALVES = sizeof(typename Kind::Element) == 2;
    static __device__ __forceinline__ void multiply(float (&sum)[M][N][4], const unsigned char* left,
                                                    const unsigned char* right) {
        const int lane = threadIdx.x % 32;
#pragma unroll
        for (int k = 0; k < 2; k++) {
            unsigned int a[M][4], b[4];
#pragma unroll
            for (int m = 0; m < M; m++) {
                if (!TURNED_LEFT) {
                    const unsigned char* first = left + 16 * m * Left::PITCH;
                    load_matrices(a[m], shared_place(first + Left::place(lane % 16, lane / 16 * 16 + 32 * k)));
                } else if (HALVES) {
                    const unsigned char* row = left + (16 * k + lane / 16 * 8 + lane % 8) * Left::PITCH;
                    load_turned_matrices(a[m], shared_place(row + 32 * m + lane / 8 % 2 * 16));
                } else {
                    const unsigned char* row = left + (8 * k + lane % 4) * Left::PITCH + 64 * m + lane / 4 * 4;
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        a[m][i] = *(const unsigned int*)(row + i / 2 * 4 * Left::PITCH + i % 2 * 32);
                }
                Kind::round(a[m]);
            }
#pragma unroll
            for (int n = 0; n < N; n += 2) {
                if (!TURNED_RIGHT) {
                    const unsigned char* first = right + (8 * n + lane / 16 * 8) * Right::PITCH;
                    load_matrices(b, shared_place(first + Right::place(lane % 8, lane / 8 % 2 * 16 + 32 * k)));
                } else if (HALVES) {
                    const unsigned char* row = right + (16 * k + lane % 16) * Right::PITCH;
                    load_turned_matrices(b, shared_place(row + 16 * n + lane / 16 * 16));
                } else {
                    const unsigned char* row = right + (8 * k + lane % 4) * Right::PITCH + 32 * n + lane / 4 * 4;
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        b[i] = *(const unsigned int*)(row + i % 2 * 4 * Right::PITCH + i / 2 * 32);
                }
                Kind::round(b);
#pragma unroll
                for (int m = 0; m < M; m++) {
                    Kind::multiply(sum[m][n], a[m], b[0], b[1]);
                    Kind::multiply(sum[m][n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }
};

// The same in true float32, element by element as tensor cores would leave them.
template <class Left, class Right, bool TURNED_LEFT, bool TURNED_RIGHT, int M, int N>
struct Warp<Float32, Left, Right, TURNED_LEFT, TURNED_RIGHT, M, N> {
    typedef Packed<float, 2> Two;
    typedef Packed<float, 4> Four;
    static __device__ __forceinline__ void multiply(float (&sum)[M][N][4], const unsigned char* left,
                                                    const unsigned char* right) {
        const int lane = threadIdx.x % 32;
        left += TURNED_LEFT ? lane / 4 * 4 : 0;
        right += TURNED_RIGHT ? lane % 4 * 8 : 0;
#pragma unroll 1
        for (int k = 0; k < 16; k += 4) {
            Four a[2 * M];  // of four places along the inner axis
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                if (!TURNED_LEFT) {
                    a[i] = *(const Four*)(left + 8 * i * Left::PITCH + Left::place(lane / 4, 4 * k));
                    continue;
                }
#pragma unroll
                for (int e = 0; e < 4; e++) a[i].values[e] = *(const float*)(left + (k + e) * Left::PITCH + 32 * i);
            }
#pragma unroll
            for (int n = 0; n < N; n++) {
                Two b[4];
                if (TURNED_RIGHT) {
#pragma unroll
                    for (int e = 0; e < 4; e++) b[e] = *(const Two*)(right + (k + e) * Right::PITCH + 32 * n);
                } else {
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const int place = 8 * n * Right::PITCH + Right::place(lane % 4 * 2 + j, 4 * k);
                        const Four row = *(const Four*)(right + place);
#pragma unroll
                        for (int e = 0; e < 4; e++) b[e].values[j] = row.values[e];
                    }
                }
#pragma unroll
                for (int e = 0; e < 4; e++)
#pragma unroll
                    for (int i = 0; i < 4 * M; i++)
                        sum[i / 4][n][i % 4] += a[i / 2].values[e] * b[e].values[i % 2];
            }
        }
    }
};
