// Convolutions as products of matrices whose left one is never in memory: its elements are gathered from images while
// the product goes on (Chetlur et al. 2014, https://arxiv.org/abs/1410.0759). Channels come last.
//
//   sought   rows                       columns    inner axis
//   RESULT   positions of y             filters    elements of a window, channels
//   INPUT    positions of x             channels   elements of a window, filters
//   KERNEL   elements of a window,      filters    positions of y
//            channels
//
// Of x those positions are computed together that meet the same elements of windows: with strides, each block has one
// phase of them, so that nothing is multiplied by zeros between elements of y.

enum Sought { RESULT, INPUT, KERNEL };

// Every field of these structures takes 8 bytes. `count` is of y, `size` of x. Where there are fewer than three axes,
// others of a single element stand before them. There are fewer than 2^31 positions of x and of y.
struct ConvolutionAxis {
    long long size, count, window, stride, dilation, low;
};
struct Convolution {
    const void *a, *b;  // of x, y and the kernel those two, in this order, that are not sought
    void* c;
    float* parts;  // of a kernel: sums over some positions each, if there are several
    long long batch, channels, filters, groups, part_count, part_length;  // lengths in positions of y
    long long narrow, pairs;  // is c of the operands' type, and may two neighbours be written at once?
    ConvolutionAxis axes[3];
};

// What a position meets along each axis: in element j of `elements`, element `start + i * step + j * turn` of `size`.
// That is element `first + j * every` of a window.
template <int SOUGHT, int AXES> struct Meeting {
    int positions[AXES], start[AXES], step[AXES], elements[AXES], turn[AXES], size[AXES], first[AXES], every[AXES];
    int phase[AXES], stride[AXES], window[AXES], whole[AXES];
    __device__ __forceinline__ Meeting(const Convolution& given, int number) {
#pragma unroll
        for (int a = AXES - 1; a >= 0; a--) {
            const ConvolutionAxis& axis = given.axes[3 - AXES + a];
            window[a] = (int)axis.window;
            stride[a] = (int)axis.stride;
            const int dilation = (int)axis.dilation, low = (int)axis.low;
            first[a] = phase[a] = 0;
            every[a] = 1;
            if (SOUGHT != INPUT) {
                positions[a] = (int)axis.count;
                size[a] = whole[a] = (int)axis.size;
                start[a] = -low;
                step[a] = stride[a];
                elements[a] = window[a];
                turn[a] = dilation;
                continue;
            }
            const int own = phase[a] = number % stride[a];
            number /= stride[a];
            size[a] = (int)axis.count;
            whole[a] = (int)axis.size;
            positions[a] = (whole[a] - own + stride[a] - 1) / stride[a];
            step[a] = 1;
            while (every[a] * dilation % stride[a]) every[a]++;
            while (first[a] < every[a] && (own + low - first[a] * dilation) % stride[a]) first[a]++;
            const bool none = first[a] == every[a] || first[a] >= window[a];
            elements[a] = none ? 0 : (window[a] - first[a] + every[a] - 1) / every[a];
            start[a] = (own + low - first[a] * dilation) / stride[a];
            turn[a] = -(every[a] * dilation / stride[a]);
        }
    }
    __device__ __forceinline__ int element_count() const {
        int count = 1;
#pragma unroll
        for (int a = 0; a < AXES; a++) count *= elements[a];
        return count;
    }
    __device__ __forceinline__ long long position_count(long long batch) const {
#pragma unroll
        for (int a = 0; a < AXES; a++) batch *= positions[a];
        return batch;
    }
};

// Where a position begins to meet what is read: the number of a pixel of all images, and its place along each axis.
template <int AXES> struct __align__(16) Spot {
    int pixel, at[AXES];
};
constexpr int NOWHERE = -(1 << 30);

// A number in several digits, the last one changing fastest, that is counted up by a constant.
template <int DIGITS> struct Counter {
    int digit[DIGITS], step[DIGITS];
    __device__ __forceinline__ void begin(unsigned int number, unsigned int by, const int (&radix)[DIGITS]) {
#pragma unroll
        for (int i = DIGITS - 1; i > 0; i--) {
            digit[i] = (int)(number % (unsigned int)radix[i]);
            number /= (unsigned int)radix[i];
            step[i] = (int)(by % (unsigned int)radix[i]);
            by /= (unsigned int)radix[i];
        }
        digit[0] = (int)number;
        step[0] = (int)by;
    }
    __device__ __forceinline__ void count(const int (&radix)[DIGITS]) {
        int carry = 0;
#pragma unroll
        for (int i = DIGITS - 1; i > 0; i--) {
            digit[i] += step[i] + carry;
            carry = digit[i] >= radix[i];
            digit[i] -= carry ? radix[i] : 0;
        }
        digit[0] += step[0] + carry;
    }
};

