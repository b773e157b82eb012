// Matrix products (the arithmetic contract, 1 and 2).

#include "device.cuh"

struct Product {
    const float *a, *b;
    float *c;
    // From a row to the next and from a column to the next.
    i64 a_row, a_column, b_row, b_column, c_row, c_column;
    int m, n, k, accumulate;
};

// Rows of tiles whose blocks run side by side.
#define NEARBY 8

// As many multiply-adds for each element that is read as registers allow.
#define NAME dpo_gemm_large
#define TILE_M 128
#define TILE_N 128
#define DEPTH 8
#define PER_M 8
#define PER_N 8
#define TOGETHER 2
#include "gemm.cuh"

// For products whose large tiles would leave processors without work.
#define NAME dpo_gemm_medium
#define TILE_M 64
#define TILE_N 64
#define DEPTH 16
#define PER_M 4
#define PER_N 4
#define TOGETHER 3
#include "gemm.cuh"

// For few rows, as in decoding: what counts is that all processors read B.
#define NAME dpo_gemm_few
#define TILE_M 16
#define TILE_N 64
#define DEPTH 16
#define PER_M 2
#define PER_N 4
#define TOGETHER 6
#include "gemm.cuh"
