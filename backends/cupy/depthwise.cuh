// Convolutions whose channels have filters of their own: too few multiplications for products of matrices, so that each
// thread computes V neighbouring elements. V is 1 where there are more filters than channels, or addresses that do not
// let so many be read together.

template <class Kind, int V>
static __device__ __forceinline__ void load_some(float (&to)[V], const void* from, long long place) {
    typedef typename Kind::Element Element;
    const Packed<Element, V> some = *(const Packed<Element, V>*)((const Element*)from + place);
#pragma unroll
    for (int i = 0; i < V; i++) to[i] = Kind::load(some.values[i]);
}
template <class Kind, int V>
static __device__ __forceinline__ void store_some(void* to, long long place, bool narrow, const float (&values)[V]) {
    typedef typename Kind::Element Element;
    Packed<Element, V> few;
    Packed<float, V> wide;
#pragma unroll
    for (int i = 0; i < V; i++) {
        few.values[i] = Kind::store(values[i]);
        wide.values[i] = values[i];
    }
    if (narrow)
        *(Packed<Element, V>*)((Element*)to + place) = few;
    else
        *(Packed<float, V>*)((float*)to + place) = wide;
}

// An axis in words of 32 bits.
struct ShortAxis {
    int size, count, window, stride, dilation, low;
    __device__ __forceinline__ ShortAxis(const ConvolutionAxis& axis)
        : size((int)axis.size), count((int)axis.count), window((int)axis.window), stride((int)axis.stride),
          dilation((int)axis.dilation), low((int)axis.low) {}
};

// The digits of a position: image, then three axes.
struct Position {
    int image, at[3];
    __device__ __forceinline__ Position(unsigned int number, int first, int second, int third) {
        const int radix[3] = {first, second, third};
#pragma unroll
        for (int a = 2; a >= 0; a--) {
            at[a] = (int)(number % (unsigned int)radix[a]);
            number /= (unsigned int)radix[a];
        }
        image = (int)number;
    }
};

// Which position and which of the elements of one a thread computes.
struct Share {
    unsigned int position;
    int element;
    __device__ __forceinline__ Share(unsigned int elements) {
        const long long number = blockIdx.x * 256ll + threadIdx.x;
        position = number >> 32 ? (unsigned int)(number / elements) : (unsigned int)number / elements;
        element = (int)(number - (long long)position * elements);
    }
};

// y, a thread for each V filters of a position.
template <class Kind, int V> static __device__ __forceinline__ void depthwise_result(const Convolution& given) {
    const ShortAxis first(given.axes[0]), second(given.axes[1]), third(given.axes[2]);
    const int filters = (int)given.filters, channels = (int)given.channels;
    const Share share(filters / V);
    const int filter = share.element * V, channel = filter / (filters / channels);
    const Position p(share.position, first.count, second.count, third.count);
    if (p.image >= given.batch) return;
    float sum[V] = {};
    int element = 0;
    for (int i = 0; i < first.window; i++)
        for (int j = 0; j < second.window; j++)
            for (int k = 0; k < third.window; k++, element++) {
                const int x = p.at[0] * first.stride + i * first.dilation - first.low;
                const int y = p.at[1] * second.stride + j * second.dilation - second.low;
                const int z = p.at[2] * third.stride + k * third.dilation - third.low;
                if (x < 0 || y < 0 || z < 0 || x >= first.size || y >= second.size || z >= third.size) continue;
                float read[V], weight[V];
                const int place = ((p.image * first.size + x) * second.size + y) * third.size + z;
                load_some<Kind>(read, given.a, (long long)place * channels + channel);
                load_some<Kind>(weight, given.b, (long long)element * filters + filter);
#pragma unroll
                for (int v = 0; v < V; v++) sum[v] += read[v] * weight[v];
            }
    store_some<Kind>(given.c, (long long)share.position * filters + filter, given.narrow, sum);
}

// Which element of y meets `place` in element k of a window; -1 if none does.
static __device__ __forceinline__ int met(const ShortAxis& axis, int place, int k) {
    const int distance = place + axis.low - k * axis.dilation;
    if (axis.stride == 1) return distance < axis.count ? distance : -1;
    if (distance < 0 || (unsigned int)distance % (unsigned int)axis.stride) return -1;
    const int found = (int)((unsigned int)distance / (unsigned int)axis.stride);
    return found < axis.count ? found : -1;
}

