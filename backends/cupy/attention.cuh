// Attention without a matrix of all scores in memory: a block keeps some rows in shared memory and passes over the rows
// of the other side, tile by tile (Dao 2023, https://arxiv.org/abs/2307.08691).

// Where a matrix of each head lies, and how far apart in elements what follows along the three leading axes, rows and
// columns are. Every field of these structures takes 8 bytes. An added mask and sums are float32, and so are results
// unless they are said to be of the operands' type.
struct Lying {
    void* first;
    long long steps[5];
};
struct Attention {
    Lying query, key, value, mask, cotangent, result, query_gradient, key_gradient, value_gradient;
    float *statistics, *deltas;  // of each query: log2 of the sum of its exponentials; result . cotangent
    const unsigned int *seed, *step;
    long long stream, sizes[3], rows, columns, width, value_width;  // sizes of the leading axes
    long long aligned, narrow_result, narrow_gradients;  // may rows be read 16 bytes at a time?
    double scale, kept;
};

enum Mask { NO_MASK, ALLOWING, ADDED };

// Which of the matrices of queries a block works on.
struct Head {
    long long number, outer, middle, inner;
    __device__ __forceinline__ Head(const Attention& a, long long given) {
        number = given;
        inner = given % a.sizes[2];
        middle = given / a.sizes[2] % a.sizes[1];
        outer = given / a.sizes[2] / a.sizes[1];
    }
    template <class T> __device__ __forceinline__ T* find(const Lying& a, long long row = 0) const {
        return (T*)a.first + outer * a.steps[0] + middle * a.steps[1] + inner * a.steps[2] + row * a.steps[3];
    }
};

constexpr float LOG2_E = 1.4426950408889634f;

// Which score of a warp a lane holds as element k % 4 of [k / (4 * N)][k / 4 % N].
template <bool TURNED, int M, int N> struct Place {
    int mine, other;
    __device__ __forceinline__ Place(int first_mine, int first_other) {
        mine = first_mine + threadIdx.x % 32 / 4;
        other = first_other + threadIdx.x % 4 * 2;
    }
    static __device__ __forceinline__ int down(int k) { return k / (4 * N) * 16 + k % 4 / 2 * 8; }
    static __device__ __forceinline__ int along(int k) { return k / 4 % N * 8 + k % 2; }
    __device__ __forceinline__ int row(int k) const { return TURNED ? other + along(k) : mine + down(k); }
    __device__ __forceinline__ int column(int k) const { return TURNED ? mine + down(k) : other + along(k); }
    // Is the key behind the query?
    __device__ __forceinline__ bool is_later(int k) const {
        return TURNED ? mine - other > along(k) - down(k) : other - mine > down(k) - along(k);
    }
};

