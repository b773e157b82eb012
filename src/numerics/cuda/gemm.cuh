// One tiling of the matrix product: c[i, j] ← (accumulate ? c[i, j] : 0), then fma(a[i, p], b[p, j], c) for p ascending. A block computes
// TILE_M × TILE_N elements of C, a thread PER_M × PER_N of them in registers, over all of k: the chains never leave them.
//
// Included once for each tiling, with NAME, TILE_M, TILE_N, DEPTH, PER_M, PER_N and TOGETHER defined: how many blocks a
// processor's registers must hold.

#define THREADS_M (TILE_M / PER_M)
#define THREADS_N (TILE_N / PER_N)
#define THREADS (THREADS_M * THREADS_N)
// Neighbours in a thread's part: four are read from the shared tiles at once.
#define NEAR_M (PER_M % 4 ? PER_M : 4)
#define NEAR_N (PER_N % 4 ? PER_N : 4)
// Four more than a tile's lanes, so that lanes that are stored together fall into different banks.
#define STRIDE_M (TILE_M + 4)
#define STRIDE_N (TILE_N + 4)
#define LOADS_M (TILE_M * DEPTH / THREADS)
#define LOADS_N (TILE_N * DEPTH / THREADS)
#define PLACE(u, near, threads, t) ((u) / (near) * ((threads) * (near)) + (t) * (near) + (u) % (near))

BLOCK_KERNEL(NAME, Product, THREADS, TOGETHER) {
    SHARED float a_tiles[2][DEPTH * STRIDE_M];
    SHARED float b_tiles[2][DEPTH * STRIDE_N];
    int t = (int)threadIdx.x, row = t / THREADS_N, column = t % THREADS_N;

    // Blocks that run together take tiles of few rows and few columns.
    int across = (p.n + TILE_N - 1) / TILE_N, down = (p.m + TILE_M - 1) / TILE_M;
    int tile = (int)blockIdx.x, top = tile / (NEARBY * across) * NEARBY, rows = min(NEARBY, down - top);
    int within = tile - top * across;
    int i0 = (top + within % rows) * TILE_M, j0 = within / rows * TILE_N;

    float sums[PER_M][PER_N];
    UNROLL for (int u = 0; u < PER_M; u++) UNROLL for (int v = 0; v < PER_N; v++) {
        int i = i0 + PLACE(u, NEAR_M, THREADS_M, row), j = j0 + PLACE(v, NEAR_N, THREADS_N, column);
        sums[u][v] = p.accumulate && i < p.m && j < p.n ? p.c[i * p.c_row + j * p.c_column] : 0.0f;
    }

    // What this thread brings into the tiles, at equal steps of lanes or of depth: threads beside each other read along memory.
    int a_along = p.a_column == 1, a_lane = a_along ? t / DEPTH : t % TILE_M, a_depth = a_along ? t % DEPTH : t / TILE_M;
    int b_along = p.b_row == 1, b_lane = b_along ? t / DEPTH : t % TILE_N, b_depth = b_along ? t % DEPTH : t / TILE_N;
    int a_lanes = a_along ? THREADS / DEPTH : 0, a_depths = a_along ? 0 : THREADS / TILE_M;
    int b_lanes = b_along ? THREADS / DEPTH : 0, b_depths = b_along ? 0 : THREADS / TILE_N;
    const float *a_from = p.a + (i0 + a_lane) * p.a_row + a_depth * p.a_column;
    const float *b_from = p.b + (j0 + b_lane) * p.b_column + b_depth * p.b_row;
    i64 a_step = a_lanes * p.a_row + a_depths * p.a_column, b_step = b_lanes * p.b_column + b_depths * p.b_row;
    float a_next[LOADS_M], b_next[LOADS_N];
#define FETCH(first)                                                                                            \
    UNROLL for (int u = 0; u < LOADS_M; u++) {                                                                  \
        int there = i0 + a_lane + u * a_lanes < p.m && (first) + a_depth + u * a_depths < p.k;                  \
        a_next[u] = there ? a_from[u * a_step] : 0.0f;                                                          \
    }                                                                                                           \
    UNROLL for (int u = 0; u < LOADS_N; u++) {                                                                  \
        int there = j0 + b_lane + u * b_lanes < p.n && (first) + b_depth + u * b_depths < p.k;                  \
        b_next[u] = there ? b_from[u * b_step] : 0.0f;                                                          \
    }                                                                                                           \
    a_from += DEPTH * p.a_column;                                                                               \
    b_from += DEPTH * p.b_row;
#define STORE(buffer)                                                                                                           \
    UNROLL for (int u = 0; u < LOADS_M; u++) a_tiles[buffer][(a_depth + u * a_depths) * STRIDE_M + a_lane + u * a_lanes] = a_next[u]; \
    UNROLL for (int u = 0; u < LOADS_N; u++) b_tiles[buffer][(b_depth + u * b_depths) * STRIDE_N + b_lane + u * b_lanes] = b_next[u];
#define STEP(buffer, q)                                                                                                  \
    float a[PER_M], b[PER_N];                                                                                            \
    UNROLL for (int u = 0; u < PER_M; u++) a[u] = a_tiles[buffer][(q) * STRIDE_M + PLACE(u, NEAR_M, THREADS_M, row)];    \
    UNROLL for (int v = 0; v < PER_N; v++) b[v] = b_tiles[buffer][(q) * STRIDE_N + PLACE(v, NEAR_N, THREADS_N, column)]; \
    UNROLL for (int u = 0; u < PER_M; u++) UNROLL for (int v = 0; v < PER_N; v++) sums[u][v] = fused(a[u], b[v], sums[u][v]);

    FETCH(0)
    STORE(0)
    __syncthreads();
    int buffer = 0;
    for (int first = 0; first < p.k; first += DEPTH) {
        int more = first + DEPTH < p.k;
        if (more) {
            FETCH(first + DEPTH)
        }
        if (first + DEPTH <= p.k) {
            UNROLL for (int q = 0; q < DEPTH; q++) {
                STEP(buffer, q)
            }
        } else {
            // A step beyond k would turn −0 into +0.
            for (int q = 0; q < p.k - first; q++) {
                STEP(buffer, q)
            }
        }
        if (more) {
            STORE(1 - buffer)
        }
        __syncthreads();
        buffer = 1 - buffer;
    }

    UNROLL for (int u = 0; u < PER_M; u++) UNROLL for (int v = 0; v < PER_N; v++) {
        int i = i0 + PLACE(u, NEAR_M, THREADS_M, row), j = j0 + PLACE(v, NEAR_N, THREADS_N, column);
        if (i < p.m && j < p.n) p.c[i * p.c_row + j * p.c_column] = sums[u][v];
    }
}

#undef STEP
#undef STORE
#undef FETCH
#undef PLACE
#undef LOADS_N
#undef LOADS_M
#undef STRIDE_N
#undef STRIDE_M
#undef NEAR_N
#undef NEAR_M
#undef THREADS
#undef THREADS_N
#undef THREADS_M
#undef PER_N
#undef PER_M
#undef DEPTH
#undef TILE_N
#undef TILE_M
#undef TOGETHER
#undef NAME