template <int SOUGHT, int AXES>
static __device__ __forceinline__ Spot<AXES> spot_of(const Meeting<SOUGHT, AXES>& meeting, const int* digit,
                                                     bool some) {
    Spot<AXES> spot;
    spot.pixel = digit[0];  // the image
#pragma unroll
    for (int a = 0; a < AXES; a++) {
        const int at = meeting.start[a] + digit[1 + a] * meeting.step[a];
        spot.pixel = spot.pixel * meeting.size[a] + at;
        spot.at[a] = some ? at : NOWHERE;
    }
    return spot;
}

// A position in the digits of a counter: image, then axes.
template <int SOUGHT, int AXES>
static __device__ __forceinline__ void radix_of(const Meeting<SOUGHT, AXES>& meeting, int (&radix)[AXES + 1]) {
    radix[0] = 0;
#pragma unroll
    for (int a = 0; a < AXES; a++) radix[1 + a] = meeting.positions[a] > 0 ? meeting.positions[a] : 1;
}

// How far an element of a window is away from a spot.
template <int AXES> struct Shift {
    int pixel, by[AXES];
    template <int SOUGHT>
    __device__ __forceinline__ Shift(const Meeting<SOUGHT, AXES>& meeting, const int* element) {
        pixel = 0;
#pragma unroll
        for (int a = 0; a < AXES; a++) {
            by[a] = element[a] * meeting.turn[a];
            pixel = pixel * meeting.size[a] + by[a];
        }
    }
    template <int SOUGHT>
    __device__ __forceinline__ bool is_inside(const Meeting<SOUGHT, AXES>& meeting, const Spot<AXES>& spot) const {
        bool inside = true;
#pragma unroll
        for (int a = 0; a < AXES; a++)
            inside &= (unsigned int)(spot.at[a] + by[a]) < (unsigned int)meeting.size[a];
        return inside;
    }
};

template <class Kind>
static __device__ __forceinline__ void store_two(void* to, long long place, bool narrow, bool pairs, bool second,
                                                 float first_value, float second_value) {
    typedef typename Kind::Element Element;
    if (narrow) {
        Element* at = (Element*)to + place;
        const Packed<Element, 2> two = {{Kind::store(first_value), Kind::store(second_value)}};
        if (pairs) {
            *(Packed<Element, 2>*)at = two;
        } else {
            at[0] = two.values[0];
            if (second) at[1] = two.values[1];
        }
    } else {
        float* at = (float*)to + place;
        if (pairs) {
            *(Packed<float, 2>*)at = {{first_value, second_value}};
        } else {
            at[0] = first_value;
            if (second) at[1] = second_value;
        }
    }
}