// x, a thread for each V channels of a position.
template <class Kind, int V> static __device__ __forceinline__ void depthwise_input(const Convolution& given) {
    const ShortAxis first(given.axes[0]), second(given.axes[1]), third(given.axes[2]);
    const int filters = (int)given.filters, channels = (int)given.channels, each = filters / channels;
    const Share share(channels / V);
    const int channel = share.element * V, filter = channel * each;
    const Position p(share.position, first.size, second.size, third.size);
    if (p.image >= given.batch) return;
    float sum[V] = {};
    int element = 0;
    for (int i = 0; i < first.window; i++)
        for (int j = 0; j < second.window; j++)
            for (int k = 0; k < third.window; k++, element++) {
                const int x = met(first, p.at[0], i), y = met(second, p.at[1], j), z = met(third, p.at[2], k);
                if (x < 0 || y < 0 || z < 0) continue;
                const int place = ((p.image * first.count + x) * second.count + y) * third.count + z;
                for (int e = 0; e < (V > 1 ? 1 : each); e++) {
                    float read[V], weight[V];
                    load_some<Kind>(read, given.a, (long long)place * filters + filter + e);
                    load_some<Kind>(weight, given.b, (long long)element * filters + filter + e);
#pragma unroll
                    for (int v = 0; v < V; v++) sum[v] += read[v] * weight[v];
                }
            }
    store_some<Kind>(given.c, (long long)share.position * channels + channel, given.narrow, sum);
}

// The kernel: a block sums over a part of the positions, for up to ELEMENTS elements of windows and 32 V filters. Its
// warps take turns at positions.
template <class Kind, int V, int ELEMENTS, int WARPS>
static __device__ __forceinline__ void depthwise_kernel(const Convolution& given) {
    __shared__ int shifts[ELEMENTS][3];
    __shared__ float sums[WARPS][32 * V];
    const ShortAxis axes[3] = {given.axes[0], given.axes[1], given.axes[2]};
    const ShortAxis &first = axes[0], &second = axes[1], &third = axes[2];
    const int filters = (int)given.filters, elements = first.window * second.window * third.window;
    const int tiles = (filters + 32 * V - 1) / (32 * V), groups = (elements + ELEMENTS - 1) / ELEMENTS;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int filter = (int)(blockIdx.x % tiles) * 32 * V + lane * V, element = blockIdx.x / tiles % groups * ELEMENTS;
    const int part = blockIdx.x / tiles / groups, channel = filter / (filters / (int)given.channels);
    if (threadIdx.x < ELEMENTS) {
        const Position place(element + (int)threadIdx.x, first.window, second.window, third.window);
#pragma unroll
        for (int a = 0; a < 3; a++)
            shifts[threadIdx.x][a] = place.image ? NOWHERE : place.at[a] * axes[a].dilation - axes[a].low;
    }
    __syncthreads();
    float sum[ELEMENTS][V] = {};
    const long long positions = given.batch * first.count * second.count * third.count;
    const long long begin = part * given.part_length;
    const long long end = begin + given.part_length < positions ? begin + given.part_length : positions;
    if (filter < filters)
        for (long long number = begin + warp; number < end; number += WARPS) {
            const Position p((unsigned int)number, first.count, second.count, third.count);
            float pulled[V];
            load_some<Kind>(pulled, given.b, number * filters + filter);
            const int x0 = p.at[0] * first.stride, y0 = p.at[1] * second.stride, z0 = p.at[2] * third.stride;
#pragma unroll
            for (int e = 0; e < ELEMENTS; e++) {
                const int x = x0 + shifts[e][0], y = y0 + shifts[e][1], z = z0 + shifts[e][2];
                if (x < 0 || y < 0 || z < 0 || x >= first.size || y >= second.size || z >= third.size) continue;
                float read[V];
                const int place = ((p.image * first.size + x) * second.size + y) * third.size + z;
                load_some<Kind>(read, given.a, place * given.channels + channel);
#pragma unroll
                for (int v = 0; v < V; v++) sum[e][v] += pulled[v] * read[v];
            }
        }
    const bool whole = given.part_count == 1;
    void* to = whole ? given.c : (void*)(given.parts + part * ((long long)elements * filters));
#pragma unroll
    for (int e = 0; e < ELEMENTS; e++) {
        __syncthreads();
#pragma unroll
        for (int v = 0; v < V; v++) sums[warp][lane * V + v] = sum[e][v];
        __syncthreads();
        if (warp || filter >= filters || element + e >= elements) continue;
        float total[V] = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++)
#pragma unroll
            for (int v = 0; v < V; v++) total[v] += sums[w][lane * V + v];
        store_some<Kind>(to, (long long)(element + e) * filters + filter, whole && given.narrow, total);
    }
}
