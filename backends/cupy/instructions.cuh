// Machine instructions that CUDA C has no words for: the only inline PTX of graphc. Each has a twin of the same name in
// the emulator that the tests run kernels with.
#ifdef __CUDACC__

// float16 and bfloat16 are their bits: the types of cuda_fp16.h and cuda_bf16.h would be a header each.
#if __CUDA_ARCH__ >= 800
static __device__ __forceinline__ unsigned short to_bfloat16(float a) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(a));
    return bits;
}
#else
static __device__ __forceinline__ unsigned short to_bfloat16(float a) {
    unsigned int bits = (unsigned int)__float_as_int(a);
    return (unsigned short)((a != a ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
#endif
static __device__ __forceinline__ float from_float16(unsigned short a) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(a));
    return value;
}
static __device__ __forceinline__ unsigned short to_float16(float a) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(a));
    return bits;
}

// Words to neighbours in global memory, in one instruction: the compiler makes several of an assignment where addresses
// have many terms. The array is not read in the kernel, so that no load need stay behind this.
static __device__ __forceinline__ void store_words(void* place, const unsigned int (&words)[4]) {
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(place), "r"(words[0]), "r"(words[1]), "r"(words[2]),
                 "r"(words[3]));
}
static __device__ __forceinline__ void store_words(void* place, const unsigned int (&words)[2]) {
    asm volatile("st.global.v2.b32 [%0], {%1, %2};" ::"l"(place), "r"(words[0]), "r"(words[1]));
}

// To 1 ulp, and 0 below the smallest normal number: a division would take four times the instructions.
static __device__ __forceinline__ float reciprocal(float a) {
    float result;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(a));
    return result;
}
// 2 to the power of a, to 2 ulp, and 0 below the smallest normal number.
static __device__ __forceinline__ float power_of_two(float a) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(a));
    return result;
}

#if __CUDA_ARCH__ >= 800

// Two numbers in one word, the first one in the lower half.
static __device__ __forceinline__ unsigned int pack_bfloat16(float low, float high) {
    unsigned int word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
static __device__ __forceinline__ unsigned int pack_float16(float low, float high) {
    unsigned int word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
// The bits of a float whose mantissa is rounded to 10 bits.
static __device__ __forceinline__ unsigned int to_tf32(float a) {
    unsigned int bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(a));
    return bits;
}

// The memory that all threads of a block share, as much as the launch asks for.
static __device__ __forceinline__ unsigned char* shared_bytes() {
    extern __shared__ __align__(128) unsigned char bytes[];
    return bytes;
}
typedef unsigned int SharedPlace;  // takes one register, where a pointer takes two
static __device__ __forceinline__ SharedPlace shared_place(const void* place) {
    return (unsigned int)__cvta_generic_to_shared(place);
}

// Begins to copy SIZE bytes (4 or 16, and both places multiples of that) to shared memory; zeros if there are none to
// read. What a thread has begun is done after it waits; others see it behind the next barrier.
template <int SIZE>
static __device__ __forceinline__ void copy_to_shared(SharedPlace target, const void* source, bool some) {
    if (SIZE == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source),
                     "r"(some ? 16 : 0) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(target), "l"(source),
                     "r"(some ? 4 : 0) : "memory");
}
// Ends a set of copies, and waits until no more than LEFT sets are under way.
static __device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> static __device__ __forceinline__ void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four matrices of 8 x 16 bytes for a warp: lane 8 i + r gives the place of row r of matrix i, and gets word l % 4 of
// row l / 4 of each, where l is its number.
static __device__ __forceinline__ void load_matrices(unsigned int (&to)[4], SharedPlace row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}
// The same for matrices of 8 x 8 halves, turned: rows 2 (l % 4) and the next one of column l / 4.
static __device__ __forceinline__ void load_turned_matrices(unsigned int (&to)[4], SharedPlace row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(row) : "memory");
}

// sum += a @ b for a warp: a is 16 x 16 halves (16 x 8 floats), b is 16 x 8 (8 x 8), the sum 16 x 8 floats, spread over
// the lanes as the PTX manual says for mma.m16n8k16 (mma.m16n8k8).
static __device__ __forceinline__ void multiply_bfloat16(float (&sum)[4], const unsigned int (&a)[4], unsigned int b0,
                                                         unsigned int b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
static __device__ __forceinline__ void multiply_float16(float (&sum)[4], const unsigned int (&a)[4], unsigned int b0,
                                                        unsigned int b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
static __device__ __forceinline__ void multiply_tf32(float (&sum)[4], const unsigned int (&a)[4], unsigned int b0,
                                                     unsigned int b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
                 : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

#endif  // Ampere and later
#endif