// Scores are turned into exponents of 2 that count, or -infinity. Bits for dropout are those of Bernoulli over all
// weights; `kept` says what a weight is multiplied by, but for what all are multiplied by.
template <bool CAUSAL, int MASK, bool DROPOUT> struct Scoring {
    const Attention& a;
    const Head head;
    const void* mask;
    float factor, limit;
    int rows, columns;
    unsigned int seed, step;
    __device__ __forceinline__ Scoring(const Attention& given, const Head& of) : a(given), head(of) {
        factor = (float)a.scale * LOG2_E;
        rows = (int)a.rows;
        columns = (int)a.columns;
        if (MASK == ADDED) mask = head.find<float>(a.mask);
        if (MASK == ALLOWING) mask = head.find<bool>(a.mask);
        if (DROPOUT) {
            seed = *a.seed;
            step = *a.step;
            limit = (float)a.kept;
        }
    }
    // May a tile hold scores that do not count, for another reason than the mask?
    __device__ __forceinline__ bool has_edge(int first_row, int end_column) const {
        return end_column > columns || (CAUSAL && end_column - 1 > first_row);
    }
    // Rows of scores are queries from `first_row` on, and columns keys; or, turned, the other way round.
    template <bool TURNED, int M, int N>
    __device__ __forceinline__ void turn_into_exponents(float (&p)[M][N][4], int first_row, int first_column,
                                                        bool edge) const {
        const Place<TURNED, M, N> place(first_row, first_column);
#pragma unroll
        for (int k = 0; k < 4 * M * N; k++) {
            float& x = p[k / (4 * N)][k / 4 % N][k % 4];
            x *= factor;
            if (MASK == NO_MASK) continue;
            const int row = place.row(k), column = place.column(k);
            const bool inside = row < rows && column < columns;
            const long long at = row * a.mask.steps[3] + column * a.mask.steps[4];
            if (MASK == ADDED) x += (inside ? ((const float*)mask)[at] : 0.0f) * LOG2_E;
            if (MASK == ALLOWING && inside && !((const bool*)mask)[at]) x = -INFINITY;
        }
        if (edge)
#pragma unroll
            for (int k = 0; k < 4 * M * N; k++)
                if ((!TURNED && place.column(k) >= columns) || (CAUSAL && place.is_later(k)))
                    p[k / (4 * N)][k / 4 % N][k % 4] = -INFINITY;
    }
    __device__ __forceinline__ bool keeps(int row, int column) const {
        const unsigned int number = ((unsigned int)head.number * rows + row) * columns + column;
        return (float)(threefry(seed, (unsigned int)a.stream, step, number) >> 8) * 0x1p-24f < limit;
    }
};

// Writes rows of which a lane holds two neighbours in each eight, times `factor`.
template <class T, int WIDTH>
static __device__ __forceinline__ void store_row(T* to, long long step, int width, bool aligned,
                                                 const float (&sum)[WIDTH / 8][4], int half, float factor,
                                                 T (*rounded)(float)) {
#pragma unroll
    for (int d = 0; d < WIDTH / 8; d++) {
        const int column = 8 * d + threadIdx.x % 4 * 2;
        const Packed<T, 2> two = {{rounded(sum[d][2 * half] * factor), rounded(sum[d][2 * half + 1] * factor)}};
        if (aligned) {
            if (column < width) *(Packed<T, 2>*)(to + column) = two;
        } else {
            if (column < width) to[column * step] = two.values[0];
            if (column + 1 < width) to[(column + 1) * step] = two.values[1];
        }
    }
}
template <class Kind, int WIDTH>
static __device__ __forceinline__ void store_row(const Lying& place, const Head& head, int row, int width, bool aligned,
                                                 bool narrow, const float (&sum)[WIDTH / 8][4], int half,
                                                 float factor) {
    typedef typename Kind::Element Element;
    if (narrow)
        store_row<Element, WIDTH>(head.find<Element>(place, row), place.steps[4], width, aligned, sum, half, factor,
                                  Kind::store);
    else
        store_row<float, WIDTH>(head.find<float>(place, row), place.steps[4], width, aligned, sum, half, factor,
                                Float32::store);
}

