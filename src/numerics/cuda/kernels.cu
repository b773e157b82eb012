// All kernels, as one text.

#include "gemm.cu"
#include "rows.cu"
#include "elementwise.cu"
#include "logits.cu"
#include "attention.cu"
#include "benchmark.cu"