// A block computes 16 M DOWN x 8 N ACROSS elements of one group, phase and part, DOWN x ACROSS warps each a part of
// them. While one stage of the inner axis is multiplied the next STAGES - 1 are brought; WIDE_A and WIDE_B say that
// channels are brought 16 bytes at a time.
template <class Kind, int SOUGHT, int AXES, int M, int N, int DOWN, int ACROSS, int STAGES, bool WIDE_A, bool WIDE_B>
static __device__ __forceinline__ void convolve(const Convolution& given) {
    typedef typename Kind::Element Element;
    constexpr bool OF_KERNEL = SOUGHT == KERNEL, TURNED_RIGHT = SOUGHT != INPUT;
    constexpr int ROWS = 16 * M * DOWN, COLUMNS = 8 * N * ACROSS, THREADS = 32 * DOWN * ACROSS;
    typedef Panel<Kind, ROWS, OF_KERNEL> Left;
    typedef Panel<Kind, COLUMNS, TURNED_RIGHT> Right;
    constexpr int ELEMENT = Left::ELEMENT, INNER = Left::INNER, STAGE = Left::BYTES + Right::BYTES;
    constexpr int CHUNK = WIDE_A ? 16 / ELEMENT : 1, RIGHT_CHUNK = WIDE_B ? 16 / ELEMENT : 1;
    unsigned char* stages = shared_bytes();
    Spot<AXES>* spots = (Spot<AXES>*)(stages + STAGES * STAGE);  // of rows, or of two stages of the inner axis

    const long long channels = given.channels, filters = given.filters;
    const int groups = (int)given.groups;
    const int group_channels = (int)(channels / groups), group_filters = (int)(filters / groups);
    const int columns = SOUGHT == INPUT ? group_channels : group_filters;
    const int column_tiles = (columns + COLUMNS - 1) / COLUMNS;
    long long block = blockIdx.x;
    const int first_column = (int)(block % column_tiles) * COLUMNS;
    block /= column_tiles;
    const int group = (int)(block % groups);
    block /= groups;
    int phase = 0, part = 0;
    if (SOUGHT == INPUT) {
        int phases = 1;
#pragma unroll
        for (int a = 0; a < 3; a++) phases *= (int)given.axes[a].stride;
        phase = (int)(block % phases);
        block /= phases;
    }
    if (OF_KERNEL) {
        part = (int)(block % given.part_count);
        block /= given.part_count;
    }
    const long long first_row = block * ROWS;
    const Meeting<SOUGHT, AXES> meeting(given, phase);
    const long long positions = meeting.position_count(given.batch);
    const int elements = meeting.element_count();
    // what is gathered, and its channels
    const int pitch = (int)(SOUGHT == INPUT ? filters : channels);
    const int own_channels = SOUGHT == INPUT ? group_filters : group_channels;
    const long long rows = OF_KERNEL ? (long long)elements * group_channels : positions;
    if (first_row >= rows) return;
    const long long first_position = OF_KERNEL ? part * given.part_length : 0;
    const long long left_over = positions - first_position;
    const int inner = !OF_KERNEL ? elements * own_channels
                                 : (int)(left_over < given.part_length ? left_over : given.part_length);
    const Element* gathered = (const Element*)given.a + (long long)group * own_channels;
    const Element* matrix = (const Element*)given.b + (long long)group * group_filters;

    int radix[AXES + 1];
    radix_of(meeting, radix);

    // how this thread gathers: always the same column of a tile
    constexpr int LANES = (OF_KERNEL ? ROWS : INNER) / CHUNK, EVERY = THREADS / LANES;
    constexpr int LOADS = (OF_KERNEL ? INNER : ROWS) / EVERY;
    const int own_lane = threadIdx.x % LANES * CHUNK, own_line = threadIdx.x / LANES;
    Counter<AXES + 1> along;  // elements of a window, then channels
    int along_radix[AXES + 1];
#pragma unroll
    for (int a = 0; a < AXES; a++) along_radix[a] = meeting.elements[a] > 0 ? meeting.elements[a] : 1;
    along_radix[AXES] = own_channels > 0 ? own_channels : 1;
    along.begin((OF_KERNEL ? (unsigned int)first_row : 0u) + own_lane, INNER, along_radix);
    const Shift<AXES> fixed(meeting, along.digit);  // of a kernel
    if (OF_KERNEL) gathered += along.digit[AXES];
    const bool is_row = first_row + own_lane < rows;
    int element_step[AXES], first_element = 0, each = 1;  // of a window
#pragma unroll
    for (int a = AXES - 1; a >= 0; a--) {
        first_element += meeting.first[a] * each;
        element_step[a] = meeting.every[a] * each;
        each *= meeting.window[a];
    }
    Counter<AXES + 1> position;
    Spot<AXES> own[OF_KERNEL || !WIDE_A ? 1 : LOADS];
    if (OF_KERNEL) {
        position.begin((unsigned int)first_position + threadIdx.x, INNER, radix);
    } else {
        const int count = WIDE_A ? LOADS : (ROWS + THREADS - 1) / THREADS;
#pragma unroll
        for (int i = 0; i < count; i++) {
            const int row = WIDE_A ? own_line + i * EVERY : threadIdx.x + i * THREADS;
            position.begin((unsigned int)first_row + row, 0, radix);
            const Spot<AXES> spot = spot_of(meeting, position.digit, first_row + row < rows);
            if (WIDE_A)
                own[WIDE_A ? i : 0] = spot;
            else if (row < ROWS)
                spots[row] = spot;
        }
        if (!WIDE_A) __syncthreads();
    }
    auto write_spots = [&](int tile) {
        if (threadIdx.x < INNER) {
            const bool some = tile * INNER + (int)threadIdx.x < inner;
            spots[tile % 2 * INNER + threadIdx.x] = spot_of(meeting, position.digit, some);
            position.count(radix);
        }
    };
    auto bring_tile = [&](int tile, int turn) {
        unsigned char* left = stages + turn * STAGE;
        unsigned char* right = left + Left::BYTES;
        const Shift<AXES> moving(meeting, along.digit);
        const Shift<AXES>& shift = OF_KERNEL ? fixed : moving;
        const Element* from_gathered = OF_KERNEL ? gathered : gathered + along.digit[AXES];
        const bool some = OF_KERNEL ? is_row : tile * INNER + own_lane < inner;
        constexpr int AT_ONCE = WIDE_A ? LOADS : 4, RIGHT_AT_ONCE = WIDE_B ? LOADS : 4;
#pragma unroll AT_ONCE
        for (int i = 0; i < LOADS; i++) {
            const int line = own_line + i * EVERY;
            const Spot<AXES> spot = OF_KERNEL ? spots[tile % 2 * INNER + line]
                                    : WIDE_A  ? own[WIDE_A ? i : 0]
                                              : spots[line];
            bring<WIDE_A>(left + Left::place(line, own_lane * ELEMENT),
                          from_gathered + (long long)(spot.pixel + shift.pixel) * pitch, gathered,
                          some && shift.is_inside(meeting, spot));
        }
        if (!TURNED_RIGHT) {  // filters are the inner axis of both
            int element = first_element;
#pragma unroll
            for (int a = 0; a < AXES; a++) element += along.digit[a] * element_step[a];
            const Element* from = matrix + (long long)element * group_channels * filters + along.digit[AXES];
#pragma unroll AT_ONCE
            for (int i = 0; i < COLUMNS / EVERY; i++) {
                const int line = own_line + i * EVERY, column = first_column + line;
                bring<WIDE_A>(right + Right::place(line, own_lane * ELEMENT), from + column * filters, matrix,
                              some && column < columns);
            }
        } else {
            constexpr int CHUNKS = COLUMNS / RIGHT_CHUNK;
#pragma unroll RIGHT_AT_ONCE
            for (int i = 0; i < INNER * CHUNKS / THREADS; i++) {
                const int index = threadIdx.x + i * THREADS, line = index / CHUNKS;
                const int column = index % CHUNKS * RIGHT_CHUNK, row = tile * INNER + line;
                bring<WIDE_B>(right + Right::place(line, column * ELEMENT),
                              matrix + (first_position + row) * filters + first_column + column, matrix,
                              row < inner && first_column + column < columns);
            }
        }
        if (!OF_KERNEL) along.count(along_radix);
    };

    const int tiles = (inner + INNER - 1) / INNER;
    if (OF_KERNEL) write_spots(0);
#pragma unroll
    for (int tile = 0; tile < STAGES - 1; tile++) {
        if (OF_KERNEL) __syncthreads();
        if (tile < tiles) bring_tile(tile, tile);
        if (OF_KERNEL) write_spots(tile + 1);
        end_copies();
    }
    float sum[M][N][4] = {};
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int own_row = warp / ACROSS * 16 * M, own_column = warp % ACROSS * 8 * N;
    int turn = 0, next = STAGES - 1;
    for (int tile = 0; tile < tiles; tile++) {
        wait_for_copies<STAGES - 2>();
        __syncthreads();
        if (tile + STAGES - 1 < tiles) bring_tile(tile + STAGES - 1, next);
        if (OF_KERNEL) write_spots(tile + STAGES);
        end_copies();
        const unsigned char* left = stages + turn * STAGE;
        const unsigned char* right = left + Left::BYTES + own_column * (TURNED_RIGHT ? ELEMENT : Right::PITCH);
        left += own_row * (OF_KERNEL ? ELEMENT : Left::PITCH);
        Warp<Kind, Left, Right, OF_KERNEL, TURNED_RIGHT, M, N>::multiply(sum, left, right);
        next = turn;
        turn = turn + 1 == STAGES ? 0 : turn + 1;
    }

    const long long width = SOUGHT == INPUT ? channels : filters;
    const bool whole = !OF_KERNEL || given.part_count == 1;
    const bool narrow = whole && given.narrow;
    void* to = whole ? given.c : (void*)(given.parts + part * (rows * filters));
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const long long row = first_row + own_row + 8 * i + lane / 4;
        if (row >= rows) continue;
        long long place = row;
        if (SOUGHT == INPUT) {
            position.begin((unsigned int)row, 0, radix);
            place = position.digit[0];
#pragma unroll
            for (int a = 0; a < AXES; a++)
                place = place * meeting.whole[a] + position.digit[1 + a] * meeting.stride[a] + meeting.phase[a];
        }
        place = place * width + (long long)group * columns + first_column;
#pragma unroll
        for (int n = 0; n < N; n++) {
            const int column = own_column + 8 * n + lane % 4 * 2;
            if (first_column + column < columns)
                store_two<Kind>(to, place + column, narrow, given.pairs, first_column + column + 1 < columns,
                                sum[i / 2][n][i % 2 * 2], sum[i / 2][n][i % 2 * 2 + 1]);
        }
    }
}

// The sums of parts, each element by one thread, in order.
template <class Kind> static __device__ __forceinline__ void convolution_total(const Convolution& given) {
    typedef typename Kind::Element Element;
    long long count = given.channels / given.groups * given.filters;
#pragma unroll
    for (int a = 0; a < 3; a++) count *= given.axes[a].window;
    const long long i = blockIdx.x * 256ll + threadIdx.x;
    if (i >= count) return;
    float sum = 0;
#pragma unroll 8
    for (int part = 0; part < (int)given.part_count; part++) sum += given.parts[part * count + i];
    if (given.narrow)
        ((Element*)given.c)[i] = Kind::store(sum);
    else
        ((float*)given.c)[i] = sum;
}