// A block for each tile of queries of each head, the last tile first, which of a causal one has most to do. Keys and
// values take turns in being brought, each while the other is multiplied.
template <class Kind, int WIDTH, int M, int N, int WARPS, bool CAUSAL, int MASK, bool DROPOUT>
static __device__ __forceinline__ void attention_forward(const Attention& a) {
    typedef typename Kind::Element Element;
    constexpr int ROWS = 16 * M * WARPS, COLUMNS = 8 * N, THREADS = 32 * WARPS, PITCH = Tile<Kind, WIDTH>::PITCH;
    unsigned char *query_tile = shared_bytes(), *key_tile = query_tile + ROWS * PITCH;
    unsigned char* value_tile = key_tile + COLUMNS * PITCH;
    const int rows = (int)a.rows, columns = (int)a.columns, width = (int)a.width, value_width = (int)a.value_width;
    const int tiles = (rows + ROWS - 1) / ROWS, first_row = (tiles - 1 - (int)blockIdx.x % tiles) * ROWS;
    const Scoring<CAUSAL, MASK, DROPOUT> scoring(a, Head(a, blockIdx.x / tiles));
    const Head& head = scoring.head;
    const Element *key = head.find<Element>(a.key), *value = head.find<Element>(a.value);
    const int end = CAUSAL && first_row + ROWS < columns ? first_row + ROWS : columns;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int own_row = first_row + 16 * M * warp;
    const bool aligned = a.aligned;

    load_tile<Kind, WIDTH, ROWS, THREADS>(query_tile, head.find<Element>(a.query, first_row), a.query.steps,
                                          rows - first_row, width, aligned);
    load_tile<Kind, WIDTH, COLUMNS, THREADS>(key_tile, key, a.key.steps, columns, width, aligned);
    end_copies();
    float result[M][WIDTH / 8][4] = {}, largest[M][2], total[M][2] = {};
#pragma unroll
    for (int i = 0; i < 2 * M; i++) largest[i / 2][i % 2] = -INFINITY;

    for (int first = 0; first < end; first += COLUMNS) {
        wait_for_copies<0>();
        __syncthreads();
        load_tile<Kind, WIDTH, COLUMNS, THREADS>(value_tile, value + first * a.value.steps[3], a.value.steps,
                                                 columns - first, value_width, aligned);
        end_copies();
        float p[M][N][4] = {};
        // what lies behind all queries of a warp is nothing to it
        const bool counts = !CAUSAL || first < own_row + 16 * M;
        if (counts) {
            Product<Kind, WIDTH>::template scores<16>(p, query_tile + 16 * M * warp * PITCH, key_tile);
            scoring.template turn_into_exponents<false>(p, own_row, first, scoring.has_edge(own_row, first + COLUMNS));
#pragma unroll
            for (int i = 0; i < 2 * M; i++) {
                const int m = i / 2, h = i % 2;
                const int row = own_row + 8 * i + lane / 4;
                float now = largest[m][h];
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++) now = fmaxf(now, p[m][n][2 * h + j]);
                now = fmaxf(now, from_lane(now, 1));
                now = fmaxf(now, from_lane(now, 2));
                const float shift = now == -INFINITY ? 0.0f : now, before = power_of_two(largest[m][h] - shift);
                largest[m][h] = now;
                total[m][h] *= before;
#pragma unroll
                for (int d = 0; d < WIDTH / 8; d++) {
                    result[m][d][2 * h] *= before;
                    result[m][d][2 * h + 1] *= before;
                }
#pragma unroll
                for (int n = 0; n < N; n++)
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        float& x = p[m][n][2 * h + j];
                        x = power_of_two(x - shift);
                        total[m][h] += x;
                        if (DROPOUT && !scoring.keeps(row, first + 8 * n + lane % 4 * 2 + j)) x = 0;
                    }
            }
        }
        wait_for_copies<0>();
        __syncthreads();
        if (first + COLUMNS < end)
            load_tile<Kind, WIDTH, COLUMNS, THREADS>(key_tile, key + (first + COLUMNS) * a.key.steps[3], a.key.steps,
                                                     columns - first - COLUMNS, width, aligned);
        end_copies();
        if (counts) Product<Kind, WIDTH>::rows(result, p, value_tile);
    }

#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int row = own_row + 8 * i + lane / 4;
        float sum = total[i / 2][i % 2];
        sum += from_lane(sum, 1);
        sum += from_lane(sum, 2);
        if (row >= rows) continue;
        const long long place = head.number * a.rows + row;
        const float factor = sum == 0 ? 0.0f : 1.0f / (DROPOUT ? sum * (float)a.kept : sum);
        store_row<Kind, WIDTH>(a.result, head, row, value_width, aligned, a.narrow_result, result[i / 2], i % 2,
                               factor);
        // where no key counts, infinity makes all weights 0 again
        if (a.statistics && lane % 4 == 0)
            a.statistics[place] = sum == 0 ? INFINITY : largest[i / 2][i % 2] + log2f(sum);
    }
}

// A warp for each query: the product of its result and the cotangent of that.
template <class Kind, int WARPS> static __device__ __forceinline__ void attention_deltas(const Attention& a) {
    typedef typename Kind::Element Element;
    const long long place = (long long)blockIdx.x * WARPS + threadIdx.x / 32;
    if (place >= a.sizes[0] * a.sizes[1] * a.sizes[2] * a.rows) return;
    const Head head(a, place / a.rows);
    const Element* cotangent = head.find<Element>(a.cotangent, place % a.rows);
    const float* result = head.find<float>(a.result, place % a.rows);
    const Element* narrow = head.find<Element>(a.result, place % a.rows);
    float sum = 0;
    for (int i = threadIdx.x % 32; i < a.value_width; i += 32) {
        const long long at = i * a.result.steps[4];
        const float mine = a.narrow_result ? Kind::load(narrow[at]) : result[at];
        sum += mine * Kind::load(cotangent[i * a.cotangent.steps[4]]);
    }
#pragma unroll
    for (int distance = 16; distance; distance >>= 1) sum += from_lane(sum, distance);
    if (threadIdx.x % 32 == 0) a.deltas[place] = sum;
}

// Of the gradients either that of queries, whose tiles stay while keys and values pass, or those of keys and values,
// whose tiles stay while queries and cotangents pass. Each block sums in one order, and no two write to one place.
template <class Kind, int WIDTH, int M, int N, int WARPS, int STAGES, bool OF_KEYS, bool CAUSAL, int MASK, bool DROPOUT>
static __device__ __forceinline__ void attention_gradient(const Attention& a) {
    typedef typename Kind::Element Element;
    constexpr int STAY = 16 * M * WARPS, PASS = 8 * N, THREADS = 32 * WARPS, PITCH = Tile<Kind, WIDTH>::PITCH;
    unsigned char *first_tile = shared_bytes(), *second_tile = first_tile + STAY * PITCH;
    unsigned char* passing = second_tile + STAY * PITCH;
    float* numbers = (float*)(passing + STAGES * 2 * PASS * PITCH);  // statistics, then deltas, of passing queries
    const int rows = (int)a.rows, columns = (int)a.columns, width = (int)a.width, value_width = (int)a.value_width;
    const int length = OF_KEYS ? columns : rows, passed = OF_KEYS ? rows : columns;
    const int tiles = (length + STAY - 1) / STAY, tile = (int)blockIdx.x % tiles;
    const int start = (OF_KEYS ? tile : tiles - 1 - tile) * STAY;  // what has most to do comes first
    const Scoring<CAUSAL, MASK, DROPOUT> scoring(a, Head(a, blockIdx.x / tiles));
    const Head& head = scoring.head;
    const Lying &first_stays = OF_KEYS ? a.key : a.query, &second_stays = OF_KEYS ? a.value : a.cotangent;
    const Lying &first_passes = OF_KEYS ? a.query : a.key, &second_passes = OF_KEYS ? a.cotangent : a.value;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int own = start + 16 * M * warp;
    const bool aligned = a.aligned;

    load_tile<Kind, WIDTH, STAY, THREADS>(first_tile, head.find<Element>(first_stays, start), first_stays.steps,
                                          length - start, width, aligned);
    load_tile<Kind, WIDTH, STAY, THREADS>(second_tile, head.find<Element>(second_stays, start), second_stays.steps,
                                          length - start, value_width, aligned);
    const int begin = OF_KEYS && CAUSAL ? start / PASS * PASS : 0;
    const int end = !OF_KEYS && CAUSAL && start + STAY < passed ? start + STAY : passed;
    const Element *first_from = head.find<Element>(first_passes), *second_from = head.find<Element>(second_passes);
    const long long queries_before = head.number * rows;
    auto bring = [&](int first) {
        const int turn = first / PASS % STAGES;
        unsigned char* stage = passing + turn * 2 * PASS * PITCH;
        load_tile<Kind, WIDTH, PASS, THREADS>(stage, first_from + first * first_passes.steps[3], first_passes.steps,
                                              passed - first, width, aligned);
        load_tile<Kind, WIDTH, PASS, THREADS>(stage + PASS * PITCH, second_from + first * second_passes.steps[3],
                                              second_passes.steps, passed - first, value_width, aligned);
        if (OF_KEYS && threadIdx.x < PASS) {
            const int row = first + (int)threadIdx.x;
            const SharedPlace to = shared_place(numbers + turn * 2 * PASS + threadIdx.x);
            const long long place = queries_before + (row < rows ? row : 0);
            copy_to_shared<4>(to, a.statistics + place, row < rows);
            copy_to_shared<4>(to + 4 * PASS, a.deltas + place, row < rows);
        }
        end_copies();
    };

    float statistic[M][2], delta[M][2];
    if (!OF_KEYS)
#pragma unroll
        for (int i = 0; i < 2 * M; i++) {
            const int row = own + 8 * i + lane / 4;
            statistic[i / 2][i % 2] = row < rows ? a.statistics[queries_before + row] : 0.0f;
            delta[i / 2][i % 2] = row < rows ? a.deltas[queries_before + row] : 0.0f;
        }
    float first_sum[M][WIDTH / 8][4] = {}, second_sum[M][WIDTH / 8][4] = {};
    const float larger = DROPOUT ? 1.0f / (float)a.kept : 1.0f;
    if (begin < end) bring(begin);
    for (int first = begin; first < end; first += PASS) {
        if (STAGES == 1 && first > begin) {
            __syncthreads();
            bring(first);
        }
        wait_for_copies<0>();
        __syncthreads();
        if (STAGES > 1 && first + PASS < end) bring(first + PASS);
        if (CAUSAL && (OF_KEYS ? first + PASS <= own : first >= own + 16 * M)) continue;
        const unsigned char* stage = passing + first / PASS % STAGES * 2 * PASS * PITCH;
        const float* known = numbers + first / PASS % STAGES * 2 * PASS;
        float p[M][N][4] = {}, ds[M][N][4] = {};
        constexpr int UNROLLED = OF_KEYS && M > 1 ? 2 : 16;
        Product<Kind, WIDTH>::template scores<UNROLLED>(p, first_tile + 16 * M * warp * PITCH, stage);
        Product<Kind, WIDTH>::template scores<UNROLLED>(ds, second_tile + 16 * M * warp * PITCH,
                                                        stage + PASS * PITCH);
        // keys behind the last one have rows of their own, which are not written
        const bool edge = OF_KEYS ? CAUSAL && own + 16 * M - 1 > first : scoring.has_edge(own, first + PASS);
        scoring.template turn_into_exponents<OF_KEYS>(p, own, first, edge);
        const Place<OF_KEYS, M, N> place(own, first);
#pragma unroll
        for (int k = 0; k < 4 * M * N; k++) {
            const int m = k / (4 * N), n = k / 4 % N, e = k % 4, other = place.other - first + place.along(k);
            const float weight = power_of_two(p[m][n][e] - (OF_KEYS ? known[other] : statistic[m][e / 2]));
            const float kept = !DROPOUT ? 1.0f : scoring.keeps(place.row(k), place.column(k)) ? larger : 0.0f;
            p[m][n][e] = weight * kept;
            ds[m][n][e] = weight * (ds[m][n][e] * kept - (OF_KEYS ? known[PASS + other] : delta[m][e / 2]));
        }
        if (OF_KEYS) Product<Kind, WIDTH>::rows(second_sum, p, stage + PASS * PITCH);
        Product<Kind, WIDTH>::rows(first_sum, ds, stage);
    }

    const Lying& first_result = OF_KEYS ? a.key_gradient : a.query_gradient;
#pragma unroll
    for (int i = 0; i < 2 * M; i++) {
        const int mine = own + 8 * i + lane / 4;
        if (mine >= length) continue;
        store_row<Kind, WIDTH>(first_result, head, mine, width, aligned, a.narrow_gradients, first_sum[i / 2], i % 2,
                               (float)a.scale);
        if (OF_KEYS)
            store_row<Kind, WIDTH>(a.value_gradient, head, mine, value_width, aligned, a.narrow_gradients,
                                   second_sum[i / 2], i % 2, 1.0f);
    }
}
